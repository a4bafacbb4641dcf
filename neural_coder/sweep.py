"""A sweep over run configurations: the original and the best variants, in several processes, threads and batch sizes.

It comes after the race, has its own share of the time, and says of what it did not reach that it was not measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from neural_coder import candidate, configurations, planner
from neural_coder.analysis import Project
from neural_coder.batching import Way, ways
from neural_coder.bench import accuracy, stats
from neural_coder.bench.machine import physical_cores
from neural_coder.bench.protocol import Job
from neural_coder.candidate import Candidate
from neural_coder.race import Bench, Clock, Say, safety_of, without_effect
from neural_coder.records import (
    Accuracy,
    Analysis,
    ConfigurationResult,
    Feature,
    Interval,
    Mode,
    Run,
    RunConfiguration,
    Safety,
    Sweep,
    SweepStatus,
    Task,
)
from neural_coder.units import count, percent
from neural_coder.verdict import describe_ending

SHARE = 0.3
"""Of the time budget, where a sweep is asked for."""
ROUNDS = 3
MOST_VARIANTS = 3
"""Besides the original."""
NOT_BOUND = (
    "Processes cannot be bound to cores on this system: instances shared all of them, and only the number of threads "
    "was set."
)

INTERRUPTED = "The measurement of run configurations was interrupted; those that are not measured were still to come."


@dataclass(slots=True)
class Entry:
    """One variant in one configuration, and what its rounds gave."""

    configuration: RunConfiguration
    variant: Candidate | None
    """None: the original."""
    rounds: list[tuple[Run, ...]] = field(default_factory=list)
    """For each round the runs of all instances."""
    status: SweepStatus = "not_measured"
    reason: str = "The time budget ended before its turn; a larger --budget gives it one."
    way: Way | None = None
    result: ConfigurationResult | None = None


@dataclass(slots=True, kw_only=True)
class Sweeper:
    """Runs a sweep."""

    bench: Bench
    task: Task
    first: Run
    control: Run
    project: Project
    analyses: Sequence[Analysis]
    always: tuple[Feature, ...] = ()
    """Features that the original itself needs here."""
    clock: Clock
    say: Say
    ways: dict[int, Way] = field(default_factory=dict)
    """How the script was given a batch size, by that."""
    notes: dict[str, None] = field(default_factory=dict)

    def run(self, wanted: Mode | None, asked: Sequence[RunConfiguration], variants: Sequence[Candidate]) -> Sweep:
        """Measure all configurations of the original and of some variants, the leaders several times.

        Args:
            wanted: The mode, to say which of the results counts.
            asked: The configurations, the usual one first.
            variants: Besides the original.
        """
        own = self._own_size()
        asked = [
            one for one in asked if one.batch_size != own or own is None or replace(one, batch_size=None) not in asked
        ]
        entries = [Entry(one, variant) for one in asked for variant in (None, *variants)]
        try:
            self._rounds(entries)
        except KeyboardInterrupt:
            # The search itself is over: what it found, and what was measured so far, is not to be lost.
            self.notes[INTERRUPTED] = None
        results = [self._result(entry) for entry in entries]
        measured = [result for result in results if result.status == "measured"]
        if not physical_cores():
            self.notes[NOT_BOUND] = None
        return Sweep(
            mode=wanted,
            unit=self._unit,
            results=tuple(results),
            best_latency=min(measured, key=_latency, default=None),
            best_throughput=max(measured, key=_throughput, default=None),
            notes=tuple(self.notes),
        )

    def _rounds(self, entries: Sequence[Entry]) -> None:
        for number in range(ROUNDS):
            turn = entries if number == 0 else self._leaders(entries)
            for entry in (*turn[number:], *turn[:number]):
                if self.clock.allows(self._cost(entry)):
                    self.say(f"run configurations, round {number + 1}: {self._name(entry)}")
                    self._measure(entry)

    # --- one entry

    def _measure(self, entry: Entry) -> None:
        size = entry.configuration.batch_size
        if size is None or size == self._own_size():
            job = self.bench.job_of(entry.variant)
            self._take(entry, None, self._run(entry, job, fresh=False))
            return
        if self.task == "training":
            entry.status, entry.reason = "declined", "The batch size is part of how a script trains."
            return
        reasons: list[str] = []
        for way, job in self._jobs(entry, size, reasons.append):
            runs = self._run(entry, job, fresh=not entry.rounds)
            if all(run.ok for run in runs) and not _has_size(runs[0], self._weights, size):
                reasons.append(f"{way.words}, but the model still got other batches")
                continue
            if way.kind != "inputs" or runs[0].ending.kind != "no_calls":
                self.ways.setdefault(size, way)
                self._take(entry, way, runs)
                return
            reasons.append(runs[0].ending.message)
        entry.status, entry.reason = "declined", f"Batches of {size} could not be formed: {'; '.join(reasons)}."

    def _jobs(self, entry: Entry, size: int, decline: Callable[[str], None]) -> Iterator[tuple[Way, Job]]:
        """The ways to give the script another batch size, the most honest first; all variants go the same way."""
        known = self.ways.get(size)
        for way in [known] if known else ways(size, self.bench.job.args):
            if way.kind == "inputs":
                yield way, replace(self.bench.job_of(entry.variant), items=size, compare_with=None)
            elif way.kind == "argument":
                yield way, replace(self.bench.job_of(entry.variant), args=way.args)
            else:
                features = entry.variant.plan.features if entry.variant else self.always
                plan = planner.plan_for([*features, Feature(name="batch_size", value=str(size))], self.task)
                built = candidate.build(plan, self.project, self.analyses)
                if isinstance(built, Candidate):
                    yield way, self.bench.job_of(built)
                else:
                    decline(built.reason)

    def _run(self, entry: Entry, job: Job, *, fresh: bool) -> tuple[Run, ...]:
        """Run all instances of a configuration at once.

        Args:
            entry: Which configuration.
            job: What each of them does.
            fresh: The answers are new: the user's metrics are looked at again.
        """
        if job.items is None:
            job = replace(
                job, compare_with=self.bench.captured, to_the_end=fresh and bool(self.bench.criterion.metrics)
            )
        places = configurations.placements(entry.configuration, physical_cores())
        threads = entry.configuration.threads
        return self.bench.run_together([replace(job, cores=cores, threads=threads) for cores in places])

    def _take(self, entry: Entry, way: Way | None, runs: tuple[Run, ...]) -> None:
        """Note what a round gave; what went wrong once is not measured again."""
        entry.way = way
        entry.status, entry.reason = "measured", ""
        if failed := next((run for run in runs if not run.ok), None):
            entry.status, entry.reason = "failed", describe_ending(failed.ending)
        elif idle := self._idle(entry, runs[0]):
            entry.status, entry.reason = "failed", f"Run so, the variant does nothing: {idle}."
        elif wrong := self._wrong(entry, way, runs):
            entry.status = "inaccurate" if wrong.verified else "unverified"
            entry.reason = wrong.reason
        if entry.status == "measured":
            entry.rounds.append(runs)
            self._remark(entry, runs)

    def _idle(self, entry: Entry, run: Run) -> str:
        """Why none of a variant's features did anything, in words; empty when one did."""
        reason, nothing = without_effect(entry.variant.plan, self.first, run) if entry.variant else ("", False)
        return reason if nothing else ""

    def _remark(self, entry: Entry, runs: tuple[Run, ...]) -> None:
        used = {run.threads for run in runs if run.threads is not None}
        if used - {entry.configuration.threads}:
            entry.reason = f"The script itself sets {count(max(used), 'thread')}."
        if (busy := max(run.disturbed for run in runs)) > stats.BUSY:
            self.notes[
                f"Other programs had the cores for up to {percent(round(busy, 2))} of the time of some run "
                "configurations; run again on a quiet machine."
            ] = None

    def _wrong(self, entry: Entry, way: Way | None, runs: Sequence[Run]) -> Accuracy | None:
        """What is known of the answers where they were not kept, item by item."""
        criterion = self.bench.criterion
        if criterion.metrics and (way is None or entry.rounds):
            return None  # The metrics of this very program are known already, and rounds stop before they can be.
        if way is not None and way.kind == "inputs":
            criterion = replace(criterion, metrics=())
        for run in runs:
            found = accuracy.check(
                self.task,
                criterion=criterion,
                safety=safety_of(entry.variant.plan) if entry.variant else Safety.SAME_MATH,
                baseline=self.first,
                control=self.control,
                variant=run,
            )
            if not (found.verified and found.kept):
                return found
        return None

    # --- figures

    def _result(self, entry: Entry) -> ConfigurationResult:
        measured = entry.status == "measured"
        seconds = [[self._seconds(run) for run in runs] for runs in entry.rounds if measured]
        rates = [sum(self._rate(run) for run in runs) for runs in entry.rounds if measured]
        return ConfigurationResult(
            configuration=entry.configuration,
            variant=entry.variant.plan.id if entry.variant else None,
            status=entry.status,
            reason=entry.reason,
            latency=stats.interval([statistics.median(each) for each in seconds]),
            slowest=stats.interval([max(each) for each in seconds]),
            throughput=stats.interval(rates),
            rounds=len(seconds),
            batch_by=entry.way.words if entry.way else "",
            commands=self._commands(entry),
        )

    def _commands(self, entry: Entry) -> tuple[str, ...]:
        args = entry.way.args if entry.way and entry.way.kind == "argument" else self.bench.job.args
        words = [str(self.bench.job_of(entry.variant).python), str(self.bench.job.script), *args]
        places = configurations.placements(entry.configuration, physical_cores())
        return tuple(configurations.command(entry.configuration, cores, words) for cores in places)

    def _leaders(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those that may still be the best at something, and the original as it is usually run."""
        results = {index: self._result(entry) for index, entry in enumerate(entries) if entry.status == "measured"}
        if not results:
            return []
        fastest = min(map(_latency, results.values())) * (1 + stats.ASSUMED_NOISE)
        most = max(map(_throughput, results.values())) / (1 + stats.ASSUMED_NOISE)
        leading = [index for index, one in results.items() if _latency(one) <= fastest or _throughput(one) >= most]
        return [entries[index] for index in sorted({*leading, *([0] if 0 in results else [])})]

    @property
    def _weights(self) -> dict[str, float]:
        return dict(stats.site_weights(self.first, self.task))

    @property
    def _unit(self) -> Literal["items", "calls", "steps"]:
        if self.task == "training":
            return "steps"
        return "items" if stats.seconds_per_item(self.first, self._weights, self.task) else "calls"

    def _seconds(self, run: Run) -> float:
        return stats.seconds_per_call(run, self._weights, self.task) or float("inf")

    def _rate(self, run: Run) -> float:
        per_item = stats.seconds_per_item(run, self._weights, self.task) if self._unit == "items" else None
        return 1.0 / (per_item or self._seconds(run))

    def _own_size(self) -> int | None:
        sizes = {timing.items for timing in self.first.timings if timing.site in self._weights}
        return next(iter(sizes)) if len(sizes) == 1 else None

    def _cost(self, entry: Entry) -> float:
        """Seconds for another round, or for the first one."""
        return max((run.wall_seconds for runs in entry.rounds[-1:] for run in runs), default=self.control.wall_seconds)

    @staticmethod
    def _name(entry: Entry) -> str:
        who = entry.variant.plan.id if entry.variant else "the original"
        return f"{who}, {configurations.describe(entry.configuration)}"


def _has_size(run: Run, weights: dict[str, float], size: int) -> bool:
    """Whether the calls that count had this many items; the last batch of a data set may be smaller."""
    sizes = {timing.items for timing in run.timings if timing.site in weights}
    return sizes == {size} or (sizes == {None} and max(run.witness.batch_sizes, default=0) == size)


def _latency(result: ConfigurationResult) -> float:
    return _middle(result.latency, float("inf"))


def _throughput(result: ConfigurationResult) -> float:
    return _middle(result.throughput, 0.0)


def _middle(interval: Interval | None, otherwise: float) -> float:
    return interval.median if interval else otherwise
