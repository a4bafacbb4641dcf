"""Turn what a child process has left into records and readable text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neural_coder.bench.shadow import Shadow
from neural_coder.records import (
    CodeFrame,
    Comparison,
    Metric,
    MetricValue,
    Observation,
    ObservedCall,
    ObservedMode,
    ObservedModel,
    SiteTiming,
    Span,
    Witness,
)

LINES_KEPT = 40
BYTES_READ = 256 * 1024


def timing_from(entry: Mapping[str, Any]) -> SiteTiming:
    """The record of one site's timings."""
    lists = ("warmup", "samples", "cpu", "waited", "pace")
    return SiteTiming(**{**entry, **{name: tuple(entry[name]) for name in lists}})


def comparison_from(entry: Mapping[str, Any] | None) -> Comparison | None:
    """The record of a comparison, if one was made."""
    return Comparison(**entry) if entry is not None else None


def witness_from(entry: Mapping[str, Any]) -> Witness:
    """The record of what was seen."""
    sets = {name: frozenset(entry[name]) for name in ("dtypes", "batch_sizes") if name in entry}
    return Witness(**{**entry, **sets})


def metrics_from(metrics: Sequence[Metric], answers: Sequence[Mapping[str, Any]], text: str) -> tuple[MetricValue, ...]:
    """The user's metrics: of functions what they answered, of patterns what the script printed.

    Args:
        metrics: Those that were asked for.
        answers: Of the functions that were called.
        text: The script's output.
    """
    answered = {answer["name"]: MetricValue(**{**answer, "samples": tuple(answer["samples"])}) for answer in answers}
    found = []
    for metric in metrics:
        not_asked = MetricValue(name=metric.name, value=None, problem="it was not asked for")
        found.append(_printed(metric, text) if metric.pattern else answered.get(metric.name, not_asked))
    return tuple(found)


def _printed(metric: Metric, text: str) -> MetricValue:
    value = last_number(metric.pattern, text)
    problem = f"its pattern {metric.pattern!r} matches nothing in the output" if value is None else ""
    return MetricValue(name=metric.name, value=value, problem=problem)


def last_number(pattern: str, text: str) -> float | None:
    """The number in the first group of a pattern's last match; None without a match or when it is no number.

    Args:
        pattern: A regular expression.
        text: What the script printed.
    """
    found = None
    for found in re.finditer(pattern, text):  # noqa: B007 - the last match counts
        pass
    if found is None or not found.groups() or found[1] is None:
        return None
    try:
        return float(found[1])
    except ValueError:
        return None


def observation_from(entry: Mapping[str, Any] | None) -> Observation | None:
    """The record of what was seen of the models, if anyone looked."""
    if entry is None:
        return None
    calls = tuple(
        ObservedCall(**{**_located(call), "built": tuple(call["built"]), "modes": tuple(map(_mode, call["modes"]))})
        for call in entry["calls"]
    )
    models = tuple(ObservedModel(**{**_located(model), "bases": tuple(model["bases"])}) for model in entry["models"])
    return Observation(
        **{
            **entry,
            "calls": calls,
            "models": models,
            "reached_within": frozenset(entry["reached_within"]),
            "problems": tuple(entry["problems"]),
        }
    )


def _located(entry: Mapping[str, Any]) -> dict[str, Any]:
    frames = tuple(
        CodeFrame(path=Path(path), line=line, function=function, call=_span(call))
        for path, line, function, call in entry["frames"]
    )
    return {**entry, "frames": frames, "through": tuple(entry["through"])}


def _span(call: Sequence[int] | None) -> Span | None:
    if call is None:
        return None
    line, column, end_line, end_column = call
    return Span(line=line, column=column, end_line=end_line, end_column=end_column)


def _mode(entry: Mapping[str, Any]) -> ObservedMode:
    return ObservedMode(**{**entry, "signatures": tuple(entry["signatures"])})


def tail_of(file: Path, shadow: Shadow, worker: Path) -> str:
    """The last lines of standard error as they would look had the script been run by hand.

    Args:
        file: What the process wrote to standard error.
        shadow: Where it ran; its paths become the user's own.
        worker: Our own code in the process; its frames are left out of tracebacks.
    """
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - BYTES_READ))
        text = stream.read().decode("utf-8", errors="replace")
    frame = rf'^  File "(?:{re.escape(str(worker))}/.*|<frozen importlib[^"]*>)", line .*\n(?:    .*\n)*'
    text = re.sub(frame, "", text, flags=re.MULTILINE)
    text = text.replace(str(shadow.root), str(shadow.real))
    return "\n".join(text.rstrip().splitlines()[-LINES_KEPT:])
