"""The compiler that comes with PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

from neural_coder.backend import Backend
from neural_coder.records import Setting


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

    @classmethod
    def tunable(cls, kinds: frozenset[str]) -> Mapping[str, tuple[Setting, ...]]:
        """Ranges that keep all values."""
        return {"observer": ("minmax",)}
