"""Code that nests deeply, as generated code and long chains of calls do, is analysed in no time, or refused clearly."""

from __future__ import annotations

import pytest

from neural_coder.analysis import Project, analyze
from neural_coder.errors import UserError
from neural_coder.records import Analysis

MODEL = "import torch\nmodel = torch.nn.Linear(3, 1)\n"


def analysed(tmp_path, code: str) -> Analysis:
    path = tmp_path / "script.py"
    path.write_text(MODEL + code + "out = model(x)\n")
    return analyze(path, Project(tmp_path))


@pytest.mark.parametrize(
    "expression",
    [
        "frame" + ".step()" * 300,
        "part" + ".inner" * 700,
        " + ".join(["'text'"] * 700),
        "not " * 300 + "x",
        "lambda: " * 90 + "x",
    ],
    ids=["calls", "attributes", "terms", "negations", "lambdas"],
)
def test_a_deep_expression_hides_no_site(tmp_path, expression):
    """With the receiver of each call evaluated twice, a chain of thirty calls took hours."""
    found = analysed(tmp_path, f"y = {expression}\n")
    assert [model.name for model in found.models] == ["model"]
    assert [call.callee for call in found.inference] == ["model"]


def test_a_long_chain_of_elif_hides_no_site(tmp_path):
    found = analysed(
        tmp_path, "if x == 0:\n    y = 0\n" + "".join(f"elif x == {i}:\n    y = {i}\n" for i in range(300))
    )
    assert [call.callee for call in found.inference] == ["model"]


def test_what_python_cannot_parse_either_is_a_clear_problem(tmp_path):
    with pytest.raises(UserError, match=r"script\.py"):
        analysed(tmp_path, "y = " + " + ".join(["x"] * 5000) + "\n")
