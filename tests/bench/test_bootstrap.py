"""Intervals are compared with what is known exactly, or from other samples of the same population."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from neural_coder.bench import bootstrap


def test_of_normal_samples_it_is_the_textbooks_interval() -> None:
    draw = random.Random(1)
    values = tuple(draw.gauss(5.0, 2.0) for _ in range(400))
    low, high = bootstrap.of_mean(values)  # type: ignore[misc]
    half = 1.96 * statistics.stdev(values) / math.sqrt(400)
    assert low == pytest.approx(statistics.fmean(values) - half, abs=0.15 * half)
    assert high == pytest.approx(statistics.fmean(values) + half, abs=0.15 * half)


def test_equal_samples_give_equal_intervals() -> None:
    draw = random.Random(2)
    values = tuple(draw.random() for _ in range(30))
    bootstrap.of_mean.cache_clear()
    first = bootstrap.of_mean(values)
    bootstrap.of_mean.cache_clear()
    assert bootstrap.of_mean(values) == first


def test_skewed_samples_get_a_skewed_interval_that_holds_the_truth() -> None:
    draw = random.Random(3)
    held, longer = 0, 0
    for _ in range(60):
        values = tuple(draw.expovariate(1.0) for _ in range(40))
        low, high = bootstrap.of_mean(values)  # type: ignore[misc]
        middle = statistics.fmean(values)
        held += low <= 1.0 <= high
        longer += high - middle > middle - low
    assert held >= 51  # 95 % of 60 are 57
    assert longer >= 50


def test_samples_without_spread_give_an_interval_without_width() -> None:
    assert bootstrap.of_mean((0.3,) * 20) == (pytest.approx(0.3), pytest.approx(0.3))
    assert bootstrap.of_share(0, 50) == (0.0, 0.0)
    assert bootstrap.of_share(50, 50) == (1.0, 1.0)


def test_too_few_samples_give_none() -> None:
    assert bootstrap.of_mean((1.0, 2.0, 3.0)) is None
    assert bootstrap.of_share(1, 9) is None


@pytest.mark.parametrize(("hits", "count"), [(1, 10), (3, 500), (250, 500), (990, 1000), (7, 1_000_000)])
def test_a_share_has_the_interval_of_its_resamples(hits: int, count: int) -> None:
    low, high = bootstrap.of_share(hits, count)  # type: ignore[misc]
    assert low <= hits / count <= high
    draw, share = random.Random(4), hits / count
    if count <= 1000:
        resamples = sorted(sum(draw.random() < share for _ in range(count)) / count for _ in range(1000))
        assert low == pytest.approx(resamples[25], abs=2 / count + 0.004)
        assert high == pytest.approx(resamples[974], abs=2 / count + 0.004)
    else:
        assert (low, high) == (2 / count, 13 / count)  # Poisson's quantiles for 7
