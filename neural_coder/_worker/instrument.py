"""Put probes into source code: each probed call `f(x)` becomes `__neural_coder_probe__(index, f)(x)`.

Only the syntax tree changes; positions stay those of the file, so tracebacks, `inspect` and TorchScript see the text
as it is on disk.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any

PROBE = "__neural_coder_probe__"
MARK = "__neural_coder_mark__"
Place = tuple[int, int, int, int]
"""First line, first column, last line, column behind the last character; columns count characters."""


class ProbeNotFound(Exception):
    """A probe's position holds no call: the parent and this process see different texts."""


def instrument(data: bytes, filename: str, probes: Mapping[Place, int], marks: Mapping[Place, int]) -> CodeType:
    """Compile a file with its probes in place.

    Args:
        data: The file's bytes.
        filename: Where tracebacks say that the code is.
        probes: The number of the probe at each place.
        marks: The number of the mark of statements whose execution is to be noted.

    Raises:
        ProbeNotFound: No call stands at one of the places.
        SyntaxError: The file does not parse.
    """
    tree = ast.parse(data, filename)
    columns = _Columns(data)
    inserter = _Inserter(columns, probes)
    inserter.visit(tree)
    missing = sorted(set(probes) - inserter.found)
    if missing:
        raise ProbeNotFound(f"{filename}:{missing[0][0]}: no call stands at column {missing[0][1]}")
    if marks:
        _Marker(columns, marks).visit(tree)
    return compile(tree, filename, "exec", dont_inherit=True)


class _Columns:
    """Turns the byte offsets of `ast` into columns that count characters of the text without BOM and form feeds."""

    def __init__(self, data: bytes) -> None:
        encoding, _ = _detect_encoding(data)
        text = data.decode(encoding)
        rest = text.lstrip("\f")
        self._lines = re.split(r"\r\n|\r|\n", text)
        self._prefix = len(text) - len(rest)

    def column(self, line: int, offset: int) -> int:
        """The column of a byte offset in a line."""
        text = self._lines[line - 1]
        column = offset if text.isascii() else len(text.encode()[:offset].decode())
        return max(column - self._prefix, 0) if line == 1 else column

    def place(self, node: ast.expr | ast.stmt) -> Place:
        """Where a call or a statement stands."""
        end_line = node.end_lineno or node.lineno
        end_offset = node.end_col_offset or node.col_offset
        return (
            node.lineno,
            self.column(node.lineno, node.col_offset),
            end_line,
            self.column(end_line, end_offset),
        )


def _detect_encoding(data: bytes) -> tuple[str, Sequence[bytes]]:
    import io
    import tokenize

    return tokenize.detect_encoding(io.BytesIO(data).readline)


class _Inserter(ast.NodeTransformer):
    def __init__(self, columns: _Columns, probes: Mapping[Place, int]) -> None:
        self._columns = columns
        self._probes = probes
        self._lines = {place[0] for place in probes}
        self.found: set[Place] = set()

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if node.lineno not in self._lines:
            return node
        place = self._columns.place(node)
        index = self._probes.get(place)
        if index is None or place in self.found:
            return node
        self.found.add(place)
        callee = node.func
        name = ast.copy_location(ast.Name(id=PROBE, ctx=ast.Load()), callee)
        number = ast.copy_location(ast.Constant(value=index), callee)
        node.func = ast.copy_location(ast.Call(func=name, args=[number, callee], keywords=[]), callee)
        return node


class _Marker(ast.NodeTransformer):
    """Puts a call of our own in front of statements."""

    def __init__(self, columns: _Columns, marks: Mapping[Place, int]) -> None:
        self._columns = columns
        self._marks = marks

    def visit(self, node: ast.AST) -> Any:
        self.generic_visit(node)
        index = self._marks.get(self._columns.place(node)) if isinstance(node, ast.stmt) else None
        if index is None:
            return node
        call = ast.Call(func=ast.Name(id=MARK, ctx=ast.Load()), args=[ast.Constant(value=index)], keywords=[])
        mark = ast.Expr(value=call)
        for new in ast.walk(mark):
            ast.copy_location(new, node)
        return [mark, node]


def install(
    probes: Mapping[str, Mapping[Place, int]],
    marks: Mapping[str, Mapping[Place, int]],
    probe: Callable[[int, Any], Any],
    mark: Callable[[int], None],
    failed: Callable[[ProbeNotFound], None],
) -> None:
    """Give every module that is imported from a probed file its probes.

    Args:
        probes: By the file's path in the shadow.
        marks: The same for statements whose execution is to be noted.
        probe: What the probes call.
        mark: What runs in front of such a statement.
        failed: Told of a position that holds no call.
    """
    setattr(builtins, PROBE, probe)
    setattr(builtins, MARK, mark)
    original: Callable[[Any, str], CodeType | None] = SourceFileLoader.get_code

    def get_code(self: Any, fullname: str) -> CodeType | None:
        path = str(self.get_filename(fullname))
        if path not in probes and path not in marks:
            return original(self, fullname)
        try:
            return instrument(self.get_data(path), path, probes.get(path, {}), marks.get(path, {}))
        except ProbeNotFound as error:
            failed(error)
            raise

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def by_file(specs: Sequence[Mapping[str, Any]]) -> dict[str, dict[Place, int]]:
    """Sort the probes (or marks) of a job by the file that they are in."""
    sorted_out: dict[str, dict[Place, int]] = {}
    for index, spec in enumerate(specs):
        place = (spec["line"], spec["column"], spec["end_line"], spec["end_column"])
        sorted_out.setdefault(spec["file"], {})[place] = index
    return sorted_out
