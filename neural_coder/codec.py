"""Records as plain data for JSON and back, without loss: between our own processes, and in the cache.

A record becomes the list of its fields, in their order; what a list means is told by the record's type hints. The
public form, with names, is `report.as_json`.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Plain = Any
"""None, bool, int, float, str, and lists and dicts of these."""


def encode(value: object) -> Plain:
    """Turn a record into plain data.

    Raises:
        TypeError: It holds something that there is no form for.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, enum.Enum) else value
    if dataclasses.is_dataclass(value):
        return [encode(getattr(value, name)) for name in _names(type(value))]
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, frozenset | set):
        return sorted(encode(item) for item in value)
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError(f"no plain form for {type(value).__name__}")


def decode(kind: type[T], data: Plain) -> T:
    """Make a record from plain data.

    Args:
        kind: The record's class.
        data: What `encode` gave.

    Raises:
        TypeError, ValueError, LookupError: The data is not that of such a record.
    """
    decoder: Callable[[Plain], T] = _decoder(typing.cast("Hashable", kind))
    return decoder(data)


def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@functools.cache
def _decoder(kind: Any) -> Callable[[Plain], Any]:
    """The function that makes values of a type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _record_decoder(kind)
    if origin in (typing.Union, types.UnionType):
        return _optional_decoder(arguments)
    if origin is tuple:
        return _tuple_decoder(arguments)
    if origin in (frozenset, list):
        item = _decoder(arguments[0])
        return lambda data: origin(item(entry) for entry in _listed(data))
    if origin in (Mapping, dict):
        name, value = _decoder(arguments[0]), _decoder(arguments[1])
        return lambda data: {name(key): value(entry) for key, entry in data.items()}
    if kind is bytes:
        return base64.b64decode
    if kind is Path or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        return typing.cast("Callable[[Plain], Any]", kind)
    if origin is typing.Literal or kind in (str, int, float, bool, Any):
        return lambda data: data
    raise TypeError(f"no way back to {kind}")


def _record_decoder(kind: Any) -> Callable[[Plain], Any]:
    hints = typing.get_type_hints(kind)
    names = _names(kind)
    decoders = [_decoder(hints[name]) for name in names]

    def make(data: Plain) -> Any:
        values = _listed(data)
        if len(values) != len(names):
            raise ValueError(f"{kind.__name__} has {len(names)} fields, not {len(values)}")
        return kind(**{name: decoder(value) for name, decoder, value in zip(names, decoders, values, strict=True)})

    return make


def _optional_decoder(arguments: tuple[Any, ...]) -> Callable[[Plain], Any]:
    kinds = [kind for kind in arguments if kind is not types.NoneType]
    containers = [kind for kind in kinds if kind not in (str, int, float, bool)]
    if len(kinds) != 1 and len(containers) == 1 and typing.get_origin(containers[0]) is tuple:
        # What is no list stands for itself.
        listed = _decoder(containers[0])
        return lambda data: listed(data) if isinstance(data, list) else data
    if len(kinds) != 1:
        raise TypeError(f"no way back to one of {kinds}")
    decoder = _decoder(kinds[0])
    return lambda data: None if data is None else decoder(data)


def _tuple_decoder(arguments: tuple[Any, ...]) -> Callable[[Plain], Any]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        item = _decoder(arguments[0])
        return lambda data: tuple(item(entry) for entry in _listed(data))
    decoders = [_decoder(argument) for argument in arguments]
    return lambda data: tuple(make(entry) for make, entry in zip(decoders, _listed(data), strict=True))


def _listed(data: Plain) -> list[Plain]:
    if not isinstance(data, list):
        raise TypeError(f"expected a list, not {type(data).__name__}")
    return data
