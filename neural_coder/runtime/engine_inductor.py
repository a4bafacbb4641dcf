"""TorchInductor: `torch.compile` with weights frozen into the compiled graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from neural_coder.runtime.engine import REDUCED_TOLERANCE, Conversion, Engine, Program, Request

if TYPE_CHECKING:
    import torch

    from neural_coder.runtime.structure import Call


class Compiled(Conversion):
    """A copy that is compiled when it is first called."""

    def __init__(self, module: torch.nn.Module, *, compute_dtype: torch.dtype | None = None) -> None:
        """Compile `module`; see `Conversion`."""
        import torch

        super().__init__(module, compute_dtype=compute_dtype)
        self._compiled = torch.compile(module, options={"freezing": True})

    def program(self, call: Call, output: object) -> Program:
        """The compiled module, for all kinds of call: it compiles anew for what it has not seen."""
        return self._run

    def _run(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        from torch._dynamo.utils import counters

        before = counters["stats"]["unique_graphs"]
        output = self._compiled(*args, **kwargs)
        self.graphs += counters["stats"]["unique_graphs"] - before
        return output


class InductorEngine(Engine):
    """Compiled with freezing."""

    precisions = ("fp32", "bf16")

    def tolerance(self, precision: str) -> float:
        """Rounding only at fp32."""
        return REDUCED_TOLERANCE if precision == "bf16" else 0.01

    def memory(self, precision: str) -> float:
        """Frozen weights are held a second time, in the layout of the kernels."""
        return 1.0 if precision == "bf16" else 1.5

    def convert(self, model: torch.nn.Module, request: Request) -> Conversion:
        """Copy the model, in bfloat16 where asked for."""
        from neural_coder.runtime.conversion import twin

        dtype = self.compute_dtype(request.precision)
        return Compiled(twin(model, dtype), compute_dtype=dtype)


ENGINE = InductorEngine()
