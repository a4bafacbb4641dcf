"""Is the verdict to be trusted on a busy machine? Variants of known speed are judged while others take the cores.

    python benchmarks/verdict.py [--trials N] [--processes N] [--torch N] [--real] [--json FILE]

1. Simulated processes, many trials: the real race, verdict and sampling rules on figures that are made up.
2. Real processes: a script with a known amount of work, without PyTorch (`--torch`: with it, on two threads), through
   the real runner, while another process burns no, one or both cores at random.
3. What the race saves against measuring everything fully, and what it loses by that (simulated searches).
4. `--real`: three fixtures against themselves, under the same load.

Ends with status 1 when a promise is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from simulation import CRITERION, Machine, Program, candidate, measure_fully, name_of, search

from neural_coder import candidate as candidates
from neural_coder.analysis import Project, analyze_script
from neural_coder.bench.protocol import Job, Probe, Sampling
from neural_coder.candidate import Candidate
from neural_coder.race import ROUNDS, Bench, Clock, Race, Result
from neural_coder.records import Criterion, Run, Span, Task

SPEEDUP = 1.1
MOST_FALSE = 0.05
FEWEST_FOUND = 0.90
MOST_TIME = 0.40
MOST_LOST = 0.03
CONFIDENCE = 0.95
FIXTURES = ("resnet_infer.py", "bert_classifier.py", "digits_train_eval.py")
SCENES: dict[str, dict[str, object]] = {
    "quiet machine": {"load": (0,), "slow_processes": 0.0},
    "0 to 2 cores burnt, one thread": {},
    "0 to 2 cores burnt, two threads": {"parallel": True},
    "cores shared with another machine, Python": {"load": (0,), "neighbour": 1.7},
    "cores shared with another machine, 0 to 2 burnt, matrices": {"neighbour": 1.7, "follows": 0.4},
    "both cores always burnt, one thread": {"load": (2,)},
    "1 or 2 cores always burnt, two threads": {"load": (1, 2), "parallel": True},
}
HOPELESS = frozenset({"1 or 2 cores always burnt, two threads"})
"""Nothing can be found there; the answer must not be wrong."""
SCRIPT = """\
def work(n):
    total = 0
    for i in range(n):
        total += i * i
    return total
N = {n}
for _ in range(120):
    result = work(N)
print("answer: 1")
"""
TORCH_SCRIPT = """\
import torch
torch.set_num_threads(2)
def work(n):
    x = torch.ones(384, 384)
    for i in range(n):
        x = torch.relu(x @ x / 384)
    return x
N = {n}
for _ in range(120):
    result = work(N)
print("answer: 1")
"""
TURNS = {SCRIPT: 110_000, TORCH_SCRIPT: 22}
"""Rounds of work in one call of the original; divisible by `SPEEDUP`."""
BURN = "while True: pass"


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many, and what that says about the true share."""

    hits: int
    trials: int

    @property
    def high(self) -> float:
        """The true share is at most this, with `CONFIDENCE` (Clopper and Pearson, one-sided)."""
        return 1.0 if self.hits >= self.trials else _solve(lambda p: _at_most(self.hits, self.trials, p))

    @property
    def low(self) -> float:
        """The true share is at least this, with `CONFIDENCE`."""
        return 1.0 - Share(self.trials - self.hits, self.trials).high

    def __str__(self) -> str:
        seen = f"{self.hits} of {self.trials}"
        return f"{seen} ({self.hits / self.trials:.1%}; 95 % sure: {self.low:.1%} to {self.high:.1%})"


def _at_most(hits: int, trials: int, share: float) -> float:
    """The chance of at most so many hits."""
    return math.fsum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(hits + 1))


def _solve(chance: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) > 1 - CONFIDENCE else (low, middle)
    return high


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search with one variant ended with."""

    status: str
    rounds: int
    seconds: float

    @classmethod
    def of(cls, found: Result, seconds: float) -> Outcome:
        """From a race's result: `faster` is what was chosen and confirmed."""
        (verdict,) = found.verdicts
        return cls("faster" if found.chosen else verdict.status, verdict.rounds, seconds)


# --- simulated ------------------------------------------------------------------------------------------------------


def simulated(scene: dict[str, object], gain: float, seed: int) -> Outcome:
    """One search on a simulated machine, with calls of 2 to 200 ms."""
    chance = random.Random(f"{seed} {gain} {scene}")
    seconds = math.exp(chance.uniform(math.log(0.002), math.log(0.2)))
    machine = Machine(chance, **scene)  # type: ignore[arg-type]
    found = search(machine, {"": Program(seconds), "variant": Program(seconds / gain)})
    return Outcome.of(found, machine.now)


