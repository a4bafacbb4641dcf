"""Objects of the project, their members and attributes."""

from __future__ import annotations

import ast

from neural_coder.analysis.annotations import Annotations
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.syntax import Parsed
from neural_coder.analysis.values import (
    UNKNOWN,
    Class,
    ClassInfo,
    FileModule,
    Function,
    Instance,
    Many,
    ModelObject,
    Object,
    Outside,
    Super,
    Thing,
    Value,
    detached,
    join,
    models_in,
    of,
    shallow,
    with_flows,
)
from neural_coder.records import Evidence

_AVERAGED = frozenset({"ema", "ema_model"})
"""Under which the copies that libraries keep of a model hold it."""
_CONTEXTS = frozenset({"no_grad", "inference_mode", "enable_grad", "autocast"})


class Objects(Annotations):
    """The part of the interpreter that knows objects."""

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
            full = self.catalogue.canonical(f"{thing.name}.{name}")
            return self.own_value(full) or of(Outside(full))
        if isinstance(thing, FileModule):
            return self.module_attribute(thing, name)
        if isinstance(thing, ModelObject) and name == "_modules":
            return of(Many(of(thing)))
        if isinstance(thing, ModelObject) and self._names_itself(thing, name):
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

    def _names_itself(self, thing: ModelObject, name: str) -> bool:
        """Whether an attribute of a wrapper is the model in it: `ddp.module`, `ema.ema_model`."""
        return name == "module" or (name in _AVERAGED and self.facts.model(thing).copied_from is not None)

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
