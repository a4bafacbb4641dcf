"""The state of one running function, class body or module in the abstract interpretation."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

from neural_coder.analysis.syntax import Parsed
from neural_coder.analysis.values import UNKNOWN, ClassInfo, FunctionInfo, Thing, Value, join

Names = dict[str, Value]


@dataclass(slots=True, eq=False)
class Frame:
    """Names and their values, and where they are looked up when they are not here."""

    parsed: Parsed
    names: Names = field(default_factory=dict)
    parent: Frame | None = None
    """The frame that a function closes over; class bodies are skipped, as in Python."""
    info: FunctionInfo | None = None
    class_info: ClassInfo | None = None
    """Set while the frame runs a class body."""
    self_thing: Thing | None = None
    self_name: str = ""
    parameters: set[str] = field(default_factory=set)
    """Parameters that still name what was passed."""
    changed: set[str] = field(default_factory=set)
    """Those of them into which something was put: the caller sees that, too."""
    outer: dict[str, Frame] = field(default_factory=dict)
    """Names declared `global` or `nonlocal`, with the frame that they live in."""
    results: list[Value] = field(default_factory=list)
    yields: list[Value] = field(default_factory=list)
    loaders_yielded: set[ast.AST] = field(default_factory=set)
    """Loaders of the loops that a generator yields from."""
    breaks: list[list[Names]] = field(default_factory=list)
    statement: ast.stmt | None = None
    read_objects: set[Thing] = field(default_factory=set)
    """What the running statement got from names (what it builds is not among them)."""
    captured: bool = False
    """Functions were defined here that may read these names later."""
    star_imports: list[str] = field(default_factory=list)
    """Packages outside the project of which everything was imported by `*`."""
    star_files: list[Path] = field(default_factory=list)
    """Project files of which everything was imported by `*`, and which have not been run yet."""
    deferred: list[ast.stmt] = field(default_factory=list)
    """Statements for type checkers, run when the file has been run."""
    loaders: list[frozenset[ast.AST]] = field(default_factory=list)
    """Loaders of the loops around the running statement."""

    @property
    def module(self) -> Frame:
        """The frame of the file."""
        frame = self
        while frame.parent is not None:
            frame = frame.parent
        return frame

    def clear(self) -> None:
        """Forget all values."""
        self.names = {}
        for kept in (self.results, self.yields, self.breaks, self.outer, self.read_objects):
            kept.clear()

    def lookup(self, name: str) -> Value | None:
        """What a name stands for; None when it is bound nowhere."""
        frame: Frame | None = self.outer.get(name, self)
        while frame is not None:
            if name in frame.names:
                return frame.names[name]
            frame = frame.parent
        return None


def joined(*states: Names) -> Names:
    """Names after branches that end in one of several states; a name bound in one only keeps what it has there."""
    if len(states) == 1:
        return states[0]
    first = states[0]
    result = dict(first)
    for state in states[1:]:
        for name, value in state.items():
            known = result.get(name, UNKNOWN)
            if known is not value:
                result[name] = join((known, value)) if name in result else value
    return result
