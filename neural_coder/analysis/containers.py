"""Dicts and lists: which items they hold, at which keys, and what loops over them give."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

from neural_coder.analysis.bindings import Bindings
from neural_coder.analysis.facts import Binding
from neural_coder.analysis.frames import Frame, Names
from neural_coder.analysis.syntax import named
from neural_coder.analysis.values import (
    UNKNOWN,
    ClassInfo,
    Constant,
    Fields,
    Function,
    Instance,
    Items,
    Many,
    ModelObject,
    Object,
    Value,
    all_flows,
    constant,
    item_of,
    iterated,
    join,
    make_fields,
    models_in,
    of,
    with_flows,
)

_MAX_EXACT = 12
"""Items of a loop that a comprehension is run for one by one."""
_DISPLAYS = (ast.Dict, ast.List, ast.Tuple, ast.DictComp, ast.ListComp, ast.Set, ast.SetComp)
_SEVERAL = "it is one of several in a container"
Key = str | int | None


def keys_of(index: Value) -> list[Key]:
    """The keys that a subscript may have; None stands for any."""
    known = [thing.value for thing in index.things if isinstance(thing, Constant)]
    keys = [key for key in known if isinstance(key, str | int) and not isinstance(key, bool)]
    return list(keys) if keys and len(keys) == len(index.things) else [None]


class Containers(Bindings):
    """The part of the interpreter that knows containers."""

    def item(self, value: Value, key: Key = None) -> Value:
        """What an item of a value may be; one of a container of modules is taken for that container."""
        return join((item_of(value, key), self._layers_of(value)))

    def iterate(self, value: Value) -> Value:
        """What a loop over a value gives."""
        return join((iterated(value), self._layers_of(value)))

    def _layers_of(self, value: Value) -> Value:
        found = [
            thing
            for thing in value.things
            if isinstance(thing, ModelObject) and self.facts.model(thing).evidence.known_by != "name"
        ]
        return of(*found) if found else UNKNOWN

    def _eval_Dict(self, node: ast.Dict, frame: Frame) -> Value:
        entries: dict[str | int, Value] = {}
        rest = []
        for key, item in zip(node.keys, node.values, strict=True):
            value = self.evaluate(item, frame)
            if key is None:
                rest.append(self._unpacked(value, entries))
                continue
            self.evaluate(key, frame)
            if isinstance(key, ast.Constant) and isinstance(key.value, str | int):
                entries[key.value] = value
            else:
                rest.append(value)
        return make_fields(entries, join(rest))

    def _unpacked(self, value: Value, entries: dict[str | int, Value]) -> Value:
        """Add the entries of a dict that is unpacked into another; returns what is not known by its key."""
        for thing in value.things:
            if isinstance(thing, Fields):
                entries.update(thing.entries)
        return item_of(Value(frozenset(thing for thing in value.things if not isinstance(thing, Fields)), value.flows))

    def exact_comprehension(self, node: ast.DictComp, frame: Frame) -> Value | None:
        """A dict comprehension over few items that are known; None where they are not."""
        generator = node.generators[0]
        if len(node.generators) > 1 or generator.ifs:
            return None
        items = _exact_items(self.evaluate(generator.iter, frame))
        if items is None:
            return None
        start, entries = dict(frame.names), {}
        for item in items:
            self.bind_names(generator.target, item, frame)
            (key,) = keys_of(self.evaluate(node.key, frame))[:1]
            value = self.evaluate(node.value, frame)
            if key is None:
                break
            entries[key] = value
        self.leave_comprehension(node.generators, start, frame)
        return make_fields(entries) if len(entries) == len(items) else None

    def leave_comprehension(self, generators: list[ast.comprehension], start: Names, frame: Frame) -> None:
        """Take back what the targets of a comprehension bound."""
        frame.names = {**start, **{name: value for name, value in frame.names.items() if name in start}}
        for generator in generators:
            for part in ast.walk(generator.target):
                if isinstance(part, ast.Name):
                    frame.names.pop(part.id, None)
                    if part.id in start:
                        frame.names[part.id] = start[part.id]

    def bind_names(self, target: ast.expr, value: Value, frame: Frame) -> None:
        """Bind the names of a loop's or comprehension's target."""
        if isinstance(target, ast.Name):
            frame.names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            for index, item in enumerate(target.elts):
                self.bind_names(item, item_of(value, index, len(target.elts)), frame)

    # --- models in containers ---------------------------------------------------------------------------------------

    def items_bound(
        self, bound: Binding, value: Value, frame: Frame
    ) -> Iterator[tuple[Binding, frozenset[ModelObject]]]:
        """The models that a statement binds as items of a container or as fields of an object."""
        borrowed = not isinstance(bound.value, _DISPLAYS)
        if bound.value is not None and self.facts.resolved.get(bound.value) == "dataclasses.field":
            bound.why_not_ready = "the dataclass builds one for each object"
        for thing in value.things:
            if isinstance(thing, Instance) and thing.site is bound.value:
                yield from self._fields_bound(bound, thing, frame)
                continue
            if not isinstance(thing, Fields | Items | Many):
                continue
            for key, item in _places(thing, bound.value):
                models = self.fresh_models(item, frame)
                if models:
                    yield _item_binding(bound, key, borrowed), models

    def _fields_bound(
        self, bound: Binding, thing: Instance, frame: Frame
    ) -> Iterator[tuple[Binding, frozenset[ModelObject]]]:
        fixed = "its fields cannot be set again" if self._is_frozen(thing.info) else ""
        for name, item in self.given_fields.get(thing.site, {}).items():
            models = self.fresh_models(item, frame)
            if models:
                written = f"{bound.written or bound.name}.{name}"
                full = f"{bound.name}.{name}"
                yield replace(bound, name=full, written=written, sites=set(), is_item=True, why_not_ready=fixed), models

    def _is_frozen(self, info: ClassInfo) -> bool:
        frozen = any(
            keyword.arg == "frozen" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            for decorator in info.node.decorator_list
            if isinstance(decorator, ast.Call)
            for keyword in decorator.keywords
        )
        return frozen or any(name.endswith("NamedTuple") for name in self.outside_bases(info))

    def note_put(self, container: ast.expr, value: Value, node: ast.Call, frame: Frame) -> None:
        """`nets.append(Net())`: the models have no name but that of the container."""
        statement, name = frame.statement, named(container)
        if not isinstance(statement, ast.Expr) or statement.value is not node or not name:
            return
        models = self.fresh_models(value, frame)
        if models and not self.inside_module(frame):
            bound = Binding(frame.parsed, statement, name, container, value=node, is_item=True, why_not_ready=_SEVERAL)
            self.note_binding(bound, models)

    def note_setattr(self, node: ast.Call, base: Value, name: Value, value: Value, frame: Frame) -> None:
        """`setattr(self, name, Net())`; a name that is only known at run time keeps its leading text."""
        known = constant(name)
        self.set_attribute(base, known if isinstance(known, str) else f"{leading_text(node.args[1])}?", value)
        statement, owner = frame.statement, named(node.args[0])
        models = self.fresh_models(value, frame)
        if not isinstance(statement, ast.Expr) or statement.value is not node or not owner or not models:
            return
        bound = Binding(frame.parsed, statement, f"{owner}.{known}", node.args[0], value=node.args[2])
        if not isinstance(known, str):
            bound.name = f"getattr({owner}, {frame.parsed.text(node.args[1])})"
            bound.why_not_ready = "its name is only known at run time"
        if not self.inside_module(frame):
            self.note_binding(bound, models)

    def models_named(self, thing: Instance, start: str) -> Value:
        """The models that an object holds under names that start with a text."""
        stored = [
            value
            for info in self.lineage(thing.info)
            for name, value in info.attributes.items()
            if name.startswith(start) or name == "?"
        ]
        return of(*(model for value in stored for model in models_in(value, 0)))

    # --- changing containers ----------------------------------------------------------------------------------------

    def store_item(self, target: ast.Subscript, base: Value, index: Value, value: Value, frame: Frame) -> None:
        """`container[index] = value`."""
        self.adopt(base, value)
        keys = keys_of(index)
        self.put_into(target.value, value, frame, keys[0] if len(keys) == 1 else None)

    def put_into(self, container: ast.expr, value: Value, frame: Frame, key: Key = None) -> None:
        """An item goes into a container that has a name."""
        while isinstance(container, ast.Subscript):
            container, key = container.value, None
        if isinstance(container, ast.Name | ast.Attribute):
            known = self.evaluate(container, frame)
            merged = _with_key(known, key, value) if key is not None else None
            self._rebind(container, _with_item(known, value) if merged is None else merged, frame)

    def merge_into(self, container: ast.expr, values: Iterable[Value], frame: Frame) -> None:
        """`container.update(values)`: what dicts hold goes into a container that has a name."""
        dicts = [of(thing) for value in values for thing in value.things if isinstance(thing, Fields)]
        if dicts and isinstance(container, ast.Name | ast.Attribute):
            self._rebind(container, join([self.evaluate(container, frame), *dicts]), frame)

    def give_back(
        self, function: Function, changed: tuple[tuple[str, Value], ...], node: ast.Call, frame: Frame
    ) -> None:
        """What a function put into what it was given is there for its caller, too."""
        parameters = [item.arg for item in (*function.info.node.args.posonlyargs, *function.info.node.args.args)]
        first = 1 if function.bound is not None and function.info.kind != "static" else 0
        given = dict(zip(parameters[first:], node.args, strict=False))
        given.update({keyword.arg: keyword.value for keyword in node.keywords if keyword.arg})
        for name, value in changed:
            argument = given.get(name)
            if isinstance(argument, ast.Name | ast.Attribute):
                self._rebind(argument, join((self.evaluate(argument, frame), value)), frame)

    def add_flows(self, node: ast.expr, flows: Iterable[object], frame: Frame) -> None:
        """Something flowed into the object behind a name."""
        wanted = frozenset(flows)
        if wanted and isinstance(node, ast.Name) and node.id != frame.self_name and node.id in frame.names:
            self._rebind(node, with_flows(frame.names[node.id], wanted), frame)  # type: ignore[arg-type]

    def _rebind(self, node: ast.Name | ast.Attribute, value: Value, frame: Frame) -> None:
        value = self.cut(value)
        if isinstance(node, ast.Name):
            holder: Frame | None = frame.outer.get(node.id, frame)
            while holder is not None and node.id not in holder.names:
                holder = holder.parent
            if holder is not None and node.id in holder.parameters:
                holder.changed.add(node.id)
            if holder is not None and holder.names[node.id] != value:
                holder.names[node.id] = value
                self.heap_version += holder.captured or holder.parent is None
        else:
            self.set_attribute(self.evaluate(node.value, frame), node.attr, value)
            if isinstance(node.value, ast.Name) and node.value.id == frame.self_name:
                frame.names[f"{frame.self_name}.{node.attr}"] = value


def leading_text(node: ast.expr) -> str:
    """The text that a computed name starts with: `net` of `"net" + name` and of `f"net{name}"`."""
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        node = node.left
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _places(thing: Fields | Items | Many, source: ast.expr | None) -> list[tuple[str | int | None, Value]]:
    """The items of a container, each with the key under which a statement can exchange it; None where there is none."""
    if isinstance(thing, Fields):
        return [*thing.entries, (None, thing.rest)]
    if isinstance(thing, Items):
        return [(index if isinstance(source, ast.List) else None, item) for index, item in enumerate(thing.values)]
    return [(None, thing.item)]


def _item_binding(bound: Binding, key: str | int | None, borrowed: bool) -> Binding:
    if key is None:
        return replace(bound, sites=set(), is_item=True, borrowed=borrowed, why_not_ready=_SEVERAL)
    text = json.dumps(key)
    if isinstance(bound.value, ast.Dict):
        texts = [bound.parsed.text(each) for each in bound.value.keys if each is not None and _is_key(each, key)]
        text = texts[0] if texts else text
    name, written = f"{bound.name}[{key!r}]", f"{bound.written or bound.name}[{text}]"
    return replace(bound, name=name, written=written, sites=set(), is_item=True, borrowed=borrowed)


def _is_key(node: ast.expr, key: str | int) -> bool:
    return isinstance(node, ast.Constant) and node.value == key


def _exact_items(value: Value) -> list[Value] | None:
    """What a loop over a value gives, one by one; None where that is not known."""
    if len(value.things) != 1:
        return None
    (thing,) = value.things
    if isinstance(thing, Fields) and not thing.rest.things and not thing.rest.flows:
        items = [of(Constant(key)) for key, _ in thing.entries]
    elif isinstance(thing, Items):
        items = list(thing.values)
    else:
        return None
    return items if 0 < len(items) <= _MAX_EXACT else None


def _with_item(known: Value, value: Value) -> Value:
    """A container into which something was put at an unknown place."""
    kept = Value(frozenset(thing for thing in known.things if not isinstance(thing, Items)), known.flows)
    items = item_of(Value(known.things - kept.things)) if known.things else UNKNOWN
    merged = join((kept, of(Many(join((items, value))))))
    return with_flows(merged, all_flows(value))


def _with_key(known: Value, key: str | int, value: Value) -> Value | None:
    """A dict in which one key got a value; None where it is no dict, or where the value does not matter here."""
    if not all(isinstance(thing, Fields | Many | Object) for thing in known.things):
        return None
    dicts = [thing for thing in known.things if isinstance(thing, Fields)]
    entries = dict(dicts[0].entries) if dicts else {}
    rest = join([thing.item for thing in known.things if isinstance(thing, Many)] + [thing.rest for thing in dicts])
    made = make_fields({**entries, key: value}, rest)
    if not any(isinstance(thing, Fields) for thing in made.things):
        return None
    others = frozenset(thing for thing in known.things if isinstance(thing, Object))
    return Value(made.things | others, known.flows)