def simulated_searches(trials: int, seed: int) -> Iterator[tuple[float, float]]:
    """Searches over one to three dozen variants: the race's share of the time of measuring all fully, and what it lost.

    Start and conversion are like those that the fixtures' variants show: most convert in no time, some take long.
    """
    for trial in range(trials):
        chance = random.Random(f"race {seed} {trial}")
        seconds = math.exp(chance.uniform(math.log(0.005), math.log(0.2)))
        programs = {"": Program(seconds, start=3.0)}
        for number in range(chance.choice((12, 18, 30))):
            speed = math.exp(chance.gauss(0.1, 0.35))
            conversion = chance.choice((0.0, 0.0, 0.5, 0.5, 3.0, 10.0))
            programs[f"v{number}"] = Program(seconds / speed, start=3.0, conversion=conversion)
        race = Machine(random.Random(trial))
        found = search(race, programs, budget=1e6)
        for program in programs.values():
            program.runs = 0
        full = Machine(random.Random(trial))
        best, took = measure_fully(full, programs, rounds=ROUNDS)
        chosen = name_of(found.chosen.plan) if found.chosen else ""
        yield race.now / took, programs[chosen].seconds / programs[best].seconds - 1


# --- real processes -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def burning(seed: int) -> Iterator[None]:
    """Let no, one or two processes burn cores, for random times."""
    stop = threading.Event()
    thread = threading.Thread(target=_burn, args=(random.Random(seed), stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _burn(chance: random.Random, stop: threading.Event) -> None:
    while not stop.is_set():
        burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(chance.choice((0, 1, 2)))]
        try:
            stop.wait(chance.uniform(0.2, 3.0))
        finally:
            for burner in burners:
                burner.kill()
                burner.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten(Candidate):
    """A variant whose text is given, not made by features."""

    files: dict[Path, bytes]

    @property
    def patched(self) -> dict[Path, bytes]:
        """The new bytes of each changed file, by its path."""
        return self.files


def in_processes(text: str, gain: float, folder: Path) -> Outcome:
    """One search in real processes over a script whose variant does less work by a known factor."""
    script = folder / "main.py"
    turns = TURNS[text]
    original = text.format(n=turns)
    script.write_text(original, encoding="utf-8")
    line = original.splitlines().index("    result = work(N)") + 1
    call = Span(line=line, column=13, end_line=line, end_column=20)
    probes = {script: (Probe(site="main.py:inference:0", kind="inference", call=call),)}
    variant = Rewritten(
        plan=candidate("variant").plan,
        patches=(),
        probes=probes,
        files={script: text.format(n=round(turns / gain)).encode()},
    )
    job = Job(
        python=Path(sys.executable),
        script=script,
        cwd=folder,
        root=folder,
        probes=probes,
        timeout=120.0,
        sampling=Sampling(min_seconds=0.3, max_seconds=6.0),
        metrics=CRITERION.metrics,
    )
    return _race(job, CRITERION, "inference", [variant], budget=120.0)


def against_itself(script: Path, budget: float) -> Outcome:
    """One search in real processes over a fixture and an identical variant of it."""
    project = Project.find(script, Path(sys.executable))
    analyses = analyze_script(script, project)
    probes = candidates.probes(analyses, project.root)
    same = Rewritten(
        plan=candidate("itself").plan,
        patches=(),
        probes=probes,
        files={script: script.read_bytes() + b"\n# the same\n"},
    )
    job = Job(python=Path(sys.executable), script=script, cwd=script.parent, root=project.root, probes=probes)
    task: Task = "training" if any(facts.steps for facts in analyses) else "inference"
    return _race(job, Criterion(), task, [same], budget=budget)


def _race(job: Job, criterion: Criterion, task: Task, variants: list[Candidate], budget: float) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(job=job, folder=Path(folder), criterion=criterion)
        clock = Clock(budget=budget)
        first, control = bench.first_baseline(), bench.control()
        for run in (first, control):
            _check(run)
        race = Race(bench=bench, task=task, first=first, control=control, clock=clock, say=lambda _: None)
        found = race.run(variants)
        return Outcome.of(found, clock.used)


def _check(run: Run) -> None:
    if not run.ok:
        raise SystemExit(f"The original gave no figures: {run.ending.message}\n{run.ending.stderr_tail}")


# --- telling --------------------------------------------------------------------------------------------------------


class Report:
    """Prints what was found, and keeps it."""

    def __init__(self) -> None:
        self.broken = False
        self.data: list[dict[str, object]] = []

    def trials(self, scene: str, judge: Callable[[float, int], Outcome], trials: int, *, findable: bool = True) -> None:
        """Judge an identical variant and a faster one, so many times each."""
        print(f"{scene}:", flush=True)
        for gain in (1.0, SPEEDUP):
            outcomes = [judge(gain, number) for number in range(trials)]
            ends = Counter(outcome.status for outcome in outcomes)
            share = Share(ends["faster"], trials)
            # With few trials only what is surely broken counts; the bounds tell how much is known.
            wrong = share.low > MOST_FALSE if gain == 1.0 else findable and share.high < FEWEST_FOUND
            what = "identical, called faster" if gain == 1.0 else f"×{gain:g} faster, found"
            goal = f"at most {MOST_FALSE:.0%}" if gain == 1.0 else f"at least {FEWEST_FOUND:.0%}"
            rounds = sum(outcome.rounds for outcome in outcomes) / trials
            print(f"  {what}: {share}; goal: {goal if gain == 1.0 or findable else 'none'}{' BROKEN' if wrong else ''}")
            print(f"    {dict(ends)}, {rounds:.1f} rounds on average", flush=True)
            self.broken |= wrong
            self.data.append({"scene": scene, "gain": gain, "trials": trials, "ends": ends, "rounds": rounds})

    def searches(self, figures: list[tuple[float, float]]) -> None:
        """Compare races with full measurements."""
        times = sorted(time for time, _ in figures)
        good = Share(sum(lost <= MOST_LOST for _, lost in figures), len(figures))
        middle = times[len(times) // 2]
        print(
            f"race against full measurement, {len(figures)} simulated searches of 12 to 30 variants:\n"
            f"  time: {middle:.0%} (median; {times[0]:.0%} to {times[-1]:.0%}); goal: at most {MOST_TIME:.0%}\n"
            f"  chosen variant within {MOST_LOST:.0%} of the best of the full measurement: {good}"
        )
        self.broken |= middle > MOST_TIME
        self.data.append({"scene": "race", "time": middle, "within": good.hits, "trials": good.trials})


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=400, help="simulated trials of each kind")
    parser.add_argument("--processes", type=int, default=20, help="trials of each kind in real processes")
    parser.add_argument("--torch", type=int, default=0, help="the same with PyTorch on two threads")
    parser.add_argument("--real", action="store_true", help="three fixtures against themselves; minutes each")
    parser.add_argument("--budget", type=float, default=180.0, help="seconds for each of these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    given = parser.parse_args()
    report = Report()
    for scene, settings in SCENES.items() if given.trials else ():
        report.trials(
            f"simulated, {scene}",
            lambda gain, number, settings=settings: simulated(settings, gain, given.seed * 10**6 + number),
            given.trials,
            findable=scene not in HOPELESS,
        )
    if given.trials:
        report.searches(list(simulated_searches(max(1, given.trials // 4), given.seed)))
    for name, text, trials in (
        ("one thread", SCRIPT, given.processes),
        ("PyTorch, two threads", TORCH_SCRIPT, given.torch),
    ):
        if trials:
            with burning(given.seed), tempfile.TemporaryDirectory() as folder:
                report.trials(
                    f"real processes, 0 to 2 cores burnt, {name}",
                    lambda gain, _, text=text, folder=folder: in_processes(text, gain, Path(folder)),
                    trials,
                )
    if given.real:
        scripts = Path(__file__).resolve().parent.parent / "fixtures" / "scripts"
        for name in FIXTURES:
            with burning(given.seed):
                outcome = against_itself(scripts / name, given.budget)
            wrong = outcome.status == "faster"
            report.broken |= wrong
            print(
                f"{name} against itself: {outcome.status} in {outcome.rounds} rounds, {outcome.seconds:.0f} s",
                flush=True,
            )
            report.data.append({"scene": name, "gain": 1.0, "status": outcome.status, "rounds": outcome.rounds})
    if given.json:
        given.json.write_text(json.dumps(report.data, indent=2), encoding="utf-8")
    sys.exit(report.broken)


if __name__ == "__main__":
    main()
