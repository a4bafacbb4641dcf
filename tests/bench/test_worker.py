"""What the worker measures and compares, on real scripts with PyTorch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from projects import SHORT, Project

from neural_coder.bench.protocol import Sampling
from neural_coder.bench.runner import run

pytestmark = pytest.mark.torch

CNN = """
import torch
from torch import nn
torch.manual_seed(3)
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10)).eval()
with torch.no_grad():
    for step in range(1000):
        x = torch.randn(4, 3, 16, 16)
        y = model(x)
print("never printed")
"""

TRAINING = """
import torch
from torch import nn
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
optimizer = torch.optim.Adam(model.parameters())
loss_of = nn.CrossEntropyLoss()
for step in range(1000):
    x, y = torch.randn(32, 8), torch.randint(0, 4, (32,))
    optimizer.zero_grad()
    loss = loss_of(model(x), y)
    loss.backward()
    optimizer.step()
"""


def cnn(tmp_path: Path, text: str = CNN) -> Project:
    return Project(tmp_path, text).probe("inference", "model(x)")


def test_inference_of_a_cnn_is_timed_and_stopped(tmp_path: Path) -> None:
    result = run(cnn(tmp_path).job())
    assert result.ok, result.ending
    (timing,) = result.timings
    assert (timing.site, timing.kind, timing.items) == ("main.py:inference:0", "inference", 4)
    assert len(timing.warmup) == 1
    assert 3 <= len(timing.samples) <= 5
    assert timing.calls == len(timing.warmup) + len(timing.samples)
    assert not result.ended_by_itself
    assert result.loop_seconds >= result.model_seconds > 0
    assert result.peak_memory_bytes > 50e6
    assert result.versions["torch"]
    assert result.witness.dtypes == {"float32"}
    assert not result.witness.grad_enabled
    assert result.witness.batch_sizes == {4}
    assert result.witness.channels_last_outputs == 0


def test_witness_sees_autocast_channels_last_and_inference_mode(tmp_path: Path) -> None:
    text = CNN.replace(
        "torch.no_grad()", 'torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16)'
    ).replace("with ", "model = model.to(memory_format=torch.channels_last)\nwith ")
    seen = run(cnn(tmp_path, text).job()).witness
    assert seen.inference_mode
    assert seen.autocast == "bfloat16"
    assert "bfloat16" in seen.dtypes
    assert seen.channels_last_outputs == 1


def test_baseline_repeats_itself_exactly(tmp_path: Path) -> None:
    project, captured = cnn(tmp_path / "a"), tmp_path / "captured"
    assert run(project.job(capture_to=captured)).comparison is None
    compared = run(project.job(compare_with=captured)).comparison
    assert compared is not None
    assert compared.same_inputs
    assert compared.top1_agreement == 1.0
    assert compared.relative_error == 0.0
    assert compared.rows == compared.calls * 4
    assert not compared.degenerate
    assert not compared.structure


def test_bfloat16_differs_a_little_and_other_weights_differ_a_lot(tmp_path: Path) -> None:
    project, captured = cnn(tmp_path / "a"), tmp_path / "captured"
    run(project.job(capture_to=captured))
    text = CNN.replace("torch.no_grad()", 'torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16)')
    close = run(cnn(tmp_path / "b", text).job(compare_with=captured)).comparison
    assert close is not None
    assert close.relative_error is not None
    assert 0 < close.relative_error < 0.05
    assert not close.structure
    wrong = run(cnn(tmp_path / "c", CNN.replace("seed(3)", "seed(4)")).job(compare_with=captured)).comparison
    assert wrong is not None
    assert wrong.relative_error is not None
    assert wrong.relative_error > 0.3
    assert not wrong.same_inputs


def test_constant_outputs_prove_nothing(tmp_path: Path) -> None:
    text = CNN.replace("y = model(x)", "y = model(x)\n        ").replace(
        "with torch", "nn.init.zeros_(model[4].weight); nn.init.zeros_(model[4].bias)\nwith torch"
    )
    project, captured = cnn(tmp_path / "a", text), tmp_path / "captured"
    run(project.job(capture_to=captured))
    compared = run(project.job(compare_with=captured)).comparison
    assert compared is not None
    assert compared.degenerate == "all outputs are zero"


def test_other_batch_size_is_compared_row_by_row(tmp_path: Path) -> None:
    text = CNN.replace(
        "for step in range(1000):", "data = torch.randn(200, 3, 16, 16)\n    for x in data.split(4):"
    ).replace("        x = torch.randn(4, 3, 16, 16)\n", "")
    captured = tmp_path / "captured"
    run(cnn(tmp_path / "a", text).job(capture_to=captured))
    compared = run(cnn(tmp_path / "b", text.replace("split(4)", "split(8)")).job(compare_with=captured)).comparison
    assert compared is not None
    assert compared.same_inputs
    assert compared.rows >= 16
    assert compared.top1_agreement == 1.0


def test_training_steps_are_timed_with_losses(tmp_path: Path) -> None:
    project = Project(tmp_path, TRAINING)
    project.probe("forward", "model(x)").probe("backward", "loss.backward()").probe(
        "optimizer_step", "optimizer.step()"
    )
    result = run(project.job())
    assert result.ok, result.ending
    (timing,) = result.timings
    assert (timing.site, timing.kind, timing.items) == ("main.py:optimizer_step:0", "training", 32)
    assert len(result.losses) == timing.calls
    assert all(0 < loss < 3 for loss in result.losses)
    again = run(project.job())
    shorter = min(len(result.losses), len(again.losses))
    assert again.losses[:shorter] == result.losses[:shorter]
    assert result.witness.grad_enabled
    assert result.witness.fused_optimizers == 0
    assert result.witness.dtypes == {"float32"}


def test_fused_optimizer_and_autocast_in_training_are_seen(tmp_path: Path) -> None:
    text = TRAINING.replace("parameters())", "parameters(), fused=True)").replace(
        "    loss = loss_of(model(x), y)", '    with torch.autocast("cpu"):\n        loss = loss_of(model(x), y)'
    )
    project = Project(tmp_path, text)
    project.probe("forward", "model(x)").probe("backward", "loss.backward()").probe(
        "optimizer_step", "optimizer.step()"
    )
    seen = run(project.job()).witness
    assert seen.fused_optimizers == 1
    assert seen.autocast == "bfloat16"
    assert "bfloat16" in seen.dtypes


def test_both_optimizers_of_a_gan_are_sites(tmp_path: Path) -> None:
    text = """
