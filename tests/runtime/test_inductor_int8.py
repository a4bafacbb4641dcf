"""What only the engine `inductor` does: graphs compiled ahead of time, int8 by PT2E. Each compilation takes seconds."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchao")

from torch import nn  # noqa: E402

from neural_coder.runtime import AccelerationError, AccelerationWarning, accelerate, explain  # noqa: E402
from neural_coder.runtime.engine import load_engine  # noqa: E402
from neural_coder.runtime.settings import options_from  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEURAL_CODER_CACHE", str(tmp_path))


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.hidden = nn.Linear(16, 64)
        self.head = nn.Linear(64, 5)
        self.unused = nn.Linear(16, 4)

    def forward(self, x):
        pooled = self.features(x).mean((2, 3))
        self.unused(pooled)
        return {"logits": self.head(torch.relu(self.hidden(pooled)))}


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


def classifier(**settings):
    torch.manual_seed(0)
    return accelerate(Classifier().eval(), engine="inductor", calibration=8, strict=True, **settings)


def images(count=2, seed=0):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def answers(model, count):
    with torch.inference_mode():
        return [
            (model(x)["logits"], type(model).forward(model, x)["logits"])
            for x in map(images, [2] * count, range(count))
        ]


def error(answer, expected):
    return float(torch.linalg.vector_norm(answer - expected) / torch.linalg.vector_norm(expected))


def test_static_int8_computes_in_integers_and_is_kept():
    model = classifier(precision="int8_static")
    last = answers(model, 5)[-1]
    told = explain(model)
    assert (told.running, told.quantized_modules, told.dtypes) == ("inductor/int8_static", 3, {"int8", "float32"})
    assert 1e-5 < error(*last) < 0.1
    again = classifier(precision="int8_static")
    assert torch.equal(answers(again, 5)[-1][0], last[0])
    assert (explain(again).calls_accelerated, explain(again).quantized_modules) == (5, 3)
    assert explain(again).conversion_seconds < 0.2 * told.conversion_seconds
    strided = images().transpose(2, 3).contiguous().transpose(2, 3)
    with torch.inference_mode():
        assert torch.equal(again(strided)["logits"], again(images())["logits"])


def test_excluded_modules_stay_in_floating_point():
    model = classifier(precision="int8_static_bf16", exclude=["features", "head"], observer="minmax")
    assert error(*answers(model, 5)[-1]) < 0.1
    told = explain(model)
    assert (told.running, told.quantized_modules) == ("inductor/int8_static_bf16", 1)
    assert told.dtypes == {"int8", "bfloat16"}


def test_dynamic_int8_needs_no_calibration():
    model = classifier(precision="int8_dynamic")
    assert error(*answers(model, 1)[0]) < 0.02
    assert (explain(model).calls_accelerated, explain(model).quantized_modules) == (1, 2)


def test_first_and_last_layer_can_be_kept():
    model = classifier(precision="int8_static", keep_first_last=True, exclude=["hidden"])
    with pytest.raises(AccelerationError, match="no convolution or linear layer that is not excluded"):
        answers(model, 5)


def test_a_name_to_exclude_must_mean_something():
    model = classifier(precision="int8_dynamic", exclude=["haed"])
    with pytest.raises(AccelerationError, match=r"'haed'.*did you mean 'head'"):
        answers(model, 1)


def test_a_graph_for_fp32_is_compiled_once_for_all_starts():
    first, second = classifier(), classifier()
    assert error(*answers(first, 1)[0]) < 1e-4
    assert error(*answers(second, 2)[-1]) < 1e-4
    assert explain(second).conversion_seconds < 0.2 * explain(first).conversion_seconds


def test_control_flow_is_left_to_torch_compile_or_refused():
    model, x = Branching().eval(), torch.ones(2, 8)
    with torch.no_grad():
        accelerate(model, engine="inductor", strict=True)
        assert torch.allclose(model(x), model.layer(x), atol=1e-5)
        assert explain(model).running == "inductor/fp32"
        accelerate(model, engine="inductor", precision="int8_dynamic")
        with pytest.warns(AccelerationWarning, match=r"cannot be exported \(.*test_inductor_int8.py, line"):
            model(x)


def test_options_that_cannot_be_meant_are_refused():
    kind = load_engine("inductor", "fp32").options
    assert options_from(kind, {"observer": "minmax", "reduce_range": True}, "inductor").reduce_range is True
    for given in ({"observer": "entropy"}, {"max_autotune": 1}, {"reduce_range": "yes"}):
        with pytest.raises(ValueError, match=next(iter(given))):
            options_from(kind, given, "inductor")
