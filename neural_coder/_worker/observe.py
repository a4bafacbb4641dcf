"""Notes which modules the script calls outside of the probed calls."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from .recorder import Recorder

MOST_PLACES = 200
MOST_CALLS = 20_000
"""Outermost calls after which the hook goes away: what a script does, it has done by then."""


class Observer:
    """Sees the outermost calls of modules that no probe covers."""

    def __init__(self, recorder: Recorder, shadow: str, real: str) -> None:
        """Prepare to watch.

        Args:
            recorder: Knows whether a probed call is going on.
            shadow: Where the project is in this run.
            real: Where it is for the user.
        """
        self._recorder = recorder
        self._shadow = shadow
        self._real = real
        self._places: dict[str, None] = {}
        self._calls = 0
        self._handle: Any = None
        self._outer_code: Any = None

    def start(self, torch: Any) -> None:
        """Begin to watch, with a hook that PyTorch calls before each forward."""
        module = torch.nn.modules.module
        self._outer_code = module.Module._call_impl.__code__
        self._handle = module.register_module_forward_pre_hook(self._see)

    def seen(self) -> list[str]:
        """The places, as `file:line class`."""
        return list(self._places)

    def _see(self, module: Any, _: object) -> None:
        if self._recorder.inside or self._recorder.is_off or sys.modules["torch"].compiler.is_compiling():
            return
        if next(module.parameters(), None) is None:
            return  # A loss or an activation.
        # The frames from here: this hook, those of the module's own call, then whoever called it.
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not self._outer_code:
            frame = frame.f_back
        place = self._outermost(frame.f_back) if frame is not None else None
        if place is None:
            return
        self._places[f"{place} {type(module).__name__}"] = None
        self._calls += 1
        if self._calls >= MOST_CALLS or len(self._places) >= MOST_PLACES:
            self._handle.remove()

    def _outermost(self, frame: FrameType | None) -> str | None:
        """Where the project calls the module; None when another module does, or nobody in the project."""
        place = None
        while frame is not None:
            if frame.f_code is self._outer_code:
                return None
            if place is None and frame.f_code.co_filename.startswith(self._shadow):
                place = f"{self._real}{frame.f_code.co_filename[len(self._shadow) :]}:{frame.f_lineno}"
            frame = frame.f_back
        return place
