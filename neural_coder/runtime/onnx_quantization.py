"""Quantizing ONNX graphs with ONNX Runtime's own tools: which nodes, in which form, on which data."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_coder.runtime.engine import CannotConvert
from neural_coder.runtime.onnx_graph import first_and_last, load_graph
from neural_coder.runtime.overflow import is_arm, sums_overflow

if TYPE_CHECKING:
    import onnx

    from neural_coder.runtime.engine_onnxruntime import Options

Feed = Mapping[str, Any]

MULTIPLYING = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that gain from 8-bit integers by themselves."""
BETWEEN = (
    "Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Pad", "Relu", "Resize",
    "Sigmoid", "Split",
)  # fmt: skip
"""Operators that stay in 8 bits between two convolutions. Elsewhere, as in a transformer, they stay in floating point:
nothing is gained there, and a mask of huge negative numbers would ruin the scale of a sum."""
ELEMENTWISE = ("Clip", "LeakyRelu", "MaxPool", "Pad", "Relu", "Sigmoid")
"""Of these, what hands on the precision of its one input."""
DYNAMIC = ("Gemm", "LSTM", "MatMul")
"""Operators that are quantized dynamically. Convolutions run slower than in floating point that way."""
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_INTEGER = ("ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "QLinearConv")


def prepare(source: Path, target: Path) -> None:
    """Fold constants and batch normalizations, and note the shapes, as the quantizers want it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with _without_talk():
        # The exporter has noted all shapes. Files of weights are written beside the graph, however large it is.
        quant_pre_process(
            str(source), str(target), skip_symbolic_shape=True, save_as_external_data=True, all_tensors_to_one_file=True
        )


def quantize_dynamically(source: Path, target: Path, *, excluded: frozenset[str], options: Options) -> None:
    """Quantize weights of matrix products and LSTMs; activations are quantized in each call.

    Raises:
        CannotConvert: when there is nothing to quantize.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = load_graph(source)
    weights = {weight.name for weight in graph.initializer}
    names = [node.name for node in graph.node if node.op_type in DYNAMIC and _multiplies_weights(node, weights)]
    chosen = _chosen(graph, names, DYNAMIC, excluded, options)
    if not chosen:
        raise CannotConvert("it has no linear or LSTM layer to quantize; convolutions would only become slower")
    with _without_talk():
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=["MatMul", "LSTM"],
            per_channel=options.per_channel,
            reduce_range=_reduced(options),
            weight_type=QuantType.QInt8,
            # A Gemm becomes a MatMul of another name before it is quantized.
            nodes_to_quantize=[*chosen, *(f"{name}_MatMul" for name in chosen)],
            use_external_data_format=True,
        )


def quantize_statically(
    source: Path, target: Path, feeds: Sequence[Feed], *, excluded: frozenset[str], options: Options
) -> None:
    """Quantize weights and activations with scales that are found on calibration data.

    Args:
        source: A file that `prepare` has written.
        target: The file to write.
        feeds: Inputs by name, one call after the other.
        excluded: Names of nodes that stay in floating point.
        options: What the caller of `accelerate` asked for.

    Raises:
        CannotConvert: when there is nothing to quantize.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    graph = load_graph(source)
    chosen = _chosen(graph, quantizable(graph), MULTIPLYING, excluded, options)
    if not chosen:
        raise CannotConvert("it has no convolution or matrix product to quantize")
    symmetric = is_arm() if options.symmetric is None else options.symmetric
    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    with _without_talk():
        quantize_static(
            str(source),
            str(target),
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*MULTIPLYING, *BETWEEN],
            per_channel=options.per_channel,
            reduce_range=_reduced(options),
            # On x86 products of unsigned activations and signed weights are the fast ones, on Arm those of signed ones.
            activation_type=QuantType.QInt8 if is_arm() else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=chosen,
            use_external_data_format=True,
            calibrate_method=methods[options.observer],
            # One call at a time: the observers keep all activations of what they are given at once.
            extra_options={"ActivationSymmetric": symmetric, "CalibStridedMinMax": 1},
        )


def quantizable(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that are worth quantizing statically."""
    found: list[str] = []
    convolved: set[str] = set()
    """Tensors that come from a convolution through operators that keep them in 8 bits."""
    for node in graph.node:
        is_between = node.op_type in BETWEEN and any(name in convolved for name in node.input)
        if node.op_type in _CONVOLUTIONS or is_between:
            convolved.update(node.output)
        if node.op_type in MULTIPLYING or is_between:
            found.append(node.name)
    return found


def integer_nodes(file: Path) -> int:
    """How many nodes of a quantized graph multiply integers."""
    graph = load_graph(file)
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return sum(
        node.op_type in _INTEGER or (node.op_type in MULTIPLYING and {*node.input[:2]} <= dequantized)
        for node in graph.node
    )


class _Reader:
    """Hands the calibration data to ONNX Runtime, in the part that it asks for."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = feeds
        self._rest = iter(feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._rest = iter(self._feeds[start_index:end_index])

    def get_next(self) -> Feed | None:
        return next(self._rest, None)


def _chosen(
    graph: onnx.GraphProto, names: Sequence[str], operators: Sequence[str], excluded: frozenset[str], options: Options
) -> list[str]:
    """The nodes that are quantized; none when no multiplication is left among them."""
    kept = excluded | first_and_last(graph, operators) if options.keep_first_last else excluded
    # A node that was merged from several is called like one of them, and how: `node_linear/MatMulAddFusion`.
    chosen = [name for name in names if name not in kept and name.partition("/")[0] not in kept]
    rounding = _rounding_inputs(graph, excluded)
    chosen = [name for name in chosen if name not in rounding]
    kinds = {node.name: node.op_type for node in graph.node}
    return chosen if any(kinds[name] in operators for name in chosen) else []


def _rounding_inputs(graph: onnx.GraphProto, excluded: frozenset[str]) -> set[str]:
    """Names of the nodes that would hand 8-bit values to an excluded convolution.

    ONNX Runtime has no convolution of integers whose output is not rounded to 8 bits, and a convolution is excluded
    most often because of the range of its inputs.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    waiting = [
        node.input[0]
        for node in graph.node
        if node.op_type in _CONVOLUTIONS and (node.name in excluded or node.name.partition("/")[0] in excluded)
    ]
    while waiting:
        node = made_by.get(waiting.pop())
        if node is not None and node.op_type in (*_CONVOLUTIONS, *ELEMENTWISE):
            found.add(node.name)
            waiting += node.input[:1] if node.op_type in ELEMENTWISE else []
    return found


def _multiplies_weights(node: onnx.NodeProto, weights: set[str]) -> bool:
    return any(name in weights for name in node.input[:2])


def _reduced(options: Options) -> bool:
    return sums_overflow() if options.reduce_range is None else options.reduce_range


@contextmanager
def _without_talk() -> Iterator[None]:
    """Silence what the quantizers print and log about their progress."""
    from onnxruntime.quantization import calibrate

    root = logging.getLogger()
    muffle = _Muffle()
    vars(calibrate)["print"] = lambda *_, **__: None
    root.addFilter(muffle)
    try:
        yield
    finally:
        root.removeFilter(muffle)
        del vars(calibrate)["print"]


class _Muffle(logging.Filter):
    """Lets through what others log by the root logger at the same time."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "onnxruntime" not in record.pathname
