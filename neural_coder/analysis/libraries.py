"""What calls of PyTorch, of well-known libraries and of Python's own functions give."""

from __future__ import annotations

import ast
from typing import Literal

from neural_coder.analysis import catalogue
from neural_coder.analysis.facts import BuiltModel
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.noting import Noting
from neural_coder.analysis.values import (
    UNKNOWN,
    Class,
    Constant,
    FileModule,
    Flow,
    Function,
    Instance,
    Items,
    Many,
    ModelObject,
    Object,
    Outside,
    Partial,
    Value,
    all_flows,
    constant,
    detached,
    item_of,
    join,
    models_in,
    of,
    with_flows,
)
from neural_coder.records import Evidence

_PASS_THROUGH = frozenset({"list", "tuple", "iter", "reversed", "sorted", "set"})
_NO_FLOW = frozenset(
    {"len", "print", "isinstance", "hasattr", "id", "type", "str", "repr", "range", "bool", "callable"}
)


class Libraries(Noting):
    """The part of the interpreter that knows what is not the project's own."""

    def call_outside(
        self,
        name: str,
        arguments: list[Value],
        keywords: dict[str, Value],
        node: ast.Call | None,
        frame: Frame,
        flows: frozenset[Flow],
    ) -> Value:
        """What calling something of an installed package gives."""
        name = catalogue.canonical(name)
        if node is not None:
            self.facts.resolved[node] = name
        if name.startswith("builtins."):
            return self._call_builtin(name[9:], arguments, keywords, node, frame, flows)
        if node is not None and name.partition(".")[0] in catalogue.LIBRARIES:
            known = self._call_library(name, arguments, keywords, node, frame, flows)
            if known is not None:
                return known
        if name.startswith("numpy."):
            self.note_numpy(flows)
            return Value(frozenset(), detached(flows, converted=True))
        known = self._call_standard(name, arguments, keywords, node, frame)
        if known is not None:
            return known
        self.hand_over([*arguments, *keywords.values()], frame, keywords.get("args"))
        return Value(frozenset(), flows)

    # --- Python's own functions -------------------------------------------------------------------------------------

    def _call_builtin(
        self,
        name: str,
        arguments: list[Value],
        keywords: dict[str, Value],
        node: ast.Call | None,
        frame: Frame,
        flows: frozenset[Flow],
    ) -> Value:
        first = arguments[0] if arguments else UNKNOWN
        if name in _PASS_THROUGH:
            return first
        if name in _NO_FLOW:
            return UNKNOWN
        if name in {"float", "int", "round"}:
            return Value(frozenset(), detached(flows, converted=True))
        if name == "enumerate":
            return of(Many(of(Items((UNKNOWN, item_of(first))))))
        if name == "zip":
            return of(Many(of(Items(tuple(item_of(value) for value in arguments)))))
        if name == "next":
            return item_of(first)
        if name == "map" and len(arguments) > 1:
            return of(Many(self.call_value(first, [item_of(value) for value in arguments[1:]], {}, node, frame)))
        if name == "getattr" and len(arguments) > 1:
            return self._getattr(first, arguments[1], frame)
        if name == "setattr" and len(arguments) > 2 and isinstance(constant(arguments[1]), str):
            self.set_attribute(first, str(constant(arguments[1])), arguments[2])
            return UNKNOWN
        if name == "globals":
            return self.candidates(FileModule(frame.parsed.path.resolve()))
        if name == "dict":
            return of(Many(join([*keywords.values(), *(item_of(value) for value in arguments)])))
        self.hand_over([*arguments, *keywords.values()], frame)
        return Value(frozenset(), flows)

    def _getattr(self, value: Value, name: Value, frame: Frame) -> Value:
        known = constant(name)
        if isinstance(known, str):
            return self.attribute(value, known, frame)
        found = []
        for thing in value.things:
            if isinstance(thing, Outside):
                found.append(of(Outside(f"{thing.name}.?")))
            elif isinstance(thing, FileModule):
                found.append(item_of(self.candidates(thing)))
        return join(found)

    def _call_standard(
        self, name: str, arguments: list[Value], keywords: dict[str, Value], node: ast.Call | None, frame: Frame
    ) -> Value | None:
        first = arguments[0] if arguments else UNKNOWN
        if name == "functools.partial" and arguments:
            return of(Partial(first, tuple(arguments[1:]), tuple(sorted(keywords.items()))))
        if name == "copy.deepcopy" or name == "copy.copy":
            return self._copied(first, node, frame) if node is not None else first
        if name.startswith(("tqdm.", "itertools.", "rich.progress.")) and arguments:
            return first
        if name == "contextlib.nullcontext":
            return first
        if name.startswith("types.MethodType") and len(arguments) > 1:
            return first
        return None

    def _copied(self, value: Value, node: ast.Call, frame: Frame) -> Value:
        things = set(value.things)
        for thing in value.things:
            if isinstance(thing, ModelObject):
                old = self.facts.model(thing)
                things.discard(thing)
                things.add(ModelObject(node))
                if node not in self.facts.models:
                    copied = BuiltModel(node, frame.parsed, old.evidence, old.qualified_name, old.library, old.kind)
                    copied.known_class, copied.layers_known = old.known_class, old.layers_known
                    self.facts.models[node] = copied
                new = self.facts.models[node]
                self.fresh[-1].add(node)
                new.classes |= old.classes
                new.layers |= old.layers
        return Value(frozenset(things), value.flows)

    # --- PyTorch and what builds on it ------------------------------------------------------------------------------

    def _call_library(
        self,
        name: str,
        arguments: list[Value],
        keywords: dict[str, Value],
        node: ast.Call,
        frame: Frame,
        flows: frozenset[Flow],
    ) -> Value | None:
        everything = [*arguments, *keywords.values()]
        effect = self.context_kind(name)
        if name in catalogue.SET_GRAD:
            off = bool(arguments) and constant(arguments[0]) is False
            return of(Object("no_grad")) if off else of(Object("other"))
        if effect:
            return self._context(effect, arguments)
        if name in catalogue.WRAPPERS:
            return self._wrap(name, arguments, keywords, flows)
        if catalogue.GRAD_SCALERS.fullmatch(name):
            return of(Object("scaler"))
        if (name.startswith("torch.nn.") and name[9:10].isupper()) or name.startswith("torch.nn.modules."):
            return self._torch_nn(name, everything, node, frame)
        if catalogue.SCHEDULERS.fullmatch(name):
            return of(Object("scheduler"))
        if catalogue.OPTIMIZERS.fullmatch(name):
            return of(self.note_optimizer(node, name, frame))
        if catalogue.LOADERS.fullmatch(name):
            known = Evidence(known_by="import", confidence=0.99)
            return of(self.note_loader(node, name, known, frame), flows=detached(flows))
        if catalogue.DATASETS.fullmatch(name):
            return of(Object("dataset"), flows=detached(flows))
        if catalogue.TRANSFORMS.fullmatch(name):
            return of(Object("transform"))
        if name == "torch.autograd.backward":
            self.note_backward(node, flows, frame, Evidence(known_by="import", confidence=0.99))
            return UNKNOWN
        if catalogue.TRAINERS.fullmatch(name):
            return of(Object("trainer", node, models_in(join(everything))))
        if name in {
            "accelerate.Accelerator",
            "accelerate.accelerator.Accelerator",
            "lightning.fabric.Fabric",
            "lightning.Fabric",
        }:
            return of(Object("accelerator"))
        if name in catalogue.TUPLE_BUILDERS:
            return self._tuple_of_model(name, node, frame)
        return self._build(name, node, frame)

    def _context(self, effect: str, arguments: list[Value]) -> Value:
        decorated = [thing for value in arguments for thing in value.things if isinstance(thing, Function)]
        if decorated:
            return of(*decorated)
        kinds: dict[str, Literal["no_grad", "inference_mode", "autocast", "enable_grad"]] = {
            "no_grad": "no_grad",
            "inference_mode": "inference_mode",
            "autocast": "autocast",
            "enable_grad": "enable_grad",
        }
        if effect == "inference_mode" and arguments and constant(arguments[0]) is False:
            return of(Object("other"))
        return of(Object(kinds[effect]))

    def _wrap(self, name: str, arguments: list[Value], keywords: dict[str, Value], flows: frozenset[Flow]) -> Value:
        models = [value for value in [*arguments, *keywords.values()] if models_in(value)]
        if not models:
            # torch.jit.script and torch.compile also take functions, and work as decorators.
            functions = [
                value for value in arguments if any(isinstance(thing, Function | Class) for thing in value.things)
            ]
            return functions[0] if functions else Value(frozenset(), flows)
        trait = catalogue.WRAPPERS[name]
        for thing in models_in(models[0]):
            if trait:
                self.facts.model(thing).traits.add(trait)
        if name in {
            "apex.amp.initialize",
            "deepspeed.initialize",
            "intel_extension_for_pytorch.optimize",
            "ipex.optimize",
        }:
            optimizers = [value for value in [*arguments[1:], *keywords.values()] if value is not models[0]]
            if optimizers or name == "deepspeed.initialize":
                given = [models[0], *optimizers] if len(optimizers) == 1 else [models[0], UNKNOWN, UNKNOWN, UNKNOWN]
                return of(Items(tuple(given)))
        return models[0]

    def _torch_nn(self, name: str, everything: list[Value], node: ast.Call, frame: Frame) -> Value | None:
        if catalogue.is_loss(name):
            return of(Object("loss"))
        layer = catalogue.torch_layer(name)
        if not layer:
            return of(Object("other")) if not name.startswith("torch.nn.utils") else None
        model = self.facts.models.get(node)
        if model is None:
            evidence = Evidence(known_by="import", confidence=0.95)
            model = BuiltModel(node, frame.parsed, evidence, name, "torch", is_layer=True)
            self.facts.models[node] = model
        if layer not in catalogue.CONTAINERS:
            model.layers |= {layer} | catalogue.IMPLIED_LAYERS.get(layer, set())
        for value in everything:
            self.adopt(of(ModelObject(node)), value)
        for outer in self.layer_sets[-1:]:
            outer |= model.layers
        self.fresh[-1].add(node)
        return of(ModelObject(node))

    def _build(self, name: str, node: ast.Call, frame: Frame) -> Value | None:
        """What the catalogue says about a call: the class (or function) itself, or a method that builds one."""
        last = name.rpartition(".")[2]
        base = name.rpartition(".")[0] if last in catalogue.BUILDING_METHODS else name
        entry = catalogue.builder(name) if base == name else catalogue.builder(base) or catalogue.builder(name)
        if entry is None or (
            base == name and last[:1].isupper() is False and name.startswith("transformers.") and last != "pipeline"
        ):
            return None
        if name.startswith("transformers.") and base == name and last.startswith("Auto"):
            return None
        return of(self._library_model(name, entry, node, frame))

    def _library_model(self, name: str, entry: catalogue.Builder, node: ast.Call, frame: Frame) -> ModelObject:
        if node not in self.facts.models:
            self.facts.models[node] = BuiltModel(
                node,
                frame.parsed,
                Evidence(known_by="catalogue", confidence=0.95),
                name,
                name.partition(".")[0],
                "pipeline" if entry.gives == "pipeline" else "module",
                layers=set(entry.layers or ()),
                layers_known=entry.layers is not None,
            )
        for outer in self.layer_sets[-1:]:
            outer |= entry.layers or set()
        self.fresh[-1].add(node)
        return ModelObject(node)

    def _tuple_of_model(self, name: str, node: ast.Call, frame: Frame) -> Value:
        entry = catalogue.Builder(name, "module", None)
        thing = of(self._library_model(name, entry, node, frame))
        length = catalogue.TUPLE_BUILDERS[name]
        if length == 0:
            return of(Items((of(Many(thing)), UNKNOWN, UNKNOWN)))
        return of(Items((thing, *[UNKNOWN] * (length - 1))))

    # --- methods ----------------------------------------------------------------------------------------------------

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
        if models:
            results = [
                self.model_method(thing, node, callee.attr, arguments, keywords, flows, frame) for thing in models
            ]
            return join(results)
        for thing in receiver.things:
            if isinstance(thing, Object):
                known = self._object_method(thing, node, callee.attr, arguments, keywords, flows, frame)
                if known is not None:
                    return known
            if isinstance(thing, Instance) and not own:
                known = self._framework_method(thing, node, callee.attr, everything, flows, frame)
                if known is not None:
                    return known
        if own:
            return None
        return self._method_by_name(node, callee, receiver, arguments, flows, frame)

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
        if name == "step" and self.named_like_optimizer(callee.value):
            self.note_step(node, frame, Evidence(known_by="name", confidence=0.7))
            self.hand_over(arguments, frame)
            return UNKNOWN
        simple = self._tensor_method(name, receiver, flows)
        if simple is not None:
            return simple
        if name in {"append", "add", "insert", "extend", "put", "push", "appendleft", "setdefault", "register"}:
            value = join(arguments)
            self.adopt(receiver, value)
            self.put_into(callee.value, item_of(value) if name == "extend" else value, frame)
            return UNKNOWN
        if name == "update" and isinstance(callee.value, ast.Name):
            self.add_flows(callee.value, all_flows(join(arguments)), frame)
        if name in {"items", "values", "get", "pop", "popitem", "copy"} and receiver.things:
            item = item_of(receiver)
            if name == "items":
                return of(Many(of(Items((UNKNOWN, item)))))
            return of(Many(item)) if name in {"values", "copy"} else join([item, *arguments[1:]])
        return None

    def _tensor_method(self, name: str, receiver: Value, flows: frozenset[Flow]) -> Value | None:
        if receiver.things and not any(isinstance(thing, Items | Many | Constant) for thing in receiver.things):
            return None
        if name == "numpy":
            self.note_numpy(flows)
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
        if member is not None and member.things:
            return self._run_member(thing, member, node, arguments, keywords, frame, flows)
        self.note_traits(model, node, name, arguments, keywords)
        if name in catalogue.SELF_METHODS:
            return of(thing)
        if name == "backward":
            self.note_backward(node, flows, frame, Evidence(known_by="name", confidence=0.8))
            return UNKNOWN
        if name in {"manual_backward"}:
            self.note_backward(node, flows, frame, Evidence(known_by="catalogue", confidence=0.95))
            return UNKNOWN
        if name in {"add_module", "register_module", "append", "extend", "insert"}:
            self.adopt(of(thing), join(arguments))
            return of(thing) if name == "append" else UNKNOWN
        if (
            model.kind == "pipeline"
            and name in {"train", "fit"}
            and model.library in {"ultralytics", "sentence_transformers"}
        ):
            self.note_fit(node, frame, [of(thing)], Evidence(known_by="catalogue", confidence=0.9))
            return UNKNOWN
        methods = catalogue.PIPELINE_METHODS if model.kind == "pipeline" else catalogue.INFERENCE_METHODS
        if name in methods and self.has_outside_class(model):
            return self.run_model(thing, node, frame, flows)
        return Value(frozenset(), flows)

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
        if thing == frame.self_thing:
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
            call = self.note_forward(node, thing, frame)
            return with_flows(result, flows | {Flow(call.node, detached=not self.grad)})
        return result

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
            case "optimizer", "step":
                self.hand_over(everything, frame)
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
            case "trainer", _ if name in catalogue.FIT_METHODS:
                self.note_fit(
                    node, frame, [of(*thing.models), *everything], Evidence(known_by="catalogue", confidence=0.95)
                )
                return UNKNOWN
            case "trainer", ("evaluate" | "predict" | "test" | "validate"):
                self.facts.mark_inferred({model.site for model in thing.models | models_in(join(everything))})
                return UNKNOWN
            case ("loss", _) if name in {"to", "cuda", "cpu", "eval", "train", "half", "float"}:
                return of(thing)
            case ("loader", "__iter__"):
                return of(thing)
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
        if name in catalogue.FIT_METHODS and self.has_base(thing.info, catalogue.TRAINERS):
            held = thing.info.attributes.get("model", UNKNOWN)
            self.note_fit(node, frame, [held, *everything], Evidence(known_by="catalogue", confidence=0.9))
            return UNKNOWN
        return None
