"""Keeps the inputs' digests and the outputs of the first calls, or compares them with those of another run."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import accelerated, compare, context, values
from .recorder import Watcher
from .sites import Site

log = logging.getLogger(__name__)

CALLS = 32
MOST_BYTES = 64 * 1024 * 1024
"""Bytes of outputs that are kept in all; the first call of a site is kept whatever its size."""
MOST_ROWS = 1024


class Kept:
    """One call: a digest of what went in, and what came out."""

    def __init__(self, digest: str, rows: list[str]) -> None:
        self.digest = digest
        self.rows = rows
        self.outputs: dict[str, Any] = {}
        self.unknown: list[str] = []
        self.call: context.Call | None = None
        """Set where the original has answered only until there is enough calibration data: it is made again."""

    def as_plain(self) -> dict[str, Any]:
        """The record on disk: tensors, numbers and texts only."""
        return {"digest": self.digest, "rows": self.rows, "outputs": self.outputs, "unknown": self.unknown}


class Captures(Watcher):
    """The first calls of each inference site."""

    def __init__(self, capture_to: str | None, compare_with: str | None) -> None:
        """Decide what is to be done with the calls.

        Args:
            capture_to: Folder to write them to.
            compare_with: Folder that another run has written.
        """
        self.comparison: dict[str, Any] | None = None
        self._capture_to = Path(capture_to) if capture_to else None
        self._compare_with = Path(compare_with) if compare_with else None
        self._kept: dict[str, list[Kept]] = {}
        self._bytes = 0

    def before(self, site: Site, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
        """Take the inputs' digest before the call may change them."""
        if not (self._capture_to or self._compare_with):
            return None
        kept = self._kept.get(site.name, ())
        if len(kept) >= CALLS or (kept and self._bytes > MOST_BYTES):
            return None
        return values.digest(args, kwargs), _row_digests(args, kwargs)

    def after(self, site: Site, call: context.Call, result: object, noted: object) -> None:
        """Keep the outputs."""
        if not isinstance(noted, tuple):
            return
        digest, rows = noted
        kept = Kept(digest, rows)
        kept.outputs, kept.unknown, size = outputs_of(result)
        if self._compare_with and accelerated.is_preparing(call.function):
            kept.call = call
        kept_before = self._kept.setdefault(site.name, [])
        if not kept_before or self._bytes + size <= MOST_BYTES:
            self._bytes += size
            kept_before.append(kept)

    def finish(self, *, whole: bool) -> None:
        """Write what was kept, or compare it.

        Args:
            whole: The script ran to its end: a site that was not reached will not be reached later.
        """
        if self._capture_to is not None:
            self._capture_to.mkdir(parents=True, exist_ok=True)
            for site, calls in self._kept.items():
                _write(self._capture_to, site, [kept.as_plain() for kept in calls])
        if self._compare_with is not None:
            baseline = _read_all(self._compare_with)
            self._settle(baseline)
            mine = {site: [kept.as_plain() for kept in calls] for site, calls in self._kept.items()}
            if baseline:
                self.comparison = compare.compare(baseline, mine, whole=whole)

    def _settle(self, baseline: dict[str, list[dict[str, Any]]]) -> None:
        """Make calls again that the original has answered for the time being; leave out those where that fails."""
        for site, calls in list(self._kept.items()):
            unclear = {place for place, kept in enumerate(calls) if kept.call is not None and not _made_again(kept)}
            self._kept[site] = [kept for place, kept in enumerate(calls) if place not in unclear]
            if unclear and site in baseline:
                baseline[site] = [call for place, call in enumerate(baseline[site]) if place not in unclear]
            if not self._kept[site]:
                del self._kept[site]
                baseline.pop(site, None)


def _made_again(kept: Kept) -> bool:
    """Put the answer of now in the place of the first one; False where there is no other, or other inputs."""
    call = kept.call
    assert call is not None
    if call.why_not_again() or values.digest(call.args, call.kwargs) != kept.digest:
        return False
    try:
        with call.again() as again:
            result = again()
    except Exception as error:  # a call of the script's own, at another time
        log.debug("A call could not be made again: %s", error)
        return False
    kept.outputs, kept.unknown, _ = outputs_of(result)
    return not accelerated.is_preparing(call.function)


def outputs_of(result: object) -> tuple[dict[str, Any], list[str], int]:
    """Take a result apart.

    Args:
        result: What a call returned.

    Returns:
        Tensors on the CPU, numbers and texts by name; the classes of what is none of these; the size in bytes.
    """
    outputs: dict[str, Any] = {}
    unknown: list[str] = []
    size = 0
    for name, leaf in values.leaves(result):
        plain = _plain(leaf)
        if plain is None:
            unknown.append(type(leaf).__qualname__)
            continue
        outputs[name or "output"] = plain
        size += plain.numel() * plain.element_size() if values.is_tensor(plain) else 64
    return outputs, unknown, size


def _plain(leaf: Any) -> Any:
    """A leaf as a tensor of its own, a number or a text; None for others."""
    torch: Any = sys.modules.get("torch")
    if isinstance(leaf, bytes):
        return hashlib.sha256(leaf).hexdigest()
    if isinstance(leaf, (bool, int, float, str)):
        return leaf
    if values.is_array(leaf):
        if torch is not None and leaf.dtype.kind in "biuf" and leaf.dtype.itemsize <= 8:
            return _from_array(torch, leaf)
        return json.dumps(leaf.tolist(), default=str)
    if values.is_tensor(leaf):
        with torch.inference_mode(False), torch.no_grad():
            dense = leaf.detach()
            dense = dense.dequantize() if dense.is_quantized else dense
            dense = dense.to_dense() if dense.layout is not torch.strided else dense
            return None if dense.device.type == "meta" else dense.cpu().clone(memory_format=torch.contiguous_format)
    return None


def _from_array(torch: Any, array: Any) -> Any:
    # PyTorch lacks most unsigned types; int64 holds all but the largest of their values.
    signed = array.astype("int64") if array.dtype.kind == "u" and array.dtype.itemsize > 1 else array.copy()
    return torch.from_numpy(signed.reshape(array.shape))


def _row_digests(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """A digest of each row of the first input, so that calls with other batch sizes can be compared."""
    first = next(
        (leaf for _, leaf in values.leaves((args, dict(kwargs))) if values.is_tensor(leaf) or values.is_array(leaf)),
        None,
    )
    if first is None or len(first.shape) == 0 or first.shape[0] > MOST_ROWS:
        return []
    return [values.digest((first[row],), {})[:16] for row in range(first.shape[0])]


# --- on disk: no pickled objects, only tensors, numbers and texts


def _write(folder: Path, site: str, calls: list[dict[str, Any]]) -> None:
    name = hashlib.sha256(site.encode()).hexdigest()[:16]
    torch: Any = sys.modules.get("torch")
    record = {"site": site, "calls": calls}
    if torch is not None:
        torch.save(record, folder / f"{name}.pt")
    else:
        (folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")


def _read_all(folder: Path) -> dict[str, list[dict[str, Any]]]:
    torch: Any = sys.modules.get("torch")
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    if torch is not None:
        records += [torch.load(file, weights_only=True) for file in sorted(folder.glob("*.pt"))]
    return {record["site"]: record["calls"] for record in records}
