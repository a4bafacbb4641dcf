from __future__ import annotations

from dataclasses import replace

import pytest

from neural_coder import verdict
from neural_coder.records import Accuracy, Criterion, Ending, Feature, Interval, Plan, Run, SiteTiming, Verdict, Witness

PLAN = Plan(features=(Feature(name="bf16"),), backend="torch")
KEPT = Accuracy(criterion="top-1 agreement", verified=True, kept=True, loss=0.0, allowed=0.01, reason="All rows agree.")
LOST = replace(KEPT, kept=False, loss=0.2, reason="8 of 10 rows have the same largest entry.")
UNVERIFIED = replace(
    KEPT, verified=False, kept=False, loss=None, reason="The outputs prove nothing: they are constant."
)
JITTER = (1.0, 1.01, 0.99, 1.005, 0.995)


def runs(seconds: float, rounds: int = 5, warmup: tuple[float, ...] = ()) -> list[Run]:
    return [
        Run(
            ending=Ending(kind="ok"),
            timings=(
                SiteTiming(site="a", kind="inference", calls=9, warmup=warmup, samples=(seconds * JITTER[i % 5],) * 5),
            ),
            peak_memory_bytes=1000 + i,
        )
        for i in range(rounds)
    ]


def ended(kind: str, **facts: object) -> Run:
    return Run(ending=Ending(kind=kind, **facts))  # type: ignore[arg-type]


def judge(
    variant: list[Run],
    accuracy: Accuracy | None = KEPT,
    *,
    baseline: list[Run] | None = None,
    no_effect: str = "",
    idle: str = "",
    final: bool = True,
    plan: Plan = PLAN,
) -> Verdict:
    found = verdict.judge(
        plan,
        baseline=runs(1.0) if baseline is None else baseline,
        variant=variant,
        accuracy=accuracy,
        no_effect=no_effect,
        criterion=Criterion(),
        final=final,
        idle=idle,
    )
    assert found.reason.endswith(".")
    return found


def test_a_variant_that_is_surely_faster_and_keeps_the_answers_is_faster() -> None:
    found = judge(runs(0.5))
    assert found.status == "faster"
    assert found.speedup is not None
    assert found.speedup.median == pytest.approx(2.0, rel=0.02)
    assert found.rounds == 5
    assert found.peak_memory_bytes == 1004
    assert "×2.00 in 5 rounds" in found.reason
    assert "all rows agree" in found.reason


def test_a_slower_variant_is_slower() -> None:
    assert judge(runs(2.0)).status == "slower"


def test_no_measurable_difference_is_a_proper_answer() -> None:
    found = judge(runs(1.0))
    assert found.status == "same"
    assert "No measurable difference" in found.reason


SHAKY = (0.6, 1.1, 0.7, 1.2, 0.65)


def test_a_gain_whose_interval_reaches_below_the_minimum_cannot_be_told() -> None:
    found = judge([runs(seconds, 1)[0] for seconds in SHAKY])
    assert found.speedup is not None
    assert found.speedup.median > 1.03
    assert found.status == "undecided"
    assert found.reason.startswith("Cannot tell in 5 rounds: ×1.4")
    assert verdict.choose([found]) is None


def test_what_cannot_be_told_says_what_was_seen() -> None:
    busy = [replace(runs(seconds, 1)[0], disturbed=0.4, stolen=0.1) for seconds in SHAKY]
    found = judge(busy, baseline=[runs(seconds, 1)[0] for seconds in (1.0, 1.5, 1.0, 1.1, 1.0)])
    assert "for up to 40% of the time other programs had the cores" in found.reason.lower()
    assert "the hypervisor took away up to 10%" in found.reason
    assert "runs of the original differed by up to 50%" in found.reason


def test_the_conclusion_says_that_the_machine_is_too_noisy() -> None:
    found = judge([runs(seconds, 1)[0] for seconds in SHAKY])
    assert "whether bf16 would be faster cannot be told" in verdict.conclusion(None, [found, judge(runs(2.0))])


def test_an_original_that_is_faster_than_itself_proves_that_nothing_can_be_told() -> None:
    drifting = [runs(seconds, 1)[0] for seconds in (2.0, 1.0, 2.0, 1.0, 2.0, 1.0)]
    found = judge(runs(0.5, 6), baseline=drifting)
    assert found.status == "undecided"
    assert "the original came out ×2" in found.reason


def test_a_gain_beyond_all_that_the_original_differs_from_itself_is_believed() -> None:
    drifting = [runs(seconds, 1)[0] for seconds in (2.0, 1.0, 2.0, 1.0, 2.0, 1.0)]
    assert judge(runs(0.1, 6), baseline=drifting).status == "faster"
    once = [runs(seconds, 1)[0] for seconds in (1.36, 1.0, 1.2)]
    assert judge(runs(0.3, 3), baseline=once).status == "faster"
    assert judge(runs(0.85, 3), baseline=once).status == "undecided"


