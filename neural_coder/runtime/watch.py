"""A model as it was at one moment, cheap to compare with what it is now.

Between two calls of an engine nothing of this is in the processor's caches, so what counts is how much memory is
touched, and by how many steps. Dictionaries have a version, which any write changes; only after one their values are
compared. Of the weights some places are compared in each call.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, cycle
from operator import attrgetter, is_, itemgetter
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

import torch
from torch.utils.hooks import RemovableHandle

from neural_coder.runtime import layout
from neural_coder.runtime.layout import WORD, Words
from neural_coder.runtime.structure import tensors_inside

_INSIDE = frozenset(vars(torch.nn.Module()))
"""Attributes that every module has; of these only `training` says anything about its answers."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_CONTENTS = ("_parameters", "_buffers", "_modules")
_VALUES = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    torch.Size,
    torch.dtype,
    torch.device,
    torch.memory_format,
)
_FUNCTIONS = (type, FunctionType, MethodType, BuiltinFunctionType, ModuleType)
_PIECES = 32
"""Places of each weight that are compared, to notice changes that PyTorch does not count (through `.data`), in turn."""
_PIECE_BYTES = 64
_IN_TURN = 32
"""How many pieces are compared in each call. The first and the last word of each weight always are."""
_UNUSED = frozenset({"num_batches_tracked"})
"""Buffers of PyTorch's normalizations that say nothing about their answers in evaluation."""

_GLOBAL_HOOKS = [
    hooks
    for name in ("_global_forward_hooks", "_global_forward_pre_hooks")
    if (hooks := getattr(torch.nn.modules.module, name, None)) is not None
]
"""Hooks that PyTorch calls for every module."""
_STATES = (attrgetter("_version"), torch.Tensor.data_ptr, attrgetter("shape"), torch.Tensor.stride)
"""What is asked of each tensor, where it cannot be read from memory."""


class CannotWatch(Exception):
    """Changes of this model could not be noticed; the message says why."""


class Watch:
    """A model as it was at one moment."""

    def __init__(self, model: torch.nn.Module) -> None:
        """Remember `model`.

        Raises:
            CannotWatch: when some change of it could not be noticed.
        """
        named = list(model.named_modules())
        self._hooks = [vars(module)[name] for _, module in named[1:] for name in _HOOKS] + _GLOBAL_HOOKS
        self._without_hooks_at = -1
        contents = [vars(module)[name] for _, module in named for name in _CONTENTS]
        inner = _Inner(named)
        records = [(name, each) for name, each in inner.containers if isinstance(each, dict)]
        self._empty = [items for items in contents if not items]
        filled = [("", items) for items in contents if items]
        self._contents = _Containers(filled, plain=False)
        self._versions = _Versions([each for _, each in filled + records] + [each[1] for each in inner.attributes])
        self._records = _Containers(records, plain=True)
        lists = [each for each in inner.containers if not isinstance(each[1], dict)]
        self._lists = _Containers(lists, plain=True) if lists else None
        self._attributes = _Attributes(inner.attributes)
        self._weights = _Weights([*model.named_parameters(), *_used_buffers(named), *inner.tensors])
        self._empty_sizes = layout.of_dict_sizes(self._empty)
        # Tensors whose words are unknown are asked later, in any case.
        objects = [] if self._weights.objects is None else [self._weights.objects]
        self._first = layout.together(*objects, self._versions.words, self._empty_sizes)

    def hooked(self) -> bool:
        """Whether a submodule has hooks now, or all modules have; those would not fire in a converted copy."""
        registered = RemovableHandle.next_id
        if registered == self._without_hooks_at:  # every hook comes with a handle, and these are numbered
            return False
        if any(self._hooks):
            return True
        self._without_hooks_at = registered
        return False

    def needs_gradients(self) -> bool:
        """Whether a weight needs gradients."""
        return any(tensor.requires_grad for tensor in self._weights.tensors)

    def holds(self) -> bool:
        """Whether the model is still as it was."""
        first, now = self._first, b""
        try:
            if first is None or (now := first.now()) != first.then:
                if self._are_filled() or not (self._weights.are_the_same() and self._equal()):
                    return False
                if first is not None:
                    first.then = now  # as it was before the comparison: a later write counts anew
            return self._weights.hold_inside() and (self._lists is None or self._lists.hold())
        except RuntimeError:  # another thread changes a container just now
            return False

    def difference(self) -> str:
        """Name what changed; empty when nothing did."""
        if self._are_filled() or not self._contents.hold():
            return "submodules, parameters or buffers were added, removed or replaced"
        if not self._attributes.hold():
            return f"attribute {self._attributes.changed()} changed"
        for containers in (self._records, self._lists):
            if containers is not None and not containers.hold():
                return f"attribute {containers.changed()} changed"
        if not self._weights.hold():
            return f"{self._weights.changed()} changed"
        return ""

    def _are_filled(self) -> bool:
        """Whether something was put into dictionaries that were empty."""
        return any(self._empty) if self._empty_sizes is None else not self._empty_sizes.hold()

    def _equal(self) -> bool:
        """Whether dictionaries hold the same as before, although they may have been written to."""
        now = self._versions.now()
        if now and now == self._versions.then:
            return True
        if not (self._contents.hold() and self._attributes.hold() and self._records.hold()):
            return False
        self._versions.then = now
        return True


