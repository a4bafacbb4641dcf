"""What calls of PyTorch, of well-known libraries and of Python's own functions give."""

from __future__ import annotations

import ast
import re

from neural_coder.analysis.catalogue import refuses
from neural_coder.analysis.catalogue_data import Entry
from neural_coder.analysis.containers import leading_text
from neural_coder.analysis.facts import UNKNOWN_LAYER, BuiltModel
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
    constant,
    detached,
    item_of,
    join,
    loaders_in,
    make_fields,
    models_in,
    of,
)
from neural_coder.records import Evidence

_PASS_THROUGH = frozenset({"list", "tuple", "iter", "reversed", "sorted", "set"})
_EXPORTS = frozenset(
    {"torch.onnx.export", "torch.onnx.dynamo_export", "torch.onnx.utils.export", "torch.export.export"}
)
_FUNCTIONAL = re.compile(r"\.(conv(_transpose)?[123]d|linear)\(")
"""`F.conv2d(x, self.weight)`: a module without layers of `torch.nn` may still be a convolution."""
_TAKE_ARRAYS = frozenset({"numpy", "cv2", "PIL", "matplotlib", "scipy", "skimage", "sklearn", "pandas", "imageio"})
_GIVES_ARRAY = re.compile(r"(2|_to_|^to_)(np|numpy|array|img|im|image|pil)$", re.IGNORECASE)
"""Names of functions that make arrays and pictures of tensors: `tensor2img`."""
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
        name = self.catalogue.canonical(name)
        if node is not None:
            self.facts.resolved[node] = name
        if name in _EXPORTS:
            for thing in models_in(join([*arguments, *keywords.values()])):
                self.facts.model(thing).traits.add("export")
        if name.startswith("builtins."):
            return self._call_builtin(name[9:], arguments, keywords, node, frame, flows)
        entry = self.catalogue.call(name)
        if entry is not None and node is not None:
            known = self.call_known(name, entry, arguments, keywords, node, frame, flows)
            if known is not None:
                return known
        if name.partition(".")[0] in self.catalogue.arrays or _GIVES_ARRAY.search(name):
            self.note_numpy(flows)
        if name.startswith("numpy."):
            return Value(frozenset(), detached(flows, converted=True))
        if name == "torch.nn.functional.binary_cross_entropy":
            self.note_cross_entropy(flows)
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
            return of(Many(of(Items((UNKNOWN, self.iterate(first))))))
        if name == "zip":
            return of(Many(of(Items(tuple(self.iterate(value) for value in arguments)))))
        if name == "next":
            self.note_next(loaders_in(first), frame)
            return item_of(first)
        if name == "map" and len(arguments) > 1:
            return of(Many(self.call_value(first, [item_of(value) for value in arguments[1:]], {}, node, frame)))
        if name == "getattr" and len(arguments) > 1:
            return self.read(self._getattr(first, arguments[1], node, frame), frame)
        if name == "setattr" and len(arguments) > 2 and node is not None and len(node.args) > 2:
            self.note_setattr(node, first, arguments[1], arguments[2], frame)
            return UNKNOWN
        if name == "__import__":
            return self.imported_by_name(first, frame)
        if name == "globals":
            return self.candidates(FileModule(frame.parsed.key))
        if name == "dict":
            entries: dict[str | int, Value] = {key: value for key, value in keywords.items() if key != "**"}
            return join((make_fields(entries, keywords.get("**", UNKNOWN)), *arguments))
        self.hand_over([*arguments, *keywords.values()], frame)
        return Value(frozenset(), flows)

    def _getattr(self, value: Value, name: Value, node: ast.Call | None, frame: Frame) -> Value:
        known = constant(name)
        if isinstance(known, str):
            return self.read(self.attribute(value, known, frame), frame)
        found = []
        for thing in value.things:
            if isinstance(thing, Outside):
                found.append(of(Outside(f"{thing.name}.?")))
            elif isinstance(thing, FileModule):
                found.append(item_of(self.candidates(thing)))
            elif isinstance(thing, Instance) and node is not None and len(node.args) > 1:
                found.append(self.models_named(thing, leading_text(node.args[1])))
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
        if name == "importlib.import_module" and arguments:
            return self.imported_by_name(first, frame)
        if name == "dataclasses.field" and "default_factory" in keywords:
            return self.call_value(keywords["default_factory"], [], {}, node, frame)
        if name == "contextlib.nullcontext":
            return first
        if name.startswith("types.MethodType") and len(arguments) > 1:
            return first
        return None

    def imported_by_name(self, name: Value, frame: Frame) -> Value:
        """`import_module("nets.small")`: an import, as far as the name is known."""
        texts = [thing.value for thing in name.things if isinstance(thing, Constant) and isinstance(thing.value, str)]
        return join([self.module(text, 0, frame) for text in texts if text[:1].isidentifier()])

    def _copied(self, value: Value, node: ast.Call, frame: Frame) -> Value:
        things = set(value.things)
        for thing in value.things:
            if isinstance(thing, ModelObject):
                old = self.facts.model(thing)
                things.discard(thing)
                things.add(ModelObject(node))
                if node not in self.facts.models:
                    copied = BuiltModel(node, frame.parsed, old.evidence, old.qualified_name, old.library, old.kind)
                    copied.layers_known = old.layers_known
                    copied.copied_from, copied.entry = old.site, old.entry
                    self.facts.models[node] = copied
                new = self.facts.models[node]
                self.fresh[-1].add(node)
                new.classes |= old.classes
                new.layers |= old.layers
        return Value(frozenset(things), value.flows)

    # --- PyTorch and what builds on it ------------------------------------------------------------------------------

    def call_known(
        self,
        name: str,
        entry: Entry,
        arguments: list[Value],
        keywords: dict[str, Value],
        node: ast.Call,
        frame: Frame,
        flows: frozenset[Flow],
    ) -> Value | None:
        """What calling something gives that the catalogue has an entry for; None where that says nothing."""
        everything = [*arguments, *keywords.values()]
        if refuses(entry, (constant(value) for value in everything)):
            return Value(frozenset(), flows)
        match entry.gives:
            case "module" | "pipeline":
                thing = self.library_model(name, entry, node, frame)
                if entry.gives == "pipeline":
                    self.hold(thing, everything)
                return self._items(entry, of(thing))
            case "layer":
                return self._torch_nn(name, everything, node, frame)
            case "same":
                return self._wrap(name, entry, arguments, keywords, node, frame, flows)
            case "output":
                return self._run_given(everything, node, frame, flows)
            case "copy":
                return self._copied(arguments[0] if arguments else UNKNOWN, node, frame)
            case "optimizer":
                return of(self.note_optimizer(node, name, frame))
            case "loader":
                known = Evidence(known_by="import", confidence=0.99)
                return of(self.note_loader(node, name, known, frame), flows=detached(flows))
            case "trainer":
                return of(Object("trainer", node, models_in(join(everything)), entry))
            case "backward":
                self.note_backward(node, flows, frame, Evidence(known_by="import", confidence=0.99))
                return UNKNOWN
            case "gradients":
                return self._gradients(node, keywords, frame, flows)
            case "set_grad":
                off = bool(arguments) and constant(arguments[0]) is False
                return of(Object("no_grad" if off else "other"))
            case "no_grad" | "inference_mode" | "autocast" | "enable_grad":
                return self._context(entry, arguments)
            case "part":
                return of(Object("other"), flows=flows)
            case "dataset":
                return of(Object("dataset", entry=entry), flows=detached(flows))
            case "scaler" | "scheduler" | "transform" | "loss" | "accelerator":
                return of(Object(entry.gives))
        return None

    def _gradients(self, node: ast.Call, keywords: dict[str, Value], frame: Frame, flows: frozenset[Flow]) -> Value:
        """Gradients as values: the end of a step, or (with `create_graph`) something that a loss is made of."""
        if constant(keywords.get("create_graph", of(Constant(False)))) is False:
            if _is_by_inputs(node, flows):
                self.note_derivative(node, flows, frame)
                return of(Many(Value(frozenset(), detached(flows))))
            self.note_backward(node, flows, frame, Evidence(known_by="import", confidence=0.9))
            return of(Many(Value(frozenset(), detached(flows))))
        for flow in flows:
            self.mark_training(flow)
            for site in self.facts.forwards[flow.call].models if flow.call in self.facts.forwards else ():
                self.facts.models[site].traits.add("double_backward")
        return of(Many(Value(frozenset(), flows)))

    def _context(self, entry: Entry, arguments: list[Value]) -> Value:
        decorated = [thing for value in arguments for thing in value.things if isinstance(thing, Function)]
        if decorated:
            return of(*decorated)
        if entry.gives == "inference_mode" and arguments and constant(arguments[0]) is False:
            return of(Object("other"))
        assert entry.gives in {"no_grad", "inference_mode", "autocast", "enable_grad"}
        return of(Object(entry.gives))

    def _wrap(
        self,
        name: str,
        entry: Entry,
        arguments: list[Value],
        keywords: dict[str, Value],
        node: ast.Call,
        frame: Frame,
        flows: frozenset[Flow],
    ) -> Value:
        models = [value for value in [*arguments, *keywords.values()] if models_in(value)]
        if not models and entry.otherwise == "module":
            return of(self.library_model(name, entry, node, frame))
        if not models:
            # torch.jit.script and torch.compile also take functions, and work as decorators.
            functions = [
                value for value in arguments if any(isinstance(thing, Function | Class) for thing in value.things)
            ]
            return functions[0] if functions else Value(frozenset(), flows)
        if entry.trait:
            for thing in models_in(models[0]):
                self.facts.model(thing).traits.add(entry.trait)
        others = [value for value in [*arguments[1:], *keywords.values()] if value is not models[0]]
        if entry.with_optimizer and others:
            return of(Items((models[0], *(others if len(others) == 1 else [UNKNOWN] * 3))))
        return self._items(entry, models[0])

    def _items(self, entry: Entry, model: Value) -> Value:
        """A model, or the tuple that holds it."""
        if not entry.items:
            return model
        given = {"model": model, "models": of(Many(model)), "optimizer": of(Object("optimizer")), "other": UNKNOWN}
        return of(Items(tuple(given[item] for item in entry.items)))

    def _run_given(self, everything: list[Value], node: ast.Call, frame: Frame, flows: frozenset[Flow]) -> Value:
        """A function of a library that runs the model that it is given."""
        results = [self.run_model(thing, node, frame, flows) for value in everything for thing in models_in(value)]
        self.hand_over(everything, frame)
        return join([Value(frozenset(), flows), *results])

    def _torch_nn(self, name: str, everything: list[Value], node: ast.Call, frame: Frame) -> Value | None:
        if self.catalogue.is_loss(name):
            return of(Object("loss", node if name == "torch.nn.BCELoss" else None))
        layer = self.catalogue.torch_layer(name)
        if name == "torch.nn.Parameter" and self.layer_sets and _FUNCTIONAL.search(frame.parsed.source.text):
            self.layer_sets[-1].add(UNKNOWN_LAYER)
        if not layer:
            return of(Object("other")) if not name.startswith("torch.nn.utils") else None
        model = self.facts.models.get(node)
        if model is None:
            evidence = Evidence(known_by="import", confidence=0.95)
            model = BuiltModel(node, frame.parsed, evidence, name, "torch", is_layer=True)
            self.facts.models[node] = model
        if layer not in self.catalogue.containers:
            model.layers |= {layer} | self.catalogue.implied_layers.get(layer, frozenset())
        for value in everything:
            self.adopt(of(ModelObject(node)), value)
            model.layers_known = model.layers_known and (layer not in self.catalogue.containers or bool(value.things))
        for outer in self.layer_sets[-1:]:
            outer |= model.layers
        self.fresh[-1].add(node)
        return of(ModelObject(node))

    def hold(self, pipeline: ModelObject, given: list[Value]) -> None:
        """A pipeline runs the models that it is given."""
        for part in models_in(join(given)):
            if part != pipeline:
                self.facts.model(part).holders.add(pipeline.site)

    def library_model(self, name: str, entry: Entry, node: ast.Call, frame: Frame) -> ModelObject:
        """A model that a library builds."""
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
                entry=entry,
            )
        for outer in self.layer_sets[-1:]:
            outer |= entry.layers or set()
        self.fresh[-1].add(node)
        return ModelObject(node)


def _is_by_inputs(node: ast.Call, flows: frozenset[Flow]) -> bool:
    """Whether gradients are by what a model was given: `grad(net(x).sum(), x)`."""
    wanted = next(
        (item.value for item in node.keywords if item.arg == "inputs"), node.args[1] if node.args[1:] else None
    )
    inputs = wanted.elts if isinstance(wanted, ast.Tuple | ast.List) else [wanted]
    given = {
        item.id
        for flow in flows
        for item in (*flow.call.args, *(keyword.value for keyword in flow.call.keywords))
        if isinstance(item, ast.Name)
    }
    return all(isinstance(item, ast.Name) and item.id in given for item in inputs)
