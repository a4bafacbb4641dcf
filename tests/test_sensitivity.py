"""What 8 bits do to single layers, as the worker finds it out in eager PyTorch."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from neural_coder._worker.context import Call  # noqa: E402
from neural_coder._worker.sensitivity import CALLS, Sensitivity  # noqa: E402
from neural_coder._worker.sites import Site  # noqa: E402
from neural_coder.runtime import accelerate, explain  # noqa: E402

pytestmark = pytest.mark.torch


def measured(model, *inputs):
    """What is found on these inputs, for a model that the runtime has been given."""
    model = accelerate(model.eval(), engine="torch", precision="int8_dynamic")
    sensitivity = Sensitivity(lambda: None)
    with torch.no_grad():
        for value in inputs:
            sensitivity.after(Site("script.py:inference:0", "inference"), Call(model, (value,), {}), None, None)
        sensitivity.measure()
    assert explain(model).engine == "torch"  # it has the runtime back
    return {found["name"]: found for found in sensitivity.operators}


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (torch.nn.Linear(8, 6), (5, 8)),
        (torch.nn.Conv2d(4, 6, 3), (2, 4, 9, 9)),
        (torch.nn.Conv2d(4, 8, 3, groups=4), (2, 4, 9, 9)),
        (torch.nn.Conv1d(4, 6, 3), (2, 4, 9)),
        (torch.nn.ConvTranspose2d(4, 6, 3), (2, 4, 5, 5)),
    ],
)
def test_a_harmless_layer_loses_about_what_eight_bits_round(layer, shape):
    torch.manual_seed(0)
    found = measured(torch.nn.Sequential(layer, torch.nn.ReLU()), torch.randn(shape))
    assert 0.001 < found["0"]["error"] < 0.03
    assert math.isclose(found["0"]["impact"], found["0"]["error"], rel_tol=1.0)


def test_one_huge_input_spoils_its_layer_and_no_other():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight[0] *= 1000
        model[1].weight[:, 0] /= 1000
    found = measured(model, torch.randn(32, 8))
    assert next(iter(found)) == "1"
    assert found["1"]["error"] > 0.1 > 3 * max(found["0"]["error"], found["2"]["error"])


def test_weights_and_answers_are_as_before():
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)), torch.randn(3, 4)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        before = model.eval()(x)
        measured(model, x)
        assert torch.equal(type(model).forward(model, x), before)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_what_is_no_matrix_product_or_never_runs_is_not_listed():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle, self.norm = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)

        def forward(self, x):
            return self.norm(self.used(x))

    assert set(measured(Model(), torch.randn(3, 4))) == {"used"}


def test_the_run_ends_after_enough_calls():
    stopped = []
    sensitivity = Sensitivity(lambda: stopped.append(True))
    model, site = torch.nn.Linear(2, 2), Site("script.py:inference:0", "inference")
    for number in range(CALLS):
        assert bool(stopped) == (number >= CALLS)
        sensitivity.after(site, Call(model, (torch.zeros(1, 2),), {}), None, None)
    assert stopped
