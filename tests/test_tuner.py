"""Which variants are tuned, and how the trials' points become variants."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from neural_coder import planner, registry
from neural_coder.bench.protocol import Job
from neural_coder.candidate import Candidate
from neural_coder.race import OPEN, Bench, Clock, Race, Standing
from neural_coder.records import (
    Accuracy,
    Criterion,
    Ending,
    Feature,
    Interval,
    Operator,
    Run,
    SiteTiming,
    Verdict,
    Witness,
)
from neural_coder.tuning.outcome import Wish
from neural_coder.tuning.tuner import Tuner

OPERATORS = (
    Operator(name="b", kind="Linear", error=0.5, impact=0.4),
    Operator(name="a", kind="Linear", error=0.01, impact=0.01),
)


class KnownBench(Bench):
    """A bench on which every run is known: without operator `b` in floating point the answers are lost."""

    def look(self, candidate):
        return Run(ending=Ending(kind="ok"), wall_seconds=1.0)

    def operators(self, candidate):
        return Run(ending=Ending(kind="ok"), operators=OPERATORS)


class KnownRace(Race):
    """A race that judges by what is excluded."""

    def _judge(self, plan, baseline, runs, *, final, look=None):
        excluded = {name for feature in plan.features for name in dict(feature.settings).get("exclude", ())}
        kept = "b" in excluded
        return verdict(plan, gain=4.0 - 0.1 * len(excluded), kept=kept)


def verdict(plan, *, gain, kept):
    return Verdict(
        plan=plan,
        status="faster" if kept else "inaccurate",
        reason="It was looked at.",
        speedup=Interval(median=gain, low=gain, high=gain),
        accuracy=Accuracy(
            criterion="", verified=True, kept=kept, loss=0.0 if kept else 0.3, allowed=0.01, relative_error=0.3
        ),
    )


def plan(*features):
    return planner.plan_for([registry.parse_feature(feature) for feature in features], "inference")


def candidate(plan):
    return Candidate(plan=plan, patches=(), probes={})


def race(tmp_path, *looks):
    run = Run(ending=Ending(kind="ok"), wall_seconds=1.0)
    job = Job(python=Path("python"), script=tmp_path / "s.py", cwd=tmp_path, root=tmp_path)
    found = KnownRace(
        bench=KnownBench(job=job, folder=tmp_path, criterion=Criterion()),
        task="inference",
        first=run,
        control=run,
        clock=Clock(budget=1000.0),
        say=lambda sentence: None,
    )
    for name, gain, kept, refused in looks:
        one = plan(name)
        look = Run(ending=Ending(kind="ok"), wall_seconds=1.0, witness=Witness(inaccurate=refused))
        found.standings.append(
            Standing(candidate=candidate(one), look=look, verdict=verdict(one, gain=gain, kept=kept))
        )
    return found


def tuned(race, strategy="mse", **wish):
    tuner = Tuner(Wish(strategy=strategy, **wish), candidate)
    tuner(race)
    return tuner


def test_a_fast_variant_that_loses_too_much_is_tuned_and_joins_the_race(tmp_path):
    running = race(tmp_path, ("int8_static=openvino", 4.0, False, False), ("bf16_weights", 2.0, True, False))
    tuner = tuned(running)
    (found,) = tuner.found
    assert found.of == "inference_mode+int8_static=openvino"
    assert found.best == "inference_mode+int8_static_bf16=openvino:exclude=b"
    assert found.best in {
        standing.candidate.plan.id for standing in running.standings if standing.verdict.status in OPEN
    }
    assert Feature(name="int8_static_bf16", value="openvino", settings=(("exclude", ("b",)),)) in next(
        one.plan.features for one in tuner.candidates if one.plan.id == found.best
    )


def test_a_loss_in_a_metrics_own_unit_is_not_mixed_with_errors_of_outputs(tmp_path):
    class AbsoluteRace(KnownRace):
        def _judge(self, *args, **kwargs):
            found = super()._judge(*args, **kwargs)
            return replace(found, accuracy=replace(found.accuracy, absolute=True, allowed=0.5))

    relative, other = (race(tmp_path, ("int8_static=openvino", 4.0, False, False)) for _ in range(2))
    absolute = AbsoluteRace(**{each.name: getattr(other, each.name) for each in fields(Race) if each.init})
    losses = {trial.kept: trial.loss for _, trial in tuned(relative).found[0].trials}
    assert losses == {False: pytest.approx(30), True: pytest.approx(3)}
    losses = {trial.kept: trial.loss for _, trial in tuned(absolute).found[0].trials[1:]}
    assert losses[True] == 0
    assert losses.get(False, 0.6) == 0.6


def test_the_culprit_is_named_where_quantization_failed(tmp_path):
    running = race(tmp_path, ("int8_static=openvino", 4.0, False, False), ("bf16_weights", 2.0, True, False))
    tuned(running)
    reasons = [standing.verdict.reason for standing in running.standings[:2]]
    assert reasons[0].endswith("Most sensitive is b (Linear): quantized alone it changes the outputs by 40 %.")
    assert reasons[1] == "It was looked at."


def test_what_could_not_win_anyway_is_not_tuned_and_the_reason_is_told(tmp_path):
    behind = tuned(race(tmp_path, ("int8_static=openvino", 3.0, False, False), ("bf16", 3.5, True, False)))
    slower = tuned(race(tmp_path, ("int8_static=openvino", 0.8, False, False)))
    assert not behind.found
    assert not slower.found
    name = "inference_mode+int8_static=openvino"
    assert behind.notes == [f"Not tuned, as it would be no faster than what keeps the answers (×3.50): {name} (×3.00)."]
    assert slower.notes == [f"Not tuned, as it would be no faster than the original: {name} (×0.80)."]


def test_what_cannot_be_tuned_or_need_not_be_is_left_alone(tmp_path):
    for look in (("bf16_weights", 3.0, False, False), ("int8_static=openvino", 3.0, True, False)):
        nothing = tuned(race(tmp_path, look))
        assert (nothing.found, nothing.notes) == ([], [])


def test_a_refused_variant_is_tuned_though_another_of_its_engine_is_too_slow(tmp_path):
    looks = (("int8_static=openvino", 0.8, False, False), ("int8_static_bf16=openvino", 1.0, False, True))
    tuner = tuned(race(tmp_path, *looks))
    assert [found.of for found in tuner.found] == ["inference_mode+int8_static_bf16=openvino"]
    assert not tuner.notes


def test_a_variant_whose_answers_the_runtime_refused_is_tuned_though_it_was_not_fast(tmp_path):
    assert tuned(race(tmp_path, ("int8_static=openvino", 1.0, False, True), ("bf16", 3.5, True, False))).found


def test_each_engine_is_tuned_once_the_fastest_first_within_the_trials_of_the_search(tmp_path):
    looks = [
        ("int8_static=onnxruntime", 3.0, False, False),
        ("int8_static=openvino", 4.0, False, False),
        ("int8_static_bf16=openvino", 4.5, False, False),
    ]
    found = tuned(race(tmp_path, *looks), max_trials=20).found
    assert [one.of.partition("+")[2] for one in found] == ["int8_static_bf16=openvino", "int8_static=onnxruntime"]
    short = tuned(race(tmp_path, *looks), max_trials=2)
    assert [one.engine for one in short.found] == ["openvino"]
    assert short.notes == ["Not tuned, as --max-trials was used up: inference_mode+int8_static=onnxruntime (×3.00)."]
    assert not tuned(race(tmp_path, *looks), max_trials=0).found


@pytest.mark.parametrize("strategy", ["basic", "mse", "random"])
def test_a_precision_that_the_processor_does_not_have_is_asked_for_once(tmp_path, strategy):
    class WithoutBfloat16(KnownRace):
        def _judge(self, plan, *args, **kwargs):
            found = super()._judge(plan, *args, **kwargs)
            has_effect = "int8_static_bf16" not in {feature.name for feature in plan.features}
            return found if has_effect else replace(found, status="no_effect")

    known = race(tmp_path, ("int8_static=openvino", 4.0, False, False))
    running = WithoutBfloat16(**{each.name: getattr(known, each.name) for each in fields(Race) if each.init})
    (found,) = tuned(running, strategy, max_trials=8).found
    points = [trial.point for _, trial in found.trials]
    assert [point.fallback for point in points if not point.exclude].count("bf16") == 1
    assert {point.fallback for point in points[1:]} == {"fp32"}
    assert found.best


def test_settings_and_samples_that_were_given_stay(tmp_path):
    tuner = tuned(race(tmp_path, ("int8_static=openvino:8:exclude=head:preset=mixed", 4.0, False, False)))
    best = next(one.plan for one in tuner.candidates if one.plan.id == tuner.found[0].best)
    assert "int8_static_bf16=openvino:8:exclude=head:exclude=b:preset=mixed" in map(str, best.features)


def test_every_point_of_a_space_is_a_variant_of_its_own(tmp_path):
    tuner = tuned(race(tmp_path, ("int8_static=openvino", 4.0, False, False)), "random", max_trials=30, seed=3)
    identifiers = [identifier for identifier, _ in tuner.found[0].trials]
    assert len(set(identifiers)) == len(identifiers) == 30
    points = [trial.point for _, trial in tuner.found[0].trials]
    assert any(dict(point.settings).get("calibration") == 100 for point in points)
    assert any("=openvino:100" in identifier for identifier in identifiers)


def test_more_samples_than_the_script_has_calls_are_not_tried(tmp_path):
    running = race(tmp_path, ("int8_static=openvino", 4.0, False, False))
    few = SiteTiming(site="s.py:inference:0", kind="inference", calls=60, warmup=(), samples=(), items=1)
    for standing in running.standings:
        standing.look = replace(standing.look, timings=(few,), ended_by_itself=True)
    tuner = tuned(running, "random", max_trials=30, seed=3)
    assert not any("calibration" in dict(trial.point.settings) for _, trial in tuner.found[0].trials)
