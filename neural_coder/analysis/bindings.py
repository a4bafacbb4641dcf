"""What binding an object to a name tells: where models and loaders get their names, and what unknown results are."""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Iterable, Iterator

from neural_coder.analysis.catalogue_data import Entry
from neural_coder.analysis.facts import Binding, BuiltModel
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.objects import Objects
from neural_coder.analysis.syntax import dotted, named
from neural_coder.analysis.usage import is_called, looks_like_model, named_like_model
from neural_coder.analysis.values import (
    UNKNOWN,
    FileModule,
    Instance,
    ModelObject,
    Object,
    Thing,
    Value,
    is_unknown,
    item_of,
    loaders_in,
    models_in,
    of,
    with_flows,
)
from neural_coder.records import Evidence


class Bindings(Objects):
    """The part of the interpreter that takes note of what statements bind."""

    def bound_value(
        self,
        target: ast.Name | ast.Attribute | ast.Subscript,
        value: Value,
        frame: Frame,
        statement: ast.stmt,
        source: ast.expr | None,
        base: Value = UNKNOWN,
    ) -> Value:
        """Note what a statement binds; returns the value, with what the binding itself tells about it."""
        if source is None:
            return value
        name = named(target)
        if is_unknown(value) and isinstance(source, ast.Call):
            value = self._rebound(target, value, source, frame) or self._by_use(target, value, source, frame)
        elif is_unknown(value) and isinstance(source, ast.Subscript):
            value = self._loaded_entry(target, value, source, frame)
        elif not value.things and isinstance(target, ast.Attribute) and isinstance(source, ast.Name):
            value = self._kept_parameter(target, value, source, frame)
        if not name or name == "_":
            return value
        bound = Binding(frame.parsed, statement, name, target, value=source)
        if isinstance(target, ast.Subscript):
            bound.written = frame.parsed.text(target)
        self._note_models(bound, value, frame, base)
        for thing in self._held(value, source, frame):
            if isinstance(thing, Object) and thing.site is not None and thing not in frame.read_objects:
                if thing.kind == "optimizer":
                    self.facts.optimizer_names.setdefault(thing.site, name)
                elif thing.kind == "loader":
                    self._note_loader(bound, thing.site)
            elif isinstance(thing, Instance) and thing.site in self.facts.loaders and thing not in frame.read_objects:
                self._note_loader(bound, thing.site)
        return value

    def _held(self, value: Value, source: ast.expr, frame: Frame) -> frozenset[Thing]:
        """What a statement binds; of a display, a comprehension or a call (`loaders = build()`) also its items."""
        if not isinstance(source, ast.Dict | ast.List | ast.DictComp | ast.ListComp | ast.Call):
            return value.things
        found = item_of(Value(value.things)).things
        if isinstance(source, ast.Call) and found:  # not of a container that the call was given
            found -= item_of(Value(frozenset(frame.read_objects))).things
        return value.things | found

    def _note_loader(self, bound: Binding, site: ast.AST) -> None:
        self.facts.loader_bindings.setdefault((bound.statement, bound.name), bound).sites.add(site)

    def built_for_loop(self, node: ast.For | ast.AsyncFor, iterable: Value, frame: Frame) -> frozenset[ast.AST]:
        """The loaders that a loop goes through and that it does not read from names: `for x in DataLoader(...)`."""
        inside = {part for part in ast.walk(node.iter) if part in self.facts.loaders}
        built = frozenset(inside | loaders_in(iterable)) - self.loaders_read
        for site in built:
            self._note_loader(Binding(frame.parsed, node, "", node.target, value=node.iter), site)
        return built

    def _note_models(self, bound: Binding, value: Value, frame: Frame, base: Value) -> None:
        inside = any(isinstance(thing, ModelObject) for thing in base.things)
        if inside or self._is_part_of_model(bound.target, frame) or self.inside_module(frame):
            return
        fresh = self.fresh_models(value, frame)
        if fresh:
            self.note_binding(bound, fresh)
        elif not self._note_taken(bound, value, frame):
            self._note_alias(bound, value, frame)
        for item, models in self.items_bound(bound, value, frame):
            self.note_binding(item, models)

    def fresh_models(self, value: Value, frame: Frame) -> frozenset[ModelObject]:
        """The models that a value may be and that the running statement has built itself."""
        return frozenset(
            thing
            for thing in value.things
            if isinstance(thing, ModelObject) and thing not in frame.read_objects and not self._is_foreign(thing)
        )

    def note_binding(self, bound: Binding, models: Iterable[ModelObject]) -> None:
        """A statement binds models to a name."""
        key = (bound.statement, bound.name)
        self.facts.bindings.setdefault(key, bound).sites.update(thing.site for thing in models)

    @abstractmethod
    def items_bound(
        self, bound: Binding, value: Value, frame: Frame
    ) -> Iterator[tuple[Binding, frozenset[ModelObject]]]:
        """The models that a statement binds as items of a container or as fields of an object."""

    def _is_part_of_model(self, target: ast.expr, frame: Frame) -> bool:
        """`detector.roi_heads.box_predictor = ...`: somewhere in front of the name stands a model."""
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
            if any(isinstance(thing, ModelObject) for thing in self.evaluate(target, frame).things):
                return True
        return False

    def _note_taken(self, bound: Binding, value: Value, frame: Frame) -> bool:
        """`decoder = parts.decoder`: a model that another file of the project builds gets a name here."""
        source = bound.value
        if not isinstance(source, ast.Attribute) or not isinstance(bound.target, ast.Name):
            return False
        if not any(isinstance(thing, FileModule) for thing in self.evaluate(source.value, frame).things):
            return False
        models = [thing for thing in models_in(value, 0) if not self._is_foreign(thing)]
        if models:
            self.note_binding(bound, models)
        return bool(models)

    def _note_alias(self, bound: Binding, value: Value, frame: Frame) -> None:
        """`self.model = model` counts where the model was built right in the call that passed it."""
        built = [thing for thing in models_in(value, 0) if not self._is_foreign(thing)]
        if built and isinstance(bound.target, ast.Attribute) and frame.info is not None:
            key = (bound.statement, bound.name)
            self.facts.aliases.setdefault(key, bound).sites.update(thing.site for thing in built)

    def _is_foreign(self, thing: ModelObject) -> bool:
        return self.facts.model(thing).placeholder

    def inside_module(self, frame: Frame) -> bool:
        """Whether the running code belongs to a module: what it binds are parts of that."""
        around: Frame | None = frame
        while around is not None:
            if around.class_info is not None and self.module_evidence(around.class_info):
                return True
            owner = around.info.owner if around.info is not None and around.info.kind == "method" else None
            if isinstance(around.self_thing, ModelObject) or (owner is not None and self.module_evidence(owner)):
                return True
            around = around.parent
        return False

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

    def _loaded_entry(self, target: ast.expr, value: Value, source: ast.Subscript, frame: Frame) -> Value:
        """`encoder = checkpoint["encoder"]` of what `torch.load` gave: a model if it is used as only modules are."""
        holder = dotted(source.value)
        loaded = (
            call
            for call, name in self.facts.unexplained.items()
            if name == holder and self.facts.resolved.get(self._first_call(call), "") == "torch.load"
        )
        if not holder or not any(call in frame.parsed.parents for call in loaded):
            return value
        if looks_like_model(target, self._scope(target, frame), frame.parsed, self.catalogue) < 2:
            return value
        if source not in self.facts.models:
            evidence = Evidence(known_by="name", confidence=0.75, note="it is used as only modules are")
            self.facts.models[source] = BuiltModel(source, frame.parsed, evidence, library="torch", layers_known=False)
        self.fresh[-1].add(source)
        return with_flows(of(ModelObject(source)), value.flows)

    def _scope(self, target: ast.expr, frame: Frame) -> ast.AST:
        """Where the uses of a target tell about it."""
        if isinstance(target, ast.Attribute) and frame.info is not None and frame.info.owner is not None:
            return frame.info.owner.node
        return frame.info.node if frame.info is not None else frame.parsed.tree

    def _kept_parameter(self, target: ast.Attribute, value: Value, source: ast.Name, frame: Frame) -> Value:
        """`self.model = model` of a parameter that nothing is passed to: the class may use it as only modules are."""
        owner = frame.info.owner if frame.info is not None else None
        if frame.info is None or owner is None or self.inside_module(frame):
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
        scope = self._scope(target, frame)
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
