"""How much of a difference between two processes is the processor's own.

Two virtual cores are often two threads of one real core, or each shares one with somebody else's machine. A core whose
other thread is busy works at 60 % of its speed, for seconds, and neither waiting times nor stolen time tell of that. So
the worker times a small, fixed piece of work beside every call. Where that varies, it is a control variate: a figure
that is known to be the same in truth, and varies together with the one that is looked for (S. S. Lavenberg and
P. D. Welch, "A Perspective on the Use of Control Variables to Increase the Efficiency of Monte Carlo Simulations",
Management Science 27, 1981). It favours neither side, whatever share of it is taken into account, as long as the
programs themselves have nothing to do with it.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from neural_coder.records import Run, SiteTiming, Task

STEADY = 1.15
"""A processor whose slow moments (one in ten) and fast ones (one in ten) are closer than this is left alone."""
ALIKE = 1.1
"""So close (as a ratio) the fast moments of two programs must be. A program may slow the core down by itself, with
threads that spin behind a call or with instructions that lower its clock; that must not be put down to others."""
FOREHAND = 0.5
"""The share that is assumed before anything is known: convolutions and products of matrices showed 0.2 to 0.5 on one
or two threads, plain Python 1.0."""
WEIGHT = 0.02
"""How much variance of a run (of logarithms) that assumption is worth; a run that sees both speeds has 0.06."""
FARTHEST = 0.7
"""Logarithms of calls are believed so far from the middle: one that was interrupted says nothing of the processor."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The processor's usual speed, and how far calls follow it."""

    usual: float
    """Seconds of the piece of work."""
    share: float
    """A call takes `slower ** share` times as long when that takes `slower` times as long; 0 to 1."""

    def corrected(self, run: Run) -> Run:
        """The run as it would have been at the usual speed."""
        return replace(run, timings=tuple(self._corrected(timing) for timing in run.timings))

    def _corrected(self, timing: SiteTiming) -> SiteTiming:
        if not _is_known(timing):
            return timing
        factors = [(self.usual / seconds) ** self.share for seconds in timing.pace]

        def at_usual_speed(values: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(value * factor for value, factor in zip(values, factors, strict=False))

        return replace(
            timing,
            samples=at_usual_speed(timing.samples),
            cpu=at_usual_speed(timing.cpu),
            waited=at_usual_speed(timing.waited),
        )


def at_usual_speed(sides: Sequence[Sequence[Run]], task: Task | None) -> list[list[Run]]:
    """The runs, corrected where the processor changed its speed between or within them; see `learn`."""
    pace = learn(sides, task)
    return [[pace.corrected(run) if pace else run for run in runs] for runs in sides]


def learn(sides: Sequence[Sequence[Run]], task: Task | None) -> Pace | None:
    """How calls depend on the processor's speed, as far as these runs show it.

    Args:
        sides: Runs of one program each.
        task: Inference calls or training steps; None: both.

    Returns:
        None where there is nothing to correct (a steady processor), or nothing to correct it by: times that are not
        there, come from different versions of Python, or from programs that have not met the same fast moments.
    """
    groups: dict[tuple[int, str], list[SiteTiming]] = defaultdict(list)
    for number, runs in enumerate(sides):
        for run in runs:
            for timing in run.timings:
                if timing.samples and task in (None, timing.kind):
                    groups[number, timing.site].append(timing)
    seconds = _paces(groups.values())
    versions = {run.versions.get("python") for runs in sides for run in runs}
    known = all(_is_known(timing) for timings in groups.values() for timing in timings)
    if not known or len(versions) != 1 or _spread(seconds) < STEADY:
        return None
    if {number for number, _ in groups} != set(range(len(sides))):
        return None  # One of the programs was never measured.
    fast = [
        _tenth(_paces(each for (side, _), each in groups.items() if side == number)) for number in range(len(sides))
    ]
    if max(fast) > ALIKE * min(fast):
        return None
    together, alone = WEIGHT * FOREHAND, WEIGHT
    for timings in groups.values():
        speeds = _centred(_paces([timings]))
        calls = _centred([one for timing in timings for one in timing.samples])
        together += len(timings) * statistics.fmean(x * y for x, y in zip(speeds, calls, strict=True))
        alone += len(timings) * statistics.fmean(x * x for x in speeds)
    return Pace(usual=statistics.median(seconds), share=min(1.0, max(0.0, together / alone)))


def difference(runs: Sequence[Run]) -> float:
    """How far apart the processor's speeds were in these runs: 0.6 when it was 1.6 times as fast in one of them."""
    usual = [statistics.median(timing.pace) for run in runs for timing in run.timings if _is_known(timing)]
    return max(usual) / min(usual) - 1 if usual else 0.0


def _is_known(timing: SiteTiming) -> bool:
    return len(timing.pace) == len(timing.samples) > 0 and min(*timing.pace, *timing.samples) > 0


def _paces(groups: Iterable[Sequence[SiteTiming]]) -> list[float]:
    return [seconds for timings in groups for timing in timings for seconds in timing.pace]


def _spread(seconds: Sequence[float]) -> float:
    """The slow moments in units of the fast ones."""
    return _tenth(seconds, -1) / _tenth(seconds) if seconds else 1.0


def _tenth(seconds: Sequence[float], which: int = 0) -> float:
    """What the fastest tenth stays below; with -1, what only the slowest tenth goes beyond."""
    several = [*seconds, *seconds]  # quantiles() wants two figures at least
    return statistics.quantiles(several, n=10, method="inclusive")[which]


def _centred(values: Sequence[float]) -> list[float]:
    """Logarithms around their middle; those far away no farther than `FARTHEST`."""
    logs = [math.log(value) for value in values]
    middle = statistics.median(logs)
    kept = [max(-FARTHEST, min(FARTHEST, value - middle)) for value in logs]
    mean = statistics.fmean(kept)
    return [value - mean for value in kept]
