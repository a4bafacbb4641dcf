"""ONNX Runtime, an inference engine for many kinds of hardware."""

from __future__ import annotations

from neural_coder.backend import Backend


class Ort(Backend):
    """Runs models that were exported to ONNX, in float32 or quantized; used through `neural_coder.runtime`."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    modules = ("onnx", "onnxscript", "onnxruntime")
    distribution = "onnxruntime"
    extra = "onnxruntime"
    startup_seconds = 20.0
