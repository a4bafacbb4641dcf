"""Compares the outputs of two runs; makes the record `neural_coder.records.Comparison` as plain data."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from . import values

MOST_CLASSES = 1_000_000
FEW = 3
"""Calls with different inputs from which on equal labels count as degenerate; two photographs may both show a dog."""

Call = Mapping[str, Any]


class Tally:
    """What has been counted so far."""

    def __init__(self) -> None:
        self.calls = 0
        self.rows = 0
        self.agreeing_rows = 0
        self.worst_error: float | None = None
        self.entries = 0
        self.equal_entries = 0
        self.not_finite = 0
        self.structure: list[str] = []


def compare(
    baseline: Mapping[str, Sequence[Call]], mine: Mapping[str, Sequence[Call]], *, whole: bool
) -> dict[str, Any]:
    """Compare the captured calls of all sites.

    Args:
        baseline: By site: the calls of the original.
        mine: By site: the calls of this run.
        whole: This run ended by itself; otherwise it may have been stopped in front of a site.
    """
    tally = Tally()
    same_inputs = bool(baseline)
    for site, expected in baseline.items():
        actual = mine.get(site, ())
        if not actual:
            if whole:
                tally.structure.append(f"{site} was not reached")
            continue
        if _same_sizes(expected, actual):
            count = min(len(expected), len(actual))
            pairs = [(expected[index], actual[index]) for index in range(count)]
            same_inputs &= all(one["digest"] == other["digest"] for one, other in pairs)
        else:
            pairs, same_rows = _joined(expected, actual)
            same_inputs &= same_rows
        for one, other in pairs:
            _compare_call(tally, one["outputs"], other["outputs"])
    return {
        "calls": tally.calls,
        "same_inputs": same_inputs and tally.calls > 0,
        "rows": tally.rows,
        "top1_agreement": tally.agreeing_rows / tally.rows if tally.rows else None,
        "relative_error": tally.worst_error,
        "exact_agreement": tally.equal_entries / tally.entries if tally.entries else None,
        "entries": tally.entries,
        "not_finite": tally.not_finite,
        "degenerate": _degenerate([call for calls in baseline.values() for call in calls]),
        "structure": "; ".join(dict.fromkeys(tally.structure[:5])),
    }


# --- bringing calls together


def _same_sizes(expected: Sequence[Call], actual: Sequence[Call]) -> bool:
    """Whether the calls of both runs work on as many items each."""
    count = min(len(expected), len(actual))
    return all(len(expected[index]["rows"]) == len(actual[index]["rows"]) for index in range(count))


def _joined(expected: Sequence[Call], actual: Sequence[Call]) -> tuple[list[tuple[Call, Call]], bool]:
    """Calls with other batch sizes: all rows of one run against all rows of the other, up to the shorter."""
    rows_expected = [row for call in expected for row in call["rows"]]
    rows_actual = [row for call in actual for row in call["rows"]]
    count = min(len(rows_expected), len(rows_actual))
    pair = ({"outputs": _concatenated(expected, count)}, {"outputs": _concatenated(actual, count)})
    return [pair], rows_expected[:count] == rows_actual[:count] and count > 0


def _concatenated(calls: Sequence[Call], count: int) -> dict[str, Any]:
    torch: Any = sys.modules.get("torch")
    joined: dict[str, Any] = {}
    for name in calls[0]["outputs"]:
        parts = [call["outputs"].get(name) for call in calls]
        if torch is None or not all(values.is_tensor(part) and part.dim() > 0 for part in parts):
            continue
        if len({tuple(part.shape[1:]) for part in parts}) == 1 and parts[0].shape[0] == len(calls[0]["rows"]):
            joined[name] = torch.cat(parts)[:count]
    return joined


# --- one call


def _compare_call(tally: Tally, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> None:
    tally.calls += 1
    difference = norm = 0.0
    finite = True
    compared_floats = False
    missing = [name for name in expected if name not in actual]
    added = [name for name in actual if name not in expected]
    if missing or added:
        tally.structure.append(f"outputs missing: {missing[:5]}, added: {added[:5]}")
    logits = logits_of(expected)
    for name, one in expected.items():
        if name not in actual:
            continue
        other = actual[name]
        if _is_float(one) != _is_float(other):
            tally.structure.append(f"{name} is {_kind(other)} instead of {_kind(one)}")
        elif not _is_float(one):
            _compare_exactly(tally, name, one, other)
        elif _shape(one) != _shape(other):
            tally.structure.append(f"{name} has shape {_shape(other)} instead of {_shape(one)}")
        else:
            squares = _squares(one, other)
            difference, norm, compared_floats = difference + squares[0], norm + squares[1], True
            finite &= squares[2]
            if name == logits:
                _compare_rows(tally, one, other)
    tally.not_finite += not finite
    if compared_floats:
        error = math.sqrt(difference / norm) if norm > 0 else (0.0 if difference == 0 else math.inf)
        tally.worst_error = max(tally.worst_error or 0.0, error)


def _is_float(value: Any) -> bool:
    if values.is_tensor(value):
        return bool(value.is_floating_point())
    return isinstance(value, float)


def _kind(value: Any) -> str:
    return str(value.dtype) if values.is_tensor(value) else type(value).__name__


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if values.is_tensor(value) else ()


def _squares(one: Any, other: Any) -> tuple[float, float, bool]:
    """||other - one||², ||one||² where both are finite, and whether `other` is finite wherever `one` is."""
    if not values.is_tensor(one) or not values.is_tensor(other):
        one, other = float(one), float(other)
        if not (math.isfinite(one) and math.isfinite(other)):
            return 0.0, 0.0, math.isfinite(other) or not math.isfinite(one)
        return (other - one) ** 2, one**2, True
    one, other = one.double(), other.double()
    good, mine = one.isfinite(), other.isfinite()
    both = good & mine
    difference, norm = (other - one)[both], one[both]
    return float(difference.square().sum()), float(norm.square().sum()), not bool((good & ~mine).any())


def _compare_exactly(tally: Tally, name: str, one: Any, other: Any) -> None:
    if not (values.is_tensor(one) and values.is_tensor(other)):
        tally.entries += 1
        tally.equal_entries += type(one) is type(other) and bool(one == other)
        return
    if one.dim() != other.dim():
        tally.structure.append(f"{name} has shape {_shape(other)} instead of {_shape(one)}")
        return
    # Generated texts may differ in length: what only one of them has counts as different.
    overlap = tuple(slice(0, min(sizes)) for sizes in _side_by_side(one.shape, other.shape))
    tally.entries += max(one.numel(), other.numel())
    tally.equal_entries += int((one[overlap] == other[overlap]).sum())


def _side_by_side(one: Sequence[int], other: Sequence[int]) -> list[tuple[int, int]]:
    return [(one[index], other[index]) for index in range(len(one))]


# --- logits


def logits_of(outputs: Mapping[str, Any]) -> str | None:
    """Name of the output whose rows have a largest entry that means something; None where there is none.

    Args:
        outputs: Tensors, numbers and texts by name.
    """
    tensors = {name: value for name, value in outputs.items() if values.is_tensor(value)}
    named = [name for name in tensors if name.rpartition(".")[2].startswith("logits")]
    first = next(iter(tensors), None)
    candidates = named[:1] or ([first] if first is not None else [])
    for name in candidates:
        value = tensors[name]
        alone = len(tensors) == 1 or value.dim() == 2 or bool(named)
        wide = value.is_floating_point() and value.dim() in (2, 3) and 2 <= value.shape[-1] <= MOST_CLASSES
        if alone and wide and value.numel() and (named or not _unit_rows(value)):
            return name
    return None


def _unit_rows(value: Any) -> bool:
    """Whether all rows are vectors of length one: embeddings, whose largest entry means nothing."""
    lengths = value.double().norm(dim=-1)
    return bool((lengths - 1).abs().max() < 1e-2) and bool((value < 0).any())


def _compare_rows(tally: Tally, one: Any, other: Any) -> None:
    expected = one.double().nan_to_num(nan=-math.inf).argmax(dim=-1)
    actual = other.double().nan_to_num(nan=-math.inf).argmax(dim=-1)
    tally.rows += expected.numel()
    tally.agreeing_rows += int((expected == actual).sum())


# --- evidence that proves nothing


def _degenerate(calls: Sequence[Call]) -> str:
    """Why the baseline's outputs prove nothing, in words; empty when they do."""
    outputs = [value for call in calls for value in call["outputs"].values()]
    unknown = sorted({name for call in calls for name in call["unknown"]})
    if not outputs:
        kinds = f" (only {', '.join(unknown)})" if unknown else ""
        return f"the calls returned no tensors, numbers or texts{kinds}"
    numbers = [value for value in outputs if values.is_tensor(value) or isinstance(value, (bool, int, float))]
    floats = [value for value in numbers if _is_float(value)]
    if any(_has_nan(value) for value in floats):
        return "the baseline's own outputs hold NaN"
    low, high, count = _extremes(numbers)
    if numbers and len(numbers) == len(outputs) and count > 1 and low == high:
        return "all outputs are zero" if low == 0 else f"all outputs are the same number ({low:g})"
    if _ignores_inputs(calls, floats):
        return "the outputs are the same for different inputs"
    return ""


