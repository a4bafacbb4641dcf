"""What must be true of each file in `transforms/`: its examples, its form, and the promises on every script."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from neural_coder import candidate, diff, planner, registry, testing
from neural_coder.analysis import Project, analyze_script
from neural_coder.candidate import Candidate
from neural_coder.records import Feature, Safety, Witness
from neural_coder.source import Source

TRANSFORMS = [pytest.param(kind, id=name) for name, kind in registry.transforms().items()]
CASES = [case for kind in registry.transforms().values() for case in testing.cases(kind)]
SCRIPTS = sorted((Path(__file__).parents[1] / "fixtures" / "scripts").glob("*.py"))
SCRIPTS += sorted((Path(__file__).parents[1] / "fixtures" / "scripts").glob("*/main.py"))
FEATURES = [
    Feature(name=name, value=value)
    for name, kind in registry.transforms().items()
    for value in kind.values or (kind.CHANGES[0].value,)
]
COMBINATIONS = [
    ("bf16", "channels_last", "compile"),
    ("bf16_weights", "channels_last", "compile"),
    ("bf16_weights", "channels_last", "torchscript"),
    ("bf16", "compile", "fused_optimizer", "cuda_to_cpu", "batch_size=16"),
]
PLANS = [
    *((feature,) for feature in FEATURES),
    *(tuple(registry.parse_feature(name) for name in names) for names in COMBINATIONS),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_examples_hold(case):
    testing.check(case)


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_it_explains_itself(kind):
    text = inspect.getdoc(kind)
    first, blank, *_ = text.splitlines()
    assert first.endswith(".")
    assert blank == ""
    assert re.search(r"^Source: https://\S+$", text, re.MULTILINE)
    assert "Helps" in text
    assert kind.hardware
    assert isinstance(kind.safety, Safety)
    assert kind.tasks <= {"inference", "training"}
    assert kind.tasks


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_it_has_examples_of_both_kinds(kind):
    assert len(kind.CHANGES) >= 1
    assert len(kind.LEAVES_ALONE) >= 2
    assert len(set(kind.LEAVES_ALONE)) == len(kind.LEAVES_ALONE)


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_its_declarations_name_features_that_exist(kind):
    assert {*kind.implies, *kind.excludes} <= set(registry.transforms())
    assert kind.name() not in kind.excludes
    assert not set(kind.implies) & kind.excludes


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_its_values_are_checked(kind):
    assert kind.check_value("no such value")
    assert not kind.check_value(kind.CHANGES[0].value)


def test_no_two_features_of_one_order():
    orders = [kind.order for kind in registry.transforms().values()]
    assert len(set(orders)) == len(orders)


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_nothing_seen_at_run_time_is_no_effect(kind):
    reason = kind().no_effect(Witness(), Witness(cuda_used=True, fallback="it was tested"))
    assert reason
    assert not reason.endswith(".")


# --- the examples in other clothes -----------------------------------------------------------------------------------


def tabs(text):
    """Each level of four spaces as one tab, also inside of brackets; one more tells that tabs are the style."""
    told = f'{text}if __name__ == "__main__":\n    pass\n'
    return re.sub(r"^( {4})+", lambda match: "\t" * (len(match[0]) // 4), told, flags=re.MULTILINE)


CLOTHES = {
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "cr": lambda text: text.replace("\n", "\r").encode(),
    "tabs": lambda text: tabs(text).encode(),
    "bom": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "latin-1": lambda text: f"# -*- coding: latin-1 -*-\n# caf\xe9\n{text}".encode("latin-1"),
    "no-final-newline": lambda text: text.removesuffix("\n").encode(),
    "form-feed": lambda text: b"\f\n" + text.encode() + b'\f\nprint("caf\xc3\xa9")\n',
    "escapes": lambda text: f'{text}\nprint(f"\\n{{1}}\\t", "\\u2603", """\n  a\\\n\tb""")\n'.encode(),
    "future": lambda text: f'"""A script."""\n\nfrom __future__ import annotations\n\n{text}'.encode(),
}


@pytest.mark.parametrize("clothes", CLOTHES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_examples_hold_however_the_file_is_stored(case, clothes):
    before, after = CLOTHES[clothes](case.before), CLOTHES[clothes](case.after)
    outcome, _ = testing.apply(case.transform, Source.decode(before, Path("script.py")), case.value)
    assert isinstance(outcome, testing.Patch), outcome
    assert outcome.before.encode() == before
    assert outcome.after.encode() == after
    again, _ = testing.apply(case.transform, outcome.after, case.value)
    assert again.empty


def test_the_checker_notices_wrong_examples():
    case = next(case for case in CASES if case.label == "changes-0" and case.transform.name() == "bf16")
    with pytest.raises(AssertionError, match=r"expected \(-\) and got"):
        testing.check(replace(case, after=case.before))
    alone = next(case for case in CASES if case.label == "leaves-alone-0")
    with pytest.raises(AssertionError):
        testing.check(replace(alone, after=alone.after + "\n"))


# --- real scripts -----------------------------------------------------------------------------------------------------


def build(script: Path, features: tuple[Feature, ...]) -> tuple[Project, object]:
    project = Project(script.parent)
    analyses = analyze_script(script, project)
    task = "training" if any(facts.steps for facts in analyses) else "inference"
    return project, candidate.build(planner.plan_for(features, task), project, analyses)


def undefined(path: Path) -> set[str]:
    """Names that a file uses and nobody defines."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--output-format", "concise"]
    found = subprocess.run([*command, path], capture_output=True, text=True, timeout=60, check=False)
    return set(re.findall(r"Undefined name `(\w+)`", found.stdout))


