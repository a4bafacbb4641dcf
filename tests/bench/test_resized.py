"""A model call with another number of items than the script gives it; each item's answer is checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import Project

from neural_coder.bench.runner import run
from neural_coder.records import Run

pytestmark = pytest.mark.torch

HEAD = """
import torch
torch.manual_seed(0)
"""
MLP = f"""{HEAD}
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 5)).eval()
for step in range(6):
    y = model(torch.randn(4, 8))
"""


def resized(folder: Path, text: str, call: str, items: int) -> Run:
    return run(Project(folder, text).probe("inference", call).job(items=items))


@pytest.mark.parametrize("items", [1, 4, 6, 8])
def test_calls_get_the_number_of_items_and_each_item_its_own_answer(tmp_path: Path, items: int) -> None:
    found = resized(tmp_path, MLP, "model(torch.randn(4, 8))", items)
    assert found.ok, found.ending
    (timing,) = found.timings
    assert timing.items == items
    assert len(timing.samples) >= 3
    assert found.comparison is not None
    assert found.comparison.rows == items
    assert found.comparison.relative_error < 1e-5


def test_lists_of_texts_are_repeated_like_tensors(tmp_path: Path) -> None:
    text = f"{HEAD}\ndef model(texts, unit):\n    return torch.tensor([[float(len(one)), 1.0, 2.0] for one in texts])\n"
    text += "for step in range(6):\n    y = model(['one', 'three', 'eleven'], 'letters')\n"
    found = resized(tmp_path, text, "model(['one', 'three', 'eleven'], 'letters')", 7)
    assert found.ok, found.ending
    assert found.timings[0].items == 7
    assert found.comparison is not None
    assert found.comparison.rows == 7
    assert found.comparison.relative_error == 0


def test_the_script_itself_sees_its_own_batches_only(tmp_path: Path) -> None:
    text = MLP.replace("    y = model", "    assert step < 2 or y.shape[0] == 4\n    y = model")
    assert resized(tmp_path, text, "model(torch.randn(4, 8))", 64).ok


def test_a_first_dimension_that_is_not_the_batch_shows_in_the_answers(tmp_path: Path) -> None:
    text = f"""{HEAD}
class Last(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(8, 16)
    def forward(self, x):
        return self.lstm(x)[0]
model = Last().eval()
for step in range(6):
    y = model(torch.randn(5, 3, 8))
"""
    found = resized(tmp_path, text, "model(torch.randn(5, 3, 8))", 10)
    assert found.comparison is not None
    assert found.comparison.relative_error > 0.01


@pytest.mark.parametrize(
    ("signature", "body", "arguments", "reason"),
    [
        ("x, mask", "x + mask.sum()", "torch.ones(4, 8), torch.ones(2, 2)", "do not have one first dimension"),
        ("x, other", "x", "torch.ones(4, 8), object()", "other things than tensors, numbers and texts"),
        ("n", "torch.ones(n)", "3", "neither tensors nor lists of texts"),
        ("x", "x.sum()", "torch.ones(4, 8)", "does not have one row for each item"),
        ("x", "x.reshape(4, 8)", "torch.ones(4, 8)", "the model cannot be called so"),
    ],
)
def test_what_cannot_be_resized_is_declined_with_its_reason(
    tmp_path: Path, signature: str, body: str, arguments: str, reason: str
) -> None:
    text = f"{HEAD}\ndef model({signature}):\n    return {body}\nfor step in range(6):\n    y = model({arguments})\n"
    call = f"model({arguments})"
    found = resized(tmp_path, text, call, 8)
    assert found.ending.kind == "no_calls"
    assert reason in found.ending.message
