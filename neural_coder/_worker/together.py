"""Processes that run at the same time: each on cores of its own, and all of them measuring while the others do."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

POLL = 0.002
"""Seconds between two looks at who has come."""


def bind(cores: Sequence[int]) -> None:
    """Let this process, and all threads that it will start, run on these logical CPUs only.

    Args:
        cores: Their numbers; none: nothing changes.
    """
    if cores:
        os.sched_setaffinity(0, cores)


def placement() -> dict[str, Any]:
    """Where this process may run, and with how many threads PyTorch computes."""
    torch: Any = sys.modules.get("torch")
    return {
        "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
        "threads": int(torch.get_num_threads()) if hasattr(torch, "get_num_threads") else None,
    }


class Meeting:
    """Lets none of some processes begin before all are warm, and none stop before all have enough."""

    def __init__(self, spec: Mapping[str, Any] | None, seconds: float) -> None:
        """Know the others.

        Args:
            spec: The job's `Meeting`; None: there are no others.
            seconds: Time after which nobody is waited for.
        """
        self._folder = Path(spec["folder"]) if spec else None
        self._number = int(spec["number"]) if spec else 0
        self._missing = {name: list(range(spec["count"] if spec else 0)) for name in ("ready", "enough")}
        self._left: set[str] = set()
        self._deadline = time.perf_counter() + seconds

    def begin(self) -> None:
        """Wait until all are warm."""
        while not self._have_all("ready") and time.perf_counter() < self._deadline:
            time.sleep(POLL)

    def over(self) -> bool:
        """Say that this process has enough; whether all have."""
        return self._have_all("enough") or time.perf_counter() >= self._deadline

    def leave(self) -> None:
        """Let the others no longer wait for this process."""
        self._have_all("ready")
        self._have_all("enough")

    def _have_all(self, name: str) -> bool:
        if self._folder is None:
            return True
        if name not in self._left:
            (self._folder / f"{name}-{self._number}").touch()
            self._left.add(name)
        missing = self._missing[name]
        while missing and os.path.exists(self._folder / f"{name}-{missing[-1]}"):  # noqa: PTH110 - the fastest way to ask
            missing.pop()
        return not missing
