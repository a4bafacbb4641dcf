"""A user's project: its root, its files (as they are, or as an overlay says), and what their imports mean."""

from __future__ import annotations

import ast
import functools
import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from neural_coder import config
from neural_coder.analysis import catalogue
from neural_coder.analysis.catalogue import Catalogue
from neural_coder.analysis.folders import Folders, Question, any_module, named, one_below
from neural_coder.analysis.footprint import Footprint, Reading, Remembered, Watch, digest, stamp
from neural_coder.analysis.infer import Inference
from neural_coder.analysis.names import names_of
from neural_coder.analysis.outline import Outline
from neural_coder.analysis.syntax import Parsed, statements
from neural_coder.analysis.trees import Trees
from neural_coder.errors import UserError
from neural_coder.source import Source, read_bytes

if TYPE_CHECKING:
    from neural_coder.analysis.glance import Glance

log = logging.getLogger(__name__)

_MARKERS = (".git", "pyproject.toml", "setup.py", "setup.cfg", "requirements.txt")
_INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders of packages, each a project of its own."""
_BY_NAME = "import_module("
_IMPORTED_BY_NAME = re.compile(r"""import_module\(\s*["']([A-Za-z_][\w.]*)["']""")
_OWN = -1
"""Stands for the number of dots where a library's own files are looked for."""
EAGER_FILES = 60
"""A script with more project files than these gets each of them only when a name of it is needed."""


class Project:
    """The files of one user project. Nothing in it is ever imported or run.

    All that an analysis learns from the file system it learns here, so that what it looked at is known (`footprint`).

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
        self.watch = Watch()
        """Notes what is looked at."""
        self.readings: dict[Path, Reading] = {}
        """What the files held that were read."""
        self.glance: Glance | None = None
        """The cheap look at these files; kept here, so that both go together."""
        self._folders = Folders(self._overlay)
        self._sources: dict[Path, Source] = {}
        self._resolved: dict[Path, Path] = {}
        self._trees = Trees()
        self._outlines: dict[Path, Outline] = {}
        self._mentions: dict[Path, bool] = {}
        self._imports: Remembered[tuple[Path, Path | None], tuple[Path, ...]] = Remembered(self.watch)
        self._imported_modules: Remembered[Path, tuple[tuple[str, int], ...]] = Remembered(self.watch)
        self._found: dict[tuple[str, int, Path], tuple[Path | None, tuple[Question, ...]]] = {}

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
        return cls(marked_root(folder) or folder, python=python)

    def with_overlay(self, overlay: Mapping[Path, Source]) -> Project:
        """The same project with other texts in the place of some files."""
        changed = {path.resolve(): source for path, source in overlay.items()}
        other = Project(self.root, {**self._overlay, **changed}, self.python)
        other._sources = {path: source for path, source in self._sources.items() if path not in changed}
        other._trees = self._trees.without(changed)
        other._outlines = {path: outline for path, outline in self._outlines.items() if path not in changed}
        if changed.keys() <= self._sources.keys():
            # No file is there that was not there before, so folders and names of modules mean the same.
            other._folders, other._found, other._resolved = self._folders, self._found, self._resolved
        # The same answers about libraries: what a patch changes must be the only difference.
        other.__dict__.update(catalogue=self.catalogue, inference=self.inference)
        return other

    def _resolve(self, path: Path) -> Path:
        """A path without links; asking the file system takes long, and there are few paths but many questions."""
        if path not in self._resolved:
            self._resolved[path] = path.resolve()
        return self._resolved[path]

    def source(self, path: Path) -> Source:
        """A file's text; the overlay comes first.

        Raises:
            UserError: The file cannot be read.
        """
        key = self._resolve(path)
        self.watch.now.files.add(key)
        if key not in self._sources:
            self._sources[key] = self._overlay[key] if key in self._overlay else self._read(path, key)
        return self._sources[key]

    def _read(self, path: Path, key: Path) -> Source:
        taken = stamp(key)
        self.readings[key] = Reading("", None)
        data = read_bytes(path)
        self.readings[key] = Reading(digest(data), taken)
        return Source.decode(data, path)

    def watched(self) -> Footprint:
        """Start a new footprint, in which all that is looked at from now on is noted."""
        self.watch.now = Footprint()
        return self.watch.now

    def answer(self, question: Question) -> str:
        """What a folder says to a question, without noting it."""
        return self._folders.answer(question)

    def parsed(self, path: Path) -> Parsed:
        """A file's syntax tree.

        Raises:
            UserError: The file cannot be read or has a syntax error.
        """
        key = self._resolve(path)
        self.watch.now.files.add(key)
        return self._trees.get(key, lambda: Parsed(self.source(path)))

    def outline(self, path: Path) -> Outline:
        """What a cheap look keeps of a file; the projects with other texts of other files share it.

        Raises:
            UserError: The file cannot be read or has a syntax error.
        """
        key = self._resolve(path)
        self.watch.now.files.add(key)
        if key not in self._outlines:
            self._outlines[key] = Outline(names_of(self.parsed(path)))
        return self._outlines[key]

    def keep_outline(self, path: Path, outline: Outline) -> Outline:
        """Keep one in which there is more."""
        self._outlines[self._resolve(path)] = outline
        return outline

    def empty(self, path: Path) -> Parsed:
        """An empty file in the place of one that cannot be parsed."""
        return Parsed(Source.from_text("", path))

    def exists(self, path: Path) -> bool:
        """Whether the project has this Python file."""
        return "f" in self._ask(named(path.parent, path.stem))

    def has_folder(self, path: Path) -> bool:
        """Whether the project has a folder that may be a package."""
        return "d" in self._ask(named(path.parent, path.name))

    def _ask(self, question: Question) -> str:
        self.watch.now.questions.add(question)
        return self._folders.answer(question)

    def files_of(self, script: Path) -> tuple[Path, ...]:
        """The script, then the project files that it imports, and those that they import, breadth first."""
        script = self._resolve(script)
        found = {script: None}
        queue = deque([script])
        while queue:
            for path in self.imports(queue.popleft(), script.parent):
                if path not in found:
                    found[path] = None
                    queue.append(path)
        return tuple(found)

    def is_small(self, script: Path) -> bool:
        """Whether a script brings in so few project files that all can be run as soon as they are imported."""
        script = self._resolve(script)
        # Relative imports mean the same wherever a script starts: what is known of them serves scripts of all folders.
        return self._brings_few(script, None) and self._brings_few(script, script.parent)

    def _brings_few(self, script: Path, script_folder: Path | None) -> bool:
        found = {script}
        queue = deque([script])
        while queue and len(found) <= EAGER_FILES:
            fresh = [path for path in self.imports(queue.popleft(), script_folder) if path not in found]
            found.update(fresh)
            queue.extend(fresh)
        return len(found) <= EAGER_FILES

    def imports(self, path: Path, script_folder: Path | None) -> tuple[Path, ...]:
        """The project files that a file imports directly, in the order of its import statements.

        Args:
            path: The file.
            script_folder: Where the script is that is run; None: only relative imports count.
        """
        return self._imports.get((path, script_folder), lambda: self._find_imports(path, script_folder))

    def _find_imports(self, path: Path, script_folder: Path | None) -> tuple[Path, ...]:
        found: dict[Path, None] = {}
        for name, level in self._imported_modules.get(path, lambda: self._find_imported_modules(path)):
            if not level and script_folder is None:
                continue
            target = self.find_module(name, path, script_folder or path.parent, level)
            if target is None and not level:
                target = self.own_module(name)
            if target is not None and target.suffix == ".py":
                found[target] = None
        found.pop(self._resolve(path), None)
        return tuple(found)

    def _find_imported_modules(self, path: Path) -> tuple[tuple[str, int], ...]:
        """The names that a file imports, or that its imports may mean, each with its dots in front."""
        try:
            tree = self.parsed(path).tree
        except UserError as error:
            log.debug("imports of %s not followed: %s", path, error)
            return ()
        found: dict[tuple[str, int], None] = {}
        for node in statements(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                level = node.level if isinstance(node, ast.ImportFrom) else 0
                found.update(dict.fromkeys((name, level) for name in _imported_names(node)))
        text = self.source(path).text
        if _BY_NAME in text:
            found.update(dict.fromkeys((name, 0) for name in _IMPORTED_BY_NAME.findall(text)))
        return tuple(found)

    def find_module(self, name: str, importer: Path, script_folder: Path, level: int = 0) -> Path | None:
        """The file (or the folder of a package without `__init__.py`) behind a module's name, if it is ours."""
        if not level and (not name or name.partition(".")[0] in self.catalogue.libraries):
            return None
        return self._module_file(name, level, importer.parent if level else script_folder)

    def own_module(self, name: str) -> Path | None:
        """The file behind a module that is named like a library's, where the project is that library, or a fork.

        PyTorch itself is left out, as everything is asked about it; so is Neural Coder, whose runtime patches import:
        a patched script of its own repo must not seem to bring files that the script did not.
        """
        package = name.partition(".")[0]
        if package in ("torch", "neural_coder") or package not in self.catalogue.libraries:
            return None
        return self._module_file(name, _OWN, self.root)

    def _module_file(self, name: str, level: int, folder: Path) -> Path | None:
        key = (name, level, folder)
        if key not in self._found:
            # There are very many of these: a tuple of questions is a tenth of a footprint.
            outer, self.watch.now = self.watch.now, Footprint()
            find = self._find_relative if level > 0 else self._find_absolute if level == 0 else self._find_own
            self._found[key] = find(*key), tuple(self.watch.now.questions)
            self.watch.now = outer
        found, questions = self._found[key]
        self.watch.now.questions.update(questions)
        return found

    def _find_relative(self, name: str, level: int, folder: Path) -> Path | None:
        for _ in range(level - 1):
            folder = folder.parent
        return self._below(folder, name)

    def _find_own(self, name: str, level: int, root: Path) -> Path | None:
        """Only where Python would find it before an installed package: not a mere folder, nor a file in a package."""
        for base in (root, root / "src"):
            if not self.exists(base / "__init__.py"):
                package = self._below(base, name.partition(".")[0])
                found = self._below(base, name) if package is not None and package.suffix == ".py" else None
                if found is not None and found.suffix == ".py":
                    return found
        return None

    def _find_absolute(self, name: str, level: int, script_folder: Path) -> Path | None:
        bases = dict.fromkeys((script_folder, self.root, self.root / "src"))
        hits = (hit for base in bases if (hit := self._below(base, name)) is not None)
        return next(hits, None) or self._below_a_child(name.partition(".")[0], name)

    def _below_a_child(self, top: str, name: str) -> Path | None:
        """Look for a package in the root's folders: scripts put `lib/` and the like on `sys.path` themselves."""
        holders = self._ask(one_below(self.root, top)).split("/")
        return self._below(self.root / holders[0], name) if len(holders) == 1 and holders[0] else None

    def _below(self, base: Path, name: str) -> Path | None:
        if not name:
            package = base / "__init__.py"
            return self._resolve(package) if self.exists(package) else None
        *parents, last = name.split(".")
        for parent in parents:
            if "d" not in self._ask(named(base, parent)):
                return None
            base = base / parent
        kinds = self._ask(named(base, last))
        if "f" in kinds:
            return self._resolve(base / f"{last}.py")
        if "d" not in kinds:
            return None
        package = base / last
        if self.exists(package / "__init__.py"):
            return self._resolve(package / "__init__.py")
        return self._resolve(package) if self._ask(any_module(package)) else None

    def mentions_models(self, path: Path, script_folder: Path) -> bool:
        """A cheap look: whether a file, or one that it imports, names PyTorch or a library that builds on it."""
        seen = {self._resolve(path)}
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
        path = self._resolve(path)
        self.watch.now.files.add(path)
        if path not in self._mentions:
            try:
                self._mentions[path] = self.catalogue.mentions_library(self.source(path).text)
            except UserError as error:
                log.debug("%s not searched: %s", path, error)
                self._mentions[path] = False
        return self._mentions[path]


def marked_root(folder: Path) -> Path | None:
    """The nearest folder, this one or above it, that looks like the root of a project."""
    home = Path.home().resolve()
    for candidate in (folder, *folder.parents):
        if candidate == home or candidate == Path(candidate.anchor):
            return None
        if candidate.parent.name in _INSTALLED or any((candidate / marker).exists() for marker in _MARKERS):
            return candidate
    return None


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