class _Versions:
    """Dictionaries, of which the interpreter counts how often any of them was written to."""

    def __init__(self, dictionaries: Iterable[dict[str, object]]) -> None:
        self._dictionaries = list(dictionaries)
        self.words = layout.of_dict_versions(self._dictionaries)
        self.then = self.now()

    def now(self) -> list[int]:
        """The version of each; none where they are not known."""
        return [] if layout.dict_version is None else [*map(layout.dict_version, self._dictionaries)]


class _Containers:
    """Lists, sets and dictionaries: nothing may be added, removed, renamed or replaced."""

    def __init__(self, named: Iterable[tuple[str, object]], *, plain: bool) -> None:
        """Remember containers; with `plain`, equal plain values may replace one another."""
        self._names: list[str] = []
        self._all: list[list[object]] = []
        self._views: list[Iterable[object]] = []
        for name, container in named:
            self._names.append(name)
            self._all.append(container)  # type: ignore[arg-type]  # a list stands for all that has a length
            self._views.append(container.values() if isinstance(container, dict) else container)  # type: ignore[arg-type]
        self._dicts = [each for each in self._all if isinstance(each, dict)]
        self._plain = plain
        self._remember()

    def _remember(self) -> None:
        self._sizes = [*map(len, self._all)]
        self._keys = [*chain.from_iterable(self._dicts)]
        self._values = [*chain.from_iterable(self._views)]

    def hold(self) -> bool:
        """Whether they are as they were."""
        if [*map(len, self._all)] != self._sizes:
            return False
        if all(map(is_, chain.from_iterable(self._views), self._values)):
            return all(map(is_, chain.from_iterable(self._dicts), self._keys)) or self._same_keys()
        if not (self._plain and self._same_keys() and all(map(_same, chain.from_iterable(self._views), self._values))):
            return False
        self._remember()
        return True

    def _same_keys(self) -> bool:
        return [*chain.from_iterable(self._dicts)] == self._keys

    def changed(self) -> str:
        """The name of the first container that changed."""
        then = iter(self._values)
        for name, view, size, now in zip(self._names, self._views, self._sizes, map(len, self._all), strict=True):
            values = [next(then) for _ in range(size)]
            if now != size or not all(map(_same, view, values)):
                return name
        return self._names[0] if self._names else ""


