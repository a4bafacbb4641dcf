"""A digest changes with everything that an answer depends on, and with nothing else."""

import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from neural_coder.runtime import accelerate  # noqa: E402
from neural_coder.runtime.fingerprint import CannotDescribe, digest  # noqa: E402

pytestmark = pytest.mark.torch


class Described(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.config = SimpleNamespace(depth=2, names=["a"])
        self.table = torch.arange(3)
        self.chosen = {"b", "a"}
        self.register_buffer("offset", torch.zeros(2), persistent=False)


CHANGES = {
    "weight": lambda model: model.body[0].weight.data.__setitem__((7, 3), 1.0),
    "type": lambda model: model.double(),
    "buffer": lambda model: model.offset.add_(1),
    "layer": lambda model: model.body.__setitem__(1, nn.GELU()),
    "more layers": lambda model: model.body.append(nn.ReLU()),
    "setting of a layer": lambda model: setattr(model.body[0], "in_features", 5),
    "config": lambda model: setattr(model.config, "depth", 3),
    "list in a config": lambda model: model.config.names.append("b"),
    "plain tensor": lambda model: model.table.add_(1),
    "set": lambda model: model.chosen.add("c"),
    "training": lambda model: model.body.train(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_it_changes_with_the_model(change):
    model = Described().eval()
    before = digest(model)
    change(model)
    assert digest(model) != before


def test_it_changes_with_settings_and_versions():
    model = Described().eval()
    assert len({digest(model), digest(model, "int8"), digest(model, "int8", packages=("pytest",))}) == 3


def test_it_stays_for_equal_models_and_through_acceleration():
    model = Described().eval()
    before = digest(Described().eval())
    assert digest(model) == before
    accelerate(model, precision="bf16")
    assert digest(model) == before
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert digest(model) == before


def test_it_is_the_same_in_another_process_and_another_with_other_code(tmp_path):
    script = """
        import sys; sys.path.insert(0, sys.argv[1])
        import torch
        from mine import Mine
        from neural_coder.runtime.fingerprint import digest
        torch.manual_seed(0)
        print(digest(Mine().eval()))
    """

    def run(factor, seed):
        code = "import torch\nclass Mine(torch.nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n"
        code += f"        self.some = {{'a', 'b', 'c'}}\n    def forward(self, x):\n        return {factor} * x\n"
        (tmp_path / "mine.py").write_text(code)
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        command = [sys.executable, "-B", "-c", textwrap.dedent(script), str(tmp_path)]
        return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120, env=environment).stdout

    first = run(2, "1")
    assert run(2, "2") == first
    assert run(3, "1") != first


def test_what_cannot_be_seen_is_refused():
    model = Described()
    model.handle = iter([])
    with pytest.raises(CannotDescribe, match=r"its attribute .*handle is a list_iterator"):
        digest(model)
