"""Writes down what the interpretation meets: forwards, backwards, steps, loaders, optimizers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from neural_coder.analysis.catalogue import optimizer_name
from neural_coder.analysis.expressions import Expressions
from neural_coder.analysis.facts import MAX_STACKS, BackwardCall, Built, BuiltModel, ForwardCall, OtherCall
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.syntax import dotted
from neural_coder.analysis.values import (
    UNKNOWN,
    Constant,
    Flow,
    Function,
    Items,
    ModelObject,
    Object,
    Partial,
    Value,
    constant,
    join,
    models_in,
)
from neural_coder.records import Evidence

_OPTIMIZER_NAME = re.compile(r"(^|_)(opt|optim|optimizer|optimizers)(_|\d|[A-Z]|$)", re.IGNORECASE)

_SCALER_NAME = re.compile(r"scaler|backward|step", re.IGNORECASE)


class Noting(Expressions):
    """The part of the interpreter that takes notes."""

    def note_forward(self, node: ast.Call, thing: ModelObject, frame: Frame) -> ForwardCall:
        """A model is run."""
        call = self.facts.forwards.get(node)
        if call is None:
            call = self.facts.forwards[node] = ForwardCall(node, frame.parsed, self.facts.model(thing).evidence)
        self._describe(call, thing, frame)
        for site in call.loaders:
            self.facts.loaders[site].confirmed = True
        self._note_run_inside({thing.site, self.part_owners.get(thing.site, thing.site)})
        self.ran_forward = True
        return call

    def note_perhaps(self, node: ast.Call, thing: ModelObject, frame: Frame) -> None:
        """A model may be run: a forward once a backward goes through what the call gives."""
        if node in self.facts.forwards:
            self.note_forward(node, thing, frame)
            return
        call = self.facts.perhaps.setdefault(node, ForwardCall(node, frame.parsed, self.facts.model(thing).evidence))
        self._describe(call, thing, frame)

    def _describe(self, call: ForwardCall, thing: ModelObject, frame: Frame) -> None:
        call.models.add(thing.site)
        if len(call.stacks) < MAX_STACKS:
            call.stacks.add(tuple(self.stack))
        call.outer.add(self.model_calls[-1] if self.model_calls else None)
        call.autocast = call.autocast and self.autocast
        call.grad = call.grad or self.grad
        call.loaders.update(frame.loaders[-1] if frame.loaders else ())

    def _is_forward(self, flow: Flow) -> bool:
        """Whether the call that a backward's value came from runs a model; what perhaps does so then has."""
        call = self.facts.perhaps.get(flow.call)
        if call is None or flow.detached:
            return call is None
        self.facts.forwards[flow.call] = self.facts.perhaps.pop(flow.call)
        for site in call.loaders:
            self.facts.loaders[site].confirmed = True
        statements = {statement for stack in call.stacks for _, statement in stack}
        self.facts.forward_statements.update((statement, site) for statement in statements for site in call.models)
        return True

    def note_backward(self, node: ast.Call, flows: frozenset[Flow], frame: Frame, evidence: Evidence) -> None:
        """Gradients are computed from a value."""
        call = self.facts.backwards.get(node)
        if call is None:
            call = self.facts.backwards[node] = BackwardCall(node, frame.parsed, evidence)
        if len(call.stacks) < MAX_STACKS:
            call.stacks.add(tuple(self.stack))
        for flow in filter(self._is_forward, flows):
            call.forwards.add(flow.call)
            if not flow.detached:
                call.reached.add(flow.call)
            self.mark_training(flow)
        self.ran_backward = True

    def note_derivative(self, node: ast.Call, flows: frozenset[Flow], frame: Frame) -> None:
        """Gradients by inputs are computed from a value; whether that is training shows in the end."""
        evidence = Evidence(known_by="import", confidence=0.9)
        call = self.facts.derivatives.setdefault(node, BackwardCall(node, frame.parsed, evidence))
        call.forwards.update(flow.call for flow in flows)
        call.reached.update(flow.call for flow in flows if not flow.detached)
        if len(call.stacks) < MAX_STACKS:
            call.stacks.add(tuple(self.stack))

    def mark_training(self, flow: Flow) -> None:
        """A model's output reached a backward."""
        forward = self.facts.forwards.get(flow.call) if self._is_forward(flow) else None
        if forward is None:
            return
        if flow.detached:
            forward.feeds_training = True
            return
        forward.training = True
        self.facts.mark_trained(forward.models)

    def note_step(self, node: ast.Call, frame: Frame, evidence: Evidence) -> None:
        """An optimizer's step."""
        self.facts.others.setdefault(node, OtherCall(node, frame.parsed, "optimizer_step", evidence))

    def note_scaled_step(self, node: ast.Call, given: list[Value], frame: Frame) -> None:
        """`loss_scaler(loss, optimizer, ...)` goes backward and steps, as timm's scaler and its descendants do."""
        flows = given[0].flows if given else frozenset()
        others = [thing for item in given[1:] for thing in item.things]
        steps = any(isinstance(thing, Object) and thing.kind == "optimizer" for thing in others)
        if steps and _SCALER_NAME.search(dotted(node.func)) and any(not flow.detached for flow in flows):
            evidence = Evidence(known_by="name", confidence=0.8)
            self.note_backward(node, flows, frame, evidence)
            self.note_step(node, frame, evidence)

    def note_fit(self, node: ast.Call, frame: Frame, models: list[Value], evidence: Evidence) -> None:
        """A call that trains as a whole."""
        self.facts.others.setdefault(node, OtherCall(node, frame.parsed, "fit", evidence))
        trained = {thing.site for thing in models_in(join(models))}
        self.facts.mark_trained(trained)
        self._note_run_inside(trained)

    def note_evaluation(self, models: Iterable[ModelObject]) -> None:
        """A call that runs models over a whole dataset, inside a library."""
        run = {thing.site for thing in models}
        self.facts.mark_inferred(run)
        self._note_run_inside(run)

    def _note_run_inside(self, sites: Iterable[ast.AST]) -> None:
        for site in sites:
            self.facts.forward_statements.update((statement, site) for _, statement in self.stack)

    def note_numpy(self, flows: frozenset[Flow]) -> None:
        """Values are turned into NumPy arrays, which know no bfloat16."""
        for flow in flows:
            if flow.converted:
                continue
            if flow.call in self.facts.forwards:
                self.facts.forwards[flow.call].reaches_numpy = True
            else:
                self.facts.numpy_inside.add(flow.call)

    def note_cross_entropy(self, flows: frozenset[Flow]) -> None:
        """Values go to a binary cross-entropy, which outside of autocast wants them in the target's precision."""
        for flow in flows if not self.autocast else ():
            if not flow.converted and flow.call in self.facts.forwards:
                self.facts.forwards[flow.call].reaches_cross_entropy = True

    def note_change_in_place(self, flows: frozenset[Flow]) -> None:
        """Values are changed in place; where gradients are off, that may well be in the same block as the call."""
        for flow in flows if self.grad else ():
            if not flow.converted and flow.call in self.facts.forwards:
                self.facts.forwards[flow.call].changed_in_place = True

    def note_update(self, value: Value) -> None:
        """Parameters are changed by hand: by gradients, or towards those of a model that is trained."""
        for thing in value.things:
            if isinstance(thing, Object) and thing.kind == "parameter" and thing.site is not None:
                self.facts.mark_trained({thing.site})

    def store_item(self, target: ast.Subscript, base: Value, index: Value, value: Value, frame: Frame) -> None:
        """`container[index] = value`; where the container is a tensor, that changes it in place."""
        if not base.things:
            self.note_change_in_place(base.flows)
        super().store_item(target, base, index, value, frame)

    def note_loader(
        self, node: ast.AST, name: str, evidence: Evidence, frame: Frame, *, confirmed: bool = True
    ) -> Object:
        """A loader is built."""
        if node not in self.facts.loaders:
            self.facts.loaders[node] = Built(node, frame.parsed, name, evidence, confirmed=confirmed)
        return Object("loader", node)

    def note_next(self, loaders: set[ast.AST], frame: Frame) -> None:
        """A batch is read from loaders by hand; what a generator yields comes from such a batch."""
        if frame.loaders:
            frame.loaders[-1] |= loaders
        frame.loaders_yielded |= loaders

    def note_optimizer(self, node: ast.Call, name: str, frame: Frame) -> Object:
        """An optimizer is built."""
        if node not in self.facts.optimizers:
            evidence = Evidence(known_by="import", confidence=0.99)
            self.facts.optimizers[node] = Built(node, frame.parsed, optimizer_name(name), evidence)
        return Object("optimizer", node)

    def note_traits(
        self, model: BuiltModel, node: ast.Call, name: str, arguments: list[Value], keywords: dict[str, Value]
    ) -> None:
        """What a method call on a model tells about what the script does with it."""
        trait = self.catalogue.traits.get(name)
        if name == "train" and arguments and constant(arguments[0]) is False:
            trait = "eval"
        if trait:
            model.traits.add(trait)
        if name != "to":
            return
        text = " ".join(ast.unparse(item) for item in [*node.args, *(keyword.value for keyword in node.keywords)])
        if "channels_last" in text:
            model.traits.add("channels_last")
        if "bfloat16" in text:
            model.traits.add("bfloat16")
        elif "float16" in text or "torch.half" in text:
            model.traits.add("half")
        elif "float64" in text or "torch.double" in text:
            model.traits.add("double")
        if any(isinstance(known := constant(value), str) and known.startswith("cuda") for value in arguments):
            model.traits.add("cuda")

    def is_backward(self, name: str, receiver: Value, arguments: list[Value], frame: Frame) -> bool:
        """Whether a method of this name, of something that is not known, computes gradients."""
        if name == "manual_backward" or receiver.flows:
            return True
        if any(not isinstance(thing, Constant | Items) for thing in receiver.things):
            return False
        return self.mentions_torch(frame.parsed.path)

    def named_like_optimizer(self, node: ast.expr, *given: ast.expr) -> bool:
        """Whether a name is one that people give to optimizers, or to scalers that are given an optimizer."""
        name = dotted(node).rpartition(".")[2]
        if "scaler" in name.lower():
            return any(self.named_like_optimizer(item) for item in given)
        return bool(_OPTIMIZER_NAME.search(name))

    def has_outside_class(self, model: BuiltModel) -> bool:
        """Whether a model may have methods that the project's files do not show."""
        return not model.classes or any(
            not name.startswith("torch.nn.") for info in model.classes for name in self.outside_bases(info)
        )

    def hand_over(self, values: list[Value], frame: Frame, given: Value | None = None) -> None:
        """Functions that are passed to code that we do not see are taken to be called by it."""
        for value in values:
            for thing in value.things:
                if isinstance(thing, Function) and thing.info.node not in self.handed:
                    self.handed.add(thing.info.node)
                    arguments = self._handed_arguments(thing, given)
                    self.call_value(Value(frozenset({thing})), arguments, {}, None, frame)
                elif isinstance(thing, Partial) and thing not in self.handed_partials:
                    self.handed_partials.add(thing)
                    self.call_value(Value(frozenset({thing})), [], {}, None, frame)

    def _handed_arguments(self, thing: Function, given: Value | None) -> list[Value]:
        """`spawn(worker, args=(a, b))` passes them behind the process's number, `Thread` as they are."""
        for item in given.things if given is not None else ():
            if isinstance(item, Items):
                missing = len(thing.info.node.args.args) - len(item.values) - (thing.bound is not None)
                return [*([UNKNOWN] * max(0, min(missing, 1))), *item.values]
        return []
