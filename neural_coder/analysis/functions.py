"""Project functions: what running one with its arguments gives and does."""

from __future__ import annotations

import ast
from dataclasses import replace

from neural_coder.analysis.frames import Frame
from neural_coder.analysis.machine import Outcome
from neural_coder.analysis.methods import Methods
from neural_coder.analysis.usage import parameter_looks_like_model
from neural_coder.analysis.values import (
    UNKNOWN,
    Constant,
    Function,
    FunctionInfo,
    Instance,
    Items,
    Many,
    ModelObject,
    Object,
    Thing,
    Value,
    all_flows,
    join,
    make_fields,
    models_in,
    of,
    replaced,
    with_flows,
)

Arguments = list[Value]
Keywords = dict[str, Value]


class Functions(Methods):
    """The part of the interpreter that runs project functions."""

    def run_function(
        self, function: Function, arguments: Arguments, keywords: Keywords, node: ast.Call | None, frame: Frame
    ) -> Value:
        """Run a project function with what it is given."""
        info = function.info
        flows = frozenset().union(*(all_flows(value) for value in [*arguments, *keywords.values()]))
        if info.is_abstract:
            return Value(frozenset(), flows)
        running = sum(1 for step, _ in self.stack if step is info.node)
        # What was not followed from here is run by itself in the end, so one level must always be possible.
        spent = self.exhausted and self.call_depth > 0
        if spent and node is not None:
            self.facts.unfollowed.setdefault(frame.parsed.key, node)
        if spent or len(self.stack) > self.max_depth * 4 or self.call_depth > self.max_depth or running > 1:
            self.hand_over([*arguments, *keywords.values()], frame)
            return Value(frozenset(), flows)
        self.called.add(info.node)
        if isinstance(function.bound, Instance | ModelObject) and frame.self_name:
            self._forget_own(frame)
        loaders = frame.loaders[-1] if frame.loaders else frozenset()
        key = self._key(function, arguments, keywords, frame, loaders)
        known = self.outcomes.get(key)
        if known is None or known.heap_version != self.heap_version:
            known = self._outcome(function, arguments, keywords, frame, loaders)
            self.outcomes[key] = known
        self.ran_forward |= known.ran_forward
        self.ran_backward |= known.ran_backward
        for outer in self.layer_sets[-1:]:
            outer |= known.layers
        self.fresh[-1].update(known.fresh)
        if known.changed and node is not None:
            self.give_back(function, known.changed, node, frame)
        return self._seen_by_caller(known, node, frame) if node is not None else known.value

    def _seen_by_caller(self, known: Outcome, node: ast.Call, frame: Frame) -> Value:
        """Models that a function built are others for each of its callers: one may train, one may not."""
        built = [thing for thing in models_in(known.value) if thing.site in known.fresh]
        views: dict[Thing, Thing] = {}
        for thing in built:
            key = (node, thing.site)
            if key not in self.views:
                self.views[key] = ast.copy_location(ast.Pass(), node)
            site = self.views[key]
            old = self.facts.model(thing)
            if site not in self.facts.models:
                self.facts.models[site] = replace(old, site=site, parsed=frame.parsed, origin=old, consumed=False)
                self.facts.models[site].traits = set(old.traits)
            self.fresh[-1].add(site)
            views[thing] = ModelObject(site)
        return replaced(known.value, views) if views else known.value

    def _key(
        self, function: Function, arguments: Arguments, keywords: Keywords, frame: Frame, loaders: frozenset[ast.AST]
    ) -> tuple[object, ...]:
        caller = self.stack[-1] if self.stack else None
        context = (self.grad, self.autocast, loaders, tuple(self.model_calls))
        return function, tuple(arguments), tuple(sorted(keywords.items(), key=lambda pair: pair[0])), caller, context

    def _forget_own(self, frame: Frame) -> None:
        """A method may change what this frame has put on `self`."""
        prefix = f"{frame.self_name}."
        for name in [name for name in frame.names if name.startswith(prefix)]:
            del frame.names[name]

    def _outcome(
        self,
        function: Function,
        arguments: Arguments,
        keywords: Keywords,
        caller: Frame,
        loaders: frozenset[ast.AST],
    ) -> Outcome:
        info = function.info
        frame = Frame(parsed=info.parsed, parent=info.closure, info=info)
        frame.loaders.append(loaders)
        self._bind_parameters(frame, function, arguments, keywords)
        kept = self.ran_forward, self.ran_backward, self.grad, self.autocast
        self.ran_forward = self.ran_backward = False
        if info.grad == "off":
            self.grad = False
        self.autocast = self.autocast or info.autocast
        self.call_depth += 1
        layers: set[str] = set()
        fresh: set[ast.AST] = set()
        self.layer_sets.append(layers)
        self.fresh.append(fresh)
        try:
            value = self._run_body(info, frame)
        finally:
            self.layer_sets.pop()
            self.fresh.pop()
            self.call_depth -= 1
            self.grad, self.autocast = kept[2:]
        forward, backward = self.ran_forward, self.ran_backward
        self.ran_forward, self.ran_backward = kept[:2]
        changed = tuple((name, frame.names[name]) for name in sorted(frame.changed & frame.names.keys()))
        return Outcome(value, forward, backward, frozenset(layers), frozenset(fresh), self.heap_version, changed)

    def _run_body(self, info: FunctionInfo, frame: Frame) -> Value:
        if isinstance(info.node, ast.Lambda):
            return self.evaluate(info.node.body, frame)
        self.run_block(info.node.body, frame)
        result = self.cut(join(frame.results))
        if frame.results and not self.inside_module(frame):
            result = self.annotated(result, info.node.returns, info.node, frame)
        self._note_framework_training(info, frame, result)
        for thing in models_in(result):
            self.facts.returned.add((info.node, thing.site))
        if frame.yields:
            item = join(frame.yields)
            if info.is_context:
                return item
            # What passes a loader's batches on is read in the place of the loader.
            return self.cut(of(Many(item), *(Object("loader", site) for site in frame.loaders_yielded)))
        return result

    def _note_framework_training(self, info: FunctionInfo, frame: Frame, result: Value) -> None:
        name = getattr(info.node, "name", "")
        if name not in self.catalogue.training_methods or info.owner is None:
            return
        if not any(name in entry.trains_in for entry in self.base_entries(info.owner)):
            return
        for flow in all_flows(result):
            self.mark_training(flow)

    def _bind_parameters(self, frame: Frame, function: Function, arguments: Arguments, keywords: Keywords) -> None:
        info, node = function.info, function.info.node
        positional = [*node.args.posonlyargs, *node.args.args]
        given = list(arguments)
        if function.bound is not None and info.kind != "static":
            given.insert(0, of(function.bound))
        elif info.kind == "method" and given and positional and function.bound is None:
            # Base.method(self, ...): the object comes as the first argument.
            own = next(iter(given[0].things), None) or (self.self_of(info.owner) if info.owner is not None else None)
            function = Function(info, own)
            given[0] = of(own) if own is not None else given[0]
        if info.owner is not None and info.kind in {"method", "property"} and positional:
            frame.self_thing, frame.self_name = function.bound, positional[0].arg
        for index, parameter in enumerate(positional):
            value = given[index] if index < len(given) else keywords.get(parameter.arg, UNKNOWN)
            self._bind_parameter(frame, info, parameter, value)
        for parameter in node.args.kwonlyargs:
            self._bind_parameter(frame, info, parameter, keywords.get(parameter.arg, UNKNOWN))
        if node.args.vararg is not None:
            frame.names[node.args.vararg.arg] = of(Items(tuple(given[len(positional) :])))
        if node.args.kwarg is not None:
            names = {parameter.arg for parameter in [*positional, *node.args.kwonlyargs]}
            extra: dict[str | int, Value] = {
                name: value for name, value in keywords.items() if name not in {*names, "**"}
            }
            frame.names[node.args.kwarg.arg] = make_fields(extra, keywords.get("**", UNKNOWN))

    def _bind_parameter(self, frame: Frame, info: FunctionInfo, parameter: ast.arg, value: Value) -> None:
        if not value.things:
            value = with_flows(info.defaults.get(parameter.arg, UNKNOWN), value.flows)
        unknown = all(isinstance(thing, Constant) and thing.value is None for thing in value.things)
        if unknown:
            known = self.from_annotation(parameter.annotation, frame, parameter.arg, parameter)
            if models_in(known) and self.catalogue.names_loss(parameter.arg):
                known = of(Object("loss"))  # `criterion: nn.Module`
            value = with_flows(known, value.flows) if known.things else value
            if not known.things and self._parameter_is_model(frame, info, parameter):
                value = with_flows(of(self.placeholder(parameter, frame.parsed, "a parameter")), value.flows)
        frame.names[parameter.arg] = value
        frame.parameters.add(parameter.arg)

    def _parameter_is_model(self, frame: Frame, info: FunctionInfo, parameter: ast.arg) -> bool:
        """Whether a parameter that nothing is passed to is used as a model."""
        if parameter.arg == frame.self_name or not self.mentions_torch(frame.parsed.path):
            return False
        if isinstance(frame.self_thing, ModelObject) and getattr(info.node, "name", "") in {"__init__", "forward"}:
            return False
        return parameter_looks_like_model(info.node, parameter.arg, frame.parsed, self.catalogue) > 0
