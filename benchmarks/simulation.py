"""A machine that exists in figures only: programs come and go on its two cores while simulated processes are measured.

The real race, verdict and sampling rules work on what its processes report, so thousands of searches take seconds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from neural_coder._worker.moments import Moment
from neural_coder._worker.sites import Sampling as WorkerSampling
from neural_coder._worker.sites import Site
from neural_coder.bench import stats
from neural_coder.bench.protocol import Sampling
from neural_coder.bench.reading import timing_from
from neural_coder.candidate import Candidate
from neural_coder.race import CONFIRMATIONS, QUICK, Clock, Race, Result
from neural_coder.records import Criterion, Ending, Feature, Metric, MetricValue, Plan, Run

CRITERION = Criterion(metrics=(Metric(name="answer", pattern="answer: (.*)"),))
PACE = 6e-5
"""Seconds of the piece of work that tells the speed of a core."""
PACE_NOISE = 0.05
TRACELESS = "cuda_to_cpu"
"""A feature that shows in no witness: its value names the simulated variant."""


def candidate(name: str) -> Candidate:
    """A variant by name."""
    plan = Plan(features=(Feature(name=TRACELESS, value=name),), backend="torch")
    return Candidate(plan=plan, patches=(), probes={})


def name_of(plan: Plan) -> str:
    """The name of a simulated variant."""
    return plan.features[0].value or ""


@dataclass(slots=True)
class Machine:
    """Two cores, and programs on them that come and go at random."""

    chance: random.Random
    load: Sequence[int] = (0, 1, 2)
    """How many cores others may burn at a time; each is as likely."""
    longest: float = 3.0
    """Seconds until that changes, at most."""
    process_noise: float = 0.015
    """How much processes of the same program differ (standard deviation, relative): memory layout, luck."""
    call_noise: float = 0.02
    slow_processes: float = 0.05
    """Share of processes that run slower throughout, for reasons that nobody on this machine can see."""
    parallel: bool = False
    """Calls keep both cores busy, and a burner on one of them holds up both threads."""
    neighbour: float = 1.0
    """How many times slower a core is while another machine uses its other thread, which it does half of the time."""
    follows: float = 1.0
    """How far calls follow the speed of the core; those that wait for memory do so less."""
    now: float = 0.0
    _burners: int = 0
    _until: float = 0.0
    _shared: bool = False
    _shared_until: float = 0.0

    def burners(self) -> int:
        """How many cores are burnt just now."""
        while self.now >= self._until:
            self._burners = self.chance.choice(self.load)
            self._until = max(self._until, self.now) + self.chance.uniform(0.1, self.longest)
        return self._burners

    def call(self, work: float) -> Moment:
        """Do the work of one call; how long that took."""
        work *= math.exp(self.chance.gauss(0, self.call_noise))
        core, pace = self._core()
        work *= core**self.follows
        slower = self._slowdown()
        wall = work * slower
        self.now += wall
        threads = 2 if self.parallel else 1
        # A thread that waits for the other one at a barrier spins for a while, and burns CPU time.
        cpu = work * threads * (1 + 0.3 * (slower - 1) * self.parallel)
        return Moment(wall, cpu, max(0.0, (wall - work) * threads * (0.7 if self.parallel else 1.0)), pace)

    def _core(self) -> tuple[float, float]:
        """How many times slower the core is just now, and what the piece of work takes that tells of it."""
        if self.neighbour == 1.0:
            return 1.0, PACE
        while self.now >= self._shared_until:
            self._shared = self.chance.random() < 0.5
            self._shared_until = max(self._shared_until, self.now) + self.chance.uniform(0.3, 6.0)
        slower = self.neighbour if self._shared else 1.0
        return slower, PACE * slower * math.exp(self.chance.gauss(0, PACE_NOISE))

    def _slowdown(self) -> float:
        burners = self.burners()
        if self.parallel and burners:
            return 1 + burners * math.exp(self.chance.gauss(0, 0.6))
        if burners > 1:
            return self.chance.uniform(1.3, 2.2)
        return 1.0 if not burners or self.chance.random() < 0.9 else self.chance.uniform(1.1, 1.6)


@dataclass(slots=True)
class Program:
    """What a variant takes."""

    seconds: float
    start: float = 2.0
    """Seconds before the first call: imports, loading."""
    conversion: float = 0.0
    """Seconds that its first process takes beyond that."""
    runs: int = 0


@dataclass(frozen=True, slots=True)
class SimulatedBench:
    """Stands in for `race.Bench`; the original is the program without a name."""

    machine: Machine
    programs: dict[str, Program]
    criterion: Criterion = CRITERION
    variant_timeout: float = math.inf

    def baseline(self, purpose: str = "round") -> Run:
        """Run the original; what for makes no difference here."""
        return self._run("", Sampling())

    def look(self, item: Candidate) -> Run:
        """Give a variant its first look."""
        return self._run(name_of(item.plan), QUICK)

    def variant(self, item: Candidate, purpose: str = "round") -> Run:
        """Run a variant; what for makes no difference here."""
        return self._run(name_of(item.plan), Sampling())

    def _run(self, name: str, sampling: Sampling) -> Run:
        machine, program = self.machine, self.programs[name]
        began = machine.now
        machine.now += (program.start + (0.0 if program.runs else program.conversion)) * (1 + 0.3 * machine.burners())
        program.runs += 1
        rules = WorkerSampling(**asdict(sampling))  # Those of the worker itself decide when there is enough.
        work = program.seconds * math.exp(machine.chance.gauss(0, machine.process_noise))
        if machine.chance.random() < machine.slow_processes:
            work *= machine.chance.uniform(1.15, 1.6)
        site = Site("simulated", "inference")
        waited = ran = 0.0
        while not (site.enough(rules) and (site.calm(rules) or not site.may_go_on(rules))):
            taken = machine.call(work)
            site.calls += 1
            site.add(taken, rules, startup=False)
            waited, ran = waited + taken.waited, ran + taken.cpu
        share = waited / (waited + ran)
        return Run(
            ending=Ending(kind="ok"),
            timings=(timing_from(site.as_json()),),
            metrics=(MetricValue(name="answer", value=1.0),),
            wall_seconds=machine.now - began,
            loop_seconds=machine.now - began,
            disturbed=share if share > 0.01 else 0.0,
        )


@dataclass(slots=True)
class SimulatedClock(Clock):
    """Runs with the machine."""

    machine: Machine = field(default_factory=lambda: Machine(random.Random(0)))

    @property
    def used(self) -> float:
        """Simulated seconds since the machine was switched on."""
        return self.machine.now


def search(machine: Machine, programs: dict[str, Program], budget: float = 600.0) -> Result:
    """Let the real race find the best of simulated programs; the original is the one without a name."""
    bench = SimulatedBench(machine, programs)
    first, control = bench.baseline(), bench.baseline()
    race = Race(
        bench=bench,  # type: ignore[arg-type]
        task="inference",
        first=first,
        control=control,
        clock=SimulatedClock(budget=budget, machine=machine),
        say=lambda _: None,
    )
    return race.run([candidate(name) for name in programs if name])


def measure_fully(machine: Machine, programs: dict[str, Program], rounds: int) -> tuple[str, float]:
    """The control for the race: every variant in every round, and the winner confirmed.

    Returns:
        The variant with the best median (the original has no name), and the seconds that it took to know that.
    """
    bench = SimulatedBench(machine, programs)
    began = machine.now
    names = [name for name in programs if name]
    before: list[Run] = []
    after: dict[str, list[Run]] = {name: [] for name in names}
    bench.baseline()
    for _ in range(rounds):
        before.append(bench.baseline())
        for name in names:
            after[name].append(bench.variant(candidate(name)))
    found = {name: stats.speedup(before, runs) for name, runs in after.items()}
    gains = {"": 1.0, **{name: ratio.median for name, ratio in found.items() if ratio}}
    best = max(gains, key=lambda name: gains[name])
    for _ in range(CONFIRMATIONS):
        bench.baseline()
        bench.variant(candidate(best or names[0]))
    return best, machine.now - began
