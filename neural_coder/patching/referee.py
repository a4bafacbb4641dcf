"""A second opinion on a patch: libcst, a parser of its own, must see every statement that no edit names where it was.

Text that is still valid Python can mean something else: a line that slips into a block, or out of one, compiles.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection

import libcst as cst

from neural_coder.patching.outcome import Refusal, Unpatchable
from neural_coder.source import Source

_FORM_FEED = re.compile(r"^[ \t\f]*\f", re.MULTILINE)
_BLOCKS = (
    cst.BaseCompoundStatement,
    cst.Else,
    cst.ExceptHandler,
    cst.ExceptStarHandler,
    cst.Finally,
    cst.MatchCase,
)

Statement = tuple[tuple[str, ...], str]
"""The blocks around a simple statement, from outside in, and its code."""


def moved_statement(before: Source, after: Source, touched: Collection[int]) -> str:
    """Find the first statement that a patch moved, changed or lost without an edit that names it.

    Args:
        before: The file.
        after: The patched file.
        touched: Positions, among the file's simple statements in the order of the text, of those that edits may change.

    Returns:
        Its code; empty when there is none.

    Raises:
        Refusal: libcst cannot read the file, so that nothing vouches for the patch.
    """
    left = iter(_statements(after.text))
    for position, statement in enumerate(_statements(before.text)):
        if position not in touched and not any(statement == other for other in left):
            return statement[1]
    return ""


@functools.lru_cache(maxsize=8)
def _statements(text: str) -> tuple[Statement, ...]:
    try:
        # A form feed sets the indentation back to nothing; libcst counts on.
        module = cst.parse_module(_FORM_FEED.sub("", text))
    except cst.ParserSyntaxError as error:
        raise Refusal(Unpatchable(reason=f"libcst, which checks each patch, cannot read it: {error.message}")) from None
    collector = _Collector(module)
    module.visit(collector)
    return tuple(collector.found)


class _Collector(cst.CSTVisitor):
    """Lists simple statements with the blocks around them."""

    def __init__(self, module: cst.Module) -> None:
        super().__init__()
        self.found: list[Statement] = []
        self._module = module
        self._blocks: list[str] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.SimpleStatementLine | cst.SimpleStatementSuite):
            for small in node.body:
                code = self._module.code_for_node(small.with_changes(semicolon=cst.MaybeSentinel.DEFAULT))
                self.found.append((tuple(self._blocks), code.strip()))
            return False
        if isinstance(node, _BLOCKS):
            self._blocks.append(type(node).__name__)
        # Expressions hold no statements: looking into them would take most of the time.
        return isinstance(node, (cst.Module, cst.BaseSuite, *_BLOCKS))

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, _BLOCKS):
            self._blocks.pop()
