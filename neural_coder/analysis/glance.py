"""A cheap look at a file: may it hold a site at all? Most files of a repo do not, and need no interpretation.

The look errs on one side only: it may say yes to a file without sites, never no to one with a site.
"""

from __future__ import annotations

import builtins
import functools
import logging
from pathlib import Path

from neural_coder.analysis import catalogue
from neural_coder.analysis.outline import ClassOutline, Imported, Names, Outline, Piece, names_of, outline_of
from neural_coder.analysis.project import Project
from neural_coder.analysis.usage import named_like_model
from neural_coder.errors import UserError

log = logging.getLogger(__name__)

_BUILTINS = frozenset(dir(builtins))
_LOSS = catalogue.LOSS_VARIABLES.search
_MAX_BASES = 20
"""Steps to follow from a name to the class behind it."""


class Glance:
    """Cheap answers about the files of a project.

    Args:
        project: Where files and imports are looked up.
    """

    def __init__(self, project: Project):
        self._project = project
        self._names: dict[Path, Names] = {}
        self._outlines: dict[Path, Outline] = {}
        self._modules: dict[tuple[Path, ClassOutline], bool] = {}
        self._given: dict[tuple[Path, str], bool] = {}

    def may_hold_sites(self, path: Path) -> bool:
        """Whether a file may build, run or train a model, load data for one, or name a GPU.

        Raises:
            UserError: The file cannot be read or has a syntax error.
        """
        path = path.resolve()
        if path not in self._outlines:
            self._project.parsed(path)
        outline = self._outline(path)
        if outline.immediate:
            return True
        return any(self._may_hold_sites(piece, path) for pieces in outline.pieces.values() for piece in pieces)

    def _may_hold_sites(self, piece: Piece, path: Path) -> bool:
        return (
            piece.runs_itself
            or any(named_like_model(name) and not _LOSS(name) for name in piece.called & (piece.parameters | piece.results))
            or bool(piece.telling & (piece.results | (piece.parameters & (piece.called | piece.stored))))
            or self._holds_models(piece, path)
            or any(
                self._is_module_type(name, path)
                for parameter, types in piece.parameter_types.items()
                if parameter in piece.called
                for name in types
            )
            or any(self._is_holder(base, path) for base in piece.bases)
        )

    def _holds_models(self, piece: Piece, path: Path) -> bool:
        """Whether code builds models or keeps some that it is given."""
        return (
            self._builds(piece, path)
            or any(self._is_module_type(name, path) for name in piece.attribute_types)
            or any(
                self._is_module_type(name, path)
                for parameter, types in piece.parameter_types.items()
                if parameter in piece.stored
                for name in types
            )
        )

    def _builds(self, piece: Piece, path: Path) -> bool:
        """Whether code names anything that builds a model."""
        return any(self._matters(name, path) for name in piece.references) or any(
            self._may_be_registry(name, path) for name in piece.tables
        )

    # --- names ------------------------------------------------------------------------------------------------------

    def _of(self, path: Path) -> Names:
        if path not in self._names:
            try:
                self._names[path] = names_of(self._project.parsed(path)) if path.suffix == ".py" else Names()
            except UserError as error:
                log.debug("%s taken for empty: %s", path, error)
                self._names[path] = Names()
        return self._names[path]

    def _outline(self, path: Path) -> Outline:
        if path not in self._outlines:
            names = self._of(path)
            try:
                parsed = self._project.parsed(path) if path.suffix == ".py" else self._project.empty(path)
            except UserError:  # Told by `_of`.
                parsed = self._project.empty(path)
            self._outlines[path] = outline_of(parsed, names, lambda item: self._is_module(item, path))
        return self._outlines[path]

    def _matters(self, name: str, path: Path) -> bool:
        """Whether a dotted name of a file may stand for something that builds a model, or that holds one."""
        names = self._of(path)
        root, _, rest = name.partition(".")
        return any(self._is_module(item, path) for item in names.classes.get(root, ())) or any(
            self._imported_matters(imported, rest, path) for imported in names.imports.get(root, ())
        )

    def _imported_matters(self, imported: Imported, rest: str, importer: Path) -> bool:
        path, name = self._target(imported, rest, importer)
        if path is None:
            return _outside_matters(name)
        return self._gives_models(path, name.partition(".")[0]) if name else False

    def _target(self, imported: Imported, rest: str, importer: Path) -> tuple[Path | None, str]:
        """The project file that a name leads into and what is left of the name; None: an installed package."""
        parts = [part for part in (*imported.name.split("."), *rest.split(".")) if part]
        module = imported.module
        path = self._find(module, imported.level, importer)
        while path is not None and parts and path.name in {"__init__.py", path.stem}:
            longer = f"{module}.{parts[0]}" if module else parts[0]
            below = self._find(longer, imported.level, importer)
            if below is None or below == path:
                break
            path, module = below, longer
            del parts[0]
        if path is None and not imported.level:
            return None, ".".join([module, *parts])
        return path, ".".join(parts)

    def _find(self, module: str, level: int, importer: Path) -> Path | None:
        """The file of a module; absolute names may be meant from any folder between the importer and the root."""
        if level:
            return self._project.find_module(module, importer, importer.parent, level)
        folder = importer.parent
        found = self._project.find_module(module, importer, folder)
        while found is None and folder != self._project.root and folder.is_relative_to(self._project.root):
            folder = folder.parent
            found = self._project.find_module(module, importer, folder)
        return found

    def _stars(self, names: Names, name: str, importer: Path) -> list[Imported]:
        """The imports of everything that may bring a name, as imports of that name."""
        found = []
        for star in names.stars:
            path = self._find(star.module, star.level, importer)
            if path is None or (path.suffix == ".py" and name in self._project.source(path).text):
                found.append(star._replace(name=name))
        return found

    def _gives_models(self, path: Path, name: str) -> bool:
        """Whether what a project file calls so builds a model, holds one, or gives one."""
        key = (path, name)
        if key not in self._given:
            self._given[key] = False  # What needs itself to be answered adds nothing.
            self._given[key] = self._definition_gives_models(path, name)
        return self._given[key]

    def _definition_gives_models(self, path: Path, name: str) -> bool:
        names = self._of(path)
        if self._matters(name, path):
            return True
        if name in names.classes:
            return any(self._holds_models(piece, path) for piece in self._outline(path).pieces.get(name, ()))
        if name in names.functions or name in names.tables:
            return any(self._builds(piece, path) for piece in self._outline(path).pieces.get(name, ()))
        if name in names.imports:
            return False
        return any(self._imported_matters(star, "", path) for star in self._stars(names, name, path))

    def _may_be_registry(self, name: str, path: Path) -> bool:
        """Whether a table or namespace may give module classes, or functions that build models."""
        names = self._of(path)
        root, _, rest = name.partition(".")
        if root in names.tables and not rest:
            return not names.tables[root] and self._has_modules(path)
        for imported in names.imports.get(root, ()):
            target, left = self._target(imported, rest, path)
            if target is None:
                return left.partition(".")[0] in catalogue.LIBRARIES
            return not left or not self._of(target).tables.get(left, False)
        return self._has_modules(path)

    def _has_modules(self, path: Path) -> bool:
        """Whether a file defines or imports anything that builds a model."""
        names = self._of(path)
        return any(self._matters(name, path) for name in (*names.classes, *names.imports))

    # --- classes ----------------------------------------------------------------------------------------------------

    def _is_module(self, item: ClassOutline, path: Path) -> bool:
        """Whether a class may be a PyTorch module (losses are none here)."""
        key = (path, item)
        if key not in self._modules:
            derives, unknown, forward = self._lineage(item, path, set())
            is_loss = any(catalogue.is_loss(name) for name in (item.name, *item.bases))
            self._modules[key] = (derives or (unknown and forward)) and not is_loss
        return self._modules[key]

    def _lineage(self, item: ClassOutline, path: Path, seen: set[ClassOutline]) -> tuple[bool, bool, bool]:
        """Whether a class derives from a module, whether a base is unknown, and whether it has a `forward`."""
        seen.add(item)
        derives = unknown = False
        forward = item.has_forward
        for base in item.bases:
            for found in self._behind(base, path):
                if isinstance(found, str):
                    derives |= catalogue.is_module_base(catalogue.canonical(found))
                    unknown |= found.partition(".")[0] not in catalogue.FOREIGN | {"torch"}
                elif found[0] not in seen:
                    above = self._lineage(*found, seen)
                    derives, unknown, forward = derives | above[0], unknown | above[1], forward | above[2]
        return derives, unknown, forward

    def _behind(self, name: str, path: Path, depth: int = 0) -> list[str | tuple[ClassOutline, Path]]:
        """What may stand behind a class's name: classes of the project, or dotted names (`?`: nobody knows)."""
        root, _, rest = name.partition(".")
        if depth > _MAX_BASES or not root:
            return ["?"]
        names = self._of(path)
        found: list[str | tuple[ClassOutline, Path]] = []
        if not rest:
            found += [(item, path) for item in names.classes.get(root, ())]
        imported = names.imports.get(root, [])
        if not found and not imported:
            if root in _BUILTINS:
                return [f"builtins.{root}"]
            imported = self._stars(names, root, path)
        for item in imported:
            target, left = self._target(item, rest, path)
            if target is None:
                found.append(left)
            else:
                found += self._behind(left, target, depth + 1)
        return found or ["?"]

    def _is_module_type(self, name: str, path: Path) -> bool:
        for found in self._behind(name, path):
            if isinstance(found, str):
                if catalogue.is_module_base(catalogue.canonical(found)):
                    return True
            elif self._is_module(*found):
                return True
        return False

    def _is_holder(self, base: str, path: Path) -> bool:
        """Whether a base class of another file holds models, which methods here may run."""
        for found in self._behind(base, path):
            if isinstance(found, str):
                if catalogue.TRAINERS.fullmatch(found) or catalogue.LOADERS.fullmatch(found):
                    return True
            elif found[1] != path and not self._is_module(*found) and self._gives_models(found[1], found[0].name):
                return True
        return False


@functools.lru_cache(maxsize=8192)
def _outside_matters(name: str) -> bool:
    """Whether something of an installed package builds models, loads data for them or trains them."""
    name = catalogue.canonical(name)
    if name.partition(".")[0] not in catalogue.LIBRARIES:
        return False
    base, _, last = name.rpartition(".")
    if name.startswith("torch.nn.") and catalogue.torch_layer(name):
        return not catalogue.is_loss(name)
    return (
        name in catalogue.TUPLE_BUILDERS
        or any(pattern.fullmatch(name) for pattern in (catalogue.TRAINERS, catalogue.LOADERS, catalogue.OPTIMIZERS))
        or catalogue.builder(name) is not None
        or (last in catalogue.BUILDING_METHODS and catalogue.builder(base) is not None)
    )
