"""What a name may stand for while a file is interpreted: a set of possible things, and what flowed into it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from neural_coder.analysis.catalogue_data import Entry
from neural_coder.analysis.syntax import FunctionNode, Parsed, is_stub

if TYPE_CHECKING:
    from neural_coder.analysis.frames import Frame


class Flow(NamedTuple):
    """A model call whose result flowed into a value."""

    call: ast.Call
    detached: bool = False
    """No gradient flows back on this way."""
    converted: bool = False
    """It came as float32 or as integers, so that a reduced precision of the result does not show."""


class Value(NamedTuple):
    """What an expression may give. No things: nothing is known.

    A tuple, as there are very many: these are made, hashed and compared without running any code of Python's.
    """

    things: frozenset[Thing] = frozenset()
    flows: frozenset[Flow] = frozenset()


UNKNOWN = Value()


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal."""

    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Outside:
    """Something of an installed package, by its dotted name; `?` stands for a part known only at run time."""

    name: str


@dataclass(frozen=True, slots=True)
class FileModule:
    """A module of the project (a file, or a package folder without `__init__.py`)."""

    path: Path


@dataclass(frozen=True, slots=True)
class Import:
    """A name of a project file that has not been looked up yet."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class ClassInfo:
    """A class of the project."""

    parsed: Parsed
    node: ast.ClassDef
    bases: list[Value] = field(default_factory=list)
    members: dict[str, Value] = field(default_factory=dict)
    """The class body's names."""
    attributes: dict[str, Value] = field(default_factory=dict)
    """What methods put on `self`."""


@dataclass(frozen=True, slots=True, eq=False)
class FunctionInfo:
    """A function of the project, with the frame that it closes over."""

    parsed: Parsed
    node: FunctionNode | ast.Lambda
    closure: Frame
    owner: ClassInfo | None
    kind: Literal["function", "method", "static", "class", "property"]
    defaults: dict[str, Value]
    grad: Literal["enabled", "off"] | None = None
    """What its decorators do to gradients."""
    autocast: bool = False
    is_context: bool = False

    @property
    def is_abstract(self) -> bool:
        """A method without a body, which subclasses write."""
        return self.owner is not None and not isinstance(self.node, ast.Lambda) and is_stub(self.node)


@dataclass(frozen=True, slots=True)
class Class:
    """A class of the project, as a value."""

    info: ClassInfo


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the project, bound to an object or not."""

    info: FunctionInfo
    bound: Thing | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """An object of a project class that is no module."""

    info: ClassInfo
    site: ast.AST | None = None


@dataclass(frozen=True, slots=True)
class Super:
    """`super()` in a method of a class."""

    info: ClassInfo
    self_thing: Thing


@dataclass(frozen=True, slots=True)
class ModelObject:
    """A module or pipeline, named by the call that builds it."""

    site: ast.AST


@dataclass(frozen=True, slots=True)
class Object:
    """Something else that matters here."""

    kind: Literal[
        "optimizer", "loader", "loss", "scaler", "accelerator", "trainer", "no_grad", "inference_mode", "autocast",
        "enable_grad", "scheduler", "dataset", "holder", "transform", "parameter", "state", "other",
    ]  # fmt: skip
    site: ast.AST | None = None
    models: frozenset[ModelObject] = frozenset()
    """For a trainer: what it trains."""
    entry: Entry | None = None
    """What the catalogue says about it."""


@dataclass(frozen=True, slots=True)
class Items:
    """A tuple or list of known length."""

    values: tuple[Value, ...]
    nesting: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nesting", 1 + max(map(nesting, self.values), default=0))


@dataclass(frozen=True, slots=True)
class Many:
    """A container or iterator whose items are alike."""

    item: Value
    nesting: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nesting", 1 + nesting(self.item))


@dataclass(frozen=True, slots=True)
class Fields:
    """A dict with keys that are known, sorted; `make_fields` makes one."""

    entries: tuple[tuple[str | int, Value], ...]
    rest: Value = UNKNOWN
    """What is stored under other keys."""
    nesting: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        deepest = max((nesting(value) for _, value in self.entries), default=0)
        object.__setattr__(self, "nesting", 1 + max(deepest, nesting(self.rest)))

    def all(self) -> Value:
        """What any of the dict's values may be."""
        return join([*(value for _, value in self.entries), self.rest])


@dataclass(frozen=True, slots=True)
class Partial:
    """`functools.partial(function, ...)`."""

    function: Value
    arguments: tuple[Value, ...]
    keywords: tuple[tuple[str, Value], ...]


Thing = (
    Constant
    | Outside
    | FileModule
    | Import
    | Class
    | Function
    | Instance
    | Super
    | ModelObject
    | Object
    | Items
    | Many
    | Fields
    | Partial
)

MAX_THINGS = 24
MAX_FLOWS = 200
MAX_FIELDS = 40


CONTAINERS = frozenset({Items, Many, Fields})


