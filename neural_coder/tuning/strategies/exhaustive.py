"""Every point of the space, as a control for the other strategies."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from neural_coder.tuning.search import Search
from neural_coder.tuning.space import Point, Space, Trial
from neural_coder.tuning.strategy import Strategy


class Exhaustive(Strategy):
    """Try every combination, those with the fewest operators in floating point first.

    With n operators there are 2^n of them for each setting: without `--max-trials` or `--budget` only small models end.
    """

    def trials(self, space: Space, search: Search, chance: random.Random) -> Iterator[Trial]:
        """Yield all combinations."""
        values = [[(name, value) for value in (None, *choices)] for name, choices in space.knobs.items()]
        for size in range(len(space.operators) + 1):
            for names in itertools.combinations(space.operators, size):
                for fallback in space.fallbacks:
                    for chosen in itertools.product(*values):
                        settings = tuple((name, value) for name, value in chosen if value is not None)
                        yield search.evaluate(Point(exclude=names, fallback=fallback, settings=settings))
