"""What a caller of `accelerate` asks for, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

SYNONYMS = {"int8": "int8_static"}
"""Other names of precisions."""
STATIC = ("int8_static", "int8_static_bf16")
"""Precisions whose scales are found beforehand, on calibration data."""


@dataclass(frozen=True, slots=True)
class NoOptions:
    """The options of an engine that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a model is to be run."""

    engine: str
    precision: str = "fp32"
    calibration: int | Iterable[object] = 32
    """Samples of the first calls that static quantization looks at, or the data itself."""
    exclude: tuple[str, ...] = ()
    """Names of modules, or of their classes, that stay in floating point when the others are quantized."""
    dynamic_shapes: bool | str = "auto"
    cache: bool = True
    strict: bool = False
    options: object = field(default_factory=NoOptions)
    """The engine's own settings: an instance of its `options` class."""

    @property
    def needs_calibration(self) -> bool:
        """Whether the precision asks for calibration data."""
        return self.precision in STATIC

    def describe(self) -> str:
        """All that a converted model depends on besides calibration, in words that can be compared."""
        return repr((self.engine, self.precision, self.exclude, self.dynamic_shapes, self.options))


def checked(settings: Settings) -> Settings:
    """Return the settings in their canonical form.

    Raises:
        ValueError: for a value that cannot be meant.
    """
    if isinstance(settings.calibration, int) and (settings.calibration < 1 or settings.calibration is True):
        raise ValueError(f"calibration is a number of samples, at least 1, or the data; got {settings.calibration!r}")
    if isinstance(settings.calibration, (str, bytes)) or not isinstance(settings.calibration, (int, Iterable)):
        raise ValueError(f"calibration is a number of samples or an iterable of inputs; got {settings.calibration!r}")
    if isinstance(settings.exclude, str):
        raise ValueError(f"exclude is a list of names: exclude=[{settings.exclude!r}]")
    if settings.dynamic_shapes not in (True, False, "auto"):
        raise ValueError(f"dynamic_shapes is True, False or 'auto'; got {settings.dynamic_shapes!r}")
    return dataclasses.replace(settings, exclude=tuple(settings.exclude))


def options_from(kind: type[Any], given: Mapping[str, object], engine: str) -> object:
    """Make an engine's options of keyword arguments.

    Args:
        kind: The dataclass of its options; its `__post_init__` refuses values that cannot be meant.
        given: Names and values.
        engine: The engine's name, for the message.

    Raises:
        ValueError: for a name that it does not have, or a value that it refuses.
    """
    known = [each.name for each in dataclasses.fields(kind)]
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            has = f"it has: {', '.join(known)}" if known else "it has none"
            raise ValueError(f"engine {engine!r} has no option {name!r}{hint}; {has}")
    return kind(**given)
