"""Who answers a call: the guards that send it to the original when the converted copy might answer wrongly.

`Watch` remembers a model as it was converted (weights, submodules, attributes, settings) and tells whether it still is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import chain
from operator import is_, itemgetter
from types import BuiltinFunctionType, FunctionType, MethodType

import torch
from torch.autograd import forward_ad

from neural_coder.runtime.structure import Leaves

_INSIDE = frozenset(vars(torch.nn.Module()))
"""Attributes that every module has; of these only `training` says anything about its answers."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_CONTENTS = ("_parameters", "_buffers", "_modules")
_VALUES = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    torch.Size,
    torch.dtype,
    torch.device,
    torch.memory_format,
)
_FUNCTIONS = (type, FunctionType, MethodType, BuiltinFunctionType)
_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SAMPLES = 8
"""Elements of each weight that are compared, to notice changes that PyTorch does not count (through `.data`)."""

_dispatch_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)
_functorch_level: Callable[[], object] = getattr(
    getattr(torch._C, "_functorch", None), "peek_interpreter_stack", lambda: None
)


def transformed() -> str:
    """Say which transformation of PyTorch is running the model just now; empty for a plain call."""
    if torch.jit.is_tracing():
        return "the model is being traced"
    if _functorch_level() is not None:
        return "a transform of torch.func is active"
    if _dispatch_modes():
        return "a torch dispatch mode is active"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    return ""


def unfit(leaves: Leaves) -> str:
    """Say why no engine takes these inputs; empty when one may."""
    for tensor in leaves.tensors:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            return "an input is sparse, quantized or without data"
        if tensor.numel() == 0:
            return "an input is empty"
    for item in leaves.objects:
        if isinstance(item, torch.Tensor):
            return f"an input is a {type(item).__name__}, not a plain tensor"
    return "" if leaves.tensors or leaves.objects else "no input is a tensor"


def autocast_state(device: str) -> Hashable:
    """What autocast does on this type of device."""
    if not torch.is_autocast_enabled(device):
        return None
    dtype: Hashable = torch.get_autocast_dtype(device)
    return dtype


class CannotWatch(Exception):
    """Changes of this model could not be noticed; the message says why."""


_BY_TRAINING = (
    torch.nn.modules.batchnorm._NormBase,
    torch.nn.modules.dropout._DropoutNd,
    torch.nn.MultiheadAttention,
    torch.nn.RNNBase,
    torch.nn.RReLU,
)
"""Modules of PyTorch whose answers depend on their training flag; all others of `torch.nn.modules` ignore it."""


def answers_as_in_training(module: torch.nn.Module) -> bool:
    """Whether a module may answer otherwise than in evaluation, because its training flag is set.

    A new head on a model that is in evaluation already (`model.eval(); model.fc = nn.Linear(...)`) has the flag, too.
    """
    known = type(module).__module__.startswith("torch.nn.modules.")
    return module.training and (not known or isinstance(module, _BY_TRAINING))


