"""Where in the user's code something happens: the frames of the project that led there, and what lies between."""

from __future__ import annotations

import functools
import itertools
import linecache
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from . import values

MOST_FRAMES = 12
"""Frames of the project that are kept, the innermost first."""
MOST_BETWEEN = 8
FRAMES_IN_KEY = 3
"""Frames of the project that tell calls apart: a helper that calls a model is often called from several places."""
OWN = str(Path(__file__).resolve().parent)
_PLUMBING = ("torch/nn/modules/module.py", "torch/utils/_contextlib.py", "torch/_dynamo/eval_frame.py", "/functools.py")
"""Library code whose frames tell a reader nothing."""


class Trail:
    """How the script came to a place.

    Attributes:
        frames: Of the project, the innermost first: path, line, function, and the span of the call where Python knows.
        through: Code between the innermost of them and the place, the one next to the project first.
        owner: A module whose `forward` was called directly, or None.
    """

    __slots__ = ("frames", "owner", "through")

    def __init__(self) -> None:
        self.frames: list[tuple[Any, ...]] = []
        self.through: list[str] = []
        self.owner: Any = None

    def start_anew(self, owner: Any) -> None:
        """What was seen so far lies inside of the `forward` of a module."""
        self.frames, self.through, self.owner = [], [], owner

    def key(self) -> tuple[object, ...]:
        """Equal for equal ways."""
        return (*self.frames, *self.through)


class Trails:
    """Reads stacks of frames."""

    def __init__(self, shadow: str, real: str) -> None:
        """Tell the project from all other code.

        Args:
            shadow: Where the project is in this run.
            real: Where it is for the user.
        """
        self._shadow = shadow.rstrip("/") + "/"
        self._real = real.rstrip("/") + "/"
        self._files: dict[str, tuple[str, str]] = {}
        self._starts: weakref.WeakKeyDictionary[threading.Thread, Trail] = weakref.WeakKeyDictionary()

    def follow_threads(self) -> None:
        """From now on, remember for every thread where the project started it."""
        original = threading.Thread.start

        @functools.wraps(original)
        def start(thread: threading.Thread) -> None:
            self._starts[thread] = self.of(sys._getframe(1))
            original(thread)

        threading.Thread.start = start  # type: ignore[method-assign, assignment]

    def of(self, frame: FrameType | None, is_model: Callable[[Any], bool] | None = None) -> Trail:
        """The way to a frame.

        Args:
            frame: Where something happens.
            is_model: Tells models; the way to one whose `forward` is called directly ends at that call.
        """
        trail = Trail()
        while frame is not None and len(trail.frames) < MOST_FRAMES:
            kind, path = self.place_of(frame.f_code)
            if is_model is not None and frame.f_code.co_name == "forward":
                owner = first_argument(frame)
                if values.is_module(owner) and is_model(owner):
                    trail.start_anew(owner)
                    frame = frame.f_back
                    continue
            if kind == "project":
                trail.frames.append((path, frame.f_lineno, _name(frame.f_code), _position(frame)))
            elif kind == "other" and not trail.frames:
                trail.through.insert(0, f"{path}:{frame.f_lineno} {_name(frame.f_code)}")
            frame = frame.f_back
        del trail.through[MOST_BETWEEN:]
        start = self._starts.get(threading.current_thread())
        if start is not None:
            trail.frames += start.frames[: MOST_FRAMES - len(trail.frames)]
        return trail

    def key(self, frame: FrameType | None) -> tuple[int, ...]:
        """What tells the ways to a frame apart, as far as it costs little: made for every call."""
        files, key, left = self._files, [], FRAMES_IN_KEY
        while frame is not None:
            code = frame.f_code
            kind = (files.get(code.co_filename) or self.place_of(code))[0]
            if kind != "own":
                key.append(id(code))
                key.append(frame.f_lasti)
                if kind == "project":
                    left -= 1
                    if not left:
                        break
            frame = frame.f_back
        return tuple(key)

    def place_of(self, code: CodeType) -> tuple[str, str]:
        """Whose code this is (`project`, `other`, or `own` for ours and the interpreter's), and its path to show."""
        name = code.co_filename
        if name not in self._files:
            self._files[name] = self._classify(name)
        return self._files[name]

    def _classify(self, name: str) -> tuple[str, str]:
        if name.startswith((OWN, "<frozen")) or name.endswith(_PLUMBING):
            return "own", name
        if name.startswith(self._shadow) and "/site-packages/" not in name:
            return "project", self._real + name[len(self._shadow) :]
        homes = [entry.rstrip("/") + "/" for entry in sys.path if entry and name.startswith(entry.rstrip("/") + "/")]
        return "other", name[len(max(homes, key=len, default="")) :]


def codes(frame: FrameType | None) -> list[CodeType]:
    """The code of a frame and of all around it."""
    found = []
    while frame is not None:
        found.append(frame.f_code)
        frame = frame.f_back
    return found


def first_argument(frame: FrameType) -> Any:
    """What a function was given first (`self`, in a method)."""
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None


def _name(code: CodeType) -> str:
    name: str = getattr(code, "co_qualname", code.co_name)
    return name.replace(".<locals>", "")


def _position(frame: FrameType) -> tuple[int, int, int, int] | None:
    """The call that a frame is in: first line and column, last line and column; None before Python 3.11."""
    if not hasattr(frame.f_code, "co_positions") or frame.f_lasti < 0:
        return None
    nothing = (None, None, None, None)
    where = next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), nothing)
    line, end_line, column, end_column = where
    if line is None or end_line is None or column is None or end_column is None:
        return None
    file = frame.f_code.co_filename
    return line, _characters(file, line, column), end_line, _characters(file, end_line, end_column)


def _characters(file: str, line: int, column: int) -> int:
    """A column counted in characters, where the interpreter counts bytes."""
    text = linecache.getline(file, line)
    return column if text.isascii() else len(text.encode()[:column].decode(errors="replace"))
