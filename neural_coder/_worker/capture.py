"""Keeps the outputs of the first calls, or compares them with those that another run kept."""

from __future__ import annotations

from typing import Any

from .recorder import Watcher


class Captures(Watcher):
    """The outputs of the first calls of each inference site."""

    def __init__(self, capture_to: str | None, compare_with: str | None) -> None:
        self.comparison: dict[str, Any] | None = None

    def finish(self) -> None:
        """Write or compare what was captured."""
