"""Conversions that go through an exported graph and files on disk, whichever engine opens the files."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import weakref
from abc import abstractmethod
from collections.abc import Callable, Hashable
from pathlib import Path

import torch

from neural_coder.runtime.cache import Entry
from neural_coder.runtime.engine import CannotConvert, Conversion, Program, Request
from neural_coder.runtime.exported import Exported, Shapes, best_example, export, resized, shapes_of, varying
from neural_coder.runtime.flat import FlatProgram, Session, check_output
from neural_coder.runtime.structure import Call

__all__ = ["Graphs", "Session", "kept_for"]

log = logging.getLogger(__name__)

MAX_GRAPHS = 3
"""Graphs of one model: one for the shapes that came first, more when other shapes come."""
_SHAPES = "shapes.json"


class Graphs(Conversion):
    """A model as an engine's files, one set for each group of shapes.

    A subclass says how files are written (`write`) and opened (`open`).
    """

    def __init__(self, module: torch.nn.Module, request: Request) -> None:
        """Hold a copy of the model, and open what an earlier run has kept.

        Args:
            module: The copy that is exported.
            request: What was asked for.
        """
        super().__init__(module)
        self.request = request
        self._sessions: list[tuple[Shapes, Session]] = []
        self._met: list[tuple[Hashable, list[torch.Size]]] = []
        if request.entry is not None:
            for part in request.entry.parts():
                self._open_kept(part)

    @abstractmethod
    def write(self, exported: Exported, folder: Path) -> None:
        """Convert a graph into files.

        Raises:
            CannotConvert: with the reason in words.
        """

    @abstractmethod
    def open(self, folder: Path, shapes: Shapes) -> Session:
        """Make a session of the files that `write` has written; they may have moved, and go away after this."""

    def program(self, call: Call, output: object) -> Program:
        """Answer calls like `call` from the files, and write these when none fit."""
        check_output(output)
        return FlatProgram(self._session_for(call), output)

    def _session_for(self, call: Call) -> Session:
        tensors = call.leaves.tensors
        for shapes, session in self._sessions:
            if shapes.admit(tensors):
                return session
        if len(self._sessions) >= MAX_GRAPHS:
            raise CannotConvert(f"{MAX_GRAPHS} graphs were made already and none takes these shapes")
        if self.request.settings.needs_calibration and not self.request.calibration.is_complete:
            raise CannotConvert("a graph for other shapes was kept, and there is no calibration data for these")
        self._met.append((call.key, shapes_of(call)))
        known = [shapes_of(each) for each in self.request.calibration.calls if each.key == call.key]
        met = [*(shapes for key, shapes in self._met if key == call.key), *known]
        dynamic = varying(met, self.request.settings.dynamic_shapes)
        exported = export(self.module, resized(call, best_example(met, dynamic)), dynamic)
        if not exported.shapes.admit(tensors):
            exported = export(self.module, call, varying([shapes_of(call)], False))
        return self._make(exported)

    def _make(self, exported: Exported) -> Session:
        def write(folder: Path) -> None:
            self.write(exported, folder)
            (folder / _SHAPES).write_text(json.dumps(exported.shapes.as_json()))

        session = self._kept(write, exported.shapes) or self._unkept(write, exported.shapes)
        self._sessions.append((exported.shapes, session))
        self.graphs = len(self._sessions)
        return session

    def _kept(self, write: Callable[[Path], None], shapes: Shapes) -> Session | None:
        """Write into the cache and open from there; None where it cannot be written."""
        if self.request.entry is None:
            return None
        try:
            part = self.request.entry.add(write)
        except OSError as error:
            self.cache_problem = f"the cache cannot be written ({error.strerror or error})"
            log.warning("The converted model is not kept: %s.", self.cache_problem)
            return None
        return self.open(part, shapes)

    def _unkept(self, write: Callable[[Path], None], shapes: Shapes) -> Session:
        folder = Path(tempfile.mkdtemp(prefix="neural-coder-"))
        weakref.finalize(self, shutil.rmtree, folder, True)  # engines map files of weights into memory
        write(folder)
        return self.open(folder, shapes)

    def _open_kept(self, part: Path) -> None:
        assert self.request.entry is not None
        try:
            shapes = _shapes_in(part)
            self._sessions.append((shapes, self.open(part, shapes)))
        except Exception as error:  # the border to the engine, which may refuse the files of another build
            log.debug("%s cannot be opened and is dropped: %s", part, error)
            self.request.entry.drop(part)
            return
        self.graphs = len(self._sessions)


def kept_for(entry: Entry, call: Call) -> bool:
    """Whether an earlier run has kept a graph that takes a call."""
    return any(_shapes_in(part).admit(call.leaves.tensors) for part in entry.parts())


def _shapes_in(part: Path) -> Shapes:
    return Shapes.from_json(json.loads((part / _SHAPES).read_text()))
