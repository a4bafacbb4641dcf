"""What tuning came to, in a few sentences, from the JSON data alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from neural_coder.units import count, duration, ratio

_MOST_NAMES = 3


def lines(data: Mapping[str, Any]) -> Iterator[str]:
    """A sentence or two for each engine whose variants were tuned."""
    for tuned in data.get("tuning", ()):
        trials = tuned["trials"]
        kept = [trial for trial in trials if trial["kept"]]
        text = f"Tuned {tuned['of']} with {tuned['strategy']}: {count(len(trials), 'trial')} in "
        text += f"{duration(tuned['seconds'])}, {len(kept)} within the criterion ({tuned['ended']})."
        best = next((trial for trial in trials if trial["id"] == tuned["best"]), None)
        if best is not None:
            text += f" The fastest of these, about {ratio(best['speedup'])}, {_left_out(best)}."
        yield text
        if len(tuned["pareto"]) > 1:
            yield f"Trade-offs between speed, memory and size: {', '.join(tuned['pareto'])}."


def hidden(data: Mapping[str, Any]) -> frozenset[str]:
    """Ids of trials that led nowhere: the table would be long with them, the JSON has them all."""
    trials = [trial for tuned in data.get("tuning", ()) for trial in tuned["trials"]]
    return frozenset(trial["id"] for trial in trials if not trial["kept"] and (trial["exclude"] or trial["settings"]))


def _left_out(trial: Mapping[str, Any]) -> str:
    names = trial["exclude"]
    settings = ", ".join(f"{name}={value}" for name, value in trial["settings"].items())
    if not names:
        return f"quantizes everything{f' with {settings}' if settings else ''}"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    said = f"leaves {', '.join(names[:_MOST_NAMES])}{more} in {trial['fallback']}"
    return f"{said}, with {settings}" if settings else said
