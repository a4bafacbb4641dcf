"""What a search answers that is interrupted: the best that was verified so far, and how well it is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from neural_coder.bench.protocol import Job
from neural_coder.candidate import Candidate
from neural_coder.race import CONFIRMATIONS, Bench, Clock, Race
from neural_coder.race import Result as Found
from neural_coder.records import Comparison, Criterion, Ending, Feature, Plan, Run, SiteTiming, Witness

SAME = Comparison(
    calls=3,
    same_inputs=True,
    rows=10,
    top1_agreement=1.0,
    relative_error=0.0,
    exact_agreement=None,
    not_finite=0,
)
FAST, WRONG, SLOW = "inference_mode", "channels_last", "torchscript"


def candidate(name: str) -> Candidate:
    return Candidate(plan=Plan(features=(Feature(name=name),), backend="torch"), patches=(), probes={})


def figures(seconds: float, comparison: Comparison = SAME) -> Run:
    samples = tuple(seconds * (1 + 0.01 * number) for number in range(9))
    timing = SiteTiming(site="a", kind="inference", calls=9, warmup=(seconds,), samples=samples)
    # Of all features at work.
    witness = Witness(inference_mode=seconds == 0.05, channels_last_outputs=3, scripted=True)
    return Run(ending=Ending(kind="ok"), timings=(timing,), comparison=comparison, witness=witness, wall_seconds=1.0)


def answers(job: Job) -> Run:
    """What each variant would do, without doing it: which run comes when is what these tests are about."""
    name = job.plan.id if job.plan else ""
    if name == WRONG:
        return figures(0.01, replace(SAME, top1_agreement=0.1, relative_error=3.0))
    return figures({"": 0.1, FAST: 0.05, SLOW: 0.09}[name])


def interrupted_after(calls: int) -> tuple[Found, list[Job]]:
    made: list[Job] = []

    def run(job: Job) -> Run:
        if len(made) == calls:
            raise KeyboardInterrupt
        made.append(job)
        return answers(job)

    here = Path(__file__)
    job = Job(python=here, script=here, cwd=here.parent, root=here.parent)
    race = Race(
        bench=Bench(job=job, folder=here.parent, criterion=Criterion(), run=run),
        task="inference",
        first=figures(0.1, comparison=SAME),
        control=figures(0.1),
        clock=Clock(budget=1000.0),
        say=lambda _: None,
    )
    found = race.run_or_stop([candidate(name) for name in (FAST, WRONG, SLOW)])
    return found, made


def test_before_the_first_look_there_is_no_answer():
    with pytest.raises(KeyboardInterrupt):
        interrupted_after(0)


def test_after_first_looks_the_fastest_right_one_is_the_answer_and_the_others_are_named():
    found, _ = interrupted_after(2)
    assert found.ended == "interrupted"
    assert found.evidence == "first look"
    assert found.chosen is not None
    assert found.chosen.plan.id == FAST
    assert found.candidate is not None
    assert found.confirmed is None
    status = {verdict.plan.id: verdict.status for verdict in found.verdicts}
    assert status == {FAST: "faster", WRONG: "inaccurate", SLOW: "skipped"}


def test_after_three_rounds_they_are_the_evidence():
    looks, finalists = 3, 1
    found, made = interrupted_after(looks + 3 * (1 + finalists) + 1)
    assert [job.purpose for job in made][: looks + 6] == ["look"] * looks + ["round"] * 6
    assert found.evidence == "rounds"
    assert found.chosen is not None
    assert found.chosen.rounds == 3
    assert len(found.baseline) == 3


def test_a_search_that_comes_to_its_end_says_so():
    found, made = interrupted_after(10**6)
    assert found.ended == "complete"
    assert found.evidence == "confirmed"
    purposes = [job.purpose for job in made]
    assert list(dict.fromkeys(purposes)) == ["look", "round", "confirmation"]
    assert purposes.count("confirmation") == 2 * CONFIRMATIONS
