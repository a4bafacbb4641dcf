"""What imports can see of the file system. Each folder is listed once, and every question asked of it is remembered.

The questions are what a stored analysis depends on besides the files that it read: a module that appears, or goes
away, changes what an import means.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_ANY = "*.py"
_BELOW = "*/"


class Question(NamedTuple):
    """Something that was asked of a folder."""

    folder: str
    about: str
    """A name that a module may have; `*.py`: whether there is any module; `*/NAME`: which folders in it hold NAME."""


class Folders:
    """Names in folders, as imports look for them.

    Args:
        overlay: Files that count as there though no folder lists them.
    """

    def __init__(self, overlay: Iterable[Path] = ()):
        self._listings: dict[str, dict[str, str]] = {}
        self._overlay: dict[str, dict[str, str]] = {}
        for path in overlay:
            self._lay_over(path)

    def answer(self, question: Question) -> str:
        """What a folder says to a question; empty: there is no such thing.

        For a name: `f` when there is NAME.py, `d` when there is a folder NAME, `fd` for both.
        """
        if question.about.startswith(_BELOW):
            return "/".join(self.holders(question.folder, question.about.removeprefix(_BELOW)))
        return self._listing(question.folder).get(question.about, "")

    def holders(self, folder: str, name: str) -> list[str]:
        """The folders inside a folder that hold a module or package of a name, in alphabetical order."""
        children = [child for child, kinds in self._listing(folder).items() if "d" in kinds and child[0] not in "._"]
        return sorted(child for child in children if self._holds(os.path.join(folder, child), name))  # noqa: PTH118

    def _holds(self, folder: str, name: str) -> bool:
        kinds = self._listing(folder).get(name, "")
        return "f" in kinds or ("d" in kinds and _ANY in self._listing(os.path.join(folder, name)))  # noqa: PTH118

    def _listing(self, folder: str) -> dict[str, str]:
        found = self._listings.get(folder)
        if found is None:
            found = self._listings[folder] = _list(folder)
            for name, kinds in self._overlay.get(os.path.realpath(folder), {}).items() if self._overlay else ():
                found[name] = _both(found.get(name, ""), kinds)
        return found

    def _lay_over(self, path: Path) -> None:
        if path.suffix == ".py":
            here = self._overlay.setdefault(str(path.parent), {})
            here[_ANY] = "f"
            here[path.stem] = _both(here.get(path.stem, ""), "f")
        for folder in path.parents:
            above = self._overlay.setdefault(str(folder.parent), {})
            above[folder.name] = _both(above.get(folder.name, ""), "d")


def named(folder: Path | str, name: str) -> Question:
    """Ask for a module or package by its name."""
    return Question(str(folder), name)


def any_module(folder: Path | str) -> Question:
    """Ask whether a folder holds Python files."""
    return Question(str(folder), _ANY)


def one_below(folder: Path | str, name: str) -> Question:
    """Ask which folders in a folder hold a module or package."""
    return Question(str(folder), _BELOW + name)


def _list(folder: str) -> dict[str, str]:
    """Modules and folders by name. A folder that cannot be listed is empty, as it is for Python's own imports."""
    found: dict[str, str] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.endswith(".py") and entry.is_file():
                    found[_ANY] = "f"
                    name, kind = name[:-3], "f"
                elif "." not in name and name != "__pycache__" and entry.is_dir():
                    kind = "d"
                else:
                    continue
                found[name] = _both(found.get(name, ""), kind)
    except OSError:
        return found
    return found


def _both(first: str, second: str) -> str:
    return "".join(kind for kind in "fd" if kind in first or kind in second)
