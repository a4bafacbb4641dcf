"""The frame around a strategy: it counts trials and time, and never tries a point twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from neural_coder.tuning.space import Point, Trial, best

Evaluate = Callable[[Point], Trial]


class Enough(Exception):
    """Trials or time are used up; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a search ends at the latest."""

    trials: int
    seconds: float


@dataclass(slots=True)
class Search:
    """All trials of one search."""

    evaluator: Evaluate
    limits: Limits
    now: Callable[[], float] = time.monotonic
    trials: list[Trial] = field(default_factory=list)
    _known: dict[Point, Trial] = field(default_factory=dict)
    _began: float | None = None
    _longest: float = 0.0

    @property
    def left(self) -> int:
        """Trials that may still be made."""
        return self.limits.trials - len(self.trials)

    @property
    def expected(self) -> int:
        """Trials that it comes to in all, if each takes as long as the longest so far."""
        longest = max((trial.seconds for trial in self.trials), default=0.0)
        return min(self.limits.trials, int(self.limits.seconds / longest)) if longest else self.limits.trials

    @property
    def best(self) -> Trial | None:
        """The fastest so far that keeps the answers."""
        return best(self.trials)

    def evaluate(self, point: Point) -> Trial:
        """Try a point; one that was tried before costs nothing.

        Raises:
            Enough: Trials are used up, or the time left is too short for another.
        """
        if point in self._known:
            return self._known[point]
        if self._began is None:
            self._began = self.now()
        used = self.now() - self._began
        if self.left <= 0:
            raise Enough(f"{self.limits.trials} trials were made")
        if used + self._longest > self.limits.seconds:
            raise Enough("the time for tuning was used up")
        trial = self.evaluator(point)
        self._longest = max(self._longest, self.now() - self._began - used)
        self._known[point] = trial
        self.trials.append(trial)
        return trial
