"""What the runtime says about itself: a record of what runs, one warning, one error."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

_NOT_THE_USER = (str(Path(__file__).parent), str(Path("/torch/nn/modules")))


class AccelerationWarning(RuntimeWarning):
    """A model could not be accelerated; its original forward runs and gives the answers."""


class AccelerationError(RuntimeError):
    """A model could not be accelerated, and `strict=True` asked to be told so by an exception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What runs a model, and why."""

    running: str
    """What answered the last call: `engine/precision`, or `original`."""
    reason: str
    """Why the original answered, in words; empty when the engine did."""
    engine: str
    """The engine that was asked for; empty when the model was never given to `accelerate`."""
    precision: str
    calls_accelerated: int = 0
    calls_original: int = 0
    quantized_modules: int = 0
    """Modules of the converted copy that compute in integers."""
    graphs: int = 0
    """Graphs that were compiled or traced."""
    dtypes: frozenset[str] = frozenset()
    """Types of the converted copy's weights, such as `bfloat16` or `qint8`."""
    conversion_seconds: float = 0.0
    """Spent so far on calibrating, copying, converting, compiling and checking."""
    is_inaccurate: bool = False
    """Whether the engine's answers were refused because they differ too much from the original's."""
    is_preparing: bool = False
    """Whether the original only answers until there is enough calibration data."""
    cache_problem: str = ""
    """Why the converted model was not kept on disk; empty when it was, or when this engine keeps none."""

    def __str__(self) -> str:
        calls = f"{self.calls_accelerated} calls accelerated, {self.calls_original} by the original"
        if not self.engine:
            return f"original: {self.reason}"
        if self.reason:
            return f"original instead of {self.engine}/{self.precision}: {self.reason} ({calls})"
        details = [f"weights in {', '.join(sorted(self.dtypes))}"] if self.dtypes else []
        details += [f"{self.quantized_modules} quantized modules"] if self.quantized_modules else []
        details += [f"{self.graphs} graphs"] if self.graphs else []
        details += [f"converted in {self.conversion_seconds:.1f} s", calls]
        return f"{self.running}: {', '.join(details)}"


def warn(message: str) -> None:
    """Issue an `AccelerationWarning` at the line of the user that led here."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and any(place in frame.f_code.co_filename for place in _NOT_THE_USER):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, AccelerationWarning, stacklevel=level)
