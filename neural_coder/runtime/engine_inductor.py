"""TorchInductor: graphs compiled ahead of time and kept on disk, or `torch.compile` where that cannot be.

Weights are frozen into the compiled code either way.
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from neural_coder.runtime.compiled import Compiled
from neural_coder.runtime.conversion import twin
from neural_coder.runtime.engine import (
    QUANTIZED_TOLERANCE,
    REDUCED_TOLERANCE,
    CannotConvert,
    Conversion,
    Engine,
    Program,
    Request,
)
from neural_coder.runtime.exclusion import excluded_modules
from neural_coder.runtime.packaged import Packaged, surroundings
from neural_coder.runtime.structure import Call

OBSERVERS = ("histogram", "minmax", "moving_average")
_X86 = ("x86_64", "amd64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings that only Inductor has; those about layers and scales are for int8."""

    max_autotune: bool = False
    """Compile several forms of each matrix multiplication and take the fastest; compiling takes far longer."""
    observer: str = "histogram"
    """How static scales are found: `histogram` (smallest error), `minmax` or `moving_average`."""
    reduce_range: bool | None = None
    """Quantize activations to 7 bits, since sums overflow on CPUs without VNNI; None asks the CPU."""
    keep_first_last: bool = False
    """Leave the first and the last convolution or linear layer in floating point."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        if self.observer not in OBSERVERS:
            raise ValueError(f"observer is one of {', '.join(OBSERVERS)}; got {self.observer!r}")
        for name in ("max_autotune", "keep_first_last"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is True or False; got {getattr(self, name)!r}")
        if self.reduce_range not in (True, False, None):
            raise ValueError(f"reduce_range is True, False or None; got {self.reduce_range!r}")


class Inductor(Conversion):
    """A copy that is compiled for each group of shapes ahead of time, and while it runs where that is not possible."""

    def __init__(self, module: torch.nn.Module, request: Request, compute_dtype: torch.dtype | None) -> None:
        """Open what an earlier run has kept; see `Conversion`."""
        super().__init__(module, compute_dtype=compute_dtype)
        self._max_autotune = request.settings.options.max_autotune  # type: ignore[attr-defined]
        self._is_quantized = request.precision.startswith("int8")
        self._packaged: Packaged = Packaged(module, request, max_autotune=self._max_autotune)
        self._compiled: Compiled | None = None
        # Without a place to keep it, a library would only take longer to make.
        self._refused = "" if request.entry or self._is_quantized else "nothing is kept"
        self._count()

    def program(self, call: Call, output: object) -> Program:
        """Export and compile; `torch.compile` takes what cannot be exported or kept, and calls under autocast."""
        device = call.leaves.tensors[0].device.type
        other = device != "cpu" or torch.is_autocast_enabled(device)
        if not self._is_quantized and (self._refused or other):
            return self._compile(call, output)
        if device != "cpu":
            raise CannotConvert(f"its int8 kernels are for CPUs, and the model is on {device}")
        try:
            return self._packaged.program(call, output)
        except CannotConvert as error:
            if self._is_quantized:
                raise
            self._refused = str(error)
            return self._compile(call, output)
        finally:
            self._count()

    def dtypes(self) -> Iterator[str]:
        """Names of the types that weights are stored in."""
        return self._packaged.dtypes()

    def _compile(self, call: Call, output: object) -> Program:
        if self._compiled is None:
            self._compiled = Compiled(self.module, compute_dtype=self.compute_dtype, max_autotune=self._max_autotune)
        program = self._compiled.program(call, output)

        def run(args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
            answer = program(args, kwargs)
            self._count()
            return answer

        return run

    def _count(self) -> None:
        self.graphs = self._packaged.graphs + (self._compiled.graphs if self._compiled else 0)
        self.quantized_modules = self._packaged.quantized_modules
        self.cache_problem = self._packaged.cache_problem


class InductorEngine(Engine):
    """Compiled with freezing, in floating point or quantized by PT2E."""

    precisions = ("fp32", "bf16", "int8_dynamic", "int8_static", "int8_static_bf16")
    distributions = ("torchao",)
    options = Options
    keeps = True
    specialised = True
    max_kinds = 64

    def tolerance(self, precision: str) -> float:
        """Rounding only at fp32; quantization may lose much and still keep the answers."""
        return {"fp32": 0.01, "bf16": REDUCED_TOLERANCE}.get(precision, QUANTIZED_TOLERANCE)

    def memory(self, precision: str) -> float:
        """Frozen weights are held again, in the layout of the kernels, and once more while they are written."""
        return 1.5 if precision == "bf16" else 3.0

    def unavailable(self, precision: str) -> str:
        """Quantization needs torchao, and kernels that Inductor has for x86 only."""
        if not precision.startswith("int8"):
            return ""
        if platform.machine().lower() not in _X86:
            return f"Inductor quantizes for x86 processors, and this one is {platform.machine()}"
        absent = importlib.util.find_spec("torchao") is None
        return "torchao is not installed: pip install 'neural-coder[torchao]'" if absent else ""

    def surroundings(self) -> str:
        """Compiled code is made for one processor and a number of threads."""
        return surroundings()

    def convert(self, model: torch.nn.Module, request: Request) -> Conversion:
        """Copy the model, in bfloat16 where asked for; it is compiled when the shapes of a call are known."""
        if request.precision.startswith("int8"):
            excluded_modules(model, request.settings.exclude)  # refuses names that mean nothing
        dtype = self.compute_dtype(request.precision)
        return Inductor(twin(model, dtype), request, dtype)


ENGINE = InductorEngine()
