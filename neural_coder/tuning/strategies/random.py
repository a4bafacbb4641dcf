"""Points drawn at random, as a control for the other strategies."""

from __future__ import annotations

import random
from collections.abc import Iterator

from neural_coder.tuning.search import Search
from neural_coder.tuning.space import Point, Space, Trial
from neural_coder.tuning.strategy import Strategy

FRUITLESS = 200
"""Points in a row that were known already after which a space counts as used up."""


class Random(Strategy):
    """Try random combinations: how many operators fall back is drawn first, then which."""

    def trials(self, space: Space, search: Search, chance: random.Random) -> Iterator[Trial]:
        """Yield new points until there are none."""
        seen: set[Point] = set()
        fruitless = 0
        while fruitless < FRUITLESS:
            point = _drawn(space, chance)
            fruitless = fruitless + 1 if point in seen else 0
            if point not in seen:
                seen.add(point)
                yield search.evaluate(point)


def _drawn(space: Space, chance: random.Random) -> Point:
    names = chance.sample(space.operators, chance.randint(0, len(space.operators)))
    drawn = [(name, chance.choice((None, *choices))) for name, choices in space.knobs.items()]
    settings = tuple((name, value) for name, value in drawn if value is not None)
    return space.point(names, like=Point(fallback=chance.choice(space.fallbacks), settings=settings))
