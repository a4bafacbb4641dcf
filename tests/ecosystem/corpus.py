"""The files that a survey looks at: those of installed packages and of Python's own tests."""

from __future__ import annotations

import importlib.util
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("torch", "transformers", "timm", "sklearn")
STANDARD_TESTS = "test"


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder of Python files."""

    name: str
    root: Path

    def files(self) -> list[Path]:
        """All Python files, in the order of their paths."""
        return sorted(self.root.rglob("*.py"))


def find(names: Sequence[str] = (*PACKAGES, STANDARD_TESTS)) -> tuple[list[Corpus], list[str]]:
    """Look corpora up by name, without importing anything.

    Returns:
        Those that are installed, and the names of those that are not.
    """
    found: list[Corpus] = []
    missing: list[str] = []
    for name in names:
        root = _root(name)
        if root is None:
            missing.append(name)
        else:
            found.append(Corpus(name, root))
    return found, missing


def _root(name: str) -> Path | None:
    if name == STANDARD_TESTS:
        folder = Path(sysconfig.get_path("stdlib")) / STANDARD_TESTS
        return folder if (folder / "test_grammar.py").is_file() else None
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None
