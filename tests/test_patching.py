"""What patches look like, kind by kind of edit."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

from neural_coder.edits import Accelerate, AddArgument, Edit, InsertAfter, Replace, Wrap
from neural_coder.errors import InternalError
from neural_coder.patching import Authored, Conflict, Patch, Unpatchable, apply
from neural_coder.patching.referee import moved_statement
from neural_coder.records import Change, Span
from neural_coder.source import Source

CHANNELS_LAST = "model = model.to(memory_format=torch.channels_last)"
INFERENCE = "torch.inference_mode()"
AUTOCAST = 'torch.autocast("cpu", dtype=torch.bfloat16)'


def code(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def offset_span(text: str, start: int, end: int) -> Span:
    def place(offset: int) -> tuple[int, int]:
        before = text[:offset].replace("\r\n", " \n").replace("\r", "\n")
        return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1)

    (line, column), (end_line, end_column) = place(start), place(end)
    return Span(line=line, column=column, end_line=end_line, end_column=end_column)


def at(text: str, snippet: str, last: str = "") -> Span:
    """The span of a snippet, or from one snippet to the end of another."""
    start = text.index(snippet)
    end = text.index(last, start) + len(last) if last else start + len(snippet)
    return offset_span(text, start, end)


def insert(text: str, target: str, new: str = CHANNELS_LAST, imports: tuple[str, ...] = ("torch",)) -> InsertAfter:
    return InsertAfter(at=at(text, target), code=new, reason="why", imports=imports)


def wrap(text: str, first: str, last: str = "", item: str = INFERENCE) -> Wrap:
    return Wrap(at=at(text, first, last), item=item, reason="why")


def replace(text: str, old: str, new: str, imports: tuple[str, ...] = ()) -> Replace:
    return Replace(at=at(text, old), code=new, reason="why", imports=imports)


def add(text: str, call: str, keyword: str = "fused", value: str = "True") -> AddArgument:
    return AddArgument(call=at(text, call), keyword=keyword, value=value, reason="why")


def accelerate(text: str, target: str, **settings: str) -> Accelerate:
    return Accelerate(at=at(text, target), name="model", reason="why", **settings)


def patch(text: str, *edits: Edit | tuple[str, int, Edit], path: Path | str = "script.py") -> Patch:
    authored = [Authored(*edit) if isinstance(edit, tuple) else Authored("feature", 1, edit) for edit in edits]
    outcome = apply(Source.from_text(text, path), authored)
    assert isinstance(outcome, Patch), outcome
    ast.parse(outcome.after.text)
    return outcome


def patched(text: str, *edits: Edit | tuple[str, int, Edit]) -> str:
    return patch(text, *edits).after.text


# --- inserting ------------------------------------------------------------------------------------------------------


def test_a_statement_goes_behind_its_target():
    text = "import torch\nmodel = f()\nx = 1\n"
    assert patched(text, insert(text, "model = f()")) == f"import torch\nmodel = f()\n{CHANNELS_LAST}\nx = 1\n"


def test_a_statement_goes_behind_a_multi_line_target_at_the_indent_of_its_first_line():
    """The predecessor took the indent of the last line."""
    text = code("""
        import torch

        def build():
            model = Net(
                    3,
                        8)  # comment
            # about the next line
            return model
    """)
    target = at(text, "model = Net(", "8)")
    after = patched(text, InsertAfter(at=target, code=CHANNELS_LAST, reason="why"))
    assert after == text.replace("# comment\n", f"# comment\n    {CHANNELS_LAST}\n")


def test_continuation_lines_are_no_statements():
    """The predecessor took `model.parameters(), lr=0.1` for a call and wrapped it."""
    text = "import torch\nopt = SGD(\n    model.parameters(), lr=0.1\n)\n"
    with pytest.raises(InternalError, match="no statement begins at line 3"):
        patch(text, wrap(text, "model.parameters(), lr=0.1"))


def test_a_semicolon_list_keeps_its_order():
    text = "import torch\na = 1; model = f(); b = 2\n"
    assert patched(text, insert(text, "model = f()")).endswith(f"a = 1; model = f(); {CHANNELS_LAST}; b = 2\n")


def test_the_last_of_a_semicolon_list_gets_a_line_behind_it():
    text = "import torch\na = 1; model = f();  # why\n"
    assert patched(text, insert(text, "model = f()")) == f"{text}{CHANNELS_LAST}\n"


def test_a_one_line_suite_stays_one_line():
    text = "import torch\nif x: model = f()\nelse: y = 1\n"
    assert patched(text, insert(text, "model = f()")) == text.replace("f()", f"f(); {CHANNELS_LAST}")


def test_a_block_behind_a_one_line_suite_splits_it():
    text = "import torch\nif x: a = 1; model = f(); b = 2\nelse: y = 1\n"
    after = patched(text, insert(text, "model = f()", "if y:\n    model = g(model)"))
    assert after == code("""
        import torch
        if x:
            a = 1
            model = f()
            if y:
                model = g(model)
            b = 2
        else: y = 1
    """)


def test_a_compound_statement_is_passed_as_a_whole():
    text = code("""
        import torch
        if gpu:
            model = f()
            # inside
        # outside
        x = 1
    """)
    after = patched(text, InsertAfter(at=at(text, "if gpu", "f()"), code=CHANNELS_LAST, reason="why"))
    assert after == text.replace("# inside\n", f"# inside\n{CHANNELS_LAST}\n")


def test_the_last_statement_of_a_block_keeps_the_comments_behind_it():
    text = "import torch\ndef f():\n    model = g()\n    # done\n\nx = 1\n"
    assert patched(text, insert(text, "model = g()")) == text.replace("g()\n", f"g()\n    {CHANNELS_LAST}\n")


def test_inner_and_outer_statements_that_end_together_keep_their_levels():
    text = "import torch\nfor i in x:\n    if i:\n        model = f()"
    inner = insert(text, "model = f()", "inner()")
    middle = InsertAfter(at=at(text, "if i", "f()"), code="middle()", reason="why")
    outer = InsertAfter(at=at(text, "for i", "f()"), code="outer()", reason="why")
    assert patched(text, outer, middle, inner) == f"{text}\n        inner()\n    middle()\nouter()"


def test_several_insertions_go_by_order_then_author():
    text = "model = f()\n"
    edits = [(name, order, insert(text, "model = f()", f"{name}()")) for name, order in [("d", 1), ("c", 2), ("a", 2)]]
    assert patched(text, *edits) == "model = f()\nd()\na()\nc()\n"


def test_no_final_newline_stays_none():
    text = "import torch\nmodel = f()"
    assert patched(text, insert(text, "model = f()")) == f"{text}\n{CHANNELS_LAST}"


@pytest.mark.parametrize("target", ["model: Net = f()", "self.model = f()", "model = net = f()", "(model) = f()"])
def test_any_assignment_can_be_a_target(target):
    text = f"import torch\n{target}\n"
    assert patched(text, insert(text, target, "done()")) == f"{text}done()\n"


def test_a_decorated_function_is_passed_as_a_whole():
    text = "import torch\n@torch.no_grad()\ndef f():\n    return 1\ny = 2\n"
    after = patched(text, InsertAfter(at=at(text, "def f", "1"), code="g()", reason="why"))
    assert after == text.replace("1\n", "1\ng()\n")


# --- wrapping -------------------------------------------------------------------------------------------------------


def test_statements_are_put_into_a_with_block():
    text = "import torch\nx = 1\ny = model(x)  # run\n# then\nz = y + 1\nq = 2\n"
    assert patched(text, wrap(text, "y = model(x)", "z = y + 1")) == code("""
        import torch
        x = 1
        with torch.inference_mode():
            y = model(x)  # run
            # then
            z = y + 1
        q = 2
    """)


def test_strings_over_several_lines_keep_their_inside():
    text = 'import torch\ny = model(f"""\n  {a}\nb\n""",\n    1)\nz = "a\\\nb"\n'
    after = patched(text, wrap(text, "y = model", '"a\\\nb"'))
    assert after == code('''
        import torch
        with torch.inference_mode():
            y = model(f"""
          {a}
        b
        """,
                1)
            z = "a\\
        b"
    ''').replace("\n        b", "\nb").replace("\n          {a}", "\n  {a}").replace('\n        """', '\n"""')
    before_strings = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    assert before_strings == [node.value for node in ast.walk(ast.parse(after)) if isinstance(node, ast.Constant)]


def test_items_for_the_same_statements_share_a_header_in_their_order():
    text = "import torch\ny = model(x)\n"
    edits = [
        ("bf16", 20, wrap(text, "y = model(x)", item=AUTOCAST)),
        ("inference_mode", 10, wrap(text, "y = model(x)")),
    ]
    assert patched(text, *edits) == f"import torch\nwith {INFERENCE}, {AUTOCAST}:\n    y = model(x)\n"


def test_equal_neighbours_share_a_block():
    text = "import torch\na = model(x)\n\n# second\nb = model(y)\nc = a + b\nd = model(c)\n"
    edits = [wrap(text, "a = model(x)"), wrap(text, "b = model(y)"), wrap(text, "d = model(c)")]
    assert patched(text, *edits) == code("""
        import torch
        with torch.inference_mode():
            a = model(x)

            # second
            b = model(y)
        c = a + b
        with torch.inference_mode():
            d = model(c)
    """)


def test_nested_wraps_of_different_items_nest():
    text = "import torch\nfor x in xs:\n    a = 1\n    y = model(x)\n    # end\nb = 2\n"
    edits = [wrap(text, "for x", "model(x)"), wrap(text, "y = model(x)", item=AUTOCAST)]
    assert patched(text, *edits) == code(f"""
        import torch
        with torch.inference_mode():
            for x in xs:
                a = 1
                with {AUTOCAST}:
                    y = model(x)
                # end
        b = 2
    """)


def test_wraps_that_begin_together_nest():
    text = "import torch\na = model(x)\nb = 1\n"
    edits = [wrap(text, "a = model(x)", item=AUTOCAST), wrap(text, "a = model(x)", "b = 1")]
    expected = f"import torch\nwith {INFERENCE}:\n    with {AUTOCAST}:\n        a = model(x)\n    b = 1\n"
    assert patched(text, *edits) == expected


def test_an_item_that_is_around_in_the_same_patch_is_not_repeated():
    text = "import torch\nfor x in xs:\n    y = model(x)\n"
    edits = [("a", 1, wrap(text, "for x", "model(x)")), ("b", 2, wrap(text, "y = model(x)"))]
    assert patched(text, *edits).count("with") == 1


@pytest.mark.parametrize(
    "text",
    [
        "import torch\nwith torch.inference_mode():\n    y = model(x)\n",
        "import torch as t\nwith open(f), t.inference_mode():\n    for x in xs:\n        y = model(x)\n",
        "from torch import inference_mode as im\nwith im():\n    y = model(x)\n",
    ],
)
def test_a_with_that_is_there_already_is_not_repeated(text):
    assert patch(text, wrap(text, "y = model(x)")).empty


def test_a_with_around_the_function_does_not_count():
    text = "import torch\nwith torch.inference_mode():\n    def f(x):\n        return model(x)\n"
    assert "    def f(x):\n        with torch.inference_mode():\n" in patched(text, wrap(text, "return model(x)"))


def test_a_look_alike_item_does_not_count():
    text = "import torch\nimport mylib as t\nwith t.inference_mode():\n    y = model(x)\n"
    assert not patch(text, wrap(text, "y = model(x)")).empty


def test_async_code_gets_a_plain_with():
    text = "import torch\nasync def f():\n    async for x in xs:\n        y = await model(x)\n"
    after = patched(text, wrap(text, "y = await model(x)"))
    assert "        with torch.inference_mode():\n            y = await" in after


def test_one_of_several_statements_on_a_line_can_be_wrapped():
    text = "import torch\nif x: a = 1; y = model(x); b = 2  # end\n"
    assert patched(text, wrap(text, "y = model(x)")) == code("""
        import torch
        if x:
            a = 1
            with torch.inference_mode():
                y = model(x)
            b = 2  # end
    """)


def test_a_statement_behind_a_wrapped_one_stays_outside():
    text = "import torch\nmodel = f(x); y = 1\n"
    after = patched(text, wrap(text, "model = f(x)"), insert(text, "model = f(x)", "done()"))
    assert after == "import torch\nwith torch.inference_mode():\n    model = f(x)\ndone()\ny = 1\n"


def test_a_statement_between_wrapped_ones_goes_inside():
    text = "import torch\nmodel = f(x)\ny = model(1)\n"
    after = patched(text, wrap(text, "model = f(x)", "y = model(1)"), insert(text, "model = f(x)", "mid()"))
    assert after == "import torch\nwith torch.inference_mode():\n    model = f(x)\n    mid()\n    y = model(1)\n"


def test_a_whole_body_can_be_wrapped():
    text = "import torch\ndef f(x):\n\ty = model(x)\n\n\treturn y\n\nz = 1\n"
    after = patched(text, wrap(text, "y = model(x)", "return y"))
    assert (
        after == "import torch\ndef f(x):\n\twith torch.inference_mode():\n\t\ty = model(x)\n\n\t\treturn y\n\nz = 1\n"
    )


def test_a_decorated_function_is_wrapped_with_its_decorators():
    text = "import torch\n@deco\ndef f():\n    pass\n"
    after = patched(text, wrap(text, "def f():", "pass"))
    assert after == "import torch\nwith torch.inference_mode():\n    @deco\n    def f():\n        pass\n"


def test_an_elif_cannot_be_wrapped():
    text = "import torch\nif a:\n    pass\nelif model(x):\n    b = 1\n"
    outcome = apply(Source.from_text(text), [Authored("f", 1, wrap(text, "elif model(x)", "b = 1"))])
    assert isinstance(outcome, Unpatchable)
    assert "line 4" in outcome.reason


def test_crossing_wraps_are_a_conflict():
    text = "import torch\na = 1\nb = 2\nc = 3\n"
    edits = [
        Authored("bf16", 1, wrap(text, "a = 1", "b = 2", item=AUTOCAST)),
        Authored("inference_mode", 2, wrap(text, "b = 2", "c = 3")),
    ]
    outcome = apply(Source.from_text(text), edits)
    assert isinstance(outcome, Conflict)
    assert {outcome.first, outcome.second} == {"bf16", "inference_mode"}
    assert "bf16" in outcome.reason


def test_crossing_wraps_of_one_item_become_one():
    text = "import torch\na = 1\nb = 2\nc = 3\n"
    after = patched(text, wrap(text, "a = 1", "b = 2"), wrap(text, "b = 2", "c = 3"))
    assert after == "import torch\nwith torch.inference_mode():\n    a = 1\n    b = 2\n    c = 3\n"


# --- replacing ------------------------------------------------------------------------------------------------------


def test_an_expression_is_replaced_and_nothing_else():
    """Names that are a prefix of other names were replaced, too, by the predecessor."""
    text = "model = net.cuda()\nmodel2 = net.cuda\nx = 'model = net.cuda()'\n"
    assert patched(text, replace(text, "net.cuda()", "net")) == text.replace("net.cuda()", "net", 1)


@pytest.mark.parametrize(
    ("before", "old", "new", "after"),
    [
        ("y = (a + b).cuda() * 2", "(a + b).cuda()", "a + b", "y = (a + b) * 2"),
        ("y = (a + b).cuda()", "(a + b).cuda()", "a + b", "y = a + b"),
        ("y = f(a.cuda(), 1)", "a.cuda()", "lambda: 0", "y = f(lambda: 0, 1)"),
        ("y = f(a.cuda(), 1)", "a.cuda()", "i for i in x", "y = f((i for i in x), 1)"),
        ("y = g(a.cuda())()", "a.cuda()", "(yield)", "y = g((yield))()"),
        ("y = a.cuda().b", "a.cuda()", "lambda: 0", "y = (lambda: 0).b"),
        ("y = a.cuda().b", "a.cuda()", "1", "y = (1).b"),
        ("y = (a.cuda()).b", "a.cuda()", "lambda: 0", "y = (lambda: 0).b"),
        ("y = a.cuda()(b)", "a.cuda()", "lambda: 0", "y = (lambda: 0)(b)"),
        (
            "y = (\n    a\n    .b()\n    .cuda()\n)",
            "a\n    .b()\n    .cuda()",
            "a\n    .b()",
            "y = (\n    a\n    .b()\n)",
        ),
        ("y = (a +\n     b).cuda()", "(a +\n     b).cuda()", "a +\n     b", "y = (a +\n     b)"),
    ],
)
def test_parentheses_are_kept_where_they_are_needed(before, old, new, after):
    text = f"def f():\n{textwrap.indent(before, '    ')}\n"
    old, new, after = (textwrap.indent(part, "    ").lstrip(" ") for part in (old, new, after))
    assert patched(text, replace(text, old, new)) == f"def f():\n    {after}\n"


def test_inner_replacements_live_in_outer_ones():
    text = 'model = Net("cuda", other="cuda").cuda()\n'
    outer = replace(text, 'Net("cuda", other="cuda").cuda()', 'Net("cuda", other="cuda")')
    inner = Replace(at=at(text, '"cuda"'), code='"cpu"', reason="why")
    assert patched(text, ("a", 1, outer), ("b", 2, inner)) == 'model = Net("cpu", other="cuda")\n'


def test_of_equal_parts_the_edited_one_stays_in_its_place():
    text = "y = f('a', 'a')\n"
    outer = replace(text, "f('a', 'a')", "g('a', 'a')")
    for inner, after in (("'a',", "g('b', 'a')"), ("'a')", "g('a', 'b')")):
        start = text.index(inner)
        edit = Replace(at=offset_span(text, start, start + 3), code="'b'", reason="why")
        assert patched(text, ("a", 1, outer), ("b", 2, edit)) == f"y = {after}\n"


def test_new_arguments_live_in_outer_replacements():
    text = "opt = prepare(Adam(p, lr=1), 3)\n"
    edits = [
        ("a", 1, replace(text, "prepare(Adam(p, lr=1), 3)", "Adam(p, lr=1)")),
        ("b", 1, add(text, "Adam(p, lr=1)")),
    ]
    assert patched(text, *edits) == "opt = Adam(p, lr=1, fused=True)\n"


def test_an_edit_that_a_replacement_would_lose_is_a_conflict():
    text = "y = f(g(x))\n"
    edits = [Authored("a", 1, replace(text, "f(g(x))", "h()")), Authored("b", 1, replace(text, "g(x)", "x"))]
    outcome = apply(Source.from_text(text), edits)
    assert isinstance(outcome, Conflict)
    assert (outcome.first, outcome.second) == ("a", "b")


def test_different_replacements_of_one_expression_are_a_conflict():
    text = "y = 1\n"
    outcome = apply(
        Source.from_text(text), [Authored("a", 1, replace(text, "1", "2")), Authored("b", 1, replace(text, "1", "3"))]
    )
    assert isinstance(outcome, Conflict)
    assert outcome.reason == "line 1: a wants `2`, b `3`."


def test_equal_edits_of_two_authors_are_one_edit_of_both():
    text = "y = f('a')\n"
    result = patch(text, ("a", 1, replace(text, "'a'", "'b'")), ("c", 2, replace(text, "'a'", '"b"')))
    assert result.after.text == "y = f('b')\n"
    assert result.changes == (
        Change(line=1, author="a", reason="why"),
        Change(line=1, author="c", reason="why"),
    )


def test_comments_in_a_replaced_expression_survive():
    text = code("""
        def f():
            y = (  # first
                a  # second
                + b
            ).cuda()  # third
            return y
    """)
    span = at(text, "(  # first", ".cuda()")
    after = patched(text, Replace(at=span, code="a\n        + b", reason="why"))
    assert all(f"# {word}" in after for word in ("first", "second", "third"))
    assert ast.dump(ast.parse(after)) == ast.dump(ast.parse("def f():\n    y = a + b\n    return y\n"))


def test_comments_in_kept_parts_stay_where_they_are():
    text = "m = Net(\n    3,  # in\n    8,  # out\n).cuda()\n"
    span = at(text, "Net(", ".cuda()")
    assert patched(text, Replace(at=span, code="Net(3, 8)", reason="why")) == text.replace(".cuda()", "")


def test_a_statement_is_taken_out():
    text = "import torch\nmodel = f()\nmodel.cuda()\ny = 1\n"
    assert patched(text, replace(text, "model.cuda()", "")) == "import torch\nmodel = f()\ny = 1\n"


def test_the_comment_of_a_removed_statement_stays():
    text = "if x:\n    a = 1\n    model.cuda(  # why\n        0\n    )  # move\n"
    after = patched(text, Replace(at=at(text, "model.cuda(", "0\n    )"), code="", reason="why"))
    assert after == "if x:\n    a = 1\n    # why\n    # move\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("if gpu:\n    model.cuda()\n", "if gpu:\n    pass\n"),
        ("if gpu: model.cuda()\n", "if gpu: pass\n"),
        ("a = 1; model.cuda(); b = 2\n", "a = 1; pass; b = 2\n"),
    ],
)
def test_pass_takes_the_place_where_a_statement_is_needed(before, after):
    assert patched(before, replace(before, "model.cuda()", "")) == after


def test_statements_go_behind_a_removed_one():
    text = "import torch\ndef f(model):\n    model.cuda()\n"
    after = patched(text, ("cpu", 1, replace(text, "model.cuda()", "")), ("cl", 2, insert(text, "model.cuda()")))
    assert after == f"import torch\ndef f(model):\n    {CHANNELS_LAST}\n"


def test_a_removed_statement_in_a_wrapped_run_leaves_no_trace():
    text = "import torch\nif a:\n    x.cuda()\n    y = model(x)\n    y.cuda()\n    z = 1\n"
    edits = [replace(text, "x.cuda()", ""), replace(text, "y.cuda()", ""), wrap(text, "x.cuda()", "y.cuda()")]
    assert patched(text, *edits) == code("""
        import torch
        if a:
            with torch.inference_mode():
                y = model(x)
            z = 1
    """)


def test_an_edit_inside_a_statement_that_another_takes_out_is_a_conflict():
    text = "if x:\n    opt = Adam(p)\ny = 1\n"
    edits = [
        Authored("a", 1, Replace(at=at(text, "if x:", "Adam(p)"), code="", reason="why")),
        Authored("b", 1, add(text, "Adam(p)")),
    ]
    assert isinstance(apply(Source.from_text(text), edits), Conflict)


def test_strings_inside_f_strings_get_other_quotes():
    text = "print(f\"{x.to('cuda')} {y}\")\n"
    assert patched(text, replace(text, "'cuda'", '"cpu"')) == "print(f\"{x.to('cpu')} {y}\")\n"


def test_escapes_in_strings_and_other_scripts_survive():
    text = 'print(f"{x}\\n", "é→\U0001f600")\né = model(x); print("日本\\n")\n'
    after = patched("import torch\n" + text, wrap("import torch\n" + text, "é = model(x)"))
    assert 'print(f"{x}\\n", "é→\U0001f600")\n' in after
    assert after.endswith('    é = model(x)\nprint("日本\\n")\n')


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("f()", "f(fused=True)"),
        ("f(a)", "f(a, fused=True)"),
        ("f(a,)", "f(a, fused=True,)"),
        ("f((a))", "f((a), fused=True)"),
        ("f(*a, b=1)", "f(*a, b=1, fused=True)"),
        ("f(a, **kw)", "f(a, fused=True, **kw)"),
        ("f(**(kw))", "f(fused=True, **(kw))"),
        ("f(x for x in y)", "f((x for x in y), fused=True)"),
        ("f((x for x in y))", "f((x for x in y), fused=True)"),
        ("(f)(a)", "(f)(a, fused=True)"),
        ("f(a)(b)", "f(a)(b, fused=True)"),
        ("f(\n    a,\n    b=1,\n)", "f(\n    a,\n    b=1,\n    fused=True,\n)"),
        ("f(\n    a,\n    b=1  # last\n)", "f(\n    a,\n    b=1,  # last\n    fused=True\n)"),
        ("f(\n    a,  # first\n    b=1,  # last\n)", "f(\n    a,  # first\n    b=1,  # last\n    fused=True,\n)"),
        ("f(a,\n  b=1)", "f(a,\n  b=1,\n  fused=True)"),
        ("f(a, c,\n  b=1)", "f(a, c,\n  b=1, fused=True)"),
        ("f(\n    a, b=1\n)", "f(\n    a, b=1, fused=True\n)"),
        ("f(\n    a,\n    **kw,\n)", "f(\n    a,\n    fused=True,\n    **kw,\n)"),
        ("f(  # why\n)", "f(fused=True  # why\n)"),
        ("f(\n    (a),\n    (b)\n)", "f(\n    (a),\n    (b),\n    fused=True\n)"),
    ],
)
def test_a_keyword_is_added_in_the_layout_of_the_call(before, after):
    text = f"y = {before}\n"
    assert patched(text, add(text, before)) == f"y = {after}\n"


def test_a_keyword_that_is_there_is_left():
    text = "y = f(a, fused=False)\n"
    assert patch(text, add(text, "f(a, fused=False)")).empty


def test_a_call_inside_an_f_string_is_refused():
    text = 'print(f"{f(a)}")\n'
    outcome = apply(Source.from_text(text), [Authored("a", 1, add(text, "f(a)"))])
    assert isinstance(outcome, Unpatchable)
    assert "f-string" in outcome.reason


def test_two_keywords_for_one_call_go_by_order():
    text = "y = f(a)\n"
    assert (
        patched(text, ("z", 1, add(text, "f(a)", "p")), ("a", 2, add(text, "f(a)", "q")))
        == "y = f(a, p=True, q=True)\n"
    )


def test_two_values_for_one_keyword_are_a_conflict():
    text = "y = f(a)\n"
    edits = [Authored("a", 1, add(text, "f(a)")), Authored("b", 1, add(text, "f(a)", value="False"))]
    outcome = apply(Source.from_text(text), edits)
    assert isinstance(outcome, Conflict)
    assert outcome.reason == "line 1: a wants `fused=True`, b `fused=False`."


# --- the runtime ----------------------------------------------------------------------------------------------------


def test_settings_of_several_features_become_one_call():
    text = "import neural_coder.runtime\nmodel = f()\n"
    edits = [
        ("compile", 50, accelerate(text, "model = f()", engine="inductor", alone="model.compile()")),
        ("bf16_weights", 40, accelerate(text, "model = f()", precision="bf16")),
        ("other", 45, insert(text, "model = f()", "other()")),
    ]
    call = 'model = neural_coder.runtime.accelerate(model, engine="inductor", precision="bf16")'
    result = patch(text, *edits)
    assert result.after.text == f"{text}other()\n{call}\n"
    assert {change.author for change in result.changes} == {"compile", "bf16_weights", "other"}


def test_what_stands_alone_needs_no_runtime():
    text = "model = f()\n"
    edit = accelerate(text, "model = f()", engine="inductor", alone="model = torch.compile(model)")
    assert patched(text, edit) == "import torch\n\nmodel = f()\nmodel = torch.compile(model)\n"


def test_the_engine_is_torch_when_nobody_says_and_plain_precision_is_not_written():
    text = "import neural_coder.runtime as nc\nmodel = f()\n"
    call = 'model = nc.accelerate(model, engine="torch")'
    assert patched(text, accelerate(text, "model = f()", precision="fp32")) == f"{text}{call}\n"


def test_contradicting_settings_are_a_conflict():
    text = "model = f()\n"
    edits = [
        Authored("a", 1, accelerate(text, "model = f()", engine="inductor")),
        Authored("b", 2, accelerate(text, "model = f()", engine="openvino")),
    ]
    outcome = apply(Source.from_text(text), edits)
    assert isinstance(outcome, Conflict)
    assert (outcome.first, outcome.second) == ("a", "b")
    assert "inductor and openvino" in outcome.reason


def test_an_accelerated_model_is_not_accelerated_again():
    text = "from neural_coder import runtime\nmodel = f()\nmodel = runtime.accelerate(model, engine='x')\ny = 1\n"
    for target in ("model = f()", "model = runtime.accelerate(model, engine='x')"):
        assert patch(text, accelerate(text, target, engine="inductor")).empty
    assert not patch(text, Accelerate(at=at(text, "y = 1"), name="net", reason="why")).empty


# --- once is enough -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"import torch\nmodel = f()\n{CHANNELS_LAST}\n",
        "import torch as t\nmodel = f()\nother()\nmodel = model.to( memory_format = t.channels_last )\n",
        "from torch import channels_last as cl\nmodel = f()\nmodel = model.to(memory_format=cl)\n",
    ],
)
def test_a_statement_that_follows_already_is_not_inserted_again(text):
    assert patch(text, insert(text, "model = f()")).empty


def test_a_statement_before_the_last_of_several_inserted_ones_counts():
    text = f"import torch\nmodel = f()\n{CHANNELS_LAST}\nmodel.eval()\n"
    assert patch(text, insert(text, "model.eval()")).empty
    assert patch(text, insert(text, CHANNELS_LAST)).empty


@pytest.mark.parametrize(
    "text",
    [
        f"import torch\n{CHANNELS_LAST}\nother()\nmodel = f()\n",
        f"import torch\nmodel = f()\nif x:\n    {CHANNELS_LAST}\n",
        f"import torch\nmodel = f()\nfor i in x:\n    pass\n{CHANNELS_LAST}\n",
        f"import mylib as torch\nmodel = f()\n{CHANNELS_LAST}\n",
    ],
)
def test_an_equal_statement_elsewhere_does_not_count(text):
    assert not patch(text, insert(text, "model = f()")).empty


# --- imports --------------------------------------------------------------------------------------------------------


def test_an_import_never_goes_into_a_function():
    """The predecessor's commonest break: the name became local, and every use above it failed."""
    text = "import torch\n\ndef main():\n    print(torch.__version__)\n    model = f()\n"
    after = patched(text, insert(text, "model = f()"))
    assert after == f"{text}    {CHANNELS_LAST}\n"
    text = "def main():\n    model = f()\n"
    assert patched(text, insert(text, "model = f()")) == f"import torch\n\n\n{text}    {CHANNELS_LAST}\n"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("import torch", "torch"),
        ("import torch as t", "t"),
        ("import os, torch as t", "t"),
        ("import torch.nn", "torch"),
        ("try:\n    import torch\nexcept ImportError:\n    raise SystemExit(1)", "torch"),
        ("try:\n    import torch\nexcept ImportError:\n    torch = None", "torch"),
        ("import torch\nimport torch.nn.functional as F", "torch"),
    ],
)
def test_imports_of_the_module_are_used(header, name):
    text = f"{header}\n\n\ndef main():\n    model = f()\n"
    new = f"    model = model.to(memory_format={name}.channels_last)\n"
    assert patched(text, insert(text, "model = f()")) == text + new


