"""Files of the project as modules: run on their first use, and only where a name of theirs is wanted."""

from __future__ import annotations

import logging
from pathlib import Path

from neural_coder.analysis.frames import Frame
from neural_coder.analysis.machine import Machine
from neural_coder.analysis.syntax import Parsed
from neural_coder.analysis.values import (
    UNKNOWN,
    Class,
    FileModule,
    Function,
    Import,
    Many,
    Partial,
    Value,
    join,
    of,
)
from neural_coder.errors import UserError

log = logging.getLogger(__name__)

MAX_FILES = 200
"""Project files to run for one analysis; further ones are taken for empty."""
_MAX_CANDIDATES = 12


class Modules(Machine):
    """The part of the interpreter that knows modules of the project."""

    def module_frame(self, path: Path) -> Frame:
        """The frame of a project file, run on its first use."""
        if path in self.modules:
            return self.modules[path]
        path = path.resolve()
        if path not in self.modules:
            parsed = self._parsed(path)
            frame = self.modules[path] = Frame(parsed=parsed)
            kept = self.stack, self.grad, self.autocast, self.model_calls
            self.stack, self.grad, self.autocast, self.model_calls = [], True, False, []
            try:
                self.run_block(parsed.tree.body, frame)
                self.run_block(frame.deferred, frame)
            finally:
                self.stack, self.grad, self.autocast, self.model_calls = kept
        return self.modules[path]

    def _parsed(self, path: Path) -> Parsed:
        if len(self.modules) >= MAX_FILES and path not in self.reported:
            self.facts.unread[path] = f"only {MAX_FILES} files are followed from one script"
            return self.project.empty(path)
        try:
            return self.project.parsed(path)
        except UserError as error:
            log.debug("%s taken for empty: %s", path, error)
            self.facts.unread[path] = str(error).partition("\n")[0]
            return self.project.empty(path)

    def resolve(self, value: Value) -> Value:
        """The value with names of project files looked up; a name that is not there yet stays an import."""
        for thing in value.things:
            if thing.__class__ is Import:
                break
        else:
            return value
        found = [
            self.look_up(thing) if isinstance(thing, Import) and self.is_wanted(thing) else of(thing, flows=value.flows)
            for thing in value.things
        ]
        return join(found)

    def is_wanted(self, thing: Import) -> bool:
        """Whether a name of another file is worth running that file for."""
        return self.eager or thing.path in self.modules or self.glance.gives_models(thing.path, thing.name)

    def look_up(self, thing: Import) -> Value:
        """What a name of another project file stands for."""
        frame = self.module_frame(thing.path)
        value = frame.names.get(thing.name) or self.from_star_files(thing.name, frame)
        if value is not None:
            return value if value == of(thing) else self.resolve(value)
        found = self._submodule(thing.path, thing.name)
        return found if found.things else of(thing)

    def own_value(self, name: str) -> Value | None:
        """What a library's name stands for in that library's own repo, where the catalogue says nothing about it."""
        package = name.partition(".")[0]
        own = self.own_packages.get(package)
        if own is None:
            own = self.own_packages[package] = self.project.own_module(package) is not None
        if not own or self.catalogue.entry(name) is not None or self.catalogue.call(name) is not None:
            return None
        module, _, last = name.rpartition(".")
        path = self.project.own_module(module) if module and self.project.own_module(name) is None else None
        later = of(Import(path, last)) if path is not None else UNKNOWN
        found = self.resolve(later)
        return None if found == later else found

    def from_star_files(self, name: str, frame: Frame) -> Value | None:
        """A name that a file may have by `from module import *`, from modules that have not been run yet."""
        for path in frame.star_files:
            if name in self.project.source(path).text:
                found = self.module_frame(path).names.get(name)
                if found is not None:
                    return self.resolve(found)
        return None

    def module_attribute(self, thing: FileModule, name: str) -> Value:
        """What an attribute of a module of the project may be."""
        if name == "__dict__":
            return self.candidates(thing)
        if thing.path.suffix == ".py":
            later = Import(thing.path, name)
            submodule = self._submodule(thing.path, name)
            if not submodule.things and not self.is_wanted(later):
                return of(later)
            frame = self.module_frame(thing.path)
            found = frame.names.get(name)
            found = self.from_star_files(name, frame) if found is None else self.resolve(found)
            if found is not None:
                return found
        return self._submodule(thing.path, name)

    def _submodule(self, package: Path, name: str) -> Value:
        if package.suffix == ".py" and package.stem != "__init__":
            return UNKNOWN
        folder = package.parent if package.suffix == ".py" else package
        for path in (folder / f"{name}.py", folder / name / "__init__.py"):
            if self.project.exists(path):
                return of(FileModule(path.resolve()))
        return UNKNOWN

    def candidates(self, thing: FileModule) -> Value:
        """What a lookup by a computed name in a project module may give, when it cannot give many things."""
        names = self.module_frame(thing.path).names if thing.path.suffix == ".py" else {}
        parts = [
            value
            for name, value in names.items()
            if not name.startswith("_") and any(isinstance(part, Class | Function | Partial) for part in value.things)
        ]
        return of(Many(join(parts))) if 0 < len(parts) <= _MAX_CANDIDATES else UNKNOWN
