"""Intel Extension for PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from neural_coder.backend import Backend
from neural_coder.records import Setting


class Ipex(Backend):
    """Intel's own kernels, bound to one version of PyTorch: it runs in an environment of its own."""

    name = "ipex"
    title = "Intel Extension for PyTorch"
    modules = ("torch", "intel_extension_for_pytorch")
    distribution = "intel-extension-for-pytorch"
    requirements = ("torch==2.8.0", "intel-extension-for-pytorch==2.8.0", "numpy")
    disk_gb = 7.0
    startup_seconds = 15.0
    # It tells C++ developers about kernels that it overrides, whenever it is imported.
    environment: ClassVar[dict[str, str]] = {"TORCH_CPP_LOG_LEVEL": "ERROR"}

    @classmethod
    def tunable(cls, kinds: frozenset[str]) -> Mapping[str, tuple[Setting, ...]]:
        """Ranges that keep all values, and for transformers SmoothQuant."""
        return {"observer": ("minmax",), **({"alpha": (0.5,)} if kinds == {"Linear"} else {})}
