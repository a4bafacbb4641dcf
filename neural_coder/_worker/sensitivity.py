"""What 8-bit integers would do to each layer of the models that the runtime accelerates, found out without an engine.

Each layer that multiplies with weights is computed with rounded weights (a scale for each output channel) and rounded
inputs (one scale for all), the others stay as they are. This runs the original forward, on calls of the script.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import accelerated, context, values
from .recorder import Watcher
from .sites import Site

log = logging.getLogger(__name__)

CALLS = 8
"""Calls of a site that are looked at."""
LONGEST = 60.0
"""Seconds after which the remaining layers are not tried alone any more."""
LEVELS = 127
KINDS = ("Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Conv1D")
"""Classes of layers, also by the names of their bases; `Conv1D` is a linear layer of transformers."""
INPUTS_FIRST = ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Conv1D")
"""Those whose weight has the outputs in its second dimension."""


class Sensitivity(Watcher):
    """Keeps the first calls of the script, and measures layers on them."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """Nothing is kept yet; `stop` ends the run once there are calls enough."""
        self.operators: list[dict[str, Any]] = []
        self._stop = stop
        self._calls: dict[str, list[context.Call]] = {}

    def after(self, site: Site, call: context.Call, result: object, noted: object) -> None:
        """Keep the call."""
        kept = self._calls.setdefault(site.name, [])
        if not call.why_not_again():
            kept.append(call)
        if len(kept) >= CALLS:
            self._stop()

    def measure(self) -> None:
        """Measure all layers of all models that were given to the runtime; those that hurt most come first."""
        deadline = time.perf_counter() + LONGEST
        for calls in self._calls.values():
            for model in _given_to_runtime(calls[0]) if calls else ():
                with _original(model):
                    self._measure(model, calls, deadline)
        self._calls.clear()
        self.operators.sort(key=lambda found: (-(found["impact"] or 0.0), -found["error"]))

    def _measure(self, model: Any, calls: list[context.Call], deadline: float) -> None:
        layers = {name: layer for name, layer in model.named_modules() if name and _multiplies(layer)}
        known = {found["name"] for found in self.operators}
        rounded = {name: _Rounded(layer) for name, layer in layers.items() if name not in known}
        for layer in rounded.values():
            layer.watch()
        answers = [_answer(call) for call in calls]
        for layer in rounded.values():
            layer.forget()
        reached = {name: layer for name, layer in rounded.items() if layer.whole > 0}
        for name, layer in sorted(reached.items(), key=lambda item: -item[1].error):
            impact = None
            if time.perf_counter() < deadline:
                layer.replace()
                impact = _difference(_answer(calls[0]), answers[0])
                layer.forget()
            self.operators.append({"name": name, "kind": layer.kind, "error": layer.error, "impact": impact})


class _Rounded:
    """One layer, and what rounding does to its outputs."""

    def __init__(self, layer: Any) -> None:
        self.kind = type(layer).__name__
        self.lost = self.whole = 0.0
        self._layer = layer
        self._handle: Any = None
        self._weight: Any = None

    @property
    def error(self) -> float:
        """Relative error of the layer's own outputs."""
        return math.sqrt(self.lost / self.whole) if self.whole else 0.0

    def watch(self) -> None:
        """Note errors in the calls that follow."""

        def note(layer: Any, args: tuple[Any, ...], output: Any) -> None:
            difference = (self._compute(args, output) - output).float()
            self.lost += float(difference.square().sum())
            self.whole += float(output.float().square().sum())

        self._handle = self._layer.register_forward_hook(note)

    def replace(self) -> None:
        """Let the layer answer as in 8-bit integers."""
        self._handle = self._layer.register_forward_hook(lambda layer, args, output: self._compute(args, output))

    def forget(self) -> None:
        """Let the layer be as it was."""
        self._handle.remove()

    def _compute(self, args: tuple[Any, ...], output: Any) -> Any:
        layer = self._layer
        if not args:  # called by keyword: it stays as it is, and counts as harmless
            return output
        original = layer._parameters["weight"]
        if self._weight is None:
            outputs = int(any(kind.__name__ in INPUTS_FIRST for kind in type(layer).__mro__))
            self._weight = _in_eight_bits(original.detach(), along=outputs)
        layer._parameters["weight"] = self._weight
        try:
            return type(layer).forward(layer, _in_eight_bits(args[0]), *args[1:])
        finally:
            layer._parameters["weight"] = original


def _in_eight_bits(tensor: Any, along: int | None = None) -> Any:
    """The tensor rounded to multiples of one scale, or of one for each index of a dimension."""
    if along is None:
        low, high = tensor.min().clamp(max=0), tensor.max().clamp(min=0)
        scale = ((high - low) / (2 * LEVELS + 1)).clamp(min=1e-12)
        return (((tensor - low) / scale).round() * scale + low).to(tensor.dtype)
    others = [dimension for dimension in range(tensor.dim()) if dimension != along]
    scale = (tensor.abs().amax(dim=others, keepdim=True) / LEVELS).clamp(min=1e-12)
    return ((tensor / scale).round() * scale).to(tensor.dtype)


def _multiplies(layer: Any) -> bool:
    weight = layer._parameters.get("weight")
    kinds = {kind.__name__ for kind in type(layer).__mro__}
    return weight is not None and weight.is_floating_point() and not kinds.isdisjoint(KINDS)


def _given_to_runtime(call: context.Call) -> list[Any]:
    """The modules whose names `exclude` means."""
    roots = values.modules_of(call.function)
    inner = [module for root in roots for module in root.modules() if "forward" in vars(module)]
    return [module for module in dict.fromkeys(inner) if accelerated.explanations(module)]


@contextlib.contextmanager
def _original(model: Any) -> Iterator[None]:
    """Take the runtime away from a model for a while."""
    runtime = vars(model).pop("forward")
    try:
        yield
    finally:
        vars(model)["forward"] = runtime


def _answer(call: context.Call) -> list[Any]:
    torch: Any = context.torch_module()
    with call.again() as again, torch.no_grad():
        found = [leaf for _, leaf in values.leaves(again()) if values.is_tensor(leaf) and leaf.is_floating_point()]
    return [leaf.detach().float().clone() for leaf in found]


def _difference(new: list[Any], old: list[Any]) -> float | None:
    """The largest relative error of all outputs; None when they cannot be compared."""
    errors = []
    for one, other in zip(new, old, strict=True):
        whole = float(other.norm())
        if one.shape != other.shape or not whole:
            continue
        errors.append(float((one - other).norm()) / whole)
    finite = [error for error in errors if math.isfinite(error)]
    return max(finite) if finite else None