import torch
from torch import nn
G, D = nn.Linear(4, 8), nn.Linear(8, 1)
opt_g, opt_d = torch.optim.SGD(G.parameters(), 0.1), torch.optim.SGD(D.parameters(), 0.1)
for step in range(1000):
    opt_d.zero_grad()
    loss_d = D(torch.randn(16, 8)).mean() - D(G(torch.randn(16, 4)).detach()).mean()
    loss_d.backward()
    opt_d.step()
    opt_g.zero_grad()
    loss_g = D(G(torch.randn(16, 4))).mean()
    loss_g.backward()
    opt_g.step()
"""
    project = Project(tmp_path, text)
    project.probe("forward", "D(torch.randn(16, 8))").probe("forward", "D(G(torch.randn(16, 4)))")
    project.probe("backward", "loss_d.backward()").probe("backward", "loss_g.backward()")
    project.probe("optimizer_step", "opt_d.step()").probe("optimizer_step", "opt_g.step()")
    result = run(project.job())
    assert [(timing.site, len(timing.samples) >= 3) for timing in result.timings] == [
        ("main.py:optimizer_step:0", True),
        ("main.py:optimizer_step:1", True),
    ]


def test_two_calls_are_made_again_until_there_are_enough(tmp_path: Path) -> None:
    result = run(cnn(tmp_path, CNN.replace("range(1000)", "range(2)")).job())
    assert result.ok, result.ending
    assert result.ended_by_itself
    (timing,) = result.timings
    assert timing.calls == 2
    assert len(timing.samples) >= 3


def test_a_call_that_is_made_once_is_measured_though_the_script_is_stopped_in_its_loop(tmp_path: Path) -> None:
    once = CNN.replace("with torch", "features = model(torch.randn(64, 3, 16, 16))\nwith torch", 1)
    once = once.replace("range(1000)", "range(10**9)")  # a quick machine makes a thousand before it is stopped
    project = cnn(tmp_path, once).probe("inference", "model(torch.randn(64, 3, 16, 16))")
    result = run(project.job())
    assert not result.ended_by_itself
    loop, first = sorted(result.timings, key=lambda timing: timing.items or 0)
    assert (loop.items, first.items, first.calls) == (4, 64, 1)
    assert len(first.samples) >= 3


def test_a_model_in_another_module_is_timed_there(tmp_path: Path) -> None:
    project = Project(
        tmp_path,
        "import torch\nfrom lib.net import build, answer\nmodel = build()\n"
        "while True:\n    answer(model, torch.randn(2, 4))\n",
    )
    project.add("lib/__init__.py", "")
    project.add(
        "lib/net.py",
        "import torch\n\ndef build():\n    return torch.nn.Linear(4, 2).eval()\n\n"
        "@torch.no_grad()\ndef answer(modell, x):\n    'ä'; return modell(x)  # ö\n",
    )
    project.probe("inference", "modell(x)", file="lib/net.py")
    result = run(project.job())
    assert result.ok, result.ending
    assert result.timings[0].site == "lib/net.py:inference:0"
    assert not result.witness.grad_enabled


def test_compiled_model_counts_graphs_and_compile_time_is_no_sample(tmp_path: Path) -> None:
    # On a plain nn.Sequential, Module.compile() silently does nothing (torch 2.13): all its frames are PyTorch's own.
    text = CNN.replace(
        "with torch.no_grad",
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.layers = model\n"
        "    def forward(self, x):\n        return self.layers(x)\n"
        "whole = Net().eval()\nwhole.compile(options={'freezing': True})\nwith torch.no_grad",
    ).replace("model(x)", "whole(x)")
    result = run(
        Project(tmp_path, text).probe("inference", "whole(x)").job(timeout=120.0, sampling=replace(SHORT, warmup=0))
    )
    assert result.ok, result.ending
    assert result.witness.graphs_compiled == 1
    assert result.witness.frozen_graphs == 1
    assert result.witness.dtypes == {"float32"}
    (timing,) = result.timings
    assert max(timing.warmup) > 20 * max(timing.samples)


def test_module_calls_outside_of_probes_are_observed(tmp_path: Path) -> None:
    text = CNN.replace("y = model(x)", "model[0](x)\n        y = model(x)")
    result = run(cnn(tmp_path, text).job(observe=True))
    line = 1 + text.splitlines().index("        model[0](x)")
    assert result.observed is not None
    outside = [call for call in result.observed.calls if not call.probed]
    assert [(call.frames[0].path, call.frames[0].line, call.name) for call in outside] == [
        (tmp_path / "main.py", line, "Conv2d")
    ]
    (inside,) = [call for call in result.observed.calls if call.probed]
    assert (inside.name, inside.calls) == ("Sequential", outside[0].calls)


def test_quantized_modules_are_counted(tmp_path: Path) -> None:
    text = CNN.replace(
        "with torch.no_grad",
        "import warnings; warnings.simplefilter('ignore')\n"
        "model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)\nwith torch.no_grad",
    )
    assert run(cnn(tmp_path, text).job()).witness.quantized_modules == 1


def test_traced_model_is_seen_as_scripted(tmp_path: Path) -> None:
    text = CNN.replace(
        "with torch.no_grad",
        "model = torch.jit.freeze(torch.jit.trace(model, torch.randn(4, 3, 16, 16)))\nwith torch.no_grad",
    )
    result = run(cnn(tmp_path, text).job())
    assert result.ok, result.ending
    assert result.witness.scripted


def test_runtime_is_asked_what_answered(tmp_path: Path) -> None:
    text = CNN.replace(
        "with torch.no_grad",
        "import neural_coder.runtime as fast\nfast.accelerate(model, precision='bf16')\nwith torch.no_grad",
    )
    once, captured = text.replace("range(1000)", "range(1)"), tmp_path / "captured"
    run(cnn(tmp_path / "a").job(capture_to=captured))
    result = run(cnn(tmp_path / "b", once).job(compare_with=captured))
    assert result.ok, result.ending
    assert result.witness.accelerated == "torch/bf16", result.witness
    assert result.witness.fallback == ""
    assert "bfloat16" in result.witness.dtypes
    assert result.comparison is not None
    assert result.comparison.relative_error is not None
    assert (
        result.comparison.relative_error > 1e-4
    )  # the engine answered it in the end, though the original did at first


def test_calls_that_only_calibrate_are_compared_by_what_answers_them_later(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    settings = "engine='onnxruntime', precision='int8_static', calibration=16, cache=False"
    text = CNN.replace(
        "with torch.no_grad",
        f"import neural_coder.runtime as fast\nfast.accelerate(model, {settings})\nwith torch.no_grad",
    )
    text, captured = text.replace("range(1000)", "range(4)"), tmp_path / "captured"
    run(cnn(tmp_path / "a").job(capture_to=captured))
    result = run(cnn(tmp_path / "b", text).job(compare_with=captured))
    assert result.ok, result.ending
    assert result.witness.accelerated == "onnxruntime/int8_static", result.witness
    assert result.comparison is not None
    assert result.comparison.same_inputs
    assert result.comparison.calls == 4
    assert result.comparison.relative_error is not None
    assert result.comparison.relative_error > 1e-4


def test_scaled_losses_are_recorded_unscaled(tmp_path: Path) -> None:
    text = (
        TRAINING.replace("loss.backward()", "scaler.scale(loss).backward()")
        .replace("optimizer.step()", "scaler.step(optimizer); scaler.update()")
        .replace("for step", "scaler = torch.amp.GradScaler('cpu')\nfor step")
    )
    project = Project(tmp_path, text)
    project.probe("forward", "model(x)").probe("backward", "scaler.scale(loss).backward()")
    project.probe("optimizer_step", "scaler.step(optimizer)")
    result = run(project.job())
    assert result.ok, result.ending
    assert all(0 < loss < 3 for loss in result.losses)


def test_growing_cache_is_not_grown_by_replays(tmp_path: Path) -> None:
    text = """