class Watch:
    """A model as it was at one moment, cheap to compare with what it is now."""

    def __init__(self, model: torch.nn.Module) -> None:
        """Remember `model`.

        Raises:
            CannotWatch: when some change of it could not be noticed.
        """
        self._model = model
        named = list(model.named_modules())
        self._hooks = [vars(module)[name] for _, module in named[1:] for name in _HOOKS]
        self._watch_contents([vars(module)[name] for _, module in named for name in _CONTENTS])
        self._watch_attributes(named)
        self._watch_tensors()

    def hooked(self) -> bool:
        """Whether a submodule has hooks now; those would not fire in a converted copy."""
        return any(self._hooks)

    def needs_gradients(self) -> bool:
        """Whether a weight needs gradients."""
        return any(tensor.requires_grad for tensor in self._tensors)

    def holds(self) -> bool:
        """Whether the model is still as it was."""
        return self._same_contents() and self._same_attributes() and self._same_tensors()

    def difference(self) -> str:
        """Name what changed; empty when nothing did."""
        if not self._same_contents():
            return "submodules, parameters or buffers were added, removed or replaced"
        if not self._same_attributes():
            return f"attribute {self._changed_attribute()} changed"
        if not self._same_tensors():
            return f"{self._changed_tensor()} changed"
        return ""

    # What a module holds: nothing may be added, removed or replaced.

    def _watch_contents(self, dicts: list[dict[str, object]]) -> None:
        self._empty = [items for items in dicts if not items]
        self._contents = [items.values() for items in dicts if items]
        self._content = list(chain.from_iterable(self._contents))

    def _same_contents(self) -> bool:
        if any(self._empty) or sum(map(len, self._contents)) != len(self._content):
            return False
        return all(map(is_, chain.from_iterable(self._contents), self._content))

    # Attributes: plain values must be equal, others the same objects, with the same items inside.

    def _watch_attributes(self, named: list[tuple[str, torch.nn.Module]]) -> None:
        self._plain: list[tuple[str, dict[str, object], int, Callable[[dict[str, object]], object], object]] = []
        self._others: list[tuple[str, dict[str, object], str, object]] = []
        self._inner: list[tuple[str, object, list[object]]] = []
        self._loose: list[tuple[str, torch.Tensor]] = []
        seen: set[int] = set()
        for name, module in named:
            attributes = vars(module)
            mine = [key for key in attributes if key not in _INSIDE]
            plain = ["training", *(key for key in mine if isinstance(attributes[key], _VALUES))]
            get = itemgetter(*plain)
            self._plain.append((name, attributes, len(attributes), get, get(attributes)))
            for key in mine:
                if not isinstance(attributes[key], _VALUES):
                    self._others.append((name, attributes, key, attributes[key]))
                    self._watch_inside(f"{name}.{key}".lstrip("."), attributes[key], seen)

    def _watch_inside(self, name: str, value: object, seen: set[int]) -> None:
        if id(value) in seen or isinstance(value, (*_VALUES, *_FUNCTIONS, torch.nn.Module)):
            return
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            self._loose.append((name, value))
            return
        items = _items(value)
        if items is None:
            return
        self._inner.append((name, value if isinstance(value, (list, dict)) else vars(value), items))
        for item in items:
            self._watch_inside(name, item, seen)

    def _same_attributes(self) -> bool:
        return self._changed_attribute() == ""

    def _changed_attribute(self) -> str:
        for name, attributes, size, get, values in self._plain:
            if len(attributes) != size or not _equal(get, attributes, values):
                return f"of {name or 'the model'}"
        for name, attributes, key, value in self._others:
            if attributes.get(key) is not value:
                return f"{name}.{key}".lstrip(".")
        for name, container, items in self._inner:
            now = container.values() if isinstance(container, dict) else container
            if len(now) != len(items) or not all(map(_unchanged, now, items)):  # type: ignore[arg-type, call-overload]
                return name
        return ""

    # Tensors: the same memory, not written to.

    def _watch_tensors(self) -> None:
        named = [*self._model.named_parameters(), *self._model.named_buffers(), *self._loose]
        for name, tensor in named:
            _check_watchable(name, tensor)
        self._names = [name for name, _ in named]
        self._tensors = [tensor for _, tensor in named]
        self._places = self._where()
        self._samples = _samples(self._tensors)
        self._sampled = [torch.cat(group) for group in self._samples]

    def _where(self) -> list[int]:
        tensors = self._tensors
        return [tensor._version for tensor in tensors] + [tensor.data_ptr() for tensor in tensors]

    def _same_tensors(self) -> bool:
        if self._where() != self._places:
            return False
        return all(torch.equal(torch.cat(now), then) for now, then in zip(self._samples, self._sampled, strict=True))

    def _changed_tensor(self) -> str:
        count = len(self._names)
        changed = [place for place, then in enumerate(self._places) if self._where()[place] != then]
        return self._names[changed[0] % count] if changed else "a weight"


def _equal(get: Callable[[dict[str, object]], object], attributes: dict[str, object], values: object) -> bool:
    try:
        return bool(get(attributes) == values)
    except (KeyError, RuntimeError, ValueError, TypeError):  # gone, or became something that has no plain equality
        return False


def _unchanged(now: object, then: object) -> bool:
    return now is then or (isinstance(now, _VALUES) and type(now) is type(then) and now == then)


def _items(value: object) -> list[object] | None:
    """What is inside an attribute: a list, a dictionary, or a record of settings such as a model's config."""
    if isinstance(value, (list, dict)):
        return list(value.values() if isinstance(value, dict) else value)
    if hasattr(value, "__dict__") and _is_settings(value):
        return list(vars(value).values())
    return None


def _is_settings(value: object, depth: int = 2) -> bool:
    """Whether an object holds nothing but plain values, containers and other settings."""
    if isinstance(value, (*_VALUES, *_FUNCTIONS, list, tuple, dict, set)):
        return True
    if depth == 0 or isinstance(value, (torch.Tensor, torch.nn.Module)) or not hasattr(value, "__dict__"):
        return False
    return all(_is_settings(item, depth - 1) for item in vars(value).values())


def _check_watchable(name: str, tensor: torch.Tensor) -> None:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise CannotWatch(f"{name} is a {type(tensor).__name__}, not a plain tensor")
    if tensor.is_inference():
        raise CannotWatch(f"{name} was made inside torch.inference_mode(), so its changes cannot be seen")
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise CannotWatch(f"{name} is sparse, quantized or without data")


def _samples(tensors: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Views of a few elements of each tensor on the CPU, as integers, grouped by their size."""
    groups: dict[int, list[torch.Tensor]] = {}
    with torch.inference_mode(False):
        for tensor in tensors:
            size = tensor.element_size()
            if tensor.device.type == "cpu" and tensor.numel() and size in _SAME_SIZE:
                groups.setdefault(size, []).append(_sample(tensor.detach()).view(_SAME_SIZE[size]))
    return list(groups.values())


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    count, start = tensor.numel(), tensor.storage_offset()
    dense = tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
    if not dense:
        return tensor.as_strided((1,), (1,), start)
    step = max(1, count // _SAMPLES)
    return tensor.as_strided((min(count, _SAMPLES),), (step,), start)
