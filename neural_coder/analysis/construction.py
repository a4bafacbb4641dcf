"""Project classes that are called: modules, trainers, datasets and plain objects."""

from __future__ import annotations

import ast

from neural_coder.analysis.facts import BuiltModel
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.functions import Arguments, Functions, Keywords
from neural_coder.analysis.values import (
    UNKNOWN,
    ClassInfo,
    Function,
    FunctionInfo,
    Instance,
    ModelObject,
    Object,
    Thing,
    Value,
    all_flows,
    join,
    models_in,
    of,
)
from neural_coder.records import Evidence


class Construction(Functions):
    """The part of the interpreter that builds objects of project classes."""

    def construct(
        self, info: ClassInfo, arguments: Arguments, keywords: Keywords, node: ast.Call | None, frame: Frame
    ) -> Value:
        """An instance of a project class."""
        flows = frozenset().union(*(all_flows(value) for value in [*arguments, *keywords.values()]))
        evidence = self.module_evidence(info)
        if evidence is not None and node is not None:
            if self.is_loss_class(info):
                self._initialise(Instance(info), info, arguments, keywords, node, frame)
                return of(Object("loss"))
            return self._construct_module(info, evidence, arguments, keywords, node, frame)
        entries = self.base_entries(info)
        given_by_bases = {entry.gives for entry in entries}
        if "optimizer" in given_by_bases and node is not None:
            return of(self.note_optimizer(node, self._base_giving("optimizer", info), frame))
        if "loader" in given_by_bases and node is not None:
            known = Evidence(known_by="project", confidence=0.95)
            return of(self.note_loader(node, self.qualified(info), known, frame))
        if "pipeline" in given_by_bases and node is not None:
            name = self._base_giving("pipeline", info)
            thing = self.library_model(name, entries[0], node, frame)
            self.facts.model(thing).classes.add(info)
            self.hold(thing, [*arguments, *keywords.values()])
            return of(thing)
        instance = Instance(info, node)
        if node is not None and self._is_iterable(info) and node not in self.facts.loaders:
            known = Evidence(known_by="project", confidence=0.8, note="its items are fed to a model")
            self.note_loader(node, self.qualified(info), known, frame, confirmed=False)
        if "trainer" in given_by_bases:
            given = models_in(join([*arguments, *keywords.values()]))
            if given:
                self.set_attribute(of(instance), "model", of(*given))
        self._initialise(instance, info, arguments, keywords, node, frame)
        return of(instance, flows=flows)

    def _base_giving(self, gives: str, info: ClassInfo) -> str:
        names = [self.catalogue.canonical(name) for name in self.outside_bases(info)]
        return next(
            name for name in names if (entry := self.catalogue.entry(name)) is not None and entry.gives == gives
        )

    def _is_iterable(self, info: ClassInfo) -> bool:
        members = {name for member in self.lineage(info) for name in member.members}
        return bool(members & {"__iter__", "__next__"}) or {"__getitem__", "__len__"} <= members

    def qualified(self, info: ClassInfo | FunctionInfo) -> str:
        """The dotted name of a class or function of the project, from the project's root."""
        path = info.parsed.key
        name = getattr(info.node, "name", "<lambda>")
        if isinstance(info, FunctionInfo) and info.owner is not None:
            name = f"{info.owner.node.name}.{name}"
        try:
            relative = path.relative_to(self.project.root).with_suffix("")
        except ValueError:
            return name
        return ".".join([*(part for part in relative.parts if part != "__init__"), name])

    def _construct_module(
        self,
        info: ClassInfo,
        evidence: Evidence,
        arguments: Arguments,
        keywords: Keywords,
        node: ast.Call,
        frame: Frame,
    ) -> Value:
        model = self.facts.models.get(node)
        if model is None:
            model = BuiltModel(node, frame.parsed, evidence, self.qualified(info), "project", layers_known=True)
            self.facts.models[node] = model
        elif info not in model.classes:
            model.qualified_name = "?"
        model.classes.add(info)
        self.fresh[-1].add(node)
        thing = ModelObject(node)
        for entry in self.base_entries(info):
            model.layers |= entry.layers or set()
        self.layer_sets.append(model.layers)
        try:
            self._initialise(thing, info, arguments, keywords, node, frame)
        finally:
            self.layer_sets.pop()
        for outer in self.layer_sets[-1:]:
            outer |= model.layers
        return of(thing)

    def _initialise(
        self,
        thing: Thing,
        info: ClassInfo,
        arguments: Arguments,
        keywords: Keywords,
        node: ast.Call | None,
        frame: Frame,
    ) -> None:
        method = self.member_of(thing, "__init__")
        if method is None:
            self._fill_fields(thing, info, arguments, keywords)
            method = self.member_of(thing, "__post_init__") or UNKNOWN
            arguments, keywords = [], {}
        forward, backward = self.ran_forward, self.ran_backward
        for part in method.things:
            if isinstance(part, Function):
                self.run_function(part, arguments, keywords, node, frame)
        self.ran_forward, self.ran_backward = forward, backward

    def build_alone(self, thing: Thing) -> None:
        """Run the constructor of an object that nothing in the project builds: its methods need what that sets."""
        method = self.member_of(thing, "__init__") or UNKNOWN
        kept = self.grad, self.autocast, self.stack, self.model_calls, self.ran_forward, self.ran_backward
        self.grad, self.autocast, self.stack, self.model_calls = True, False, [], []
        for part in method.things:
            if isinstance(part, Function) and part.info.node not in self.called:
                frame = Frame(parsed=part.info.parsed, parent=part.info.closure)
                self.run_function(part, [], {}, None, frame)
        self.grad, self.autocast, self.stack, self.model_calls, self.ran_forward, self.ran_backward = kept

    def _fill_fields(self, thing: Thing, info: ClassInfo, arguments: Arguments, keywords: Keywords) -> None:
        """Dataclasses: what is given goes to the fields in order."""
        fields = [
            item.target.id
            for member in reversed(self.lineage(info))
            for item in member.node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        ]
        given = dict([*zip(fields, arguments, strict=False), *keywords.items()])
        for name in fields:
            if name in given:
                self.set_attribute(of(thing), name, given[name])
        self.given_fields[getattr(thing, "site", None)] = {name: given[name] for name in fields if name in given}
