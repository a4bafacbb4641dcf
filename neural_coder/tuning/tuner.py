"""Tuning within a race: variants that are fast but lose too much get trials with other settings; these join in."""

from __future__ import annotations

import importlib.util
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from neural_coder import registry
from neural_coder.bench.accuracy import ERROR_FACTOR
from neural_coder.candidate import Candidate, Refusal
from neural_coder.errors import UserError
from neural_coder.planner import plan_for
from neural_coder.race import OPEN, Race, Standing
from neural_coder.records import Feature, Operator, Plan, Setting
from neural_coder.settings import EXCLUDE, ordered
from neural_coder.transform import Transform
from neural_coder.tuning.outcome import DEFAULT_STRATEGY, Tuned, Wish
from neural_coder.tuning.search import Enough, Limits, Search
from neural_coder.tuning.space import Point, Space, Trial, best, pareto
from neural_coder.tuning.strategy import Strategy
from neural_coder.units import percent, ratio

TIME_SHARE = 0.75
"""Share of the time budget after which nothing is tuned any more: the finalists' rounds need the rest."""
CALIBRATION = "calibration"
"""The setting that a feature's value holds: samples to find scales on."""

MORE_SAMPLES = 100
WORTHWHILE = 3
"""A script calibrates on a third of its samples at most, so that the others gain."""


def check(wish: Wish) -> None:
    """Find out before any run that a strategy cannot be used.

    Raises:
        UserError: There is no such strategy, or it needs a library that is not installed.
    """
    kind = registry.strategy(wish.strategy)
    missing = [name for name in kind.needs if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"The strategy {wish.strategy} needs {' and '.join(missing)}: pip install 'neural-coder[tuning]'. "
            f"{DEFAULT_STRATEGY} and mse need nothing more."
        )


