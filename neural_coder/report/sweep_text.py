"""A sweep over run configurations as lines of text, drawn from the JSON data alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neural_coder.units import count, duration, rate, ratio

_WORDS = {"not_measured": "not measured"}
_FEW = 3
_NOTHING = "–"


def rows(sweep: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """One row for each result: variant, configuration, time per call, throughput, and what else there is to say."""
    for result in sweep["results"]:
        status = result["status"]
        remarks = [] if status == "measured" else [_WORDS.get(status, status)]
        remarks += [result["reason"]] * bool(result["reason"])
        throughput = result["throughput"]
        yield (
            result["variant"] or "the original",
            result["configuration"],
            _time(result),
            _NOTHING if throughput is None else rate(throughput["median"]),
            ": ".join(remarks),
        )


def conclusions(sweep: Mapping[str, Any]) -> list[str]:
    """Which configuration of which variant is best for what, each in a sentence, then the notes."""
    lines = []
    for what, key in (("latency", "seconds_per_call"), ("throughput", "throughput")):
        place = sweep[f"best_{what}"]
        if place is not None:
            lines.append(_best(what, key, place, sweep))
    if not lines:
        lines.append("No run configuration could be measured.")
    return [*lines, *_batches(sweep["results"]), *sweep["notes"]]


def _best(what: str, key: str, place: int, sweep: Mapping[str, Any]) -> str:
    results: Sequence[Mapping[str, Any]] = sweep["results"]
    best, usual = results[place], results[0]
    text = f"Best {what}: {_name(best)}, {best['configuration']}: {_figure(best, key, sweep)}"
    if key == "seconds_per_call" and best["batch_size"]:
        text += " of that size"  # Nothing is faster for having less to do.
    elif place and usual[key]:
        old, new = usual[key]["median"], best[key]["median"]
        gain = old / new if key == "seconds_per_call" else new / old
        text += f", {ratio(gain)} against the original as it is usually run"
    elif not place:
        text += ", as it is usually run"
    rivals = [
        one for one in results if one is not best and one["status"] == "measured" and _overlap(one[key], best[key])
    ]
    if rivals:
        text += f". Not surely better than {_name(rivals[0])}, {rivals[0]['configuration']}"
        text += f", and {count(len(rivals) - 1, 'other')}" if len(rivals) > 1 else ""
        text += f" ({count(best['rounds'], 'run')})" if best["rounds"] < _FEW else ""
    started = f" Start it so: {best['commands'][0]}" if len(best["commands"]) == 1 else ""
    return f"{text}.{started}"


def _batches(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the script got its batch sizes."""
    seen = dict.fromkeys((one["batch_size"], one["batch_by"]) for one in results if one["batch_by"])
    return [f"Batches of {size}: {words}." for size, words in seen]


def _figure(result: Mapping[str, Any], key: str, sweep: Mapping[str, Any]) -> str:
    if key == "seconds_per_call":
        return f"{_time(result)} per {'step' if sweep['unit'] == 'steps' else 'call'}"
    return f"{rate(result[key]['median'])} {sweep['unit']} per second"


def _time(result: Mapping[str, Any]) -> str:
    seconds, slowest = result["seconds_per_call"], result["seconds_per_call_slowest"]
    if seconds is None:
        return _NOTHING
    worst = f" (slowest {duration(slowest['median'])})" if result["instances"] > 1 else ""
    return duration(seconds["median"]) + worst


def _name(result: Mapping[str, Any]) -> str:
    return result["variant"] or "the original"


def _overlap(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one["low"] <= other["high"] and other["low"] <= one["high"]
