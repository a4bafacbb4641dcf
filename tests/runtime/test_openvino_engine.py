"""What is particular to OpenVINO: integers that are really integers, ports, kept files, words of errors."""

import subprocess
import sys
import threading

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("nncf")

from torch import nn  # noqa: E402

from neural_coder.runtime import AccelerationError, AccelerationWarning, Explanation, accelerate, explain  # noqa: E402
from neural_coder.runtime.engine import CannotConvert, load_engine  # noqa: E402
from neural_coder.runtime.exported import export  # noqa: E402
from neural_coder.runtime.openvino_graph import translate  # noqa: E402
from neural_coder.runtime.openvino_library import capabilities, core  # noqa: E402
from neural_coder.runtime.openvino_session import CompiledSession, find_ports  # noqa: E402
from neural_coder.runtime.quiet import quiet  # noqa: E402
from neural_coder.runtime.structure import Call  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEURAL_CODER_CACHE", str(tmp_path / "cache"))


WIDTH = 128  # OpenVINO multiplies narrow matrices in floating point


class Small(nn.Module):
    """Two kinds of layers that are quantized, one that never is."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(WIDTH, 256)
        self.norm = nn.LayerNorm(256)
        self.last = nn.Linear(256, WIDTH)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.first(x))))


def small():
    torch.manual_seed(0)
    return Small().eval()


def converted(model, batches=3, **settings):
    accelerate(model, engine="openvino", strict=True, calibration=4, **settings)
    with torch.inference_mode():
        for _ in range(batches):
            model(torch.randn(2, WIDTH))
    return explain(model)


def difference(model, x):
    with torch.inference_mode():
        answer, expected = model(x), type(model).forward(model, x)
    return float(torch.linalg.vector_norm(answer - expected) / torch.linalg.vector_norm(expected))


def session_of(model, *inputs, vary=()):
    """A session without anything around it."""
    dynamic = [frozenset(vary) if place == 0 else frozenset() for place in range(len(inputs))]
    with quiet():
        translated = translate(export(model, Call(inputs, {}), dynamic))
    compiled = core().compile_model(translated.model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return CompiledSession(compiled, find_ports(translated.model, translated.inputs, translated.outputs))


# --- precisions -------------------------------------------------------------------------------------------------------


def test_int8_layers_run_in_integers_and_excluded_ones_do_not():
    model, half = small(), small()
    assert converted(model, 5, precision="int8").quantized_modules == 2
    assert explain(model).dtypes == {"int8", "float32"}
    assert 0 < difference(model, torch.randn(2, WIDTH)) < 0.1
    assert converted(half, 5, precision="int8", exclude=["last"]).quantized_modules == 1


def normalized() -> nn.Module:
    """Two convolutions, the second one with groups, that each take a batch normalization in."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
    ).eval()  # fmt: skip


def explained_after_calls(model: nn.Module, exclude: list[str]) -> Explanation:
    accelerate(model, engine="openvino", precision="int8", calibration=4, exclude=exclude)
    with torch.inference_mode():
        for _ in range(5):
            model(torch.randn(4, 3, 12, 12))
    return explain(model)


@pytest.mark.parametrize(("exclude", "count"), [([], 2), (["0"], 1), (["3"], 1)])
def test_a_convolution_that_takes_a_normalization_in_can_be_excluded(exclude, count):
    assert explained_after_calls(normalized(), exclude).quantized_modules == count


def test_a_model_of_which_all_convolutions_are_excluded_runs_as_it_is():
    with pytest.warns(AccelerationWarning, match="no layer that OpenVINO computes in integers"):
        found = explained_after_calls(normalized(), ["Conv2d"])
    assert found.running == "original"


def test_dynamic_int8_multiplies_in_integers_without_calibration():
    model, half = small(), small()
    told = converted(model, 1, precision="int8_dynamic")
    assert (told.quantized_modules, told.calls_original, told.dtypes) == (2, 0, {"int8", "float32"})
    weights_only = small()
    for layer in (weights_only.first, weights_only.last):
        scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
        layer.weight.data = (layer.weight / scale).round() * scale
    x = torch.randn(2, WIDTH)
    with torch.inference_mode():
        error = torch.linalg.vector_norm(model(x) - weights_only(x)) / torch.linalg.vector_norm(weights_only(x))
    assert 0.001 < error < 0.1  # the activations were rounded, too
    assert converted(half, 1, precision="int8_dynamic", exclude=["last"]).quantized_modules == 1


