"""The search with an engine that lives in an environment of its own; without one: what the user is told."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path

import pytest

from neural_coder.bench.machine import describe_machine
from neural_coder.runtime import AccelerationWarning, accelerate, explain

PYTHON = os.environ.get("NEURAL_CODER_IPEX", "")
MEASURED = ("faster", "same", "slower", "undecided")  # the last where the machine is too noisy to tell
needs_environment = pytest.mark.skipif(not PYTHON, reason="NEURAL_CODER_IPEX names no interpreter: make test-ipex")
needs_bf16 = pytest.mark.skipif(
    "AVX-512" not in describe_machine().features, reason="the extension's bfloat16 needs AVX-512"
)

INFER = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
model.eval()
with torch.no_grad():
    for _ in range(60):
        out = model(torch.randn(16, 64))
"""
TRAIN = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 4))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
for _ in range(60):
    x = torch.randn(32, 64)
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())
    loss.backward()
    optimizer.step()
"""


@pytest.mark.torch
def test_without_the_extension_the_original_runs_and_the_command_is_named():
    torch = pytest.importorskip("torch")
    with pytest.warns(AccelerationWarning, match="neural-coder env create ipex"):
        model = accelerate(torch.nn.Linear(3, 2).eval(), engine="ipex")
    with torch.no_grad():
        assert model(torch.zeros(1, 3)).shape == (1, 2)
    assert explain(model).running == "original"


@pytest.mark.torch
def test_an_extension_for_another_pytorch_is_not_even_imported(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    found = tmp_path / "intel_extension_for_pytorch-1.0.0.dist-info"
    found.mkdir()
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: intel-extension-for-pytorch\nVersion: 1.0.0\n")
    (tmp_path / "intel_extension_for_pytorch.py").write_text("raise SystemExit(127)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(AccelerationWarning, match=r"1\.0\.0 works with PyTorch 1\.0 only"):
        accelerate(torch.nn.Linear(3, 2).eval(), engine="ipex")


@needs_environment
@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "features"),
    [
        pytest.param(INFER, "intel_extension", id="infer"),
        pytest.param(INFER, "intel_extension,bf16_weights", id="infer in bf16", marks=needs_bf16),
        pytest.param(TRAIN, "intel_training", id="train", marks=needs_bf16),
    ],
)
def test_a_variant_runs_in_the_environment_and_is_compared_with_the_users_own(
    script, features, tmp_path, monkeypatch, neural_coder
):
    (tmp_path / "script.py").write_text(textwrap.dedent(script).lstrip())
    monkeypatch.chdir(tmp_path)
    done = neural_coder(
        "optimize", "script.py", "--features", features, "--python", f"ipex={PYTHON}", "--budget", "20s", "--json", "-"
    )
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    (variant,) = result["variants"]
    assert variant["python"] == PYTHON
    assert f"--python ipex={PYTHON}" in variant["reproduce"]
    assert variant["status"] in MEASURED, variant["reason"]
    assert variant["accuracy"]["verified"]
    assert variant["accuracy"]["kept"]
    assert not result["versions"]["torch"].startswith("2.8")
    assert "intel_extension_for_pytorch" in variant["diff"] or 'engine="ipex"' in variant["diff"]


@needs_environment
@pytest.mark.torch
def test_doctor_looks_into_the_environment(neural_coder):
    data = json.loads(neural_coder("doctor", "--python", f"ipex={PYTHON}", "--json").stdout)
    (found,) = [engine for engine in data["engines"] if engine["name"] == "ipex"]
    assert found["usable"], found["reason"]
    assert found["python"] == PYTHON
    assert found["version"].startswith("2.8")
    assert Path(found["python"]).exists()
