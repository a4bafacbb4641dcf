"""The calls on which static quantization finds its scales: the first ones of the script, or data that it was given."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping

import torch

from neural_coder.runtime.engine import CannotConvert
from neural_coder.runtime.structure import Call, tensors_of

log = logging.getLogger(__name__)

MIN_CALLS = 4
"""Calls that are looked at even where one of them holds enough samples: what one batch has in common says little."""
MAX_BYTES = 512_000_000
"""Inputs that are kept; beyond that, fewer samples must do."""
MAX_SAMPLES = 300
"""Samples that are taken of data that was given; NNCF looks at as many by default."""


class Calibration:
    """Collects calls until there are enough."""

    def __init__(self, wanted: int | Iterable[object]) -> None:
        """Collect nothing yet.

        Args:
            wanted: The number of samples, or the data to take them from.
        """
        self._wanted = wanted if isinstance(wanted, int) else MAX_SAMPLES
        self._data = None if isinstance(wanted, int) else wanted
        self.calls: list[Call] = []
        self._samples = 0
        self._bytes = 0
        self._was_given = False

    @property
    def is_complete(self) -> bool:
        """Whether there are enough samples."""
        if self._was_given or self._bytes >= MAX_BYTES:
            return True
        return self._samples >= self._wanted and len(self.calls) >= min(MIN_CALLS, self._wanted)

    def progress(self) -> str:
        """What is still missing, in words."""
        calls = "" if self._samples < self._wanted else f", and {len(self.calls)} of {MIN_CALLS} calls"
        return f"it collects calibration data: {min(self._samples, self._wanted)} of {self._wanted} samples{calls}"

    def see(self, call: Call) -> None:
        """Keep a copy of a call, if it is of the same kind as the first one; read the given data at the first."""
        if self._data is not None:
            data, self._data = self._data, None
            self._read(data, call)
            self._was_given = True
        elif not self.calls or self.calls[0].key == call.key:
            self._keep(call)

    def _keep(self, call: Call) -> None:
        kept = call.with_tensors(lambda tensor: tensor.detach().clone())
        self.calls.append(kept)
        tensors = kept.leaves.tensors
        self._samples += max((tensor.shape[0] for tensor in tensors[:1] if tensor.dim()), default=1)
        self._bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _read(self, data: Iterable[object], like: Call) -> None:
        seen = 0
        for item in data:
            seen += 1
            call = _matching(item, like)
            if call is not None:
                self._keep(call)
            if self._samples >= MAX_SAMPLES or self._bytes >= MAX_BYTES:
                break
        if not self.calls:
            raise CannotConvert(
                f"none of the {seen} items of the calibration data can be an input of its call; give what the model "
                "is called with: a tensor, a tuple of positional arguments or a dictionary of keyword arguments"
            )
        log.debug("%d of %d items of the calibration data fit the call", len(self.calls), seen)


def identity(wanted: int | Iterable[object]) -> str:
    """What tells calibration data from other data, without reading through a data set.

    Tensors that lie in memory count with their values, other data by what it is and how much there is of it.
    """
    if isinstance(wanted, int):
        return str(wanted)
    if isinstance(wanted, (list, tuple)):
        found = hashlib.sha256()
        for tensor in tensors_of(list(wanted)):
            values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(memoryview(values))
        return found.hexdigest()
    parts = [wanted, *(getattr(wanted, name, None) for name in ("dataset", "batch_size"))]
    return " ".join(_kind_and_size(part) for part in parts if part is not None)


def _kind_and_size(part: object) -> str:
    if isinstance(part, int):
        return str(part)
    try:
        size = len(part)  # type: ignore[arg-type]
    except TypeError:  # it has none: a generator, say
        size = -1
    return f"{type(part).__module__}.{type(part).__qualname__} {size}"


def _matching(item: object, like: Call) -> Call | None:
    """The part of an item of a data set that looks like a call: a batch often holds labels, too."""
    candidates: list[Call] = []
    if isinstance(item, Mapping):
        known = {name: item[name] for name in like.kwargs if name in item}
        rest = {name: value for name, value in like.kwargs.items() if name not in known}
        candidates.append(Call(like.args, {**known, **rest}) if known else Call((item,), like.kwargs))
    if isinstance(item, (tuple, list)):
        candidates.append(Call((*item[: len(like.args)], *like.args[len(item) :]), like.kwargs))
        if not like.args:
            candidates.append(Call((), dict(zip(like.kwargs, item, strict=False))))
    candidates.append(Call((item, *like.args[1:]), like.kwargs) if like.args else Call((), _first(like, item)))
    return next((call for call in candidates if call.key == like.key), None)


def _first(like: Call, item: object) -> dict[str, object]:
    return {name: item if place == 0 else value for place, (name, value) in enumerate(like.kwargs.items())}