@pytest.mark.parametrize("features", PLANS, ids=lambda features: "+".join(map(str, features)))
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.relative_to(script.parents[1]).as_posix())
def test_patches_of_real_scripts_keep_their_promises(script, features, tmp_path):
    # `build` itself refuses a patch that a second pass would change, or that changes the sites of the script.
    project, built = build(script, features)
    if not isinstance(built, Candidate):
        assert not built.ours, built.reason
        assert built.reason
        return
    for patch in built.patches:
        target = tmp_path / patch.before.path.relative_to(project.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(patch.before.encode())
    before = {patch: undefined(tmp_path / patch.before.path.relative_to(project.root)) for patch in built.patches}
    change = tmp_path / "change.patch"
    change.write_bytes(diff.join(patch.diff(project.root) for patch in built.patches))
    git("apply", "--check", change.name, cwd=tmp_path)
    git("apply", change.name, cwd=tmp_path)
    for patch in built.patches:
        target = tmp_path / patch.before.path.relative_to(project.root)
        assert target.read_bytes() == patch.after.encode()
        compile(target.read_bytes(), target, "exec", dont_inherit=True)
        assert undefined(target) <= before[patch]
    git("apply", "--reverse", change.name, cwd=tmp_path)
    for patch in built.patches:
        assert (tmp_path / patch.before.path.relative_to(project.root)).read_bytes() == patch.before.encode()


def git(*command: str, cwd: Path) -> None:
    done = subprocess.run(["git", *command], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# --- with torch -------------------------------------------------------------------------------------------------------

RUN_ALL = """
import json, sys, torch

def result(code):
    torch.manual_seed(0)
    names = {"__name__": "__main__"}
    exec(compile(code, "example", "exec"), names)
    out = names.get("out")
    return out.detach().float() if isinstance(out, torch.Tensor) and out.is_floating_point() else None

problems = {}
for label, before, after, allowed in json.load(sys.stdin):
    try:
        new = result(after)
        old = result(before) if before else None
        if old is not None and not torch.allclose(old, new, rtol=allowed, atol=allowed):
            problems[label] = f"{old} became {new}"
    except BaseException as error:
        problems[label] = repr(error)
json.dump(problems, open(sys.argv[1], "w"))
"""
ALLOWED = {Safety.SAME_MATH: 1e-5, Safety.CLOSE: 0.02, Safety.LOSSY: 0.1}


def run_all(cases: list[tuple[str, str, str, float]], folder: Path) -> dict[str, str]:
    """Run scripts in one child, each in a namespace of its own; what went wrong, by label."""
    # Compiling is tested elsewhere; here it would take most of the time.
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, "-c", RUN_ALL, folder / "problems.json"]
    done = subprocess.run(
        command, input=json.dumps(cases), env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "problems.json").read_text())


@pytest.mark.torch
def test_what_examples_become_runs_and_answers_the_same(tmp_path):
    runnable = [
        (str(case), "" if "cuda" in case.before else case.before, case.after, ALLOWED[case.transform.safety])
        for case in CASES
        if "changes" in case.label
        and not re.search(r"\b(torchvision|transformers)\b", case.before)
        # What needs an environment of its own runs in that (tests/ipex).
        and "import intel_extension_for_pytorch" not in case.after
    ]
    assert len(runnable) > 20
    assert run_all(runnable, tmp_path) == {}


@pytest.mark.torch
def test_the_runner_notices_scripts_that_fail_or_answer_otherwise(tmp_path):
    cases = [
        ("raises", "", "1 / 0", 0.1),
        ("exits", "", "raise SystemExit(3)", 0.1),
        ("differs", "import torch\nout = torch.ones(1)", "import torch\nout = torch.zeros(1)", 0.1),
        ("fine", "import torch\nout = torch.ones(1)", "import torch\nout = torch.ones(1)", 0.1),
    ]
    assert set(run_all(cases, tmp_path)) == {"raises", "exits", "differs"}
