"""What goes into a patch and what comes out: edits with their authors; a patch, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neural_coder.diff import unified_diff
from neural_coder.edits import Edit
from neural_coder.records import Change
from neural_coder.source import Source


@dataclass(frozen=True, slots=True)
class Authored:
    """An edit, who wants it, and where its author stands among authors at the same place."""

    author: str
    order: int
    edit: Edit


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A file before and after its edits; every promise was checked."""

    before: Source
    after: Source
    changes: tuple[Change, ...] = ()
    """The edits that changed something, in the order of the text; those that were there already are left out."""
    creates: bool = False
    """Whether there is no such file yet; then `before` is empty."""

    @property
    def empty(self) -> bool:
        """Whether nothing changes."""
        return self.before.text == self.after.text

    def diff(self, root: Path) -> bytes:
        """Write the patch as a unified diff.

        Args:
            root: The folder in which the diff will be applied; a file outside of it goes by its bare name.
        """
        path, root = self.before.path.absolute(), root.absolute()
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        return unified_diff(name, None if self.creates else self.before.encode(), self.after.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Two authors want things that exclude each other; nothing was changed."""

    first: str
    second: str
    reason: str
    """In words, with the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpatchable:
    """The file, or a place in it, is such that it cannot be edited safely; nothing was changed."""

    reason: str


class Refusal(Exception):
    """Ends the making of a patch with a value, not with an error; never leaves `neural_coder.patching`."""

    def __init__(self, outcome: Conflict | Unpatchable) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome
