"""The sweep over run configurations, with real children: figures, ways to another batch size, and what is declined."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

import neural_coder
from neural_coder import candidate, sweep
from neural_coder.analysis import Project, analyze_script
from neural_coder.batching import ways
from neural_coder.bench import machine
from neural_coder.bench.protocol import Job, Sampling
from neural_coder.configurations import usual
from neural_coder.race import Bench, Clock
from neural_coder.records import Criterion, RunConfiguration
from neural_coder.report import sweep_json, sweep_text

CORES = machine.usable_cores()
SHORT = Sampling(warmup=1, min_samples=4, max_samples=8, min_seconds=0.0, max_seconds=5.0)
LOADER = """\
import argparse
import torch
from torch.utils.data import DataLoader

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=4)
options = parser.parse_args()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 5)).eval()
loader = DataLoader(torch.randn(64, 16), batch_size=options.batch_size)
for x in loader:
    y = model(x)
"""
MIXES = """\
import torch

class Mixes(torch.nn.Module):
    def forward(self, x):
        return x - x.cumsum(0)

torch.manual_seed(0)
model = Mixes().eval()
for _ in range(20):
    y = model(torch.randn(4, 16))
"""


class Ground:
    """A script, its first two runs, and sweeps over it."""

    def __init__(self, folder: Path, text: str, args: tuple[str, ...] = ()) -> None:
        script = folder / "project" / "script.py"
        script.parent.mkdir()
        script.write_text(text)
        self.project = Project.find(script, Path(sys.executable))
        self.analyses = analyze_script(script, self.project)
        job = Job(
            python=Path(sys.executable),
            script=script,
            args=args,
            cwd=script.parent,
            root=self.project.root,
            probes=candidate.probes(self.analyses, self.project.root),
            sampling=SHORT,
            timeout=120.0,
        )
        self.bench = Bench(job=job, folder=folder / "bench", criterion=Criterion())
        self.first, self.control = self.bench.first_baseline(), self.bench.control()
        assert self.first.ok, self.first.ending
        assert self.control.ok, self.control.ending

    def sweep(
        self, *asked: RunConfiguration, budget: float = 1e6, args: tuple[str, ...] | None = None, say=lambda _: None
    ):
        bench = self.bench
        if args is not None:
            bench = replace(bench, job=replace(bench.job, args=args))
        sweeper = sweep.Sweeper(
            bench=bench,
            task="inference",
            first=self.first,
            control=self.control,
            project=self.project,
            analyses=self.analyses,
            clock=Clock(budget=budget),
            say=say,
        )
        return sweeper.run(None, asked, ())


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("sweep"), LOADER, ("--batch-size", "4"))


@pytest.fixture
def _one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "ROUNDS", 1)


@pytest.mark.torch
@pytest.mark.usefixtures("_one_round")
def test_each_configuration_has_its_figures_and_the_best_are_named(ground: Ground) -> None:
    larger = RunConfiguration(cores_per_instance=CORES, threads=CORES, batch_size=32)
    several = RunConfiguration(instances=CORES, cores_per_instance=1, threads=1)
    found = ground.sweep(usual(CORES), larger, several)
    assert [result.status for result in found.results] == ["measured"] * 3, found.results
    one, batched, many = found.results
    assert found.unit == "items"
    assert one.throughput.median == pytest.approx(4 / one.latency.median)
    assert batched.throughput.median == pytest.approx(32 / batched.latency.median)
    assert batched.batch_by == "the script was given --batch-size 32"
    assert all("--batch-size 32" in command for command in batched.commands)
    assert len(many.commands) == CORES
    assert many.slowest.median >= many.latency.median
    assert many.throughput.median >= CORES * 4 / many.slowest.median * 0.99
    assert found.best_throughput.throughput.median == max(result.throughput.median for result in found.results)
    assert found.best_latency.latency.median == min(result.latency.median for result in found.results)


@pytest.mark.torch
@pytest.mark.usefixtures("_one_round")
def test_without_an_argument_the_data_loader_is_given_the_batch_size(ground: Ground) -> None:
    (result,) = ground.sweep(RunConfiguration(cores_per_instance=1, threads=1, batch_size=16), args=()).results
    assert result.status == "measured", result
    assert result.batch_by == "its data loaders form batches of 16"
    assert result.throughput.median == pytest.approx(16 / result.latency.median)


@pytest.mark.torch
@pytest.mark.usefixtures("_one_round")
def test_an_argument_that_does_not_reach_the_model_gives_way_to_the_data_loader(tmp_path: Path) -> None:
    fixed = LOADER.replace("batch_size=options.batch_size", "batch_size=4")
    asked = RunConfiguration(cores_per_instance=1, threads=1, batch_size=16)
    (result,) = Ground(tmp_path, fixed, ("--batch-size", "4")).sweep(asked).results
    assert result.status == "measured", result
    assert result.batch_by == "its data loaders form batches of 16"


@pytest.mark.torch
@pytest.mark.usefixtures("_one_round")
def test_a_model_whose_answers_depend_on_their_neighbours_is_not_best_at_anything(tmp_path: Path) -> None:
    asked = RunConfiguration(cores_per_instance=1, threads=1, batch_size=8)
    found = Ground(tmp_path, MIXES).sweep(asked)
    (result,) = found.results
    assert result.status == "inaccurate", result
    assert result.batch_by.startswith("the inputs of the model's calls")
    assert found.best_latency is None
    assert found.best_throughput is None


@pytest.mark.torch
def test_what_the_time_does_not_suffice_for_is_said_to_be_not_measured(ground: Ground) -> None:
    found = ground.sweep(usual(CORES), RunConfiguration(cores_per_instance=1, threads=1, batch_size=8), budget=0.001)
    assert {result.status for result in found.results} == {"not_measured"}
    assert all("--budget" in result.reason for result in found.results)
    assert found.best_latency is None
    assert sweep_text.conclusions(sweep_json.to_dict(found))[0] == "No run configuration could be measured."


@pytest.mark.torch
@pytest.mark.usefixtures("_one_round")
def test_what_was_measured_before_an_interruption_is_not_lost(ground: Ground) -> None:
    def interrupt(sentence: str) -> None:
        if "batch 8" in sentence:
            raise KeyboardInterrupt

    found = ground.sweep(usual(CORES), RunConfiguration(cores_per_instance=1, threads=1, batch_size=8), say=interrupt)
    assert [result.status for result in found.results] == ["measured", "not_measured"]
    assert found.best_latency is found.results[0]
    assert sweep.INTERRUPTED in found.notes


@pytest.mark.torch
@pytest.mark.slow
def test_the_best_variants_are_measured_besides_the_original(tmp_path: Path) -> None:
    script = tmp_path / "infer.py"
    script.write_text(LOADER)
    result = neural_coder.enable(script, ["inference_mode"], mode="latency", threads="1", batch_size=8, budget="40s")
    found = result.data["run_configurations"]
    assert found["mode"] == "latency"
    assert {one["configuration"] for one in found["results"]} == {
        f"1 instance of {CORES} core{'s' * (CORES > 1)}, {CORES} thread{'s' * (CORES > 1)}",
        f"1 instance of {CORES} core{'s' * (CORES > 1)}, 1 thread, batch 8",
    }
    assert None in {one["variant"] for one in found["results"]}
    assert "run configuration" in repr(result)


def test_an_argument_that_sets_the_batch_size_is_changed_and_no_other() -> None:
    def changed(*args: str) -> tuple[str, ...] | None:
        first = ways(32, args)[0]
        return first.args if first.kind == "argument" else None

    assert changed("--batch-size", "4", "photos") == ("--batch-size", "32", "photos")
    assert changed("photos", "--test-batch-size=4") == ("photos", "--test-batch-size=32")
    assert changed("--batch-size", "auto") is None
    assert changed("--batch-sizes", "4") is None
    assert changed("--batch-size") is None
    assert changed("4") is None
    assert [way.kind for way in ways(32, ())] == ["loader", "inputs"]
