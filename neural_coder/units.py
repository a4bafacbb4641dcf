"""Numbers for people: ratios, percentages, durations, sizes, counts. Used wherever a sentence or a table holds one."""

from __future__ import annotations

import math

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def ratio(value: float) -> str:
    """A speed-up: `×1.84`, `×12.3`, `×140`."""
    return f"×{_digits(value)}"


def percent(share: float) -> str:
    """A share as a percentage with sensible digits: `38 %`, `0.3 %`, `< 0.001 %`."""
    value = share * 100
    if value == 0:
        return "0 %"
    if abs(value) < 0.001:
        return "< 0.001 %"
    return f"{value:.3g} %" if abs(value) < 99.95 or abs(value) == 100 else f"{value:.4g} %"


def duration(seconds: float) -> str:
    """A time with its unit: `850 µs`, `12.3 ms`, `4.1 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.0009995:
        return f"{_digits(seconds * 1e6)} µs"
    if seconds < 0.9995:
        return f"{_digits(seconds * 1e3)} ms"
    if seconds < 59.95:
        return f"{_digits(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return _two(whole // 60, "min", whole % 60, "s")
    return _two(whole // 3600, "h", whole % 3600 // 60, "min")


def size(number: float) -> str:
    """An amount of memory, in powers of 1000: `512 kB`, `1.46 GB`."""
    power = 0
    while abs(number) >= 999.5 and power < len(_SIZES) - 1:
        number /= 1000
        power += 1
    return f"{_digits(number)} {_SIZES[power]}"


def rate(per_second: float) -> str:
    """How much there is in a second: `12.4`, `44,160`, without its unit."""
    return _digits(per_second)


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun in the right form: `1 round`, `20,000 calls`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _digits(value: float) -> str:
    """Three significant digits, without an exponent for the sizes that occur; more for large whole numbers."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    if abs(value) >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"
