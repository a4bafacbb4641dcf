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
Place = tuple[int, int, int, int]
"""First line, first column, last line, column behind the last character; columns count characters."""


class ProbeNotFound(Exception):
    """A probe's position holds no call: the parent and this process see different texts."""


def instrument(data: bytes, filename: str, probes: Mapping[Place, int]) -> CodeType:
    """Compile a file with its probes in place.

    Args:
        data: The file's bytes.
        filename: Where tracebacks say that the code is.
        probes: The number of the probe at each place.

    Raises:
        ProbeNotFound: No call stands at one of the places.
        SyntaxError: The file does not parse.
    """
    tree = ast.parse(data, filename)
    inserter = _Inserter(_Columns(data), probes)
    inserter.visit(tree)
    missing = sorted(set(probes) - inserter.found)
    if missing:
        raise ProbeNotFound(f"{filename}:{missing[0][0]}: no call stands at column {missing[0][1]}")
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

    def place(self, node: ast.Call) -> Place:
        """Where a call stands."""
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


def install(
    probes: Mapping[str, Mapping[Place, int]],
    probe: Callable[[int, Any], Any],
    failed: Callable[[ProbeNotFound], None],
) -> None:
    """Give every module that is imported from a probed file its probes.

    Args:
        probes: By the file's path in the shadow.
        probe: What the probes call.
        failed: Told of a position that holds no call.
    """
    setattr(builtins, PROBE, probe)
    original: Callable[[Any, str], CodeType | None] = SourceFileLoader.get_code

    def get_code(self: Any, fullname: str) -> CodeType | None:
        path = str(self.get_filename(fullname))
        if path not in probes:
            return original(self, fullname)
        try:
            return instrument(self.get_data(path), path, probes[path])
        except ProbeNotFound as error:
            failed(error)
            raise

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def probes_by_file(specs: Sequence[Mapping[str, Any]]) -> dict[str, dict[Place, int]]:
    """Sort the probes of a job by the file that they are in."""
    by_file: dict[str, dict[Place, int]] = {}
    for index, spec in enumerate(specs):
        place = (spec["line"], spec["column"], spec["end_line"], spec["end_column"])
        by_file.setdefault(spec["file"], {})[place] = index
    return by_file
