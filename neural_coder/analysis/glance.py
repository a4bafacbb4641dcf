"""A cheap look at a file: may it hold a site at all? Most files of a repo do not, and need no interpretation.

The look errs on one side only: it may say yes to a file without sites, never no to one with a site.
"""

from __future__ import annotations

import builtins
import contextlib
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from neural_coder.analysis.footprint import Footprint
from neural_coder.analysis.names import ClassOutline, Imported, Names
from neural_coder.analysis.outline import Outline, Piece, pieces_of
from neural_coder.analysis.project import Project
from neural_coder.analysis.usage import names_a_model
from neural_coder.errors import UserError

log = logging.getLogger(__name__)

_BUILTINS = frozenset(dir(builtins))
_HARMLESS = frozenset(
    {
        "nothing", "loss", "scheduler", "scaler", "dataset", "transform", "no_grad", "inference_mode", "enable_grad",
        "set_grad", "autocast", "same", "copy",
    }
)  # fmt: skip
"""What may be built without there being a site."""
_MAX_BASES = 20
"""Steps to follow from a name to what is behind it."""


class _File:
    """What is known about one file."""

    def __init__(self, path: Path, outline: Outline | None):
        self.path = path
        self.unread = outline is None
        """It cannot be read or parsed: anything may be in it."""
        self.outline = outline or Outline(Names(), [])
        self.names = self.outline.names
        self.footprint = Footprint()
        """Of all that was asked about it; what is known about other files is a part of that."""
        self.pieces: list[Piece] | None = None
        self.modules: dict[ClassOutline, bool] = {}
        self.given: dict[str, bool] = {}
        self.targets: dict[tuple[Imported, str], tuple[_File | None, str]] = {}
        self.behind: dict[str, list[str | tuple[ClassOutline, _File]]] = {}


