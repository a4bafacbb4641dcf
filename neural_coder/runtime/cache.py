"""Converted models on disk, so that a second start need not calibrate and convert again.

An entry is a folder named by the digest of all that it depends on. Its parts are written beside it and moved into
place, so that nobody sees a half-written one; each part carries the digests of its files and is dropped where they do
not agree. What was not used for the longest time goes first when the folder outgrows its limit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "NEURAL_CODER_CACHE"
"""Environment variable that names another cache folder; the analysis of code keeps its findings there, too."""
LIMIT_VARIABLE = "NEURAL_CODER_CACHE_GB"
DEFAULT_LIMIT_GB = 8.0
_MANIFEST = "manifest.json"
_ABOUT = "about.json"
_PARTIAL = "partial-"
_ABANDONED_SECONDS = 24 * 3600
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What `neural-coder cache list` shows of an entry."""

    key: str
    about: str
    bytes: int
    used: float
    """Time of the last use, in seconds since the epoch."""


def folder() -> Path:
    """Where converted models are kept on this machine, unless the environment names another place."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser() / "models"  # what else is kept there stays out of `clear` and of the limit
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "neural-coder" / "models"


def limit_bytes() -> int:
    """Size that the folder may have."""
    given = os.environ.get(LIMIT_VARIABLE, "")
    try:
        return int(float(given or DEFAULT_LIMIT_GB) * 1e9)
    except ValueError:
        log.warning("%s=%s is no number; %s GB are used.", LIMIT_VARIABLE, given, DEFAULT_LIMIT_GB)
        return int(DEFAULT_LIMIT_GB * 1e9)


class Entry:
    """All that is kept of one converted model."""

    def __init__(self, key: str, about: str, *, root: Path | None = None) -> None:
        """Name an entry; nothing is read or written yet.

        Args:
            key: The digest of all that the model depends on.
            about: What a person should read about it.
            root: The folder of the cache.
        """
        self._root = root or folder()
        self._folder = self._root / key
        self._about = about
        self._sound: set[Path] = set()

    def parts(self) -> Iterator[Path]:
        """The parts that are complete and undamaged; damaged ones are removed."""
        for part in _subfolders(self._folder):
            if part.name.startswith(_PARTIAL):
                continue
            if part not in self._sound and not _is_sound(part):
                log.debug("%s is damaged and removed", part)
                shutil.rmtree(part, ignore_errors=True)
                continue
            self._sound.add(part)  # reading gigabytes once is enough
            _touch(self._folder)
            yield part

    def add(self, write: Callable[[Path], None]) -> Path:
        """Add a part.

        Args:
            write: Writes the part's files into the folder that it is given.

        Returns:
            The folder that holds the files from now on.

        Raises:
            OSError: when it cannot be written; nothing is left behind.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=self._folder))
        try:
            write(partial)
            (partial / _MANIFEST).write_text(json.dumps(_digests(partial)))
            (self._folder / _ABOUT).write_text(json.dumps(self._about))
            part = self._folder / partial.name.removeprefix(_PARTIAL)
            partial.rename(part)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _touch(self._folder)
        evict(self._root, limit_bytes(), keep=self._folder)
        return part

    def drop(self, part: Path) -> None:
        """Remove a part that turned out to be of no use."""
        shutil.rmtree(part, ignore_errors=True)


def listed(root: Path | None = None) -> list[Listed]:
    """The entries of the cache, the last used first."""
    found = [
        Listed(key=each.name, about=_about(each), bytes=_size(each), used=_used(each))
        for each in _entries(root or folder())
    ]
    return sorted(found, key=lambda entry: -entry.used)


def clear(root: Path | None = None) -> int:
    """Remove all entries; returns the bytes that were freed.

    Raises:
        OSError: when something cannot be removed.
    """
    freed = 0
    for each in _entries(root or folder()):
        freed += _size(each)
        shutil.rmtree(each)
    return freed


def evict(root: Path, limit: int, *, keep: Path) -> None:
    """Remove what killed processes left half-written, and the least recently used entries beyond the limit."""
    for each in _entries(root):
        for partial in _subfolders(each):
            if partial.name.startswith(_PARTIAL) and time.time() - _used(partial) > _ABANDONED_SECONDS:
                shutil.rmtree(partial, ignore_errors=True)
    entries = sorted((_used(each), _size(each), each) for each in _entries(root))
    total = sum(size for _, size, _ in entries)
    for _, size, each in entries:
        if total <= limit:
            return
        if each != keep:
            shutil.rmtree(each, ignore_errors=True)
            total -= size


def _entries(root: Path) -> list[Path]:
    """Folders that are named by a digest: nothing else in there is ours to remove."""
    return [each for each in _subfolders(root) if _DIGEST.fullmatch(each.name)]


def _subfolders(place: Path) -> list[Path]:
    try:
        return sorted(each for each in place.iterdir() if each.is_dir())
    except OSError:  # not there, or not to be read: then it holds nothing for us
        return []


def _digests(place: Path) -> dict[str, str]:
    names = sorted(each for each in place.rglob("*") if each.is_file() and each.name != _MANIFEST)
    return {each.relative_to(place).as_posix(): _digest(each) for each in names}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _is_sound(part: Path) -> bool:
    try:
        written: object = json.loads((part / _MANIFEST).read_text())
        return written == _digests(part)
    except (OSError, ValueError):
        return False


def _about(entry: Path) -> str:
    try:
        return str(json.loads((entry / _ABOUT).read_text()))
    except (OSError, ValueError):
        return ""


def _size(place: Path) -> int:
    total = 0
    for each in place.rglob("*"):
        try:
            total += each.stat().st_size if each.is_file() else 0
        except OSError:  # removed by another process in between
            continue
    return total


def _used(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:
        return 0.0


def _touch(place: Path) -> None:
    try:
        os.utime(place)
    except OSError as error:  # a cache that cannot be written can still be read
        log.debug("%s: %s", place, error)
