"""What the race between variants saves on real scripts, and what it loses by that.

    python benchmarks/race.py [SCRIPT ...] [--budget 20m] [--rounds 3]

Each script is optimized by the command line. Then everything is measured fully, as one would without a race: all
variants that run are measured in every round, in turns with the original. Compared are the time that both take, and the
speed of the variant that the race chose with that of the best, both from the full measurement. A further figure is the
share of a full measurement that drops variants with wrong answers after their first run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from searches import FIXTURES, searched

from neural_coder import candidate, planner
from neural_coder.analysis import Project, analyze_script
from neural_coder.bench import stats
from neural_coder.bench.protocol import Job
from neural_coder.candidate import Candidate
from neural_coder.race import CONFIRMATIONS, FEWEST_ROUNDS, Bench
from neural_coder.records import Analysis, Criterion, Run, Task
from neural_coder.registry import parse_feature

SCRIPTS = ("sensor_service.py", "train_plain.py", "digits_train_eval.py")
MOST_TIME = 0.40
MOST_LOST = 0.03


@dataclass(slots=True)
class Full:
    """A measurement without a race."""

    seconds: float = 0.0
    seconds_wrong: float = 0.0
    """Of these, for variants whose answers are wrong, after their first run."""
    gains: dict[str, float] = field(default_factory=lambda: {"": 1.0})
    """Median speed-up of each variant whose answers are right, by its id; empty for the original."""

    @property
    def best(self) -> str:
        """The id of the fastest one; empty when that is the original."""
        return max(self.gains, key=lambda name: self.gains[name])


def main() -> None:
    """Race, measure fully, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="*", default=SCRIPTS, help="of fixtures/scripts; no arguments of theirs")
    parser.add_argument("--budget", default="20m", help="for each search; it should not end one")
    parser.add_argument("--rounds", type=int, default=FEWEST_ROUNDS, help="of the full measurement; fewer favour it")
    options = parser.parse_args()
    good = [compared(script, options.budget, options.rounds) for script in options.scripts]
    sys.exit(not all(good))


def compared(script: str, budget: str, rounds: int) -> bool:
    """Print a script's comparison; whether both goals are reached."""
    race = searched(script, "--budget", budget, "--max-trials", "0")
    full = fully(FIXTURES / script, race["variants"], rounds)
    chosen = race["chosen"] or ""
    share, lost = race["seconds"] / full.seconds, 1 - full.gains[chosen] / full.gains[full.best]
    strict = race["seconds"] / (full.seconds - full.seconds_wrong)
    good = share <= MOST_TIME and lost <= MOST_LOST
    print(
        f"{script}: {len(race['variants'])} variants, {len(full.gains) - 1} with the right answers\n"
        f"  time: race {race['seconds']:.0f} s, full {full.seconds:.0f} s: {share:.0%} (at most {MOST_TIME:.0%}); "
        f"{strict:.0%} without rounds for wrong answers\n"
        f"  chosen {chosen or 'original'} ×{full.gains[chosen]:.2f}, best {full.best or 'original'} "
        f"×{full.gains[full.best]:.2f}: {max(lost, 0):.1%} behind (at most {MOST_LOST:.0%})"
        f"{'' if good else '  MISSED'}",
        flush=True,
    )
    return good


def fully(script: Path, variants: Sequence[Mapping[str, Any]], rounds: int) -> Full:
    """Measure every variant that runs in every round, and confirm the winner."""
    project = Project.find(script, Path(sys.executable))
    analyses = analyze_script(script, project)
    probes = candidate.probes(analyses, project.root)
    job = Job(python=Path(sys.executable), script=script, cwd=script.parent, root=project.root, probes=probes)
    full, began = Full(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(job=job, folder=Path(folder), criterion=Criterion())
        task = stats.task_of(bench.first_baseline()) or "inference"
        bench.control()
        built = {variant["id"]: _built(variant, task, project, analyses) for variant in variants}
        before: list[Run] = []
        after: dict[str, list[Run]] = {name: [] for name, item in built.items() if item is not None}
        for number in range(rounds):
            before.append(bench.baseline())
            for name, runs in after.items():
                runs.append(bench.variant(built[name]))
                full.seconds_wrong += runs[-1].wall_seconds if number and not _is_right(variants, name) else 0.0
        for name, runs in after.items():
            ratio = stats.speedup(before, runs) if _is_right(variants, name) else None
            if ratio is not None:
                full.gains[name] = ratio.median
        for _ in range(CONFIRMATIONS if full.best else 0):
            bench.baseline()
            bench.variant(built[full.best])
    full.seconds = time.monotonic() - began
    return full


def _built(variant: Mapping[str, Any], task: Task, project: Project, analyses: Sequence[Analysis]) -> Candidate | None:
    """The variant, if it can be run; the search's JSON says so."""
    if variant["status"] in ("skipped", "failed"):
        return None
    features = [parse_feature(name) for name in variant["features"]]
    built = candidate.build(planner.plan_for(features, task), project, analyses)
    return built if isinstance(built, Candidate) else None


def _is_right(variants: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether the search found that a variant keeps the answers."""
    accuracy = next(variant["accuracy"] for variant in variants if variant["id"] == name)
    return bool(accuracy and accuracy["kept"])


if __name__ == "__main__":
    main()
