"""What one analysis has looked at: as long as none of that changes, neither does its answer."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from neural_coder.analysis.folders import Question

_SETTLED_NS = 2_000_000_000
"""A file that was written less than this ago may be written again within one tick of its file system's clock."""


@dataclass(slots=True)
class Footprint:
    """The files that were read and the questions that were asked of folders."""

    files: set[Path] = field(default_factory=set)
    questions: set[Question] = field(default_factory=set)

    def add(self, other: Footprint) -> None:
        """Take in what another piece of work looked at."""
        self.files |= other.files
        self.questions |= other.questions


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
