"""Which files a path stands for: itself, or those of a folder that belong to its owner."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
_MANIFESTS = frozenset({"pyproject.toml", "setup.cfg"})
_PATTERNS = ("*.py", "*.ipynb", *(f":(glob)**/{name}" for name in sorted(_MANIFESTS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files that paths stand for, each once, in the order of the paths."""

    python: tuple[Path, ...] = ()
    notebooks: tuple[Path, ...] = ()
    manifests: tuple[Path, ...] = ()
    """`pyproject.toml` and `setup.cfg` in the folders."""


def list_files(paths: Iterable[Path], exclude: Iterable[str] = ()) -> Listing:
    """List the Python files and notebooks that paths stand for.

    A file counts whatever its name; in a folder those count that git does not ignore and that nobody vendored there
    (virtual environments, `node_modules`, `third_party`, build output).

    Args:
        paths: Files and folders.
        exclude: Glob patterns, relative to the folder, of files to leave out.

    Raises:
        UserError: A path does not exist, or there is neither a Python file nor a notebook.
    """
    paths, patterns = tuple(paths), tuple(exclude)
    found: dict[Path, None] = {}
    given: set[Path] = set()
    for path in paths:
        if path.is_dir():
            inside = (file for file in _in_folder(path) if not any(file.relative_to(path).match(p) for p in patterns))
            found.update(dict.fromkeys(file.resolve() for file in inside))
        elif path.exists():
            given.add(path.resolve())
            found[path.resolve()] = None
        else:
            raise UserError(f"{path}: no such file or folder.")
    notebooks = tuple(file for file in found if file.suffix == ".ipynb")
    manifests = tuple(file for file in found if file.name in _MANIFESTS and file not in given)
    others = {*notebooks, *manifests}
    python = tuple(file for file in found if file not in others)
    if not python and not notebooks:
        raise UserError(f"No Python file in {', '.join(map(str, paths))}.")
    return Listing(python=python, notebooks=notebooks, manifests=manifests)


def python_files(paths: Iterable[Path], exclude: Iterable[str] = ()) -> tuple[Path, ...]:
    """List the Python files that paths stand for (see `list_files`).

    Raises:
        UserError: A path does not exist, or there is no Python file at all.
    """
    paths = tuple(paths)
    listing = list_files(paths, exclude)
    if not listing.python:
        raise UserError(f"No Python file in {', '.join(map(str, paths))}; notebooks are not worked on.")
    return listing.python


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
        inner = file.relative_to(folder).parts[:-1]
        if not VENDORED.intersection(inner) and ".ipynb_checkpoints" not in inner:
            yield file


def _listed_by_git(folder: Path) -> list[Path] | None:
    """Tracked and untracked files that git does not ignore; None when git cannot say, or ignores the whole folder."""
    listed = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_PATTERNS)
    if listed is None or (not listed and _git(folder, "check-ignore", "--quiet", ".") is not None):
        # A folder that is named on the command line is worked on even where git ignores it (an installed package, say).
        return None
    files = (folder / os.fsdecode(name) for name in listed.split(b"\0") if name)
    return [file for file in files if file.is_file()]


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints; None when there is no git or it fails."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in VENDORED and not (here / name / "pyvenv.cfg").exists()
        ]
        wanted = (name for name in names if name.endswith((".py", ".ipynb")) or name in _MANIFESTS)
        yield from (here / name for name in wanted)
