"""What the operating system says about this process: memory, time spent waiting for a core, versions."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from pathlib import Path

ENGINES = (
    "torch",
    "torchvision",
    "torchao",
    "transformers",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "intel_extension_for_pytorch",
    "triton",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that matter, as far as the script imported them."""
    found = {"python": platform.python_version()}
    for name in ENGINES:
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            found[name] = str(version)
    return found


def peak_memory_bytes() -> int:
    """The most memory that this process or one of its ended children has used."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    users = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(user).ru_maxrss for user in users) * unit


NOBODY = 0.05
"""Share of the machine that others may use before waiting for a core is their fault; clocks that tick 100 times a
second tell no finer. Below it, the script's own processes get into each other's way, as they always will."""

CoreTimes = tuple[int, int, int]
"""Clock ticks in which a core was busy, idle, and taken away by the hypervisor."""


class Snapshot:
    """How long threads have run and waited up to now; two of them tell how disturbed the time between was."""

    def __init__(self) -> None:
        self._threads = _thread_times()
        self._cores = _core_times()
        self._own = _own_ticks()

    def disturbed(self, later: Snapshot) -> float:
        """Share of the time between the snapshots that threads waited for a core that others had, or lost one."""
        steal, others = self.stolen(later), self.others(later)
        if not others:
            return min(1.0, steal)
        ran = waited = 0
        for thread, (ran_later, waited_later) in later._threads.items():
            ran_before, waited_before = self._threads.get(thread, (0, 0))
            ran += ran_later - ran_before
            waited += waited_later - waited_before
        if ran + waited > 0:
            return min(1.0, waited / (ran + waited) + steal)
        # Without run-queue statistics: the share that others had of the cores, where no core was idle.
        return min(1.0, (others if self._share(later, 1) <= 0.1 else 0.0) + steal)

    def stolen(self, later: Snapshot) -> float:
        """Share of the cores' time that the hypervisor gave to other machines."""
        return self._share(later, 2)

    def others(self, later: Snapshot) -> float:
        """Share of the cores' time that went to other programs; 0 where it is too little to tell."""
        total = sum(sum(times) for times in _difference(self._cores, later._cores).values())
        share = self._share(later, 0) - (later._own - self._own) / total if total else 0.0
        return share if share > NOBODY else 0.0

    def _share(self, later: Snapshot, part: int) -> float:
        times = _difference(self._cores, later._cores).values()
        total = sum(sum(core) for core in times)
        return sum(core[part] for core in times) / total if total else 0.0


def _difference(before: dict[str, CoreTimes], after: dict[str, CoreTimes]) -> dict[str, CoreTimes]:
    return {
        core: (times[0] - before[core][0], times[1] - before[core][1], times[2] - before[core][2])
        for core, times in after.items()
        if core in before
    }


def _thread_times() -> dict[str, tuple[int, int]]:
    times: dict[str, tuple[int, int]] = {}
    with contextlib.suppress(OSError):
        for entry in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError, ValueError):
                ran, waited, _ = (entry / "schedstat").read_text(encoding="ascii").split()
                times[entry.name] = (int(ran), int(waited))
    return times


def _core_times() -> dict[str, CoreTimes]:
    if not hasattr(os, "sched_getaffinity"):
        return {}
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    times: dict[str, CoreTimes] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
            name, *fields = line.split()
            if name in mine:
                user, nice, system, idle, iowait, irq, softirq, steal = map(int, fields[:8])
                times[name] = (user + nice + system + irq + softirq, idle + iowait, steal)
    return times


def _own_ticks() -> float:
    """Of this process and of all that it has started, as far as they stay in its session."""
    if not hasattr(os, "getsid") or not Path("/proc/self/stat").exists():
        times = os.times()
        ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
        return (times.user + times.system + times.children_user + times.children_system) * ticks
    session = str(os.getsid(0))
    used = 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name of a program may hold anything, parentheses and blanks too; behind it come plain fields.
            fields = entry.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            if fields[3] == session:
                used += sum(map(int, fields[11:15]))
    return float(used)
