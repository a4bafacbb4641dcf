"""Static quantization of OpenVINO's models by NNCF."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch

from neural_coder.runtime.engine import CannotConvert, Request
from neural_coder.runtime.exported import Exported
from neural_coder.runtime.openvino_graph import Translated
from neural_coder.runtime.openvino_library import nncf, quiet_nncf

if TYPE_CHECKING:
    from neural_coder.runtime.engine_openvino import Options

_IN_FLOAT = frozenset({"embedding", "native_layer_norm", "layer_norm", "_softmax", "softmax"})
"""Operators that stay in floating point: they lose much and win little."""
_MULTIPLYING = frozenset({"linear", "convolution", "addmm", "mm", "bmm", "matmul"})
_ATTENTION = frozenset({"scaled_dot_product_attention", "_softmax", "softmax"})
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
        return run(
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
    nodes = {node.name for node in translated.exported.program.graph.nodes if _operator(node) in _IN_FLOAT}
    nodes.update(translated.exported.excluded(excluded))
    if options.keep_first_last:
        multiplying = [n.name for n in translated.exported.program.graph.nodes if _operator(n) in _MULTIPLYING]
        nodes.update({*multiplying[:1], *multiplying[-1:]})
    names = [operation.get_friendly_name() for operation in translated.model.get_ops()]
    return [name for name in names if name.partition("/")[0] in nodes]


def _has_attention(exported: Exported) -> bool:
    return any(_operator(node) in _ATTENTION for node in exported.program.graph.nodes)


def _operator(node: torch.fx.Node) -> str:
    """`linear` for `aten.linear.default`; empty for what is no operator."""
    return str(getattr(getattr(node.target, "overloadpacket", None), "__name__", ""))


def _advanced(library: Any, options: Options) -> Any:
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    parameters = library.AdvancedQuantizationParameters(disable_bias_correction=not options.bias_correction)
    if options.observer != "auto":
        found = getattr(RangeEstimatorParametersSet, _RANGES[options.observer])
        parameters.activations_range_estimator_params = found
    if options.alpha is not None:
        parameters.smooth_quant_alphas = library.AdvancedSmoothQuantParameters(matmul=options.alpha)
    if platform.machine() in ("x86_64", "AMD64") and not torch.cpu._is_vnni_supported():
        # Without VNNI two products of 8 bits overflow their sum of 16 bits.
        parameters.overflow_fix = library.OverflowFix.ENABLE
    return parameters
