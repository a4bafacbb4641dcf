"""Metric functions run in the child, after the script; whatever they do costs their own answer at most."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest
from projects import Project

from neural_coder.bench.runner import run
from neural_coder.records import Metric, MetricValue, Run

SCRIPT = """\
import random
def model(x):
    return [x, 2.0 * x]
answers = []
for x in range(40):
    answers.append(model(x))
labels = [x % 4 > 0 for x in range(40)]
print("loss: 0.5")
"""


def measured(root: Path, code: str, script: str = SCRIPT, **settings: object) -> Run:
    """One run of a script with the metric function `found` of a file."""
    project = Project(root, script).probe("inference", "model(x)")
    project.add("checks/metrics.py", code)
    metric = Metric(name="found", file=root / "checks" / "metrics.py", function="found")
    before = project.snapshot()
    result = run(project.job(**{"metrics": (metric,), "to_the_end": True, **settings}))
    assert project.snapshot() == before
    assert result.ok, result.ending
    return result


def value(root: Path, code: str, script: str = SCRIPT, **settings: object) -> MetricValue:
    (found,) = measured(root, code, script, **settings).metrics
    return found


def test_a_function_gets_the_scripts_global_names(tmp_path: Path) -> None:
    found = value(tmp_path, "def found(names):\n    return sum(names['labels']) / len(names['answers'])\n")
    assert found == MetricValue(name="found", value=0.75)


def test_numbers_for_each_sample_are_averaged_and_kept(tmp_path: Path) -> None:
    found = value(tmp_path, "def found(names):\n    return names['labels']\n")
    assert found.value == 0.75
    assert found.count == len(found.samples) == 40
    assert found.samples[:4] == (0.0, 1.0, 1.0, 1.0)


def test_very_many_samples_are_averaged_in_groups(tmp_path: Path) -> None:
    found = value(tmp_path, "def found(names):\n    return (x % 10 for x in range(25_000))\n")
    assert found.value == 4.5
    assert found.count == 25_000
    assert len(found.samples) == 1000


def test_patterns_and_functions_answer_side_by_side_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "checks" / "metrics.py"
    metrics = (
        Metric(name="b", file=file, function="found"),
        Metric(name="a", pattern="loss: (.*)"),
        Metric(name="c", file=file, function="other"),
        Metric(name="d", pattern="nowhere (.*)"),
    )
    # What a function prints is not the script's output.
    code = "def found(names):\n    print('loss: 9')\n    return 1\ndef other(names):\n    return 2\n"
    found = measured(tmp_path, code, metrics=metrics).metrics
    assert [(each.name, each.value) for each in found] == [("b", 1.0), ("a", 0.5), ("c", 2.0), ("d", None)]
    assert "matches nothing" in found[3].problem


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return names['absent']", "metrics.py:found raised KeyError: 'absent'"),
        ("return 'good'", "returned str"),
        ("return None", "returned NoneType"),
        ("return {'acc': 1.0}", "returned dict"),
        ("return []", "returned no numbers"),
        ("return [1, 'two']", "could not convert"),
        ("import sys; sys.exit(0)", "raised SystemExit"),
        ("import os; os._exit(3)", "did not come to its end"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "did not come to its end"),
    ],
)
def test_a_function_that_fails_costs_its_answer_only(tmp_path: Path, body: str, problem: str) -> None:
    result = measured(tmp_path, f"def found(names):\n    {body}\n")
    assert result.timings[0].samples
    (found,) = result.metrics
    assert found.value is None
    assert problem in found.problem


def test_a_function_that_hangs_costs_its_answer_only(tmp_path: Path) -> None:
    began = time.monotonic()
    found = value(tmp_path, "import time\ndef found(names):\n    time.sleep(300)\n", timeout=6.0)
    assert time.monotonic() - began < 30
    assert (found.value, found.problem) == (None, "the function did not come to its end")


def test_a_file_that_fails_costs_its_answer_only(tmp_path: Path) -> None:
    found = value(tmp_path, "def found(names):\n    return 1\nassert not found\n")
    assert "raised AssertionError" in found.problem


def test_functions_run_only_where_a_run_goes_to_the_end(tmp_path: Path) -> None:
    code = "from pathlib import Path\nPath(__file__).with_name('called').touch()\ndef found(names):\n    return 1\n"
    assert value(tmp_path, code).value == 1.0
    assert not (tmp_path / "checks" / "called").exists()  # it came into being in the copy of the project
    marked = code.replace("Path(__file__).with_name('called')", f"Path({str(tmp_path.with_suffix('.called'))!r})")
    # The script ends by itself before there are enough samples, and still it is not asked for.
    assert "not asked for" in value(tmp_path, marked, to_the_end=False).problem
    assert not tmp_path.with_suffix(".called").exists()
    assert value(tmp_path, marked).value == 1.0
    assert tmp_path.with_suffix(".called").exists()


def test_a_script_that_fails_is_not_asked(tmp_path: Path) -> None:
    project = Project(tmp_path, SCRIPT + "raise SystemExit(3)\n").probe("inference", "model(x)")
    file = project.add("metrics.py", f"open({str(tmp_path.with_suffix('.called'))!r}, 'w')\ndef f(names): return 1\n")
    result = run(project.job(metrics=(Metric(name="f", file=file, function="f"),), to_the_end=True))
    assert result.ending.kind == "crashed"
    assert result.metric is None
    assert not tmp_path.with_suffix(".called").exists()


def test_a_script_that_exits_with_success_is_asked(tmp_path: Path) -> None:
    assert value(tmp_path, "def found(names):\n    return 1\n", SCRIPT + "import sys\nsys.exit()\n").value == 1.0


def test_the_file_takes_no_name_and_finds_its_neighbours(tmp_path: Path) -> None:
    script = "import metrics\nassert metrics.OWN\n" + SCRIPT
    code = (
        "from __future__ import annotations\nimport sys\nfrom dataclasses import dataclass\nimport neighbour\n"
        "@dataclass\nclass Pair:\n    one: float\n"
        "def found(names):\n    assert sys.modules['metrics'] is names['metrics']\n"
        "    assert not hasattr(names['metrics'], 'found')\n    return Pair(neighbour.SEVEN).one\n"
    )
    project = Project(tmp_path, script)
    project.add("metrics.py", "OWN = True\n")
    project.add("checks/neighbour.py", "SEVEN = 7\n")
    assert value(tmp_path, code, script).value == 7.0


def test_a_file_outside_of_the_project_serves_as_well(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outside.py"
        file.write_text("def found(names):\n    return len(names['labels'])\n")
        metric = Metric(name="found", file=file, function="found")
        assert value(tmp_path, "", metrics=(metric,)).value == 40.0
        assert os.listdir(folder) == ["outside.py"]  # noqa: PTH208 - no cache of bytecode beside it


def test_random_numbers_do_not_depend_on_how_many_were_drawn_before(tmp_path: Path) -> None:
    script = SCRIPT + "import os\nfor _ in range(os.getpid() % 97):\n    random.random()\n"
    code = "import random\ndef found(names):\n    return [random.random() for _ in range(3)]\n"
    job = {"script": script, "code": code}
    assert value(tmp_path, **job) == value(tmp_path, **job, seed=0)
    assert value(tmp_path, **job) != value(tmp_path, **job, seed=1)


def test_a_function_comes_too_late_to_change_what_is_measured(tmp_path: Path) -> None:
    code = "def found(names):\n    names['hoard'] = bytearray(300_000_000)\n    return len(names['hoard'])\n"
    result = measured(tmp_path, code)
    assert result.metric == 300_000_000
    assert result.peak_memory_bytes < 200_000_000


TORCH = """\
import torch
model = torch.nn.Linear(4, 3).eval()
x = torch.randn(60, 4)
for _ in range(5):
    y = model(x)
"""


@pytest.mark.torch
@pytest.mark.parametrize(
    ("body", "count", "calls_model"),
    [
        ("return names['y'].mean()", 0, False),
        ("return names['y'][:, :1]", 60, False),
        ("return names['y'].argmax(-1).numpy() == 1", 60, False),
        ("return list(names['y'][:, 0].to(torch.bfloat16))", 60, False),
        ("return names['model'](names['x'])[:, 0]", 60, True),
    ],
)
def test_tensors_and_arrays_are_numbers_too(tmp_path: Path, body: str, count: int, calls_model: bool) -> None:
    found = value(tmp_path, f"import torch\ndef found(names):\n    {body}\n", TORCH)
    assert found.value is not None, found.problem
    assert (found.count, found.calls_model) == (count, calls_model)
