"""Takes down what shows that a feature was at work while the script ran."""

from __future__ import annotations

from typing import Any

from .imports import AfterImport
from .recorder import Recorder


def await_imports(imports: AfterImport) -> None:
    """Count what can only be counted from the start."""


def take(recorder: Recorder) -> None:
    """Look at the calls that were recorded."""


def as_json() -> dict[str, Any]:
    """The record for the parent."""
    return {}
