"""The syntax trees that are kept while many files are looked at: parsing takes long, and trees are big."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path

from neural_coder.analysis.syntax import Parsed

_NEW = 24
_OLD = 60


class Trees:
    """The files that were parsed last.

    Most files are needed once. A file that is parsed a second time is one that others import: it stays longer, however
    many files come by.
    """

    def __init__(self) -> None:
        self._new: dict[Path, Parsed] = {}
        self._old: dict[Path, Parsed] = {}
        self._known: set[Path] = set()

    def get(self, path: Path, parse: Callable[[], Parsed]) -> Parsed:
        """The tree of a file, which is parsed if need be."""
        kept = self._old if path in self._old else self._new
        parsed = kept.pop(path, None)
        if parsed is None:
            kept, most = (self._old, _OLD) if path in self._known else (self._new, _NEW)
            self._known.add(path)
            if len(kept) >= most:
                del kept[next(iter(kept))]
            parsed = parse()
        # The one that was not needed for the longest time is the first in order.
        kept[path] = parsed
        return parsed

    def without(self, paths: Container[Path]) -> Trees:
        """The same trees but for some files."""
        other = Trees()
        other._new = {path: parsed for path, parsed in (self._new | self._old).items() if path not in paths}
        return other
