"""An exported model as an ONNX file: writing it, and telling which of its nodes belong to which modules."""

from __future__ import annotations

import ast
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from neural_coder.runtime.engine import CannotConvert
from neural_coder.runtime.exported import Exported, place_of

if TYPE_CHECKING:
    import onnx

_ROOT = "module"
"""Name of the model inside of the module that is exported."""
_SCOPES = "pkg.torch.onnx.name_scopes"
_OPERATOR = re.compile(r"op='([^']+)'")


def write_onnx(exported: Exported, file: Path) -> None:
    """Write a graph as ONNX, its weights in a second file beside it: one file holds at most 2 GB.

    Raises:
        CannotConvert: when an operator has no counterpart in ONNX, with the place in the code.
    """
    try:
        torch.onnx.export(exported.program, (), file, dynamo=True, verbose=False, external_data=True)
    except Exception as error:  # the border to the exporter, which raises many kinds
        raise CannotConvert(_why_not(error)) from error


def nodes_of(file: Path, modules: frozenset[str]) -> frozenset[str]:
    """Names of the nodes that compute what certain modules compute.

    Args:
        file: As `write_onnx` has written it; optimizers forget where nodes come from.
        modules: Names of the modules.
    """
    graph = load_graph(file)
    weights = {weight.name for weight in graph.initializer}
    return frozenset(node.name for node in graph.node if not modules.isdisjoint(_paths(node, weights)))


def load_graph(file: Path) -> onnx.GraphProto:
    """The nodes of a file, without its weights."""
    import onnx

    return onnx.load(str(file), load_external_data=False).graph


def first_and_last(graph: onnx.GraphProto, operators: Iterable[str]) -> set[str]:
    """Names of the first and the last node of certain kinds."""
    names = [node.name for node in graph.node if node.op_type in operators]
    return {*names[:1], *names[-1:]}


def _paths(node: onnx.NodeProto, weights: set[str]) -> Iterator[str]:
    """Names of modules that a node stands for; a normalization that was merged into a convolution counts as both."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            scopes = [str(scope) for scope in ast.literal_eval(entry.value)]
            yield from (_plain(scope) for scope in scopes[-2:-1])
    yield from (_plain(name.rpartition(".")[0]) for name in node.input[1:2] if name in weights and "." in name)


def _plain(path: str) -> str:
    return "" if path == _ROOT else path.removeprefix(f"{_ROOT}.")


def _why_not(error: BaseException) -> str:
    """Name the operator that could not be translated, and the place in the code that asks for it."""
    text = " ".join(str(each) for each in _chain(error))
    operator = _OPERATOR.search(text)
    if "No ONNX function found" not in text or operator is None:
        first = next(iter(str(error).strip().splitlines()), "")
        return f"the export to ONNX failed ({type(error).__name__}: {first[:200]})"
    node = next(_nodes_at_work(error), None)
    return f"ONNX has no operator for {operator[1]}{place_of(node) if node is not None else ''}"


def _nodes_at_work(error: BaseException) -> Iterator[torch.fx.Node]:
    """The nodes that the exporter was busy with; they are not those of the graph that it was given."""
    for each in _chain(error):
        for frame, _ in traceback.walk_tb(each.__traceback__):
            node = frame.f_locals.get("node")
            if isinstance(node, torch.fx.Node):
                yield node


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