def of(*things: Thing, flows: frozenset[Flow] = frozenset()) -> Value:
    """A value that is one of the things."""
    return Value(frozenset(things), flows)


def nesting(value: Value) -> int:
    """How deep containers are nested in a value."""
    deepest = 0
    for thing in value.things:
        if thing.__class__ in CONTAINERS and thing.nesting > deepest:
            deepest = thing.nesting
    return deepest


def join(values: Iterable[Value]) -> Value:
    """A value that is one of several."""
    found = [value for value in values if value is not UNKNOWN]
    if not found:
        return UNKNOWN
    first = found[0]
    if len(found) == 1 or found.count(first) == len(found):
        return first
    things = first.things.union(*[value.things for value in found])
    flows = first.flows.union(*[value.flows for value in found])
    if len(things) > MAX_THINGS:
        things = _most_telling(things)
    if len(flows) > MAX_FLOWS:
        flows = frozenset(
            sorted(flows, key=lambda flow: (flow.call.lineno, flow.call.col_offset, flow.detached))[:MAX_FLOWS]
        )
    return Value(_merged_fields(_merged_items(things)), flows)


def _most_telling(things: frozenset[Thing]) -> frozenset[Thing]:
    """Of very many things those that may give models, and of these a part: any 24 of a model zoo's say as much."""
    telling = [thing for thing in things if isinstance(thing, ModelObject | Class | Function | Outside)]
    return frozenset(telling if len(telling) <= MAX_THINGS else sorted(telling, key=_order)[:MAX_THINGS])


def _order(thing: Thing) -> tuple[int, str, int, int]:
    """An order that is the same in every run: the project's own first, classes before functions."""
    if isinstance(thing, Outside):
        return 3, thing.name, 0, 0
    node = thing.site if isinstance(thing, ModelObject) else getattr(thing, "info").node  # noqa: B009
    rank = 0 if isinstance(thing, ModelObject) else 1 if isinstance(thing, Class) else 2
    return rank, getattr(node, "name", ""), getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def make_fields(entries: Mapping[str | int, Value], rest: Value = UNKNOWN) -> Value:
    """A dict with known keys; without them where none of its values matters here."""
    values = [*entries.values(), rest]
    matters = any(value.flows or not all(isinstance(thing, Constant) for thing in value.things) for value in values)
    if len(entries) > MAX_FIELDS or not entries or not matters:
        return of(Many(join(values)))
    return of(Fields(tuple(sorted(entries.items(), key=lambda pair: repr(pair[0]))), rest))


def _merged_fields(things: frozenset[Thing]) -> frozenset[Thing]:
    """Dicts become one dict of joined values; a key that only one of them has keeps what it has there."""
    dicts = [thing for thing in things if isinstance(thing, Fields)]
    if len(dicts) < 2:
        return things
    keys = dict.fromkeys(key for thing in dicts for key, _ in thing.entries)
    entries = {key: join([value for thing in dicts for own, value in thing.entries if own == key]) for key in keys}
    merged = make_fields(entries, join([thing.rest for thing in dicts]))
    return frozenset(thing for thing in things if not isinstance(thing, Fields)) | merged.things


def _merged_items(things: frozenset[Thing]) -> frozenset[Thing]:
    """Tuples of one length become one tuple of joined items, so that unpacking them stays exact."""
    tuples = [thing for thing in things if isinstance(thing, Items)]
    if len(tuples) < 2:
        return things
    rest = frozenset(thing for thing in things if not isinstance(thing, Items))
    by_length: dict[int, list[Items]] = {}
    for item in tuples:
        by_length.setdefault(len(item.values), []).append(item)
    merged = {
        Items(tuple(join(column) for column in zip(*(item.values for item in group), strict=True)))
        for group in by_length.values()
    }
    return rest | merged


def all_flows(value: Value, depth: int = 4) -> frozenset[Flow]:
    """What flowed into a value and into the items that it holds."""
    found = value.flows
    if depth:
        for thing in value.things:
            if thing.__class__ not in CONTAINERS:
                continue
            if isinstance(thing, Items):
                found = found.union(*(all_flows(item, depth - 1) for item in thing.values))
            elif isinstance(thing, Many):
                found |= all_flows(thing.item, depth - 1)
            elif isinstance(thing, Fields):
                found |= all_flows(thing.all(), depth - 1)
    return found


def with_flows(value: Value, flows: frozenset[Flow]) -> Value:
    """The same value with more flows."""
    return value if flows <= value.flows else Value(value.things, value.flows | flows)


def detached(flows: Iterable[Flow], converted: bool = False) -> frozenset[Flow]:
    """The flows without gradients (and, when asked, as converted to float32 or integers)."""
    return frozenset(Flow(flow.call, True, flow.converted or converted) for flow in flows)


