"""A parsed file: its tree, where each node stands in the text, and what surrounds it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from neural_coder.errors import UserError
from neural_coder.parsing import quiet
from neural_coder.records import Argument, Span
from neural_coder.source import Source

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
ScopeNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Parsed:
    """One file's syntax tree with positions in characters and links to parents."""

    def __init__(self, source: Source):
        self.source = source
        self.path = source.path
        self.tree = _parse(source)
        self.told: set[str] | None = None
        self.uses: dict[ast.AST, dict[str, set[str]]] = {}
        """How names are used in scopes, as far as someone asked (see `usage`)."""

    @cached_property
    def key(self) -> Path:
        """The path without links."""
        return self.path.resolve()

    @cached_property
    def lines(self) -> list[str]:
        """The text's lines as Python's tokenizer counts them, without their ends."""
        return self.source.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    @cached_property
    def _walk(self) -> tuple[list[ast.AST], dict[ast.AST, ast.AST]]:
        """All nodes in the order of the tree, and parents."""
        nodes: list[ast.AST] = []
        parents: dict[ast.AST, ast.AST] = {}
        waiting: list[ast.AST] = [self.tree]
        while waiting:
            node = waiting.pop()
            nodes.append(node)
            below = children(node)
            if below:
                parents.update(dict.fromkeys(below, node))
                below.reverse()
                waiting += below
        return nodes, parents

    @cached_property
    def _places(self) -> dict[ast.AST, tuple[int, int]]:
        """Where each node is in the order of the tree, and how many nodes it has below it, itself included."""
        nodes, parents = self._walk
        sizes = dict.fromkeys(nodes, 1)
        for node in reversed(nodes[1:]):
            sizes[parents[node]] += sizes[node]
        return {node: (index, sizes[node]) for index, node in enumerate(nodes)}

    @property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the tree in its order (without contexts and operators)."""
        return self._walk[0]

    @property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """Each node's parent."""
        return self._walk[1]

    def below(self, node: ast.AST) -> list[ast.AST]:
        """A node of this tree and all nodes below it."""
        index, size = self._places[node]
        return self.nodes[index : index + size]

    @cached_property
    def _blocks(self) -> dict[ast.AST, tuple[list[ast.stmt], int]]:
        found: dict[ast.AST, tuple[list[ast.stmt], int]] = {}
        for node in statements(self.tree):
            for block in blocks_of(node):
                for index, statement in enumerate(block):
                    found[statement] = (block, index)
        return found

    def _column(self, line: int, offset: int) -> int:
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        return offset if text.isascii() else len(text.encode()[:offset].decode(errors="replace"))

    def span(self, node: ast.AST) -> Span:
        """Where a statement (its decorators included) or an expression stands."""
        first = node
        if isinstance(node, ScopeNode) and node.decorator_list:
            # ast starts a decorated definition at `def`; the `@` is one character before the first decorator.
            decorator = min(node.decorator_list, key=lambda item: (item.lineno, item.col_offset))
            column = self.lines[decorator.lineno - 1].find("@")
            return Span(
                line=decorator.lineno,
                column=max(column, 0),
                end_line=node.end_lineno or node.lineno,
                end_column=self._column(node.end_lineno or node.lineno, node.end_col_offset or 0),
            )
        line, end = getattr(first, "lineno", 1), getattr(first, "end_lineno", 1)
        return Span(
            line=line,
            column=self._column(line, getattr(first, "col_offset", 0)),
            end_line=end,
            end_column=self._column(end, getattr(first, "end_col_offset", 0)),
        )

    def span_of_run(self, first: ast.stmt, last: ast.stmt) -> Span:
        """From the start of one statement to the end of another."""
        start, stop = self.span(first), self.span(last)
        return Span(line=start.line, column=start.column, end_line=stop.end_line, end_column=stop.end_column)

    def text(self, node: ast.AST) -> str:
        """The node's text as written."""
        span = self.span(node)
        if span.line == span.end_line:
            return self.lines[span.line - 1][span.column : span.end_column]
        middle = self.lines[span.line : span.end_line - 1]
        return "\n".join(
            [self.lines[span.line - 1][span.column :], *middle, self.lines[span.end_line - 1][: span.end_column]]
        )

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes around a node, innermost first."""
        current = self.parents.get(node)
        while current is not None:
            yield current
            current = self.parents.get(current)

    def statement(self, node: ast.AST) -> ast.stmt:
        """The innermost statement that holds a node; an `elif` belongs to the `if` that it continues."""
        current: ast.AST = node
        while not isinstance(current, ast.stmt):
            current = self.parents[current]
        while self.is_elif(current):
            current = self.parents[current]
        assert isinstance(current, ast.stmt)
        return current

    def is_elif(self, node: ast.AST) -> bool:
        """Whether an `if` is the `elif` of another one."""
        parent = self.parents.get(node)
        if not (isinstance(node, ast.If) and isinstance(parent, ast.If) and parent.orelse == [node]):
            return False
        # `else:` with a single `if` in it parses alike; the text tells them apart.
        return self.lines[node.lineno - 1][self._column(node.lineno, node.col_offset) :].startswith("elif")

    def block(self, statement: ast.stmt) -> tuple[list[ast.stmt], int]:
        """The block that a statement stands in, and its place there."""
        return self._blocks[statement]

    def function(self, node: ast.AST) -> FunctionNode | None:
        """The function whose body holds the node."""
        child = node
        for parent in self.ancestors(node):
            if isinstance(parent, FunctionNode) and child in parent.body:
                return parent
            child = parent
        return None

    def scope(self, node: ast.AST) -> str:
        """Dotted name of the function or class whose body holds the node; `<module>` at top level."""
        names: list[str] = []
        child = node
        for parent in self.ancestors(node):
            if isinstance(parent, ScopeNode) and child in parent.body:
                names.append(parent.name)
            child = parent
        return ".".join(reversed(names)) or "<module>"

    def arguments(self, call: ast.Call) -> tuple[Argument, ...]:
        """The arguments of a call as written."""
        found = []
        for item in call.args:
            starred = isinstance(item, ast.Starred)
            value = item.value if isinstance(item, ast.Starred) else item
            found.append(Argument(keyword="*" if starred else None, text=self.text(value), value=self.span(value)))
        for keyword in call.keywords:
            found.append(
                Argument(keyword=keyword.arg or "**", text=self.text(keyword.value), value=self.span(keyword.value))
            )
        return tuple(sorted(found, key=lambda argument: argument.value))


_NO_NODES = frozenset(
    {
        "ctx",
        "op",
        "ops",
        "id",
        "arg",
        "attr",
        "str",
        "name",
        "names",
        "rest",
        "kwd_attrs",
        "level",
        "module",
        "type_comment",
    }
    | {"kind", "conversion", "simple", "is_async", "lineno", "tag", "type_ignores"}
)
_WITH_GAPS = frozenset({ast.Dict, ast.arguments})
"""Kinds of nodes whose lists may hold None."""


class _Fields(dict[type[ast.AST], tuple[str, ...]]):
    """For kinds of nodes, the fields that hold nodes with code."""

    def __missing__(self, kind: type[ast.AST]) -> tuple[str, ...]:
        is_literal = kind is ast.Constant or kind is ast.MatchSingleton
        self[kind] = () if is_literal else tuple(name for name in kind._fields if name not in _NO_NODES)
        return self[kind]


_FIELDS = _Fields()


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes directly below a node, in the order of its fields, without contexts, operators and imported names."""
    found: list[ast.AST] = []
    kind = node.__class__
    for name in _FIELDS[kind]:
        value = getattr(node, name)
        if value.__class__ is list:
            found += value
        elif value is not None:
            found.append(value)
    if kind in _WITH_GAPS:
        return [item for item in found if item is not None]
    return found


