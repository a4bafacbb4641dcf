"""Strategies that search for the settings with which a quantized variant keeps its answers and stays fast."""

from neural_coder.tuning.search import Limits, Search
from neural_coder.tuning.space import Point, Space, Trial, pareto
from neural_coder.tuning.strategy import Strategy

__all__ = ["Limits", "Point", "Search", "Space", "Strategy", "Trial", "pareto"]
