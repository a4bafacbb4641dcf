"""What a patch may change in a text, from the spans of its edits alone: all else must be there as it was."""

from __future__ import annotations

import ast
import bisect
import io
import itertools
import re
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from neural_coder.edits import Accelerate, AddArgument, Edit, InsertAfter, Replace, Wrap
from neural_coder.records import Span

_LAYOUT = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_PUNCTUATION = frozenset(["with", "pass", "import", "as", "async", ",", ";", ":", "(", ")", ".", "="])
_RUNTIME = "neural_coder.runtime.accelerate(engine, precision, calibration)"
_EAGER = "torch"
"""The engine that is written where no edit names one."""


class Token(NamedTuple):
    """A token with its place in the text."""

    kind: int
    text: str
    start: int
    end: int


class Text:
    """A text, its tokens and its tree."""

    def __init__(self, text: str) -> None:
        self.text = text
        breaks = list(re.finditer(r"\r\n|\r|\n", text))
        self.starts = [0, *(match.end() for match in breaks)]
        self.newlines = {match.group() for match in breaks}

    @cached_property
    def tree(self) -> ast.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(self.text)

    @cached_property
    def tokens(self) -> list[Token]:
        # One newline of one character keeps all columns; lines are looked up by their number.
        plain = self.text.replace("\r\n", "\n").replace("\r", "\n")
        found = []
        for kind, text, (row, column), (end_row, end_column), _ in tokenize.generate_tokens(
            io.StringIO(plain).readline
        ):
            if kind not in _LAYOUT:
                start, end = self.offset(row, column), self.offset(end_row, end_column)
                found.append(Token(kind, text, start, end))
        return found

    def offset(self, line: int, column: int) -> int:
        return self.starts[min(line, len(self.starts)) - 1] + column

    def line_of(self, offset: int) -> int:
        return bisect.bisect_right(self.starts, offset)

    def range_of(self, span: Span) -> tuple[int, int]:
        return self.offset(span.line, span.column), self.offset(span.end_line, span.end_column)

    def line_range(self, first: int, last: int) -> tuple[int, int]:
        """From the start of one line to the end of another, its newline included."""
        return self.starts[first - 1], self.starts[last] if last < len(self.starts) else len(self.text)

    @cached_property
    def logical_lines(self) -> list[tuple[int, int]]:
        """First and last lines of statements, those that share lines together; blocks by their headers."""
        found: list[tuple[int, int]] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.stmt):
                first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
                body = getattr(node, "body", None) or getattr(node, "cases", None)
                inner = body[0] if isinstance(body, list) else None
                start = getattr(getattr(inner, "pattern", inner), "lineno", None)
                last = (node.end_lineno or first) if start is None else max(first, start)
                found.append((first, last))
        return sorted(found)

    @cached_property
    def inside_strings(self) -> set[int]:
        """Lines that begin inside a string."""
        return {
            line
            for token in self.tokens
            for line in range(self.line_of(token.start) + 1, self.line_of(token.end) + 1)
            if token.kind != tokenize.OP
        }


def place(edit: Edit) -> Span:
    """Where an edit is to be made."""
    return edit.call if isinstance(edit, AddArgument) else edit.at


# --- what must stay -------------------------------------------------------------------------------------------------


def kept_fragments(text: Text, edits: Sequence[Edit], *, loose: bool = False) -> Iterator[str]:
    """The pieces of a text that must be in the patched text, in this order.

    Args:
        text: The original.
        edits: What was asked for.
        loose: The lines of edited statements may be laid out anew; only their tokens must be there.
    """
    removed = sorted(_removed(text, edits))
    cuts = set(_import_places(text))
    shredded: list[tuple[int, int]] = []
    for edit in edits:
        start, end = text.range_of(place(edit))
        lines = _lines_around(text, place(edit))
        if isinstance(edit, AddArgument):
            shredded.append((start, end))
        elif isinstance(edit, Wrap):
            last = _last_comment(text, lines[1])
            cuts.update(text.starts[line - 1] for line in range(lines[0], last + 1) if line not in text.inside_strings)
        elif isinstance(edit, Replace) and _holds_comment(text, start, end):
            cuts.add(text.starts[lines[0] - 1])  # the comment goes above the statement
        cuts.update((start, end, text.line_range(*lines)[1]))
        if isinstance(edit, InsertAfter | Accelerate):
            cuts.add(text.line_range(lines[0], _last_comment(text, lines[1]))[1])
            cuts.update(_comment_lines(text, lines[1]))
        if loose or _shares_lines(text, lines):
            shredded.append(text.line_range(*lines))
    cuts.update(offset for token in text.tokens for offset in _edges(token, shredded))
    for start, end in removed:
        cuts.update((start, end))
    yield from _pieces(text, sorted(cuts | {0, len(text.text)}), removed, shredded)


def _pieces(
    text: Text, cuts: list[int], removed: list[tuple[int, int]], shredded: list[tuple[int, int]]
) -> Iterator[str]:
    for start, end in itertools.pairwise(cuts):
        if any(first <= start and end <= last for first, last in removed):
            continue
        piece = text.text[start:end].strip(" \t\f\r\n")
        if any(first <= start and end <= last for first, last in shredded):
            piece = piece.rstrip("\\ \t\r\n") if piece.strip("\\;,() \t\r\n") else ""
        if piece.strip(";"):
            yield piece


