"""PyTorch without a compiler: weights in bfloat16, or PyTorch's own dynamic quantization."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from neural_coder.runtime.engine import (
    QUANTIZED_TOLERANCE,
    REDUCED_TOLERANCE,
    CannotConvert,
    Conversion,
    Engine,
    Request,
)

if TYPE_CHECKING:
    import torch

_QUANTIZED = ("torch.ao.nn.quantized.", "torch.nn.quantized.")
_LAYERS = ("Linear", "LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell")


class DynamicallyQuantized(Conversion):
    """A copy whose linear and recurrent layers hold weights in 8 bits."""

    def dtypes(self) -> Iterator[str]:
        """Names of the types of its weights; packed ones are `qint8`."""
        yield from super().dtypes()
        yield "qint8"


class TorchEngine(Engine):
    """Eager PyTorch."""

    precisions = ("fp32", "bf16", "int8_dynamic")
    takes_objects = True

    def original_suffices(self, precision: str) -> bool:
        """At fp32 this is how the original runs."""
        return precision == "fp32"

    def tolerance(self, precision: str) -> float:
        """A few per cent for bfloat16; quantization may lose much and still keep the answers."""
        return REDUCED_TOLERANCE if precision == "bf16" else QUANTIZED_TOLERANCE

    def memory(self, precision: str) -> float:
        """Half the weights for bfloat16, a quarter and what packing needs for int8."""
        return 0.5

    def convert(self, model: torch.nn.Module, request: Request) -> Conversion:
        """Copy the model in bfloat16, or with quantized layers."""
        from neural_coder.runtime.conversion import twin

        dtype = self.compute_dtype(request.precision)
        if dtype is None:
            return _int8_dynamic(model, request.settings.exclude)
        return Conversion(twin(model, dtype), compute_dtype=dtype)


def _int8_dynamic(model: torch.nn.Module, exclude: Sequence[str]) -> Conversion:
    import torch

    from neural_coder.runtime.conversion import twin
    from neural_coder.runtime.exclusion import excluded_modules

    try:
        from torch.ao.quantization import quantize_dynamic
    except ImportError as error:
        raise CannotConvert(
            f"PyTorch {torch.__version__} no longer has torch.ao.quantization; use engine='torchao' instead"
        ) from error
    kinds, excluded = {getattr(torch.nn, name) for name in _LAYERS}, excluded_modules(model, exclude)
    layers = {name for name, part in model.named_modules() if type(part) in kinds} - excluded
    with torch.inference_mode(False), torch.no_grad():
        module = quantize_dynamic(twin(model), layers, dtype=torch.qint8, inplace=True)
    conversion = DynamicallyQuantized(module)
    conversion.quantized_modules = sum(_is_quantized(part) for part in module.modules())
    if not conversion.quantized_modules:
        but = "that is not excluded" if exclude else "to quantize"
        raise CannotConvert(f"it has no Linear, LSTM or GRU layer {but}")
    return conversion


def _is_quantized(module: torch.nn.Module) -> bool:
    return type(module).__module__.startswith(_QUANTIZED) and type(module).__name__ in _LAYERS


ENGINE = TorchEngine()
