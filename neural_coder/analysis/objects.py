"""Project classes, their members and attributes, and what binding an object to a name tells."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

from neural_coder.analysis.catalogue_data import Entry
from neural_coder.analysis.facts import BuiltModel
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.machine import Machine
from neural_coder.analysis.syntax import Parsed, dotted
from neural_coder.analysis.usage import only_computes_loss
from neural_coder.analysis.values import (
    UNKNOWN,
    Class,
    ClassInfo,
    FileModule,
    Function,
    Import,
    Instance,
    Many,
    ModelObject,
    Object,
    Outside,
    Partial,
    Super,
    Thing,
    Value,
    detached,
    is_unknown,
    join,
    models_in,
    of,
    shallow,
    with_flows,
)
from neural_coder.errors import UserError
from neural_coder.parsing import quiet
from neural_coder.records import Evidence

log = logging.getLogger(__name__)

MAX_FILES = 200
"""Project files to run for one analysis; further ones are taken for empty."""
_MAX_CANDIDATES = 12
_CONTEXTS = frozenset({"no_grad", "inference_mode", "enable_grad", "autocast"})


class Objects(Machine):
    """The part of the interpreter that knows classes, objects and bindings."""

    # --- modules ----------------------------------------------------------------------------------------------------

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

    # --- classes ----------------------------------------------------------------------------------------------------

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
        """Whether the text of a file names PyTorch or a library that builds on it."""
        if path not in self.mentions:
            self.mentions[path] = self.project.mentions_library(path)
        return self.mentions[path]

    def is_loss_class(self, info: ClassInfo) -> bool:
        """Whether a module class is a loss."""
        lineage = self.lineage(info)
        names = [member.node.name for member in lineage] + self.outside_bases(info)
        if any(self.catalogue.is_loss(name) for name in names):
            return True
        return all(only_computes_loss(member.node, self.catalogue) for member in lineage)

    # --- attributes -------------------------------------------------------------------------------------------------

    def member_of(self, thing: Thing, name: str) -> Value | None:
        """An attribute of a project object or class; None when it has none of that name."""
        if isinstance(thing, Instance):
            return self._class_member(thing.info, name, thing)
        if isinstance(thing, Class):
            return self._class_member(thing.info, name, None, thing)
        if isinstance(thing, Super):
            for base in self.lineage(thing.info)[1:]:
                found = self._own_member(base, name, thing.self_thing)
                if found is not None:
                    return found
            return None
        if isinstance(thing, ModelObject):
            members = [self._class_member(info, name, thing) for info in self.facts.model(thing).classes]
            known = [member for member in members if member is not None]
            return join(known) if known else None
        return None

    def _class_member(
        self, info: ClassInfo, name: str, bound: Thing | None, owner: Thing | None = None
    ) -> Value | None:
        found = None
        for member in self.lineage(info):
            found = self._own_member(member, name, bound, owner)
            if found is not None:
                break
        if bound is None:
            return found
        stored = [member.attributes[name] for member in self.lineage(info) if name in member.attributes]
        known = [value for value in (found, *stored) if value is not None]
        return join(known) if known else None

    def _own_member(self, info: ClassInfo, name: str, bound: Thing | None, owner: Thing | None = None) -> Value | None:
        value = info.members.get(name)
        if value is None:
            return None
        things: set[Thing] = set()
        for thing in value.things:
            if isinstance(thing, Function) and thing.bound is None and thing.info.kind != "static":
                target = Class(info) if thing.info.kind == "class" else bound
                if thing.info.kind == "class" and (owner is not None or bound is not None):
                    target = owner if owner is not None else self.class_of(bound, info)
                things.add(Function(thing.info, target))
            else:
                things.add(thing)
        return Value(frozenset(things), value.flows)

    def class_of(self, thing: Thing | None, default: ClassInfo) -> Thing:
        """The class of an object, as a value."""
        if isinstance(thing, Instance):
            return Class(thing.info)
        if isinstance(thing, ModelObject) and len(self.facts.model(thing).classes) == 1:
            return Class(next(iter(self.facts.model(thing).classes)))
        return Class(default)

    def attribute(self, value: Value, name: str, frame: Frame) -> Value:
        """What an attribute of a value may be."""
        if not value.things:
            return Value(frozenset(), detached(value.flows)) if name == "data" else value
        found = [self._attribute_of(thing, name, frame) for thing in value.things]
        result = with_flows(join(found), value.flows)
        return Value(result.things, detached(result.flows)) if name == "data" else result

    def _attribute_of(self, thing: Thing, name: str, frame: Frame) -> Value:
        if isinstance(thing, Outside):
            return of(Outside(self.catalogue.canonical(f"{thing.name}.{name}")))
        if isinstance(thing, FileModule):
            return self._module_attribute(thing, name)
        if isinstance(thing, ModelObject) and name == "_modules":
            return of(Many(of(thing)))
        if isinstance(thing, ModelObject) and name == "module":
            return self.member_of(thing, name) or of(thing)
        if isinstance(thing, Object):
            return self._object_attribute(thing, name, frame)
        member = self.member_of(thing, name)
        if member is None:
            return self._missing_attribute(thing, name, frame)
        results = []
        for part in member.things:
            if isinstance(part, Function) and part.info.kind == "property" and part.bound is not None:
                results.append(self.call_value(of(part), [], {}, None, frame))
            else:
                results.append(of(part, flows=member.flows))
        return join(results) if results else member

    def from_star_files(self, name: str, frame: Frame) -> Value | None:
        """A name that a file may have by `from module import *`, from modules that have not been run yet."""
        for path in frame.star_files:
            if name in self.project.source(path).text:
                found = self.module_frame(path).names.get(name)
                if found is not None:
                    return self.resolve(found)
        return None

    def _module_attribute(self, thing: FileModule, name: str) -> Value:
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

    def _object_attribute(self, thing: Object, name: str, frame: Frame) -> Value:
        if thing.kind == "holder" and thing.site is not None and not self.catalogue.is_no_model(name):
            return of(self.placeholder(thing.site, self._file_of(thing.site), f"held as {name}"))
        if thing.kind == "parameter" and name == "data":
            return of(thing)
        if thing.kind == "trainer" and name in {"model", "lightning_module"} and thing.models:
            return of(*thing.models)
        return self._missing_attribute(thing, name, frame)

    def _file_of(self, node: ast.AST) -> Parsed:
        assert isinstance(node, ast.ClassDef)
        return self.classes[node].parsed

    def _missing_attribute(self, thing: Thing, name: str, frame: Frame) -> Value:
        """What the catalogue says about an attribute that the project's files do not show."""
        if name not in self.catalogue.attributes:
            return UNKNOWN
        for entry in self.entries_of(thing):
            if name in entry.holders and isinstance(thing, Instance):
                return of(Object("holder", thing.info.node))
            if name in entry.trainers:
                return of(thing)
            site = getattr(thing, "site", None) or (thing.info.node if isinstance(thing, Instance) else None)
            common = self.catalogue.parts if entry.gives == "module" and isinstance(thing, ModelObject) else frozenset()
            if name in (entry.parts or common) and site is not None:
                return of(self.part(site, name, frame.parsed))
        return UNKNOWN

    def part(self, site: ast.AST, name: str, parsed: Parsed) -> ModelObject:
        """The model that is an attribute of a pipeline or trainer of a library."""
        node = self.part_nodes.setdefault((site, name), ast.copy_location(ast.Pass(), site))
        self.part_owners[node] = site
        evidence = Evidence(known_by="catalogue", confidence=0.9, note=f"the {name} of what a library built")
        return self.placeholder(node, parsed, evidence.note, evidence)

    def set_attribute(self, base: Value, name: str, value: Value) -> None:
        """Put a value on objects: what they had there before stays possible."""
        value = self.cut(value)
        for thing in base.things:
            infos: set[ClassInfo] = set()
            if isinstance(thing, Instance | Class):
                infos = {thing.info}
            elif isinstance(thing, ModelObject):
                infos = self.facts.model(thing).classes
                self.adopt(of(thing), value)
            for info in infos:
                known = info.attributes.get(name)
                merged = value if known is None else join((known, value))
                if merged != known:
                    info.attributes[name] = merged
                    self.heap_version += 1

    def adopt(self, base: Value, value: Value) -> None:
        """Modules that are put into a module are parts of it."""
        for thing in base.things:
            if isinstance(thing, ModelObject):
                outer = self.facts.model(thing)
                for part in models_in(value):
                    inner = self.facts.model(part)
                    if inner is not outer:
                        for each in inner.family():
                            each.consumed = True
                        outer.parts.add(part.site)
                        inner.holders.add(outer.site)
                        outer.layers |= inner.layers

    def cut(self, value: Value) -> Value:
        """The value without its deepest containers."""
        return shallow(value)

    def context_kind(self, name: str) -> str:
        """What a context manager or decorator of PyTorch does, by its dotted name."""
        entry = self.catalogue.entry(name)
        return entry.gives if entry is not None and entry.gives in _CONTEXTS else ""

    # --- what is only known from annotations, names and use ---------------------------------------------------------

    def placeholder(self, key: ast.AST, parsed: Parsed, note: str, evidence: Evidence | None = None) -> ModelObject:
        """A model that is built somewhere else: a parameter, or something from a configuration file."""
        if key not in self.facts.models:
            self.facts.models[key] = BuiltModel(
                key,
                parsed,
                evidence or Evidence(known_by="name", confidence=0.6, note=note),
                placeholder=True,
                layers_known=False,
            )
        return ModelObject(key)

    def self_of(self, info: ClassInfo) -> Thing:
        """The object that a method runs on when nothing in the project makes one."""
        evidence = self.module_evidence(info)
        if evidence is None or self.is_loss_class(info):
            return Instance(info)
        if info.node not in self.facts.models:
            self.facts.models[info.node] = BuiltModel(
                info.node, info.parsed, evidence, library="project", classes={info}, placeholder=True
            )
        return ModelObject(info.node)

    def from_annotation(self, annotation: ast.expr | None, frame: Frame, name: str, site: ast.AST) -> Value:
        """A value of which only the annotation is known."""
        if annotation is None:
            return UNKNOWN
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            try:
                with quiet():
                    annotation = ast.parse(annotation.value, mode="eval").body
            except (SyntaxError, ValueError, MemoryError):
                return UNKNOWN
        if isinstance(annotation, ast.BinOp):
            parts: list[ast.expr] = [annotation.left, annotation.right]
        elif isinstance(annotation, ast.Subscript):
            if dotted(annotation.value).rpartition(".")[2] not in {
                "Optional",
                "Union",
                "Annotated",
                "Final",
                "ClassVar",
            }:
                return UNKNOWN
            parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        else:
            return self._of_type(self.evaluate(annotation, frame), site, frame.parsed)
        return join([self.from_annotation(part, frame, name, site) for part in parts])

    def annotated(self, value: Value, annotation: ast.expr | None, site: ast.AST, frame: Frame) -> Value:
        """A value that nothing else is known about is what its annotation says; a model that it says is built here."""
        if annotation is None or not is_unknown(value):
            return value
        known = self.from_annotation(annotation, frame, "", site)
        for thing in known.things:
            if isinstance(thing, ModelObject):
                model = self.facts.model(thing)
                model.placeholder, model.library = False, model.library or "project"
                model.qualified_name = self.facts.resolved.get(site, "")
                self.fresh[-1].add(thing.site)
        return with_flows(known, value.flows) if known.things else value

    def _of_type(self, value: Value, site: ast.AST, parsed: Parsed) -> Value:
        found = []
        for thing in value.things:
            if isinstance(thing, Class):
                evidence = self.module_evidence(thing.info)
                if evidence and not self.is_loss_class(thing.info):
                    model = self.placeholder(site, parsed, "annotation", evidence)
                    self.facts.model(model).classes.add(thing.info)
                    found.append(of(model))
                elif evidence is None:
                    found.append(of(Instance(thing.info)))
            elif isinstance(thing, Outside):
                found.append(self._of_outside_type(self.catalogue.canonical(thing.name), site, parsed))
        return join(found)

    def _of_outside_type(self, name: str, site: ast.AST, parsed: Parsed) -> Value:
        entry = self.catalogue.entry(name)
        if self.catalogue.is_loss(name):
            return of(Object("loss"))
        if entry is not None and (entry.gives == "pipeline" or self.catalogue.is_module_base(name)):
            evidence = Evidence(known_by="import", confidence=0.9, note="annotation")
            thing = self.placeholder(site, parsed, "annotation", evidence)
            self.facts.model(thing).entry = entry
            return of(thing)
        if entry is not None and entry.gives == "trainer":
            return of(Object("trainer", entry=entry))
        if entry is not None and entry.gives in {"optimizer", "loader"}:
            return of(Object("optimizer" if entry.gives == "optimizer" else "loader"))
        return UNKNOWN