def test_dynamic_int8_leaves_a_model_without_linear_layers_alone():
    model = nn.Conv2d(3, 32, 3).eval()
    accelerate(model, engine="openvino", precision="int8_dynamic", strict=True)
    with torch.inference_mode(), pytest.raises(AccelerationError, match="no linear layer"):
        model(torch.randn(1, 3, 9, 9))


def test_a_model_without_layers_to_quantize_is_refused():
    with pytest.raises(AccelerationError, match="no layer that OpenVINO computes in integers"):
        converted(small(), 5, precision="int8", exclude=["Linear"], bias_correction=False)


def test_a_name_that_excludes_nothing_is_told_with_one_that_is_like_it():
    with pytest.raises(AccelerationError, match=r"exclude names 'lsat'.*did you mean 'last'\?"):
        converted(small(), 5, precision="int8", exclude=["lsat"])


@pytest.mark.skipif("BF16" not in capabilities(), reason="this processor has no bfloat16 instructions")
def test_bf16_takes_and_gives_float32():
    model = small()
    assert converted(model, 1, precision="bf16").dtypes == {"bfloat16"}
    assert 1e-5 < difference(model, torch.randn(2, WIDTH)) < 0.02


def test_fp32_is_not_bfloat16_where_openvino_would_take_that():
    model = small()
    assert converted(model, 1).dtypes == {"float32"}
    assert difference(model, torch.randn(2, WIDTH)) < 1e-5


def test_bf16_is_unavailable_without_instructions_for_it(monkeypatch):
    engine = load_engine("openvino", "bf16")
    monkeypatch.setattr("neural_coder.runtime.openvino_library.capabilities", lambda: ["FP32", "INT8"])
    assert "no bfloat16 instructions" in engine.unavailable("bf16")
    assert "no bfloat16 instructions" in engine.unavailable("int8_static_bf16")
    assert not engine.unavailable("int8_static")


