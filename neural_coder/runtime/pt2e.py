"""PT2E quantization of an exported graph with torchao, in the patterns that Inductor turns into integer kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torchao.quantization import pt2e
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

from neural_coder.runtime.engine import CannotConvert, Request
from neural_coder.runtime.exported import Exported
from neural_coder.runtime.overflow import sums_overflow

_LAYERS = (torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
_OBSERVERS = {
    "histogram": pt2e.HistogramObserver,
    "minmax": pt2e.MinMaxObserver,
    "moving_average": pt2e.MovingAverageMinMaxObserver,
}


class _Quantizer(x86.X86InductorQuantizer):  # type: ignore[misc]  # torchao is not followed, so it is Any to mypy
    """Inductor's quantizer, but for some nodes."""

    def __init__(self, kept: set[str]) -> None:
        super().__init__()
        self._kept = kept

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Mark the nodes that stay in floating point as done before the others are looked at."""
        for node in model.graph.nodes:
            if node.name in self._kept:
                done = x86._X86InductorQuantizationAnnotation(_annotated=True)
                node.meta[x86.QUANT_ANNOTATION_KEY] = done
        return super().annotate(model)


class _Quantized(torch.nn.Module):  # type: ignore[misc]  # as above
    """A quantized graph; what it multiplies in floating point it may do in bfloat16."""

    def __init__(self, graph: torch.fx.GraphModule, bfloat16: bool) -> None:
        super().__init__()
        self.quantized = graph
        self._bfloat16 = bfloat16

    def forward(self, *tensors: torch.Tensor) -> object:
        if not self._bfloat16:
            return self.quantized(*tensors)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.quantized(*tensors)


def quantize(exported: Exported, request: Request) -> tuple[Exported, int]:
    """Quantize convolutions and linear layers, and what stands between them.

    Args:
        exported: The graph in floating point.
        request: Its options are those of the engine `inductor`.

    Returns:
        The quantized graph, and the number of its layers that compute in integers.

    Raises:
        CannotConvert: when there is nothing to quantize, or no calibration data for the graph.
    """
    graph = exported.program.module(check_guards=False)
    # What leads to no output makes the quantizer stumble.
    graph.graph.eliminate_dead_code()
    graph.recompile()
    _lay_out_in_order(graph)
    quantizer = _Quantizer(_kept(exported, graph, request)).set_global(_recipe(request))
    prepared = prepare_pt2e(graph, quantizer)
    for tensors in _examples(exported, request):
        prepared(*tensors)
    converted = convert_pt2e(prepared)
    _mend_scales(converted)
    count = sum(_is_quantized(node) for node in converted.graph.nodes)
    if not count:
        but = "that is not excluded" if request.settings.exclude else "to quantize"
        kind = "linear layer" if request.precision == "int8_dynamic" else "convolution or linear layer"
        raise CannotConvert(f"it has no {kind} {but}")
    whole = _Quantized(converted, request.precision == "int8_static_bf16")
    program = torch.export.export(whole, exported.example, dynamic_shapes=(_dynamic(exported),), strict=False)
    return dataclasses.replace(exported, program=program), count


def _lay_out_in_order(graph: torch.fx.GraphModule) -> None:
    """Give the graph weights of its own where they lie in memory in another order than that of their dimensions.

    Inductor packs quantized weights as if they had no strides (seen in PyTorch 2.13: a transposed weight was read as if
    it were not).
    """
    for name, weight in [*graph.named_parameters(remove_duplicate=False)]:
        if not weight.is_contiguous():
            owner, _, attribute = name.rpartition(".")
            ordered = torch.nn.Parameter(weight.detach().contiguous(), requires_grad=False)
            setattr(graph.get_submodule(owner), attribute, ordered)


def _mend_scales(converted: torch.fx.GraphModule) -> None:
    """Let scales that are found in each call be those of PyTorch's own operator.

    Inductor's form of it forgets that zero must be within the range, and cuts off what has no zero in it (seen in
    PyTorch 2.13: an error of 12 % where 0.5 % is due, after a pooling of positive features).
    """
    for node in converted.graph.nodes:
        if node.target is torch.ops.quantized_decomposed.choose_qparams.tensor:
            node.target = _scale_and_zero
    converted.recompile()


def _scale_and_zero(
    tensor: torch.Tensor, low: int, high: int, smallest: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    least, most = torch.clamp(torch.amin(tensor), max=0), torch.clamp(torch.amax(tensor), min=0)
    scale = torch.clamp((most - least) / (high - low), min=smallest)
    zero = torch.clamp(low - torch.round(least / scale), low, high)
    return scale.double().reshape(1), zero.long().reshape(1)


def _recipe(request: Request) -> Any:
    options: Any = request.settings.options
    reduce_range = sums_overflow() if options.reduce_range is None else options.reduce_range
    recipe = x86.get_default_x86_inductor_quantization_config(
        is_dynamic=request.precision == "int8_dynamic", reduce_range=reduce_range
    )
    if request.precision == "int8_dynamic":
        return recipe
    observer = _OBSERVERS[options.observer].with_args(eps=2**-12)
    activation = dataclasses.replace(recipe.input_activation, observer_or_fake_quant_ctr=observer)
    return dataclasses.replace(recipe, input_activation=activation, output_activation=activation)


def _kept(exported: Exported, graph: torch.fx.GraphModule, request: Request) -> set[str]:
    """Names of the nodes that stay in floating point."""
    options: Any = request.settings.options
    kept = set(exported.excluded(request.settings.exclude))
    nodes = [node for node in graph.graph.nodes if node.target in _LAYERS]
    if request.precision == "int8_dynamic":  # Inductor has no kernel for convolutions with scales found in each call
        kept |= {node.name for node in nodes if node.target is not torch.ops.aten.linear.default}
    layers = [node.name for node in nodes if node.name not in kept]
    return kept | {*layers[:1], *layers[-1:]} if options.keep_first_last else kept


def _examples(exported: Exported, request: Request) -> Sequence[Sequence[torch.Tensor]]:
    """What the observers look at; with scales found in each call only weights are looked at, and any input will do."""
    if not request.settings.needs_calibration:
        return [exported.example]
    calls = [tuple(call.leaves.tensors) for call in request.calibration.calls]
    fitting = [tensors for tensors in calls if exported.shapes.admit(tensors)]
    if not fitting:
        raise CannotConvert("there is no calibration data of these shapes")
    return fitting


def _dynamic(exported: Exported) -> tuple[dict[int, object] | None, ...]:
    return tuple(
        {place: torch.export.Dim.AUTO for place, size in enumerate(shape) if not isinstance(size, int)} or None
        for shape in exported.shapes.inputs
    )


def _is_quantized(node: torch.fx.Node) -> bool:
    """Whether a layer's weights are stored in integers."""
    if node.target not in _LAYERS:
        return False
    weight = node.args[1]
    return isinstance(weight, torch.fx.Node) and "dequantize" in str(weight.target)