@pytest.mark.parametrize(
    "header",
    [
        "import torch.nn as nn",
        "from torch import nn",
        "from torch.nn import *",
        "if TYPE_CHECKING:\n    import torch",
        "def g():\n    import torch",
        "class A:\n    import torch",
        "try:\n    pass\nexcept ValueError:\n    import torch",
    ],
)
def test_what_binds_no_module_is_no_import(header):
    text = f"{header}\nmodel = f()\n"
    after = patched(text, insert(text, "model = f()"))
    assert after.count("import torch\n") == text.count("import torch\n") + 1
    assert after.endswith(f"model = f()\n{CHANNELS_LAST}\n")
    compile(after, "x", "exec")


@pytest.mark.parametrize(
    "function",
    [
        "def main(torch):\n    model = f()\n",
        "def main():\n    model = f()\n    torch = 1\n",
        "def main():\n    model = f()\n    import torch\n",
        "def main():\n    model = f()\n    for torch in x: pass\n",
        "def main(torch):\n    def inner():\n        model = f()\n",
        "def main():\n    model = f()\n    with a as torch: pass\n",
        "def main():\n    model = f()\n    match x:\n        case [torch]: pass\n",
        "def main():\n    if (torch := x): pass\n    model = f()\n",
        "def main():\n    model = f()\n    [(torch := i) for i in x]\n",
    ],
)
def test_a_shadowed_name_is_not_used(function):
    text = f"import torch\n{function}"
    after = patched(text, insert(text, "model = f()"))
    assert "import torch as _torch\n" in after
    assert "memory_format=_torch.channels_last" in after
    assert patched(after, insert(after, "model = f()")) == after


