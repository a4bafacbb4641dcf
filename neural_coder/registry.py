"""Finds the transforms and backends: one per file in `transforms/` and `backends/`, no list of them anywhere.

Strategies of tuning are found in the same way.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from neural_coder import settings
from neural_coder.backend import Backend
from neural_coder.errors import InternalError, UserError
from neural_coder.records import Feature
from neural_coder.transform import Transform
from neural_coder.tuning.strategy import Strategy

T = TypeVar("T")


@functools.cache
def transforms() -> Mapping[str, type[Transform]]:
    """All features by name, in alphabetical order.

    Raises:
        InternalError: A module does not define exactly one transform.
    """
    found = {kind.name(): kind for kind in _discover("neural_coder.transforms", Transform)}  # type: ignore[type-abstract]
    return MappingProxyType(dict(sorted(found.items())))


@functools.cache
def backends() -> Mapping[str, type[Backend]]:
    """All engines by name, in alphabetical order.

    Raises:
        InternalError: A module does not define exactly one backend, or two have the same name.
    """
    found: dict[str, type[Backend]] = {}
    for kind in _discover("neural_coder.backends", Backend):
        if kind.name in found:
            raise InternalError(f"{kind.__module__} and {found[kind.name].__module__} are both called {kind.name!r}.")
        found[kind.name] = kind
    return MappingProxyType(dict(sorted(found.items())))


@functools.cache
def strategies() -> Mapping[str, type[Strategy]]:
    """All tuning strategies by name, in alphabetical order.

    Raises:
        InternalError: A module does not define exactly one strategy.
    """
    found = {kind.name(): kind for kind in _discover("neural_coder.tuning.strategies", Strategy)}  # type: ignore[type-abstract]
    return MappingProxyType(dict(sorted(found.items())))


def strategy(name: str) -> type[Strategy]:
    """Look a tuning strategy up by its name.

    Raises:
        UserError: There is no such strategy; the message names those that there are.
    """
    if name not in strategies():
        raise UserError(f"There is no strategy called {name!r}; there are: {', '.join(strategies())}.")
    return strategies()[name]


def transform(name: str) -> type[Transform]:
    """Look a feature up by its name; `channels-last` and `channelslast` are as good as `channels_last`.

    Raises:
        UserError: There is no such feature; the message names those that it may have meant.
    """
    wanted = name.strip().replace("-", "_")
    if wanted in transforms():
        return transforms()[wanted]
    alike = [kind for known, kind in transforms().items() if known.replace("_", "") == wanted]
    if alike:
        return alike[0]
    near = difflib.get_close_matches(wanted, transforms(), cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(transforms())}."
    raise UserError(f"There is no feature called {name!r}; {hint}")


def parse_feature(text: str) -> Feature:
    """Read a feature as people write it: `bf16`, `batch_size=32`, `int8_static=openvino:8:exclude=head:alpha=0.6`.

    Raises:
        UserError: There is no such feature, or it does not take that value or these settings.
    """
    head, *rest = text.split(":")
    name, separator, value = head.partition("=")
    kind = transform(name)
    plain = [part.strip() for part in rest if "=" not in part]
    feature = Feature(
        name=kind.name(),
        value=":".join([value.strip(), *plain]) if separator or plain else None,
        settings=settings.parse([part for part in rest if "=" in part]),
    )
    problem = kind.check_value(feature.value) or settings.why_not(feature, kind)
    if problem:
        raise UserError(f"{problem}; {text.strip()!r} was given.")
    return feature


def _discover(package: str, base: type[T]) -> list[type[T]]:
    """The one subclass of `base` in each module of a package."""
    kinds = []
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        loaded = importlib.import_module(f"{package}.{module.name}")
        own = [
            kind
            for kind in vars(loaded).values()
            if inspect.isclass(kind) and issubclass(kind, base) and kind.__module__ == loaded.__name__
        ]
        if len(own) != 1:
            found = ", ".join(kind.__name__ for kind in own) or "none"
            raise InternalError(f"{loaded.__name__} must define exactly one {base.__name__}; it has {found}.")
        kinds += own
    return kinds
