"""Quantization of OpenVINO's models by NNCF: static, or of weights while activations are quantized on the fly."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from neural_coder.runtime.engine import CannotConvert, Request
from neural_coder.runtime.exported import Exported
from neural_coder.runtime.openvino_graph import MULTIPLYING, Translated, operator_of
from neural_coder.runtime.openvino_library import nncf, quiet_nncf
from neural_coder.runtime.openvino_recurrent import mend
from neural_coder.runtime.overflow import sums_overflow

if TYPE_CHECKING:
    from neural_coder.runtime.engine_openvino import Options

_IN_FLOAT = frozenset({"embedding", "native_layer_norm", "layer_norm", "_softmax", "softmax"})
"""Operators that stay in floating point: they lose much and win little."""
_ATTENTION = frozenset({"scaled_dot_product_attention", "_softmax", "softmax"})
_NARROWEST = 16
"""Layers that are narrower than this are not worth quantizing."""
_RANGES = {
    "minmax": "MINMAX", "mean": "MEAN_MINMAX", "median": "MEDIAN_MINMAX", "percentile": "MEAN_QUANTILE",
    "histogram": "HISTOGRAM",
}  # fmt: skip


def quantize(translated: Translated, request: Request, excluded: Collection[str], options: Options) -> Any:
    """Return a quantized `openvino.Model`.

    Args:
        translated: The model in floating point.
        request: What was asked for, with calibration data.
        excluded: Names of modules that stay in floating point.
        options: How to quantize.

    Raises:
        CannotConvert: when no calibration data fits the graph.
    """
    samples = _samples(translated.exported, request)
    library = nncf()
    ignored = library.IgnoredScope(names=_ignored(translated, excluded, options), validate=False)
    # What is under the decorators of nncf.quantize is the same without telemetry.
    run = inspect.unwrap(library.quantize)
    with quiet_nncf():
        model = run(
            translated.model,
            library.Dataset(samples),
            preset=None if options.preset == "auto" else library.QuantizationPreset(options.preset),
            target_device=library.TargetDevice.CPU,
            subset_size=len(samples),
            fast_bias_correction=True,
            model_type=library.ModelType.TRANSFORMER if _has_attention(translated.exported) else None,
            ignored_scope=ignored,
            advanced_parameters=_advanced(library, options),
        )
    mend(model, translated.model, narrow=sums_overflow())
    return model


def compress(translated: Translated, excluded: Collection[str]) -> tuple[Any, int]:
    """Return a model whose linear layers have 8-bit weights, and the number of activations that share a scale.

    With one scale for all that a layer multiplies, the multiplication is one of integers. OpenVINO takes one number for
    all layers, and those whose width is no multiple of it multiply in floating point: most of the work decides.

    Raises:
        CannotConvert: when it has no linear layers.
    """
    left_out = set(translated.exported.excluded(excluded))
    layers = {
        name: shape
        for name, shape in _linear_layers(translated.model)
        if name.partition("/")[0] not in left_out and min(shape) >= _NARROWEST
    }
    if not layers:
        raise CannotConvert("it has no linear layer of which OpenVINO quantizes the activations")
    others = [
        operation.get_friendly_name()
        for operation in translated.model.get_ops()
        # To ignore a constant is to ignore the layer that it is the weight of.
        if operation.get_friendly_name() not in layers and operation.get_type_name() != "Constant"
    ]
    widths = [width for width, _ in layers.values()]
    work = {
        group: sum(width * height for width, height in layers.values() if width % group == 0)
        for group in {*widths, math.gcd(*widths)}
        if group >= _NARROWEST
    }
    library = nncf()
    run = inspect.unwrap(library.compress_weights)
    with quiet_nncf():
        model = run(
            translated.model,
            mode=library.CompressWeightsMode.INT8_SYM,
            ignored_scope=library.IgnoredScope(names=others, validate=False),
        )
    return model, max(work, key=lambda group: (work[group], group))


def _linear_layers(model: Any) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names of multiplications by a constant matrix, each with the width and the height of the matrix."""
    for operation in model.get_ops():
        if operation.get_type_name() != "MatMul":
            continue
        weight = operation.input_value(1).get_node()
        if weight.get_type_name() == "Constant" and len(weight.shape) == 2:
            height, width = weight.shape if operation.get_attributes()["transpose_b"] else reversed(weight.shape)
            yield operation.get_friendly_name(), (width, height)


def _samples(exported: Exported, request: Request) -> list[Mapping[int, Any]]:
    """Calibration data that the graph takes, as NNCF wants it."""
    from neural_coder.runtime.openvino_session import view

    dtypes = [tensor.dtype for tensor in exported.example]
    fitting = [
        tensors
        for tensors in (call.leaves.tensors for call in request.calibration.calls)
        if exported.shapes.admit(tensors) and [tensor.dtype for tensor in tensors] == dtypes
    ]
    if not fitting:
        raise CannotConvert("none of the calibration data has the shapes and types of this call")
    return [{place: view(tensor.contiguous()) for place, tensor in enumerate(tensors)} for tensors in fitting]


def _ignored(translated: Translated, excluded: Collection[str], options: Options) -> list[str]:
    """Names of the model's operations that stay in floating point."""
    nodes = {node.name for node in translated.exported.program.graph.nodes if operator_of(node) in _IN_FLOAT}
    nodes.update(translated.exported.excluded(excluded))
    if options.keep_first_last:
        multiplying = [n.name for n in translated.exported.program.graph.nodes if operator_of(n) in MULTIPLYING]
        nodes.update({*multiplying[:1], *multiplying[-1:]})
    names = [operation.get_friendly_name() for operation in translated.model.get_ops()]
    return [name for name in names if name.partition("/")[0] in nodes]


def _has_attention(exported: Exported) -> bool:
    return any(operator_of(node) in _ATTENTION for node in exported.program.graph.nodes)


def _advanced(library: Any, options: Options) -> Any:
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    parameters = library.AdvancedQuantizationParameters(disable_bias_correction=not options.bias_correction)
    if options.observer != "auto":
        found = getattr(RangeEstimatorParametersSet, _RANGES[options.observer])
        parameters.activations_range_estimator_params = found
    if options.alpha is not None:
        parameters.smooth_quant_alphas = library.AdvancedSmoothQuantParameters(matmul=options.alpha)
    if sums_overflow():
        parameters.overflow_fix = library.OverflowFix.ENABLE
    return parameters
