"""ONNX Runtime: the model exported to ONNX, in floating point or quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neural_coder.runtime.engine import QUANTIZED_TOLERANCE, Conversion, Engine, Request

if TYPE_CHECKING:
    import torch

OPTIMIZATIONS = ("all", "extended", "basic", "disabled")
OBSERVERS = ("minmax", "percentile", "entropy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings that only ONNX Runtime has."""

    threads: int = 0
    """Threads within an operator; 0 takes as many as PyTorch uses."""
    inter_op_threads: int = 1
    """Operators that may run at the same time; more than one helps graphs with long parallel branches."""
    optimization: str = "all"
    """How far the graph is optimized: `all`, `extended`, `basic` or `disabled`."""
    providers: str | tuple[str, ...] = "auto"
    """Execution providers, the preferred one first; `auto` takes those that are installed for the model's device."""
    observer: str = "minmax"
    """How static quantization finds ranges: `minmax`, `percentile` (99.999 % of the values) or `entropy`."""
    symmetric: bool | None = None
    """Static quantization puts zero into the middle of the range of activations; None does so on Arm."""
    per_channel: bool = True
    """Each output channel of a weight has a scale of its own."""
    reduce_range: bool | None = None
    """Weights have 7 bits; None takes them where sums of products may overflow (x86 without VNNI)."""
    keep_first_last: bool = False
    """The first and the last layer stay in floating point."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        if self.threads < 0 or self.inter_op_threads < 1:
            raise ValueError("threads is 0 or a number of threads, and inter_op_threads is at least 1")
        if self.optimization not in OPTIMIZATIONS:
            raise ValueError(f"optimization is one of {', '.join(OPTIMIZATIONS)}; got {self.optimization!r}")
        if self.observer not in OBSERVERS:
            raise ValueError(f"observer is one of {', '.join(OBSERVERS)}; got {self.observer!r}")
        if self.providers != "auto" and (isinstance(self.providers, str) or not self.providers):
            raise ValueError(f"providers is 'auto' or a tuple of names; got {self.providers!r}")


class OnnxruntimeEngine(Engine):
    """Sessions of ONNX Runtime."""

    precisions = ("fp32", "int8_dynamic", "int8_static")
    modules = ("onnx", "onnxscript", "onnxruntime")
    distributions = ("onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
    extra = "onnxruntime"
    options = Options
    keeps = True
    specialised = True
    max_kinds = 64
    under_autocast = False

    def tolerance(self, precision: str) -> float:
        """Rounding only at fp32; quantization may lose much and still keep the answers."""
        return 0.01 if precision == "fp32" else QUANTIZED_TOLERANCE

    def memory(self, precision: str) -> float:
        """The exported graph, its serialized form, and the session's own copy; quantizers load it twice more."""
        return 3.0 if precision == "fp32" else 5.0

    def surroundings(self) -> str:
        """Graphs are kept as they were optimized for one processor, and weights in as many bits as it adds up right."""
        from neural_coder.runtime.processor import instructions

        return instructions()

    def convert(self, model: torch.nn.Module, request: Request) -> Conversion:
        """Prepare a copy; it is exported when the shapes of a call are known."""
        from neural_coder.runtime.onnx_sessions import OnnxSessions

        return OnnxSessions(model, request)


ENGINE = OnnxruntimeEngine()
