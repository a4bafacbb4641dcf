"""A sweep over run configurations as plain data."""

from __future__ import annotations

from typing import Any

from neural_coder.configurations import describe
from neural_coder.records import ConfigurationResult, Interval, Sweep


def to_dict(sweep: Sweep) -> dict[str, Any]:
    """The sweep, with the best for latency and the best for throughput by their place among the results."""
    places = {id(result): place for place, result in enumerate(sweep.results)}
    return {
        "mode": sweep.mode,
        "unit": sweep.unit,
        "results": [_result(result) for result in sweep.results],
        "best_latency": places.get(id(sweep.best_latency)),
        "best_throughput": places.get(id(sweep.best_throughput)),
        "notes": list(sweep.notes),
    }


def _result(result: ConfigurationResult) -> dict[str, Any]:
    configuration = result.configuration
    return {
        "variant": result.variant,
        "configuration": describe(configuration),
        "instances": configuration.instances,
        "cores_per_instance": configuration.cores_per_instance,
        "threads": configuration.threads,
        "batch_size": configuration.batch_size,
        "batch_by": result.batch_by,
        "status": result.status,
        "reason": result.reason,
        "seconds_per_call": _interval(result.latency),
        "seconds_per_call_slowest": _interval(result.slowest),
        "throughput": _interval(result.throughput),
        "rounds": result.rounds,
        "commands": list(result.commands),
    }


def _interval(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else {"median": interval.median, "low": interval.low, "high": interval.high}
