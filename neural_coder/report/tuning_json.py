"""What tuning came to, as plain data."""

from __future__ import annotations

import math
from typing import Any

from neural_coder.tuning.outcome import Tuned
from neural_coder.tuning.space import Trial


def to_dict(tuned: Tuned) -> dict[str, Any]:
    """The trials of one engine's variants, and what was known of the operators before."""
    return {
        "strategy": tuned.wish.strategy,
        "seed": tuned.wish.seed,
        "engine": tuned.engine,
        "of": tuned.of,
        "operators": [
            {"name": item.name, "kind": item.kind, "error": item.error, "impact": item.impact}
            for item in tuned.operators
        ],
        "trials": [_trial(identifier, trial) for identifier, trial in tuned.trials],
        "best": tuned.best,
        "pareto": list(tuned.pareto),
        "ended": tuned.ended,
        "seconds": tuned.seconds,
    }


def _trial(identifier: str, trial: Trial) -> dict[str, Any]:
    return {
        "id": identifier,
        "exclude": list(trial.point.exclude),
        "fallback": trial.point.fallback,
        "settings": dict(trial.point.settings),
        "kept": trial.kept,
        "speedup": trial.speedup or None,
        "loss": trial.loss if trial.loss is not None and math.isfinite(trial.loss) else None,
        "memory_bytes": trial.memory_bytes,
        "size_bytes": trial.size_bytes,
        "seconds": trial.seconds,
    }
