"""Edits of whole statements as pieces of text: lines behind them, `with` blocks around them, taking them out."""

from __future__ import annotations

import ast
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from neural_coder.patching.layout import COMPOUND, Layout
from neural_coder.patching.pieces import Piece, Rank
from neural_coder.patching.wraps import Block


@dataclass(frozen=True, slots=True)
class Insertion:
    """Statements to put behind a statement, written as the file would."""

    target: ast.stmt
    code: str

    @property
    def inline(self) -> bool:
        """Whether the code can stand behind a `;`."""
        return "\n" not in self.code and not isinstance(ast.parse(self.code).body[0], COMPOUND)


@dataclass(frozen=True, slots=True)
class Header:
    """A `with` block and the text of its header, without the colon."""

    block: Block
    text: str


class Statements:
    """Makes the pieces; statements that share a line are put on lines of their own where they must."""

    def __init__(
        self, layout: Layout, insertions: Sequence[Insertion], headers: Sequence[Header], dropped: Sequence[ast.stmt]
    ) -> None:
        self._layout = layout
        self._insertions = insertions
        self._headers = sorted(headers, key=lambda header: (header.block.first, -header.block.last))
        self._dropped = dropped
        self._split_lines = set(self._find_lines_to_split())
        self.removed_lines: set[int] = set()

    def pieces(self) -> Iterator[Piece]:
        """All pieces."""
        for statement in self._dropped:
            yield self._drop(statement)
        for first in sorted(self._split_lines):
            yield from self._split(first)
        yield from self._insert()
        yield from self._open_blocks()
        yield from self._indent()

    # --- where things stand ------------------------------------------------------------------------------------------

    def _line_of(self, statement: ast.stmt) -> int:
        return self._layout.logical_line(self._layout.outer_start(statement))

    def _in_suite(self, statement: ast.stmt) -> bool:
        """Whether a statement stands behind the colon of a header on the same line."""
        block, index, _ = self._layout.home(statement)
        while not self._layout.begins_line(block[index]):
            if index == 0 or self._line_of(block[index - 1]) != self._line_of(statement):
                return True
            index -= 1
        return False

    def _find_lines_to_split(self) -> Iterator[int]:
        for header in self._headers:
            first, last = header.block.wrapped[0], header.block.wrapped[-1]
            if not self._layout.begins_line(first):
                yield self._line_of(first)
            if not self._layout.ends_line(last):
                yield self._line_of(last)
        for insertion in self._insertions:
            if not insertion.inline and not self._line_free_behind(insertion.target):
                yield self._line_of(insertion.target)

    def _line_free_behind(self, statement: ast.stmt) -> bool:
        return self._layout.ends_line(statement) and not self._in_suite(statement)

    def indent(self, statement: ast.stmt, *, behind: bool = False) -> str:
        """The indentation that a statement gets.

        Args:
            statement: One of the original file.
            behind: Rather that of a line behind it (which a block that ends with the statement does not hold).
        """
        indent = self._layout.indent(statement)
        if self._in_suite(statement):
            indent += self._unit(indent)
        blocks = [header.block for header in self._headers if self._holds(header.block, statement)]
        if behind:
            blocks = [block for block in blocks if block.wrapped[-1] is not statement]
        return indent + self._unit(indent) * len(blocks)

    def _holds(self, block: Block, statement: ast.stmt) -> bool:
        start, end = self._layout.start(statement), self._layout.end(statement)
        first, last = self._layout.outer_start(block.wrapped[0]), self._layout.end(block.wrapped[-1])
        return first <= start and end <= last

    def _unit(self, indent: str) -> str:
        """One step of indentation; tabs continue tabs, blanks continue blanks."""
        unit = self._layout.unit
        if indent and (indent[-1] == "\t") != (unit == "\t"):
            return "\t" if indent[-1] == "\t" else "    "
        return unit

    def _last_line(self, statement: ast.stmt) -> int:
        """The last line of a statement, comments at the end of its block among them."""
        layout = self._layout
        last = line = layout.line_at(layout.end(statement))
        if not isinstance(statement, COMPOUND):
            return last
        indent = layout.indent(statement)
        while line < len(layout.starts):
            line += 1
            content = layout.text[layout.line_start(line) : layout.line_end(line)]
            body = content.lstrip()
            if body and not (body.startswith("#") and content.startswith(indent) and content[len(indent)] in " \t"):
                break
            last = line if body else last
        return last

    # --- taking out --------------------------------------------------------------------------------------------------

    def _drop(self, statement: ast.stmt) -> Piece:
        layout = self._layout
        start, end = layout.start(statement), layout.end(statement)
        first, last = layout.line_at(start), layout.line_at(end)
        if not self._can_vanish(statement):
            above = layout.comments_in(start, end) if layout.begins_line(statement) else ()
            lines = [*(comment.text for comment in above), "pass"]
            return Piece(start, end, (layout.newline_of(last) + self.indent(statement)).join(lines), Rank.INSIDE)
        comments = [comment.text for comment in layout.comments_in(start, layout.line_end(last))]
        if comments:
            text = (layout.newline_of(last) + self.indent(statement)).join(comments)
            return Piece(start, layout.line_end(last), text, Rank.INSIDE)
        self.removed_lines.update(range(first, last + 1))
        return Piece(layout.line_start(first), layout.next_line(last), "", Rank.INSIDE)

    def _can_vanish(self, statement: ast.stmt) -> bool:
        if not self._layout.begins_line(statement) or not self._layout.ends_line(statement):
            return False
        blocks = [header.block.wrapped for header in self._headers if statement in header.block.wrapped]
        stays = {id(insertion.target) for insertion in self._insertions}
        dropped = {id(other) for other in self._dropped}
        if any(id(other) in stays for other in self._layout.home(statement).block) and not blocks:
            return True
        return all(
            any(id(other) not in dropped for other in statements)
            for statements in (self._layout.home(statement).block, *blocks)
        )

    # --- lines that hold several statements --------------------------------------------------------------------------

    def _split(self, first: int) -> Iterator[Piece]:
        """Put each statement of a logical line on a line of its own."""
        for statement in self._on_line(first):
            if self._layout.begins_line(statement):
                continue
            start = self._layout.start(statement)
            before = self._layout.before(start)
            assert before is not None, "a statement that does not begin its line stands behind something"
            block, index, _ = self._layout.home(statement)
            end, lines = before.end, []
            if before.text == ";":
                end = self._layout.end(block[index - 1])
                lines = self._lines_behind(block[index - 1])
            newline = self._layout.newline_of(self._layout.line_at(start))
            lines += self._headers_of(statement)
            text = "".join(newline + line for line in [*lines, self.indent(statement)])
            yield Piece(end, start, text, Rank.INSIDE)

    def _on_line(self, first: int) -> list[ast.stmt]:
        """The statements of the block that shares a logical line, in order."""
        found = [node for node in ast.walk(self._layout.tree) if isinstance(node, ast.stmt)]
        return [node for node in found if not isinstance(node, COMPOUND) and self._line_of(node) == first]

    # --- putting behind ----------------------------------------------------------------------------------------------

    def _insert(self) -> Iterator[Piece]:
        for number, insertion in enumerate(self._insertions):
            target = insertion.target
            split = self._line_of(target) in self._split_lines and not isinstance(target, COMPOUND)
            if split and not self._layout.ends_line(target):
                continue  # goes into the gap behind the target
            if split or self._line_free_behind(target):
                lines = self._indented(insertion)
                yield self.behind_line(self._last_line(target), lines, (-self._layout.depth(target), number))
            else:
                end = self._layout.end(target)
                yield Piece(end, end, f"; {insertion.code}", Rank.INSIDE, (number,))

    def _lines_behind(self, target: ast.stmt) -> list[str]:
        return [line for each in self._insertions if each.target is target for line in self._indented(each)]

    def _indented(self, insertion: Insertion) -> list[str]:
        return textwrap.indent(insertion.code, self.indent(insertion.target, behind=True)).split("\n")

    def behind_line(self, line: int, lines: list[str], position: tuple[int, ...]) -> Piece:
        """A piece that puts whole lines behind a line."""
        newline = self._layout.newline_of(line)
        at = self._layout.next_line(line)
        if self._layout.last_line(line):
            return Piece(at, at, "".join(newline + text for text in lines), Rank.BEHIND, position)
        return Piece(at, at, "".join(text + newline for text in lines), Rank.BEHIND, position)

    # --- putting around ----------------------------------------------------------------------------------------------

    def _headers_of(self, statement: ast.stmt) -> list[str]:
        """The lines of the headers that open in front of a statement, the outermost first."""
        opening = [header for header in self._headers if header.block.wrapped[0] is statement]
        indent = self.indent(statement)
        unit = self._unit(self._layout.indent(statement))
        steps = range(len(opening), 0, -1)
        return [
            indent[: len(indent) - step * len(unit)] + header.text + ":"
            for step, header in zip(steps, opening, strict=True)
        ]

    def _open_blocks(self) -> Iterator[Piece]:
        for statement in {id(header.block.wrapped[0]): header.block.wrapped[0] for header in self._headers}.values():
            if not self._layout.begins_line(statement):
                continue  # the headers are in the gap in front of it
            yield self.above(statement, self._headers_of(statement), (0,))

    def above(self, statement: ast.stmt, lines: list[str], position: tuple[int, ...]) -> Piece:
        """A piece that puts whole lines above the line that a statement stands on."""
        line = self._layout.line_at(self._line_of(statement))
        at = self._layout.line_start(line)
        newline = self._layout.newline_of(line)
        return Piece(at, at, "".join(text + newline for text in lines), Rank.ABOVE, position)

    def _indent(self) -> Iterator[Piece]:
        """Indent the lines inside of blocks; lines that begin inside a string stay as they are."""
        layout = self._layout
        steps: Counter[int] = Counter()
        base: dict[int, str] = {}
        for header in self._headers:
            first, last = header.block.wrapped[0], header.block.wrapped[-1]
            line = layout.line_at(layout.outer_start(first)) + (not layout.begins_line(first))
            for inner in range(line, self._last_line(last) + 1):
                steps[inner] += 1
                base.setdefault(inner, layout.indent(first))
        for line, count in steps.items():
            if layout.blank(line) or line in layout.frozen_lines or line in self.removed_lines:
                continue
            start = layout.line_start(line)
            indent = base[line] if layout.text.startswith(base[line], start) else ""
            yield Piece(start + len(indent), start + len(indent), self._unit(base[line]) * count, Rank.INDENT)