def _holds_comment(text: Text, start: int, end: int) -> bool:
    return any(token.kind == tokenize.COMMENT and start <= token.start < end for token in text.tokens)


def _edges(token: Token, ranges: list[tuple[int, int]]) -> tuple[int, ...]:
    inside = any(start <= token.start and token.end <= end for start, end in ranges)
    return (token.start, token.end) if inside else ()


def _removed(text: Text, edits: Sequence[Edit]) -> Iterator[tuple[int, int]]:
    """What edits replace; a statement that is taken out goes with the comments behind it, which move."""
    for edit in edits:
        if isinstance(edit, Replace):
            start, end = text.range_of(edit.at)
            line_end = text.line_range(edit.at.end_line, edit.at.end_line)[1]
            rest = text.text[end:line_end].lstrip(" \t;")
            yield start, line_end if not edit.code.strip() and rest.startswith("#") else end


def _import_places(text: Text) -> Iterator[int]:
    """Where an import may go: the lines down to the first statement that is no import, and the ends of statements."""
    for number, statement in enumerate(text.tree.body):
        first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", []))])
        docstring = number == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not isinstance(statement, ast.Import | ast.ImportFrom) and not docstring:
            yield from (text.starts[line - 1] for line in range(1, first + 1) if line not in text.inside_strings)
            return
        last = statement.end_lineno or first
        content = text.text[text.starts[last - 1] : text.line_range(last, last)[1]]
        yield text.starts[last - 1] + len(content.encode()[: statement.end_col_offset].decode())
    yield from (start for line, start in enumerate(text.starts, 1) if line not in text.inside_strings)


def _lines_around(text: Text, span: Span) -> tuple[int, int]:
    """First and last line of the logical lines that a span begins and ends on."""
    first, last = span.line, span.end_line
    for start, end in text.logical_lines:
        if start <= span.line <= end:
            first, last = min(first, start), max(last, end)
        if start <= span.end_line <= end:
            last = max(last, end)
    return first, last


def _shares_lines(text: Text, lines: tuple[int, int]) -> bool:
    """Whether several statements stand on the lines at the edges of a span."""
    touching = [each for each in text.logical_lines if each[0] in lines or each[1] in lines]
    return any(
        one[0] <= other[1] and other[0] <= one[1]
        for index, one in enumerate(touching)
        for other in touching[index + 1 :]
    )


def _last_comment(text: Text, line: int) -> int:
    """The last of the comment and blank lines behind a line."""
    while line < len(text.starts) and _is_comment(text, line + 1):
        line += 1
    return line


def _is_comment(text: Text, line: int) -> bool:
    content = text.text[slice(*text.line_range(line, line))].strip()
    return not content or content.startswith("#")


def _comment_lines(text: Text, line: int) -> Iterator[int]:
    yield from (text.starts[each - 1] for each in range(line + 1, _last_comment(text, line) + 1))


# --- what may be new ------------------------------------------------------------------------------------------------


def strange_tokens(before: Text, after: Text, edits: Sequence[Edit]) -> Iterator[str]:
    """Tokens that a patch puts in or takes out although no edit says so."""
    ranges = [text_range for text_range in _removed(before, edits)]
    old = Counter(_value(token) for token in before.tokens)
    new = Counter(_value(token) for token in after.tokens)
    replaced = Counter(
        _value(token) for token in before.tokens if any(a <= token.start and token.end <= b for a, b in ranges)
    )
    known = _words(edits) | _PUNCTUATION | _imported(after.tree)
    yield from sorted(token for token in new - old if token not in known)
    yield from sorted(token for token in old - new - replaced if token not in {";", ",", "(", ")"})


def _value(token: Token) -> str:
    """A token's text; of a plain string what it means, whatever its quotes."""
    if token.kind == tokenize.STRING and token.text[0] in "'\"" and "\\" not in token.text:
        return token.text.strip("'\"")
    return token.text


def _words(edits: Iterable[Edit]) -> set[str]:
    """The tokens of all code that the edits hold."""
    found = set()
    for edit in edits:
        for code in _code(edit):
            tokens = tokenize.generate_tokens(io.StringIO(f"({code}\n)").readline)
            found.update(_value(Token(token.type, token.string, 0, 0)) for token in tokens)
        if isinstance(edit, Accelerate):
            found |= {edit.engine or _EAGER, edit.precision or "", str(edit.calibration)}
    return found


def _code(edit: Edit) -> Iterator[str]:
    match edit:
        case InsertAfter() | Replace():
            yield edit.code
        case Wrap():
            yield edit.item
        case AddArgument():
            yield f"{edit.keyword}={edit.value}"
        case Accelerate():
            yield from (edit.name, edit.alone, _RUNTIME)


def _imported(tree: ast.Module) -> set[str]:
    """Names that imports bind: inserted code goes by them."""
    names = (alias for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names)
    return {alias.asname or alias.name.partition(".")[0] for alias in names} | {"torch", "neural_coder", "runtime"}
