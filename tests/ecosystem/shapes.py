"""Whether a patched file has the statements of the original in the same blocks, but for what its edits name."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Sequence

from guesses import WRAPPERS, is_inserted, tail

from neural_coder.edits import Edit, Replace, Wrap
from neural_coder.records import Span

_ADDED = frozenset({"batch_size", "fused"})
_MODULES = frozenset({"torch", "neural_coder", "intel_extension_for_pytorch"})


def same_shape(before: str, after: str, edits: Sequence[Edit]) -> bool:
    """Compare two texts after the replacements, with all else that transforms put in left out on both sides."""
    old, new = _parse(before), _parse(after)
    places = _Places(before)
    wrapped = [edit.at for edit in edits if isinstance(edit, Wrap)]
    _Replaced(places, edits).visit(old)
    held = [inside or any(at.contains(places.span(each)) for at in wrapped) for each, inside in _held(old.body)]
    if held != [inside for _, inside in _held(new.body)]:
        return False
    names = _imports(new)
    return ast.dump(_Bare(names).visit(old)) == ast.dump(_Bare(names).visit(new))


def _parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def _imports(tree: ast.Module) -> dict[str, str]:
    """What imported names stand for, where all imports of a name agree."""
    paths: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        for alias in getattr(node, "names", ()) if isinstance(node, ast.Import | ast.ImportFrom) else ():
            if isinstance(node, ast.ImportFrom):
                paths.setdefault(alias.asname or alias.name, set()).add(f"{node.module}.{alias.name}")
            elif alias.asname:
                paths.setdefault(alias.asname, set()).add(alias.name)
    return {name: found.pop() for name, found in paths.items() if len(found) == 1}


class _Places:
    """Where the nodes of a text stand, in characters."""

    def __init__(self, text: str) -> None:
        self._lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    def span(self, node: ast.stmt | ast.expr) -> Span:
        end = node.end_lineno or node.lineno
        return Span(
            line=node.lineno,
            column=self._column(node.lineno, node.col_offset),
            end_line=end,
            end_column=self._column(end, node.end_col_offset or 0),
        )

    def _column(self, line: int, offset: int) -> int:
        content = self._lines[line - 1]
        return offset if content.isascii() else len(content.encode()[:offset].decode(errors="replace"))


def _held(block: Sequence[ast.stmt], inside: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """The statements that transforms did not put in, each with whether a block of ours holds it."""
    for statement in block:
        items = statement.items if isinstance(statement, ast.With) else []
        ours = [tail(item.context_expr) in WRAPPERS for item in items]
        if not _is_added(statement) and not (ours and all(ours)):
            yield statement, inside
        for inner in _blocks(statement):
            yield from _held(inner, inside or any(ours))


def _is_added(statement: ast.stmt) -> bool:
    return is_inserted(statement) or isinstance(statement, ast.Pass) or _is_our_import(statement)


def _is_our_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import) and all(alias.name.partition(".")[0] in _MODULES for alias in node.names)


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        for part in (found := getattr(statement, field, [])):
            if isinstance(part, ast.ExceptHandler | ast.match_case):
                yield part.body
        if found and isinstance(found[0], ast.stmt):
            yield found


class _Replaced(ast.NodeTransformer):
    """Puts the new code of `Replace` edits in the place of the old nodes."""

    def __init__(self, places: _Places, edits: Sequence[Edit]) -> None:
        self._places = places
        self._codes = {edit.at: edit.code for edit in edits if isinstance(edit, Replace)}

    def visit(self, node: ast.AST) -> ast.AST | None:
        if not isinstance(node, ast.stmt | ast.expr) or not self._codes:
            return self.generic_visit(node)
        code = self._codes.get(self._places.span(node))
        if code is None or (code and isinstance(node, ast.stmt)):
            return self.generic_visit(node)
        if not code:
            return None if isinstance(node, ast.stmt) else node
        statement = _parse(f"({code}\n)").body[0]
        assert isinstance(statement, ast.Expr)
        return statement.value


class _Bare(ast.NodeTransformer):
    """Takes out what transforms put in, and writes imported names out in full."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def visit_With(self, node: ast.With) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        ours = all(tail(item.context_expr) in WRAPPERS and item.optional_vars is None for item in node.items)
        return node.body if ours else node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        return None if is_inserted(node) else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if is_inserted(node) else self.generic_visit(node)

    def visit_Pass(self, node: ast.Pass) -> None:
        return None

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        return None if _is_our_import(node) else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in _ADDED]
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.parse(self._names[node.id], mode="eval").body if node.id in self._names else node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if hasattr(node, "ctx"):
            node.ctx = ast.Load()
        return node
