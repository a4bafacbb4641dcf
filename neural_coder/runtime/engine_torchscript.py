"""TorchScript: the model traced on its inputs, frozen and optimized for inference.

A trace knows one path through the model and one set of shapes, so each signature gets a trace of its own, and each is
compared with the original twice.
"""

from __future__ import annotations

import hashlib
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from neural_coder.runtime.engine import REDUCED_TOLERANCE, Conversion, Engine, Program, Request

if TYPE_CHECKING:
    import torch

    from neural_coder.runtime.structure import Call


log = logging.getLogger(__name__)

_TRACE = "trace.pt"
_CALL = "call.txt"


class Traced(Conversion):
    """A copy that is traced for each signature."""

    def __init__(self, module: torch.nn.Module, request: Request, compute_dtype: torch.dtype | None) -> None:
        """See `Conversion`."""
        super().__init__(module, compute_dtype=compute_dtype)
        self._entry = request.entry

    def program(self, call: Call, output: object) -> Program:
        """Trace the copy on the tensors of `call`."""
        from neural_coder.runtime.flat import FlatProgram, check_output

        check_output(output)
        traced = self._optimized(call)
        self.graphs += 1
        return FlatProgram(lambda tensors: traced(*tensors), output)

    def _optimized(self, call: Call) -> torch.jit.ScriptModule:
        """Optimizing packs weights in ways that cannot be saved, so that it is done to what was kept, too."""
        import torch

        signature = hashlib.sha256(repr(call.exact_key()).encode()).hexdigest()
        frozen = self._kept(signature)
        if frozen is None:
            frozen = self._trace(call)
            self._keep(frozen, signature)
        with torch.no_grad():
            return torch.jit.optimize_for_inference(frozen)

    def _kept(self, signature: str) -> torch.jit.ScriptModule | None:
        """The trace that an earlier run has made for such a call."""
        import torch

        for part in self._entry.parts() if self._entry else ():
            if (part / _CALL).read_text() == signature:
                return torch.jit.load(part / _TRACE)
        return None

    def _keep(self, frozen: torch.jit.ScriptModule, signature: str) -> None:
        import torch

        def write(folder: Path) -> None:
            # Not straight to the file: on a full disk PyTorch's writer ends the process.
            stream = io.BytesIO()
            torch.jit.save(frozen, stream)
            (folder / _TRACE).write_bytes(stream.getbuffer())
            (folder / _CALL).write_text(signature)

        try:
            if self._entry is not None:
                self._entry.add(write)
        except (OSError, RuntimeError) as error:  # PyTorch reports a full disk as a RuntimeError
            self.cache_problem = f"the cache cannot be written ({str(error).splitlines()[0]})"
            log.warning("The converted model is not kept: %s.", self.cache_problem)

    def _trace(self, call: Call) -> torch.jit.ScriptModule:
        import torch

        from neural_coder.runtime.flat import Flat

        flat = Flat(self.module, call).eval()
        with torch.no_grad(), warnings.catch_warnings():
            # Tracing reads every property of every module, those too that a library has deprecated.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            traced = torch.jit.trace(flat, tuple(call.leaves.tensors), strict=False, check_trace=False)
            return torch.jit.freeze(traced)


class TorchscriptEngine(Engine):
    """Traced, frozen and optimized for inference."""

    precisions = ("fp32", "bf16")
    keeps = True
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
        return Traced(twin(model, dtype), request, dtype)


ENGINE = TorchscriptEngine()
