"""Sees which modules the script builds and calls from outside of any other module, from where, and how.

`Module.__call__` and `Module.__init__` are wrapped. Global hooks of PyTorch would do the same at a higher price: they
send every inner module through the slow path, make compiled modules warn, and compiled code depends on them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

from . import context, kinds, values
from .built import Built
from .recorder import Recorder
from .trails import Trail, Trails, codes

MOST_PLACES = 500
MOST_KEYS = 5000
DETAILED = 20
"""Calls of the same module from the same place that are looked at closely; later ones are counted and timed only."""
DETAILED_IN_PROBES = 2
"""The same for calls whose time is being measured: they are over before the warm-up is."""
MOST_SIGNATURES = 4
MOST_OUTPUTS = 4
MOST_BUILT = 8


class Mode:
    """The calls from one place in one mode."""

    def __init__(self, training: bool, grad: bool, inference: bool) -> None:
        self.training = training
        self.grad_mode = "inference_mode" if inference else "enabled" if grad else "no_grad"
        self.calls = 0
        self.seconds = 0.0
        self.autocast: set[str] = set()
        self.signatures: dict[str, None] = {}
        self.backward = False

    def look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the circumstances of a call."""
        self.autocast.add(kinds.autocast())
        if len(self.signatures) < MOST_SIGNATURES:
            self.signatures[kinds.signature(args, kwargs)] = None

    def await_backward(self, result: object) -> None:
        """Note when gradients are computed through a result."""

        def seen(*_: object) -> None:
            self.backward = True

        for number, (_, leaf) in enumerate(values.leaves(result)):
            if number >= MOST_OUTPUTS:
                break
            node = leaf.grad_fn if values.is_tensor(leaf) else None
            if node is not None:
                node.register_hook(seen)

    def as_json(self) -> dict[str, Any]:
        """The record for the parent: an `ObservedMode`."""
        return {
            "training": self.training,
            "grad_mode": self.grad_mode,
            "autocast": next(iter(sorted(self.autocast, reverse=True)), ""),
            "calls": self.calls,
            "seconds": self.seconds,
            "backward": self.backward,
            "signatures": list(self.signatures),
        }


class Place:
    """A place from where models of one class are called."""

    def __init__(self, trail: Trail, module: Any, form: str) -> None:
        self.trail = trail
        self.direct = trail.owner is not None
        self.name = kinds.class_name(module)
        self.home = type(kinds.unwrapped(module)).__module__
        self.form = form or kinds.form(module)
        self.probed = False
        self.built: set[int] = set()
        self.modes: dict[tuple[bool, bool, bool], Mode] = {}
        self.first_part: int | None = None
        """Where `forward` is called directly, only its parts are seen: the one that stands for the whole."""

    def as_json(self) -> dict[str, Any]:
        """The record for the parent: an `ObservedCall`."""
        return {
            "frames": self.trail.frames,
            "through": self.trail.through,
            "direct": self.direct,
            "name": self.name,
            "home": self.home,
            "form": self.form,
            "probed": self.probed,
            "built": sorted(self.built),
            "modes": [mode.as_json() for mode in self.modes.values() if mode.calls],
        }


class _Known:
    """What is known about the calls of one module from one place in one mode."""

    __slots__ = ("codes", "counts", "kind", "left", "mode")

    def __init__(self, codes: list[CodeType], kind: type) -> None:
        # Held, so that no other code can get their addresses, which are in the key.
        self.codes = codes
        self.kind = kind
        self.left = -1
        self.mode: Mode | None = None
        self.counts = 1


class _Local(threading.local):
    inside = False


