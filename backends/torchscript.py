"""PyTorch's older graph engine."""

from __future__ import annotations

from neural_coder.backend import Backend


class Torchscript(Backend):
    """Runs a traced and frozen graph of a model without Python; comes with PyTorch."""

    name = "torchscript"
    title = "TorchScript"
    modules = ("torch",)
    distribution = "torch"
