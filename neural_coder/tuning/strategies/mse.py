"""Operators fall back in the order of the error that quantization makes in their own outputs."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from neural_coder.tuning.search import Search
from neural_coder.tuning.space import Point, Space, Trial
from neural_coder.tuning.strategy import Strategy

ALIKE = 4.0
"""Errors within this factor are as large: rounding to 8 bits leaves about as much everywhere where nothing is wrong."""


class Mse(Strategy):
    """Let operators fall back by the error of their own outputs, then quantize the least sensitive ones again.

    Of those whose errors are alike, the one comes first that does most to the outputs of the model: the first
    convolution of EfficientNet-Lite0 makes a smaller error than most others, and is the most sensitive.

    The number of operators that must fall back is found by doubling. Then those that hurt least are quantized again,
    one by one, as long as the criterion holds.
    """

    def trials(self, space: Space, search: Search, chance: random.Random) -> Iterator[Trial]:
        """Yield the trials for each precision to fall back to, until one holds."""
        ranked = _ranked(space)
        for fallback in space.fallbacks:
            found: Trial | None = None
            for number in _doubled(len(ranked)):
                trial = search.evaluate(space.point(ranked[:number], like=Point(fallback=fallback)))
                yield trial
                if trial.kept:
                    found = trial
                    break
            if found is not None:
                yield from _quantized_again(found, ranked, space, search)
                return


def _ranked(space: Space) -> list[str]:
    """The operators, those with the largest error first; a space holds them in the order of their impact."""
    most = max(space.errors.values(), default=0.0)

    def step(name: str) -> float:
        error = space.errors.get(name, 0.0)
        return math.floor(math.log(most / error, ALIKE)) if error > 0 else math.inf

    return sorted(space.operators, key=step)


def _quantized_again(found: Trial, ranked: list[str], space: Space, search: Search) -> Iterator[Trial]:
    """Take operators back, from the least sensitive on, where the criterion holds without them."""
    kept = found
    for name in reversed(ranked):
        if name not in kept.point.exclude:
            continue
        trial = search.evaluate(space.point(set(kept.point.exclude) - {name}, like=kept.point))
        yield trial
        if trial.kept:
            kept = trial


def _doubled(most: int) -> list[int]:
    """0, 1, 2, 4, ... and at last all."""
    numbers, number = [0], 1
    while number < most:
        numbers.append(number)
        number *= 2
    return [*numbers, most] if most else numbers
