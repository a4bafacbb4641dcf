"""What a run may use of the machine: it is ended before the machine swaps, or its disk is full."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from neural_coder.units import size

STREAM_LIMIT = 256 * 1024 * 1024
"""Bytes of standard output, or of standard error."""
DISK_LIMIT = 20 * 1024**3
"""Bytes that a run may write into its copy of the project; also at most half of what is free at its start."""
MEMORY_RESERVE = 0.04
"""Share of the machine's memory that is left to others."""
CULPRIT = 0.25
"""A run that uses less than this share of the memory is not to blame when that is short."""
AT_EASE = 0.3
"""Share of the memory that is free: above it there is time to look less often."""
PAUSE, SHORT_PAUSE = 1.0, 0.05
"""Seconds between two looks."""
_GROUP = Path("/sys/fs/cgroup")


class Limits:
    """Watches one run.

    Args:
        pid: Its first process; those below it count as well.
        folder: Its own folder, with all that it writes.
        streams: The files that its output goes to.
    """

    def __init__(self, pid: int, folder: Path, streams: tuple[Path, ...]) -> None:
        self._pid = pid
        self._folder = folder
        self._streams = streams
        self._free = free_space(folder)
        self._allowed = min(DISK_LIMIT, self._free // 2)
        self.pause = PAUSE
        """Seconds until the next look."""

    def broken(self) -> str:
        """Which limit is broken, as one sentence; empty when none is."""
        return self._output() or self._memory() or self._disk()

    def _output(self) -> str:
        if not any(stream.stat().st_size > STREAM_LIMIT for stream in self._streams):
            return ""
        return f"The script wrote more than {STREAM_LIMIT // 2**20} MiB of output and was ended."

    def _memory(self) -> str:
        total, available = memory()
        self.pause = PAUSE if available > AT_EASE * total else SHORT_PAUSE
        if available >= MEMORY_RESERVE * total:
            return ""
        used = memory_below(self._pid)
        if used < CULPRIT * total:
            return ""
        return f"The script took {size(used)} of memory, and was ended before the machine ran out of it."

    def _disk(self) -> str:
        # What is free tells quickly; only then are the files counted, since others write as well.
        if self._free - free_space(self._folder) <= self._allowed:
            return ""
        written = size_of(self._folder)
        if written <= self._allowed:
            return ""
        return f"The script wrote {size(written)} of files, and was ended before the disk was full."


def memory() -> tuple[int, int]:
    """The memory of this machine or of its control group, and what is available of it, in bytes; (0, 0): unknown."""
    facts = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            facts[name] = int(value.split()[0]) * 1024
    total, available = facts.get("MemTotal", 0), facts.get("MemAvailable", 0)
    with contextlib.suppress(OSError, ValueError, KeyError):
        limit = int((_GROUP / "memory.max").read_text(encoding="ascii"))
        lines = (_GROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        files = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
        used = int((_GROUP / "memory.current").read_text(encoding="ascii")) - files["inactive_file"]
        if limit < total:
            total, available = limit, min(available, max(0, limit - used))
    return total, available


def memory_below(pid: int) -> int:
    """Bytes that a process and all below it hold in memory; what they share counts once for each."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(entry.parent.name)] = int(entry.read_bytes().rpartition(b")")[2].split()[1])
    found, level = [pid], [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found += level
    return sum(_resident(each) for each in found)


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_space(folder: Path) -> int:
    """Bytes that may still be written where a folder lies."""
    if not hasattr(os, "statvfs"):
        return sys.maxsize
    try:
        facts = os.statvfs(folder)
    except OSError:
        return sys.maxsize
    return facts.f_bavail * facts.f_frsize


def size_of(folder: Path) -> int:
    """Bytes that the files in a folder take; links are not followed."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512  # noqa: PTH118 (many files)
    return total
