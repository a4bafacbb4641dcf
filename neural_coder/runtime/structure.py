"""Nested inputs and outputs of models: what is in them, and the same again with other tensors.

Tuples, named tuples, lists, dictionaries (transformers' `ModelOutput` among them), `UserDict` and dataclasses are
looked into; tensors, plain values and any other object are leaves. Descriptions are hashable and hold no shapes.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
from collections import OrderedDict, UserDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from types import FunctionType, MethodType

import torch
from torch import Tensor

_TENSORS = (torch.Tensor, torch.nn.Parameter)
_CONSTANTS = (bool, type(None))
_PLAIN = (
    int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device, torch.layout, torch.memory_format,
    enum.Enum, range, slice, type, FunctionType, MethodType,
)  # fmt: skip
_WHOLE = (*_PLAIN, *_CONSTANTS)
"""What is never looked into."""


class Leaves:
    """What the containers of a nested structure hold, in the order of a walk."""

    __slots__ = ("objects", "plain", "tensors")

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.plain: list[object] = []
        self.objects: list[object] = []


class Call:
    """The inputs of one call, and what they are."""

    __slots__ = ("args", "key", "kwargs", "leaves")

    def __init__(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        self.args: tuple[object, ...] = args
        self.kwargs: Mapping[str, object] = kwargs
        self.leaves = leaves = Leaves()
        self.key: Hashable = (
            tuple([describe(value, leaves) for value in args]),
            tuple(kwargs),
            tuple([describe(value, leaves) for value in kwargs.values()]),
        )

    def exact_key(self) -> Hashable:
        """The key with shapes and plain values."""
        shapes = tuple([tensor.shape for tensor in self.leaves.tensors])
        return (self.key, shapes, tuple([_exact(value) for value in self.leaves.plain]))

    def with_tensors(self, replace: Callable[[Tensor], Tensor]) -> Call:
        """The same call in fresh containers, each tensor replaced by what `replace` makes of it."""
        args = tuple([rebuild(value, replace) for value in self.args])
        return Call(args, {name: rebuild(value, replace) for name, value in self.kwargs.items()})

    def copied(self) -> Call:
        """The same call with copies of its tensors and of everything that can be changed."""
        args, kwargs = copy.deepcopy((self.args, dict(self.kwargs)))
        return Call(args, kwargs)


def describe(value: object, leaves: Leaves) -> Hashable:
    """Describe a nested structure without shapes, and append its leaves to `leaves`."""
    cls = type(value)
    if cls in _TENSORS:
        leaves.tensors.append(value)
        return (value.dtype, value.layout, value.dim(), value.device)  # type: ignore[attr-defined]
    if cls in _CONSTANTS:
        return (cls, value)
    if isinstance(value, _PLAIN):
        leaves.plain.append(value)
        return cls  # type: ignore[return-value]  # mypy takes type[object] for not hashable
    parts = _parts(value)
    if parts is None:
        leaves.objects.append(value)
        return cls  # type: ignore[return-value]
    keys, values = parts
    return (cls, keys, tuple([describe(item, leaves) for item in values]))


def _exact(value: object) -> Hashable:
    """What tells a plain value from others of its type; of floats, -0.0 is not 0.0, and NaN is itself."""
    return value if type(value) is int or type(value) is str else repr(value)


def rebuild(value: object, replace: Callable[[Tensor], Tensor]) -> object:
    """Build the same structure anew, each tensor replaced by what `replace` makes of it.

    Plain values and other objects are handed on as they are. Tensors come in the order in which `describe` lists them.
    """
    if type(value) in _TENSORS:
        return replace(value)
    parts = None if isinstance(value, _WHOLE) else _parts(value)
    if parts is None:
        return value
    keys, values = parts
    return _assemble(value, keys, [rebuild(item, replace) for item in values])


def tensors_of(value: object) -> Iterator[Tensor]:
    """All tensors in a nested structure, those too that only stand for one while a model is captured."""
    if isinstance(value, Tensor):
        yield value
        return
    parts = None if isinstance(value, _WHOLE) else _parts(value)
    for item in parts[1] if parts else ():
        yield from tensors_of(item)


def mutable_containers(value: object) -> Iterator[tuple[object, tuple[Hashable, ...], list[object]]]:
    """Lists and dictionaries in a nested structure, each with its keys and values of now."""
    parts = None if isinstance(value, (*_TENSORS, *_WHOLE)) else _parts(value)
    if parts is None:
        return
    keys, values = parts
    if isinstance(value, (list, dict, UserDict)):
        yield value, keys, values
    for item in values:
        yield from mutable_containers(item)


def contents(container: object) -> tuple[tuple[Hashable, ...], list[object]]:
    """Keys and values that a container holds now; no keys for a list."""
    return _parts(container) or ((), [])


def tensors_inside(value: object, depth: int = 6) -> Iterator[Tensor | None]:
    """All tensors that an object holds, through attributes and containers; None for a part that cannot be seen."""
    if isinstance(value, torch.Tensor):
        yield value
        return
    if isinstance(value, _WHOLE):
        return
    inner = _inner(value)
    if inner is None or depth == 0:
        yield None
        return
    for item in inner:
        yield from tensors_inside(item, depth - 1)


def _inner(value: object) -> list[object] | None:
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, (dict, UserDict)):
        return list(value.values())
    if not hasattr(value, "__dict__"):
        return None
    return list(vars(value).values())


def _parts(value: object) -> tuple[tuple[Hashable, ...], list[object]] | None:
    """Keys and values of a container that is looked into; None for a leaf."""
    cls = type(value)
    if cls is tuple or cls is list:
        return (), list(value)  # type: ignore[call-overload]
    if isinstance(value, (dict, UserDict)):
        return tuple(value.keys()), list(value.values())
    if isinstance(value, tuple) and hasattr(cls, "_fields"):
        return cls._fields, list(value)
    if dataclasses.is_dataclass(value):
        names = tuple(field.name for field in dataclasses.fields(value) if hasattr(value, field.name))
        return names, [getattr(value, name) for name in names]
    return None


def _assemble(like: object, keys: tuple[Hashable, ...], values: list[object]) -> object:
    cls = type(like)
    if cls is tuple or cls is list:
        return cls(values)
    if cls is dict:
        return dict(zip(keys, values, strict=True))
    if isinstance(like, tuple):
        return cls._make(values)  # type: ignore[attr-defined]
    if isinstance(like, OrderedDict) and dataclasses.is_dataclass(like):
        return _like_model_output(like, dict(zip(keys, values, strict=True)))
    fresh = copy.copy(like)
    if isinstance(fresh, UserDict):
        fresh.data = dict(zip(keys, values, strict=True))
        return fresh
    for key, value in zip(keys, values, strict=True):
        if isinstance(fresh, dict):
            fresh[key] = value
        else:
            object.__setattr__(fresh, str(key), value)
    return fresh


def _like_model_output(like: OrderedDict[Hashable, object], items: dict[Hashable, object]) -> object:
    """A dictionary whose values are its attributes as well, without the checks that its class makes of each.

    Those take longer than a small model does, when they come between two calls of an engine.
    """
    fresh: OrderedDict[Hashable, object] = type(like).__new__(type(like))
    attributes: dict[Hashable, object] = vars(fresh)  # type: ignore[assignment]  # names are all that it is asked for
    attributes.update(vars(like))
    for key, value in items.items():
        OrderedDict.__setitem__(fresh, key, value)
        if key in attributes:
            attributes[key] = value
    return fresh