def restless(seconds: float, cpu: float, rounds: int = 5) -> list[Run]:
    """Runs in which two threads never had the cores for themselves."""
    found = []
    for run in runs(seconds, rounds):
        timing = replace(run.timings[0], cpu=(cpu,) * 5, waited=(seconds,) * 5)
        found.append(replace(run, timings=(timing,), disturbed=0.5))
    return found


def test_a_processor_that_changed_its_speed_is_told_where_nothing_can_be_decided() -> None:
    shaky = [
        replace(run, timings=(replace(run.timings[0], pace=(1e-4 * (1 + number % 2),) * 5),))
        for number, run in enumerate(runs(seconds, 1)[0] for seconds in SHAKY)
    ]
    found = judge(shaky)
    assert found.status == "undecided"
    assert "The processor itself was up to ×2.00 as fast at other times" in found.reason


def test_a_gain_that_the_clock_does_not_show_is_not_believed() -> None:
    def met(seconds: float, slower: tuple[float, ...]) -> list[Run]:
        """Runs of the same program; in each, another machine comes for the last calls and makes them slower."""
        found = []
        for run in runs(seconds, len(slower)):
            number = len(found)
            calls = tuple(seconds * factor for factor in (1.0, slower[number], slower[number], slower[number], 1.0))
            paces = tuple(1e-4 * factor for factor in (1.0, slower[number], slower[number], slower[number], 1.0))
            found.append(replace(run, timings=(replace(run.timings[0], samples=calls, pace=paces),)))
        return found

    unlucky = judge(met(0.9, (1.7, 1.7, 1.7, 1.7, 1.0)), baseline=met(1.0, (1.0, 1.0, 1.0, 1.0, 1.7)))
    assert unlucky.status == "undecided"
    assert "by the clock" in unlucky.reason
    lucky = judge(met(0.9, (1.7, 1.0, 1.7, 1.0, 1.0)), baseline=met(1.0, (1.0, 1.7, 1.0, 1.7, 1.0)))
    assert lucky.status == "faster"


def test_no_gain_is_believed_against_the_cpu_time_when_the_cores_were_never_free() -> None:
    found = judge(restless(0.5, cpu=2.0, rounds=10), baseline=restless(1.0, cpu=1.5, rounds=10))
    assert found.status == "undecided"
    assert "more CPU time than the original" in found.reason
    assert judge(restless(0.5, 1.0, rounds=10), baseline=restless(1.0, 1.5, rounds=10)).status == "faster"


def test_few_rounds_prove_nothing_when_the_cores_were_never_free() -> None:
    found = judge(restless(0.5, cpu=1.0, rounds=9), baseline=restless(1.0, cpu=1.5, rounds=9))
    assert found.status == "undecided"
    assert "too few rounds for so busy a machine" in found.reason


def test_a_first_look_at_a_busy_machine_decides_nothing() -> None:
    found = judge(restless(2.0, cpu=3.0, rounds=1), baseline=restless(1.0, cpu=1.5, rounds=1), final=False)
    assert found.status == "undecided"


def test_a_gain_below_the_minimum_is_the_same() -> None:
    assert judge(runs(0.99)).status == "same"


def test_lost_answers_count_before_speed() -> None:
    found = judge(runs(0.1), LOST)
    assert found.status == "inaccurate"
    assert found.reason == LOST.reason
    assert found.speedup is not None


@pytest.mark.parametrize("accuracy", [None, UNVERIFIED])
def test_what_is_not_verified_never_wins(accuracy: Accuracy | None) -> None:
    found = judge(runs(0.1), accuracy)
    assert found.status == "unverified"
    assert "It would be ×10" in found.reason
    assert verdict.choose([found]) is None


def test_an_edit_without_effect_is_not_called_faster() -> None:
    found = judge(runs(0.5), no_effect="compile: no graph was compiled")
    assert found.status == "no_effect"
    assert found.reason == "compile: no graph was compiled."


def test_a_combination_is_judged_by_its_speed_when_only_a_part_of_it_had_an_effect() -> None:
    found = judge(runs(0.5), idle="compile: no graph was compiled")
    assert found.status == "faster"
    assert found.idle == "compile: no graph was compiled"
    assert found.reason.endswith("Without effect in it: compile: no graph was compiled.")


def test_answers_that_the_runtime_refused_are_inaccurate() -> None:
    reason = "the runtime ran the original model: an output has NaN, first behind encoder.3 (Linear)"
    refused = [replace(run, witness=Witness(inaccurate=True, fallback=reason)) for run in runs(0.5)]
    found = judge(refused, no_effect=reason)
    assert found.status == "inaccurate"
    assert "first behind encoder.3" in found.reason
    assert judge(refused, idle=reason).status == "inaccurate"


def test_a_crash_is_told_with_the_last_line_of_its_traceback() -> None:
    tail = "Traceback (most recent call last):\n  File 'x'\nRuntimeError: expected Float but found BFloat16\n\n"
    found = judge([ended("crashed", code=1, stderr_tail=tail)])
    assert found.status == "failed"
    assert found.reason == "It crashed (exit status 1): RuntimeError: expected Float but found BFloat16."


