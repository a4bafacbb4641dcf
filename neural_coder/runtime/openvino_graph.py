"""From an exported graph to OpenVINO's form of it."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from neural_coder.runtime.engine import CannotConvert
from neural_coder.runtime.exported import Exported, place_of
from neural_coder.runtime.openvino_library import in_words, openvino
from neural_coder.runtime.openvino_recurrent import extensions, kept_whole

MULTIPLYING = frozenset(
    {"linear", "convolution", "addmm", "mm", "bmm", "matmul", "lstm", "gru", "rnn_tanh", "rnn_relu"}
)
"""Operators of graphs that multiply matrices."""
_PRODUCTS = frozenset(
    {"Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData", "MatMul"}
)
_FUSED = "fused_names_0"
"""Where OpenVINO notes the names of what an operation was made of."""
_WORD = re.compile(r"\w[\w.:]*\w")


@dataclass(frozen=True, slots=True)
class Translated:
    """A model of OpenVINO and the graph that it was made of."""

    model: Any
    """`openvino.Model`."""
    exported: Exported
    """The graph of simpler operators whose names are in the model: those of operation `add` begin with `add/`."""
    inputs: tuple[str, ...]
    """Names of the graph's inputs."""
    outputs: tuple[int, ...]
    """For each output of the graph, which of the model's it is: none is there twice."""


def translate(exported: Exported) -> Translated:
    """Translate a graph, with fixed sizes where it has them.

    Raises:
        CannotConvert: when OpenVINO has no counterpart of an operator; names it with its place in the user's code.
    """
    if any(tensor.dtype == torch.float64 for tensor in (*exported.example, *exported.program.state_dict.values())):
        raise CannotConvert("it computes in float64, which OpenVINO would do in float32")
    openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    with torch.inference_mode(False), torch.no_grad():
        program = exported.program.run_decompositions(_decompositions(kept_whole(exported.program.graph)))
        simpler = Exported(program, exported.shapes, exported.example)
        module = program.module()
    outputs = _distinct_outputs(module)
    recurrent = extensions(module.graph)
    decoder = TorchFXPythonDecoder(module, dynamic_shapes=False)  # the model's constants are views of its weights
    frontend = FrontEndManager().load_by_framework("pytorch")
    for extension in recurrent:
        frontend.add_extension(extension)
    with in_words():
        try:
            model = frontend.convert(frontend.load(decoder, True))
        except Exception as error:  # the border to OpenVINO, whose errors have no common base
            named = _named_in(str(error), program.graph)
            if named:
                raise CannotConvert(f"OpenVINO has no operation for {named}") from error
            raise
    _simplify(model, {node.name for node in program.graph.nodes if operator_of(node) in MULTIPLYING})
    inputs = tuple(node.name for node in module.graph.nodes if node.op == "placeholder")
    return Translated(model, simpler, inputs, outputs)


@functools.cache
def _decompositions(whole: frozenset[Any]) -> Any:
    """The operators that are to be taken apart: OpenVINO knows the others itself."""
    from openvino.frontend.pytorch.torchdynamo.export_decompositions import ops_to_not_decompose
    from torch.export.decomp_utils import CustomDecompTable

    table = CustomDecompTable()
    for operator in (*ops_to_not_decompose(), *whole):
        if operator in table:  # OpenVINO's own loop would report the others to the root logger
            table.pop(operator)
    return table


def _distinct_outputs(module: torch.fx.GraphModule) -> tuple[int, ...]:
    """Let the graph give each value once: OpenVINO cannot name an output twice."""
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    values = list(output.args[0])
    distinct = list(dict.fromkeys(values))
    output.args = (tuple(distinct),)
    return tuple(distinct.index(value) for value in values)


def operator_of(node: torch.fx.Node) -> str:
    """`linear` for `aten.linear.default`; empty for what is no operator."""
    return str(getattr(getattr(node.target, "overloadpacket", None), "__name__", ""))


def _simplify(model: Any, multiplying: Collection[str]) -> None:
    """Fold constants and fuse operations once, so that they are not folded at each start.

    A convolution that takes a batch normalization in gets a name of OpenVINO's own; it is given its old one back, by
    which it can be excluded from quantization.
    """
    from openvino._offline_transformations import apply_moc_transformations

    apply_moc_transformations(model, cf=True, smart_reshape=False)
    known = {operation.get_friendly_name().partition("/")[0] for operation in model.get_ops()}
    for operation in model.get_ops():
        if operation.get_type_name() in _PRODUCTS:
            # Where the weight was reshaped for the groups of a convolution, only the weight tells the name.
            names = [*_fused_names(operation), *_fused_names(operation.input_value(1).get_node())]
            lost = [name for name in names if (node := name.partition("/")[0]) in multiplying and node not in known]
            if lost:
                operation.set_friendly_name(lost[0])


def _fused_names(operation: Any) -> list[str]:
    information = operation.get_rt_info()
    return information[_FUSED].astype(str).split(",") if _FUSED in information else []


def _named_in(message: str, graph: torch.fx.Graph) -> str:
    """The operators that a message names, each with its place."""
    mentioned = set(_WORD.findall(message))
    operators = [node for node in reversed(graph.nodes) if node.op == "call_function"]
    nodes = {str(node.target): node for node in operators if str(node.target) in mentioned}
    return ", ".join(f"{name}{place_of(node)}" for name, node in sorted(nodes.items()))