def models_in(value: Value, depth: int = 3) -> frozenset[ModelObject]:
    """The models that a value is or holds."""
    found: set[ModelObject] = set()
    for thing in value.things:
        if isinstance(thing, ModelObject):
            found.add(thing)
        elif depth and isinstance(thing, Items):
            for item in thing.values:
                found |= models_in(item, depth - 1)
        elif depth and isinstance(thing, Many):
            found |= models_in(thing.item, depth - 1)
        elif depth and isinstance(thing, Fields):
            found |= models_in(thing.all(), depth - 1)
    return frozenset(found)


def loaders_in(value: Value) -> set[ast.AST]:
    """The loaders that a value may be, by the calls that build them."""
    return {
        thing.site
        for thing in value.things
        if isinstance(thing, Object) and thing.kind == "loader" and thing.site is not None
    }


def replaced(value: Value, views: Mapping[Thing, Thing]) -> Value:
    """The value with some things, also inside containers, exchanged for others."""
    things: set[Thing] = set()
    for thing in value.things:
        if isinstance(thing, Items):
            things.add(Items(tuple(replaced(item, views) for item in thing.values)))
        elif isinstance(thing, Many):
            things.add(Many(replaced(thing.item, views)))
        elif isinstance(thing, Fields):
            entries = tuple((key, replaced(item, views)) for key, item in thing.entries)
            things.add(Fields(entries, replaced(thing.rest, views)))
        else:
            things.add(views.get(thing, thing))
    return Value(frozenset(things), value.flows)


def rerouted(value: Value, given: frozenset[Flow], call: ast.Call) -> Value:
    """The value, also inside containers, with all flows but the given ones taken to come from one call."""
    things: set[Thing] = set()
    for thing in value.things:
        if isinstance(thing, Items):
            things.add(Items(tuple(rerouted(item, given, call) for item in thing.values)))
        elif isinstance(thing, Many):
            things.add(Many(rerouted(thing.item, given, call)))
        elif isinstance(thing, Fields):
            entries = tuple((key, rerouted(item, given, call)) for key, item in thing.entries)
            things.add(Fields(entries, rerouted(thing.rest, given, call)))
        else:
            things.add(thing)
    flows = (flow if flow in given else Flow(call, flow.detached, flow.converted) for flow in value.flows)
    return Value(frozenset(things), frozenset(flows))


def item_of(value: Value, index: int | str | None = None, length: int | None = None) -> Value:
    """What an item of a value may be: at an index (or key) where one is known, else any of them."""
    found = []
    for thing in value.things:
        if isinstance(thing, Items):
            if (
                isinstance(index, int)
                and -len(thing.values) <= index < len(thing.values)
                and length in (None, len(thing.values))
            ):
                found.append(thing.values[index])
            elif index is None:
                found.extend(thing.values)
        elif isinstance(thing, Many):
            found.append(thing.item)
        elif isinstance(thing, Fields):
            known = dict(thing.entries)
            found.append(join((known[index], thing.rest)) if index is not None and index in known else thing.all())
        elif isinstance(thing, Outside):
            found.append(
                of(Outside(thing.name.removesuffix(".__dict__") + ".?")) if thing.name.endswith("__dict__") else UNKNOWN
            )
    return with_flows(join(found), value.flows)


def iterated(value: Value) -> Value:
    """What a loop over a value gives: the keys of a dict, the items of anything else."""
    if not any(isinstance(thing, Fields) for thing in value.things):
        return item_of(value)
    found: list[Value] = []
    for thing in value.things:
        if isinstance(thing, Fields):
            found.extend(of(Constant(key)) for key, _ in thing.entries)
            # A key that is not known makes the whole unknown.
            found.append(of(Object("other")) if thing.rest.things else UNKNOWN)
        else:
            found.append(item_of(of(thing)))
    return with_flows(join(found), value.flows)


def is_unknown(value: Value) -> bool:
    """Whether nothing is known about a value but that it may be None."""
    return all(isinstance(thing, Constant) and thing.value is None for thing in value.things)


def constant(value: Value) -> object:
    """The literal that a value is, or Ellipsis."""
    if len(value.things) == 1:
        (thing,) = value.things
        if isinstance(thing, Constant):
            return thing.value
    return ...


def shallow(value: Value, depth: int = 4) -> Value:
    """The value with nested containers cut off, so that self-containing data cannot grow for ever."""
    if nesting(value) <= depth:
        return value
    things: set[Thing] = set()
    flows = set(value.flows)
    for thing in value.things:
        if isinstance(thing, Items) and depth:
            things.add(Items(tuple(shallow(item, depth - 1) for item in thing.values)))
        elif isinstance(thing, Many) and depth:
            things.add(Many(shallow(thing.item, depth - 1)))
        elif isinstance(thing, Fields) and depth:
            entries = tuple((key, shallow(item, depth - 1)) for key, item in thing.entries)
            things.add(Fields(entries, shallow(thing.rest, depth - 1)))
        elif isinstance(thing, Items | Many | Fields):
            flows |= all_flows(of(thing), 6)
        else:
            things.add(thing)
    return Value(frozenset(things), frozenset(flows))