class Observer:
    """Sees the calls and constructions of models."""

    def __init__(self, recorder: Recorder, shadow: str, real: str) -> None:
        """Prepare to watch.

        Args:
            recorder: Knows whether a probed call is going on.
            shadow: Where the project is in this run.
            real: Where it is for the user.
        """
        self.deadline = float("inf")
        self.stop: Callable[[], None] = lambda: None
        """Called behind the first call after the deadline; does not return."""
        self.is_compiling: Callable[[], bool] = lambda: False
        self._recorder = recorder
        self._trails = Trails(shadow, real)
        self._built = Built(self._trails)
        self._places: dict[tuple[object, ...], Place] = {}
        self._known: dict[tuple[object, ...], _Known] = {}
        self._local = _Local()
        self._lock = threading.RLock()
        self._off = False
        self._is_full = False
        self._torch: Any = None
        self._set_eval_frame: Callable[[Any], Any] = lambda _: None
        self.problems: dict[str, None] = {}

    def start(self, torch: Any) -> None:
        """Begin to watch, as soon as PyTorch is there."""
        self._torch = torch
        self.is_compiling = getattr(getattr(torch, "compiler", None), "is_compiling", self.is_compiling)
        os.register_at_fork(after_in_child=self._forked)
        self._trails.follow_threads()
        kind = torch.nn.Module
        kind.__init__ = self._watched_beginning(kind.__init__, "built")
        kind.__setstate__ = self._watched_beginning(kind.__setstate__, "restored")
        kind.__call__ = self._watched_call(kind.__call__)
        torch.compile = self._watched_compile(torch.compile)
        apart: Any = Observer._apart
        own = [Observer._begin, Observer._model_in, Observer._timed, Observer._end, apart.__wrapped__]
        own += [Trails.key, Trails.place_of]
        self._leave_alone(torch, [kind.__init__, kind.__setstate__, kind.__call__, *own])

    def _leave_alone(self, torch: Any, functions: list[Any]) -> None:
        """Keep `torch.compile` away from our own code; it goes on with the frames inside, as behind PyTorch's own."""
        frames: Any = getattr(getattr(torch._C, "_dynamo", None), "eval_frame", None)
        if hasattr(frames, "skip_code") and hasattr(frames, "set_eval_frame"):
            self._set_eval_frame = frames.set_eval_frame
            for function in functions:
                frames.skip_code(function.__code__)

    @property
    def inside(self) -> bool:
        """Whether this thread is in a model's call."""
        return self._local.inside

    def switch_off(self) -> None:
        """Let everything through untouched, once the script has ended."""
        self._off = True

    def _forked(self) -> None:
        """Let everything through in a forked child; a thread that is not there may hold the lock."""
        self._off = True
        self._lock = threading.RLock()

    def as_json(self, seconds: float) -> dict[str, Any] | None:
        """The record for the parent: an `Observation`; None when PyTorch was never imported.

        Args:
            seconds: How long the script has run.
        """
        if self._torch is None:
            return None
        with self._lock:
            calls = [place.as_json() for place in self._places.values()]
            return {
                "seconds": seconds,
                "calls": [call for call in calls if call["modes"]],
                "models": self._built.as_json(),
                "compiled_graphs": context.graphs_compiled(),
                "truncated": self._is_full or self._built.is_full,
                "problems": [*self.problems, *self._built.problems],
            }

    # --- what stands in the place of PyTorch's methods

    def _watched_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        is_compiling, local = self.is_compiling, self._local

        @functools.wraps(original)
        def __call__(module: Any, /, *args: Any, **kwargs: Any) -> Any:
            # First of all: the compiler knows the answer to this and drops the rest.
            if is_compiling() or local.inside or self._off:
                return original(module, *args, **kwargs)
            known = self._begin(module, args, kwargs)
            if known is None or known.mode is None:
                return original(module, *args, **kwargs)
            return self._timed(known, known.mode, original, (module, *args), kwargs)

        return __call__

    def _watched_compile(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Models that are called in compiled functions are never called as such: the functions stand for them."""

        @functools.wraps(original)
        def compile(*args: Any, **kwargs: Any) -> Any:
            compiled = original(*args, **kwargs)
            subject = args[0] if args else kwargs.get("model")
            if not isinstance(subject, (FunctionType, MethodType)) or not isinstance(compiled, FunctionType):
                return compiled
            return self._watched_function(subject, compiled)

        return compile

    def _watched_function(self, subject: Any, compiled: Callable[..., Any]) -> Callable[..., Any]:
        is_compiling, local = self.is_compiling, self._local
        # Weak: nothing lives longer because it was looked at.
        known_model: weakref.ref[Any] | None = None

        @functools.wraps(compiled)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal known_model
            if is_compiling() or local.inside or self._off:
                return compiled(*args, **kwargs)
            model = known_model() if known_model is not None else None
            if model is None and (model := self._model_in(subject, args)) is not None:
                known_model = weakref.ref(model)
            known = self._begin(model, args, kwargs, "compiled") if model is not None else None
            if known is None or known.mode is None:
                return compiled(*args, **kwargs)
            return self._timed(known, known.mode, compiled, args, kwargs)

        return call

    def _model_in(self, subject: Any, args: tuple[Any, ...]) -> Any:
        with self._apart(subject):
            return kinds.model_in(subject, args)
        return None

    def _timed(self, known: _Known, mode: Mode, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        self._local.inside = True
        began = time.perf_counter()
        try:
            result = function(*args, **kwargs)
        finally:
            ended = time.perf_counter()
            self._local.inside = False
            with self._lock:
                mode.calls += known.counts
                mode.seconds += ended - began
        if known.left >= 0 or ended > self.deadline:
            self._end(known, result, ended)
        return result

    def _watched_beginning(self, original: Callable[..., None], how: str) -> Callable[..., None]:
        is_compiling = self.is_compiling

        @functools.wraps(original)
        def begin(module: Any, /, *args: Any, **kwargs: Any) -> None:
            if not is_compiling() and not self._off:
                with self._apart(module):
                    self._built.note(module, sys._getframe(1), how)
            original(module, *args, **kwargs)

        return begin

    @contextlib.contextmanager
    def _apart(self, module: Any) -> Iterator[None]:
        """Look at something without being compiled, and without ever failing the script."""
        before = self._set_eval_frame(None)
        try:
            with self._lock:
                yield
        except Exception as error:
            # A class of the user's may do anything when it is looked at.
            self.problems[f"{type(module).__qualname__} was not observed: {type(error).__name__}: {error}"] = None
        finally:
            self._set_eval_frame(before)

    # --- places

    def _begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], form: str = "") -> _Known | None:
        """What is known about calls like this one; the first ones are looked at closely."""
        torch = self._torch
        if torch._C._get_tracing_state() is not None:
            return None  # Any look at a tensor would get into the trace.
        frame = sys._getframe(2)
        # A frozen scripted module has no mode.
        modes = (getattr(module, "training", False), torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        which = id(module) if len(self._known) < MOST_KEYS else type(module)
        key = (self._trails.key(frame), which, modes)
        known = self._known.get(key)
        if known is None or known.kind is not type(module):
            known = self._known[key] = _Known(codes(frame), type(module))
            with self._apart(module):
                self._meet(known, module, frame, modes, form)
        if known.left > 0 and known.mode is not None:
            known.left -= 1
            with self._apart(module):
                known.mode.look(args, kwargs)
        elif known.left == 0:
            known.left = -1
        return known

    def _end(self, known: _Known, result: object, ended: float) -> None:
        if known.left >= 0 and known.mode is not None and known.mode.grad_mode == "enabled":
            with self._apart(result):
                known.mode.await_backward(result)
        if ended > self.deadline:
            self.stop()

    def _meet(self, known: _Known, module: Any, frame: FrameType, modes: tuple[bool, bool, bool], form: str) -> None:
        """Calls like this one are new: find out where they come from, and whose they are."""
        if not kinds.is_model(module):
            return
        trail = self._trails.of(frame, kinds.is_model)
        seen, direct = (module, False) if trail.owner is None else (trail.owner, True)
        key = (*trail.key(), kinds.class_name(seen), direct)
        if key not in self._places:
            if len(self._places) >= MOST_PLACES:
                self._is_full = True
                return
            self._places[key] = Place(trail, seen, form)
        trail.owner = None  # Nothing lives longer because it was looked at.
        place = self._places[key]
        if direct:
            place.first_part = place.first_part if place.first_part is not None else id(module)
            known.counts = int(place.first_part == id(module))
        place.probed = place.probed or self._recorder.inside
        number = self._built.called(seen)
        if number is not None and len(place.built) < MOST_BUILT:
            place.built.add(number)
        known.left = DETAILED_IN_PROBES if self._recorder.inside else DETAILED
        known.mode = place.modes.setdefault(modes, Mode(*modes))