def test_one_crash_among_good_rounds_fails_a_variant() -> None:
    assert judge([*runs(0.1, 4), ended("crashed", code=-11)]).status == "failed"
    assert "(signal 11)" in judge([*runs(0.1, 4), ended("crashed", code=-11)]).reason


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (ended("timed_out"), "time limit"),
        (ended("timed_out", message="Stopped after 300 s."), "Stopped after 300 s."),
        (ended("no_result"), "without a result"),
        (ended("no_calls"), "without reaching a measured call"),
        (ended("unusable", message="torch is missing"), "torch is missing."),
        (ended("unusable", stderr_tail="ModuleNotFoundError: No module named 'torch'"), "No module named 'torch'."),
        (ended("crashed", message="ValueError: no", stderr_tail="ValueError: no"), "ValueError: no."),
        (ended("crashed", stderr_tail="x" * 5000), "…."),
    ],
)
def test_every_end_has_its_sentence(run: Run, words: str) -> None:
    found = judge([run])
    assert found.status == "failed"
    assert words in found.reason
    assert len(found.reason) < 400


def test_a_plan_that_cannot_be_tried_is_skipped_with_its_reason() -> None:
    found = judge([], plan=replace(PLAN, skipped="no C++ compiler was found"))
    assert (found.status, found.reason) == ("skipped", "no C++ compiler was found.")


def test_a_variant_that_was_not_run_is_skipped() -> None:
    assert judge([]).status == "skipped"


def test_without_a_speed_nothing_is_faster() -> None:
    nowhere = [Run(ending=Ending(kind="ok"))] * 5
    assert judge(nowhere).status == "unverified"
    assert judge(runs(0.1), baseline=[]).status == "unverified"


def test_a_first_look_says_so_and_cannot_be_chosen() -> None:
    found = judge(runs(0.5, 1), final=False)
    assert found.status == "faster"
    assert "first look (1 round)" in found.reason
    assert verdict.choose([found]) is None


def test_a_single_round_is_no_final_proof() -> None:
    assert judge(runs(0.5, 1)).status == "unverified"


def test_start_up_is_what_the_variant_costs_beyond_the_baseline() -> None:
    found = judge(runs(0.5, warmup=(40.5,)), baseline=runs(1.0, warmup=(3.0,)))
    assert found.startup_seconds == pytest.approx(38.0, abs=0.1)
    assert found.break_even_calls == pytest.approx(76, abs=1)


def test_what_never_pays_off_has_no_break_even() -> None:
    found = judge(runs(1.5, warmup=(40.0,)))
    assert found.break_even_calls is None
    assert found.startup_seconds is not None


# --- choosing


def faster(low: float, *features: str, rounds: int = 5) -> Verdict:
    plan = Plan(features=tuple(Feature(name=name) for name in features), backend="torch")
    speedup = Interval(median=low + 0.1, low=low, high=low + 0.2)
    return Verdict(plan=plan, status="faster", reason="", speedup=speedup, accuracy=KEPT, rounds=rounds)


def test_the_low_end_of_the_interval_decides() -> None:
    sure = faster(1.5, "bf16")
    lucky = replace(faster(1.2, "compile"), speedup=Interval(median=2.0, low=1.2, high=3.0))
    assert verdict.choose([lucky, sure]) is sure


def test_fewer_features_decide_between_equals() -> None:
    plain = faster(1.5, "compile")
    assert verdict.choose([faster(1.5, "bf16", "compile"), plain]) is plain


def test_a_patch_without_idle_features_is_chosen_unless_it_gains_much_less() -> None:
    idle = replace(faster(1.51, "bf16", "compile"), idle="compile: no graph was compiled")
    plain = faster(1.5, "bf16")
    assert verdict.choose([idle, plain]) is plain
    assert verdict.choose([idle, faster(1.3, "channels_last")]) is idle


@pytest.mark.parametrize(
    "status", ["same", "slower", "undecided", "inaccurate", "unverified", "no_effect", "failed", "skipped"]
)
def test_only_faster_variants_are_chosen(status: str) -> None:
    assert verdict.choose([replace(faster(9.0, "bf16"), status=status)]) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "missing", [{"accuracy": None}, {"speedup": None}, {"accuracy": UNVERIFIED}, {"accuracy": LOST}, {"rounds": 1}]
)
def test_a_missing_number_never_wins(missing: dict[str, object]) -> None:
    assert verdict.choose([replace(faster(9.0, "bf16"), **missing)]) is None  # type: ignore[arg-type]


def test_nothing_to_choose_from_keeps_the_script() -> None:
    assert verdict.choose([]) is None
    assert verdict.conclusion(None, []).startswith("Keep your script")
    assert "1 variant tried" in verdict.conclusion(None, [judge(runs(1.0))])


def test_the_conclusion_names_what_looked_faster_without_proof() -> None:
    found = judge(runs(0.1), UNVERIFIED)
    assert "Looked faster, but without proof: bf16." in verdict.conclusion(None, [found])


def test_the_conclusion_says_why_the_winner_won() -> None:
    found = judge(runs(0.5))
    assert verdict.conclusion(found, [found, faster(1.1, "compile")]).startswith("Use bf16: ×2.00 in 5 rounds")
