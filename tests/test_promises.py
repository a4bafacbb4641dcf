"""The promises of every patch, on generated programs with random edits.

A patch parses; reverts to the original bytes through git's own rules; leaves all lines alone that no edit names; keeps
every comment and string; and is not repeated by a second pass.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from promises import reverted

from neural_coder.diff import unified_diff
from neural_coder.edits import AddArgument, Edit, InsertAfter, Replace, Wrap
from neural_coder.patching import Authored, Conflict, Patch, apply
from neural_coder.records import Span
from neural_coder.source import Source

UNITS = ["    ", "  ", "\t"]
SIMPLE = [
    "x = 1",
    "model = Net(3)",
    "y = model(x)",
    "é = model(x, 'ü')",
    'print(f"{x}\\n")',
    "x = 1; y = model(x); z = 2",
    "y = model(x);",
    "y = (model(x)  # inner\n@  + 1)",
    "y = model(\n@+x,\n@+**kw,\n@)",
    'text = """a\n  b # no comment\n\tc"""',
    "y = model(f'''{x}\n''', x)",
    "y = model(x) \\\n@++ 1",
    "del x",
    "assert model(x), 'no'",
]
HEADERS = [
    "if x:",
    "for i in range(3):",
    "while x:",
    "with open(x) as f:",
    "def f(x):",
    "class A:",
    "async def g(torch):",
]
SUITES = ["if x: y = model(x)", "for i in x: a = 1; y = model(i); b = 2", "class B: pass"]
TOPS = [
    "",
    '"""Doc."""\n',
    "import torch\n",
    "import torch as t\n",
    "import torch.nn as nn\n",
    "# coding: utf-8\n\n# about\n",
    "from __future__ import annotations\nimport os\n",
    "try:\n    import torch\nexcept ImportError:\n    torch = None\n",
    "torch = 5\n",
]
ITEMS = ["torch.inference_mode()", 'torch.autocast("cpu", dtype=torch.bfloat16)', "other()"]
INSERTED = ["model = model.to(memory_format=torch.channels_last)", "model.eval()", "if torch:\n    model.compile()"]


@st.composite
def blocks(draw: st.DrawFn, indent: str, unit: str, depth: int) -> list[str]:
    """Lines of a block of statements with comments and blank lines between them."""
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.integers(0, 9))
        if kind == 0:
            lines.append(draw(st.sampled_from(["", f"{indent}# note", "# far left", f"{indent}\x0c"])))
        if kind <= 1 and depth < 3:
            lines.append(indent + draw(st.sampled_from(HEADERS)))
            lines += draw(blocks(indent + unit, unit, depth + 1))
            lines += draw(st.sampled_from([[], [f"{indent}{unit}# end"]]))
        elif kind == 2:
            lines.append(indent + draw(st.sampled_from(SUITES)))
        else:
            statement = draw(st.sampled_from(SIMPLE)).replace("@+", indent + unit).replace("@", indent)
            comment = draw(st.sampled_from(["", "  # why"])) if "\\\n" not in statement else ""
            lines.append(indent + statement + comment)
    return lines


@st.composite
def programs(draw: st.DrawFn) -> Source:
    """Small programs in all the ways in which people lay them out."""
    unit = draw(st.sampled_from(UNITS))
    text = draw(st.sampled_from(TOPS)) + "\n".join(draw(blocks("", unit, 0))) + draw(st.sampled_from(["", "\n"]))
    text = text.replace("\n", draw(st.sampled_from(["\n", "\r\n", "\n", "\r"])))
    return Source.from_text(draw(st.sampled_from(["", "\ufeff"])) + text)


def spans(source: Source) -> tuple[list[list[Span]], list[Span], list[Span]]:
    """Spans of the statements of each block, of the calls, and of the expressions that may be replaced."""
    text = source.text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")

    def span(node: ast.stmt | ast.expr) -> Span:
        def column(line: int, offset: int | None) -> int:
            return len(lines[line - 1].encode()[:offset].decode())

        end = node.end_lineno or 0
        return Span(
            line=node.lineno,
            column=column(node.lineno, node.col_offset),
            end_line=end,
            end_column=column(end, node.end_col_offset),
        )

    tree = ast.parse(text)
    in_strings = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for inner in ast.walk(node)}
    nodes = [node for node in ast.walk(tree) if id(node) not in in_strings]
    leading = [node for node in tree.body if isinstance(node, ast.ImportFrom) or ast.get_docstring(tree) is not None]
    skipped = {id(leading[0])} if leading else set()
    found = [getattr(node, "body", None) for node in nodes]
    blocks_ = [[span(each) for each in block if id(each) not in skipped] for block in found if isinstance(block, list)]
    calls = [span(node) for node in nodes if isinstance(node, ast.Call)]
    loaded = [node for node in nodes if isinstance(node, ast.Call | ast.BinOp)]
    return [block for block in blocks_ if block], calls, [span(node) for node in loaded]


