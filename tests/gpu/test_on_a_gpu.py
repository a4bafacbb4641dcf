"""What only a GPU can show; these tests run where there is one."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from neural_coder.runtime import accelerate, explain  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that PyTorch can use"),
]

SCRIPT = """import torch

model = torch.nn.Sequential(*[torch.nn.Linear(2048, 2048) for _ in range(8)]).cuda()
model.eval()
x = torch.randn(4096, 2048, device="cuda")
with torch.inference_mode():
    for _ in range(60):
        out = model(x)
print(float(out.sum()))
"""


def network():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1024, 10)]
    return torch.nn.Sequential(*layers).eval().cuda()


@pytest.mark.parametrize(("engine", "precision"), [("torch", "bf16"), ("inductor", "fp32"), ("inductor", "bf16")])
def test_an_accelerated_model_answers_on_the_gpu(engine, precision):
    model, x = network(), torch.randn(4, 3, 8, 8, device="cuda")
    expected = model(x)
    accelerate(model, engine=engine, precision=precision, strict=True)
    with torch.inference_mode():
        for _ in range(3):
            answer = model(x)
    assert explain(model).running == f"{engine}/{precision}"
    assert answer.device.type == "cuda"
    assert torch.linalg.vector_norm(answer - expected) <= 0.05 * torch.linalg.vector_norm(expected)


def test_onnx_runtime_uses_the_gpu_where_its_provider_is_installed():
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")
    model, x = network(), torch.randn(4, 3, 8, 8, device="cuda")
    expected = model(x)
    accelerate(model, engine="onnxruntime", strict=True)
    with torch.inference_mode():
        answer = model(x)
    assert answer.device.type == "cuda"
    assert torch.allclose(answer, expected, atol=1e-3)


def test_calls_are_timed_until_the_gpu_is_done(tmp_path, neural_coder):
    """A call returns long before the GPU has computed; without waiting, all variants would look alike."""
    script, result = tmp_path / "infer.py", tmp_path / "result.json"
    script.write_text(SCRIPT)
    done = neural_coder("optimize", script, "--features", "amp", "--budget", "2m", "--json", result)
    assert done.exit_code == 0, done.stderr
    variant = json.loads(result.read_text())["variants"][0]
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    model = torch.nn.Linear(2048, 2048).cuda()
    x = torch.randn(4096, 2048, device="cuda")
    model(x)
    start.record()
    for _ in range(8):
        model(x)
    end.record()
    torch.cuda.synchronize()
    assert variant["status"] in ("faster", "same"), variant["reason"]
    baseline = json.loads(result.read_text())["baseline"]["seconds_per_call"]["median"]
    assert baseline >= 0.5 * start.elapsed_time(end) / 1000
