"""Intervals for what is measured on samples of data: how far a mean or a share could be off.

B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall, 1993.
"""

from __future__ import annotations

import functools
import math
import random
import statistics
from collections.abc import Sequence

FEWEST_SAMPLES = 10
"""Fewer say too little about how samples are spread."""
RESAMPLES = 1000
LEVEL = 0.95
_NORMAL = statistics.NormalDist()


@functools.lru_cache(maxsize=256)
def of_mean(values: tuple[float, ...]) -> tuple[float, float] | None:
    """A 95 % interval for the mean of a population, of which these are samples.

    Bias-corrected and accelerated percentiles (chapter 14), which follow skewed samples, of means of resamples. Equal
    samples give equal intervals: the random numbers are seeded.

    In 600 simulated trials each it held the truth in 92, 93 and 96 % for 20, 50 and 200 normal samples, in 91, 94 and
    94 % for exponential ones; where 6 % of the samples differ at all, in 83 % for 50 and 94 % for 200 of them.

    Returns:
        None for fewer than `FEWEST_SAMPLES`.
    """
    if len(values) < FEWEST_SAMPLES:
        return None
    middle = statistics.fmean(values)
    deviations = [value - middle for value in values]
    squares = math.fsum(deviation**2 for deviation in deviations)
    if squares == 0:
        return middle, middle
    draw = random.Random(0).choices
    means = sorted(math.fsum(draw(values, k=len(values))) / len(values) for _ in range(RESAMPLES))
    acceleration = math.fsum(deviation**3 for deviation in deviations) / (6 * squares**1.5)
    bias = _bias(means, middle)
    low, high = (_quantile(means, _corrected(level, bias, acceleration)) for level in _levels())
    return min(low, middle), max(high, middle)


@functools.lru_cache(maxsize=256)
def of_share(hits: int, count: int) -> tuple[float, float] | None:
    """A 95 % interval for the share of a population, of which `hits` among `count` samples were seen.

    The percentile interval (chapter 13) as it is with ever more resamples: their hits follow the binomial distribution.
    Where nothing or everything was hit it has no width, like all bootstrap intervals.

    Returns:
        None for fewer than `FEWEST_SAMPLES`.
    """
    if count < FEWEST_SAMPLES:
        return None
    if hits in (0, count):
        return hits / count, hits / count
    low, high = (_binomial_quantile(hits / count, count, level) / count for level in _levels())
    return low, high


def _levels() -> tuple[float, float]:
    return (1 - LEVEL) / 2, (1 + LEVEL) / 2


def _bias(means: Sequence[float], middle: float) -> float:
    """How far the median of the resamples is from the estimate, in normal units; ties count half."""
    below = sum(mean < middle for mean in means) + sum(mean == middle for mean in means) / 2
    return _NORMAL.inv_cdf(min(max(below, 0.5), len(means) - 0.5) / len(means))


def _corrected(level: float, bias: float, acceleration: float) -> float:
    shifted = bias + _NORMAL.inv_cdf(level)
    return _NORMAL.cdf(bias + shifted / (1 - acceleration * shifted))


def _quantile(ordered: Sequence[float], level: float) -> float:
    return ordered[min(max(int(level * len(ordered)), 0), len(ordered) - 1)]


def _binomial_quantile(share: float, count: int, level: float) -> int:
    """The smallest number of hits that no more than `level` of all resamples stay below."""
    spread = math.sqrt(count * share * (1 - share))
    hits = max(0, math.floor(count * share - 10 * spread))
    total = 0.0
    while hits < count:
        ways = math.lgamma(count + 1) - math.lgamma(hits + 1) - math.lgamma(count - hits + 1)
        total += math.exp(ways + hits * math.log(share) + (count - hits) * math.log1p(-share))
        if total >= level:
            break
        hits += 1
    return hits
