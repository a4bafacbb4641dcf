"""What a run has shown of a script's models, in a few lines for people; drawn from the JSON data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neural_coder.units import count, duration, percent

_SMALLEST_SHARE = 0.0005


def lines(observed: Mapping[str, Any] | None, most: int) -> list[str]:
    """The models by time, then the sites that only the run has shown, then the conflicts.

    Args:
        observed: The block `observed` of the JSON data; None when nobody looked.
        most: How many of each are told.
    """
    if observed is None:
        return []
    models = [model for model in observed["models"] if model["share"] >= _SMALLEST_SHARE or model is _first(observed)]
    parts = [f"{_model(model)} {_share(model)}" for model in models[:most]]
    found = []
    if parts:
        more = f", and {len(models) - most} more" if len(models) > most else ""
        found.append(f"Models by time, of the run's {duration(observed['seconds'])}: {', '.join(parts)}{more}.")
    found += _most([_added(item) for item in observed["added"]], most, "site")
    found += _most([_conflict(item) for item in observed["conflicts"]], most, "conflict")
    return found


def _first(observed: Mapping[str, Any]) -> Any:
    return observed["models"][0]


def _most(sentences: Sequence[str], most: int, what: str) -> list[str]:
    left = len(sentences) - most
    return [*sentences[:most], *([f"{count(left, f'more {what}')}; the JSON result has all."] if left > 0 else [])]


def _model(model: Mapping[str, Any]) -> str:
    built = model["built"]
    return f"{model['name']} ({_place(built)})" if built else str(model["name"])


def _share(model: Mapping[str, Any]) -> str:
    return percent(float(f"{model['share']:.2g}"))


def _added(item: Mapping[str, Any]) -> str:
    what = {"model": "a model is built", "inference": "inference", "forward": "training"}[item["kind"]]
    through = f", through {item['through'][0]}" if item["through"] else ""
    outer = item["frames"][1:2]
    caller = f", from {_place(outer[0])}" if outer else ""
    return f"Only the run shows {_place(item)}: {what}, {item['name']}{through}{caller}."


def _conflict(item: Mapping[str, Any]) -> str:
    return f"Code and run disagree at {_place(item)}, {item['text']}: {item['message']}"


def _place(item: Mapping[str, Any]) -> str:
    return f"{item['path']}:{item['line']}"
