"""Asks `neural_coder.runtime`, where the script uses it, what answers for a model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from . import values

_RUNTIMES = ("neural_coder.runtime", "neural_coder_runtime")
"""As installed, and as `--vendor` copies it beside a script."""


def explanations(function: Callable[..., Any]) -> list[Any]:
    """What the runtime says about the models that a callable runs; nothing about models never given to it.

    Args:
        function: The callee of a probed call.
    """
    explains = [getattr(sys.modules.get(name), "explain", None) for name in _RUNTIMES]
    if not any(explains):
        return []
    said = []
    for root in values.modules_of(function):
        # The runtime puts a forward of its own on the instance: only such modules inside of others are worth asking.
        inner = (module for module in root.modules() if module is not root and "forward" in vars(module))
        said += [explain(module) for module in (root, *inner) for explain in explains if explain is not None]
    return [explanation for explanation in said if getattr(explanation, "engine", "")]


def is_preparing(function: Callable[..., Any]) -> bool:
    """Whether a model still collects calibration data: the original has answered the call that was just made."""
    return any(getattr(one, "is_preparing", False) for one in explanations(function))


def conversion_seconds(function: Callable[..., Any]) -> float:
    """Time that conversions have taken so far: a call in which it grows is no sample."""
    return float(sum(getattr(one, "conversion_seconds", 0.0) for one in explanations(function)))
