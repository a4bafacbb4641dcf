"""What calls of PyTorch, of well-known libraries and of Python's own functions give."""

from __future__ import annotations

import ast
import re
from typing import Literal

from neural_coder.analysis import catalogue
from neural_coder.analysis.containers import leading_text
from neural_coder.analysis.facts import BuiltModel
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.noting import Noting
from neural_coder.analysis.values import (
    UNKNOWN,
    Class,
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
    make_fields,
    models_in,
    of,
)
from neural_coder.records import Evidence

_PASS_THROUGH = frozenset({"list", "tuple", "iter", "reversed", "sorted", "set"})
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
        name = catalogue.canonical(name)
        if node is not None:
            self.facts.resolved[node] = name
        if name in catalogue.EXPORTS:
            for thing in models_in(join([*arguments, *keywords.values()])):
                self.facts.model(thing).traits.add("export")
        if name.startswith("builtins."):
            return self._call_builtin(name[9:], arguments, keywords, node, frame, flows)
        if node is not None and name.partition(".")[0] in catalogue.LIBRARIES:
            known = self._call_library(name, arguments, keywords, node, frame, flows)
            if known is not None:
                return known
        if name.partition(".")[0] in _TAKE_ARRAYS or _GIVES_ARRAY.search(name):
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
            return item_of(first)
        if name == "map" and len(arguments) > 1:
            return of(Many(self.call_value(first, [item_of(value) for value in arguments[1:]], {}, node, frame)))
        if name == "getattr" and len(arguments) > 1:
            return self.read(self._getattr(first, arguments[1], node, frame), frame)
        if name == "setattr" and len(arguments) > 2 and node is not None and len(node.args) > 2:
            self.note_setattr(node, first, arguments[1], arguments[2], frame)
            return UNKNOWN
        if name == "globals":
            return self.candidates(FileModule(frame.parsed.path.resolve()))
        if name == "dict":
            entries: dict[str | int, Value] = {key: value for key, value in keywords.items() if key != "**"}
            return join((make_fields(entries, keywords.get("**", UNKNOWN)), *arguments))
        self.hand_over([*arguments, *keywords.values()], frame)
        return Value(frozenset(), flows)

    def _getattr(self, value: Value, name: Value, node: ast.Call | None, frame: Frame) -> Value:
        known = constant(name)
        if isinstance(known, str):
            return self.attribute(value, known, frame)
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
        if name == "dataclasses.field" and "default_factory" in keywords:
            return self.call_value(keywords["default_factory"], [], {}, node, frame)
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
                    copied.layers_known = old.layers_known
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
            return of(Object("loss", node if name == "torch.nn.BCELoss" else None))
        layer = catalogue.torch_layer(name)
        if name == "torch.nn.Parameter" and self.layer_sets and _FUNCTIONAL.search(frame.parsed.source.text):
            self.layer_sets[-1].add(catalogue.UNKNOWN_LAYER)
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
            model.layers_known = model.layers_known and (layer not in catalogue.CONTAINERS or bool(value.things))
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
