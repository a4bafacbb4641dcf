"""The race between variants: a cheap first look for all, full rounds for the best, a fresh run for the winner.

Baseline and variants take turns, so that drift of the machine hits all alike; ratios are formed within a round. This is
the seam for other search strategies: whatever hands `Standing`s back can take the place of `race`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from neural_coder import planner, registry, verdict
from neural_coder.bench import accuracy, runner, stats
from neural_coder.bench.protocol import Job, Sampling
from neural_coder.cache import FOLDER_VARIABLE
from neural_coder.candidate import Candidate
from neural_coder.outlook import Outlook, Shown
from neural_coder.records import Accuracy, Criterion, Interval, Plan, Run, Safety, Status, Task, Verdict

CONTENDERS = 5
"""Variants that get a second look, which is their first round."""
OPEN: frozenset[Status] = frozenset({"faster", "same", "undecided"})
"""What a variant is found to be while it may still win."""
FINALISTS = 3
"""Variants that get more rounds than that."""
MARGINS = (0.4, 0.15, 0.08, 0.04)
"""After the first look and each round: how far (relative) behind the best a variant may lie and still win."""
DOUBTS = (0.25, 0.08, 0.0)
"""Likewise: how much slower than the original a variant may look, by bad luck, without leaving the race."""
RESTLESS_DOUBTS = (0.6, 0.25, 0.2)
"""The same while other programs take the cores: one look in ten is off by more than 15 % then, even with calm calls,
and three runs together still by as much where every core is shared with another machine."""
ROUNDS = 5
"""Processes of each finalist; the process is the unit of statistics."""
FEWEST_ROUNDS = 3
MOST_ROUNDS = 15
"""Rounds of what is not decided after `ROUNDS`; simulated processes that scatter by 6 % need about ten of them."""
CONFIRMATIONS = 2
MOST_CONFIRMATIONS = 10
"""Fresh pairs until a winner is given up whose gain they deny. Of 800 variants that were 10 % faster, on a restless
simulated machine, 748 were found with six and 761 with ten; of 800 identical ones three were called faster."""
RUN_SHARE = 0.2
"""Share of the time budget that one run of a variant may take beyond what the original needs: a variant that compiles
anew for every shape must not use up the time of all others."""
LEAST_RUN_SECONDS = 60.0
FIRST_LOOK_SHARE = 0.5
"""Share of the time budget after which no further variant gets its first look."""
REPEATS = 8
"""Disturbed rounds that are made again, in one search: on a machine that stays busy the answer is a wide interval."""
OVERTIME = 1.25
"""Share of the time budget that rounds may use: three of them rarely prove a gain of a few per cent, five often do."""
QUICK = Sampling(min_samples=5, max_samples=60, min_seconds=0.5, max_seconds=8.0)

Say = Callable[[str], None]
Turn = Callable[[], Run]
Ended = Literal["complete", "budget", "interrupted"]
"""`budget`: the time was over before all variants had their turn; `interrupted`: from outside, by Ctrl-C."""
Evidence = Literal["confirmed", "rounds", "first look"]
"""`confirmed`: rounds and fresh runs after them; `rounds`: no fresh runs; `first look`: a single run."""


@dataclass(slots=True)
class Clock:
    """The time budget of one search."""

    budget: float
    started: float = field(default_factory=time.monotonic)

    @property
    def used(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self.started

    def allows(self, seconds: float, share: float = 1.0) -> bool:
        """Whether that much more fits into (a share of) the budget."""
        return self.used + seconds <= self.budget * share


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Runs baseline and variants, all in the same way."""

    job: Job
    """The baseline's job; variants differ in their patch and probes only."""
    folder: Path
    """Holds the captured outputs and the compilers' caches of this search."""
    criterion: Criterion
    pythons: Mapping[str, Path] = field(default_factory=dict)
    """By engine: another interpreter than the baseline's."""
    variant_timeout: float = math.inf
    """Seconds for one run of a variant; the job's own limit holds, too."""
    run: Callable[[Job], Run] = runner.run
    """Runs one child process, or knows from before what came of it."""
    run_together: Callable[[Sequence[Job]], tuple[Run, ...]] = runner.run_together
    """The same for several that measure at the same time."""

    @property
    def captured(self) -> Path:
        """The outputs that all runs are compared with."""
        return self.folder / "captured"

    def first_baseline(self) -> Run:
        """Run the original and keep its outputs; what it reaches that no probe covers is reported, too."""
        job = replace(self._job("baseline", "first"), capture_to=self.captured, observe=True)
        return self.run(replace(job, to_the_end=self._whole))

    def control(self) -> Run:
        """Run the original once more, under the same conditions: it shows how far it differs from itself."""
        job = replace(self._job("baseline", "control"), compare_with=self.captured)
        return self.run(replace(job, to_the_end=self._whole))

    def baseline(self, purpose: str = "round") -> Run:
        """Run the original for a round."""
        return self.run(self._job("baseline", purpose))

    def look(self, candidate: Candidate) -> Run:
        """Give a variant its first look: few samples, full check of its answers."""
        job = replace(self._variant(candidate, "look"), to_the_end=self._whole)
        return self.run(job if self._whole else replace(job, sampling=QUICK))

    def operators(self, candidate: Candidate) -> Run:
        """Find out what quantizing each operator alone would do to the models that a variant accelerates."""
        return self.run(replace(self._variant(candidate, "operators"), compare_with=None, rank_operators=True))

    def caches(self, name: str) -> Path:
        """Where a variant keeps compiled code and converted models."""
        return self.folder / "caches" / name

    def variant(self, candidate: Candidate, purpose: str = "round") -> Run:
        """Run a variant for a round."""
        return self.run(self._variant(candidate, purpose))

    def job_of(self, candidate: Candidate | None) -> Job:
        """The job of a round: of a variant, or of the original."""
        return self._job("baseline", "sweep") if candidate is None else self._variant(candidate, "sweep")

    @property
    def _whole(self) -> bool:
        return bool(self.criterion.metrics)

    def _variant(self, candidate: Candidate, purpose: str) -> Job:
        job = self._job(candidate.plan.id, purpose)
        environment = {**job.environment, **registry.backends()[candidate.plan.backend].environment}
        return replace(
            job,
            plan=candidate.plan,
            python=self.pythons.get(candidate.plan.backend, job.python),
            patched=candidate.patched,
            probes=candidate.probes,
            compare_with=self.captured,
            environment=environment,
            timeout=min(job.timeout, self.variant_timeout),
        )

    def _job(self, name: str, purpose: str) -> Job:
        # Caches of its own for each variant, of compiled code and of converted models: the first run shows the honest
        # cost of a cold start, the rounds after it are quick, and what loses takes no place on the user's disk.
        folder = str(self.caches(name))
        caches = {"TORCHINDUCTOR_CACHE_DIR": folder, FOLDER_VARIABLE: folder}
        return replace(self.job, purpose=purpose, environment={**self.job.environment, **caches})


