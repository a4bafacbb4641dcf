from __future__ import annotations

import pytest

from neural_coder import units


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "×1.00"), (1.844, "×1.84"), (12.34, "×12.3"), (9.996, "×10.0"), (140.4, "×140"), (0.5, "×0.50")],
)
def test_ratios_have_three_digits(value: float, text: str) -> None:
    assert units.ratio(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 µs"),
        (0.00085, "850 µs"),
        (0.0009999, "1.00 ms"),
        (0.0123, "12.3 ms"),
        (0.9999, "1.00 s"),
        (4.1, "4.10 s"),
        (59.99, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (-0.5, "-500 ms"),
    ],
)
def test_durations_have_their_unit(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.38, "38 %"), (0.0, "0 %"), (1.0, "100 %"), (0.9996, "99.96 %"), (0.00345, "0.345 %"), (1e-9, "< 0.001 %")],
)
def test_percentages_have_sensible_digits(share: float, text: str) -> None:
    assert units.percent(share) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (512_000, "512 kB"), (1_460_000_000, "1.46 GB"), (999_999, "1.00 MB")]
)
def test_sizes_have_their_unit(number: float, text: str) -> None:
    assert units.size(number) == text


def test_nouns_follow_their_number() -> None:
    assert units.count(1, "round") == "1 round"
    assert units.count(20000, "call") == "20,000 calls"
    assert units.count(2, "loss", "losses") == "2 losses"
