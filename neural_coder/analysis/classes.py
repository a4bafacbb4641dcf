"""Project classes: what they derive from, and whether that makes them modules of PyTorch."""

from __future__ import annotations

from pathlib import Path

from neural_coder.analysis.catalogue_data import Entry
from neural_coder.analysis.modules import Modules
from neural_coder.analysis.usage import only_computes_loss, only_computes_targets
from neural_coder.analysis.values import (
    Class,
    ClassInfo,
    Instance,
    ModelObject,
    Object,
    Outside,
    Thing,
)
from neural_coder.records import Evidence


class Classes(Modules):
    """The part of the interpreter that knows classes."""

    def lineage(self, info: ClassInfo) -> list[ClassInfo]:
        """A class and its project bases, nearest first."""
        found = [info]
        for member in found:  # which grows meanwhile
            for base in member.bases:
                for thing in base.things:
                    if thing.__class__ is Class and thing.info not in found:
                        found.append(thing.info)
        return found

    def outside_bases(self, info: ClassInfo) -> list[str]:
        """Dotted names of the bases outside the project."""
        return [
            thing.name
            for member in self.lineage(info)
            for base in member.bases
            for thing in base.things
            if isinstance(thing, Outside)
        ]

    def base_entries(self, info: ClassInfo) -> list[Entry]:
        """What the catalogue says about the bases outside the project."""
        found = (self.catalogue.entry(self.catalogue.canonical(name)) for name in self.outside_bases(info))
        return [entry for entry in found if entry is not None]

    def entries_of(self, thing: Thing) -> list[Entry]:
        """What the catalogue says about an object: about what built it, or about the bases of its class."""
        if isinstance(thing, Object):
            return [thing.entry] if thing.entry is not None else []
        if isinstance(thing, Instance):
            return self.base_entries(thing.info)
        if isinstance(thing, ModelObject):
            model = self.facts.model(thing)
            own = [model.entry] if model.entry is not None else []
            return [*own, *(entry for info in model.classes for entry in self.base_entries(info))]
        return []

    def module_evidence(self, info: ClassInfo) -> Evidence | None:
        """How we know that a class is a module; None when it is none."""
        names = self.outside_bases(info)
        if any(self.catalogue.is_module_base(self.catalogue.canonical(name)) for name in names):
            return Evidence(known_by="project", confidence=0.98)
        unknown = [name for name in names if not name.startswith("torch.") and not self.catalogue.is_foreign(name)]
        blind = any(not base.things for member in self.lineage(info) for base in member.bases)
        runs_forward = any("forward" in member.members for member in self.lineage(info))
        if (unknown or blind) and runs_forward and self.mentions_torch(info.parsed.path):
            return Evidence(known_by="name", confidence=0.7, note="it defines forward()")
        asked = [name for name in unknown if self.is_uncharted(name)]
        if asked and self.mentions_torch(info.parsed.path):
            told = any(self.inferred_module(name, info.parsed.path) for name in asked)
            return Evidence(known_by="jedi", confidence=0.9) if told else None
        return None

    def is_uncharted(self, name: str) -> bool:
        """Whether a dotted name belongs to a package that the catalogue does not know at all."""
        package = name.partition(".")[0]
        return package != name and package not in self.catalogue.packages and package not in self.catalogue.foreign

    def inferred_module(self, name: str, asking: Path) -> bool:
        """Ask jedi whether something of an installed package is or gives a module; False also when it does not know."""
        answer = self.inference.gives_module(name, asking) if "?" not in name else None
        if answer is None and self.inference.exhausted(asking):
            self.facts.out_of_time.add(asking.resolve())
        return bool(answer)

    def mentions_torch(self, path: Path) -> bool:
        """Whether a file, or one that it imports, names PyTorch or a library that builds on it."""
        if path not in self.mentions:
            self.mentions[path] = self.project.mentions_library(path) or any(
                self.project.mentions_library(imported) for imported in self.project.imports(path, self.script_folder)
            )
        return self.mentions[path]

    def is_loss_class(self, info: ClassInfo) -> bool:
        """Whether a module class is a loss, or computes the targets of one."""
        lineage = self.lineage(info)
        names = [member.node.name for member in lineage] + self.outside_bases(info)
        if any(self.catalogue.is_loss(name) for name in names):
            return True
        return all(
            only_computes_loss(member.node, self.catalogue) or only_computes_targets(member.node, self.catalogue)
            for member in lineage
        )
