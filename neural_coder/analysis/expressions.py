"""Evaluates expressions abstractly, all but calls."""

from __future__ import annotations

import ast
import builtins
import functools
from collections.abc import Iterable

from neural_coder.analysis.containers import Containers, keys_of
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.syntax import FunctionNode, children, dotted
from neural_coder.analysis.usage import named_like_model
from neural_coder.analysis.values import (
    CONTAINERS,
    UNKNOWN,
    Class,
    Constant,
    FileModule,
    Function,
    FunctionInfo,
    Import,
    Items,
    Many,
    ModelObject,
    Object,
    Outside,
    Value,
    all_flows,
    detached,
    item_of,
    join,
    loaders_in,
    models_in,
    of,
    with_flows,
)

_SHAPES = frozenset({"shape", "ndim", "dtype", "device", "requires_grad", "is_cuda", "grad_fn", "size"})
_MAX_ITEMS = 40
_SITELESS = frozenset({Constant, Outside, Import, FileModule, Class, Function})
"""Kinds of things that neither are nor hold anything that is built."""


@functools.lru_cache(maxsize=2048, typed=True)
def _literal(value: str | int | float | bool | None) -> Value:
    return of(Constant(value))


class Expressions(Containers):
    """The part of the interpreter that evaluates expressions."""

    def evaluate(self, node: ast.expr, frame: Frame) -> Value:
        """What an expression may give."""
        kind = type(node)
        if kind not in self.evaluators:
            self.evaluators[kind] = getattr(self, f"_eval_{kind.__name__}", self._flows_of_children)
        return self.evaluators[kind](node, frame)

    def _flows_of_children(self, node: ast.AST, frame: Frame) -> Value:
        """Nothing but what flows into an operation: arithmetic, comparisons, formatted texts, ..."""
        values = [self.evaluate(child, frame) for child in children(node) if isinstance(child, ast.expr)]
        flows = frozenset().union(*(all_flows(value) for value in values)) if values else frozenset()
        return Value(frozenset(), flows) if flows else UNKNOWN

    def _eval_Constant(self, node: ast.Constant, frame: Frame) -> Value:
        if node.value is None or isinstance(node.value, str | int | float | bool):
            return _literal(node.value)
        return UNKNOWN

    def _eval_Name(self, node: ast.Name, frame: Frame) -> Value:
        value = frame.lookup(node.id)
        value = self._free_name(node.id, frame) if value is None else self.resolve(value)
        return self.read(value, frame)

    def read(self, value: Value, frame: Frame) -> Value:
        """Take note that a statement got these objects from a name, and did not build them."""
        if not value.things:
            return value
        frame.read_objects.update(value.things)
        for thing in value.things:
            kind = thing.__class__
            if kind in _SITELESS:
                continue
            if kind in CONTAINERS:
                frame.read_objects.update(models_in(of(thing)))
            elif isinstance(thing, Object) and thing.kind == "loader" and thing.site is not None:
                self.loaders_read.add(thing.site)
            elif getattr(thing, "site", None) in self.facts.loaders:
                self.loaders_read.add(thing.site)  # type: ignore[union-attr, arg-type]
        return value

    def _free_name(self, name: str, frame: Frame) -> Value:
        found = self.from_star_files(name, frame.module)
        if found is not None:
            return found
        stars = frame.module.star_imports
        candidates = [f"{package}.{name}" for package in stars]
        for candidate in candidates:
            if self.catalogue.entry(candidate) is not None:
                return of(Outside(candidate))
            own = self.own_value(candidate)
            if own is not None:
                return own
        if hasattr(builtins, name):
            return of(Outside(f"builtins.{name}"))
        return of(Outside(candidates[0])) if len(candidates) == 1 else UNKNOWN

    def _eval_Attribute(self, node: ast.Attribute, frame: Frame) -> Value:
        return self.read_attribute(node, self.evaluate(node.value, frame), frame)

    def read_attribute(self, node: ast.Attribute, value: Value, frame: Frame) -> Value:
        """What an attribute of a value may give; the value is not evaluated anew, or long chains would take forever."""
        if isinstance(node.value, ast.Name) and node.value.id == frame.self_name:
            own = frame.names.get(f"{frame.self_name}.{node.attr}")
            if own is not None:
                return self.read(own, frame)
        if self.kept and not value.things and (kept := self._kept(node, frame)) is not None:
            return self.read(kept, frame)
        result = self.attribute(value, node.attr, frame)
        for thing in result.things:
            if isinstance(thing, Outside):
                self.facts.resolved[node] = thing.name
        if node.attr in _SHAPES:
            return Value(result.things) if result.things else UNKNOWN
        return self._new_part(node, value, result) or self.read(result, frame)

    def _new_part(self, node: ast.Attribute, value: Value, result: Value) -> Value | None:
        """A part of a model that the statement itself builds (`vgg16().features`) stands for the whole."""
        owners = {
            ModelObject(self.part_owners[site])
            for thing in result.things
            if (site := getattr(thing, "site", None)) in self.part_owners
        }
        return value if owners and owners <= value.things and not dotted(node) else None

    def _kept(self, node: ast.Attribute, frame: Frame) -> Value | None:
        """What was put on an object that nothing is known about, by the name that it went by."""
        name = dotted(node)
        return frame.lookup(name) if name in self.kept else None

    def _keep(self, target: ast.Attribute, value: Value, frame: Frame) -> None:
        """Remember it for the whole file: what is passed on usually goes by the same name there."""
        name, names = dotted(target), frame.module.names
        if not name or not (models_in(value) or loaders_in(value)):
            return
        self.kept.add(name)
        merged = join((names.get(name, UNKNOWN), value))
        if merged != names.get(name):
            names[name] = merged
            self.heap_version += 1

    def _eval_Call(self, node: ast.Call, frame: Frame) -> Value:
        return self.call(node, frame)

    def _eval_NamedExpr(self, node: ast.NamedExpr, frame: Frame) -> Value:
        value = self.evaluate(node.value, frame)
        if frame.statement is not None:
            self.assign(node.target, value, frame, frame.statement, node.value)
        return value

    def _eval_IfExp(self, node: ast.IfExp, frame: Frame) -> Value:
        self.evaluate(node.test, frame)
        return join((self.evaluate(node.body, frame), self.evaluate(node.orelse, frame)))

    def _eval_BoolOp(self, node: ast.BoolOp, frame: Frame) -> Value:
        return join([self.evaluate(value, frame) for value in node.values])

    def _eval_Await(self, node: ast.Await, frame: Frame) -> Value:
        return self.evaluate(node.value, frame)

    def _eval_Starred(self, node: ast.Starred, frame: Frame) -> Value:
        return self.evaluate(node.value, frame)

    def _eval_Lambda(self, node: ast.Lambda, frame: Frame) -> Value:
        return self.define(node, frame)

    def _eval_Tuple(self, node: ast.Tuple | ast.List, frame: Frame) -> Value:
        values = [self.evaluate(item, frame) for item in node.elts]
        if len(values) > _MAX_ITEMS or any(isinstance(item, ast.Starred) for item in node.elts):
            parts = [
                item_of(value) if isinstance(item, ast.Starred) else value
                for item, value in zip(node.elts, values, strict=True)
            ]
            return of(Many(join(parts)))
        return of(Items(tuple(values)))

    _eval_List = _eval_Tuple

    def _eval_Set(self, node: ast.Set, frame: Frame) -> Value:
        return of(Many(join([self.evaluate(item, frame) for item in node.elts])))

    def _eval_Subscript(self, node: ast.Subscript, frame: Frame) -> Value:
        value = self.evaluate(node.value, frame)
        index = self.evaluate(node.slice, frame)
        if isinstance(node.slice, ast.Slice):
            return value
        items = [self.item(value, key) for key in keys_of(index)]
        found = self.read(join([*items, self._looked_up_outside(value)]), frame)
        # `values[rows, best]`: which items these are depends on the model that chose them; gradients go no such way.
        chosen_by = all_flows(index)
        return with_flows(found, detached(chosen_by, converted=True)) if chosen_by else found

    def _looked_up_outside(self, value: Value) -> Value:
        """`registry["name"]` of a library, where the catalogue knows what its registry holds."""
        names = [f"{thing.name}.?" for thing in value.things if isinstance(thing, Outside)]
        return of(*(Outside(name) for name in names if self.catalogue.entry(name) is not None))

    def _eval_Yield(self, node: ast.Yield, frame: Frame) -> Value:
        if node.value is not None:
            frame.yields.append(self.evaluate(node.value, frame))
            # The first entry is what the caller loops over.
            frame.loaders_yielded.update(*frame.loaders[1:][-1:])
        return UNKNOWN

    def _eval_YieldFrom(self, node: ast.YieldFrom, frame: Frame) -> Value:
        value = self.evaluate(node.value, frame)
        frame.yields.append(item_of(value))
        frame.loaders_yielded.update(loaders_in(value))
        return UNKNOWN

    def _comprehension(self, generators: list[ast.comprehension], results: Iterable[ast.expr], frame: Frame) -> Value:
        start = dict(frame.names)
        for generator in generators:
            item = self.iterate(self.evaluate(generator.iter, frame))
            self.bind_names(generator.target, item, frame)
            for test in generator.ifs:
                self.evaluate(test, frame)
        values = [self.evaluate(result, frame) for result in results]
        self.leave_comprehension(generators, start, frame)
        return of(Many(values[-1]))

    def _eval_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, frame: Frame) -> Value:
        return self._comprehension(node.generators, [node.elt], frame)

    _eval_SetComp = _eval_ListComp
    _eval_GeneratorExp = _eval_ListComp

    def _eval_DictComp(self, node: ast.DictComp, frame: Frame) -> Value:
        exact = self.exact_comprehension(node, frame)
        return exact if exact is not None else self._comprehension(node.generators, [node.key, node.value], frame)

    def define(self, node: FunctionNode | ast.Lambda, frame: Frame) -> Value:
        """A function's value; decorators that are not known are taken to leave the function as it is."""
        frame.captured = True
        owner = None if isinstance(node, ast.Lambda) else frame.class_info
        closure = frame if owner is None or frame.parent is None else frame.parent
        self.closures.add(closure)
        info = FunctionInfo(
            frame.parsed, node, closure, owner, "method" if owner else "function", self._defaults(node, frame)
        )
        if not isinstance(node, ast.Lambda):
            info = self._decorated(info, node, frame)
        self.functions[node] = info
        return of(Function(info))

    def _defaults(self, node: FunctionNode | ast.Lambda, frame: Frame) -> dict[str, Value]:
        positional = [*node.args.posonlyargs, *node.args.args]
        found = {
            argument.arg: self.evaluate(default, frame)
            for argument, default in zip(reversed(positional), reversed(node.args.defaults), strict=False)
        }
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            if default is not None:
                found[argument.arg] = self.evaluate(default, frame)
        return found

    def _decorated(self, info: FunctionInfo, node: FunctionNode, frame: Frame) -> FunctionInfo:
        kind, grad, autocast, is_context = info.kind, info.grad, False, False
        for decorator in node.decorator_list:
            value = self.evaluate(decorator, frame)
            if any(isinstance(thing, Function) for thing in value.things):
                # Run for what it does (registering, say); what it gives is taken to be the function itself.
                self.call_value(value, [of(Function(info))], {}, None, frame)
            for thing in value.things:
                name = thing.name if isinstance(thing, Outside) else ""
                effect = thing.kind if isinstance(thing, Object) else self.context_kind(name)
                if effect in {"no_grad", "inference_mode", "enable_grad", "autocast"}:
                    self.facts.contexts[decorator] = effect
                if effect in {"no_grad", "inference_mode"}:
                    grad = "off"
                autocast = autocast or effect == "autocast"
                is_context = is_context or name.startswith("contextlib.")
                if name == "builtins.staticmethod":
                    kind = "static"
                elif name == "builtins.classmethod":
                    kind = "class"
                elif name in {"builtins.property", "functools.cached_property"}:
                    kind = "property"
        return FunctionInfo(
            info.parsed, node, info.closure, info.owner, kind, info.defaults, grad, autocast, is_context
        )

    # --- binding ----------------------------------------------------------------------------------------------------

    def assign(
        self, target: ast.expr, value: Value, frame: Frame, statement: ast.stmt, source: ast.expr | None
    ) -> None:
        """Bind a target; `source` is the expression on the right, when the statement builds something there."""
        if isinstance(target, ast.Tuple | ast.List):
            self._unpack(target, value, frame, statement, source)
        elif isinstance(target, ast.Starred):
            self.assign(target.value, of(Many(value)), frame, statement, source)
        elif isinstance(target, ast.Name):
            value = self.bound_value(target, value, frame, statement, source)
            holder = frame.outer.get(target.id, frame)
            holder.parameters.discard(target.id)
            if (holder.captured or holder.parent is None) and holder.names.get(target.id) != value:
                self.heap_version += 1
            holder.names[target.id] = value
        elif isinstance(target, ast.Attribute):
            base = self.evaluate(target.value, frame)
            value = self.bound_value(target, value, frame, statement, source, base)
            if target.attr == "data":
                self.note_update(base)
            if isinstance(target.value, ast.Name) and target.value.id == frame.self_name:
                frame.names[f"{frame.self_name}.{target.attr}"] = value
            self.set_attribute(base, target.attr, value)
            if not base.things:
                self._keep(target, value, frame)
            self.add_flows(target.value, all_flows(value), frame)
        elif isinstance(target, ast.Subscript):
            key = self.evaluate(target.slice, frame)
            base = self.evaluate(target.value, frame)
            value = self.bound_value(target, value, frame, statement, source, base)
            self.store_item(target, base, key, value, frame)

    def _unpack(
        self, target: ast.Tuple | ast.List, value: Value, frame: Frame, statement: ast.stmt, source: ast.expr | None
    ) -> None:
        length = None if any(isinstance(item, ast.Starred) for item in target.elts) else len(target.elts)
        value = self._as_tuple(target, value)
        for index, item in enumerate(target.elts):
            part = item_of(value, index if length is not None else None, length)
            if isinstance(item, ast.Starred):
                part = item_of(value)
            self.assign(item, part, frame, statement, source)

    def _as_tuple(self, target: ast.Tuple | ast.List, value: Value) -> Value:
        """`model, utils = torch.hub.load(...)`: what is said to give a model gives a tuple that holds it."""
        models = frozenset(
            thing
            for thing in value.things
            if isinstance(thing, ModelObject) and self.facts.model(thing).entry is not None
        )
        if not models or len(models) < len(value.things):
            return value
        names = [dotted(item) for item in target.elts]
        index = next((place for place, name in enumerate(names) if named_like_model(name)), 0)
        items = [Value(models, value.flows) if place == index else UNKNOWN for place in range(len(names))]
        return of(Items(tuple(items)), flows=value.flows)
