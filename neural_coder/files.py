"""Which Python files a path stands for: itself, or those of a folder that belong to its owner."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from neural_coder.errors import UserError

VENDORED = frozenset(
    {
        "node_modules",
        "site-packages",
        "dist-packages",
        "third_party",
        "third-party",
        "vendor",
        "_vendor",
        "build",
        "dist",
    }
)


def python_files(paths: Iterable[Path], exclude: Iterable[str] = ()) -> tuple[Path, ...]:
    """List the Python files that paths stand for, each once, in the order of the paths.

    A file counts whatever its name; in a folder the `.py` files count that git does not ignore and that nobody vendored
    there (virtual environments, `node_modules`, `third_party`, build output).

    Args:
        paths: Files and folders.
        exclude: Glob patterns, relative to the folder, of files to leave out.

    Raises:
        UserError: A path does not exist, or there is no Python file at all.
    """
    patterns = tuple(exclude)
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = (file for file in _in_folder(path) if not any(file.relative_to(path).match(p) for p in patterns))
            found.update(dict.fromkeys(file.resolve() for file in inside))
        elif path.exists():
            found[path.resolve()] = None
        else:
            raise UserError(f"{path}: no such file or folder.")
    if not found:
        raise UserError(f"No Python file in {', '.join(map(str, paths))}.")
    return tuple(found)


def git_root(path: Path) -> Path | None:
    """The top folder of the git working tree that holds a path, or None."""
    for folder in (path, *path.parents):
        if (folder / ".git").exists():
            return folder
    return None


def _in_folder(folder: Path) -> Iterator[Path]:
    listed = _listed_by_git(folder) if git_root(folder.resolve()) else None
    files = listed if listed is not None else _walk(folder)
    for file in sorted(files):
        if not VENDORED.intersection(file.relative_to(folder).parts[:-1]):
            yield file


def _listed_by_git(folder: Path) -> list[Path] | None:
    """Tracked and untracked files that git does not ignore; None when git cannot say."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.py"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    files = (folder / os.fsdecode(name) for name in done.stdout.split(b"\0") if name)
    return [file for file in files if file.is_file()]


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = [
            name for name in folders if not name.startswith(".") and not (here / name / "pyvenv.cfg").exists()
        ]
        yield from (here / name for name in names if name.endswith(".py"))
