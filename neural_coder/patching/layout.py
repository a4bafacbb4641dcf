r"""A parsed file whose nodes know their place in the text: offsets, blocks, lines, tokens and comments.

Everything is an offset into the text as it is, so that what no edit names stays as it is, byte for byte. Lines are
those of Python's tokenizer (`\n`, `\r\n`, a lone `\r`), not those of `str.splitlines`.
"""

from __future__ import annotations

import ast
import io
import re
import token as tokens
import tokenize
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from neural_coder.parsing import quiet
from neural_coder.records import Span

_NEWLINE = re.compile(r"\r\n|\r|\n")
_CONTEXT = re.compile(r", ctx=(?:Load|Store|Del)\(\)")
_LAYOUT_TOKENS = {tokens.NL, tokens.INDENT, tokens.DEDENT, tokens.ENDMARKER, tokens.COMMENT}
_STRING_STARTS = {getattr(tokens, name) for name in ("FSTRING_START", "TSTRING_START") if hasattr(tokens, name)}
_STRING_ENDS = {getattr(tokens, name) for name in ("FSTRING_END", "TSTRING_END") if hasattr(tokens, name)}
COMPOUND = (
    ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match, ast.FunctionDef,
    ast.AsyncFunctionDef, ast.ClassDef, *([ast.TryStar] if hasattr(ast, "TryStar") else []),
)  # fmt: skip


class Token(NamedTuple):
    """A token that means something to the parser (or a comment), by offsets."""

    kind: int
    text: str
    start: int
    end: int


class Home(NamedTuple):
    """Where a statement lives: a list of statements, its index there, and the node that holds the list."""

    block: list[ast.stmt]
    position: int
    parent: ast.AST


def fingerprint(node: ast.AST) -> str:
    """A text that is the same for equal code, however it is laid out."""
    return _CONTEXT.sub("", ast.dump(node))


def parse(text: str) -> ast.Module:
    """Parse Python without the warnings that odd escapes in users' strings cause.

    Raises:
        SyntaxError: It is not Python.
    """
    with quiet():
        return ast.parse(text)


