"""The checks themselves: each notices the patch that breaks its promise, and none minds a good one."""

from __future__ import annotations

import bulk
import pytest
from promises import broken_promises

from neural_coder.edits import AddArgument, Edit, InsertAfter, Replace, Wrap
from neural_coder.patching import Patch
from neural_coder.records import Change, Span
from neural_coder.source import Source

BEFORE = "import torch\nmodel = f(1)  # a comment\nif a:\n    y = model(x)\n    z = 'text'\nw = 2\n"
WRAP = Wrap(at=Span(line=4, column=4, end_line=4, end_column=16), item="torch.inference_mode()", reason="why")
WRAPPED = BEFORE.replace("    y = model(x)\n", "    with torch.inference_mode():\n        y = model(x)\n")
INSERT = InsertAfter(at=Span(line=2, column=0, end_line=2, end_column=12), code="model.compile()", reason="why")
ADD = AddArgument(call=Span(line=2, column=8, end_line=2, end_column=12), keyword="fused", value="True", reason="why")
REPLACE = Replace(at=Span(line=6, column=4, end_line=6, end_column=5), code='"cpu"', reason="why")
EXTEND = InsertAfter(
    at=Span(line=6, column=0, end_line=6, end_column=5),
    code="model, w = intel_extension_for_pytorch.optimize(model, optimizer=w, dtype=torch.bfloat16, inplace=True)",
    reason="why",
    imports=("torch", "intel_extension_for_pytorch"),
)
EXTENDED = BEFORE.replace("torch\n", "torch\nimport intel_extension_for_pytorch\n") + EXTEND.code + "\n"


def broken(before: str, after: str, *edits: Edit) -> list[str]:
    source = Source.from_text(before)
    change = Change(line=1, author="feature", reason="why")
    return broken_promises(Patch(before=source, after=source.with_text(after), changes=(change,)), edits)


@pytest.mark.parametrize(
    ("after", "edit"),
    [
        (WRAPPED, WRAP),
        (BEFORE.replace("comment\n", "comment\nmodel.compile()\n"), INSERT),
        (BEFORE.replace("f(1)", "f(1, fused=True)"), ADD),
        (BEFORE.replace("w = 2", 'w = "cpu"'), REPLACE),
        (EXTENDED, EXTEND),
    ],
    ids=["wrap", "insert", "add", "replace", "extend"],
)
def test_a_good_patch_breaks_no_promise(after, edit):
    assert broken(BEFORE, after, edit) == []
    assert broken(BEFORE.replace("\n", "\r\n"), after.replace("\n", "\r\n"), edit) == []


@pytest.mark.parametrize(
    ("after", "edit", "words"),
    [
        (WRAPPED.replace("w = 2", "w = ("), WRAP, "does not compile"),
        (WRAPPED.replace("w = 2", "w  = 2"), WRAP, "outside of the edits"),
        (WRAPPED.replace("a comment", "comment"), WRAP, "outside of the edits"),
        (WRAPPED.replace("'text'", '"text"'), WRAP, "outside of the edits"),
        (WRAPPED.replace("w = 2\n", "w = 2\r\n"), WRAP, "a line ends otherwise"),
        (WRAPPED.replace("w = 2", "w = 2; del q"), WRAP, "'del', which no edit names"),
        (WRAPPED.replace("    z = 'text'", "        z = 'text'"), WRAP, "changed or moved"),
        (BEFORE.replace("    z = 'text'\nw", "    z = 'text'\n    w"), INSERT, "changed or moved"),
        (BEFORE.replace("f(1)", "f(2)"), ADD, "outside of the edits"),
        (BEFORE.replace("w = 2", "v = 'cpu'"), REPLACE, "outside of the edits"),
    ],
)
def test_a_bad_patch_is_noticed(after, edit, words):
    found = broken(BEFORE, after, edit)
    assert any(words in each for each in found), found


def test_a_name_that_becomes_local_is_noticed():
    before = "def f(x):\n    g(torch)\n    y = model(x)\n"
    after = before.replace("    y", "    import torch\n    y")
    edit = Wrap(at=Span(line=3, column=4, end_line=3, end_column=16), item="torch.inference_mode()", reason="why")
    assert any("torch becomes local to f" in each for each in broken(before, after, edit))


def test_a_name_that_loses_its_binding_is_noticed(tmp_path):
    before = "import torch\nx = torch.ones(1)\nprint(x)\n"
    after = before.replace("x = torch.ones(1)\n", "")
    assert any("no longer bound" in each for each in broken(before, after, INSERT))
    pair = bulk.Pair("0.py", before.encode(), after.encode(), before, after)
    assert bulk.new_problems([pair], tmp_path) == {"0.py": ["F821: Undefined name `x`"]}


def test_a_patch_that_names_changes_but_makes_none_is_noticed():
    assert broken(BEFORE, BEFORE, INSERT)


def test_a_comment_in_what_is_replaced_may_go_above_the_statement():
    before = "a = 1\nb = f(\n    1,  # why\n)\n"
    replace = Replace(at=Span(line=2, column=4, end_line=4, end_column=1), code='"cpu"', reason="why")
    assert broken(before, 'a = 1\n# why\nb = "cpu"\n', replace) == []
    assert broken(before, '# why\na = 2\nb = "cpu"\n', replace) != []
