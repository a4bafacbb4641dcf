"""Exported graphs as libraries of machine code: PyTorch's AOTInductor, with frozen weights.

They compute what `torch.compile` with freezing computes, need no compiler when they are loaded again, and check nothing
about their inputs: shapes and types are looked at before, and strides are made those that were compiled for.
"""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from neural_coder.runtime.compiled import inductor_options
from neural_coder.runtime.engine import CannotConvert, Program, Request
from neural_coder.runtime.exported import Exported, Shapes
from neural_coder.runtime.graphs import Graphs, Session
from neural_coder.runtime.processor import instructions
from neural_coder.runtime.structure import Call

_LIBRARY = "model.pt2"
_QUANTIZED = "quantized.json"
_LONGEST = 300
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""Errors that are the cache's: a full disk, or one that cannot be written."""


class Packaged(Graphs):
    """A model as compiled libraries, quantized before where that was asked for."""

    def __init__(self, module: torch.nn.Module, request: Request, *, max_autotune: bool) -> None:
        """See `Graphs`."""
        self._max_autotune = max_autotune
        super().__init__(module, request)

    def program(self, call: Call, output: object) -> Program:
        """Answer calls like `call`; the strides that it is compiled for are those of contiguous tensors."""
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
            return super().program(call.with_tensors(_contiguous), output)

    def write(self, exported: Exported, folder: Path) -> None:
        """Quantize and compile."""
        quantized = 0
        if self.request.precision.startswith("int8"):
            from neural_coder.runtime.pt2e import quantize

            exported, quantized = quantize(exported, self.request)
        stream = io.BytesIO()  # not the file itself: on a full disk PyTorch's writer ends the process
        try:
            torch._inductor.aoti_compile_and_package(
                exported.program,
                package_path=stream,
                inductor_configs=inductor_options(self._max_autotune),
            )
        except Exception as error:  # the border to the compiler, which raises many kinds
            if isinstance(error, OSError) and error.errno in _DISK:
                raise
            raise CannotConvert(f"Inductor cannot compile it: {_words(error)}") from error
        (folder / _LIBRARY).write_bytes(stream.getbuffer())
        (folder / _QUANTIZED).write_text(json.dumps(quantized))

    def open(self, folder: Path, shapes: Shapes) -> Session:
        """Load the library."""
        try:
            loader = torch._C._aoti.AOTIModelPackageLoader(str(folder / _LIBRARY), "model", False, 1, -1)
        except (AttributeError, RuntimeError, TypeError) as error:  # a PyTorch without it, or a damaged library
            raise CannotConvert(f"Inductor's library cannot be loaded: {_words(error)}") from error
        self.quantized_modules = max(self.quantized_modules, json.loads((folder / _QUANTIZED).read_text()))

        def run(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
            answer: list[Tensor] = loader.run([_contiguous(tensor) for tensor in tensors])
            return answer

        return run

    def dtypes(self) -> Iterator[str]:
        """Names of the types that weights are stored in; quantized ones are `int8`."""
        if self.quantized_modules:
            yield "int8"
        if self.request.precision == "int8_static_bf16":
            yield "bfloat16"
        else:
            yield from super().dtypes()


def surroundings() -> str:
    """What compiled code depends on besides the model: the processor it was made for, and the number of threads."""
    return f"{torch.get_num_threads()} threads, {instructions()}"


def _words(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0][:_LONGEST]}"


def _contiguous(tensor: Tensor) -> Tensor:
    if tensor.is_neg() or tensor.is_conj():  # marks that compiled code, which reads the memory itself, does not see
        tensor = tensor.resolve_conj().resolve_neg()
    return tensor if tensor.is_contiguous() else tensor.contiguous()
