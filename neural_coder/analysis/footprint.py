"""What one analysis has looked at: as long as none of that changes, neither does its answer."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from neural_coder.analysis.folders import Question

K = TypeVar("K")
V = TypeVar("V")
_SETTLED_NS = 2_000_000_000
"""A file that was written less than this ago may be written again within one tick of its file system's clock."""


@dataclass(slots=True, eq=False)
class Footprint:
    """The files that were read and the questions that were asked of folders, for one piece of work."""

    files: set[Path] = field(default_factory=set)
    questions: set[Question] = field(default_factory=set)
    parts: set[Footprint] = field(default_factory=set)
    """Of the answers that the work used and that had been found before, or that are still being found."""
    _whole: tuple[frozenset[Path], frozenset[Question]] | None = None

    def whole(self) -> tuple[frozenset[Path], frozenset[Question]]:
        """All files and questions, those of the parts and of their parts included.

        To be asked only when the work and all that it used is done.
        """
        if self._whole is None:
            files, questions = set(self.files), set(self.questions)
            seen, waiting = {self}, {self}
            while waiting:
                # Answers may need each other, so a part's parts may lead back here.
                waiting = set[Footprint]().union(*[outer.parts for outer in waiting if outer._whole is None]) - seen
                files.update(*[part.files if part._whole is None else part._whole[0] for part in waiting])
                questions.update(*[part.questions if part._whole is None else part._whole[1] for part in waiting])
                seen |= waiting
            self._whole = frozenset(files), frozenset(questions)
        return self._whole


class Watch:
    """Notes what is looked at, in the footprint of the work that is going on."""

    def __init__(self) -> None:
        self.now = Footprint()


class Remembered(Generic[K, V]):
    """Answers that are found once and given many times, each time with the footprint of what they were found from.

    Whatever outlives the analysis of one file must be kept in one of these; else the cache of analyses does not notice
    when it changes.

    Args:
        watch: Where footprints are noted.
    """

    def __init__(self, watch: Watch):
        self._watch = watch
        self._entries: dict[K, tuple[V, Footprint]] = {}

    def get(self, key: K, find: Callable[[], V], meanwhile: V | None = None) -> V:
        """The answer to a question.

        Args:
            key: The question.
            find: Finds the answer when it is first needed.
            meanwhile: The answer to give while it is being found, when it is needed for that; None: that cannot be.
        """
        entry = self._entries.get(key)
        if entry is None:
            entry = self._find(key, find, meanwhile)
        self._watch.now.parts.add(entry[1])
        return entry[0]

    def _find(self, key: K, find: Callable[[], V], meanwhile: V | None) -> tuple[V, Footprint]:
        outer, footprint = self._watch.now, Footprint()
        if meanwhile is not None:
            self._entries[key] = meanwhile, footprint
        self._watch.now = footprint
        try:
            self._entries[key] = find(), footprint
        except BaseException:
            self._entries.pop(key, None)
            outer.parts.add(footprint)
            raise
        finally:
            self._watch.now = outer
        return self._entries[key]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file held when it was read."""

    digest: str
    """Of its bytes; empty when it could not be read."""
    stamp: tuple[int, ...] | None = None
    """Size, times of change and inode: while these stay, so do the bytes. None: the file was too young to tell."""


def digest(data: bytes) -> str:
    """A short digest of a file's bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def stamp(path: Path | str) -> tuple[int, ...] | None:
    """What tells, without reading it, whether a file has changed; None when that cannot be told.

    Taken before the file is read: a change in between then shows in the next stamp.
    """
    try:
        stat = os.stat(path)  # noqa: PTH116 (a string will do, and there are thousands)
    except OSError:
        return None
    if max(stat.st_mtime_ns, stat.st_ctime_ns) > time.time_ns() - _SETTLED_NS:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
