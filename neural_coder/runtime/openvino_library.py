"""OpenVINO and NNCF, imported so that they report nothing to their makers and leave the program's logging alone."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from neural_coder.runtime.engine import CannotConvert

_TELEMETRY = "openvino_telemetry"
_NO_TELEMETRY = "NNCF_CI"
"""Environment variable that makes NNCF take its own stand-in for telemetry when it is imported."""


def openvino() -> Any:
    """The package `openvino`."""
    return _imported("openvino")


def nncf() -> Any:
    """The package `nncf`."""
    return _imported("nncf")


@functools.cache
def core() -> Any:
    """The one object that reads and compiles models."""
    return openvino().Core()


def capabilities() -> list[str]:
    """What the processor computes natively, in OpenVINO's words: `BF16`, `FP32`, `INT8`, ..."""
    return list(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@contextmanager
def in_words() -> Iterator[None]:
    """Let errors of OpenVINO say what went wrong: that comes last in their messages, behind places in its own code."""
    try:
        yield
    except CannotConvert:
        raise
    except Exception as error:  # the border to OpenVINO, whose errors have no common base
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise CannotConvert(f"OpenVINO: {lines[-1][:300] if lines else 'it gave no reason'}") from error


@contextmanager
def quiet_nncf() -> Iterator[None]:
    """Let NNCF print neither messages nor progress."""
    nncf()
    progress = importlib.import_module("nncf.common.logging.track_progress")
    logger = logging.getLogger("nncf")
    level, bars = logger.level, {name: vars(progress)[name] for name in ("Progress", "WeightedProgress")}
    logger.setLevel(logging.ERROR)
    vars(progress).update({name: _disabled(bar) for name, bar in bars.items()})
    try:
        yield
    finally:
        logger.setLevel(level)
        vars(progress).update(bars)


def _disabled(bar: Callable[..., object]) -> Callable[..., object]:
    return lambda *columns, **settings: bar(*columns, **{**settings, "disable": True})


def _imported(name: str) -> ModuleType:
    known = sys.modules.get(name)
    if known is not None:
        return known
    with _without_telemetry():
        logger_class = logging.getLoggerClass()
        try:
            return importlib.import_module(name)
        finally:
            logging.setLoggerClass(logger_class)  # NNCF replaces it, for everybody's loggers


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Let imports find no telemetry: by default it tells Intel of each import and each use."""
    absent = _TELEMETRY not in sys.modules
    before = os.environ.get(_NO_TELEMETRY)
    if absent:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # an import of it fails, as if it were not installed
    os.environ[_NO_TELEMETRY] = "1"
    try:
        yield
    finally:
        if absent:
            del sys.modules[_TELEMETRY]
        if before is None:
            del os.environ[_NO_TELEMETRY]
        else:
            os.environ[_NO_TELEMETRY] = before
