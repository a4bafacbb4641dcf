"""Children that run at the same time: on cores of their own, and measuring while all of them run."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from projects import Project

from neural_coder.bench import machine
from neural_coder.bench.protocol import Job, Sampling
from neural_coder.bench.runner import run, run_together

WARMUP, SAMPLES = 2, 4
SCRIPT = """
import os, sys, time
out = open(sys.argv[1], "w")
pause, last = float(sys.argv[2]), int(sys.argv[3])
def model(x):
    out.write(f"{time.monotonic()}\\n")
    out.flush()
    time.sleep(pause)
    return x
time.sleep(float(sys.argv[4]))
for step in range(last):
    y = model(step)
"""
needs_binding = pytest.mark.skipif(not machine.physical_cores(), reason="processes cannot be bound to cores here")


def job(folder: Path, name: str, *, pause: float = 0.01, calls: int = 100_000, delay: float = 0.0) -> Job:
    """A script that notes when its calls begin."""
    root = folder / "project"
    root.mkdir(exist_ok=True)
    project = Project(root, SCRIPT)
    sampling = Sampling(warmup=WARMUP, min_samples=SAMPLES, max_samples=1000, min_seconds=0.0, max_seconds=10.0)
    arguments = (str(folder / name), str(pause), str(calls), str(delay))
    return project.probe("inference", "model(step)").job(args=arguments, sampling=sampling, timeout=30.0)


def begins(folder: Path, name: str) -> list[float]:
    return [float(line) for line in (folder / name).read_text().split()]


def test_nobody_is_measured_before_all_are_warm_or_after_one_has_left(tmp_path: Path) -> None:
    early, late = job(tmp_path, "early"), job(tmp_path, "late", pause=0.05, delay=0.5)
    runs = run_together([early, late])
    assert all(one.ok for one in runs), [one.ending for one in runs]
    first, second = begins(tmp_path, "early"), begins(tmp_path, "late")
    # The early one makes its warm-up calls at once, then waits for the late one to be warm.
    assert first[WARMUP - 1] < second[0]
    assert first[WARMUP] > second[WARMUP - 1]
    # It has enough long before the slow one, and goes on until that has enough.
    assert first[-1] > second[WARMUP + SAMPLES - 2]
    assert len(first) > WARMUP + 2 * SAMPLES


def test_a_script_that_ends_by_itself_keeps_the_machine_busy_until_the_others_have_enough(tmp_path: Path) -> None:
    short, late = job(tmp_path, "short", calls=WARMUP + SAMPLES), job(tmp_path, "late", pause=0.05, delay=0.3)
    runs = run_together([short, late])
    assert all(one.ok for one in runs), [one.ending for one in runs]
    assert runs[0].ended_by_itself
    assert begins(tmp_path, "short")[-1] > begins(tmp_path, "late")[WARMUP + SAMPLES - 2]


@pytest.mark.parametrize("end", ["raise SystemError('no')", "os._exit(3)"])
def test_one_that_fails_does_not_hold_the_others_up(tmp_path: Path, end: str) -> None:
    good = job(tmp_path, "good")
    bad = replace(
        good, args=(str(tmp_path / "bad"), *good.args[1:]), patched={good.script: f"import os\n{end}\n".encode()}
    )
    bad = replace(bad, probes={})
    began = time.monotonic()
    runs = run_together([good, bad])
    assert runs[0].ok
    assert not runs[1].ok
    assert time.monotonic() - began < 20


def test_one_that_cannot_be_started_does_not_either(tmp_path: Path) -> None:
    good = job(tmp_path, "good")
    runs = run_together([replace(good, python=Path("/no/such/python")), good])
    assert [one.ending.kind for one in runs] == ["unusable", "ok"]


@needs_binding
def test_a_process_is_bound_before_the_script_begins(tmp_path: Path) -> None:
    core = machine.physical_cores()[-1][-1]
    text = f"import os\nassert os.sched_getaffinity(0) == {{{core}}}, os.sched_getaffinity(0)\n"
    text += "assert os.environ['OMP_NUM_THREADS'] == '3'\n"
    text += "def model(x): return x\nfor step in range(100): y = model(step)\n"
    found = run(Project(tmp_path, text).probe("inference", "model(step)").job(cores=(core,), threads=3))
    assert found.ok, found.ending
    assert found.cores == (core,)
    assert os.sched_getaffinity(0) != {core} or machine.usable_cores() == 1


@pytest.mark.torch
@needs_binding
def test_pytorch_computes_with_the_threads_and_cores_of_its_instance(tmp_path: Path) -> None:
    text = "import torch\nmodel = torch.nn.Linear(4, 4)\nfor step in range(9):\n    y = model(torch.ones(2, 4))\n"
    cores = [core for node in machine.physical_cores() for core in node][:2]
    plain = Project(tmp_path, text).probe("inference", "model(torch.ones(2, 4))").job()
    runs = run_together([replace(plain, cores=(core,), threads=number) for number, core in enumerate(cores, 1)])
    assert [one.cores for one in runs] == [(core,) for core in cores]
    assert [one.threads for one in runs] == list(range(1, len(cores) + 1))


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of its cores")
def test_hyper_threads_of_a_core_count_once_and_nodes_stay_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}"
        (folder / "topology").mkdir(parents=True)
        (folder / "topology" / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
        (folder / f"node{cpu % 2}").mkdir()
    monkeypatch.setattr(machine, "SYSTEM_CPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 4, 5, 7})
    assert machine.physical_cores() == ((0, 2), (1, 7))
