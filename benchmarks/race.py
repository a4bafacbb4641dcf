"""What the race between variants saves on real scripts, and what it loses by that.

    python benchmarks/race.py [SCRIPT ...] [--budget 20m] [--rounds 5]

Each script is optimized by the command line. Then every variant whose answers are right is measured in every round,
in turns with the original, as one would without a race. Compared are the time that both take, and the speed of the
variant that the race chose with that of the best, both from the full measurement.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searches import FIXTURES, searched

from neural_coder import candidate, planner
from neural_coder.analysis import Project, analyze_script
from neural_coder.bench import stats
from neural_coder.bench.protocol import Job
from neural_coder.candidate import Candidate
from neural_coder.race import CONFIRMATIONS, ROUNDS, Bench
from neural_coder.records import Criterion, Run
from neural_coder.registry import parse_feature

SCRIPTS = ("sensor_service.py", "train_plain.py", "digits_train_eval.py")
MOST_TIME = 0.40
MOST_LOST = 0.03


@dataclass(frozen=True, slots=True)
class Full:
    """A measurement without a race."""

    seconds: float
    gains: Mapping[str, float]
    """Median speed-up of each variant, by its id."""

    @property
    def best(self) -> str:
        """The id of the fastest one; empty when that is the original."""
        return max(self.gains, key=lambda name: self.gains[name])


def main() -> None:
    """Race, measure fully, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="*", default=SCRIPTS, help="of fixtures/scripts; no arguments of theirs")
    parser.add_argument("--budget", default="20m", help="for each search; it should not end one")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    good = [compared(script, options.budget, options.rounds) for script in options.scripts]
    sys.exit(not all(good))


def compared(script: str, budget: str, rounds: int) -> bool:
    """Print a script's comparison; whether both goals are reached."""
    race = searched(script, "--budget", budget, "--max-trials", "0")
    full = fully(FIXTURES / script, race["variants"], rounds)
    chosen = race["chosen"] or ""
    share, lost = race["seconds"] / full.seconds, 1 - full.gains[chosen] / full.gains[full.best]
    good = share <= MOST_TIME and lost <= MOST_LOST
    print(
        f"{script}: {len(race['variants'])} variants, {len(full.gains) - 1} with the right answers\n"
        f"  time: race {race['seconds']:.0f} s, full {full.seconds:.0f} s: {share:.0%} (at most {MOST_TIME:.0%})\n"
        f"  chosen {chosen or 'original'} ×{full.gains[chosen]:.2f}, best {full.best or 'original'} "
        f"×{full.gains[full.best]:.2f}: {max(lost, 0):.1%} behind (at most {MOST_LOST:.0%})"
        f"{'' if good else '  MISSED'}",
        flush=True,
    )
    return good


def fully(script: Path, variants: Sequence[Mapping[str, Any]], rounds: int) -> Full:
    """Measure every variant whose answers are right in every round, and confirm the winner."""
    project = Project.find(script, Path(sys.executable))
    analyses = analyze_script(script, project)
    probes = candidate.probes(analyses, project.root)
    job = Job(python=Path(sys.executable), script=script, cwd=script.parent, root=project.root, probes=probes)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(job=job, folder=Path(folder), criterion=Criterion())
        first = bench.first_baseline()
        bench.control()
        task = stats.task_of(first) or "inference"
        right: dict[str, Candidate] = {}
        for variant in variants:
            built = candidate.build(
                planner.plan_for([parse_feature(name) for name in variant["features"]], task), project, analyses
            )
            if isinstance(built, Candidate) and variant["status"] != "skipped":
                bench.look(built)
                if variant["accuracy"] and variant["accuracy"]["kept"] and variant["speedup"]:
                    right[variant["id"]] = built
        before: list[Run] = []
        after: dict[str, list[Run]] = {name: [] for name in right}
        for _ in range(rounds):
            before.append(bench.baseline())
            for name, item in right.items():
                after[name].append(bench.variant(item))
        ratios = {name: stats.speedup(before, runs) for name, runs in after.items()}
        full = Full(0.0, {"": 1.0, **{name: ratio.median for name, ratio in ratios.items() if ratio}})
        for _ in range(CONFIRMATIONS if full.best else 0):
            bench.baseline()
            bench.variant(right[full.best])
    return Full(time.monotonic() - began, full.gains)


if __name__ == "__main__":
    main()
