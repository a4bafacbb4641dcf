"""TorchScript: the model traced on its inputs, frozen and optimized for inference.

A trace knows one path through the model and one set of shapes, so each signature gets a trace of its own, and each is
compared with the original twice.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from neural_coder.runtime.engine import REDUCED_TOLERANCE, Conversion, Engine, Program, Request

if TYPE_CHECKING:
    import torch

    from neural_coder.runtime.structure import Call


class Traced(Conversion):
    """A copy that is traced for each signature."""

    def program(self, call: Call, output: object) -> Program:
        """Trace the copy on the tensors of `call`."""
        from neural_coder.runtime.flat import FlatProgram, check_output

        check_output(output)
        traced = self._trace(call)
        self.graphs += 1
        return FlatProgram(lambda tensors: traced(*tensors), output)

    def _trace(self, call: Call) -> torch.jit.ScriptModule:
        import torch

        from neural_coder.runtime.flat import Flat

        flat = Flat(self.module, call).eval()
        with torch.no_grad(), warnings.catch_warnings():
            # Tracing reads every property of every module, those too that a library has deprecated.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            traced = torch.jit.trace(flat, tuple(call.leaves.tensors), strict=False, check_trace=False)
            return torch.jit.optimize_for_inference(torch.jit.freeze(traced))


class TorchscriptEngine(Engine):
    """Traced, frozen and optimized for inference."""

    precisions = ("fp32", "bf16")
    specialised = True
    max_kinds = 4
    checks = 2
    under_autocast = False  # a trace under autocast would keep casts of weights that it must not keep

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
        return Traced(twin(model, dtype), compute_dtype=dtype)


ENGINE = TorchscriptEngine()
