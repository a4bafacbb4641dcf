"""The compiler that comes with PyTorch."""

from __future__ import annotations

from neural_coder.backend import Backend


class Inductor(Backend):
    """Compiles a model's operations into C++ kernels at its first calls; needs a C++ compiler (g++, clang++).

    Models that can be exported are compiled ahead of time and kept on disk for the next start. int8 needs torchao.
    """

    name = "inductor"
    title = "TorchInductor"
    modules = ("torch",)
    distribution = "torch"
    needs_compiler = True
    startup_seconds = 30.0
