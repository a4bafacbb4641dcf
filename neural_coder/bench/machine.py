"""What this machine and the user's Python offer."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def usable_cores() -> int:
    """Physical cores that this process may use: what PyTorch takes for its threads by default."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for number in os.sched_getaffinity(0):
        siblings = str(number)
        with contextlib.suppress(OSError):
            siblings = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").read_text("ascii")
        cores.add(siblings)
    return max(1, min(len(cores), _quota(len(cores))))


def _quota(cores: int) -> int:
    """Cores that the control group grants, rounded up."""
    for file in (Path("/sys/fs/cgroup/cpu.max"),):
        with contextlib.suppress(OSError, ValueError):
            quota, period = file.read_text("ascii").split()
            if quota != "max":
                return -(-int(quota) // int(period))
    return cores