@dataclass(slots=True)
class Standing:
    """How one variant has fared so far."""

    candidate: Candidate
    look: Run
    verdict: Verdict
    rounds: list[Run] = field(default_factory=list)

    @property
    def gain(self) -> float:
        """Median speed-up as known now."""
        return self.verdict.speedup.median if self.verdict.speedup else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a race found."""

    verdicts: tuple[Verdict, ...]
    chosen: Verdict | None
    candidate: Candidate | None
    confirmed: Interval | None
    """The winner's speed-up in fresh processes, after it was chosen."""
    baseline: tuple[Run, ...]
    ended: Ended = "complete"
    evidence: Evidence | None = None
    """What speaks for the chosen variant."""


@dataclass(slots=True)
class Race:
    """One search over a fixed list of variants."""

    bench: Bench
    task: Task
    first: Run
    control: Run
    clock: Clock
    say: Say
    baselines: list[Run] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)
    missed: list[Verdict] = field(default_factory=list)
    hopeless: list[Verdict] = field(default_factory=list)
    repeats: int = 0
    promise: Callable[[Plan], float] = lambda plan: 1.0
    """How many times faster a plan typically is here: it orders the first looks, and spares those that cannot win."""
    tune: Callable[[Race], None] = lambda race: None
    """Called after the first looks: it may give further variants theirs."""

    def run(self, candidates: Sequence[Candidate]) -> Result:
        """Race the candidates: the most promising first, as far as is known by then; of equals the first."""
        extra = max(LEAST_RUN_SECONDS, RUN_SHARE * self.clock.budget)
        self.bench = replace(self.bench, variant_timeout=self.control.wall_seconds + extra)
        self._first_looks(candidates)
        self.tune(self)
        finalists = self._finalists()
        self._rounds(finalists)
        chosen, confirmed = self._confirm(finalists)
        verdicts = [standing.verdict for standing in self.standings] + self.missed + self.hopeless
        return Result(
            verdicts=tuple(verdicts),
            chosen=chosen.verdict if chosen else None,
            candidate=chosen.candidate if chosen else None,
            confirmed=confirmed,
            baseline=tuple(self.baselines) or (self.first, self.control),
            ended="budget" if self.missed else "complete",
            evidence="confirmed" if chosen else None,
        )

    def run_or_stop(self, candidates: Sequence[Candidate]) -> Result:
        """Race the candidates; on Ctrl-C, hand back the best that was verified so far."""
        try:
            return self.run(candidates)
        except KeyboardInterrupt:
            if not self.standings:
                raise
            return self._so_far(candidates)

    def _so_far(self, candidates: Sequence[Candidate]) -> Result:
        """The best variant as known now, by its rounds or, where it has too few, by its first look."""
        for standing in self.standings:
            if len(standing.rounds) >= FEWEST_ROUNDS:
                plan, before = standing.candidate.plan, self.baselines[: len(standing.rounds)]
                standing.verdict = self._judge(plan, before, standing.rounds, final=True, look=standing.look)
        measured = verdict.choose(_measured(self.standings))
        looked = [standing.verdict for standing in self.standings if _verified_and_faster(standing.verdict)]
        chosen = measured or max(looked, key=lambda found: found.speedup.median if found.speedup else 0.0, default=None)
        known = [*(standing.verdict for standing in self.standings), *self.missed, *self.hopeless]
        seen = {found.plan.id for found in known}
        reason = "The search was interrupted before its turn."
        rest = [
            Verdict(plan=each.plan, status="skipped", reason=reason) for each in candidates if each.plan.id not in seen
        ]
        winner = next((standing for standing in self.standings if standing.verdict is chosen), None)
        return Result(
            verdicts=(*known, *rest),
            chosen=chosen,
            candidate=winner.candidate if winner else None,
            confirmed=None,
            baseline=tuple(self.baselines) or (self.first, self.control),
            ended="interrupted",
            evidence=None if chosen is None else "rounds" if measured else "first look",
        )

    # --- short looks

    def _first_looks(self, candidates: Sequence[Candidate]) -> None:
        """Give all their first look that may win and for which there is time."""
        outlook = Outlook(promise=self.promise, run_seconds=self.control.wall_seconds)
        waiting = {candidate.plan: candidate for candidate in candidates}
        while waiting:
            plan = outlook.next_of(list(waiting))
            candidate = waiting.pop(plan)
            if reason := outlook.why_hopeless(plan):
                self.hopeless.append(Verdict(plan=plan, status="skipped", reason=reason))
            elif self._has_time_for(candidate):
                standing = self.first_look(candidate, f"[{len(candidates) - len(waiting)}/{len(candidates)}]")
                outlook.shown.append(_shown(standing, self.control))

    def _has_time_for(self, candidate: Candidate) -> bool:
        # However short the budget, one variant is tried: two runs of the original alone tell nobody anything.
        if not self.standings or self.clock.allows(self.first.wall_seconds, FIRST_LOOK_SHARE):
            return True
        reason = "The time budget ended before its turn; a larger --budget gives it one."
        self.missed.append(Verdict(plan=candidate.plan, status="skipped", reason=reason))
        return False

    def first_look(self, candidate: Candidate, position: str) -> Standing:
        """Give a variant its first look; it is in the race from then on.

        Args:
            candidate: The variant.
            position: Which one it is, for the person who waits.
        """
        self.say(f"{position} first look: {candidate.plan.id}")
        (run,) = self._calm([lambda: self.bench.look(candidate)])
        found = self._judge(candidate.plan, [self.control], [run], final=False)
        standing = Standing(candidate=candidate, look=run, verdict=found)
        self.standings.append(standing)
        return standing

    def _contenders(self, standings: Sequence[Standing], looks: int) -> list[Standing]:
        """Those that keep up with the best, and with the original, the fastest first.

        Args:
            standings: Variants that are still in the race.
            looks: Rounds that they have had, beyond the first look.
        """
        ranked = sorted((s for s in standings if self._may_win(s, looks)), key=lambda s: s.gain, reverse=True)
        close = [standing for standing in ranked if standing.gain * (1 + MARGINS[looks]) >= ranked[0].gain]
        return close[: FINALISTS if looks else CONTENDERS]

    def _may_win(self, standing: Standing, looks: int) -> bool:
        """Whether its answers are right and it is not surely slower, which a look at a busy machine does not show."""
        seen = (self.control, standing.look, *self.baselines, *standing.rounds)
        restless = stats.is_restless(seen)
        doubt = (RESTLESS_DOUBTS if restless else DOUBTS)[looks]
        status = standing.verdict.status
        return (status in OPEN or (restless and status == "slower")) and standing.gain * (1 + doubt) > 1.0

    def _finalists(self) -> list[Standing]:
        """The best at first sight, and no more than the time left can measure well."""
        finalists = self._contenders(self.standings, 0)
        while len(finalists) > 1 and not self.clock.allows(FEWEST_ROUNDS * self._cost(finalists[:FINALISTS])):
            finalists.pop()
        return finalists

    def _cost(self, standings: Sequence[Standing]) -> float:
        """Seconds for one round, at most: later runs find warm caches."""
        return self.control.wall_seconds + sum(standing.look.wall_seconds for standing in standings)

    # --- rounds

    def _rounds(self, finalists: Sequence[Standing]) -> None:
        """Let the baseline and the finalists take turns; who cannot win any more leaves."""
        confirmation = CONFIRMATIONS * self._cost(finalists[:1])
        racing = list(finalists)
        for number in range(MOST_ROUNDS):
            racing = self._still_open(racing, number)
            if not racing:
                break
            if number >= FEWEST_ROUNDS and not self.clock.allows(self._cost(racing) + confirmation, OVERTIME):
                break
            names = ", ".join(standing.candidate.plan.id for standing in racing)
            self.say(f"round {number + 1}: the original against {names}")
            # The order rotates: whoever always ran right behind the same neighbour would inherit its heat.
            order = [*racing[number % len(racing) :], *racing[: number % len(racing)]]
            turns: list[Turn] = [partial(self.bench.variant, standing.candidate) for standing in order]
            original, *runs = self._calm([self.bench.baseline, *turns])
            self.baselines.append(original)
            for standing, run in zip(order, runs, strict=True):
                standing.rounds.append(run)
        self._judge_rounds(finalists)

    def _still_open(self, racing: Sequence[Standing], rounds: int) -> list[Standing]:
        """Whose next round may still change the result."""
        if rounds == 0:
            return list(racing)
        self._judge_rounds(racing)
        if rounds < FEWEST_ROUNDS:
            return self._contenders(racing, rounds)
        best = verdict.choose([standing.verdict for standing in racing])
        if best is not None and best.speedup is not None:
            lead = best.speedup.low
            rivals = [
                s
                for s in racing
                if s.verdict is not best
                and _high(s.verdict) > lead
                and s.gain * (1 + MARGINS[-1]) > best.speedup.median
            ]
            if rounds >= ROUNDS:  # Only what is not decided, and looks better than the best so far, is worth more.
                rivals = [s for s in rivals if s.verdict.status == "undecided" and s.gain > best.speedup.median]
            return [s for s in racing if s.verdict is best or s in rivals] if rivals else []
        return [
            s
            for s in racing
            if s.verdict.status == "undecided" or (rounds < ROUNDS and s.verdict.status in OPEN and s.gain > 1.0)
        ]

    def _judge_rounds(self, standings: Sequence[Standing]) -> None:
        for standing in standings:
            plan, rounds = standing.candidate.plan, standing.rounds
            if len(rounds) >= FEWEST_ROUNDS:
                standing.verdict = self._judge(plan, self.baselines, rounds, final=True, look=standing.look)
            else:
                before, after = [self.control, *self.baselines], [standing.look, *rounds]
                standing.verdict = self._judge(plan, before, after, final=False, look=standing.look)

    def _confirm(self, finalists: Sequence[Standing]) -> tuple[Standing | None, Interval | None]:
        """Measure the winner again, in fresh processes; one that does not hold gives way to the next."""
        while chosen := verdict.choose(_measured(finalists)):
            winner = next(standing for standing in finalists if standing.verdict is chosen)
            self.say(f"confirming {chosen.plan.id}")
            confirmed = self._fresh_pairs(winner)
            if confirmed and confirmed.median >= self.bench.criterion.minimum_gain:
                return winner, confirmed
            seen = f"×{confirmed.median:.2f}" if confirmed else "no figures"
            reason = f"Cannot tell: fresh runs did not confirm the gain of the rounds ({seen})."
            winner.verdict = replace(winner.verdict, status="undecided", reason=reason)
        return None, None

    def _fresh_pairs(self, winner: Standing) -> Interval | None:
        """The winner against the original; when the first pairs deny its gain, more before it is given up."""
        pair: list[Turn] = [
            partial(self.bench.baseline, "confirmation"),
            partial(self.bench.variant, winner.candidate, "confirmation"),
        ]
        pairs: list[list[Run]] = []
        for _ in range(MOST_CONFIRMATIONS // CONFIRMATIONS):
            pairs += [self._calm(pair) for _ in range(CONFIRMATIONS)]
            confirmed = stats.speedup([old for old, _ in pairs], [new for _, new in pairs], self.task)
            if confirmed is None or confirmed.median >= self.bench.criterion.minimum_gain:
                break
        return confirmed

    def _calm(self, turns: Sequence[Turn]) -> list[Run]:
        """Run what belongs together; again when other programs left too few calls in peace."""
        while True:
            began = self.clock.used
            runs = [turn() for turn in turns]
            restless = [run for run in runs if run.ok and not stats.is_calm(run)]
            if not restless or self.repeats >= REPEATS or not self.clock.allows(self.clock.used - began):
                return runs
            self.repeats += 1
            busy = max(run.disturbed for run in restless)
            self.say(f"the machine was busy ({busy:.0%} of the time others had the cores): once more")

    def _judge(
        self, plan: Plan, baseline: Sequence[Run], runs: Sequence[Run], *, final: bool, look: Run | None = None
    ) -> Verdict:
        checked = [run for run in (*([look] if look else []), *runs) if run.ok]
        # Rounds stop early, and the user's metrics are known at the end: only the first look has them.
        answered = checked[:1] if self.bench.criterion.metrics else checked
        worst = max((self._accuracy(plan, run) for run in answered), key=_badness, default=None)
        idle, nothing = without_effect(plan, self.first, checked[0]) if checked else ("", False)
        found = verdict.judge(
            plan,
            baseline=baseline,
            variant=runs,
            accuracy=worst,
            no_effect=idle if nothing else "",
            idle="" if nothing else idle,
            criterion=self.bench.criterion,
            final=final,
        )
        # Only the first process of a variant started with cold caches.
        first = look or runs[0]
        cold = stats.first_call_seconds(first)
        if found.figures is not None and cold is not None:
            found = replace(found, figures=replace(found.figures, first_call_seconds=cold))
        startup = stats.startup_seconds(first) if first.ok else None
        before, after = stats.seconds_per_call(baseline[0], None), stats.seconds_per_call(runs[-1], None)
        if startup is None or before is None or after is None:
            return found
        startup = max(0.0, startup - (stats.startup_seconds(self.control) or 0.0))
        return replace(found, startup_seconds=startup, break_even_calls=stats.break_even_calls(startup, before, after))

    def _accuracy(self, plan: Plan, run: Run) -> Accuracy:
        return accuracy.check(
            self.task,
            criterion=self.bench.criterion,
            safety=safety_of(plan),
            baseline=self.first,
            control=self.control,
            variant=run,
        )


def _shown(standing: Standing, control: Run) -> Shown:
    run, status = standing.look, standing.verdict.status
    itself = run.ok and status not in ("failed", "no_effect") and not run.witness.inaccurate
    return Shown(
        plan=standing.candidate.plan,
        gain=standing.gain if itself else None,
        right=status in OPEN,
        seconds=run.wall_seconds,
        restless=max(run.disturbed, control.disturbed) > stats.DISTURBED,
    )


def safety_of(plan: Plan) -> Safety:
    """The least safe of a plan's features decides how its answers are checked."""
    transforms = registry.transforms()
    order = list(Safety)
    return max((transforms[feature.name].safety for feature in plan.features), key=order.index)


def _measured(standings: Sequence[Standing]) -> list[Verdict]:
    """What was found of those that had enough rounds: who was picked for a lucky look must not win by it."""
    return [standing.verdict for standing in standings if len(standing.rounds) >= FEWEST_ROUNDS]


def _high(found: Verdict) -> float:
    return found.speedup.high if found.speedup else 0.0


def without_effect(plan: Plan, before: Run, after: Run) -> tuple[str, bool]:
    """Which of the features that were asked for did nothing at run time.

    Returns:
        The features and why, in words (empty when all took effect), and whether that is all of them.
    """
    transforms = registry.transforms()
    names = [feature.name for feature in planner.asked_for(plan)]
    reasons = {name: transforms[name]().no_effect(before.witness, after.witness) for name in names}
    idle = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    return "; ".join(idle), len(idle) == len(reasons)


def _verified_and_faster(found: Verdict) -> bool:
    answers = found.accuracy
    return found.status == "faster" and answers is not None and answers.verified and answers.kept


def _badness(found: Accuracy) -> tuple[bool, bool, float]:
    return not found.verified, not found.kept, found.loss or 0.0
