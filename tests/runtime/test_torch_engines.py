"""What PyTorch's own engines without a compiler do: layers left out of dynamic int8, traces kept on disk."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from neural_coder.runtime import AccelerationError, accelerate, explain  # noqa: E402
from neural_coder.runtime.cache import listed  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEURAL_CODER_CACHE", str(tmp_path))


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.encoder(x))


def tagger(**settings):
    torch.manual_seed(0)
    return accelerate(Tagger().eval(), strict=True, **settings)


def answer(model, rows=2):
    with torch.no_grad():
        x = torch.arange(rows * 8.0).reshape(rows, 8) / 10
        return model(x), type(model).forward(model, x)


@pytest.mark.parametrize(
    ("exclude", "left"), [([], 3), (["head"], 2), (["encoder"], 1), (["Sequential"], 1), (["encoder.0", "head"], 1)]
)
def test_excluded_layers_are_not_quantized(exclude, left):
    model = tagger(precision="int8_dynamic", exclude=exclude)
    quantized, expected = answer(model)
    assert explain(model).quantized_modules == left
    assert torch.allclose(quantized, expected, atol=0.1)


def test_torchao_leaves_excluded_layers_alone():
    pytest.importorskip("torchao")
    model = tagger(engine="torchao", precision="int8_dynamic", exclude=["Linear"])
    with pytest.raises(AccelerationError, match="no Linear layer that is not excluded"):
        answer(model)


def test_excluding_every_layer_is_said():
    model = tagger(precision="int8_dynamic", exclude=["Linear"])
    with pytest.raises(AccelerationError, match="no Linear, LSTM or GRU layer that is not excluded"):
        answer(model)


def test_a_name_that_means_nothing_is_refused_with_the_nearest():
    model = tagger(precision="int8_dynamic", exclude=["encodr"])
    with pytest.raises(AccelerationError, match=r"'encodr'.*'encoder'"):
        answer(model)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trace_is_kept_for_the_next_start(precision, monkeypatch):
    first, _ = answer(tagger(engine="torchscript", precision=precision))
    assert len(listed()) == 1
    monkeypatch.setattr(torch.jit, "trace", lambda *_, **__: pytest.fail("traced again"))
    again = tagger(engine="torchscript", precision=precision)
    assert torch.equal(answer(again)[0], first)
    assert explain(again).running == f"torchscript/{precision}"


def test_a_kept_trace_answers_only_calls_like_its_own():
    answer(tagger(engine="torchscript"))
    again = tagger(engine="torchscript")
    found, expected = answer(again, rows=5)
    assert found.shape == (5, 3)
    assert torch.allclose(found, expected, atol=1e-5)
