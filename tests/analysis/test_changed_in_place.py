"""Results that a script changes in place, which tensors made in inference mode do not allow."""

from __future__ import annotations

import pytest

from neural_coder.analysis import Project, analyze

HEAD = "import torch\n\nmodel = torch.nn.Linear(3, 8)\nx = torch.zeros(1, 3)\n"


@pytest.mark.parametrize(
    "body",
    [
        "out = model(x)\nout /= out.norm()\n",
        "out = model(x)\nout[0] = 1\n",
        "out = model(x)\nout.clamp_(0)\n",
        "total = 0\nfor _ in range(3):\n    total += model(x).sum()\ntotal /= 3\n",
        "with torch.no_grad():\n    out = model(x)\nout /= 2\n",
        "half = shorten(model(x))\nhalf = half.to('cpu')\nhalf.weight[0] = 1\nhalf.parameters()\n",
        "def encode(x):\n    return model(x)\n\nfeatures = encode(x)\nfeatures /= features.norm()\n",
    ],
)
def test_a_result_that_is_changed_in_place_is_noticed(tmp_path, body):
    (call,) = inference(tmp_path, body)
    assert call.changed_in_place


@pytest.mark.parametrize(
    "body",
    [
        "out = model(x)\nprint(out / out.norm())\n",
        "total = 0\nfor _ in range(3):\n    total += model(x).sum().item()\n",
        "total = 0\nfor _ in range(3):\n    total += model(x).sum()\n",
        "with torch.no_grad():\n    out = model(x)\n    out /= 2\n",
    ],
)
def test_new_tensors_numbers_and_changes_in_the_same_block_are_no_change_in_place(tmp_path, body):
    (call,) = inference(tmp_path, body)
    assert not call.changed_in_place


def inference(folder, body):
    path = folder / "script.py"
    path.write_text(HEAD + body)
    return analyze(path, Project(folder)).inference
