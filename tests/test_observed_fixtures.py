"""Every model call of every fixture is observed, and what the code says of the fixtures is borne out.

All fixtures run in one process, shortened, while a second, independent count is kept of their model calls.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from neural_coder import engine
from neural_coder.analysis import Project, analyze_script
from neural_coder.bench.protocol import Job
from neural_coder.bench.runner import run
from neural_coder.observed import Merged, marks, merge, probes_to_see
from neural_coder.records import Analysis, Feature, Observation

pytestmark = [pytest.mark.torch, pytest.mark.slow]

SCRIPTS = Path(__file__).resolve().parent.parent / "fixtures" / "scripts"
NEEDS_A_GPU = "cuda_script.py"
ARGUMENTS = {
    "cli_infer.py": ["flower.jpg", "--classes", "3", "--stride", "256"],
    "digits_train_eval.py": ["--epochs", "1"],
    "distill.py": ["--epochs", "1"],
    "mostly_numpy.py": ["2"],
    "tuned_infer.py": ["--batches", "3"],
    "two_models.py": ["-n", "4"],
    "package_app/main.py": ["--epochs", "1"],
}
SHORTER = {
    "classify_photos.py": [(r"scales=\(1.0, 1.1, 1.2\)", "scales=(1.0,)")],
    "ensemble.py": [(r"range\(20\)", "range(2)")],
    "gan.py": [(r"num_epochs = 2", "num_epochs = 1")],
    "generate_text.py": [(r"range\(50\)", "range(2)"), (r"max_new_tokens=\d+", "max_new_tokens=4")],
    "lstm_forecast.py": [(r"range\(2\)", "range(1)"), (r"schritt=4", "schritt=64")],
    "registry_app.py": [(r'"steps": 40', '"steps": 2')],
    "resnet_infer.py": [(r"batches = 40", "batches = 3")],
    "train_plain.py": [(r"range\(4\)", "range(1)")],
    "two_models.py": [(r"steps=30", "steps=12")],
    "vit_notebook.py": [(r"for l in \(0, 138, 277, 416\)", "for l in (0,)")],
}
"""Loops that are cut in the copy of a fixture, on the same line."""
BATCHES = 2

NO_NAME = {"trainer_class.py": {("model", "ResidualMLP")}}
"""Models that the code builds without binding them to a name: it may or may not show them."""

DRIVER = '''\
"""Runs the scripts named in a file one after the other, as if each were the main program."""
import collections, importlib.machinery, itertools, json, os, sys, traceback, types

plan, output = sys.argv[1:3]
root = os.path.dirname(os.path.abspath(__file__)) + os.sep
import torch, transformers, sentence_transformers

whole = torch.utils.data.DataLoader.__iter__
torch.utils.data.DataLoader.__iter__ = lambda loader: itertools.islice(whole(loader), BATCHES)
calls, errors, depth = collections.Counter(), {}, 0
inner = torch.nn.Module._call_impl


def counted(module, *args, **kwargs):
    global depth
    weights = next(module.parameters(), None) is not None
    if depth == 0 and weights:
        frame = sys._getframe(1)
        while not frame.f_code.co_filename.startswith(root):
            frame = frame.f_back
        calls[f"{frame.f_code.co_filename[len(root):]}:{frame.f_lineno} {type(module).__name__}"] += 1
    depth += weights
    try:
        return inner(module, *args, **kwargs)
    finally:
        depth -= weights


for script, arguments in json.load(open(plan)).items():
    before, path = set(sys.modules), list(sys.path)
    sys.argv = [script, *arguments]
    sys.path.insert(0, os.path.dirname(root + script))
    torch.nn.Module._call_impl = counted
    try:
        main = types.ModuleType("__main__")
        main.__file__ = root + script
        sys.modules["__main__"] = main
        # (`runpy` compiles files by itself, past the probes.)
        exec(importlib.machinery.SourceFileLoader("__main__", main.__file__).get_code("__main__"), main.__dict__)
    except SystemExit:
        pass
    except Exception:
        errors[script] = traceback.format_exc()[-1500:]
    torch.nn.Module._call_impl = inner
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(root):
            del sys.modules[name]
json.dump({"calls": calls, "errors": errors}, open(output, "w"))
'''


def scripts() -> list[str]:
    """All programs among the fixtures; the one with modules of its own comes last."""
    return [*sorted(path.name for path in SCRIPTS.glob("*.py")), "package_app/main.py"]


def copy_all(folder: Path) -> None:
    """Copy the fixtures, shortened, and the one that needs a GPU made fit for the CPU."""
    shutil.copytree(SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, changes in SHORTER.items():
        text = (folder / name).read_bytes().decode("latin-1")
        for old, new in changes:
            text, count = re.subn(old, new, text)
            assert count >= 1, f"{name} has no {old}"
        (folder / name).write_bytes(text.encode("latin-1"))
    _, patches, _ = engine.build_patches(folder / NEEDS_A_GPU, [Feature(name="cuda_to_cpu")])
    for patch in patches:
        patch.before.path.write_bytes(patch.after.encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fixtures") / "scripts"
    copy_all(place)
    return place


@pytest.fixture(scope="module")
def facts(folder: Path) -> dict[str, tuple[Analysis, ...]]:
    return {name: analyze_script(folder / name, Project(folder)) for name in scripts()}


@pytest.fixture(scope="module")
def seen(folder: Path, facts: dict[str, tuple[Analysis, ...]]) -> tuple[Observation, Counter[str]]:
    driver, plan, output = folder / "driver.py", folder.parent / "plan.json", folder.parent / "calls.json"
    driver.write_text(DRIVER.replace("BATCHES", str(BATCHES)))
    plan.write_text(json.dumps({name: ARGUMENTS.get(name, []) for name in scripts()}))
    every = {analysis.path: analysis for analyses in facts.values() for analysis in analyses}.values()
    job = Job(
        python=Path(sys.executable),
        script=driver,
        args=(str(plan), str(output)),
        cwd=folder,
        root=folder,
        probes=probes_to_see(every, folder),
        marks=marks(every, folder),
        observe=True,
        to_the_end=True,
        stop_after=500.0,
        threads=1,
        environment={"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    )
    result = run(job)
    assert result.ok, result.ending
    assert result.ended_by_itself
    counted = json.loads(output.read_text())
    assert counted["errors"] == {}
    assert result.observed is not None
    assert result.observed.problems == ()
    return result.observed, Counter(counted["calls"])


def merged(name: str, folder: Path, facts: dict[str, tuple[Analysis, ...]], seen: Observation) -> Merged:
    """One fixture's facts, with the part of the run that was its own."""
    files = {analysis.path for analysis in facts[name]}
    own = Observation(
        seconds=seen.seconds,
        calls=tuple(call for call in seen.calls if files & {frame.path for frame in call.frames}),
        models=tuple(model for model in seen.models if files & {frame.path for frame in model.frames}),
        reached=seen.reached,
        reached_within=seen.reached_within,
    )
    return merge(facts[name], own, folder, complete=True)


def test_every_model_call_of_every_fixture_is_observed(folder: Path, seen: tuple[Observation, Counter[str]]) -> None:
    observation, counted = seen
    observed: Counter[str] = Counter()
    for call in observation.calls:
        place = call.frames[0]
        observed[f"{place.path.relative_to(folder).as_posix()}:{place.line} {call.name}"] += call.calls
    assert observed == counted
    assert len(counted) > 40


@pytest.mark.parametrize("name", scripts())
def test_code_and_run_agree_on_the_fixture(
    name: str, folder: Path, facts: dict[str, tuple[Analysis, ...]], seen: tuple[Observation, Counter[str]]
) -> None:
    result = merged(name, folder, facts, seen[0])
    for analysis in result.analyses:
        for site in (*analysis.inference, *(call for call in analysis.training if call.kind == "forward")):
            assert site.evidence.known_by == "observed" or "not reached" in site.evidence.note, site
    assert result.conflicts == ()
    assert {(item.kind, item.name) for item in result.added} <= NO_NAME.get(name, set())
