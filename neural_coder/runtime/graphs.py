"""Conversions that go through an exported graph and files on disk, whichever engine opens the files."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import weakref
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
"""Graphs for calls that differ in shapes only: one for the shapes that came first, more when other shapes come."""
MAX_IN_ALL = 8
"""Graphs of one model for calls of all structures and with all plain values; each holds the weights once more."""
_GRAPH = "graph.json"


@dataclass(frozen=True, slots=True)
class Graph:
    """Which calls a graph answers."""

    signature: str
    """See `signature_of`."""
    shapes: Shapes

    def takes(self, signature: str, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether it answers a call."""
        return signature == self.signature and self.shapes.admit(tensors)

    def as_json(self) -> str:
        """Text to keep beside the graph."""
        return json.dumps({"signature": self.signature, "shapes": self.shapes.as_json()})

    @classmethod
    def from_json(cls, text: str) -> Graph:
        """The inverse of `as_json`."""
        data = json.loads(text)
        return cls(str(data["signature"]), Shapes.from_json(data["shapes"]))


class Graphs(Conversion):
    """A model as an engine's files, one set for each group of shapes.

    A subclass says how files are written (`write`) and opened (`open`).
    """

    def __init__(self, module: torch.nn.Module, request: Request) -> None:
        """Hold a copy of the model; what an earlier run has kept is opened when a call needs it.

        Args:
            module: The copy that is exported.
            request: What was asked for.
        """
        super().__init__(module)
        self.request = request
        self._sessions: list[tuple[Graph, Session]] = []
        self._met: list[tuple[str, list[torch.Size]]] = []
        self._opened: set[Path] = set()

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
        tensors, signature = call.leaves.tensors, signature_of(call)
        for graph, session in self._sessions:
            if graph.takes(signature, tensors):
                return session
        if (kept := self._open_kept(signature, tensors)) is not None:
            return kept
        same = sum(graph.signature == signature for graph, _ in self._sessions)
        if same >= MAX_GRAPHS or len(self._sessions) >= MAX_IN_ALL:
            raise CannotConvert(f"{len(self._sessions)} graphs were made already and none takes this call")
        if self.request.settings.needs_calibration and not self.request.calibration.is_complete:
            raise CannotConvert("a graph for other inputs was kept, and there is no calibration data for these")
        self._met.append((signature, shapes_of(call)))
        known = [shapes_of(each) for each in self.request.calibration.calls if signature_of(each) == signature]
        met = [*(shapes for key, shapes in self._met if key == signature), *known]
        dynamic = varying(met, self.request.settings.dynamic_shapes)
        exported = export(self.module, resized(call, best_example(met, dynamic)), dynamic)
        if not exported.shapes.admit(tensors):
            exported = export(self.module, call, varying([shapes_of(call)], False))
        return self._make(exported, Graph(signature, exported.shapes))

    def _make(self, exported: Exported, graph: Graph) -> Session:
        def write(folder: Path) -> None:
            self.write(exported, folder)
            (folder / _GRAPH).write_text(graph.as_json())

        session = self._kept(write, graph.shapes) or self._unkept(write, graph.shapes)
        return self._used(graph, session)

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

    def _open_kept(self, signature: str, tensors: Sequence[torch.Tensor]) -> Session | None:
        """Open what an earlier run has kept for such calls; others stay closed, since each holds the weights."""
        entry = self.request.entry
        for part in entry.parts() if entry is not None else ():
            if part in self._opened:
                continue
            try:
                graph = _graph_in(part)
                session = self.open(part, graph.shapes) if graph.takes(signature, tensors) else None
            except Exception as error:  # the border to the engine, which may refuse the files of another build
                log.debug("%s cannot be opened and is dropped: %s", part, error)
                entry.drop(part)  # type: ignore[union-attr]
                continue
            if session is not None:
                self._opened.add(part)
                return self._used(graph, session)
        return None

    def _used(self, graph: Graph, session: Session) -> Session:
        self._sessions.append((graph, session))
        self.graphs = len(self._sessions)
        return session


def kept_for(entry: Entry, call: Call) -> bool:
    """Whether an earlier run has kept a graph that takes a call."""
    signature = signature_of(call)
    return any(_graph_in(part).takes(signature, call.leaves.tensors) for part in entry.parts())


def signature_of(call: Call) -> str:
    """A digest of all of a call that is baked into a graph: everything but the values and shapes of its tensors."""
    plain = [repr(value) for value in call.leaves.plain]
    return hashlib.sha256(repr((call.key, plain)).encode()).hexdigest()


def _graph_in(part: Path) -> Graph:
    return Graph.from_json((part / _GRAPH).read_text())
