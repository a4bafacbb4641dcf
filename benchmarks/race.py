"""What the race between variants saves on real scripts, and what it loses by that.

    python benchmarks/race.py [SCRIPT ...] [--budget 20m] [--rounds 3]

Each script is optimized by the command line. Then everything is measured fully, as one would without a race: all
variants that run are measured in every round, in turns with the original. Compared are the time that both take, and the
speed of the variant that the race chose with that of the best of the full measurement: directly, in further rounds of
the two, as the best of many noisy figures is too good. Where the race went on for more rounds, the time of a full
measurement of as many is reckoned from that of the rounds that were made. Further figures are the shares of only these,
and without those of variants with wrong answers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from searches import FIXTURES, searched

from neural_coder import candidate, interpreters, planner, registry
from neural_coder.analysis import Project, analyze_script
from neural_coder.bench import accuracy, stats
from neural_coder.bench.protocol import Job
from neural_coder.candidate import Candidate
from neural_coder.race import CONFIRMATIONS, FEWEST_ROUNDS, Bench, safety_of, without_effect
from neural_coder.records import Analysis, Criterion, Interval, Run, Task

SCRIPTS = ("sensor_service.py", "train_plain.py", "digits_train_eval.py")
MOST_TIME = 0.40
MOST_LOST = 0.03
DUELS = 10
"""Rounds between the two winners, where they differ."""


@dataclass(slots=True)
class Full:
    """A measurement without a race."""

    seconds: float = 0.0
    seconds_wrong: float = 0.0
    """Of these, for variants whose answers are wrong, after their first run."""
    seconds_later: float = 0.0
    """Of these, for rounds after the first one, in which conversions are known."""
    ran: int = 0
    gains: dict[str, float] = field(default_factory=lambda: {"": 1.0})
    """Median speed-up of each variant whose answers are right, by its id; empty for the original."""
    lead: Interval | None = None
    """How many times faster the best is than the one that the race chose, where that is another one."""

    @property
    def best(self) -> str:
        """The id of the fastest one; empty when that is the original."""
        return max(self.gains, key=lambda name: self.gains[name])


def main() -> None:
    """Race, measure fully, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="*", default=SCRIPTS, help="of fixtures/scripts; no arguments of theirs")
    parser.add_argument("--budget", default="20m", help="for each search; it should not end one")
    parser.add_argument("--rounds", type=int, default=FEWEST_ROUNDS, help="of the full measurement, at least 2")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds must be at least 2: the first one pays for conversions.")
    good = [compared(script, options.budget, options.rounds) for script in options.scripts]
    sys.exit(not all(good))


def compared(script: str, budget: str, rounds: int) -> bool:
    """Print a script's comparison; whether both goals are reached."""
    race = searched(script, "--budget", budget, "--max-trials", "0")
    looked = sum(variant["status"] not in ("skipped", "failed") for variant in race["variants"])
    print(f"{script}: race {race['seconds']:.0f} s, {race['ended']}, {looked} variants run", flush=True)
    full = fully(FIXTURES / script, race["chosen"] or "", rounds)
    share, strict = race["seconds"] / full.seconds, race["seconds"] / (full.seconds - full.seconds_wrong)
    # What the race needed to be sure of its answer, a full measurement needs for each variant.
    needed = max([rounds, *(variant["rounds"] for variant in race["variants"])])
    fair = race["seconds"] / (full.seconds + full.seconds_later * (needed - rounds) / (rounds - 1))
    lost = 1 - 1 / full.lead.median if full.lead else float(full.best != (race["chosen"] or ""))
    good = fair <= MOST_TIME and lost <= MOST_LOST
    lead = (
        f"×{full.lead.median:.3f} [{full.lead.low:.3f}–{full.lead.high:.3f}]"
        if full.lead
        else "no figures"
        if lost
        else "the same"
    )
    print(
        f"  full {full.seconds:.0f} s, {full.ran} variants run, {len(full.gains) - 1} with the right answers\n"
        f"  time: {fair:.0%} of {needed} rounds for all (at most {MOST_TIME:.0%}); {share:.0%} of {rounds} rounds, "
        f"{strict:.0%} without those of wrong answers\n"
        f"  chosen {race['chosen'] or 'original'}, best {full.best or 'original'} ×{full.gains[full.best]:.2f}; "
        f"directly: {lead}, {max(lost, 0):.1%} behind (at most {MOST_LOST:.0%}){'' if good else '  MISSED'}",
        flush=True,
    )
    return good


def fully(script: Path, chosen: str, rounds: int) -> Full:
    """Measure every variant that runs in every round, and confirm the winner; then the race's winner against it."""
    python = Path(sys.executable)
    project = Project.find(script, python)
    analyses = analyze_script(script, project)
    job = Job(
        python=python,
        script=script,
        cwd=script.parent,
        root=project.root,
        probes=candidate.probes(analyses, project.root),
    )
    full, began = Full(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(job=job, folder=Path(folder), criterion=Criterion())
        first, control = bench.first_baseline(), bench.control()
        task = stats.task_of(first) or "inference"
        built = {item.plan.id: item for item in _variants(task, first, project, analyses)}
        before: list[Run] = []
        after: dict[str, list[Run]] = {name: [] for name in built}
        for number in range(rounds):
            start = time.monotonic()
            before.append(bench.baseline())
            for name, runs in after.items():
                if number and not runs[0].ok:
                    continue
                runs.append(bench.variant(built[name]))
                right = number == 0 or _is_right(built[name], task, first, control, runs[0])
                full.seconds_wrong += 0.0 if right else runs[-1].wall_seconds
            full.seconds_later += time.monotonic() - start if number else 0.0
        for name, runs in after.items():
            full.ran += runs[0].ok
            right = runs[0].ok and _is_right(built[name], task, first, control, runs[0])
            ratio = stats.speedup(before, runs, task) if right else None
            if ratio is not None:
                full.gains[name] = ratio.median
        for _ in range(CONFIRMATIONS if full.best else 0):
            bench.baseline()
            bench.variant(built[full.best])
        full.seconds = time.monotonic() - began
        if full.best != chosen:
            pair = [built.get(chosen), built.get(full.best)]
            turns = [[bench.variant(item) if item else bench.baseline() for item in pair] for _ in range(DUELS)]
            full.lead = stats.speedup([one for one, _ in turns], [other for _, other in turns], task)
    return full


def _variants(task: Task, first: Run, project: Project, analyses: Sequence[Analysis]) -> Iterator[Candidate]:
    """All that can be tried here, whether the race gives them a look or not."""
    python = Path(sys.executable)
    installed = interpreters.look(python, {}, needed=())
    available = {name: installed.why_skipped(name) for name in registry.backends()}
    for plan in planner.automatic_plans(task, available=available, gpu=installed.script.cuda):
        if plan.skipped:
            continue
        built = candidate.build(planner.fitted(plan, first), project, analyses)
        if isinstance(built, Candidate):
            yield built


def _is_right(item: Candidate, task: Task, first: Run, control: Run, run: Run) -> bool:
    """Whether a variant took effect and kept the answers."""
    if without_effect(item.plan, first, run)[1]:
        return False
    safety = safety_of(item.plan)
    found = accuracy.check(task, criterion=Criterion(), safety=safety, baseline=first, control=control, variant=run)
    return found.verified and found.kept


if __name__ == "__main__":
    main()
