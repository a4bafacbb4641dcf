"""What is only known from annotations, names and use: models that are built somewhere else."""

from __future__ import annotations

import ast

from neural_coder.analysis.classes import Classes
from neural_coder.analysis.facts import BuiltModel
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.syntax import Parsed, dotted
from neural_coder.analysis.values import (
    UNKNOWN,
    Class,
    ClassInfo,
    Instance,
    ModelObject,
    Object,
    Outside,
    Thing,
    Value,
    is_unknown,
    join,
    of,
    with_flows,
)
from neural_coder.parsing import quiet
from neural_coder.records import Evidence


class Annotations(Classes):
    """The part of the interpreter that takes code at its word."""

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
                    self.build_alone(model)
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