class Layout:
    """One file: its text, its tree, and how the two belong together."""

    def __init__(self, text: str) -> None:
        """Parse a text.

        Raises:
            SyntaxError: It is not Python.
        """
        self.text = text
        self.tree = parse(text)
        breaks = list(_NEWLINE.finditer(text))
        self.starts = [0, *(match.end() for match in breaks)]
        self._content_ends = [*(match.start() for match in breaks), len(text)]
        self._newlines = [match.group() for match in breaks]
        self._columns: dict[int, str] = {}
        self._parents: dict[ast.AST, ast.AST] = {}
        self._homes: dict[ast.stmt, Home] = {}
        self._statements: dict[int, ast.stmt] = {}
        self._expressions: dict[Span, ast.expr] = {}
        for node in ast.walk(self.tree):
            self._register(node)

    def _register(self, node: ast.AST) -> None:
        for _, value in ast.iter_fields(node):
            children = value if isinstance(value, list) else [value]
            for index, child in enumerate(children):
                if isinstance(child, ast.stmt):
                    self._homes[child] = Home(children, index, node)
                    self._statements[self._offset(child.lineno, child.col_offset)] = child
                if isinstance(child, ast.AST):
                    self._parents.setdefault(child, node)
        if isinstance(node, ast.expr):
            # Up to Python 3.11 the parts of an f-string carry the position of the whole; the walk meets that one first.
            self._expressions.setdefault(self.span(node), node)

    # --- positions ---------------------------------------------------------------------------------------------------

    def _offset(self, line: int, column_in_bytes: int) -> int:
        """From what `ast` counts (bytes of UTF-8) to characters."""
        start = self.starts[line - 1]
        content = self._columns.get(line)
        if content is None:
            content = self._columns[line] = self.text[start : self._content_ends[line - 1]]
        if content.isascii():
            return start + column_in_bytes
        return start + len(content.encode("utf-8", "surrogatepass")[:column_in_bytes].decode("utf-8", "replace"))

    def start(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        """Offset of a node's first character, decorators left out."""
        return self._offset(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt) -> int:
        """Offset just behind a node's last character."""
        return self._offset(node.end_lineno or node.lineno, node.end_col_offset or 0)

    def outer_start(self, statement: ast.stmt) -> int:
        """Offset of a statement's first character, decorators included."""
        decorators = getattr(statement, "decorator_list", None)
        return self.token_before(self.start(decorators[0]), "@").start if decorators else self.start(statement)

    def span(self, node: ast.expr | ast.stmt) -> Span:
        """A node's place as records give it."""
        return self._span(self.start(node), self.end(node))

    def _span(self, start: int, end: int) -> Span:
        line, end_line = self.line_at(start), self.line_at(end)
        return Span(
            line=line,
            column=start - self.starts[line - 1],
            end_line=end_line,
            end_column=end - self.starts[end_line - 1],
        )

    def line_at(self, offset: int) -> int:
        """The line (from 1) that holds an offset."""
        return bisect_right(self.starts, offset)

    def line_start(self, line: int) -> int:
        """Where a line's indentation begins: behind the form feeds that may stand before it."""
        start = self.starts[line - 1]
        blank = re.compile(r"[ \t\f]*").match(self.text, start)
        feed = self.text.rfind("\f", start, blank.end() if blank else start)
        return max(start, feed + 1)

    def line_end(self, line: int) -> int:
        """Where a line's content ends: before its newline."""
        return self._content_ends[line - 1]

    def next_line(self, line: int) -> int:
        """Where the following line begins, or the end of the text."""
        return self.starts[line] if line < len(self.starts) else len(self.text)

    def blank(self, line: int) -> bool:
        """Whether a line holds nothing but white space."""
        return not self.text[self.starts[line - 1] : self.line_end(line)].strip()

    # --- style -------------------------------------------------------------------------------------------------------

    @cached_property
    def newline(self) -> str:
        """The newline that most lines end with."""
        return Counter(self._newlines).most_common(1)[0][0] if self._newlines else "\n"

    def newline_of(self, line: int) -> str:
        """The newline at the end of a line; at the end of the text, the file's usual one."""
        return self._newlines[line - 1] if line <= len(self._newlines) else self.newline

    def last_line(self, line: int) -> bool:
        """Whether a line is the last one and has no newline."""
        return line > len(self._newlines)

    @cached_property
    def unit(self) -> str:
        """One step of indentation, as in most blocks of the file."""
        steps: Counter[str] = Counter()
        for statement, home in self._homes.items():
            if home.position == 0 and isinstance(home.parent, COMPOUND) and self.begins_line(statement):
                outer, inner = self.indent(home.parent), self.indent(statement)
                if inner.startswith(outer) and len(inner) > len(outer):
                    steps[inner[len(outer) :]] += 1
        return steps.most_common(1)[0][0] if steps else "    "

    @cached_property
    def quote(self) -> str:
        """The quote that all plain strings of the file use; empty when it uses both or none."""
        used = {token.text[0] for token in self.tokens if token.kind == tokens.STRING and token.text[0] in "'\""}
        return used.pop() if len(used) == 1 else ""

    def indent(self, statement: ast.stmt) -> str:
        """The white space before the logical line that holds a statement."""
        first = self.logical_line(self.outer_start(statement))
        line_start = self.line_start(self.line_at(first))
        return self.text[line_start:first]

    # --- tokens ------------------------------------------------------------------------------------------------------

    @cached_property
    def _all_tokens(self) -> list[Token]:
        # The tokenizer of Python 3.11 knows no lone `\r`; columns do not change with the kind of newline.
        normal = "".join(
            self.text[start:end] + "\n" for start, end in zip(self.starts, self._content_ends, strict=True)
        )[:-1]
        result = []
        for kind, text, (row, column), (end_row, end_column), _ in tokenize.generate_tokens(
            io.StringIO(normal).readline
        ):
            start = self.starts[min(row, len(self.starts)) - 1] + column
            end = self.starts[min(end_row, len(self.starts)) - 1] + end_column
            result.append(Token(kind, text, start, end))
        return result

    @cached_property
    def tokens(self) -> list[Token]:
        """The tokens that mean something to the parser, the ends of logical lines among them."""
        return [token for token in self._all_tokens if token.kind not in _LAYOUT_TOKENS]

    @cached_property
    def comments(self) -> list[Token]:
        """All comments."""
        return [token for token in self._all_tokens if token.kind == tokens.COMMENT]

    @cached_property
    def _token_starts(self) -> list[int]:
        return [token.start for token in self.tokens]

    def before(self, offset: int) -> Token | None:
        """The last token that begins before an offset."""
        index = bisect_left(self._token_starts, offset)
        return self.tokens[index - 1] if index else None

    def after(self, offset: int) -> Token | None:
        """The first token at or behind an offset."""
        index = bisect_left(self._token_starts, offset)
        return self.tokens[index] if index < len(self.tokens) else None

    def token_before(self, offset: int, text: str) -> Token:
        """The last token with this text that begins before an offset."""
        index = bisect_left(self._token_starts, offset) - 1
        while self.tokens[index].text != text:
            index -= 1
        return self.tokens[index]

    def logical_line(self, offset: int) -> int:
        """Offset of the first token of the logical line that holds an offset."""
        index = bisect_right(self._token_starts, offset) - 1
        while index > 0 and self.tokens[index - 1].kind != tokens.NEWLINE:
            index -= 1
        return self.tokens[index].start

    def bracketed(self, offset: int) -> bool:
        """Whether an offset lies inside brackets, where a newline means nothing."""
        first, depth = self.logical_line(offset), 0
        for index in range(bisect_left(self._token_starts, first), bisect_left(self._token_starts, offset)):
            text = self.tokens[index].text
            depth += (text in ("(", "[", "{")) - (text in (")", "]", "}"))
        return depth > 0

    @cached_property
    def frozen_lines(self) -> frozenset[int]:
        """Lines that begin inside a string: white space there is data."""
        lines: set[int] = set()
        opened: list[int] = []
        for token in self._all_tokens:
            if token.kind == tokens.STRING:
                lines.update(range(self.line_at(token.start) + 1, self.line_at(token.end) + 1))
            elif token.kind in _STRING_STARTS:
                opened.append(token.start)
            elif token.kind in _STRING_ENDS:
                lines.update(range(self.line_at(opened.pop()) + 1, self.line_at(token.end) + 1))
        return frozenset(lines)

    def comments_in(self, start: int, end: int) -> Iterator[Token]:
        """The comments inside a piece of the text."""
        index = bisect_left(self.comments, start, key=lambda comment: comment.start)
        while index < len(self.comments) and self.comments[index].end <= end:
            yield self.comments[index]
            index += 1

    # --- structure ---------------------------------------------------------------------------------------------------

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node around a node."""
        return self._parents.get(node)

    def home(self, statement: ast.stmt) -> Home:
        """The block that a statement lives in."""
        return self._homes[statement]

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """The node itself and all nodes around it, innermost first."""
        current: ast.AST | None = node
        while current is not None:
            yield current
            current = self._parents.get(current)

    def statement_of(self, node: ast.AST) -> ast.stmt:
        """The innermost statement around a node, or the node itself."""
        return next(found for found in self.around(node) if isinstance(found, ast.stmt))

    def depth(self, statement: ast.stmt) -> int:
        """How many statements are around a statement."""
        return sum(isinstance(node, ast.stmt) for node in self.around(statement))

    def statement_at(self, line: int, column: int) -> ast.stmt | None:
        """The statement that begins at a place (with or without its decorators)."""
        if line > len(self.starts):
            return None
        offset = self.starts[line - 1] + column
        if offset in self._statements:
            return self._statements[offset]
        decorated = (found for found in self._statements.values() if getattr(found, "decorator_list", None))
        return next((found for found in decorated if self.outer_start(found) == offset), None)

    def statement(self, span: Span) -> ast.stmt | None:
        """The statement with exactly this span (with or without its decorators)."""
        found = self.statement_at(span.line, span.column)
        if found is None or self._span(self.start(found), self.end(found)).end_line != span.end_line:
            return None
        return found if self.span(found).end_column == span.end_column else None

    def expression(self, span: Span) -> ast.expr | None:
        """The expression with exactly this span."""
        return self._expressions.get(span)

    def begins_line(self, statement: ast.stmt) -> bool:
        """Whether a statement is the first on its logical line (not behind `;` or a one-line header)."""
        before = self.before(self.outer_start(statement))
        return before is None or before.kind == tokens.NEWLINE

    def ends_line(self, statement: ast.stmt) -> bool:
        """Whether no other statement follows on the logical line; a loose `;` may."""
        after = self.after(self.end(statement))
        if after is not None and after.text == ";":
            after = self.after(after.end)
        return after is None or after.kind == tokens.NEWLINE

    def readable(self, node: ast.expr) -> bool:
        """Whether a node's place is right: inside f-strings it may not be before Python 3.12."""
        try:
            module = parse(f"({self.text[self.start(node) : self.end(node)]}\n)")
        except SyntaxError:
            return False
        found = module.body[0]
        return isinstance(found, ast.Expr) and fingerprint(found.value) == fingerprint(node)

    def logical_span(self, statement: ast.stmt) -> tuple[int, int]:
        """First and last line of the logical line that a statement begins on (of a block: its header)."""
        first = self.logical_line(self.outer_start(statement))
        index = bisect_left(self._token_starts, self.start(statement))
        while index < len(self.tokens) and self.tokens[index].kind != tokens.NEWLINE:
            index += 1
        last = self.tokens[min(index, len(self.tokens) - 1)].start
        return self.line_at(first), self.line_at(last)

    def is_elif(self, statement: ast.stmt) -> bool:
        """Whether a statement is the `elif` of another, which no statement can be put around or behind."""
        return isinstance(statement, ast.If) and self.text.startswith("elif", self.start(statement))