import torch
class Cache:
    def __init__(self):
        self.states = []
class Model(torch.nn.Module):
    def forward(self, x, cache):
        cache.states.append(x)
        assert len(cache.states) < 4
        return x * 2
model, cache = Model(), Cache()
for step in range(2):
    model(torch.ones(1, 3) * step, cache)
"""
    project = Project(tmp_path, text).probe("inference", "model(torch.ones(1, 3) * step, cache)")
    result = run(project.job(sampling=replace(SHORT, min_samples=5)))
    assert result.ok, result.ending
    assert result.ending.message == ""


def test_generate_is_a_probed_method(tmp_path: Path) -> None:
    text = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)
    def generate(self, start, steps):
        tokens = [start]
        for _ in range(steps):
            tokens.append(self.inner(torch.nn.functional.one_hot(tokens[-1], 4).float()).argmax(-1))
        return torch.stack(tokens, 1)
net = Net().eval()
with torch.inference_mode():
    while True:
        out = net.generate(torch.randint(0, 4, (2,)), steps=5)
"""
    project = Project(tmp_path / "a", text).probe("inference", "net.generate(torch.randint(0, 4, (2,)), steps=5)")
    run(project.job(capture_to=tmp_path / "captured"))
    result = run(project.job(compare_with=tmp_path / "captured"))
    assert result.witness.dtypes == {"float32"}
    assert result.comparison is not None
    assert result.comparison.exact_agreement == 1.0
    assert result.comparison.top1_agreement is None


def test_sampling_ends_a_slow_site_after_its_time(tmp_path: Path) -> None:
    text = CNN.replace("y = model(x)", "y = model(x)").replace("import torch\n", "import torch, time\n", 1)
    text = text.replace("model = nn.Sequential(", "model = nn.Sequential(Slow(), ").replace(
        "torch.manual_seed(3)",
        "class Slow(nn.Module):\n    def forward(self, x):\n        time.sleep(0.3)\n        return x",
    )
    sampling = Sampling(warmup=1, min_samples=50, max_samples=50, min_seconds=0.0, max_seconds=0.5)
    (timing,) = run(cnn(tmp_path, text).job(sampling=sampling)).timings
    assert len(timing.samples) == 2
