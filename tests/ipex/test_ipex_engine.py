"""What is particular to Intel's extension; `make test-ipex` runs this in the environment that it needs."""

from __future__ import annotations

import importlib.util
import threading
import warnings

import pytest

torch = pytest.importorskip("torch")
if importlib.util.find_spec("intel_extension_for_pytorch") is None:
    pytest.skip("Intel's extension needs an environment of its own: make test-ipex", allow_module_level=True)

from torch import nn  # noqa: E402

from neural_coder.runtime import AccelerationWarning, accelerate, explain  # noqa: E402
from neural_coder.runtime.engine_ipex import ENGINE, _load  # noqa: E402
from neural_coder.runtime.quiet import quiet  # noqa: E402
from neural_coder.runtime.structure import Call  # noqa: E402

pytestmark = pytest.mark.torch

_load()
WHY_NO_BF16 = ENGINE.unavailable("bf16")
needs_bf16 = pytest.mark.skipif(bool(WHY_NO_BF16), reason=WHY_NO_BF16)


class Net(nn.Module):
    """Three layers to quantize, a batch normalization to fold, and arguments with defaults."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.head = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 5))

    def forward(self, x, scale=None, *, shift=None):
        y = self.head(torch.relu(self.bn(self.conv(x))).mean((2, 3)))
        y = y if scale is None else y * scale
        return {"logits": y if shift is None else y + shift, "labels": y.argmax(-1)}


def net():
    torch.manual_seed(0)
    model = Net().eval()
    model.bn.running_mean.uniform_(-1, 1)
    model.bn.running_var.uniform_(0.5, 2)
    return model


def images(size=2):
    return torch.randn(size, 3, 8, 8)


def error(actual, expected):
    return float(torch.linalg.vector_norm(actual - expected) / torch.linalg.vector_norm(expected))


def run(precision, calls=8, **settings):
    """Accelerate, call, and return the model, what it says, and its error in the last call."""
    model = accelerate(net(), engine="ipex", precision=precision, calibration=8, **settings)
    with torch.inference_mode():
        for _ in range(calls):
            x = images()
            wrong = error(model(x)["logits"], net()(x)["logits"])
    return model, explain(model), wrong


def graph_of(model):
    conversion = vars(model)["forward"]._prover.converted.conversion
    with quiet():
        return str(conversion._trace(Call((images(),), {})).graph)


@pytest.mark.parametrize(
    ("precision", "quantized", "dtypes", "least", "most"),
    [
        ("fp32", 0, {"float32"}, 0, 1e-4),
        pytest.param("bf16", 0, {"bfloat16"}, 1e-4, 0.03, marks=needs_bf16),
        ("int8_static", 3, {"float32", "qint8"}, 1e-4, 0.1),
        pytest.param("int8_static_bf16", 3, {"bfloat16", "qint8"}, 1e-4, 0.1, marks=needs_bf16),
    ],
)
def test_each_precision_is_what_it_says(precision, quantized, dtypes, least, most):
    model, told, wrong = run(precision, strict=True)
    assert told.running == f"ipex/{precision}"
    assert (told.quantized_modules, told.graphs, told.dtypes) == (quantized, 1, dtypes)
    assert least <= wrong <= most
    assert ("quantize_per_tensor" in graph_of(model)) == bool(quantized)
    # The extension stores weights of convolutions channels-last: never those of the user's own model.
    assert model.conv.weight.stride() == net().conv.weight.stride()
    assert torch.equal(model.conv.weight, net().conv.weight)


@pytest.mark.parametrize("precision", ["bf16", "int8_static_bf16"])
def test_a_processor_without_bfloat16_is_told_so(precision, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.warns(AccelerationWarning, match="no instructions for the extension's bfloat16"):
        model = accelerate(net(), engine="ipex", precision=precision)
    with torch.inference_mode():
        assert torch.equal(model(images(1) * 0)["logits"], net()(images(1) * 0)["logits"])


def test_arguments_with_defaults_take_their_own_way_through_the_model():
    model = accelerate(net(), engine="ipex", strict=True)
    x, shift = images(), torch.ones(5)
    with torch.inference_mode():
        for _ in range(2):
            assert error(model(x)["logits"], net()(x)["logits"]) < 1e-4
            assert error(model(x, 2.0)["logits"], net()(x, 2.0)["logits"]) < 1e-4
            assert error(model(x, shift=shift)["logits"], net()(x, shift=shift)["logits"]) < 1e-4
    assert explain(model).graphs == 3


@pytest.mark.parametrize(
    ("exclude", "left"), [(["conv"], 2), (["Linear"], 1), (["head"], 1), (["head.0", "Conv2d"], 1)], ids=str
)
def test_excluded_modules_stay_in_floating_point(exclude, left):
    model, told, _ = run("int8_static", exclude=exclude, strict=True)
    assert told.quantized_modules == left
    assert graph_of(model).count("aten::dequantize") == 2 * left  # an input and a weight each


def test_a_name_that_stands_for_nothing_is_said_with_the_nearest():
    with pytest.warns(AccelerationWarning, match=r"exclude names 'haed'.*did you mean 'head'"):
        run("int8_static", exclude=["haed"])


def test_a_model_of_which_nothing_is_left_to_quantize_stays_as_it_is():
    with pytest.warns(AccelerationWarning, match="nothing that the extension quantizes"):
        run("int8_static", exclude=["conv", "head"])


@pytest.mark.parametrize("options", [{"alpha": 0.5}, {"observer": "minmax"}, {"traced": False}], ids=str)
def test_options_keep_the_answers(options):
    model, told, wrong = run("int8_static", strict=True, **options)
    assert told.running == "ipex/int8_static"
    assert told.graphs == options.get("traced", True)
    assert 1e-4 < wrong < 0.1
    assert model.conv.weight.dtype == torch.float32


@pytest.mark.parametrize("options", [{"alpha": 2}, {"observer": "kl"}, {"trace": True}], ids=str)
def test_options_that_cannot_be_meant_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        accelerate(net(), engine="ipex", **options)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_without_a_trace_the_answers_are_the_same(precision):
    _, told, wrong = run(precision, traced=False, strict=True)
    assert (told.running, told.graphs) == (f"ipex/{precision}", 0)
    assert wrong < 0.03


def test_scales_may_come_from_a_data_set():
    data = [(images(4), torch.zeros(4)) for _ in range(3)]
    model = accelerate(net(), engine="ipex", precision="int8_static", calibration=data, strict=True)
    with torch.inference_mode():
        model(images())
    assert explain(model).running == "ipex/int8_static"


@pytest.mark.parametrize("precision", ["fp32", "int8_static"])
def test_one_trace_takes_any_layout_in_memory(precision):
    """Fused kernels are compiled for the strides of the example, and look at no others."""
    model, _, _ = run(precision, strict=True)
    x = images()
    with torch.inference_mode():
        expected = model(x)["logits"]
        for same in (x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
            assert error(model(same)["logits"], expected) < 1e-5
    assert explain(model).graphs == 1


def test_each_plain_value_gets_scales_of_its_own():
    model = accelerate(net(), engine="ipex", precision="int8_static", calibration=[(images(8),)], strict=True)
    with torch.inference_mode():
        x = images()
        for scale in (1.0, 1.3, None):
            assert error(model(x, scale)["logits"], net()(x, scale)["logits"]) < 0.1
        assert error(model(x, scale=1.5)["logits"], net()(x, 1.5)["logits"]) < 0.1
    assert explain(model).graphs == 4


def test_inputs_may_lie_in_memory_as_they_like():
    model = accelerate(net(), engine="ipex", precision="int8_static", calibration=4, strict=True)
    with torch.inference_mode():
        for _ in range(6):
            x = torch.randn(2, 8, 8, 3).permute(0, 3, 1, 2)
            assert error(model(x)["logits"], net()(x)["logits"]) < 0.1
    assert explain(model).calls_accelerated == 3


def test_an_earlier_answer_is_not_overwritten():
    model, _, _ = run("fp32")
    with torch.inference_mode():
        first = model(images())["logits"]
        kept = first.clone()
        model(images())
    assert torch.equal(first, kept)


def test_control_flow_that_depends_on_the_data_is_not_quantized():
    class Wayward(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.one(x) if x.sum() > 0 else self.two(self.one(x))

    model = accelerate(Wayward().eval(), engine="ipex", precision="int8_static", calibration=4)
    positive, negative = torch.ones(1, 4), -torch.ones(1, 4)
    with torch.no_grad():
        for x in (positive, negative, positive):
            assert torch.equal(model(x), type(model).forward(model, x))
        with pytest.warns(AccelerationWarning, match="quantizes no such models"):
            assert torch.equal(model(negative), type(model).forward(model, negative))


@pytest.mark.filterwarnings("ignore")  # what is ignored inside of one thread is not, once another one leaves its block
def test_other_threads_go_on_while_models_are_quantized():
    failures, done, methods = [], threading.Event(), (nn.Module.__call__, nn.Sequential.forward)
    nets, expected, given = [net() for _ in range(4)], net(), [images() for _ in range(8)]

    def guarded(work):
        try:
            work()
        except Exception as caught:
            failures.append(caught)

    def call_another_model():
        other = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
        while not done.is_set():
            other(torch.randn(2, 4))

    def quantize():
        for traced in (True, False):
            model = accelerate(nets.pop(), engine="ipex", precision="int8_static", calibration=8, traced=traced)
            with torch.inference_mode():
                wrong = [error(model(x)["logits"], expected(x)["logits"]) for x in given]
            failures.extend(
                [] if explain(model).running == "ipex/int8_static" and wrong[-1] < 0.1 else [explain(model)]
            )

    others = [threading.Thread(target=guarded, args=(call_another_model,)) for _ in range(2)]
    quantizing = [threading.Thread(target=guarded, args=(quantize,)) for _ in range(2)]
    for thread in (*others, *quantizing):
        thread.start()
    for thread in quantizing:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    assert not failures
    assert (nn.Module.__call__, nn.Sequential.forward) == methods


@pytest.mark.parametrize("precision", [pytest.param("bf16", marks=needs_bf16), "int8_static"])
def test_a_transformer_is_traced_with_keyword_arguments(precision):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=50
    )
    reference = transformers.BertModel(config).eval()
    model = accelerate(transformers.BertModel(config).eval(), engine="ipex", precision=precision, calibration=4)
    model.load_state_dict(reference.state_dict())
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error", AccelerationWarning)
        for _ in range(6):
            ids = torch.randint(0, 50, (1, 7))
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            answer = model(**given)
            assert error(answer.last_hidden_state, reference(**given).last_hidden_state) < 0.1
    assert type(answer).__name__ == "BaseModelOutputWithPoolingAndCrossAttentions"
    assert explain(model).running == f"ipex/{precision}"
    assert (explain(model).quantized_modules > 5) == (precision == "int8_static")


@needs_bf16
def test_the_examples_for_training_run_and_learn():
    from neural_coder.transforms.intel_training import IntelTraining

    for example in IntelTraining.CHANGES:
        names: dict[str, object] = {}
        with torch.autocast("cpu", dtype=torch.bfloat16), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(example.after, "example", "exec"), names)
        assert type(names["net"]).__module__.startswith("intel_extension_for_pytorch.")
        assert names["loss"].item() < 0
        assert names["net"].state_dict()["weight"].dtype == torch.float32
