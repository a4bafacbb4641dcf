"""ONNX Runtime, an inference engine for many kinds of hardware."""

from __future__ import annotations

from collections.abc import Mapping

from neural_coder.backend import Backend
from neural_coder.records import Setting


class Ort(Backend):
    """Runs models that were exported to ONNX, in float32 or quantized; used through `neural_coder.runtime`."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    modules = ("onnx", "onnxscript", "onnxruntime")
    distribution = "onnxruntime"
    extra = "onnxruntime"
    startup_seconds = 20.0

    @classmethod
    def tunable(cls, kinds: frozenset[str]) -> Mapping[str, tuple[Setting, ...]]:
        """Ranges without rare extremes."""
        return {"observer": ("percentile", "entropy")}