def test_options_reach_nncf():
    settings = {"observer": "histogram", "preset": "mixed", "alpha": 0.5, "hint": "throughput", "threads": 1}
    told = converted(small(), 5, precision="int8", bias_correction=False, **settings)
    assert told.quantized_modules == 2


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("hint", "fast", "hint is one of latency, throughput"),
        ("observer", "max", "observer is one of auto, minmax"),
        ("preset", "best", "preset is one of auto, performance, mixed"),
        ("threads", -1, "threads is a number"),
        ("alpha", 2.0, "alpha is a number from 0 to 1"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(option, value, words):
    with pytest.raises(ValueError, match=words):
        accelerate(small(), engine="openvino", **{option: value})


def test_a_model_in_float64_is_left_alone():
    with pytest.raises(CannotConvert, match="float64"):
        session_of(small().double(), torch.randn(2, WIDTH, dtype=torch.float64))


# --- inputs and outputs -----------------------------------------------------------------------------------------------


class Ports(nn.Module):
    """Outputs of all kinds: computed, handed on, constant, twice, of all types; an input that nothing needs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, x, unused, flag, number):
        y = self.layer(x)
        yield_twice = (y, y)
        handed_on = (x, x[:, :3], x.t(), x.split(2)[0], torch.cat([x, y], 1), self.layer.weight, torch.ones(3))
        types = (y > 0, y.argmax(-1), y.bfloat16(), y.half(), y.argmax(-1).int(), y.sum(), y * flag, number + 1)
        return *yield_twice, *handed_on, *types


@pytest.mark.parametrize("vary", [(), (0,)], ids=["fixed", "varying"])
def test_outputs_of_all_kinds_arrive_and_keep_their_values(vary):
    model = Ports().eval()
    rest = (torch.zeros(2), torch.tensor(True), torch.tensor(3))
    session = session_of(model, torch.randn(4, 16), *rest, vary=vary)
    kept = []
    with torch.no_grad():
        for size in (4, 7, 2) if vary else (4, 4, 4):
            x = torch.randn(16, size).t()  # not contiguous
            kept.append((session((x, *rest)), model(x, *rest)))
    for answers, expected in kept:  # later calls must not have written to earlier answers
        for answer, wanted in zip(answers, expected, strict=True):
            assert answer.dtype == wanted.dtype
            assert torch.allclose(answer.float(), wanted.float(), atol=1e-2, rtol=1e-2)  # two steps of bfloat16


def test_an_input_that_the_graph_does_not_need_is_not_mistaken_for_another():
    class Second(nn.Module):
        def forward(self, x, y):
            return (y * 2,)

    session = session_of(Second(), torch.zeros(2, 3), torch.zeros(4))
    assert session((torch.zeros(2, 3), torch.ones(4)))[0].tolist() == [2.0] * 4


def test_weights_and_inputs_in_16_bits_stay_so():
    for dtype in (torch.bfloat16, torch.float16):
        model = small().to(dtype)
        x = torch.randn(3, WIDTH, dtype=dtype)
        with torch.no_grad():
            (answer,), expected = session_of(model, x)((x,)), model(x)
        assert answer.dtype == dtype
        assert torch.allclose(answer, expected, atol=0.05)


def test_threads_do_not_mix_up_their_answers():
    model = small()
    session = session_of(model, torch.randn(2, WIDTH), vary=(0,))
    wrong = []

    def work(seed):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for size in range(1, 30):
                x = torch.randn(size, WIDTH, generator=generator)
                if not torch.allclose(session((x,))[0], model(x), atol=1e-5):
                    wrong.append((seed, size))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_a_kept_model_needs_no_calibration_and_no_conversion(tmp_path, monkeypatch):
    first = small()
    converted(first, 5, precision="int8")
    blobs = list((tmp_path / "cache").rglob("compiled.blob"))
    assert len(blobs) == 1
    assert blobs[0].stat().st_size < 50_000  # without the weights
    monkeypatch.setattr("neural_coder.runtime.openvino_files.translate", lambda exported: pytest.fail("converted"))
    second = small()
    told = converted(second, 1, precision="int8")
    assert (told.running, told.calls_original, told.quantized_modules) == ("openvino/int8_static", 0, 2)
    x = torch.randn(2, WIDTH)
    with torch.inference_mode():
        assert torch.equal(first(x), second(x))


def test_what_another_machine_compiled_is_compiled_again(monkeypatch):
    converted(small(), 1)
    monkeypatch.setattr("neural_coder.runtime.openvino_files.capabilities", lambda: ["FP32"])
    monkeypatch.setattr("neural_coder.runtime.openvino_files.translate", lambda exported: pytest.fail("converted"))
    model = small()
    assert converted(model, 1).running == "openvino/fp32"
    assert difference(model, torch.randn(2, WIDTH)) < 1e-5


# --- words and manners ------------------------------------------------------------------------------------------------


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x).abs()  # what OpenVINO lacks


def test_an_operator_that_openvino_lacks_is_named_with_its_place():
    with pytest.raises(CannotConvert, match=r"aten\._fft_r2c\.default \(.*test_openvino_engine\.py, line \d+: return"):
        session_of(Spectrum(), torch.randn(2, 16))


def test_nothing_is_printed_reported_or_left_behind():
    program = """
import logging, sys
import torch
import neural_coder.runtime as runtime
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)).eval()
handlers, kind = list(logging.getLogger().handlers), logging.getLoggerClass()
runtime.accelerate(model, engine="openvino", precision="int8", calibration=4, cache=False, strict=True)
with torch.no_grad():
    for _ in range(5):
        model(torch.randn(2, 16))
assert runtime.explain(model).running == "openvino/int8_static"
assert (logging.getLogger().handlers, logging.getLoggerClass()) == (handlers, kind)
assert "openvino_telemetry" not in sys.modules
import nncf
nncf.quantize  # a program's own use of it still works
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
