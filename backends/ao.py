"""PyTorch's library for quantization."""

from __future__ import annotations

from neural_coder.backend import Backend


class Ao(Backend):
    """Quantizes the layers of a model with torchao and compiles it with Inductor; needs a C++ compiler."""

    name = "torchao"
    title = "torchao"
    modules = ("torch", "torchao")
    distribution = "torchao"
    extra = "torchao"
    needs_compiler = True
    startup_seconds = 30.0
