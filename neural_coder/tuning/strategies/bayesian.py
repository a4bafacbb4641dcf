"""Bayesian optimization of the speed, with the accuracy criterion as a constraint."""

from __future__ import annotations

import random
from collections.abc import Iterator

from neural_coder.tuning import model_based
from neural_coder.tuning.search import Search
from neural_coder.tuning.space import Space, Trial
from neural_coder.tuning.strategy import Strategy


class Bayesian(Strategy):
    """Let a Gaussian process propose the trial with the highest expected improvement of the speed.

    The accuracy criterion is a constraint that the model learns as well.
    """

    needs = model_based.NEEDS

    def trials(self, space: Space, search: Search, chance: random.Random) -> Iterator[Trial]:
        """Yield what the model asks for."""
        seed = chance.randrange(2**31)
        yield from model_based.trials(space, search, seed, better=("maximize",), figures=lambda trial: (trial.speedup,))