@dataclass(slots=True)
class Tuner:
    """Tunes what a race's first looks have found; call it with the race."""

    wish: Wish
    build: Callable[[Plan], Candidate | Refusal]
    candidates: list[Candidate] = field(default_factory=list)
    """All that was tried."""
    found: list[Tuned] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Why variants that lose too much were not tuned, in words."""

    def __call__(self, race: Race) -> None:
        """Tune one variant of each engine, the fastest first, while trials and time are left."""
        if not self.wish.max_trials:
            return
        accepted = max((standing.gain for standing in race.standings if standing.verdict.status in OPEN), default=1.0)
        slow, waiting = [], []
        left = self.wish.max_trials
        for standing, worth in _lost_too_much(race, accepted):
            left = self.wish.max_trials - sum(len(tuned.trials) for tuned in self.found)
            seconds = TIME_SHARE * race.clock.budget - race.clock.used
            if not worth:
                slow.append(standing)
            elif left > 0 and seconds > standing.look.wall_seconds:
                self.found.append(_Session(self, race, standing).run(Limits(trials=left, seconds=seconds)))
            else:
                waiting.append(standing)
        if slow:
            than = f"what keeps the answers ({ratio(accepted)})" if accepted > 1 else "the original"
            self.notes.append(f"Not tuned, as it would be no faster than {than}: {_in_words(slow)}.")
        if waiting:
            limit = "--budget" if left > 0 else "--max-trials"
            self.notes.append(f"Not tuned, as {limit} was used up: {_in_words(waiting)}.")


class _Session:
    """The search for settings of one engine."""

    def __init__(self, tuner: Tuner, race: Race, standing: Standing) -> None:
        self._tuner = tuner
        self._race = race
        self._standing = standing
        self._plan = standing.candidate.plan
        self._feature = next(feature for feature in self._plan.features if _kind(feature).rest)
        self._family = _family(self._plan.backend)
        self._ids: dict[Point, str] = {}
        self._limits = Limits(trials=0, seconds=0.0)

    def run(self, limits: Limits) -> Tuned:
        """Look at the operators, then let the strategy try."""
        began = time.monotonic()
        wish, race = self._tuner.wish, self._race
        race.say(f"looking for the operators that {self._plan.backend} must not quantize")
        operators = race.bench.operators(self._standing.candidate).operators
        self._blame(operators)
        left = limits.seconds - (time.monotonic() - began)
        self._limits = replace(limits, seconds=left)
        search = Search(self._evaluate, self._limits)
        strategy: Strategy = registry.strategy(wish.strategy)()
        ended = "nothing was left to try"
        try:
            # A processor without bfloat16 is asked once, not in half of the trials.
            fallbacks = [name for name in self._family if self._takes_effect(name, search)]
            for _ in strategy.trials(self._space(operators, fallbacks), search, random.Random(wish.seed)):
                pass
        except Enough as enough:
            ended = str(enough)
        except KeyboardInterrupt:
            self._tuner.found.append(self._outcome(search, operators, "it was interrupted", began))
            raise
        return self._outcome(search, operators, ended, began)

    def _outcome(self, search: Search, operators: tuple[Operator, ...], ended: str, began: float) -> Tuned:
        winner = best(search.trials)
        return Tuned(
            wish=self._tuner.wish,
            engine=self._plan.backend,
            of=self._plan.id,
            operators=operators,
            trials=tuple((self._ids[trial.point], trial) for trial in search.trials),
            best=self._ids[winner.point] if winner else None,
            pareto=tuple(self._ids[trial.point] for trial in pareto(search.trials)),
            ended=ended,
            seconds=time.monotonic() - began,
        )

    def _blame(self, operators: Sequence[Operator]) -> None:
        """Name the culprit in the reason of every variant of this engine that lost its answers."""
        worst = next((item for item in operators if item.impact), None)
        if worst is None or worst.impact is None:
            return
        blame = f"Most sensitive is {worst.name} ({worst.kind}): quantized alone it changes the outputs by"
        for standing in self._race.standings:
            verdict = standing.verdict
            if verdict.status == "inaccurate" and _tuned_feature(verdict.plan, self._plan.backend):
                reason = f"{verdict.reason} {blame} {percent(worst.impact)}."
                standing.verdict = replace(verdict, reason=reason)

    def _takes_effect(self, fallback: str, search: Search) -> bool:
        """Whether operators can fall back to a precision here: the variant that is tuned has shown it for its own."""
        return fallback == _kind(self._feature).rest or search.evaluate(Point(fallback=fallback)).speedup > 0

    def _space(self, operators: Sequence[Operator], fallbacks: Sequence[str]) -> Space:
        knobs: dict[str, tuple[Setting, ...]] = {}
        backend = registry.backends()[self._plan.backend]
        knobs.update(backend.tunable(frozenset(item.kind for item in operators)))
        if self._has_samples(MORE_SAMPLES):
            knobs[CALIBRATION] = (MORE_SAMPLES,)
        return Space(
            operators=tuple(item.name for item in operators),
            errors={item.name: item.error for item in operators},
            impacts={item.name: item.impact for item in operators if item.impact is not None},
            fallbacks=tuple(fallbacks),
            knobs=knobs,
        )

    def _has_samples(self, samples: int) -> bool:
        """Whether the script calls its models often enough to calibrate on so many samples, and to gain from it."""
        # A run that was stopped says nothing about how often the script would have called them.
        runs = [self._race.first, self._race.control, *(standing.look for standing in self._race.standings)]
        whole = [run for run in runs if run.ended_by_itself]
        sites = [site for run in whole for site in run.timings if site.kind == "inference"]
        most = max((site.calls * (site.items or 1) for site in sites), default=0)
        return not whole or most >= WORTHWHILE * samples

    def _evaluate(self, point: Point) -> Trial:
        """Run one point as a variant of its own."""
        plan = self._plan_of(point)
        self._ids[point] = plan.id
        known = next((one for one in self._race.standings if one.candidate.plan == plan), None)
        standing = known or self._look(plan)
        if standing is None:
            return Trial(point=point, kept=False, speedup=0.0, loss=None)
        return _trial(point, standing, self._size(plan))

    def _look(self, plan: Plan) -> Standing | None:
        candidate = self._tuner.build(plan)
        if isinstance(candidate, Refusal):
            return None
        self._tuner.candidates.append(candidate)
        number = len(self._ids)
        position = f"[trial {number}, at most {self._limits.trials}]"
        standing = self._race.first_look(candidate, position)
        if standing.verdict.accuracy is None or not standing.verdict.accuracy.kept:
            # It will not run again: what it converted takes place for nothing.
            shutil.rmtree(self._race.bench.caches(plan.id), ignore_errors=True)
        return standing

    def _size(self, plan: Plan) -> int | None:
        """Bytes of the converted model on disk, where the engine keeps it."""
        files = self._race.bench.caches(plan.id).rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file()) or None

    def _plan_of(self, point: Point) -> Plan:
        settings = dict(point.settings)
        samples = settings.pop(CALIBRATION, None)
        value = self._feature.value if samples is None else f"{self._plan.backend}:{samples}"
        given = {name: found for name, found in self._feature.settings if name != EXCLUDE}
        before = next((found for name, found in self._feature.settings if name == EXCLUDE), ())
        exclude = (*(before if isinstance(before, tuple) else ()), *point.exclude)
        told: dict[str, Setting] = {**given, **settings, **({EXCLUDE: exclude} if exclude else {})}
        tuned = Feature(name=self._family[point.fallback], value=value, settings=ordered(told.items()))
        others = [feature for feature in self._plan.features if feature is not self._feature]
        return plan_for([*others, tuned], self._race.task)


def _lost_too_much(race: Race, accepted: float) -> list[tuple[Standing, bool]]:
    """For each engine the best variant that loses too much and that tuning can change, the fastest first.

    Args:
        race: After its first looks.
        accepted: The speed-up of what keeps the answers.

    Returns:
        Each variant, and whether it is worth tuning: whether it is faster than that, as far as is known.
    """

    def is_worth_it(standing: Standing) -> bool:
        return standing.look.witness.inaccurate or standing.gain > accepted

    chosen: dict[str, Standing] = {}
    for standing in sorted(race.standings, key=lambda each: (is_worth_it(each), _promise(each)), reverse=True):
        plan = standing.candidate.plan
        if standing.verdict.status == "inaccurate" and _tuned_feature(plan, plan.backend):
            chosen.setdefault(plan.backend, standing)
    return [(standing, is_worth_it(standing)) for standing in chosen.values()]


def _in_words(standings: Sequence[Standing]) -> str:
    return ", ".join(
        f"{standing.candidate.plan.id} ({ratio(standing.gain)})" if _promise(standing) else standing.candidate.plan.id
        for standing in standings
    )


def _promise(standing: Standing) -> float:
    """How fast it would be; a variant whose answers the runtime refused has only shown how fast the original is."""
    return 0.0 if standing.look.witness.inaccurate else standing.gain


def _trial(point: Point, standing: Standing, size: int | None) -> Trial:
    verdict, accuracy = standing.verdict, standing.verdict.accuracy
    ran = standing.look.ok and verdict.status not in ("failed", "no_effect")
    lost = accuracy is None or not accuracy.verified or standing.look.witness.inaccurate
    loss = None
    if ran and accuracy is not None and not lost:
        # What an absolute loss is to an error of the outputs is not known.
        error = None if accuracy.absolute else accuracy.relative_error
        errors = [accuracy.loss, None if error is None else error / ERROR_FACTOR]
        known = [error for error in errors if error is not None]
        loss = max(known) / accuracy.allowed if known and accuracy.allowed else None
    return Trial(
        point=point,
        kept=ran and not lost and accuracy is not None and accuracy.kept,
        speedup=standing.gain if ran else 0.0,
        loss=loss,
        memory_bytes=verdict.peak_memory_bytes,
        size_bytes=size,
        seconds=standing.look.wall_seconds,
    )


def _tuned_feature(plan: Plan, engine: str) -> Feature | None:
    """The feature of a plan that tuning can change."""
    found = (feature for feature in plan.features if plan.backend == engine and _kind(feature).rest)
    return next(found, None)


def _family(engine: str) -> Mapping[str, str]:
    """Precisions that operators may fall back to with an engine, the fastest first, and the features that do it."""
    kinds = [kind for kind in registry.transforms().values() if kind.rest and engine in kind.values]
    return {kind.rest: kind.name() for kind in sorted(kinds, key=lambda kind: -kind.promise)}


def _kind(feature: Feature) -> type[Transform]:
    return registry.transform(feature.name)
