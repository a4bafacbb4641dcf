"""Static int8 of Intel Extension for PyTorch: observe, calibrate, leave out what was named, convert."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import intel_extension_for_pytorch as ipex
import torch
from torch.ao.quantization import HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver, QConfig, QConfigMapping

from neural_coder.runtime.engine import CannotConvert, Request
from neural_coder.runtime.engine_ipex import autocast
from neural_coder.runtime.exclusion import excluded_modules
from neural_coder.runtime.flat import Flat
from neural_coder.runtime.ipex_threads import in_this_thread_only
from neural_coder.runtime.overflow import sums_overflow
from neural_coder.runtime.structure import Call, tensors_of

_INNER = "module"
"""The model's name inside of what is quantized."""
_INTEGERS = ("torch.quint8", "torch.qint8")


class Called(Flat):
    """As `Flat`, but the model is called as a module: the extension counts operators module by module."""

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Put the tensors where they belong in the example, and list the tensors of the answer."""
        given = iter(tensors)
        call = self._example.with_tensors(lambda _: next(given))
        return tuple(tensors_of(self.module(*call.args, **call.kwargs)))


def quantized(
    copied: torch.nn.Module, request: Request, like: Call, *, observer: str, alpha: float | None
) -> tuple[torch.nn.Module, int]:
    """Quantize a copy of a model.

    Args:
        copied: The copy; it is changed.
        request: Holds the calls to calibrate on, and what is not to be quantized.
        like: A call of the structure, and with the plain values, that it is quantized for.
        observer: How ranges are found: `histogram` or `minmax`.
        alpha: Of SmoothQuant; None: without it.

    Returns:
        The model, which takes and gives nothing but tensors, and how many of its operators compute in integers.

    Raises:
        CannotConvert: when it cannot be quantized, or a name stands for nothing.
    """
    excluded = excluded_modules(copied, request.settings.exclude)
    data = _tensors(request, like)
    with in_this_thread_only():
        prepared = _prepared(Called(copied, like).eval(), data[0], _mapping(observer, alpha))
        _calibrate(prepared, data)
    count = _leave_out(prepared, excluded)
    if not count:
        raise CannotConvert("it has nothing that the extension quantizes")
    with autocast(request.precision.endswith("bf16")):
        return ipex.quantization.convert(prepared, inplace=True).eval(), count


def _tensors(request: Request, like: Call) -> list[tuple[torch.Tensor, ...]]:
    """The tensors of the calibration data that may stand in the places of a call's."""
    kinds = [(tensor.dtype, tensor.dim()) for tensor in like.leaves.tensors]
    given = [[tensor.contiguous() for tensor in call.leaves.tensors] for call in request.calibration.calls]
    data = [tuple(tensors) for tensors in given if [(tensor.dtype, tensor.dim()) for tensor in tensors] == kinds]
    if not data:
        raise CannotConvert("its tensors are of other types than those of the calibration data")
    return data


def _prepared(flat: torch.nn.Module, tensors: tuple[torch.Tensor, ...], mapping: QConfigMapping) -> torch.nn.Module:
    try:
        prepared: torch.nn.Module = ipex.quantization.prepare(
            flat, mapping, example_inputs=tensors, inplace=True, bn_folding=False
        )
    except Exception as error:  # the border to the extension, which follows each operator of the model
        lines = str(error).strip().splitlines()
        words = lines[0][:300] if lines else type(error).__name__
        raise CannotConvert(f"the extension cannot follow its forward: {words}") from error
    return prepared


def _calibrate(prepared: torch.nn.Module, data: Sequence[tuple[torch.Tensor, ...]]) -> None:
    for tensors in data:
        try:
            prepared(*tensors)
        except Exception as error:  # the border to the extension, which expects the operators of the first call
            lines = str(error).strip().splitlines()
            words = f": {lines[0][:200]}" if lines else ""
            raise CannotConvert(
                "its forward takes another way in some calls than in the first one, and the extension quantizes no "
                f"such models ({type(error).__name__}{words})"
            ) from error


def _mapping(observer: str, alpha: float | None) -> QConfigMapping:
    kind = {"histogram": HistogramObserver, "minmax": MinMaxObserver}[observer]
    activation = kind.with_args(quant_min=0, quant_max=127 if sums_overflow() else 255)
    if alpha is not None:
        return ipex.quantization.get_smooth_quant_qconfig_mapping(alpha=alpha, act_observer=activation)
    weight = PerChannelMinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_channel_symmetric)
    return QConfigMapping().set_global(QConfig(activation=activation, weight=weight))


def _leave_out(prepared: Any, excluded: frozenset[str]) -> int:
    """Keep operators of some modules in floating point; returns how many are quantized.

    The extension hands out what it has found as a file of its own, and takes it back changed.
    """
    with tempfile.TemporaryDirectory(prefix="neural-coder-") as folder:
        file = Path(folder) / "quantization.json"
        prepared.save_qconf_summary(qconf_summary=str(file))
        layers = json.loads(file.read_text(encoding="utf-8"))
        operators = [info for layer in layers.values() for info in layer["q_op_infos"].values()]
        left = [info for info in operators if _module(info) in excluded]
        for info in left:
            _keep_in_float(info)
        if left:
            file.write_text(json.dumps(layers), encoding="utf-8")
            prepared.load_qconf_summary(qconf_summary=str(file))
    return sum(_is_quantized(info) for info in operators)


def _module(info: dict[str, Any]) -> str:
    """The module that an operator is, or that calls it."""
    return str(info["fqn"]).removeprefix(_INNER).removeprefix(".")


def _keep_in_float(info: dict[str, Any]) -> None:
    for tensor in (*info["input_tensor_infos"], *info["weight_tensor_infos"]):
        if tensor:
            tensor["inf_dtype"] = tensor["orig_dtype"]
            if "force_dtype" in tensor:
                tensor["force_dtype"] = tensor["orig_dtype"]


def _is_quantized(info: dict[str, Any]) -> bool:
    used = [tensor.get("force_dtype") for tensor in info["input_tensor_infos"] if tensor]
    return any(dtype in _INTEGERS for dtype in used)
