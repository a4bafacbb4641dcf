"""A throw-away mirror of the user's project, in which a run happens.

Python files and small files are copied (with the patch on top), large ones and data sets are links; the worker's guard
turns links into copies before anything is written through them. The user's own tree is only ever read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from neural_coder.errors import InternalError

PREFIX = "neural-coder-"
SMALL_FILE = 16 * 1024 * 1024
DATA_SET = 5000
"""Entries of a folder without Python files from which on it is linked as a whole."""
MOST_ENTRIES = 4_000
"""Entries that are mirrored one by one, breadth first; folders behind these are linked. Every run makes a mirror: where
file systems are slow, each entry costs a millisecond or two."""
MOST_BYTES = 1024**3
"""Bytes that are copied; files beyond that are linked."""
SKIPPED = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        "node_modules",
        "__pycache__",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
        ".ipynb_checkpoints",
        ".tox",
        ".nox",
    }
)


class Shadow:
    """The mirror of one project; a context manager that removes it again.

    Attributes:
        folder: The run's own temporary folder.
        root: The mirror of the project's folder.
        script: The script in the mirror.
        real: The user's own project.
        cwd: The working directory: in the mirror where it lies in the project, as it is elsewhere.
    """

    def __init__(self, root: Path, script: Path, patched: Mapping[Path, bytes], cwd: Path) -> None:
        """Plan the mirror; nothing is copied before `__enter__`.

        Args:
            root: The project's folder.
            script: The script, inside of `root`.
            patched: Files that have other content in the mirror, by their real path.
            cwd: The working directory of the run.
        """
        self.real = root.resolve()
        self._patched = {_resolved(path): data for path, data in patched.items()}
        self._real_script = _resolved(script)
        self._real_cwd = cwd.resolve()
        self._bytes = 0
        self._entries = 0

    def __enter__(self) -> Shadow:
        """Make the mirror."""
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")).resolve()
        try:
            self.root = self.folder / "project" / (self.real.name or "root")
            self._mirror()
            self.script = self.path_of(self._real_script)
            self.cwd = self.path_of(self._real_cwd)
        except BaseException:
            remove_tree(self.folder)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the mirror with all that the run left in it."""
        remove_tree(self.folder)

    def path_of(self, path: Path) -> Path:
        """The place in the mirror of a path in the project; other paths as they are."""
        path = _resolved(path)
        return self.root / path.relative_to(self.real) if path.is_relative_to(self.real) else path

    def argument(self, text: str) -> str:
        """An argument of the script with absolute paths into the project turned to the mirror."""
        name, equals, value = text.partition("=")
        if equals and self._names_project(value):
            return name + equals + self._turned(value)
        return self._turned(text) if self._names_project(text) else text

    def _names_project(self, text: str) -> bool:
        return self.real != Path("/") and (text == str(self.real) or text.startswith(f"{self.real}{os.sep}"))

    def _turned(self, text: str) -> str:
        return str(self.root) + text[len(str(self.real)) :]

    # --- making it

    def _mirror(self) -> None:
        needed = self._folders_that_must_be_real()
        self.root.mkdir(parents=True)
        pending = deque([self.real])
        while pending:
            folder = pending.popleft()
            pending.extend(self._mirror_folder(folder, needed))
        for path, data in self._patched.items():
            if not path.is_relative_to(self.real):
                raise InternalError(f"{path} is to be patched, but lies outside of the project {self.real}.")
            self._write(path, data)

    def _folders_that_must_be_real(self) -> set[Path]:
        paths = [*(path.parent for path in self._patched), self._real_script.parent, self._real_cwd]
        return {folder for path in paths for folder in (path, *path.parents) if folder.is_relative_to(self.real)}

    def _mirror_folder(self, folder: Path, needed: set[Path]) -> Iterator[Path]:
        """Mirror the entries of one folder; gives back the folders in it that come next."""
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            return  # The script could not read it either.
        for entry in entries:
            path = Path(entry.path)
            if entry.is_symlink():
                self._mirror_link(path)
            elif entry.is_dir(follow_symlinks=False):
                if path in needed or not (self._leave_out(path) or self._linked_whole(path)):
                    self._in_mirror(path).mkdir(exist_ok=True)
                    yield path
            elif entry.is_file(follow_symlinks=False):
                self._mirror_file(path, entry.stat(follow_symlinks=False).st_size)
            self._entries += 1

    def _leave_out(self, path: Path) -> bool:
        if path.name in SKIPPED or path == self.folder:
            return True
        return path.name.startswith(PREFIX) or (path / "pyvenv.cfg").is_file()

    def _linked_whole(self, path: Path) -> bool:
        """Link a folder as a whole when it is a data set, or when enough has been mirrored."""
        if self._entries <= MOST_ENTRIES and not _is_data_set(path):
            return False
        self._in_mirror(path).symlink_to(path)
        return True

    def _mirror_file(self, path: Path, size: int) -> None:
        target = self._in_mirror(path)
        fits = size <= SMALL_FILE and self._bytes + size <= MOST_BYTES
        if not fits or (self._entries > MOST_ENTRIES and path.suffix != ".py"):
            target.symlink_to(path)
            return
        try:
            copy_file(path, target)
        except PermissionError:
            target.symlink_to(path)  # Unreadable for the script as well, with the same message.
        self._bytes += size

    def _mirror_link(self, path: Path) -> None:
        """A link into the project leads to the same place in the mirror; a link out of it stays."""
        target = Path(os.path.normpath(path.parent / path.readlink()))
        copy = self._in_mirror(path)
        if target.is_relative_to(self.real):
            copy.symlink_to(os.path.relpath(self._in_mirror(target), copy.parent))
        else:
            copy.symlink_to(target)

    def _in_mirror(self, path: Path) -> Path:
        return self.root / path.relative_to(self.real)

    def _write(self, path: Path, data: bytes) -> None:
        target = self.path_of(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_bytes(data)
        if path.exists():
            shutil.copymode(path, target)


def _is_data_set(folder: Path) -> bool:
    count = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for count, entry in enumerate(entries):  # noqa: B007 - the last number counts
            if entry.name.endswith(".py"):
                return False
    return count >= DATA_SET


def _resolved(path: Path) -> Path:
    return path.parent.resolve() / path.name


def copy_file(source: Path, target: Path) -> None:
    """Copy a file with its times and mode; file systems that can share the blocks."""
    with source.open("rb") as reader, target.open("wb") as writer:
        if not _copied_in_kernel(reader.fileno(), writer.fileno()):
            shutil.copyfileobj(reader, writer, 1024 * 1024)
    shutil.copystat(source, target)


def _copied_in_kernel(reader: int, writer: int) -> bool:
    if not hasattr(os, "copy_file_range"):
        return False
    left = os.fstat(reader).st_size
    copied_any = False
    while left:
        try:
            done = os.copy_file_range(reader, writer, left)
        except OSError:
            # Another file system, or one that cannot: possible only before the first byte.
            if copied_any:
                raise
            return False
        if done == 0:
            break
        left, copied_any = left - done, True
    return True


def remove_tree(folder: Path) -> None:
    """Remove a folder even where the script has made parts of it read-only; what resists is left to the system."""

    def allow(function: object, path: str, _: object) -> None:
        with contextlib.suppress(OSError):
            Path(path).parent.chmod(0o700)
            if Path(path).is_dir() and not Path(path).is_symlink():
                Path(path).chmod(0o700)
                shutil.rmtree(path, ignore_errors=True)
            else:
                Path(path).unlink()

    shutil.rmtree(folder, onerror=allow)


def remove_leftovers(end: Callable[[str], None] = lambda name: None) -> None:
    """Remove the temporary folders of runs whose parent was killed before it could.

    Args:
        end: Ends the processes of a run, which is known by the name of its folder.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}[0-9]*-*"):
        number = folder.name[len(PREFIX) :].partition("-")[0]
        if number.isdigit() and not _is_alive(int(number)) and not folder.is_symlink():
            end(folder.name)
            remove_tree(folder)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
