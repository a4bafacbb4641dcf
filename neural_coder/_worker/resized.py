"""Measures the script's model calls with another number of items than the script gives them.

The inputs of the last call are repeated, or cut, along their first dimension. That this dimension is the batch shows in
the answers: each item must get the one that it got in the script's own call.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from typing import Any

from . import accelerated, compare, context, values
from .capture import outputs_of
from .recorder import Recorder
from .replay import repeat

MOST_PREPARING = 512
"""Calls that a model may take to collect its calibration data."""


class Declined(Exception):
    """The calls cannot be made with another number of items; says why."""


def measure(recorder: Recorder, items: int, deadline: float) -> dict[str, Any]:
    """Measure the inference sites anew; the samples of the script's own calls are dropped.

    Args:
        recorder: Holds the sites, each with its last call.
        items: How many items each call is to have.
        deadline: Time of `time.perf_counter` at which to stop in any case.

    Returns:
        How the answers differ from those of the script's own calls: a `Comparison`.

    Raises:
        Declined: It cannot be done.
    """
    expected: dict[str, list[dict[str, Any]]] = {}
    actual: dict[str, list[dict[str, Any]]] = {}
    sites = [site for site in recorder.timings() if site.last_call is not None]
    for site in sites:
        assert site.last_call is not None
        own = _own_items(site.last_call)
        before = _answers(_settled(site.last_call), own)
        site.last_call = resized(site.last_call, own, items)
        after = _answers(_answer(site.last_call), items)
        expected[site.name] = [_record({name: _rows(value, own, items) for name, value in before.items()})]
        actual[site.name] = [_record(after)]
    for site in sites:
        site.restart(items)
        why = repeat(recorder, site, deadline, lambda site=site: recorder.has_enough(site))  # type: ignore[misc]
        if why:
            raise Declined(why)
    for site in sites[:1]:
        repeat(recorder, site, deadline, recorder.over)
    return compare.compare(expected, actual, whole=True)


def resized(call: context.Call, own: int, items: int) -> context.Call:
    """The same call with another number of items."""
    other = copy.copy(call)
    other.args = tuple(_resize(value, own, items) for value in call.args)
    other.kwargs = {name: _resize(value, own, items) for name, value in call.kwargs.items()}
    return other


def _own_items(call: context.Call) -> int:
    """How many items the call has: all of its tensors, or all of its lists of texts, must agree on it."""
    if reason := call.why_not_again():
        raise Declined(reason)
    given = (*call.args, *call.kwargs.values())
    if not all(map(values.is_plain, given)):
        raise Declined("the model is given other things than tensors, numbers and texts, which cannot be repeated")
    data = [leaf for _, leaf in values.leaves(given) if _is_data(leaf)]
    sizes = {int(leaf.shape[0]) if len(leaf.shape) else 0 for leaf in data}
    sizes |= {len(value) for value in given if _is_texts(value)}
    if not sizes:
        raise Declined("the model is given neither tensors nor lists of texts")
    if len(sizes) > 1 or 0 in sizes:
        raise Declined("the tensors that the model is given do not have one first dimension, so none is the batch")
    return sizes.pop()


def _is_texts(value: object) -> bool:
    return type(value) in (list, tuple) and bool(value) and all(isinstance(item, str) for item in value)  # type: ignore[attr-defined]


def _is_data(leaf: object) -> bool:
    return values.is_tensor(leaf) or values.is_array(leaf)


def _resize(value: Any, own: int, items: int) -> Any:
    if _is_data(value):
        return _rows(value, own, items)
    if _is_texts(value):
        return type(value)((list(value) * -(-items // own))[:items])
    if type(value) in (list, tuple):
        return type(value)(_resize(item, own, items) for item in value)
    if type(value) is dict:
        return {name: _resize(item, own, items) for name, item in value.items()}
    return value


def _rows(value: Any, own: int, items: int) -> Any:
    """So many rows: the first ones, or all of them over and over."""
    times = -(-items // own)
    if values.is_tensor(value):
        torch: Any = sys.modules["torch"]
        return torch.cat([value.detach()] * times)[:items]
    return sys.modules["numpy"].concatenate([value] * times)[:items]


def _settled(call: context.Call) -> object:
    """The answer to the script's own call, once nothing is being prepared any more."""
    result = _answer(call)
    for _ in range(MOST_PREPARING):
        if not accelerated.is_preparing(call.function):
            return result
        result = _answer(call)
    return result


def _answer(call: context.Call) -> object:
    try:
        with call.again() as again:
            return again()
    except Exception as error:
        raise Declined(f"the model cannot be called so: {type(error).__name__}: {error}") from error


def _answers(result: object, items: int) -> Mapping[str, Any]:
    """The outputs by name; each must have a row for each item."""
    outputs, unknown, _ = outputs_of(result)
    wrong = [name for name, value in outputs.items() if not values.is_tensor(value) or not _has_rows(value, items)]
    if wrong or unknown or not outputs:
        what = wrong[0] if wrong else "what the model returns"
        raise Declined(f"{what} does not have one row for each item, so no answer can be checked")
    return outputs


def _has_rows(tensor: Any, items: int) -> bool:
    return len(tensor.shape) > 0 and int(tensor.shape[0]) == items


def _record(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """As `capture` keeps a call; both have the same inputs by construction."""
    return {"digest": "", "rows": [], "outputs": dict(outputs), "unknown": []}
