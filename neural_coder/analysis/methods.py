"""What method calls give: those of models (sites, where they run one forward), optimizers, containers, tensors."""

from __future__ import annotations

import ast
import re

from neural_coder.analysis.containers import keys_of
from neural_coder.analysis.facts import BuiltModel, ForwardCall
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.libraries import Libraries
from neural_coder.analysis.syntax import dotted
from neural_coder.analysis.values import (
    UNKNOWN,
    Class,
    Constant,
    Fields,
    Flow,
    Function,
    Instance,
    Items,
    Many,
    ModelObject,
    Object,
    Outside,
    Super,
    Value,
    all_flows,
    detached,
    item_of,
    join,
    loaders_in,
    models_in,
    of,
    rerouted,
    with_flows,
)
from neural_coder.records import Evidence

_SCHEDULE = re.compile(r"sched|lr|rate|warm", re.IGNORECASE)
"""In names of what changes the learning rate of an optimizer that it is given."""
_VIEWS = frozenset(
    {"view", "reshape", "flatten", "squeeze", "unsqueeze", "t", "narrow", "select", "transpose", "permute"}
)


class Methods(Libraries):
    """The part of the interpreter that knows methods."""

    def method(
        self,
        node: ast.Call,
        callee: ast.Attribute,
        receiver: Value,
        function: Value,
        arguments: list[Value],
        keywords: dict[str, Value],
        frame: Frame,
    ) -> Value | None:
        """What a method call gives, where its receiver or its name tell; None where calling the attribute does."""
        everything = [*arguments, *keywords.values()]
        flows = frozenset().union(receiver.flows, *(all_flows(value) for value in everything))
        own = any(isinstance(thing, Function | Class | Outside) for thing in function.things)
        models = [thing for thing in receiver.things if isinstance(thing, ModelObject)]
        if models and function.things and all(isinstance(thing, ModelObject) for thing in function.things):
            return None  # a model that is a part of another one: `pipe.unet(x)`
        if models:
            results = [
                self.model_method(thing, node, callee.attr, arguments, keywords, flows, frame) for thing in models
            ]
            # The model that comes back is still what the results of others went into.
            kept = receiver.flows if callee.attr in self.catalogue.same_methods else frozenset()
            return with_flows(join(results), kept)
        for thing in receiver.things:
            inherited = thing.self_thing if isinstance(thing, Super) else None
            if isinstance(inherited, ModelObject) and callee.attr in self.catalogue.same_methods and not own:
                self.note_traits(self.facts.model(inherited), node, callee.attr, arguments, keywords)
                return of(inherited)
            if isinstance(thing, Object):
                known = self._object_method(thing, node, callee.attr, arguments, keywords, flows, frame)
                if known is not None:
                    return known
            if isinstance(thing, Instance) and not own:
                known = self._framework_method(thing, node, callee.attr, everything, flows, frame)
                if known is not None:
                    return known
        if own:
            stepping = self._may_step(callee, frame)
            return self._own_step(node, function, arguments, keywords, frame) if stepping else None
        built = self._built_by_class(receiver, node, callee.attr, frame)
        if built is not None:
            return built
        return self._method_by_name(node, callee, receiver, arguments, flows, frame)

    def _may_step(self, callee: ast.Attribute, frame: Frame) -> bool:
        """Whether a method of an object of the project is called as an optimizer's step is: `step_and_decay`, too."""
        if isinstance(callee.value, ast.Name) and callee.value.id == frame.self_name:
            return False
        return callee.attr == "step" or ("step" in callee.attr and self.named_like_optimizer(callee.value))

    def _own_step(
        self, node: ast.Call, function: Value, arguments: list[Value], keywords: dict[str, Value], frame: Frame
    ) -> Value:
        """A step of an object of the project: like an optimizer's where it is one around an optimizer."""
        result = self.call_value(function, arguments, keywords, node, frame)
        inside = [thing.info.node for thing in function.things if isinstance(thing, Function)]
        if any(self._only_steps(method) for method in inside):
            self.note_step(node, frame, Evidence(known_by="project", confidence=0.9))
        return result

    def _only_steps(self, method: ast.AST) -> bool:
        """Whether a method takes an optimizer's step, and neither runs a model nor goes backward."""
        within = set(ast.walk(method))
        steps = (other.node for other in self.facts.others.values() if other.kind == "optimizer_step")
        return not within.isdisjoint(steps) and within.isdisjoint(self.facts.backwards.keys() | self.facts.forwards)

    def _built_by_class(self, receiver: Value, node: ast.Call, name: str, frame: Frame) -> Value | None:
        """`Net.from_pretrained(...)` where a base outside the project has that method."""
        classes = [thing for thing in receiver.things if isinstance(thing, Class)]
        found = [
            self.call_value(of(thing), [], {}, node, frame)
            for thing in classes
            if any(
                entry.gives in {"module", "pipeline"} and name in (entry.built_by or self.catalogue.building_methods)
                for entry in self.base_entries(thing.info)
            )
        ]
        return join(found) if found else None

    def _method_by_name(
        self,
        node: ast.Call,
        callee: ast.Attribute,
        receiver: Value,
        arguments: list[Value],
        flows: frozenset[Flow],
        frame: Frame,
    ) -> Value | None:
        name = callee.attr
        if name in {"backward", "manual_backward"} and self.is_backward(name, receiver, arguments, frame):
            confidence = 0.97 if flows else 0.8
            self.note_backward(node, flows, frame, Evidence(known_by="name", confidence=confidence))
            return UNKNOWN
        if name == "step" and (
            self.named_like_optimizer(callee.value, *node.args) or self._steps_given(callee, arguments)
        ):
            self.note_step(node, frame, Evidence(known_by="name", confidence=0.7))
            self.hand_over(arguments, frame)
            return UNKNOWN
        if name.endswith("_") and not receiver.things and arguments:
            self.add_flows(_viewed(callee.value), frozenset().union(*map(all_flows, arguments)), frame)
        simple = self._tensor_method(name, receiver, flows)
        if simple is not None:
            return simple
        if name in {"append", "add", "insert", "extend", "put", "push", "appendleft", "setdefault", "register"}:
            value = join(arguments)
            self.adopt(receiver, value)
            value = item_of(value) if name == "extend" else value
            self.note_put(callee.value, value, node, frame)
            self.put_into(callee.value, value, frame)
            return UNKNOWN
        if name == "update":
            self.add_flows(callee.value, all_flows(join(arguments)), frame)
            self.merge_into(callee.value, arguments, frame)
        if name in {"items", "values", "keys", "get", "pop", "popitem", "copy"} and receiver.things:
            return self._read_container(name, receiver, arguments)
        return None

    def _steps_given(self, callee: ast.Attribute, arguments: list[Value]) -> bool:
        """`precision.step(model, optimizer)` of something that is not known; schedules only change the rate."""
        given = [thing for value in arguments for thing in value.things]
        has_optimizer = any(isinstance(thing, Object) and thing.kind == "optimizer" for thing in given)
        return has_optimizer and not _SCHEDULE.search(dotted(callee.value))

    def _read_container(self, name: str, receiver: Value, arguments: list[Value]) -> Value:
        if name == "copy":
            return receiver
        if name in {"get", "pop"}:
            keys = keys_of(arguments[0]) if arguments else [None]
            return join([*(item_of(receiver, key) for key in keys), *arguments[1:]])
        item = item_of(receiver)
        pair = of(Items((UNKNOWN, item)))
        if name == "popitem":
            return pair
        known = next(iter(receiver.things)) if len(receiver.things) == 1 else None
        if isinstance(known, Fields) and not known.rest.things:
            return of(Items(tuple(_view(name, key, value) for key, value in known.entries)))
        return of(Many({"items": pair, "keys": UNKNOWN, "values": item}[name]))

    def _tensor_method(self, name: str, receiver: Value, flows: frozenset[Flow]) -> Value | None:
        if receiver.things and not any(
            isinstance(thing, Items | Many | Fields | Constant) for thing in receiver.things
        ):
            return None
        if name == "numpy":
            self.note_numpy(flows)
        if name.endswith("_") and not name.startswith("_") and name not in {"detach_", "requires_grad_"}:
            self.note_change_in_place(receiver.flows)
        if name in {"detach", "detach_"}:
            return Value(frozenset(), detached(flows))
        if name in {"item", "numpy", "tolist", "argmax", "argmin", "argsort", "long", "int"}:
            return Value(frozenset(), detached(flows, converted=True))
        if name in {"float", "double"}:
            return Value(frozenset(), frozenset(Flow(flow.call, flow.detached, True) for flow in flows))
        return None

    def model_method(
        self,
        thing: ModelObject,
        node: ast.Call,
        name: str,
        arguments: list[Value],
        keywords: dict[str, Value],
        flows: frozenset[Flow],
        frame: Frame,
    ) -> Value:
        """What a method of a model gives; methods that run it forward are sites."""
        model = self.facts.model(thing)
        if name in {"__call__", "forward"}:
            return self.run_model(thing, node, frame, flows)
        member = self.member_of(thing, name)
        is_abstract = member is not None and all(
            isinstance(part, Function) and part.info.is_abstract for part in member.things
        )
        if member is not None and member.things and not is_abstract:
            return self._run_member(thing, member, node, arguments, keywords, frame, flows)
        known = self._method_of_library(thing, model, node, name, frame, flows, is_abstract=is_abstract)
        if known is not None:
            return known
        self.note_traits(model, node, name, arguments, keywords)
        if name in self.catalogue.same_methods:
            return of(thing)
        if name in {"parameters", "named_parameters"}:
            parameter = of(Object("parameter", thing.site))
            return of(Many(parameter if name == "parameters" else of(Items((UNKNOWN, parameter)))), flows=flows)
        if name == "state_dict":
            return of(Object("state", thing.site), flows=flows)
        if name == "load_state_dict":
            given = {
                part.site for part in join(arguments[:1]).things if isinstance(part, Object) and part.kind == "state"
            }
            self.facts.follows.setdefault(thing.site, set()).update(site for site in given if site is not None)
            return UNKNOWN
        if name in {"children", "modules"}:
            return of(Many(of(thing)))
        if name in {"named_children", "named_modules"}:
            return of(Many(of(Items((UNKNOWN, of(thing))))))
        if name == "backward":
            self.note_backward(node, flows, frame, Evidence(known_by="name", confidence=0.8))
            return UNKNOWN
        if name in {"manual_backward"}:
            self.note_backward(node, flows, frame, Evidence(known_by="catalogue", confidence=0.95))
            return UNKNOWN
        if name == "step" and "accelerate" in model.traits:
            self.note_step(node, frame, Evidence(known_by="catalogue", confidence=0.9))
            return UNKNOWN
        if name in {"add_module", "register_module", "append", "extend", "insert"}:
            self.adopt(of(thing), join(arguments))
            return of(thing) if name == "append" else UNKNOWN
        return self._perhaps_run(thing, node, flows, frame)

    def _perhaps_run(self, thing: ModelObject, node: ast.Call, flows: frozenset[Flow], frame: Frame) -> Value:
        """A method of a model whose class is not known: it runs the model if its result leads to a backward.

        Not where it gets what the model has given: that may be all that it works on.
        """
        model = self.facts.model(thing)
        known = bool(model.classes) or model.entry is not None or not (node.args or node.keywords)
        if known or self._came_from(thing, flows) or self.is_inner(thing, node, frame):
            return Value(frozenset(), flows)
        self.note_perhaps(node, thing, frame)
        return Value(frozenset(), flows | {Flow(node, detached=not self.grad)})

    def _came_from(self, thing: ModelObject, flows: frozenset[Flow]) -> bool:
        calls = (self.facts.forwards.get(flow.call) for flow in flows if not flow.detached)
        return any(call is not None and thing.site in call.models for call in calls)

    def _method_of_library(
        self,
        thing: ModelObject,
        model: BuiltModel,
        node: ast.Call,
        name: str,
        frame: Frame,
        flows: frozenset[Flow],
        *,
        is_abstract: bool,
    ) -> Value | None:
        """What the catalogue says about a method that the project's files do not show."""
        if name not in self.catalogue.methods:
            return None
        entries = self.entries_of(thing)
        if any(name in entry.fits for entry in entries):
            self.note_fit(node, frame, [of(thing)], Evidence(known_by="catalogue", confidence=0.9))
            return UNKNOWN
        if any(name in entry.evaluates for entry in entries):
            self.note_evaluation([thing])
            return UNKNOWN
        if any(name in entry.loads for entry in entries):
            known = Evidence(known_by="catalogue", confidence=0.9)
            return of(self.note_loader(node, f"{model.qualified_name}.{name}", known, frame), flows=detached(flows))
        told = [entry.runs for entry in entries if entry.runs is not None]
        methods = frozenset().union(*told) if told else self.catalogue.run_methods
        if name in methods and (is_abstract or self.has_outside_class(model)):
            return self.run_model(thing, node, frame, flows)
        return None

    def _run_member(
        self,
        thing: ModelObject,
        member: Value,
        node: ast.Call,
        arguments: list[Value],
        keywords: dict[str, Value],
        frame: Frame,
        flows: frozenset[Flow],
    ) -> Value:
        """Run a method that the project wrote for its model and see what it does inside."""
        if not any(isinstance(part, Function) for part in member.things):
            return self.call_value(member, arguments, keywords, node, frame)
        if thing == frame.self_thing or self.is_inner(thing, node, frame):
            return self.call_value(member, arguments, keywords, node, frame)
        forward, backward = self.ran_forward, self.ran_backward
        self.ran_forward = self.ran_backward = False
        self.model_calls.append(node)
        try:
            result = self.call_value(member, arguments, keywords, node, frame)
        finally:
            self.model_calls.pop()
        ran, trained = self.ran_forward, self.ran_backward
        self.ran_forward, self.ran_backward = forward or ran, backward or trained
        if trained:
            self.facts.fits.add(node)
            self.note_fit(node, frame, [of(thing)], Evidence(known_by="project", confidence=0.9))
        elif ran:
            return self._given_by_member(result, flows, self.note_forward(node, thing, frame))
        return result

    def _given_by_member(self, result: Value, given: frozenset[Flow], call: ForwardCall) -> Value:
        """A method's result comes from the call of the method; with gradients, or without, as each part has inside."""
        inside = all_flows(result) - given
        call.reaches_numpy |= any(flow.call in self.facts.numpy_inside for flow in inside)
        if not inside:
            return with_flows(result, given | {Flow(call.node, detached=not self.grad)})
        return rerouted(result, given, call.node)

    def _object_method(
        self,
        thing: Object,
        node: ast.Call,
        name: str,
        arguments: list[Value],
        keywords: dict[str, Value],
        flows: frozenset[Flow],
        frame: Frame,
    ) -> Value | None:
        everything = [*arguments, *keywords.values()]
        step = Evidence(known_by="import", confidence=0.99)
        match thing.kind, name:
            case "parameter", ("copy_" | "lerp_" | "add_" | "sub_" | "mul_"):
                self.note_update(of(thing))
                return of(thing)
            case "optimizer", "step":
                self.hand_over(everything, frame)
                for flow in all_flows(join(everything)):
                    # Differentiable optimizers take the loss itself.
                    self.mark_training(flow)
                self.note_step(node, frame, step)
                return UNKNOWN
            case ("scaler", "step"):
                self.note_step(node, frame, step)
                return UNKNOWN
            case "scaler", "scale":
                return Value(frozenset(), flows)
            case "accelerator", "backward":
                self.note_backward(node, flows, frame, step)
                return UNKNOWN
            case "accelerator", ("prepare" | "prepare_model" | "setup" | "setup_module" | "setup_dataloaders"):
                for model in models_in(join(everything)):
                    self.facts.model(model).traits.add("accelerate")
                return arguments[0] if len(arguments) == 1 else of(Items(tuple(arguments)))
            case "accelerator", "unwrap_model":
                return arguments[0] if arguments else UNKNOWN
            case "accelerator", "autocast":
                return of(Object("autocast"))
            case "trainer", _ if thing.entry is not None and name in thing.entry.fits:
                self.note_fit(
                    node, frame, [of(*thing.models), *everything], Evidence(known_by="catalogue", confidence=0.95)
                )
                return UNKNOWN
            case (("trainer" | "dataset"), _) if thing.entry is not None and name in thing.entry.loads:
                known = Evidence(known_by="catalogue", confidence=0.9)
                return of(self.note_loader(node, name, known, frame), flows=detached(flows))
            case "trainer", _ if thing.entry is not None and name in thing.entry.evaluates:
                self.note_evaluation(thing.models | models_in(join(everything)))
                return UNKNOWN
            case ("loss", _) if name in {"to", "cuda", "cpu", "eval", "train", "half", "float"}:
                return of(thing)
            case ("loader", "__iter__"):
                return of(thing)
            case ("loader", "__next__"):
                self.note_next(loaders_in(of(thing)), frame)
                return UNKNOWN
            case (("no_grad" | "inference_mode" | "autocast"), "__enter__"):
                return UNKNOWN
        return None

    def _framework_method(
        self, thing: Instance, node: ast.Call, name: str, everything: list[Value], flows: frozenset[Flow], frame: Frame
    ) -> Value | None:
        """Methods that a project class has from a trainer of a library."""
        if name == "manual_backward":
            self.note_backward(node, flows, frame, Evidence(known_by="name", confidence=0.9))
            return UNKNOWN
        trainers = [entry for entry in self.base_entries(thing.info) if entry.gives == "trainer"]
        held = [thing.info.attributes.get("model", UNKNOWN), *everything]
        if any(name in entry.fits for entry in trainers):
            self.note_fit(node, frame, held, Evidence(known_by="catalogue", confidence=0.9))
            return UNKNOWN
        if any(name in entry.evaluates for entry in trainers):
            self.note_evaluation(models_in(join(held)))
            return UNKNOWN
        if any(name in entry.loads for entry in trainers):
            known = Evidence(known_by="catalogue", confidence=0.9)
            return of(self.note_loader(node, name, known, frame), flows=detached(flows))
        return None


def _view(name: str, key: str | int, value: Value) -> Value:
    """One item of a dict's `items()`, `keys()` or `values()`."""
    return {"items": of(Items((of(Constant(key)), value))), "keys": of(Constant(key)), "values": value}[name]


def _viewed(node: ast.expr) -> ast.expr:
    """The tensor that a view shows: writing into `m.view(-1)` or `m[0]` writes into `m`."""
    while True:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _VIEWS:
            node = node.func.value
        elif isinstance(node, ast.Subscript) or (isinstance(node, ast.Attribute) and node.attr in {"T", "data"}):
            node = node.value
        else:
            return node
