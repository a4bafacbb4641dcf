"""What PyTorch and Python know about changes, read from their memory in a few steps.

Asked one by one, a few hundred tensors and dictionaries cost more than a small network does: each question runs code
and meets memory that left the processor's caches. So the words that hold the answers are found once, by their values
(no offset is taken for granted), and then read together. Where one of them cannot be found, or says anything else than
PyTorch and Python say, nothing is read in this way.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

try:
    import numpy
except ImportError:  # PyTorch does without it, too
    numpy = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

WORD = 8
"""Bytes that are read at each place."""
_IMPL_WORDS = 24
"""Of a `TensorImpl`; it has no fewer in any PyTorch 2."""
_STORAGE_WORDS = 8
_COUNTER_WORDS = 3
_VERSION_BITS = 0xFFFFFFFF

dict_version: Callable[[dict[str, object]], int] | None = getattr(
    getattr(getattr(torch._C, "_dynamo", None), "guards", None), "dict_version", None
)
"""Changes with any write to a dictionary: what PyTorch's own compiler notices changes by."""


class Words:
    """The words at some addresses, as they were at one moment."""

    def __init__(self, addresses: Sequence[int]) -> None:
        """Remember what is there now.

        Args:
            addresses: At least one; multiples of `WORD`, in memory that exists whenever it is read.
        """
        low = min(addresses)
        memory = (ctypes.c_char * (max(addresses) - low + WORD)).from_address(low)
        self._low = low
        self._take = numpy.frombuffer(memoryview(memory), dtype=numpy.int64).take
        self._places = (numpy.array(addresses, dtype=numpy.int64) - low) // WORD
        self.then = self.now()

    def now(self) -> bytes:
        """What is there, one word after the other."""
        found: bytes = self._take(self._places).tobytes()
        return found

    def hold(self) -> bool:
        """Whether all are as they were."""
        return bool(self._take(self._places).tobytes() == self.then)

    def addresses(self) -> list[int]:
        """Where they are."""
        found: list[int] = (self._places * WORD + self._low).tolist()
        return found

    def values(self) -> list[int]:
        """The words as they were."""
        return memoryview(self.then).cast("q").tolist()


def together(*some: Words | None) -> Words | None:
    """The same words, read in one step; None where some are unknown."""
    known = [words for words in some if words is not None]
    return Words([place for words in known for place in words.addresses()]) if len(known) == len(some) else None


def can_read() -> bool:
    """Whether memory can be read in this way at all."""
    return numpy is not None and sys.implementation.name == "cpython" and sys.byteorder == "little"


def of_tensors(tensors: Sequence[torch.Tensor]) -> tuple[Words, Words, Words] | None:
    """Find the words that tell when tensors change, except for writes to their memory that PyTorch does not count.

    Args:
        tensors: Plain ones with strides, which must live as long as their words are read.

    Returns:
        What must hold. Each may only be read while those before hold: they tell that its memory still exists. None
        where it is unknown.
    """
    layout = _tensor_layout()
    if layout is None or not tensors or any(tensor.dim() > layout.most_dims for tensor in tensors):
        return None
    objects = Words([id(tensor) + layout.impl for tensor in tensors])
    if objects.values() != [tensor._cdata for tensor in tensors]:
        return None
    storages = [tensor.untyped_storage() for tensor in tensors]
    places, expected = [], []
    for tensor, storage in zip(tensors, storages, strict=True):
        of_dims = [WORD * dim for dim in range(tensor.dim())]
        places += [tensor._cdata + place for place in (layout.storage, layout.offset, layout.dim)]
        places += [tensor._cdata + start + place for start in (layout.sizes, layout.strides) for place in of_dims]
        expected += [storage._cdata, tensor.storage_offset(), tensor.dim(), *tensor.shape, *tensor.stride()]
    impls = Words([*places, *(tensor._cdata + layout.counter for tensor in tensors)])
    told, counters = impls.values()[: len(places)], impls.values()[len(places) :]
    if told != expected:
        return None
    data = [storage._cdata + layout.data for storage in storages]
    behind = Words([*data, *(counter + layout.version for counter in counters)])
    expected = [storage.data_ptr() for storage in storages] + [tensor._version for tensor in tensors]
    told = behind.values()[: len(data)] + [version & _VERSION_BITS for version in behind.values()[len(data) :]]
    return (objects, impls, behind) if told == expected else None


def of_dict_versions(dictionaries: Sequence[dict[str, object]]) -> Words | None:
    """Find the words that change with any write to these dictionaries, which must live; None where that is unknown."""
    return _of_dicts(
        dictionaries, _dict_layout().version, [] if dict_version is None else map(dict_version, dictionaries)
    )


def of_dict_sizes(dictionaries: Sequence[dict[str, object]]) -> Words | None:
    """Find the words that hold the sizes of these dictionaries, which must live; None where that is unknown."""
    return _of_dicts(dictionaries, _dict_layout().used, map(len, dictionaries))