def blocks_of(node: ast.AST) -> list[list[ast.stmt]]:
    """The lists of statements directly in a node."""
    blocks = []
    for field in ("body", "orelse", "finalbody"):
        block = getattr(node, field, None)
        if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
            blocks.append(block)
    return blocks


_TRY = ("body", "orelse", "finalbody", "handlers")
BLOCKS: dict[type[ast.AST], tuple[str, ...]] = {
    **dict.fromkeys((ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef), ("body",)),
    **dict.fromkeys((ast.If, ast.For, ast.AsyncFor, ast.While), ("body", "orelse")),
    **dict.fromkeys((ast.With, ast.AsyncWith, ast.ExceptHandler, ast.match_case), ("body",)),
    ast.Match: ("cases",),
    ast.Try: _TRY,
}
"""Where statements hold others."""
if sys.version_info >= (3, 11):
    BLOCKS[ast.TryStar] = _TRY


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """A tree and all statements (handlers and cases, too) in it, in the order of the text, without expressions."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name in reversed(BLOCKS.get(node.__class__, ())):
            waiting.extend(reversed(getattr(node, name)))


def walk_scope(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below a node that run with it: bodies of functions, lambdas and classes are left out."""
    waiting = [ast.iter_child_nodes(node)]
    while waiting:
        child = next(waiting[-1], None)
        if child is None:
            waiting.pop()
            continue
        yield child
        if not isinstance(child, (*_SCOPES, ast.Lambda)):
            waiting.append(ast.iter_child_nodes(child))


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a chain of names, else an empty text."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def base_name(node: ast.expr) -> str:
    """The dotted name of a base class, without what it is filled with: `Net` of `Net[int]`."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return dotted(node)


def named(node: ast.AST) -> str:
    """`a.b` or `a.b['key']`: a chain of names in which subscripts are literals or names; else an empty text."""
    if isinstance(node, ast.Subscript):
        base = named(node.value)
        simple = isinstance(node.slice, ast.Constant) or bool(dotted(node.slice))
        return f"{base}[{ast.unparse(node.slice)}]" if base and simple else ""
    if isinstance(node, ast.Attribute):
        base = named(node.value)
        return f"{base}.{node.attr}" if base else ""
    return dotted(node)


def _parse(source: Source) -> ast.Module:
    try:
        with quiet():
            return ast.parse(source.text)
    except SyntaxError as error:
        raise UserError(_syntax_message(source, error)) from None
    except (RecursionError, MemoryError, ValueError) as error:
        raise UserError(f"{source.path} cannot be parsed: {error or type(error).__name__}.") from None


def _syntax_message(source: Source, error: SyntaxError) -> str:
    line = error.lineno or 1
    column = max(error.offset or 1, 1)
    lines = source.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    text = lines[line - 1] if line <= len(lines) else ""
    # The caret stands under the character; tabs stay tabs so that both lines are indented alike.
    caret = "".join("\t" if character == "\t" else " " for character in text[: column - 1]).ljust(column - 1) + "^"
    return f"{source.path}:{line}:{column}: {error.msg}\n{text}\n{caret}"


def is_stub(node: FunctionNode) -> bool:
    """Whether a function has no body but a docstring, `pass`, `...` or an error that says so."""
    for statement in node.body:
        match statement:
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                continue
            case ast.Raise(exc=ast.Name(id=name) | ast.Call(func=ast.Name(id=name))) if name.startswith("NotImpl"):
                continue
        return False
    return True


def has_suspension(node: ast.AST) -> str:
    """`yields` or `awaits` when running the node may suspend its function, else an empty text."""
    for child in (node, *walk_scope(node)):
        if isinstance(child, ast.Yield | ast.YieldFrom):
            return "yields"
        if isinstance(child, ast.Await | ast.AsyncFor | ast.AsyncWith):
            return "awaits"
        if isinstance(child, ast.comprehension) and child.is_async:
            return "awaits"
    return ""


def file_name(path: Path) -> str:
    """The module name that a file would be imported under, without its package."""
    return path.parent.name if path.stem == "__init__" else path.stem
