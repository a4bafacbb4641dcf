"""The promises of a patch, checked before anyone sees it."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection, Iterable, Set

from neural_coder.errors import InternalError, UserError
from neural_coder.parsing import quiet
from neural_coder.patching.layout import Layout
from neural_coder.patching.outcome import Refusal, Unpatchable
from neural_coder.patching.referee import moved_statement
from neural_coder.source import Source


def check(before: Source, after: Source, layout: Layout, touched: Iterable[tuple[int, int]]) -> None:
    """Check that a patched file is Python, keeps its comments, and differs only where an edit wanted it to.

    Args:
        before: The file.
        after: The patched file.
        layout: Of the original.
        touched: First and last lines of the original's statements that an edit may change.

    Raises:
        InternalError: A promise would be broken.
        Refusal: The file was broken before.
    """
    try:
        patched = Layout(after.text)
        _compile(after.text)
    except (SyntaxError, ValueError) as error:
        _refuse_broken(before, error)
        raise InternalError(f"{before.path}: the patched file would not be Python ({error}).") from error
    lost = Counter(comment.text for comment in layout.comments) - Counter(comment.text for comment in patched.comments)
    if lost:
        raise InternalError(f"{before.path}: the patch would lose the comment {next(iter(lost))!r}.")
    lines = {line for first, last in touched for line in range(first, last + 1)}
    _check_lines(before, after, lines)
    if moved := moved_statement(before, after, _named_statements(layout.tree, lines)):
        raise InternalError(f"{before.path}: the patch would move {moved.splitlines()[0]!r}, which no edit names.")
    try:
        after.encode()
    except UserError as error:
        raise Refusal(Unpatchable(reason=str(error))) from error


def _compile(text: str) -> None:
    with quiet():
        compile(text, "<patched>", "exec", dont_inherit=True)


def _refuse_broken(before: Source, error: Exception) -> None:
    try:
        _compile(before.text)
    except (SyntaxError, ValueError) as original:
        raise Refusal(Unpatchable(reason=f"the file does not compile: {original}.")) from error


def _named_statements(tree: ast.Module, lines: Set[int]) -> set[int]:
    """Positions, among the simple statements of a file, of those that stand on certain lines."""
    simple = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and not isinstance(node, ast.Match) and not hasattr(node, "body")
    ]
    simple.sort(key=lambda node: (node.lineno, node.col_offset))
    return {
        position
        for position, node in enumerate(simple)
        if not lines.isdisjoint(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    }


def _check_lines(before: Source, after: Source, allowed: Collection[int]) -> None:
    """Only lines of edited statements may change; all others must stand in the result, in their order."""
    # A comparison by difflib would do less well: among equal lines it may take another one for the changed one.
    left = iter(_lines(after.text))
    for number, line in enumerate(_lines(before.text), 1):
        if line.strip() and number not in allowed and not any(line == other for other in left):
            raise InternalError(f"{before.path}: the patch would change line {number}, which no edit names.")


def _lines(text: str) -> list[str]:
    """Lines as Python counts them, without their ends: the last line may get one."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
