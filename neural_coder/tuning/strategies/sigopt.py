"""Several metrics at once, as the SigOpt service offered it; that is gone, a library does the same."""

from __future__ import annotations

import random
from collections.abc import Iterator

from neural_coder.tuning import model_based
from neural_coder.tuning.search import Search
from neural_coder.tuning.space import Space, Trial
from neural_coder.tuning.strategy import Strategy

MEGABYTE = 1e6


class Sigopt(Strategy):
    """Search for the best trade-offs between speed and memory, with the accuracy criterion as a constraint.

    A Gaussian process for each metric proposes the trial that is expected to enlarge the Pareto front the most.
    """

    needs = model_based.NEEDS

    def trials(self, space: Space, search: Search, chance: random.Random) -> Iterator[Trial]:
        """Yield what the models ask for."""
        seed = chance.randrange(2**31)
        yield from model_based.trials(
            space, search, seed, better=("maximize", "minimize"), figures=lambda trial: (trial.speedup, _memory(trial))
        )


def _memory(trial: Trial) -> float:
    return (trial.memory_bytes or 0) / MEGABYTE
