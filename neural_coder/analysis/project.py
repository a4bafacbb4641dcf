"""A user's project: its root, its files (as they are, or as an overlay says), and what their imports mean."""

from __future__ import annotations

import ast
import functools
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from neural_coder import config
from neural_coder.analysis import catalogue
from neural_coder.analysis.catalogue import Catalogue
from neural_coder.analysis.infer import Inference
from neural_coder.analysis.syntax import Parsed
from neural_coder.errors import UserError
from neural_coder.source import Source

log = logging.getLogger(__name__)

_MARKERS = (".git", "pyproject.toml", "setup.py", "setup.cfg", "requirements.txt")
_CACHED_TREES = 400


class Project:
    """The files of one user project. Nothing in it is ever imported or run.

    Args:
        root: The project's folder.
        overlay: Texts that take the place of files (patched ones, say).
        python: The user's interpreter, for questions about installed packages; None for that of the settings or of the
            active virtual environment, else this one.
    """

    def __init__(self, root: Path, overlay: Mapping[Path, Source] | None = None, python: Path | None = None):
        self.root = root.resolve()
        self.python = python
        self._overlay = {path.resolve(): source for path, source in (overlay or {}).items()}
        self._sources: dict[Path, Source] = {}
        self._trees: dict[Path, Parsed] = {}
        self._mentions: dict[Path, bool] = {}
        self._imports: dict[tuple[Path, Path], tuple[Path, ...]] = {}
        self._found: dict[tuple[str, Path], Path | None] = {}

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        """What is known about libraries, with what `[tool.neural_coder.catalogue]` of the project adds.

        Raises:
            UserError: That table makes no sense.
        """
        found = config.catalogue_table(self.root)
        return catalogue.builtin() if found is None else catalogue.extended(*found)

    @functools.cached_property
    def inference(self) -> Inference:
        """Answers questions about installed packages."""
        return Inference(self.python or config.interpreter(self.root))

    @classmethod
    def find(cls, script: Path, python: Path | None = None) -> Project:
        """The project of a script: the nearest folder above it that looks like a root, else the script's folder."""
        folder = script.resolve().parent if not script.is_dir() else script.resolve()
        home = Path.home().resolve()
        for candidate in (folder, *folder.parents):
            if candidate == home or candidate == Path(candidate.anchor):
                break
            if any((candidate / marker).exists() for marker in _MARKERS):
                return cls(candidate, python=python)
        return cls(folder, python=python)

    def with_overlay(self, overlay: Mapping[Path, Source]) -> Project:
        """The same project with other texts in the place of some files."""
        merged = {**self._overlay, **{path.resolve(): source for path, source in overlay.items()}}
        project = Project(self.root, merged, self.python)
        # The same answers about libraries: what a patch changes must be the only difference.
        project.__dict__.update(catalogue=self.catalogue, inference=self.inference)
        return project

    def source(self, path: Path) -> Source:
        """A file's text; the overlay comes first.

        Raises:
            UserError: The file cannot be read.
        """
        key = path.resolve()
        if key not in self._sources:
            self._sources[key] = self._overlay[key] if key in self._overlay else Source.read(path)
        return self._sources[key]

    def parsed(self, path: Path) -> Parsed:
        """A file's syntax tree.

        Raises:
            UserError: The file cannot be read or has a syntax error.
        """
        key = path.resolve()
        if key not in self._trees:
            if len(self._trees) >= _CACHED_TREES:
                self._trees.pop(next(iter(self._trees)))
            self._trees[key] = Parsed(self.source(path))
        return self._trees[key]

    def empty(self, path: Path) -> Parsed:
        """An empty file in the place of one that cannot be parsed."""
        return Parsed(Source.from_text("", path))

    def exists(self, path: Path) -> bool:
        """Whether the project has this file."""
        return path.is_file() or path.resolve() in self._overlay

    def files_of(self, script: Path) -> tuple[Path, ...]:
        """The script, then the project files that it imports, and those that they import, breadth first."""
        script = script.resolve()
        found = {script: None}
        queue = deque([script])
        while queue:
            for path in self.imports(queue.popleft(), script.parent):
                if path not in found:
                    found[path] = None
                    queue.append(path)
        return tuple(found)

    def imports(self, path: Path, script_folder: Path) -> tuple[Path, ...]:
        """The project files that a file imports directly, in the order of its import statements."""
        key = (path, script_folder)
        if key in self._imports:
            return self._imports[key]
        try:
            tree = self.parsed(path).tree
        except UserError as error:
            log.debug("imports of %s not followed: %s", path, error)
            return ()
        found: dict[Path, None] = {}
        for node in ast.walk(tree):
            for name in _imported_names(node):
                level = node.level if isinstance(node, ast.ImportFrom) else 0
                target = self.find_module(name, path, script_folder, level)
                if target is not None and target.suffix == ".py":
                    found[target] = None
        found.pop(path.resolve(), None)
        self._imports[key] = tuple(found)
        return self._imports[key]

    def find_module(self, name: str, importer: Path, script_folder: Path, level: int = 0) -> Path | None:
        """The file (or the folder of a package without `__init__.py`) behind a module's name, if it is ours."""
        if level:
            base = importer.parent
            for _ in range(level - 1):
                base = base.parent
            return self._below(base, name)
        top = name.partition(".")[0]
        if not name or top in self.catalogue.libraries:
            return None
        key = (name, script_folder)
        if key not in self._found:
            bases = dict.fromkeys((script_folder, self.root, self.root / "src"))
            hits = (hit for base in bases if (hit := self._below(base, name)) is not None)
            self._found[key] = next(hits, None) or self._below_a_child(top, name)
        return self._found[key]

    def _below_a_child(self, top: str, name: str) -> Path | None:
        """Look for a package in the root's folders: scripts put `lib/` and the like on `sys.path` themselves."""
        try:
            folders = [child for child in sorted(self.root.iterdir()) if child.is_dir() and child.name[0] not in "._"]
        except OSError:
            return None
        holders = [child for child in folders if self._below(child, top) is not None]
        return self._below(holders[0], name) if len(holders) == 1 and name else None

    def _below(self, base: Path, name: str) -> Path | None:
        target = base.joinpath(*name.split(".")) if name else base
        for candidate in (target.with_name(target.name + ".py") if name else None, target / "__init__.py"):
            if candidate is not None and self.exists(candidate):
                return candidate.resolve()
        if target.is_dir() and name and any(target.glob("*.py")):
            return target.resolve()
        return None

    def mentions_models(self, path: Path, script_folder: Path) -> bool:
        """A cheap look: whether a file, or one that it imports, names PyTorch or a library that builds on it."""
        seen = {path.resolve()}
        queue = deque(seen)
        while queue:
            current = queue.popleft()
            if self.mentions_library(current):
                return True
            fresh = [imported for imported in self.imports(current, script_folder) if imported not in seen]
            seen.update(fresh)
            queue.extend(fresh)
        return False

    def mentions_library(self, path: Path) -> bool:
        """Whether a file's text names PyTorch or a library that builds on it."""
        path = path.resolve()
        if path not in self._mentions:
            try:
                self._mentions[path] = self.catalogue.mentions_library(self.source(path).text)
            except UserError as error:
                log.debug("%s not searched: %s", path, error)
                self._mentions[path] = False
        return self._mentions[path]


def _imported_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            parts = alias.name.split(".")
            yield from (".".join(parts[: index + 1]) for index in range(len(parts)))
    elif isinstance(node, ast.ImportFrom):
        parts = (node.module or "").split(".")
        yield from (".".join(parts[: index + 1]) for index in range(len(parts)))
        prefix = f"{node.module}." if node.module else ""
        yield from (prefix + alias.name for alias in node.names if alias.name != "*")
