"""What a strategy is: a file in `strategies/` with one class, whose name is the module's."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from neural_coder.tuning.search import Search
from neural_coder.tuning.space import Space, Trial


class Strategy(ABC):
    """A way to choose the next trial.

    Its docstring's first line is what `--strategy` offers. It must not depend on anything but the space, the trials
    and the random numbers that it gets, so that a search can be repeated.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    """Modules that it imports beyond our own dependencies; `pip install neural-coder[tuning]` brings them."""

    @classmethod
    def name(cls) -> str:
        """The strategy's name: that of its module."""
        return cls.__module__.rpartition(".")[2]

    @abstractmethod
    def trials(self, space: Space, search: Search, chance: random.Random) -> Iterator[Trial]:
        """Try points with `search.evaluate` and yield what came of them, until nothing is left to learn.

        Args:
            space: What there is to choose from.
            search: Evaluates points. It raises `Enough` when trials or time are used up, which ends the strategy.
            chance: The only source of random numbers.
        """
