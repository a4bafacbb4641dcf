"""What the user, or the forward itself, does to the model counts in the next call."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")

from promised import each_engine, each_variant, is_close, original, ready, small  # noqa: E402
from torch import nn  # noqa: E402

from neural_coder.runtime import AccelerationWarning, explain  # noqa: E402

pytestmark = pytest.mark.torch


@each_variant
def test_loaded_weights_are_used(variant):
    model, x = small(), torch.randn(4, 16)
    ready(variant.put_on(model, (x,)), variant, x)
    model.load_state_dict(small(seed=1).state_dict())
    with torch.no_grad():
        for _ in range(3):
            assert is_close(model(x), small(seed=1)(x), variant.tolerance)
    assert variant.runs(model)


@each_engine
def test_changes_in_place_are_used(variant):
    model, x = small(), torch.randn(4, 16)
    ready(variant.put_on(model, (x,)), variant, x)
    handle = model.hidden.register_forward_hook(lambda module, given, output: None)  # keeps it from converting again
    with torch.no_grad():
        model.out.weight.mul_(3)
        assert torch.equal(model(x), original(model, x))
        handle.remove()
        assert vars(model)["forward"]._prover.converted is None


@each_engine
def test_weights_that_are_read_in_another_order_are_used(variant):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval(), torch.randn(4, 16)
    ready(variant.put_on(model, (x,)), variant, x)
    with torch.no_grad():
        before = original(model, x)
        model[0].weight.data = model[0].weight.data.t()  # the same memory, and PyTorch counts no write
        assert not is_close(before, original(model, x), variant.tolerance)
        for _ in range(2):
            assert is_close(model(x), original(model, x), variant.tolerance)


@each_engine
def test_other_types_and_back(variant):
    """What an engine cannot take at another precision is answered by the original."""
    model, x = small(), torch.randn(4, 16)
    ready(variant.put_on(model, (x,), strict=False), variant, x)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", AccelerationWarning)
        model.half()
        for _ in range(2):
            answer = model(x.half())
            assert answer.dtype == torch.float16
            assert is_close(answer, original(model, x.half()), 0.2)
        model.to("cpu", torch.float32)
        for _ in range(2):
            assert model(x).dtype == torch.float32
            assert is_close(model(x), original(model, x), variant.tolerance)


@each_variant
def test_a_forward_that_writes_to_its_buffers_is_left_to_the_original(variant):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.out(x) + self.calls

    x = torch.zeros(1, 4)
    model = variant.put_on(Counting().eval(), (x,), strict=False)
    with torch.no_grad(), pytest.warns(AccelerationWarning, match="its forward changes the model: calls") as caught:
        answers = [model(x) for _ in range(6)]
    assert len(caught) == 1
    assert [round(float((answer - model.out.bias).detach().mean())) for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert model.calls == 6
    assert explain(model).running == "original"
