"""Calls: project functions are run with what they are given; models, classes and libraries answer for themselves."""

from __future__ import annotations

import ast
from dataclasses import replace

from neural_coder.analysis.facts import BuiltModel
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.machine import Outcome
from neural_coder.analysis.methods import Methods
from neural_coder.analysis.usage import is_training_method, looks_like_model, parameter_looks_like_model
from neural_coder.analysis.values import (
    UNKNOWN,
    Class,
    ClassInfo,
    Constant,
    Fields,
    Flow,
    Function,
    FunctionInfo,
    Import,
    Instance,
    Items,
    Many,
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
    make_fields,
    models_in,
    of,
    replaced,
    with_flows,
)
from neural_coder.records import Evidence

Arguments = list[Value]
Keywords = dict[str, Value]


class Calling(Methods):
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
        if not function.things and isinstance(node.func, ast.Attribute):
            function = self._own_model(node.func, function, frame)
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

    # --- models -----------------------------------------------------------------------------------------------------

    def run_model(self, thing: ModelObject, node: ast.Call | None, frame: Frame, flows: frozenset[Flow]) -> Value:
        """A model is called: a site, unless it is a part of a module that works inside of it."""
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
        return Value(frozenset(), flows | {Flow(call.node, detached=not self.grad)})

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

    # --- classes ----------------------------------------------------------------------------------------------------

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

    # --- functions --------------------------------------------------------------------------------------------------

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
