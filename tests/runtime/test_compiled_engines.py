"""The engines that compile: few and tiny cases, since each compilation takes seconds."""

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from neural_coder.runtime import AccelerationWarning, accelerate, explain  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()


class Labelled(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(16, 32)
        self.out = nn.Linear(32, 5)

    def forward(self, x, scale=None):
        y = self.out(torch.relu(self.hidden(x)))
        y = y if scale is None else y * scale
        return {"logits": y, "labels": y.argmax(-1)}


def original(model, *args):
    return type(model).forward(model, *args)


def test_compiled_answers_under_autocast_are_those_of_autocast():
    torch.manual_seed(0)
    model = accelerate(
        nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 5)).eval(),
        engine="inductor",
        cache=False,
        strict=True,
    )
    x = torch.randn(4, 16)
    with torch.inference_mode():
        exact = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = [model(x), model(x)]
    assert exact.dtype == torch.float32
    assert [answer.dtype for answer in rounded] == [torch.bfloat16] * 2
    assert explain(model).calls_accelerated == 3


def answers(model, x):
    with torch.no_grad():
        return [model(x) for _ in range(3)]


def test_code_compiled_with_other_weights_is_not_used_again():
    """Also where they are so close that a comparison with the original would let it pass."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval(), torch.randn(4, 16)
    average = copy.deepcopy(model)
    accelerate(model, engine="inductor", cache=False, strict=True)
    answers(model, x)
    average.load_state_dict({name: weight * 1.003 for name, weight in model.state_dict().items()})
    accelerate(average, engine="inductor", cache=False, strict=True)
    with torch.no_grad():
        model[0].weight.mul_(1.003)
    for each in (model, average):
        torch.testing.assert_close(answers(each, x)[-1], original(each, x), rtol=1e-4, atol=1e-5)
        assert explain(each).running == "inductor/fp32"


def test_compiling_or_exporting_an_accelerated_model_takes_the_original():
    torch.manual_seed(0)
    model, x = Labelled().eval(), torch.randn(4, 16)
    accelerate(model, precision="bf16", strict=True)
    with torch.no_grad():
        expected = original(model, x)["logits"]
        assert not torch.equal(model(x)["logits"], expected)
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert torch.equal(compiled(x)["logits"], expected)
        assert torch.equal(torch.export.export(model, (x,)).module()(x)["logits"], expected)
        assert not torch.equal(model(x)["logits"], expected)


def test_nothing_to_quantize_is_said():
    pytest.importorskip("torchao")
    model = accelerate(nn.Conv2d(3, 4, 3).eval(), engine="torchao", precision="int8_dynamic")
    with torch.no_grad(), pytest.warns(AccelerationWarning, match="no Linear layer to quantize"):
        model(torch.randn(1, 3, 8, 8))
