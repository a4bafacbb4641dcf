"""ONNX Runtime, an inference engine for many kinds of hardware."""

from __future__ import annotations

from neural_coder.backend import Backend


class Ort(Backend):
    """Runs models that were exported to ONNX. No feature uses it yet; `neural-coder doctor` shows it."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    modules = ("onnx", "onnxruntime")
    distribution = "onnxruntime"
    extra = "onnxruntime"
