"""What a stretch took, and how fast the processor was then: a core that two programs share is slower for both."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

THREADS = "/proc/self/task"
RESOLUTION = 0.002
"""Seconds for which nothing is asked again: a call that somebody interrupts takes longer than that."""
WORK = range(2500)
"""What is added up to see how fast the processor is: a tenth of a millisecond of work that needs no memory."""
TRIES = 2
"""How often, one after the other; the quickest counts, as the others may have been interrupted."""
NEGLIGIBLE = 0.02
"""Share of a call that its threads may wait for a core before the call counts as disturbed."""
SERIAL = 1.05
"""Threads at work in a call (running, or waiting for a core) up to which the work counts as that of one thread."""


class Moment(NamedTuple):
    """A point in time; the difference of two is what lies between, in seconds."""

    wall: float
    cpu: float
    """All threads together."""
    waited: float
    """All threads together; 0 where the operating system does not tell."""
    pace: float = 0.0
    """Of a point in time: what a fixed piece of work takes then. Of a stretch: the mean of both ends."""

    def since(self, earlier: Moment, overhead: float = 0.0) -> Moment:
        """What lies between, without what the probes themselves took (which is work of one thread)."""
        cpu = max(self.cpu - earlier.cpu - overhead, 0.0)
        pace = (self.pace + earlier.pace) / 2
        return Moment(self.wall - earlier.wall - overhead, cpu, self.waited - earlier.waited, pace)

    @property
    def calm(self) -> bool:
        """Whether this stretch tells how long it takes on a quiet machine.

        The threads hardly waited, or only one was at work: then its waiting can be told from its working.
        """
        return self.waited <= NEGLIGIBLE * self.wall or self.cpu + self.waited <= SERIAL * self.wall


class Moments:
    """Tells the time. The waiting time comes from the scheduler (Linux), for all threads of this process."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._waited: dict[str, int] = {}
        self._ended = 0
        """Nanoseconds that threads have waited which are no more."""
        self._total = 0.0
        self._asked = 0.0
        self._lock = threading.Lock()
        self._works = Path(THREADS).is_dir()
        self._pace = 0.0
        self._paced = 0.0

    def begin(self) -> Moment:
        """Now, in front of what is timed: the wall time is taken last."""
        waited, pace, cpu = self._wait_seconds(), self._pace_now(), time.process_time()
        return Moment(time.perf_counter(), cpu, waited, pace)

    def end(self) -> Moment:
        """Now, behind what was timed: the wall time is taken first."""
        wall, cpu = time.perf_counter(), time.process_time()
        return Moment(wall, cpu, self._wait_seconds(), self._pace_now())

    def _pace_now(self) -> float:
        if time.perf_counter() - self._paced > RESOLUTION:
            self._pace = min(_seconds_of_work() for _ in range(TRIES))
            self._paced = time.perf_counter()
        return self._pace

    def _wait_seconds(self) -> float:
        due = self._works and time.perf_counter() - self._asked > RESOLUTION
        if due and self._lock.acquire(blocking=False):  # Another thread that asks just now answers for all.
            # A script may have closed our files, and opened its own under their numbers: then there is no telling.
            try:
                self._ask()
            except (OSError, ValueError, IndexError):
                self._works = False
            finally:
                self._asked = time.perf_counter()
                self._lock.release()
        return self._total

    def _ask(self) -> None:
        threads = os.listdir(THREADS)  # noqa: PTH208 - this runs between calls that are timed
        for thread in threads:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # It has just ended.
                if thread not in self._files:
                    self._files[thread] = os.open(f"{THREADS}/{thread}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
                self._waited[thread] = int(os.pread(self._files[thread], 96, 0).split()[1])
        for thread in self._files.keys() - set(threads):
            os.close(self._files.pop(thread))
            self._ended += self._waited.pop(thread, 0)
        self._total = (self._ended + sum(self._waited.values())) / 1e9


def _seconds_of_work() -> float:
    began = time.perf_counter()
    sum(WORK)
    return time.perf_counter() - began