@st.composite
def programs_with_edits(draw: st.DrawFn) -> tuple[Source, list[Authored]]:
    """Programs with random edits of all kinds."""
    source = draw(programs())
    bodies, calls, expressions = spans(source)
    edits: list[Edit] = []
    for _ in range(draw(st.integers(1, 5))):
        body = draw(st.sampled_from(bodies))
        first = draw(st.integers(0, len(body) - 1))
        last = draw(st.integers(first, len(body) - 1))
        kind = draw(st.integers(0, 5))
        if kind <= 1:
            at = Span(
                line=body[first].line,
                column=body[first].column,
                end_line=body[last].end_line,
                end_column=body[last].end_column,
            )
            edits.append(Wrap(at=at, item=draw(st.sampled_from(ITEMS)), reason="why"))
        elif kind <= 3:
            edits.append(InsertAfter(at=body[first], code=draw(st.sampled_from(INSERTED)), reason="why"))
        elif kind == 4 and calls:
            call = draw(st.sampled_from(calls))
            edits.append(AddArgument(call=call, keyword=draw(st.sampled_from("pq")), value="'v'", reason="why"))
        elif expressions:
            at = draw(st.sampled_from(expressions))
            edits.append(Replace(at=at, code=draw(st.sampled_from(["new", "a if b else c", "1", "x"])), reason="why"))
    authors = [draw(st.sampled_from("ab")) for _ in edits]
    return source, [Authored(author, ord(author), edit) for author, edit in zip(authors, edits, strict=True)]


GENEROUS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def comments(text: str) -> Counter[str]:
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    tokens = tokenize.generate_tokens(io.StringIO(plain).readline)
    return Counter(token.string for token in tokens if token.type == tokenize.COMMENT)


def long_strings(text: str) -> Counter[object]:
    nodes = ast.walk(ast.parse(text))
    values = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return Counter(value for value in values if "\n" in value)


def named_lines(edits: Sequence[Authored]) -> set[int]:
    places = [each.edit.call if isinstance(each.edit, AddArgument) else each.edit.at for each in edits]
    return {line for at in places for line in range(at.line, at.end_line + 1)}


@GENEROUS
@given(programs_with_edits())
def test_a_patch_is_python_and_keeps_what_no_edit_names(case):
    source, edits = case
    outcome = apply(source, edits)
    if isinstance(outcome, Conflict):
        assert outcome.reason
        return
    assert isinstance(outcome, Patch), outcome
    before, after = source.text, outcome.after.text
    compile(after, "x", "exec")
    assert not comments(before) - comments(after)
    if not any(isinstance(each.edit, Replace) for each in edits):
        assert not long_strings(before) - long_strings(after)
    named = named_lines(edits)
    old, new = before.encode().splitlines(), after.encode().splitlines()
    unnamed = [line for number, line in enumerate(old, 1) if number not in named and not _movable(line)]
    left = iter(new)
    assert all(line in left for line in unnamed), "they stand in the patched file, unchanged and in order"


def _movable(line: bytes) -> bool:
    """Blank lines and comments at the end of a block may be indented with it."""
    return not line.strip() or line.strip().startswith(b"#")


@GENEROUS
@given(programs_with_edits())
def test_a_patch_reverts_to_the_original_bytes(case):
    source, edits = case
    outcome = apply(source, edits)
    if isinstance(outcome, Patch):
        before, after = source.encode(), outcome.after.encode()
        assert reverted(unified_diff("x.py", before, after), after) == before
        assert outcome.empty == (before == after)
        assert bool(outcome.changes) or outcome.empty


@GENEROUS
@given(programs(), st.data())
def test_a_second_pass_changes_nothing(source, data):
    """The same statement, found again in the patched file, gets nothing a second time."""
    bodies, calls, _ = spans(source)
    body = data.draw(st.sampled_from(bodies))
    at = data.draw(st.sampled_from([span for span in body if span in originals(source)] or originals(source)))
    kind = data.draw(st.integers(0, 2))
    if kind == 0:
        code = data.draw(st.sampled_from(INSERTED[:2]))
        edits: list[Edit] = [InsertAfter(at=at, code=code, reason="why")]
    elif kind == 1 or not calls:
        chosen = data.draw(st.lists(st.sampled_from(ITEMS), min_size=1, unique=True))
        edits = [Wrap(at=at, item=item, reason="why") for item in chosen]
    else:
        edits = [AddArgument(call=data.draw(st.sampled_from(calls)), keyword="pin", value="True", reason="why")]
    first = apply(source, [Authored("a", 1, edit) for edit in edits])
    assert isinstance(first, Patch), first
    again = [Authored("a", 1, moved(edit, source, first.after)) for edit in edits]
    second = apply(first.after, again)
    assert isinstance(second, Patch), second
    assert second.empty, second.after.text


def moved(edit: Edit, before: Source, after: Source) -> Edit:
    """The edit for the patched file: it names the place that comes from the same one of the original."""
    if isinstance(edit, AddArgument):
        old, new = spans(before)[1], spans(after)[1]
        return AddArgument(call=new[old.index(edit.call)], keyword=edit.keyword, value=edit.value, reason="why")
    assert isinstance(edit, InsertAfter | Wrap)
    number = originals(before).index(edit.at)
    code = edit.code if isinstance(edit, InsertAfter) else ""
    place = originals(after, code)[number]
    if isinstance(edit, InsertAfter):
        return InsertAfter(at=place, code=edit.code, reason="why")
    return Wrap(at=place, item=edit.item, reason="why")


def originals(source: Source, inserted: str = "") -> list[Span]:
    """Spans of all statements in the order of the text, without those that a patch puts in."""
    text = source.text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    new = inserted.partition("(")[0]
    found: list[Span] = []

    def column(line: int, offset: int | None) -> int:
        return len(lines[line - 1].encode()[:offset].decode())

    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt):
            code = ast.unparse(node)
            ours = isinstance(node, ast.With) and not code.startswith("with open")
            imported = code.startswith("import torch")
            if not ours and not imported and not (new and code.startswith(new)):
                end = node.end_lineno or 0
                found.append(
                    Span(
                        line=node.lineno,
                        column=column(node.lineno, node.col_offset),
                        end_line=end,
                        end_column=column(end, node.end_col_offset),
                    )
                )
    return sorted(found, key=lambda span: (span.line, span.column))
