"""What is known about one site while the script runs: its timings, and whether they are enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .moments import Moment

if TYPE_CHECKING:
    from .context import Call

STARTUP_LIMIT = 400
"""Calls after which a site counts as started even if something still compiles in each."""
EXTRA = 4
"""How many times as long a site is sampled, at most, while other programs disturb its calls."""


class Sampling:
    """When a site has been measured enough; see `neural_coder.bench.protocol.Sampling`."""

    def __init__(
        self, *, warmup: int, min_samples: int, max_samples: int, min_seconds: float, max_seconds: float
    ) -> None:
        self.warmup = warmup
        self.min_samples = min_samples
        self.max_samples = max_samples
        self.min_seconds = min_seconds
        self.max_seconds = max_seconds

    def one(self) -> Sampling:
        """One sample is enough."""
        return Sampling(warmup=self.warmup, min_samples=1, max_samples=1, min_seconds=0.0, max_seconds=self.max_seconds)


class Site:
    """The timings of one site."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.calls = 0
        self.warmup: list[float] = []
        self.samples: list[float] = []
        self.cpu: list[float] = []
        """CPU time of each sample, all threads together."""
        self.waited: list[float] = []
        """How long the threads had to wait for a core in each sample."""
        self.pace: list[float] = []
        """How fast the processor was in each sample: seconds of a fixed piece of work."""
        self.sizes: set[int | None] = set()
        self.last_end = 0.0
        self.last_call: Call | None = None
        self._warm = 0
        self._calm = 0

    def add(self, taken: Moment, sampling: Sampling, *, startup: bool) -> None:
        """Take the time of one call.

        Args:
            taken: How long it took.
            sampling: What counts as warm-up.
            startup: Something was compiled or converted in this call, or has yet to be: it is no sample, and the
                warm-up starts again behind it.
        """
        seconds = taken.wall
        if startup and len(self.warmup) < STARTUP_LIMIT:
            self._warm = 0
            self.warmup.append(seconds)
        elif self._warm < sampling.warmup and not self._warm_long_enough(sampling):
            self._warm += 1
            self.warmup.append(seconds)
        elif len(self.samples) < sampling.max_samples * (1 if self.calm(sampling) else EXTRA):
            self.samples.append(seconds)
            self.cpu.append(taken.cpu)
            self.waited.append(taken.waited)
            self.pace.append(taken.pace)
            self._calm += taken.calm

    def _warm_long_enough(self, sampling: Sampling) -> bool:
        # Where one call takes half a minute, a third one for warming up would eat the time for samples.
        return self._warm >= 1 and sum(self.warmup[-self._warm :]) > sampling.max_seconds

    def restart(self, items: int) -> None:
        """Forget what was measured: from now on calls have so many items."""
        self.warmup, self.samples, self.cpu, self.waited, self.pace = [], [], [], [], []
        self.sizes, self._warm, self._calm = {items}, 0, 0

    def is_warm(self, sampling: Sampling) -> bool:
        """Whether the next call gives the first sample."""
        return not self.samples and (self._warm >= sampling.warmup or self._warm_long_enough(sampling))

    def enough(self, sampling: Sampling) -> bool:
        """Whether the samples are enough."""
        count, seconds = len(self.samples), sum(self.samples)
        if count >= sampling.max_samples or (count >= 1 and seconds >= sampling.max_seconds):
            return True
        return count >= sampling.min_samples and seconds >= sampling.min_seconds

    def calm(self, sampling: Sampling) -> bool:
        """Whether enough of the samples were taken in peace."""
        return self._calm >= min(sampling.min_samples, sampling.max_samples)

    def may_go_on(self, sampling: Sampling) -> bool:
        """Whether more samples may be taken, beyond what is enough, in the hope for calm ones."""
        seconds, most = sum(self.samples), min(EXTRA * sampling.min_seconds, sampling.max_seconds)
        return seconds < most and len(self.samples) < EXTRA * sampling.max_samples

    def see_size(self, size: int | None) -> None:
        """Note how many items a call had."""
        if len(self.sizes) < 100:
            self.sizes.add(size)

    def as_json(self) -> dict[str, Any]:
        """The record for the parent: a `SiteTiming`."""
        items = next(iter(self.sizes)) if len(self.sizes) == 1 else None
        return {
            "site": self.name,
            "kind": self.kind,
            "calls": self.calls,
            "warmup": self.warmup,
            "samples": self.samples,
            "cpu": self.cpu,
            "waited": self.waited,
            "pace": self.pace,
            "items": items,
        }


class StepClock:
    """Measures training steps: from the first forward after the last step's end to the end of this one."""

    def __init__(self) -> None:
        self._start: Moment | None = None
        self._overhead = 0.0
        self._graphs = 0
        self._size: int | None = None

    def open(self, start: Moment, overhead: float, graphs: int, size: int | None) -> None:
        """A forward began at `start`; it opens a step unless one is open."""
        if self._start is None:
            self._start, self._overhead, self._graphs, self._size = start, overhead, graphs, size

    @property
    def is_open(self) -> bool:
        """Whether a forward has been seen since the last step's end."""
        return self._start is not None

    def close(
        self, site: Site, sampling: Sampling, *, start: Moment, end: Moment, overhead: float, graphs: int
    ) -> None:
        """The step ended at `end`, with the call that began at `start`; `overhead` is what probes cost so far."""
        if self._start is None:
            self.open(start, overhead, graphs, None)
        begin = start if self._start is None else self._start
        site.calls += 1
        site.see_size(self._size)
        site.last_end = end.wall
        site.add(end.since(begin, overhead - self._overhead), sampling, startup=graphs != self._graphs)
        self._start = None