class _Attributes:
    """Attributes of objects: plain values must be equal, others the same objects, and none may come or go."""

    def __init__(self, watched: Iterable[tuple[str, dict[str, object], list[str], bool]]) -> None:
        """Remember attributes, each owner with its name, its `__dict__`, the keys, and whether those are all."""
        self._owners: list[tuple[str, dict[str, object], list[str]]] = []
        self._getters: list[tuple[Callable[[dict[str, object]], tuple[object, ...]], dict[str, object]]] = []
        self._closed: list[dict[str, object]] = []
        for name, attributes, keys, closed in watched:
            self._owners.append((name, attributes, keys))
            # Of a single key, itemgetter would give no tuple.
            self._getters.append((itemgetter(*keys, keys[0]), attributes))
            self._closed += [attributes] if closed else []
        self._sizes = [*map(len, self._closed)]
        self._size_of = {id(each): size for each, size in zip(self._closed, self._sizes, strict=True)}
        self._values = [get(attributes) for get, attributes in self._getters]
        self._flat = [*chain.from_iterable(self._values)]

    def hold(self) -> bool:
        """Whether they are as they were."""
        if [*map(len, self._closed)] != self._sizes:
            return False
        try:
            now = [get(attributes) for get, attributes in self._getters]
        except KeyError:
            return False
        if all(map(is_, chain.from_iterable(now), self._flat)):
            return True
        if not all(map(_same, chain.from_iterable(now), self._flat)):
            return False
        self._flat = [*chain.from_iterable(now)]
        return True

    def changed(self) -> str:
        """The name of the first one that changed."""
        for (name, attributes, keys), then in zip(self._owners, self._values, strict=True):
            for key, value in zip(keys, then, strict=False):
                if key not in attributes or not _same(attributes[key], value):
                    return f"{name}.{key}".lstrip(".")
            if len(attributes) != self._size_of.get(id(attributes), len(attributes)):
                return f"of {name or 'the model'}"
        return "of a submodule"


