"""Tuning end to end: a layer that 8 bits spoil is found, left out, and named in the patch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import neural_coder
from neural_coder.analysis import Project, analyze_script
from neural_coder.bench import runner
from neural_coder.bench.protocol import Job
from neural_coder.candidate import build
from neural_coder.errors import UserError
from neural_coder.planner import plan_for
from neural_coder.registry import parse_feature
from neural_coder.report import text

pytestmark = pytest.mark.torch

SCRIPT = """\
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(256, 256)

    def forward(self, x):
        return torch.relu(self.dense(x))


torch.manual_seed(0)
net = nn.Sequential(nn.Linear(64, 256), Block(), Block(), Block(), nn.Linear(256, 10))
with torch.no_grad():  # the same function, with six huge features between two layers
    net[1].dense.weight[:6] *= 400
    net[1].dense.bias[:6] *= 400
    net[2].dense.weight[:, :6] /= 400
    for block in (net[1], net[2], net[3]):
        block.dense.weight *= 2
net.eval()
with torch.no_grad():
    for _ in range(60):
        net(torch.randn(32, 64))
"""
CULPRIT = "2.dense"


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_the_look_at_operators_names_the_culprit(script):
    project = Project.find(script)
    plan = plan_for([parse_feature("int8_static=openvino")], "inference")
    candidate = build(plan, project, analyze_script(script, project))
    job = Job(
        python=Path(neural_coder.config.default_python()),
        script=script,
        cwd=script.parent,
        root=project.root,
        patched=candidate.patched,
        probes=candidate.probes,
        rank_operators=True,
    )
    run = runner.run(job)
    assert run.ok, run.ending
    assert {operator.name for operator in run.operators} == {"0", "1.dense", "2.dense", "3.dense", "4"}
    worst, second, *_ = run.operators
    assert (worst.name, worst.kind) == (CULPRIT, "Linear")
    assert worst.impact > 5 * second.impact
    assert worst.error > 0.1
    assert all(0 < operator.error < 0.05 for operator in run.operators[1:])


@pytest.mark.slow
def test_a_variant_that_one_layer_spoils_is_brought_back_without_that_layer(script):
    pytest.importorskip("nncf")
    result = neural_coder.enable(
        script,
        features=["int8_static=openvino:16"],
        accuracy="5%",  # random weights give near ties
        strategy="mse",
        max_trials=8,
        budget=240,
        timeout=100,
    )
    (tuned,) = result.data["tuning"]
    assert tuned["operators"][0]["name"] == CULPRIT
    full = next(variant for variant in result.variants if variant["id"] == tuned["of"])
    assert full["status"] == "inaccurate"
    assert f"Most sensitive is {CULPRIT}" in full["reason"]
    best = next(variant for variant in result.variants if variant["id"] == tuned["best"])
    assert best["accuracy"]["kept"]
    assert CULPRIT in next(iter(best["settings"].values()))["exclude"]
    assert f'exclude=["{CULPRIT}"' in best["diff"]
    assert best["id"] in text.result_text(result.data) or not result.best
    json.dumps(result.data, allow_nan=False)
    # What was found is a variant like any other: the command that repeats it says it all.
    repeated = best["reproduce"].partition("--features ")[2].split()[0]
    assert all(str(parse_feature(part)) == part for part in repeated.split(","))


def test_nothing_is_run_when_a_strategy_cannot_be_used(script):
    with pytest.raises(UserError, match="There is no strategy called 'gridsearch'"):
        neural_coder.enable(script, strategy="gridsearch")
    with pytest.raises(UserError, match="not a number of trials"):
        neural_coder.enable(script, max_trials=-1)
