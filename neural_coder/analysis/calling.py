"""Calls: functions are run, classes built; models and libraries answer for themselves."""

from __future__ import annotations

import ast

from neural_coder.analysis.construction import Construction
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.functions import Arguments, Keywords
from neural_coder.analysis.syntax import base_name
from neural_coder.analysis.usage import is_training_method, looks_like_model, named_like_model, written_parameters
from neural_coder.analysis.values import (
    UNKNOWN,
    Class,
    ClassInfo,
    Fields,
    Flow,
    Function,
    Import,
    Instance,
    Items,
    ModelObject,
    Object,
    Outside,
    Partial,
    Super,
    Thing,
    Value,
    all_flows,
    detached,
    item_of,
    join,
    models_in,
    of,
    with_flows,
)
from neural_coder.records import Evidence


class Calling(Construction):
    """The part of the interpreter that runs calls."""

    def call(self, node: ast.Call, frame: Frame) -> Value:
        """What a call gives."""
        if isinstance(node.func, ast.Name) and node.func.id == "super" and frame.lookup("super") is None:
            return self._super(frame)
        if isinstance(node.func, ast.Attribute):
            receiver = self.evaluate(node.func.value, frame)
            function = self.read_attribute(node.func, receiver, frame)
        else:
            receiver, function = UNKNOWN, self.evaluate(node.func, frame)
        arguments = self._arguments(node, frame)
        keywords = self._keywords(node, frame)
        for keyword in node.keywords:
            if keyword.arg == "out":  # one in `**options` has no name to give the flows to
                self.add_flows(keyword.value, frozenset().union(*map(all_flows, arguments)), frame)
        if not function.things and isinstance(node.func, ast.Attribute):
            function = self._own_model(node.func, function, frame)
            self.ran_forward |= _is_given_part(node.func, frame)
        if isinstance(node.func, ast.Attribute):
            special = self.method(node, node.func, receiver, function, arguments, keywords, frame)
            if special is not None:
                return special
        return self.call_value(function, arguments, keywords, node, frame)

    def _own_model(self, callee: ast.Attribute, value: Value, frame: Frame) -> Value:
        """`self.model` of a class that never builds one, but uses it as only modules are used."""
        owner = frame.info.owner if frame.info is not None else None
        if owner is None or not isinstance(callee.value, ast.Name) or callee.value.id != frame.self_name:
            return value
        if looks_like_model(callee, owner.node, frame.parsed, self.catalogue) < 2 or not self.mentions_torch(
            frame.parsed.path
        ):
            return value
        key = self.own_models.setdefault((owner.node, callee.attr), ast.copy_location(ast.Pass(), owner.node))
        return with_flows(of(self.placeholder(key, owner.parsed, "an attribute")), value.flows)

    def _arguments(self, node: ast.Call, frame: Frame) -> Arguments:
        found: Arguments = []
        for item in node.args:
            value = self.evaluate(item, frame)
            if isinstance(item, ast.Starred):
                exact = [thing for thing in value.things if isinstance(thing, Items)]
                found.extend(exact[0].values if len(exact) == 1 == len(value.things) else [item_of(value)])
            else:
                found.append(value)
        return found

    def _keywords(self, node: ast.Call, frame: Frame) -> Keywords:
        found = {}
        for keyword in node.keywords:
            value = self.evaluate(keyword.value, frame)
            if keyword.arg:
                found[keyword.arg] = value
                continue
            rest = []
            for thing in value.things:
                if isinstance(thing, Fields):
                    found.update({str(key): item for key, item in thing.entries})
                rest.append(thing.rest if isinstance(thing, Fields) else item_of(of(thing)))
            found["**"] = with_flows(join(rest), value.flows)
        return found

    def _super(self, frame: Frame) -> Value:
        current: Frame | None = frame
        while current is not None:
            if current.info is not None and current.info.owner is not None and current.self_thing is not None:
                return of(Super(current.info.owner, current.self_thing))
            current = current.parent
        return UNKNOWN

    def call_value(
        self, function: Value, arguments: Arguments, keywords: Keywords, node: ast.Call | None, frame: Frame
    ) -> Value:
        """What calling a value gives."""
        flows = frozenset().union(
            all_flows(function), *(all_flows(value) for value in [*arguments, *keywords.values()])
        )
        if not function.things:
            if node is not None:
                self.facts.blind.setdefault(node, frame.parsed)
                self.note_scaled_step(node, [*arguments, *keywords.values()], frame)
            self.hand_over([*arguments, *keywords.values()], frame)
            return Value(frozenset(), flows)
        results = []
        for thing in function.things:
            results.append(self._call_thing(thing, arguments, keywords, node, frame, flows))
        return join(results)

    def _call_thing(
        self,
        thing: Thing,
        arguments: Arguments,
        keywords: Keywords,
        node: ast.Call | None,
        frame: Frame,
        flows: frozenset[Flow],
    ) -> Value:
        if isinstance(thing, Function | Class) and node is not None:
            known = self._by_own_entry(thing, arguments, keywords, node, frame, flows)
            if known is not None:
                return known
        match thing:
            case Function():
                return self.run_function(thing, arguments, keywords, node, frame)
            case Class():
                return self.construct(thing.info, arguments, keywords, node, frame)
            case Outside():
                return self.call_outside(thing.name, arguments, keywords, node, frame, flows)
            case ModelObject():
                return self.run_model(thing, node, frame, flows)
            case Import() if any(models_in(value) for value in [*arguments, *keywords.values()]):
                known = self.look_up(thing)
                if known != of(thing):
                    return self.call_value(known, arguments, keywords, node, frame)
            case Partial():
                merged = {**dict(thing.keywords), **keywords}
                return self.call_value(thing.function, [*thing.arguments, *arguments], merged, node, frame)
            case Object(kind="loss", site=ast.AST()):
                self.note_cross_entropy(flows)
            case Instance():
                method = self.member_of(thing, "__call__")
                if method is not None:
                    return self.call_value(method, arguments, keywords, node, frame)
        return Value(frozenset(), flows)

    def _by_own_entry(
        self,
        thing: Function | Class,
        arguments: Arguments,
        keywords: Keywords,
        node: ast.Call,
        frame: Frame,
        flows: frozenset[Flow],
    ) -> Value | None:
        """What the user's own entries say about a function or class of the project: they go before its code."""
        if not self.catalogue.has_own_entries:
            return None
        name = self.qualified(thing.info)
        entry = self.catalogue.project_entry(name)
        return self.call_known(name, entry, arguments, keywords, node, frame, flows) if entry is not None else None

    # --- models -------------------------------------------------------------------------------------------------------

    def run_model(self, thing: ModelObject, node: ast.Call | None, frame: Frame, flows: frozenset[Flow]) -> Value:
        """A model is called: a site, unless it is a part of a module that works inside of it."""
        if node is not None and self._names_held_loss(node.func):
            return Value(frozenset(), flows)
        self.ran_forward = True
        if node is None:
            return Value(frozenset(), flows)
        if self._steps_in_forward(thing):
            self.facts.fits.add(node)
            self.note_fit(node, frame, [of(thing)], Evidence(known_by="project", confidence=0.9))
            return Value(frozenset(), detached(flows))
        if self.is_inner(thing, node, frame):
            return Value(frozenset(), flows | {Flow(node, detached=not self.grad)})
        call = self.note_forward(node, thing, frame)
        call.whole = True
        result = Value(frozenset(), flows | {Flow(call.node, detached=not self.grad)})
        self._leave_in_arguments(thing, result, node, frame)
        return result

    def _names_held_loss(self, callee: ast.expr) -> bool:
        """Whether a callee is a loss or metric in a `ModuleDict`: `self.metrics["f1"]`."""
        return isinstance(callee, ast.Subscript) and self.catalogue.names_loss(base_name(callee))

    def _leave_in_arguments(self, thing: ModelObject, result: Value, node: ast.Call, frame: Frame) -> None:
        """A `forward` may put its results into a dict that it is given, instead of returning them."""
        member = self.member_of(thing, "forward") or UNKNOWN
        for part in member.things:
            if isinstance(part, Function):
                written = sorted(written_parameters(part.info.node))
                self.give_back(part, tuple((name, result) for name in written), node, frame)

    def _steps_in_forward(self, thing: ModelObject) -> bool:
        """Whether calling a module of the project takes a whole step of training."""
        member = self.member_of(thing, "forward") if self.facts.model(thing).classes else None
        return member is not None and any(
            isinstance(part, Function) and is_training_method(part.info.node, self.catalogue) for part in member.things
        )

    def is_inner(self, thing: ModelObject, node: ast.Call, frame: Frame) -> bool:
        """Whether a call belongs to the inner working of a module."""
        holder: Frame | None = frame
        while holder is not None and not (holder.info is not None and holder.info.owner is not None):
            holder = holder.parent
        if holder is None or not isinstance(holder.self_thing, ModelObject) or holder.info is None:
            return False
        name = getattr(holder.info.node, "name", "")
        if self.catalogue.is_step_method(name) or self._in_step_method():
            return False
        if thing == holder.self_thing:
            return name in {"forward", "__call__", "__init__"}
        return not self._trains_itself(holder.info.owner)

    def _trains_itself(self, owner: ClassInfo | None) -> bool:
        """Whether a method of the module that is running takes a step of training: what it calls are sites then."""
        if owner is None:
            return False
        lineage = self.lineage(owner)
        running = {function for function, _ in self.stack if function in self.functions}
        return any(
            is_training_method(node, self.catalogue) for node in running if self.functions[node].owner in lineage
        )

    def _in_step_method(self) -> bool:
        """Whether a method runs that a trainer calls around the forward."""
        return any(
            self.catalogue.is_step_method(function.name)
            for function, _ in self.stack
            if isinstance(function, ast.FunctionDef) and function in self.functions and self.functions[function].owner
        )


def _is_given_part(callee: ast.Attribute, frame: Frame) -> bool:
    """Whether a module calls a model that its constructor was given, and that nobody knows more about."""
    is_own = isinstance(callee.value, ast.Name) and callee.value.id == frame.self_name
    return is_own and isinstance(frame.self_thing, ModelObject) and named_like_model(callee.attr)