class _Memory:
    """Bytes at some places."""

    def __init__(self, pieces: Iterable[range]) -> None:
        """Remember what is at these addresses now."""
        words: list[int] = []
        rest: list[range] = []
        for piece in pieces:
            start, stop = -(-piece.start // WORD) * WORD, piece.stop // WORD * WORD
            if start >= stop or not layout.can_read():
                rest.append(piece)
                continue
            words += range(start, stop, WORD)
            rest += [edge for edge in (range(piece.start, start), range(stop, piece.stop)) if edge]
        self._words = Words(words) if words else None
        self._rest = [(ctypes.c_char * len(each)).from_address(each.start) for each in rest]
        self._then = b"".join(self._rest)

    def hold(self) -> bool:
        """Whether they are as they were."""
        same = self._words is None or self._words.hold()
        return same and (not self._rest or b"".join(self._rest) == self._then)


class _Weights:
    """Tensors: the same memory, not written to."""

    def __init__(self, named: Iterable[tuple[str, torch.Tensor]]) -> None:
        self.tensors: list[torch.Tensor] = []
        self._names: list[str] = []
        for name, tensor in named:
            _check_watchable(name, tensor)
            self._names.append(name)
            self.tensors.append(tensor)
        self._states = self._asked()
        self._words = layout.of_tensors(self.tensors)
        self.objects = self._words[0] if self._words else None
        pieces = [piece for tensor in self.tensors for piece in _pieces(tensor)]
        self._ends = _Memory([end for tensor in self.tensors for end in _ends(tensor)])
        # Far apart in turn, so that a change of one weight is met soon.
        step = max(1, -(-len(pieces) // _IN_TURN))
        self._parts = [_Memory(pieces[start::step]) for start in range(step)]
        self._turns = cycle(self._parts)

    def hold(self) -> bool:
        """Whether they are as they were, and their memory wherever it is watched."""
        return self.are_the_same() and self._are_in_place() and all(part.hold() for part in self._parts)

    def are_the_same(self) -> bool:
        """Whether nobody gave them other contents altogether."""
        return self.objects is None or self.objects.hold()

    def hold_inside(self) -> bool:
        """Whether those that are the same are as they were; of their memory some pieces, in turn."""
        return self._are_in_place() and next(self._turns).hold()

    def _are_in_place(self) -> bool:
        """Memory is only read where it still belongs to them."""
        if self._words is None:
            return self._asked() == self._states and self._ends.hold()
        _, impls, behind = self._words
        return impls.hold() and behind.hold() and self._ends.hold()

    def changed(self) -> str:
        """The name of the first one that is known to have changed."""
        now = zip(*self._asked(), strict=True)
        then = zip(*self._states, strict=True)
        return next(
            (name for name, is_now, was in zip(self._names, now, then, strict=True) if is_now != was), "a weight"
        )

    def _asked(self) -> list[list[object]]:
        return [[*map(state, self.tensors)] for state in _STATES]


class _Inner:
    """What can be found in the attributes of modules."""

    def __init__(self, named: Iterable[tuple[str, torch.nn.Module]]) -> None:
        self.attributes: list[tuple[str, dict[str, object], list[str], bool]] = []
        self.containers: list[tuple[str, object]] = []
        self.tensors: list[tuple[str, torch.Tensor]] = []
        self._seen: set[int] = set()
        for name, module in named:
            attributes = vars(module)
            keys = [key for key in attributes if key not in _INSIDE]
            self.attributes.append((name, attributes, ["training", *_CONTENTS, *keys], True))
            for key in keys:
                self._look(f"{name}.{key}".lstrip("."), attributes[key])

    def _look(self, name: str, value: object) -> None:
        if id(value) in self._seen or isinstance(value, (*_VALUES, *_FUNCTIONS, torch.nn.Module)):
            return
        self._seen.add(id(value))
        if isinstance(value, torch.Tensor):
            self.tensors.append((name, value))
        elif isinstance(value, (list, dict, set, deque, tuple)):
            if not isinstance(value, tuple):  # a tuple itself cannot change
                self.containers.append((name, value))
            for item in value.values() if isinstance(value, dict) else value:
                self._look(name, item)
        elif hasattr(value, "__dict__"):
            self._look_into_object(name, vars(value), whole=_is_settings(value))

    def _look_into_object(self, name: str, attributes: dict[str, object], *, whole: bool) -> None:
        """Look at a record of settings as a whole, such as a model's config; at others for the tensors they hold."""
        keys = [
            key for key, item in attributes.items() if whole or any(isinstance(t, torch.Tensor) for t in _held(item))
        ]
        if whole:
            self.containers.append((name, attributes))
        elif keys:
            self.attributes.append((name, attributes, keys, False))
        for key in keys:
            self._look(f"{name}.{key}", attributes[key])


def _used_buffers(named: Iterable[tuple[str, torch.nn.Module]]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, module in named:
        unused = _UNUSED if type(module).__module__ == torch.nn.BatchNorm2d.__module__ else ()
        for key, buffer in module.named_buffers(recurse=False):
            if key not in unused:
                yield f"{name}.{key}".lstrip("."), buffer


def _held(item: object) -> Iterable[object]:
    return tensors_inside(item, depth=1)


def _same(now: object, then: object) -> bool:
    return now is then or (isinstance(now, _VALUES) and type(now) is type(then) and now == then)


def _is_settings(value: object, depth: int = 2) -> bool:
    """Whether an object holds nothing but plain values, containers and other settings."""
    if isinstance(value, (*_VALUES, *_FUNCTIONS, list, tuple, dict, set)):
        return True
    if depth == 0 or isinstance(value, (torch.Tensor, torch.nn.Module)) or not hasattr(value, "__dict__"):
        return False
    return all(_is_settings(item, depth - 1) for item in vars(value).values())


def _check_watchable(name: str, tensor: torch.Tensor) -> None:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise CannotWatch(f"{name} is a {type(tensor).__name__}, not a plain tensor")
    if tensor.is_inference():
        raise CannotWatch(f"{name} was made inside torch.inference_mode(), so its changes cannot be seen")
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise CannotWatch(f"{name} is sparse, quantized or without data")


def _memory_of(tensor: torch.Tensor) -> range:
    """Addresses that a tensor's elements have; none on other devices than the CPU."""
    if tensor.device.type != "cpu" or not tensor.numel():
        return range(0)
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return range(tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size())


def _ends(tensor: torch.Tensor) -> Iterator[range]:
    """The first and the last word of a tensor's memory."""
    memory = _memory_of(tensor)
    yield from (end for end in (memory[:WORD], memory[WORD:][-WORD:]) if end)


def _pieces(tensor: torch.Tensor) -> Iterator[range]:
    """A few pieces of a tensor's memory, spread over all of it."""
    memory = _memory_of(tensor)
    size = min(_PIECE_BYTES, len(memory))
    count = min(_PIECES, -(-len(memory) // size)) if size else 0
    for place in range(count):
        start = place * (len(memory) - size) // max(1, count - 1)
        yield memory[start - start % WORD : start + size]
