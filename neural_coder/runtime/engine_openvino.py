"""OpenVINO: graphs of a model on Intel and Arm CPUs, in fp32, bf16, or quantized to int8 by NNCF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neural_coder.runtime.engine import QUANTIZED_TOLERANCE, REDUCED_TOLERANCE, Conversion, Engine, Request

if TYPE_CHECKING:
    import torch

HINTS = ("latency", "throughput")
OBSERVERS = ("auto", "minmax", "mean", "median", "percentile", "histogram")
PRESETS = ("auto", "performance", "mixed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings that only OpenVINO has."""

    hint: str = "latency"
    """`latency` uses all threads for one call; `throughput` shares them between calls from several threads."""
    threads: int = 0
    """Threads of all calls together; 0 takes as many as PyTorch uses."""
    observer: str = "auto"
    """How ranges of activations are found on calibration data: `auto` (what NNCF takes for each kind of operation),
    `minmax`, `mean` or `median` (of each sample's extremes), `percentile` or `histogram`."""
    preset: str = "auto"
    """`performance` quantizes activations symmetrically, `mixed` asymmetrically where that is better; `auto` takes
    `mixed` for transformers."""
    alpha: float | None = None
    """Share of outliers that SmoothQuant moves from activations of transformers into weights, 0 to 1; -1 switches it
    off, None takes NNCF's default."""
    keep_first_last: bool = False
    """Leave the first and the last multiplying layer in floating point."""
    bias_correction: bool = True
    """Shift biases by the mean error that quantization makes."""

    def __post_init__(self) -> None:
        for name, known in (("hint", HINTS), ("observer", OBSERVERS), ("preset", PRESETS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}; got {getattr(self, name)!r}")
        if not isinstance(self.threads, int) or self.threads < 0:
            raise ValueError(f"threads is a number, 0 for as many as PyTorch uses; got {self.threads!r}")
        if self.alpha is not None and not (self.alpha == -1 or 0 <= self.alpha <= 1):
            raise ValueError(f"alpha is a number from 0 to 1, or -1 for no SmoothQuant; got {self.alpha!r}")


class OpenvinoEngine(Engine):
    """Compiled models of OpenVINO."""

    precisions = ("fp32", "bf16", "int8_dynamic", "int8_static", "int8_static_bf16")
    modules = ("openvino", "nncf")
    distributions = ("openvino", "nncf")
    extra = "openvino"
    options = Options
    keeps = True
    specialised = True
    max_kinds = 64

    def tolerance(self, precision: str) -> float:
        """Rounding only at fp32; quantization may lose much and still keep the answers."""
        if precision.startswith("int8"):
            return QUANTIZED_TOLERANCE
        return REDUCED_TOLERANCE if precision == "bf16" else 0.01

    def memory(self, precision: str) -> float:
        """The engine's own layout of the weights, and while it quantizes copies of the model with what they give."""
        return 4.0 if precision.startswith("int8") else 2.0

    def compute_dtype(self, precision: str) -> torch.dtype | None:
        """Nothing is cast: the engine itself computes in bfloat16."""
        return None

    def unavailable(self, precision: str) -> str:
        """OpenVINO would run float32 without a word where there are no bfloat16 instructions."""
        from neural_coder.runtime.openvino_library import capabilities

        if precision in ("bf16", "int8_static_bf16") and "BF16" not in capabilities():
            return "this processor has no bfloat16 instructions (AMX, AVX512_BF16 or Arm BF16)"
        return ""

    def surroundings(self) -> str:
        """Quantized weights have as many bits as one processor adds up right."""
        from neural_coder.runtime.processor import instructions

        return instructions()

    def convert(self, model: torch.nn.Module, request: Request) -> Conversion:
        """Prepare a copy; it is exported when the shapes of a call are known."""
        from neural_coder.runtime.conversion import twin
        from neural_coder.runtime.openvino_files import OpenvinoGraphs

        return OpenvinoGraphs(twin(model), request)


ENGINE = OpenvinoEngine()
