"""Whether a converted copy fits into memory, asked before the machine starts to swap."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Memory that can be had without swapping, within the limits of a container; None where nobody says."""
    known = [bytes_ for bytes_ in (_system_bytes(), _container_bytes()) if bytes_ is not None]
    return min(known, default=None)


def shortage(model: torch.nn.Module, factor: float) -> str:
    """Say why `factor` times the weights of `model` do not fit into memory; empty when they do.

    Weights on another device than the CPU are not counted.
    """
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.device.type == "cpu"}
    needed = factor * sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    available = available_bytes()
    if available is None or needed <= available:
        return ""
    return f"converting needs about {needed / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are free"


def _system_bytes() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:  # not Linux
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(sizes[0]) * 1024 if sizes else None


def _container_bytes() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no control group of version 2 with a limit
        return None
    if not limit.isdigit():
        return None
    cached = int(statistics.get("inactive_file", 0))  # files that were read, and that the kernel drops when asked
    return max(0, int(limit) - used + cached)
