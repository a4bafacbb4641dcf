"""What is asked of tuning, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass

from neural_coder.records import Operator
from neural_coder.tuning.space import Trial

DEFAULT_STRATEGY = "basic"
DEFAULT_TRIALS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a user wants variants to be tuned."""

    strategy: str = DEFAULT_STRATEGY
    max_trials: int = DEFAULT_TRIALS
    """For one search; 0: nothing is tuned."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What tuning the variants of one engine came to."""

    wish: Wish
    engine: str
    of: str
    """Id of the variant that was fast and lost too much."""
    operators: tuple[Operator, ...]
    trials: tuple[tuple[str, Trial], ...]
    """In their order, each with the id of its variant."""
    best: str | None
    pareto: tuple[str, ...]
    ended: str
    """Why there were no more trials, in words."""
    seconds: float
