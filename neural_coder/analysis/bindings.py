"""What binding an object to a name tells: where models and loaders get their names, and what unknown results are."""

from __future__ import annotations

import ast

from neural_coder.analysis.catalogue_data import Entry
from neural_coder.analysis.facts import Binding, BuiltModel
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.objects import Objects
from neural_coder.analysis.syntax import dotted
from neural_coder.analysis.usage import is_called, looks_like_model, named_like_model
from neural_coder.analysis.values import (
    UNKNOWN,
    Instance,
    Items,
    Many,
    ModelObject,
    Object,
    Thing,
    Value,
    models_in,
    of,
    with_flows,
)
from neural_coder.records import Evidence


class Bindings(Objects):
    """The part of the interpreter that takes note of what statements bind."""

    def bound_value(
        self,
        target: ast.Name | ast.Attribute,
        value: Value,
        frame: Frame,
        statement: ast.stmt,
        source: ast.expr | None,
        base: Value = UNKNOWN,
    ) -> Value:
        """Note what a statement binds; returns the value, with what the binding itself tells about it."""
        if source is None:
            return value
        name = dotted(target)
        if not value.things and isinstance(source, ast.Call):
            value = self._rebound(target, value, source, frame) or self._by_use(target, value, source, frame)
        elif not value.things and isinstance(target, ast.Attribute) and isinstance(source, ast.Name):
            value = self._kept_parameter(target, value, source, frame)
        if not name or name == "_":
            return value
        self._note_models(target, name, value, frame, statement, source, base)
        for thing in self._held(value, source):
            if isinstance(thing, Object) and thing.site is not None and thing not in frame.read_objects:
                if thing.kind == "optimizer":
                    self.facts.optimizer_names.setdefault(thing.site, name)
                elif thing.kind == "loader":
                    self._note_loader(target, name, thing.site, frame, statement, source)
            elif isinstance(thing, Instance) and thing.site in self.facts.loaders and thing not in frame.read_objects:
                self._note_loader(target, name, thing.site, frame, statement, source)
        return value

    def _held(self, value: Value, source: ast.expr) -> frozenset[Thing]:
        """What a statement binds; of a display or comprehension (`{"train": DataLoader(...)}`) also its items."""
        found = set(value.things)
        if isinstance(source, ast.Dict | ast.List | ast.DictComp | ast.ListComp):
            for thing in value.things:
                items = thing.values if isinstance(thing, Items) else (thing.item,) if isinstance(thing, Many) else ()
                found.update(part for item in items for part in item.things)
        return frozenset(found)

    def _note_loader(
        self, target: ast.expr, name: str, site: ast.AST, frame: Frame, statement: ast.stmt, source: ast.expr
    ) -> None:
        binding = self.facts.loader_bindings.setdefault(
            (statement, name), Binding(frame.parsed, statement, name, target, value=source)
        )
        binding.sites.add(site)

    def _note_models(
        self,
        target: ast.expr,
        name: str,
        value: Value,
        frame: Frame,
        statement: ast.stmt,
        source: ast.expr,
        base: Value,
    ) -> None:
        fresh = {
            thing
            for thing in value.things
            if isinstance(thing, ModelObject) and thing not in frame.read_objects and not self._is_foreign(thing)
        }
        inside = any(isinstance(thing, ModelObject) for thing in base.things) or self._is_part_of_model(target, frame)
        if inside or self._inside_module(frame):
            return
        if not fresh:
            self._note_alias(target, name, value, frame, statement, source)
            return
        binding = self.facts.bindings.setdefault(
            (statement, name), Binding(frame.parsed, statement, name, target, value=source)
        )
        binding.sites.update(thing.site for thing in fresh)

    def _is_part_of_model(self, target: ast.expr, frame: Frame) -> bool:
        """`detector.roi_heads.box_predictor = ...`: somewhere in front of the name stands a model."""
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
            if any(isinstance(thing, ModelObject) for thing in self.evaluate(target, frame).things):
                return True
        return False

    def _note_alias(
        self, target: ast.expr, name: str, value: Value, frame: Frame, statement: ast.stmt, source: ast.expr
    ) -> None:
        """`self.model = model` counts where the model was built right in the call that passed it."""
        built = [thing for thing in models_in(value, 0) if not self._is_foreign(thing)]
        if built and isinstance(target, ast.Attribute) and frame.info is not None:
            binding = Binding(frame.parsed, statement, name, target, value=source)
            self.facts.aliases.setdefault((statement, name), binding).sites.update(thing.site for thing in built)

    def _is_foreign(self, thing: ModelObject) -> bool:
        return self.facts.model(thing).placeholder

    def _inside_module(self, frame: Frame) -> bool:
        if frame.class_info is not None and self.module_evidence(frame.class_info):
            return True
        owner = frame.info.owner if frame.info is not None and frame.info.kind == "method" else None
        return isinstance(frame.self_thing, ModelObject) or (owner is not None and bool(self.module_evidence(owner)))

    def _rebound(self, target: ast.expr, value: Value, source: ast.Call, frame: Frame) -> Value | None:
        """`model = wrap(model)` by a function that nothing is known about: taken to give the model back."""
        name = dotted(target)
        given = [*source.args, *(keyword.value for keyword in source.keywords)]
        if not name or not any(dotted(argument) == name for argument in given):
            return None
        kept = frozenset(
            thing for thing in self.evaluate(target, frame).things if isinstance(thing, ModelObject | Object)
        )
        return Value(kept, value.flows) if kept else None

    def _by_use(self, target: ast.expr, value: Value, source: ast.Call, frame: Frame) -> Value:
        """A call that nothing explains: what is done with its result may tell that it is a model."""
        callee = self.facts.resolved.get(self._first_call(source), "")
        entry = self.catalogue.call(callee) if callee else None
        says_no = entry is not None and entry.gives == "nothing"
        says_no = says_no or (entry is None and _gives_tensor(callee))
        if says_no or self.catalogue.is_foreign(callee) or not self.mentions_torch(frame.parsed.path):
            return value
        if self.catalogue.is_loss(dotted(target)):
            return value
        evidence = self._evidence_of_use(target, source, callee, entry, frame)
        if evidence is None:
            self.facts.unexplained.setdefault(source, dotted(target))
            return value
        if source not in self.facts.models:
            library = callee.partition(".")[0] or "project"
            self.facts.models[source] = BuiltModel(source, frame.parsed, evidence, callee, library, layers_known=False)
        self.fresh[-1].add(source)
        return with_flows(of(ModelObject(source)), value.flows)

    def _kept_parameter(self, target: ast.Attribute, value: Value, source: ast.Name, frame: Frame) -> Value:
        """`self.model = model` of a parameter that nothing is passed to: the class may use it as only modules are."""
        owner = frame.info.owner if frame.info is not None else None
        if frame.info is None or owner is None or self._inside_module(frame):
            return value
        arguments = frame.info.node.args
        names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        parameter = next((item for item in names if item.arg == source.id), None)
        if parameter is None or not self.mentions_torch(frame.parsed.path):
            return value
        if not looks_like_model(target, owner.node, frame.parsed, self.catalogue):
            return value
        return with_flows(of(self.placeholder(parameter, frame.parsed, "a parameter")), value.flows)

    def _first_call(self, source: ast.Call) -> ast.Call:
        """`load(...)` of `load(...).to(device).eval()`."""
        while (
            isinstance(source.func, ast.Attribute)
            and isinstance(source.func.value, ast.Call)
            and source.func.attr in self.catalogue.same_methods
        ):
            source = source.func.value
        return source

    def _evidence_of_use(
        self, target: ast.expr, source: ast.Call, callee: str, entry: Entry | None, frame: Frame
    ) -> Evidence | None:
        scope: ast.AST = frame.info.node if frame.info is not None else frame.parsed.tree
        if isinstance(target, ast.Attribute) and frame.info is not None and frame.info.owner is not None:
            scope = frame.info.owner.node
        strength = looks_like_model(target, scope, frame.parsed, self.catalogue)
        if strength == 2:
            return Evidence(known_by="name", confidence=0.75, note="it is used as only modules are")
        if strength == 0 and not (self.is_uncharted(callee) and is_called(target, scope, frame.parsed)):
            return None
        if entry is not None and entry.gives == "any":
            # What `torch.load` gives is called only when it is a whole model; `instantiate` builds anything.
            told = callee.startswith("torch.") or any(named_like_model(_last_word(item)) for item in source.args)
            note = "it is named and called like a model"
            return Evidence(known_by="name", confidence=0.65, note=note) if told else None
        if callee and self.inferred_module(callee, frame.parsed.path):
            return Evidence(known_by="jedi", confidence=0.9)
        return None


def _gives_tensor(callee: str) -> bool:
    """Functions directly in `torch` give tensors, where the catalogue does not say otherwise."""
    top, _, name = callee.partition(".")
    return top == "torch" and "." not in name


def _last_word(node: ast.expr) -> str:
    """What is asked for at the end of an expression: `model` of `cfg.model` and of `cfg["model"]`."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    return node.attr if isinstance(node, ast.Attribute) else ""
