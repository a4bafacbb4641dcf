"""What a reader is told of run configurations: a row for each, and which is best for what."""

from __future__ import annotations

import json
from dataclasses import replace

from neural_coder.records import ConfigurationResult, Interval, RunConfiguration, Sweep
from neural_coder.report import as_json, sweep_json, sweep_text


def about(value: float) -> Interval:
    return Interval(median=value, low=value * 0.98, high=value * 1.02)


USUAL = RunConfiguration(cores_per_instance=4, threads=4)
ORIGINAL = ConfigurationResult(
    configuration=USUAL,
    variant=None,
    status="measured",
    latency=about(0.010),
    slowest=about(0.010),
    throughput=about(400.0),
    rounds=3,
    commands=("env OMP_NUM_THREADS=4 taskset --cpu-list 0,1,2,3 python a.py",),
)
QUICK = replace(ORIGINAL, variant="bf16", latency=about(0.005), slowest=about(0.005), throughput=about(800.0))
MANY = replace(
    ORIGINAL,
    variant="bf16",
    configuration=replace(USUAL, instances=4, cores_per_instance=1, threads=1),
    latency=about(0.016),
    slowest=about(0.018),
    throughput=about(1200.0),
    commands=("one", "two", "three", "four"),
)
MISSED = ConfigurationResult(
    configuration=replace(USUAL, batch_size=8), variant=None, status="not_measured", reason="The time was over."
)
SWEEP = Sweep(
    mode="throughput",
    unit="items",
    results=(ORIGINAL, QUICK, MANY, MISSED),
    best_latency=QUICK,
    best_throughput=MANY,
    notes=("A note.",),
)


def data(sweep: Sweep = SWEEP) -> dict:
    return json.loads(as_json.dumps(sweep_json.to_dict(sweep)))


def test_the_documented_keys_are_there() -> None:
    found = data()
    assert list(found) == ["mode", "unit", "results", "best_latency", "best_throughput", "notes"]
    assert (found["best_latency"], found["best_throughput"]) == (1, 2)
    many, missed = found["results"][2:]
    assert (many["instances"], many["cores_per_instance"], many["threads"], many["batch_size"]) == (4, 1, 1, None)
    assert many["seconds_per_call"]["median"] == 0.016
    assert many["seconds_per_call_slowest"]["median"] == 0.018
    assert (missed["status"], missed["throughput"], missed["batch_size"]) == ("not_measured", None, 8)


def test_each_configuration_has_a_row() -> None:
    assert list(sweep_text.rows(data())) == [
        ("the original", "1 instance of 4 cores, 4 threads", "10.0 ms", "400", ""),
        ("bf16", "1 instance of 4 cores, 4 threads", "5.00 ms", "800", ""),
        ("bf16", "4 instances of 1 core, 1 thread", "16.0 ms (slowest 18.0 ms)", "1,200", ""),
        ("the original", "1 instance of 4 cores, 4 threads, batch 8", "–", "–", "not measured: The time was over."),
    ]


def test_the_best_are_named_with_what_they_gain() -> None:
    latency, throughput, note = sweep_text.conclusions(data())
    assert latency.startswith("Best latency: bf16, 1 instance of 4 cores, 4 threads: 5.00 ms per call, ×2.00 against")
    assert latency.endswith("Start it so: env OMP_NUM_THREADS=4 taskset --cpu-list 0,1,2,3 python a.py")
    assert "1,200 items per second, ×3.00 against the original" in throughput
    assert note == "A note."


def test_what_is_not_surely_best_is_said_to_be_so() -> None:
    close = replace(QUICK, configuration=replace(USUAL, threads=2), latency=about(0.0051), rounds=1)
    latency, *_ = sweep_text.conclusions(data(replace(SWEEP, results=(ORIGINAL, QUICK, close))))
    assert "Not surely better than bf16, 1 instance of 4 cores, 2 threads." in latency


def test_a_call_with_less_to_do_is_no_gain() -> None:
    single = replace(QUICK, configuration=replace(USUAL, batch_size=1))
    latency, *_ = sweep_text.conclusions(data(replace(SWEEP, results=(ORIGINAL, single), best_latency=single)))
    assert "5.00 ms per call of that size." in latency
    assert "×" not in latency


def test_how_batches_were_formed_is_said_once() -> None:
    eight = replace(QUICK, configuration=replace(USUAL, batch_size=8), batch_by="its data loaders form batches of 8")
    lines = sweep_text.conclusions(data(replace(SWEEP, results=(ORIGINAL, eight, replace(eight, variant=None)))))
    assert lines.count("Batches of 8: its data loaders form batches of 8.") == 1
