"""torchao's dynamic int8, compiled: fast only with TorchInductor, which fuses the quantization of activations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from neural_coder.runtime.compiled import Compiled
from neural_coder.runtime.engine import QUANTIZED_TOLERANCE, CannotConvert, Conversion, Engine, Request

if TYPE_CHECKING:
    import torch


class CompiledInt8(Compiled):
    """A compiled copy whose linear layers hold torchao's 8-bit weights."""

    def dtypes(self) -> Iterator[str]:
        """Names of the types of its weights, as they are stored."""
        yield "int8"
        yield from (
            str(weight.dtype).removeprefix("torch.") for weight in self.module.parameters() if not _is_quantized(weight)
        )


class TorchaoEngine(Engine):
    """torchao's quantization, compiled with freezing."""

    precisions = ("int8_dynamic",)
    modules = ("torchao",)
    extra = "torchao"

    def tolerance(self, precision: str) -> float:
        """Quantization may lose much and still keep the answers."""
        return QUANTIZED_TOLERANCE

    def memory(self, precision: str) -> float:
        """A quarter of the weights, once more in the layout of the kernels, and what compiling takes."""
        return 1.0

    def convert(self, model: torch.nn.Module, request: Request) -> Conversion:
        """Quantize the linear layers of a copy."""
        import torch
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        from neural_coder.runtime.conversion import twin
        from neural_coder.runtime.exclusion import excluded_modules

        excluded = excluded_modules(model, request.settings.exclude)

        def is_wanted(part: torch.nn.Module, name: str) -> bool:
            not_meant = torch.nn.modules.linear.NonDynamicallyQuantizableLinear
            return isinstance(part, torch.nn.Linear) and not isinstance(part, not_meant) and name not in excluded

        module = twin(model)
        with torch.inference_mode(False), torch.no_grad():
            # Its own settings for Inductor are meant for GPUs and would change the user's other models too.
            quantize_(module, Int8DynamicActivationInt8WeightConfig(set_inductor_config=False), is_wanted)
            _narrow(module)
        conversion = CompiledInt8(module)
        conversion.quantized_modules = sum(_is_quantized(getattr(part, "weight", None)) for part in module.modules())
        if not conversion.quantized_modules:
            but = "that is not excluded" if excluded else "to quantize"
            raise CannotConvert(f"it has no Linear layer {but}")
        return conversion


def _narrow(module: torch.nn.Module) -> None:
    """Give weights 7 bits where sums of products overflow: Inductor's kernel cuts them off, and torchao has no setting.

    On a CPU without VNNI, 8 bits gave a network of two layers an error of 23 %, 7 bits one of 1.8 %.
    """
    from neural_coder.runtime.overflow import sums_overflow

    for weight in module.parameters():
        if _is_quantized(weight) and weight.device.type == "cpu" and sums_overflow():
            if not hasattr(weight, "qdata"):
                raise CannotConvert("sums of 8-bit products overflow on this processor; update torchao for 7 bits")
            weight.qdata.copy_((weight.qdata / 2).round())
            weight.scale.mul_(2)


def _is_quantized(weight: object) -> bool:
    return any(base.__module__.startswith("torchao.") for base in (type(weight), type(getattr(weight, "data", None))))


ENGINE = TorchaoEngine()