class Glance:
    """Cheap answers about the files of a project.

    Args:
        project: Where files and imports are looked up.
    """

    def __init__(self, project: Project):
        self._project = project
        self._catalogue = project.catalogue
        self._outside: dict[str, bool] = {}
        self._files: dict[Path, _File] = {}

    def may_hold_sites(self, path: Path) -> bool:
        """Whether a file may build, run or train a model, load data for one, or name a GPU.

        Raises:
            UserError: The file cannot be read or has a syntax error.
        """
        path = path.resolve()
        if path not in self._files:
            self._files[path] = _File(path, self._project.outline(path))
        with self._on_behalf(self._files[path]) as file:
            return any(self._may_hold_sites(piece, file) for piece in self._pieces(file))

    def lines_worth_running(self, path: Path) -> list[tuple[int, int]]:
        """First and last lines of the top-level statements of a file that may hold sites."""
        with self._on_behalf(self._file(path.resolve())) as file:
            pieces = self._pieces(file)
            return [(piece.first_line, piece.last_line) for piece in pieces if self._may_hold_sites(piece, file)]

    def gives_models(self, path: Path, name: str) -> bool:
        """Whether what a project file calls so builds a model, holds one, or gives one."""
        with self._on_behalf(self._file(path)) as file:
            return self._gives_models(file, name)

    @contextlib.contextmanager
    def _on_behalf(self, file: _File) -> Iterator[_File]:
        """Note what is looked at with the file that it is looked at for."""
        watch = self._project.watch
        watch.now.parts.add(file.footprint)
        outer, watch.now = watch.now, file.footprint
        if file.path.suffix == ".py":  # else a folder, of which only questions were asked
            file.footprint.files.add(file.path)
        try:
            yield file
        finally:
            watch.now = outer

    # --- files ------------------------------------------------------------------------------------------------------

    def _file(self, path: Path) -> _File:
        """A file; a folder without `__init__.py` counts as an empty one."""
        if path not in self._files:
            self._files[path] = _File(path, self._outline(path))
        return self._files[path]

    def _outline(self, path: Path) -> Outline | None:
        try:
            return self._project.outline(path) if path.suffix == ".py" else Outline(Names(), [])
        except UserError as error:
            log.debug("%s not looked into: %s", path, error)
            return None

    def _pieces(self, file: _File) -> list[Piece]:
        if file.pieces is None:
            file.pieces = []
            known = file.outline
            if known.pieces is None or any(
                self._is_module(each, file) != is_one for each, is_one in known.modules.items()
            ):
                known = file.outline = self._read_pieces(file)
            file.pieces = known.pieces or []
        return file.pieces

    def _read_pieces(self, file: _File) -> Outline:
        modules: dict[ClassOutline, bool] = {}

        def is_module(item: ClassOutline) -> bool:
            modules[item] = self._is_module(item, file)
            return modules[item]

        pieces = pieces_of(self._project.parsed(file.path), file.names, self._catalogue, is_module)
        return self._project.keep_outline(file.path, Outline(file.names, pieces, modules))

    # --- pieces of code ---------------------------------------------------------------------------------------------

    def _may_hold_sites(self, piece: Piece, file: _File) -> bool:
        return (
            piece.immediate
            or piece.runs_itself
            or any(self._is_model_call(name, file) for name in piece.called)
            or bool(piece.telling & (piece.results | (piece.parameters & (piece.called | piece.stored))))
            or any(name in piece.called for name in piece.telling if name.startswith("self."))
            or (piece.has_calls and self._holds_models(piece, file))
            or self._takes_modules(piece, piece.called, file)
            or any(self._is_holder(base, file) for base in piece.bases)
        )

    def _is_model_call(self, name: str, file: _File) -> bool:
        """Whether something is called that is named like a model and is no function or class that we see."""
        if not names_a_model(name) or self._catalogue.names_loss(name):
            return False
        root, _, rest = name.partition(".")
        names = file.names
        if root in names.imports or (not rest and (root in names.functions or root in names.classes)):
            return False
        return not (root == "self" and rest in names.functions)

    def _holds_models(self, piece: Piece, file: _File) -> bool:
        """Whether code builds models or keeps some that it is given."""
        return (
            self._builds(piece, file)
            or any(self._is_module_type(name, file) for name in piece.attribute_types)
            or self._takes_modules(piece, piece.stored, file)
        )

    def _takes_modules(self, piece: Piece, names: Iterable[str], file: _File) -> bool:
        """Whether one of the names is a parameter that is annotated as a module."""
        types = piece.parameter_types
        return any(self._is_module_type(kind, file) for name in names if name in types for kind in types[name])

    def _builds(self, piece: Piece, file: _File) -> bool:
        """Whether code names anything that builds a model."""
        return (
            any(self._matters(name, file) for name in piece.references)
            or any(self._gives_models(file, name) for name in piece.helpers - piece.names)
            or any(self._may_be_registry(name, file) for name in piece.tables)
            or any(self._may_be_namespace(name, file) for name in piece.namespaces)
        )

    # --- names ------------------------------------------------------------------------------------------------------

    def _matters(self, name: str, file: _File) -> bool:
        """Whether a dotted name of a file may stand for something that builds a model, or that holds one."""
        root, _, rest = name.partition(".")
        classes, imports = file.names.classes.get(root, []), file.names.imports.get(root, [])
        if file.names.stars and not classes and not imports:
            imports = self._stars(root, file)
        return any(self._is_module(item, file) for item in classes) or any(
            self._imported_matters(imported, rest, file) for imported in imports
        )

    def _imported_matters(self, imported: Imported, rest: str, importer: _File) -> bool:
        file, name = self._target(imported, rest, importer)
        if file is None:
            return self._outside_matters(name)
        return self._gives_models(file, name.partition(".")[0]) if name else False

    def _target(self, imported: Imported, rest: str, importer: _File) -> tuple[_File | None, str]:
        """The project file that a name leads into and what is left of the name; None: an installed package."""
        self._project.watch.now.parts.add(importer.footprint)
        key = (imported, rest)
        if key not in importer.targets:
            with self._on_behalf(importer):
                importer.targets[key] = self._find_target(imported, rest, importer)
        return importer.targets[key]

    def _find_target(self, imported: Imported, rest: str, importer: _File) -> tuple[_File | None, str]:
        parts = [part for part in (*imported.name.split("."), *rest.split(".")) if part]
        module = imported.module
        path = self._find(module, imported.level, importer.path)
        while path is not None and parts and (path.name == "__init__.py" or path.suffix != ".py"):
            longer = f"{module}.{parts[0]}" if module else parts[0]
            below = self._find(longer, imported.level, importer.path)
            if below is None or below == path:
                break
            path, module = below, longer
            del parts[0]
        if path is None and not imported.level:
            return self._own_target(".".join([module, *parts]))
        return (self._file(path) if path is not None else None), ".".join(parts)

    def _own_target(self, name: str) -> tuple[_File | None, str]:
        """A library's own file, in its repo; as in an interpretation, what the catalogue says goes first."""
        canonical = self._catalogue.canonical(name)
        if self._catalogue.call(canonical) is None and self._catalogue.entry(canonical) is None:
            module, rest = name, ""
            while module:
                path = self._project.own_module(module)
                if path is not None:
                    return self._file(path), rest
                module, _, last = module.rpartition(".")
                rest = f"{last}.{rest}" if rest else last
        return None, name

    def _find(self, module: str, level: int, importer: Path) -> Path | None:
        """The file of a module; absolute names may be meant from any folder between the importer and the root."""
        folder = importer.parent
        found = self._project.find_module(module, importer, folder, level)
        while not level and found is None and folder != self._project.root:
            if self._is_foreign(module) or not folder.is_relative_to(self._project.root):
                break
            folder = folder.parent
            found = self._project.find_module(module, importer, folder)
        return found

    def _stars(self, name: str, file: _File) -> list[Imported]:
        """The imports of everything that may bring a name, as imports of that name."""
        found = []
        for star in file.names.stars:
            path = self._find(star.module, star.level, file.path)
            if path is None or (path.suffix == ".py" and self._mentions(path, name)):
                found.append(star._replace(name=name))
        return found

    def _mentions(self, path: Path, name: str) -> bool:
        text = self._project.source(path).text
        return name in text and re.search(rf"\b{name}\b", text) is not None

    def _gives_models(self, file: _File, name: str) -> bool:
        self._project.watch.now.parts.add(file.footprint)
        if name not in file.given:
            file.given[name] = False  # What needs itself to be answered adds nothing.
            with self._on_behalf(file):
                file.given[name] = self._definition_gives_models(file, name)
        return file.given[name]

    def _definition_gives_models(self, file: _File, name: str) -> bool:
        names = file.names
        if file.unread or self._matters(name, file) or self._is_own_entry(name, file):
            return True
        pieces = [piece for piece in self._pieces(file) if name in piece.names]
        if name in names.classes:
            return any(self._holds_models(piece, file) for piece in pieces)
        if name in names.functions or name in names.tables:
            return any(self._builds(piece, file) for piece in pieces)
        if name in names.imports:
            return False
        return any(self._imported_matters(star, "", file) for star in self._stars(name, file))

    def _is_own_entry(self, name: str, file: _File) -> bool:
        """Whether the user's own entries in the catalogue tell about something of the project."""
        if not self._catalogue.has_own_entries or not file.path.is_relative_to(self._project.root):
            return False
        parts = file.path.relative_to(self._project.root).with_suffix("").parts
        return self._catalogue.project_entry(".".join([*parts, name])) is not None

    # --- tables of classes ------------------------------------------------------------------------------------------

    def _may_be_registry(self, name: str, file: _File) -> bool:
        """Whether a table may give module classes, or functions that build models."""
        root, _, rest = name.partition(".")
        names = file.names
        if rest or (root not in names.tables and root not in names.imports):
            return self._has_modules(file)
        shown = self._gives_models(file, root) if root in names.tables else self._matters(root, file)
        return shown or (self._is_open_table(root, file) and (root in names.imports or self._has_modules(file)))

    def _is_open_table(self, name: str, file: _File, depth: int = 0) -> bool:
        """Whether others may put things into what a file calls so."""
        if name in file.names.tables:
            return not file.names.tables[name]
        if depth > _MAX_BASES:
            return True
        for imported in file.names.imports.get(name) or self._stars(name, file):
            target, left = self._target(imported, "", file)
            if target is not None and left and self._is_open_table(left, target, depth + 1):
                return True
        return False

    def _may_be_namespace(self, name: str, file: _File) -> bool:
        """Whether an object may have attributes that build models."""
        root, _, rest = name.partition(".")
        for imported in file.names.imports.get(root, ()):
            target, left = self._target(imported, rest, file)
            return self._outside_matters(f"{left}.?") if target is None else self._has_modules(target)
        return self._has_modules(file)

    def _has_modules(self, file: _File) -> bool:
        """Whether a file defines or imports anything that builds a model."""
        return any(self._matters(name, file) for name in (*file.names.classes, *file.names.imports))

    # --- classes ----------------------------------------------------------------------------------------------------

    def _is_module(self, item: ClassOutline, file: _File) -> bool:
        """Whether a class may be a PyTorch module (losses are none here)."""
        if item not in file.modules:
            derives, unknown, forward = self._lineage(item, file, set())
            is_loss = any(self._catalogue.is_loss(name) for name in (item.name, *item.bases))
            file.modules[item] = (derives or (unknown and forward)) and not is_loss
        return file.modules[item]

    def _lineage(self, item: ClassOutline, file: _File, seen: set[ClassOutline]) -> tuple[bool, bool, bool]:
        """Whether a class derives from a module, whether a base is unknown, and whether it has a `forward`."""
        seen.add(item)
        derives = unknown = False
        forward = item.has_forward
        for base in item.bases:
            for found in self._behind(base, file):
                if isinstance(found, str):
                    derives |= self._catalogue.is_module_base(self._catalogue.canonical(found))
                    unknown |= not self._is_foreign(found)
                elif found[0] not in seen:
                    above = self._lineage(*found, seen)
                    derives, unknown, forward = derives | above[0], unknown | above[1], forward | above[2]
        return derives, unknown, forward

    def _behind(self, name: str, file: _File, depth: int = 0) -> list[str | tuple[ClassOutline, _File]]:
        """What may stand behind a class's name: classes of the project, or dotted names (`?`: nobody knows)."""
        self._project.watch.now.parts.add(file.footprint)
        if name not in file.behind:
            file.behind[name] = ["?"]  # What leads back to itself is known by nobody.
            with self._on_behalf(file):
                file.behind[name] = self._find_behind(name, file, depth)
        return file.behind[name]

    def _find_behind(self, name: str, file: _File, depth: int) -> list[str | tuple[ClassOutline, _File]]:
        root, _, rest = name.partition(".")
        if depth > _MAX_BASES or not root:
            return ["?"]
        names = file.names
        found: list[str | tuple[ClassOutline, _File]] = []
        if not rest:
            found += [(item, file) for item in names.classes.get(root, ())]
        imported = names.imports.get(root, [])
        if not found and not imported:
            if root in _BUILTINS:
                return [f"builtins.{root}"]
            imported = self._stars(root, file)
        for item in imported:
            target, left = self._target(item, rest, file)
            if target is None:
                found.append(left)
            else:
                found += self._behind(left, target, depth + 1)
        return found or ["?"]

    def _is_module_type(self, name: str, file: _File) -> bool:
        for found in self._behind(name, file):
            if isinstance(found, str):
                if self._catalogue.is_module_base(self._catalogue.canonical(found)):
                    return True
            elif self._is_module(*found):
                return True
        return False

    def _is_holder(self, base: str, file: _File) -> bool:
        """Whether a base class of another file holds models, which methods here may run."""
        for found in self._behind(base, file):
            if isinstance(found, str):
                entry = self._catalogue.entry(self._catalogue.canonical(found))
                if entry is not None and entry.gives not in _HARMLESS | {"layer"}:
                    return True
            elif found[1] is not file and not self._is_module(*found) and self._gives_models(found[1], found[0].name):
                return True
        return False

    # --- installed packages -----------------------------------------------------------------------------------------

    def _outside_matters(self, name: str) -> bool:
        """Whether something of an installed package builds models, loads data for them or trains them."""
        if name not in self._outside:
            canonical = self._catalogue.canonical(name)
            entry = self._catalogue.call(canonical) or self._catalogue.entry(canonical)
            matters = entry is not None and (entry.gives not in _HARMLESS or bool(entry.loads))
            is_layer = entry is not None and entry.gives == "layer"
            self._outside[name] = bool(self._catalogue.torch_layer(canonical)) if is_layer else matters
        return self._outside[name]

    def _is_foreign(self, name: str) -> bool:
        """Whether something is of a package whose classes are modules only where the catalogue says so."""
        return name.startswith("torch.") or self._catalogue.is_foreign(name)
