"""PyTorch itself, operation by operation."""

from __future__ import annotations

from neural_coder.backend import Backend


class Eager(Backend):
    """PyTorch's own kernels, called from Python; also its built-in dynamic quantization."""

    name = "torch"
    title = "PyTorch"
    modules = ("torch",)
    distribution = "torch"
