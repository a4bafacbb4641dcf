"""Notes which modules the script calls outside of the probed calls."""

from __future__ import annotations

from typing import Any

from .recorder import Recorder


class Observer:
    """Sees the outermost calls of modules that no probe covers."""

    def __init__(self, recorder: Recorder, shadow: str, real: str) -> None:
        self._recorder = recorder

    def start(self, torch: Any) -> None:
        """Begin to watch."""

    def seen(self) -> list[str]:
        """The places, as `file:line class`."""
        return []
