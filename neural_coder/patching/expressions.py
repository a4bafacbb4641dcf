"""Edits within statements as pieces of text: other code for expressions, more arguments for calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from neural_coder.parsing import quiet
from neural_coder.patching.layout import Layout, fingerprint
from neural_coder.patching.outcome import Conflict, Refusal
from neural_coder.patching.pieces import Piece, Rank, render
from neural_coder.patching.requests import expression

_ATOMS = (
    ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.Constant, ast.JoinedStr, ast.List, ast.Set, ast.Dict,
    ast.ListComp, ast.SetComp, ast.DictComp,
)  # fmt: skip
_ROOMY = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Expr, ast.Call, ast.keyword, ast.List)
"""Nodes whose parts need no parentheses, whatever operators they hold."""
_LOOSE = (ast.NamedExpr, ast.Yield, ast.YieldFrom, ast.Tuple, ast.Starred, ast.GeneratorExp)
"""Expressions that need them even there."""


@dataclass(frozen=True, slots=True)
class Substitution:
    """Other code for an expression."""

    node: ast.expr
    code: str
    author: str


@dataclass(slots=True)
class NewArguments:
    """Keyword arguments for a call, in their order."""

    call: ast.Call
    author: str
    arguments: list[str] = field(default_factory=list)


class Expressions:
    """Makes the pieces, inner expressions before those around them."""

    def __init__(self, layout: Layout, substitutions: Sequence[Substitution], calls: Sequence[NewArguments]) -> None:
        self._layout = layout
        self._substitutions = sorted(substitutions, key=lambda each: layout.end(each.node) - layout.start(each.node))
        self._calls = calls
        self.lost_comments: list[tuple[ast.stmt, list[str]]] = []
        """Comments inside replaced expressions, with the statement that they belong above."""

    def pieces(self, indentation: Sequence[Piece]) -> list[Piece]:
        """All pieces.

        Args:
            indentation: Pieces that indent lines; replaced expressions may hold some.

        Raises:
            Refusal: An edit of one author is lost in the replacement of another.
        """
        owned = [(piece, call.author) for call in self._calls for piece in self._add(call)]
        for substitution in self._substitutions:
            owned.append((self._substitute(substitution, owned, indentation), substitution.author))
        return [piece for piece, _ in owned]

    # --- replacing ---------------------------------------------------------------------------------------------------

    def _substitute(
        self, substitution: Substitution, owned: list[tuple[Piece, str]], indentation: Sequence[Piece]
    ) -> Piece:
        """Write the new code; parts of the old expression that it repeats keep their layout and their own edits."""
        layout, node = self._layout, substitution.node
        start, end = layout.start(node), layout.end(node)
        inner = [(piece, author) for piece, author in owned if start <= piece.start and piece.end <= end]
        kept = self._kept_parts(substitution)
        inside = [*indentation, *(piece for piece, _ in inner)]
        code = substitution.code
        for code_start, code_end, old in reversed(kept):
            text = render(layout.text, _strictly(inside, layout, old), layout.start(old), layout.end(old))
            code = code[:code_start] + text + code[code_end:]
        ranges = [(layout.start(old), layout.end(old)) for _, _, old in kept]
        self._refuse_losses(substitution, inner, ranges)
        self._note_comments(node, ranges)
        return Piece(start, end, self._parenthesized(node, code), Rank.INSIDE)

    def _kept_parts(self, substitution: Substitution) -> list[tuple[int, int, ast.expr]]:
        """The largest parts of the new code that are in the old expression, with their places in the code."""
        old: dict[str, list[ast.expr]] = {}
        for node in ast.walk(substitution.node):
            if isinstance(node, ast.expr) and node is not substitution.node and self._layout.readable(node):
                old.setdefault(fingerprint(node), []).append(node)
        for same in old.values():
            same.sort(key=self._layout.start)
        code = Layout(f"({substitution.code}\n)")
        found: list[tuple[int, int, ast.expr]] = []
        self._match(expression_in(code), old, code, found)
        return sorted(found, key=lambda part: part[0])

    def _match(
        self, node: ast.AST, old: dict[str, list[ast.expr]], code: Layout, found: list[tuple[int, int, ast.expr]]
    ) -> None:
        if isinstance(node, ast.JoinedStr):
            return  # positions inside f-strings are of no use before Python 3.12
        same = old.get(fingerprint(node)) if isinstance(node, ast.expr) else None
        if same and isinstance(node, ast.expr) and not isinstance(node, ast.GeneratorExp):
            taken = same.pop(0) if len(same) > 1 else same[0]
            found.append((code.start(node) - 1, code.end(node) - 1, taken))
            return
        for child in ast.iter_child_nodes(node):
            self._match(child, old, code, found)

    def _refuse_losses(
        self, substitution: Substitution, inner: list[tuple[Piece, str]], kept: list[tuple[int, int]]
    ) -> None:
        for piece, author in inner:
            if author != substitution.author and not any(a <= piece.start and piece.end <= b for a, b in kept):
                line = self._layout.line_at(piece.start)
                reason = f"line {line}: {substitution.author} replaces the expression that {author} changes inside."
                raise Refusal(Conflict(first=substitution.author, second=author, reason=reason))

    def _note_comments(self, node: ast.expr, kept: list[tuple[int, int]]) -> None:
        inside = self._layout.comments_in(self._layout.start(node), self._layout.end(node))
        lost = [each.text for each in inside if not any(a <= each.start and each.end <= b for a, b in kept)]
        if lost:
            self.lost_comments.append((self._layout.statement_of(node), lost))

    def _parenthesized(self, node: ast.expr, code: str) -> str:
        """Put parentheses around code that would fall apart in the place of a node."""
        new = expression(code, "")
        text = Layout(f"({code}\n)")
        whole = text.start(new) == 1 and text.end(new) == 1 + len(code)
        if (
            len(code.splitlines()) > 1
            and not self._layout.bracketed(self._layout.start(node))
            and not _parses_alone(code)
        ):
            return f"({code})"
        if isinstance(new, ast.GeneratorExp) and text.start(new) == 0:
            return f"({code})"
        if not whole or (isinstance(new, _ATOMS) and not _is_number(new)):
            return code
        if isinstance(new, ast.Tuple | ast.GeneratorExp) and code.startswith("("):
            return code
        parent = self._layout.parent(node)
        if isinstance(parent, _ROOMY) and not isinstance(new, _LOOSE) and getattr(parent, "func", None) is not node:
            return code
        before, after = self._layout.before(self._layout.start(node)), self._layout.after(self._layout.end(node))
        if before and after and before.text == "(" and after.text == ")" and not isinstance(parent, ast.Call):
            return code
        return f"({code})"

    # --- arguments ---------------------------------------------------------------------------------------------------

    def _add(self, new: NewArguments) -> Iterator[Piece]:
        layout, call = self._layout, new.call
        closing = layout.end(call) - 1
        unpacked = [keyword for keyword in call.keywords if keyword.arg is None]
        if unpacked:
            star = layout.token_before(layout.start(unpacked[0].value), "**").start
            separator = self._line_break(star) or " "
            text = "".join(f"{argument},{separator}" for argument in new.arguments)
            yield Piece(star, star, text, Rank.INSIDE)
            return
        last = layout.before(closing)
        assert last is not None, "a call has an opening parenthesis"
        if not call.args and not call.keywords:
            yield Piece(last.end, last.end, ", ".join(new.arguments), Rank.INSIDE)
            return
        if _bare_generator(layout, call):
            yield Piece(layout.start(call.args[0]), layout.start(call.args[0]), "(", Rank.INSIDE)
            yield Piece(closing, closing, "), " + ", ".join(new.arguments), Rank.INSIDE)
            return
        yield from self._append(new, last.end, trailing=last.text == ",")

    def _append(self, new: NewArguments, at: int, *, trailing: bool) -> Iterator[Piece]:
        """Add arguments behind the last one, on lines of their own where each of the others has its own."""
        layout = self._layout
        separator = self._line_break(self._last_argument(new.call)) if self._one_a_line(new.call) else ""
        if not separator:
            text = ", ".join(new.arguments)
            yield Piece(at, at, f" {text}," if trailing else f", {text}", Rank.INSIDE)
            return
        behind = max([at, *(comment.end for comment in layout.comments_in(at, layout.line_end(layout.line_at(at))))])
        text = ",".join(separator + argument for argument in new.arguments) + "," * trailing
        if trailing or behind == at:
            yield Piece(behind, behind, "," * (not trailing) + text, Rank.INSIDE)
        else:
            yield Piece(at, at, ",", Rank.INSIDE)
            yield Piece(behind, behind, text, Rank.INSIDE)

    def _argument_starts(self, call: ast.Call) -> list[int]:
        """Where the arguments begin, with their stars, keywords and parentheses."""
        layout = self._layout
        starts = []
        arguments: list[ast.expr | ast.keyword] = [*call.args, *call.keywords]
        for argument in arguments:
            start = layout.start(argument)
            while (before := layout.before(start)) and before.text == "(" and before.start > layout.end(call.func):
                opening = before.start
                if self._opens(call, opening):
                    break
                start = opening
            starts.append(start)
        return sorted(starts)

    def _opens(self, call: ast.Call, offset: int) -> bool:
        """Whether a parenthesis is the one that opens the call's arguments."""
        token = self._layout.after(self._layout.end(call.func))
        while token is not None and token.text == ")":
            token = self._layout.after(token.end)
        return token is not None and token.start == offset

    def _last_argument(self, call: ast.Call) -> int:
        return self._argument_starts(call)[-1]

    def _one_a_line(self, call: ast.Call) -> bool:
        layout = self._layout
        starts = self._argument_starts(call)
        lines = {layout.line_at(start) for start in starts}
        return len(lines) == len(starts) and bool(self._line_break(starts[-1]))

    def _line_break(self, offset: int) -> str:
        """Newline and indentation of what begins a line; empty when something stands before it on the line."""
        line = self._layout.line_at(offset)
        indent = self._layout.text[self._layout.line_start(line) : offset]
        return "" if indent.strip() or line == 1 else self._layout.newline_of(line - 1) + indent


def expression_in(layout: Layout) -> ast.expr:
    """The expression that a text in parentheses holds."""
    statement = layout.tree.body[0]
    assert isinstance(statement, ast.Expr), "text in parentheses is an expression"
    return statement.value


def _strictly(pieces: list[Piece], layout: Layout, node: ast.expr) -> list[Piece]:
    """The pieces inside a node, without empty ones at its edges."""
    start, end = layout.start(node), layout.end(node)
    return [
        piece
        for piece in pieces
        if start <= piece.start and piece.end <= end and (piece.start < piece.end or start < piece.start < end)
    ]


def _bare_generator(layout: Layout, call: ast.Call) -> bool:
    """Whether the call's parentheses are those of its only argument, a generator."""
    if len(call.args) != 1 or call.keywords or not isinstance(call.args[0], ast.GeneratorExp):
        return False
    return layout.end(call.args[0]) == layout.end(call)


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float | complex)


def _parses_alone(code: str) -> bool:
    try:
        with quiet():
            ast.parse(code, mode="eval")
    except SyntaxError:
        return False
    return True