def _has_nan(value: Any) -> bool:
    return bool(value.isnan().any()) if values.is_tensor(value) else math.isnan(value)


def _extremes(numbers: Sequence[Any]) -> tuple[float, float, int]:
    low, high, count = math.inf, -math.inf, 0
    for value in numbers:
        if values.is_tensor(value):
            if value.numel():
                wide = value.double()
                low, high, count = min(low, float(wide.min())), max(high, float(wide.max())), count + value.numel()
        else:
            low, high, count = min(low, float(value)), max(high, float(value)), count + 1
    return low, high, count


def _ignores_inputs(calls: Sequence[Call], floats: Sequence[Any]) -> bool:
    """Whether different inputs got one and the same output, from call to call or from row to row."""
    inputs = {call["digest"] for call in calls}
    answers = {values.digest((dict(call["outputs"]),), {}) for call in calls}
    if len(inputs) >= (2 if floats else FEW) and len(answers) == 1:
        return True
    rows = {row for call in calls for row in call["rows"]}
    tensors = [value for value in floats if values.is_tensor(value) and value.dim() >= 1]
    by_row = [value for value in tensors if value.shape[0] > 1]
    if len(rows) < 2 or not by_row or len(by_row) != len(floats) or (len(calls) > 1 and len(inputs) < 2):
        return False
    return all(bool((value == value[:1]).all()) for value in by_row) and len(answers) == 1