def test_names_of_classes_and_other_functions_shadow_nothing():
    text = "import torch\nclass A:\n    torch = 1\n    def f(self):\n        model = f()\ndef g(torch): pass\n"
    assert patched(text, insert(text, "model = f()")).count("import") == 1


def test_a_local_import_above_is_used():
    text = "def main():\n    import torch\n    if x:\n        model = f()\n"
    assert patched(text, insert(text, "model = f()")) == f"{text}        {CHANNELS_LAST}\n"


def test_a_local_import_that_may_not_have_happened_is_not_used():
    text = "def main():\n    if x:\n        import torch\n    model = f()\n"
    assert patched(text, insert(text, "model = f()")).startswith("import torch as _torch\n\n\ndef main")


def test_a_taken_name_is_left_alone():
    text = "torch = 1\n_torch = 2\nmodel = f()\n"
    after = patched(text, insert(text, "model = f()"))
    assert after.startswith("import torch as _torch2\n\ntorch = 1\n")


def test_an_import_below_the_place_is_not_used():
    text = "model = f()\nimport torch\n"
    assert patched(text, insert(text, "model = f()")) == f"import torch\n\nmodel = f()\n{CHANNELS_LAST}\nimport torch\n"


def test_global_names_are_followed():
    text = "def load():\n    global torch\n    import torch\n\ndef main():\n    model = f()\n"
    assert patched(text, insert(text, "model = f()")).startswith("import torch\n\ndef load")
    text = "import torch\ndef load():\n    global torch\n    torch = 5\ndef main():\n    model = f()\n"
    assert "memory_format=_torch.channels_last" in patched(text, insert(text, "model = f()"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""Doc."""\nMODEL', '"""Doc."""\n\nimport torch\nMODEL'),
        ('"""Doc."""\n\nMODEL', '"""Doc."""\n\nimport torch\n\nMODEL'),
        ('"""Doc."""; from __future__ import annotations; MODEL', None),
        ("from __future__ import annotations\n\nMODEL", "from __future__ import annotations\nimport torch\n\nMODEL"),
        ("#!/usr/bin/python\n# coding: utf-8\n\nMODEL", "#!/usr/bin/python\n# coding: utf-8\n\nimport torch\n\nMODEL"),
        ("#!/usr/bin/python\nMODEL", "#!/usr/bin/python\nimport torch\n\nMODEL"),
        ("# license\n\n# model\nMODEL", "# license\n\nimport torch\n\n# model\nMODEL"),
        (
            "import os\nfrom a import (\n    b,\n)  # c\nMODEL",
            "import os\nfrom a import (\n    b,\n)  # c\nimport torch\nMODEL",
        ),
        ("import os; MODEL", "import torch\n\nimport os; MODEL"),
    ],
)
def test_a_new_import_goes_behind_the_leading_ones(before, after):
    text = before.replace("MODEL", "model = f()\n")
    result = patched(text, insert(text, "model = f()", "g(torch.x)"))
    compile(result, "x", "exec")
    if after is not None and ";" not in before:
        assert result == after.replace("MODEL", "model = f()\ng(torch.x)\n")


def test_a_new_import_stays_out_of_a_block_around_the_leading_ones():
    text = "import torch.nn as nn\nx = 1\n\ndef f():\n    model = g()\n"
    edits = [wrap(text, "import torch.nn as nn", "x = 1", item="other()"), insert(text, "model = g()")]
    assert patched(text, *edits).startswith("import torch\nwith other():\n    import torch.nn as nn\n    x = 1\n")


def test_imports_that_no_code_uses_are_not_added():
    text = "model = f()\n"
    assert patched(text, insert(text, "model = f()", "model.eval()")) == "model = f()\nmodel.eval()\n"


def test_replacements_resolve_their_imports():
    text = "from torch import no_grad\nwith no_grad():\n    y = 1\n"
    after = patched(text, replace(text, "no_grad()", "torch.inference_mode()", ("torch",)))
    assert after == "from torch import no_grad\nimport torch\nwith torch.inference_mode():\n    y = 1\n"


def test_code_over_several_lines_resolves_its_imports():
    text = "import torch as t\ny = (\n    t.randn(3)\n    .cuda()\n)\n"
    span = at(text, "t.randn(3)", ".cuda()")
    edit = Replace(at=span, code="torch.ones(3)\n    .sum()", reason="why", imports=("torch",))
    assert patched(text, edit) == "import torch as t\ny = (\n    t.ones(3)\n    .sum()\n)\n"


# --- style and bytes ------------------------------------------------------------------------------------------------


def test_tabs_and_small_indents_are_kept():
    for unit in ("\t", "  "):
        text = f"import torch\ndef f():\n{unit}y = model(1)\n"
        after = patched(text, wrap(text, "y = model(1)"))
        assert after == f"import torch\ndef f():\n{unit}with torch.inference_mode():\n{unit * 2}y = model(1)\n"


def test_the_quotes_of_the_file_are_used():
    text = "import torch\na = 'x'\ny = model(a)\n"
    assert "torch.autocast('cpu'," in patched(text, wrap(text, "y = model(a)", item=AUTOCAST))
    text = text.replace("a = 'x'", "a = 'x' + \"y\"")
    assert 'torch.autocast("cpu",' in patched(text, wrap(text, "y = model(a)", item=AUTOCAST))


@pytest.mark.parametrize(
    "data",
    [
        b"import torch\r\ndef f():\r\n\tmodel = g()\r\n\treturn model\r\n",
        b"\xef\xbb\xbfmodel = g()\r\nx = '''a\r\n\r\nb'''",
        b"# -*- coding: latin-1 -*-\nx = '\xe9\xe8'; model = g(); y = '\xe9'\n",
        b"\x0c\nimport os\n\x0c\ndef f():\n\x0c    model = g()\n",
        b"import os\rmodel = g()\rx = 1\r",
        b"if x:\n    model = g()",
    ],
)
def test_bytes_outside_the_edits_stay(data):
    source = Source.decode(data, Path("x.py"))
    edits = [insert(source.text, "model = g()"), wrap(source.text, "model = g()", item=AUTOCAST)]
    outcome = apply(source, [Authored("a", 1, edit) for edit in edits])
    assert isinstance(outcome, Patch)
    result = outcome.after.encode()
    compile(result, "x", "exec")
    added = b"channels_last", b"autocast", b"import torch"
    newline = b"\r\n" if b"\r\n" in data else b"\r" if b"\r" in data else b"\n"

    def kept(content: bytes) -> bytes:
        lines = content.removeprefix(b"\xef\xbb\xbf").split(newline)
        return b"|".join(b"" if any(word in line for word in added) else line.strip(b" \t\f") for line in lines)

    old, new = kept(data).replace(b"; ", b"|"), kept(result)
    assert [line for line in new.split(b"|") if line] == [line for line in old.split(b"|") if line]
    assert result.count(b"\x0c") == data.count(b"\x0c")
    assert result.count(b"\r") - result.count(b"\r\n") >= data.count(b"\r") - data.count(b"\r\n")


def test_a_form_feed_stays_in_front_of_a_wrapped_statement():
    text = "import torch\n\x0cy = model(x)\n"
    after = patched(text, wrap(text, "y = model(x)"))
    assert after == "import torch\n\x0cwith torch.inference_mode():\n    y = model(x)\n"


def test_a_file_that_black_laid_out_stays_so(tmp_path):
    black = pytest.importorskip("black")
    (tmp_path / "pyproject.toml").write_text('[tool.black]\nline-length = 60\ntarget-version = ["py311"]\n')
    text = '"""Doc."""\n\n\ndef f(x):\n    y = model(x, "some longer text", attention_mask=x)\n    return y\n'
    edits = [wrap(text, "y = model", "mask=x)"), wrap(text, "y = model", "mask=x)", item=AUTOCAST)]
    after = patch(text, *edits, path=tmp_path / "x.py").after.text
    assert "import torch\n\n\ndef f" in after
    assert (
        black.format_str(after, mode=black.Mode(line_length=60, target_versions={black.TargetVersion.PY311})) == after
    )


def test_a_file_that_black_did_not_lay_out_is_left_as_it_is():
    text = "import torch\ny = model( x,'some longer text' )\n"
    assert "    y = model( x,'some longer text' )\n" in patched(text, wrap(text, "y = model", "' )"))


# --- outcomes -------------------------------------------------------------------------------------------------------


def test_no_edits_make_an_empty_patch():
    result = patch("x = 1\n")
    assert result.empty
    assert result.changes == ()
    assert result.diff(Path.cwd()) == b""


def test_changes_come_in_the_order_of_the_text(tmp_path):
    text = "import torch\nmodel = f()\ny = model(x)\n"
    edits = [("b", 2, wrap(text, "y = model(x)")), ("a", 1, insert(text, "model = f()"))]
    result = patch(text, *edits, path=tmp_path / "sub dir" / "x.py")
    assert [(change.line, change.author) for change in result.changes] == [(2, "a"), (3, "b")]
    assert result.diff(tmp_path).startswith(b"diff --git a/sub dir/x.py b/sub dir/x.py\n")


def test_a_broken_file_is_unpatchable():
    text = "x = 1\n"
    for broken, why in (("x = (\n", "was never closed"), (f"{text}return 2\n", "'return' outside function")):
        outcome = apply(Source.from_text(broken), [Authored("a", 1, replace(text, "1", "2"))])
        assert isinstance(outcome, Unpatchable)
        assert why in outcome.reason


def test_characters_that_the_encoding_lacks_are_refused():
    source = Source.decode(b"# coding: latin-1\nx = 7\n", Path("x.py"))
    edit = Replace(at=at(source.text, "7"), code='"→"', reason="why")
    outcome = apply(source, [Authored("a", 1, edit)])
    assert isinstance(outcome, Unpatchable)
    assert "iso-8859-1" in outcome.reason


@pytest.mark.parametrize("new", ["f(", "x = 1", "a b"])
def test_code_that_is_no_expression_is_a_defect(new):
    text = "y = 1\n"
    with pytest.raises(InternalError, match="not a Python expression"):
        patch(text, replace(text, "1", new))


def test_a_place_that_is_none_is_a_defect():
    text = "y = 1 + 2\n"
    for edit in (replace(text, "1 +", "2"), insert(text, "y = 1"), add(text, "1 + 2")):
        with pytest.raises(InternalError, match=r"script\.py"):
            patch(text, edit)


def test_a_patch_that_would_not_be_python_is_a_defect():
    text = "def f():\n    return 1\n"
    with pytest.raises(InternalError, match="would not be Python"):
        patch(text, replace(text, "1", "await x"))


def test_a_second_parser_notices_a_statement_that_slipped_into_a_block():
    before = Source.from_text("if ready:\n    start()\nstop()\n")
    after = before.with_text("if ready:\n    start()\n    stop()\n")
    assert moved_statement(before, after, ()) == "stop()"


def test_a_second_parser_notices_a_lost_statement_and_accepts_an_added_one():
    before = Source.from_text("a = 1\nb = 2\n")
    assert moved_statement(before, before.with_text("a = 1\n"), ()) == "b = 2"
    assert moved_statement(before, before.with_text("a = 1\nc = 3\nb = 2\n"), ()) == ""
    assert moved_statement(before, before.with_text("with x:\n    a = 1\nb = 2\n"), {0}) == ""


def test_a_model_that_is_called_like_a_module_is_left_alone():
    """`torch = torch.to(memory_format=torch.channels_last)` would mean the model three times."""
    text = "from torch.nn import Conv2d\ntorch = Conv2d(3, 8, 3)\n"
    code = "torch = torch.to(memory_format=torch.channels_last)"
    edit = InsertAfter(at=at(text, "torch = Conv2d(3, 8, 3)"), code=code, reason="why")
    outcome = apply(Source.from_text(text), [Authored("feature", 1, edit)])
    assert isinstance(outcome, Unpatchable)
    assert "something else torch" in outcome.reason


def test_an_import_goes_behind_a_docstring_that_shares_its_line():
    text = "'Doc.'; import torch; model = f()\nx = 1\n"
    after = patched(text, accelerate(text, "model = f()", engine="torchscript"))
    assert after.startswith(
        "'Doc.'; import neural_coder.runtime; import torch; model = f()\nmodel = neural_coder.runtime"
    )


def test_a_file_that_nests_too_deeply_to_be_checked_is_left_alone():
    text = "import torch\nmodel = f()\nx = a" + ".b" * 2900 + "\n"
    outcome = apply(Source.from_text(text), [Authored("feature", 1, insert(text, "model = f()"))])
    assert isinstance(outcome, Unpatchable)
    assert "nested too deeply" in outcome.reason