def _of_dicts(dictionaries: Sequence[dict[str, object]], place: int | None, expected: Iterable[int]) -> Words | None:
    if place is None or not dictionaries:
        return None
    words = Words([id(each) + place for each in dictionaries])
    return words if words.values() == [*expected] else None


@dataclass(frozen=True, slots=True)
class _TensorLayout:
    """Where the words lie, in bytes from the beginning of what holds them."""

    impl: int
    """In the Python object: where its `TensorImpl` is."""
    storage: int
    """In the `TensorImpl`, like all until `strides`: where its `StorageImpl` is."""
    counter: int
    """Where its `VersionCounter` is."""
    offset: int
    dim: int
    sizes: int
    strides: int
    data: int
    """In the `StorageImpl`: where its memory begins."""
    version: int
    """In the `VersionCounter`."""

    @property
    def most_dims(self) -> int:
        """Dimensions up to which sizes and strides are kept inside."""
        return (self.strides - self.sizes) // WORD


@dataclass(frozen=True, slots=True)
class _DictLayout:
    """Where the words lie, in bytes from the beginning of a dictionary; None where that was not found."""

    used: int | None = None
    version: int | None = None


@functools.cache
def _tensor_layout() -> _TensorLayout | None:
    if not can_read():
        return None
    try:
        with torch.inference_mode(False), torch.no_grad():
            return _found_tensor_layout()
    except LookupError as error:
        log.debug("tensors are asked one by one: %s", error)
        return None


def _found_tensor_layout() -> _TensorLayout:
    """Find the words of tensors whose sizes, strides and offset are numbers that nothing else will be.

    Some words hold what was there before, so it takes several tensors, and as many dimensions as are kept inside.
    """
    sizes, strides, offsets = (2, 3, 5, 7, 11), (1009, 1013, 1019, 1021, 1031), (12347, 12373, 12377, 12379)
    tensors = [torch.zeros(50_000, device="cpu").as_strided(sizes, strides, offset) for offset in offsets]
    aliases = [tensor.detach() for tensor in tensors]  # each shares storage and version counter with its tensor
    impls, others = ([_read(tensor._cdata, _IMPL_WORDS) for tensor in each] for each in (tensors, aliases))
    one, impl = tensors[0], impls[0]
    columns, shared = [*zip(*impls, strict=True)], [*zip(*others, strict=True)]
    storages = tuple(tensor.untyped_storage()._cdata for tensor in tensors)
    storage, offset = _place(columns, storages), _place(columns, offsets)
    counters = [
        place
        for place, words in enumerate(columns)
        if words == shared[place] and len({*words}) == len(words) and words not in (storages, offsets)
    ]
    if len(counters) != 1:
        raise LookupError(f"{len(counters)} words may be the version counter")
    first, third = _place(impl, *sizes), _place(impl, *strides)
    if third - first != len(sizes) * WORD or impl[first // WORD - 1] != len(sizes):
        raise LookupError("sizes and strides are not kept in order")
    before = _read(impl[counters[0]], _COUNTER_WORDS)
    one.zero_()
    written = [now - then for now, then in zip(_read(impl[counters[0]], _COUNTER_WORDS), before, strict=True)]
    # Of this one memory and owner are at different addresses.
    buffer = torch.frombuffer(bytearray(64), dtype=torch.uint8).untyped_storage()
    return _TensorLayout(
        impl=_place(_read(id(one), torch.Tensor.__basicsize__ // WORD), one._cdata),
        storage=storage,
        counter=counters[0] * WORD,
        offset=offset,
        dim=first - WORD,
        sizes=first,
        strides=third,
        data=_place(_read(buffer._cdata, _STORAGE_WORDS), buffer.data_ptr()),
        version=_place(written, 1),
    )


@functools.cache
def _dict_layout() -> _DictLayout:
    if not can_read():
        return _DictLayout()
    examples = [dict.fromkeys(map(str, range(count))) for count in (0, 3, 1000)]
    words = [_read(id(each), dict.__basicsize__ // WORD) for each in examples]
    versions = [] if dict_version is None else [*map(dict_version, examples)]
    places = range(len(words[0]))
    return _DictLayout(
        used=next((WORD * place for place in places if [each[place] for each in words] == [0, 3, 1000]), None),
        version=next((WORD * place for place in places if [each[place] for each in words] == versions), None),
    )


def _read(address: int, count: int) -> list[int]:
    return (ctypes.c_int64 * count).from_address(address)[:]


def _place(words: Sequence[object], *wanted: object) -> int:
    """Where the only words with these values are, one behind the other, in bytes.

    Raises:
        LookupError: when none or several have them.
    """
    places = range(len(words) - len(wanted) + 1)
    found = [place for place in places if (*words[place : place + len(wanted)],) == wanted]
    if len(found) != 1:
        raise LookupError(f"{len(found)} words are {wanted}")
    return found[0] * WORD
