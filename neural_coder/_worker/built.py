"""Notes where modules are built, which of them are whole models, and which of these are called."""

from __future__ import annotations

import weakref
from types import FrameType
from typing import Any

from . import kinds, values
from .trails import Trail, Trails, first_argument

MOST_PLACES = 300
MOST_PENDING = 2000
"""Modules that wait to be looked at; then they are, whole or not."""
MOST_INNER = 50_000
_COMPILER = ("torch/_dynamo/", "torch/_functorch/", "torch/_inductor/")


class Place:
    """A place where modules are built."""

    def __init__(self, number: int, trail: Trail, module: Any, how: str) -> None:
        self.number = number
        self.trail = trail
        self.how = how
        self.name = kinds.class_name(module)
        self.home = type(module).__module__
        self.bases = kinds.base_names(module)
        self.count = 0
        self.parameters: int | None = None
        self.form = ""
        self.called = False
        self.part_of: int | None = None
        self.is_model: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """The record for the parent: an `ObservedModel`."""
        return {
            "number": self.number,
            "frames": self.trail.frames,
            "through": self.trail.through,
            "name": self.name,
            "home": self.home,
            "bases": self.bases,
            "form": self.form,
            "how": self.how,
            "count": self.count,
            "parameters": self.parameters,
            "called": self.called,
            "part_of": self.part_of,
        }


class Built:
    """All modules that the script has built so far."""

    def __init__(self, trails: Trails) -> None:
        self.is_full = False
        self.problems: dict[str, None] = {}
        self._trails = trails
        self._places: dict[tuple[object, ...], Place] = {}
        self._pending: dict[int, tuple[weakref.ref[Any], Place]] = {}
        self._roots: dict[int, tuple[weakref.ref[Any], Place]] = {}
        self._holders: dict[int, int] = {}
        """For modules inside of a root: the root's id."""

    def note(self, module: Any, frame: FrameType | None, how: str) -> None:
        """A module begins to exist.

        Args:
            module: Not much more than its class yet.
            frame: Who calls its constructor (or the constructor's own subclass).
            how: `built`, or `restored` from a file or a copy.
        """
        if id(module) in self._pending and self._pending[id(module)][0]() is module:
            return
        outer = frame
        while outer is not None:
            subject = _constructs(outer)
            if subject is module:
                frame = outer.f_back
            elif values.is_module(subject):
                return  # A layer of the module that is being built there.
            outer = outer.f_back
        trail = self._trails.of(frame)
        place = None if _is_compilers(trail) else self._place(trail, module, how)
        if place is not None:
            place.count += 1
            self._pending[id(module)] = (weakref.ref(module), place)
            if len(self._pending) > MOST_PENDING:
                self.settle()

    def settle(self) -> None:
        """Look at the modules that were built since the last time, now that they are whole."""
        pending, self._pending = self._pending, {}
        fresh = [(module, place) for ref, place in pending.values() if (module := ref()) is not None]
        whole = [(module, place) for module, place in fresh if self._see(module, place)]
        for module, place in whole:
            for inner in module.modules():
                if inner is not module:
                    self._take_in(inner, module, place)

    def called(self, module: Any) -> int | None:
        """A model is called; gives the number of the place where it was built, when that was seen."""
        self.settle()
        inner = kinds.unwrapped(module)
        own = self._root(id(inner)) or self._root(id(module)) or self._holder_of(inner)
        for part in module.modules():
            root = self._root(id(part))
            if root is not None:
                root.called = True
        if own is not None:
            own.called = True
        return own.number if own is not None else None

    def as_json(self) -> list[dict[str, Any]]:
        """The places where models (and their parts) were built."""
        self.settle()
        return [place.as_json() for place in self._places.values() if place.is_model is not False]

    def _place(self, trail: Trail, module: Any, how: str) -> Place | None:
        key = (*trail.key(), type(module))
        if key not in self._places:
            if len(self._places) >= MOST_PLACES:
                self.is_full = True
                return None
            self._places[key] = Place(len(self._places), trail, module, how)
        return self._places[key]

    def _see(self, module: Any, place: Place) -> bool:
        """Note what a whole module is; False for one that never became whole, or does not let itself be looked at."""
        if not hasattr(module, "_modules"):
            return False
        try:
            place.is_model = bool(place.is_model) or kinds.is_model(module)
            place.form = place.form or kinds.form(module)
            place.name, place.bases = kinds.class_name(module), kinds.base_names(module)
            place.parameters = max(place.parameters or 0, kinds.parameters(module))
        except Exception as error:
            self.problems[f"{type(module).__qualname__} was not looked at: {type(error).__name__}: {error}"] = None
            return False
        self._roots[id(module)] = (weakref.ref(module), place)
        return True

    def _take_in(self, inner: Any, module: Any, place: Place) -> None:
        part = self._root(id(inner))
        if part is not None and part is not place:
            part.part_of = place.number
        if len(self._holders) < MOST_INNER:
            self._holders.setdefault(id(inner), id(module))

    def _root(self, number: int) -> Place | None:
        ref, place = self._roots.get(number, (None, None))
        return place if ref is not None and ref() is not None else None

    def _holder_of(self, module: Any) -> Place | None:
        """The model that a called part belongs to."""
        number = self._holders.get(id(module), 0)
        ref, place = self._roots.get(number, (None, None))
        holder = ref() if ref is not None else None
        if holder is not None and any(inner is module for inner in holder.modules()):
            return place
        return None


def _is_compilers(trail: Trail) -> bool:
    """Whether the module is one that `torch.compile` makes for its own work."""
    return any(step.startswith(_COMPILER) for step in trail.through)


def _constructs(frame: FrameType) -> Any:
    """The object that a frame builds or restores; None for other frames."""
    if frame.f_code.co_name in ("__init__", "__setstate__"):
        return first_argument(frame)
    return None
