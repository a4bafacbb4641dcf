"""Intel Extension for PyTorch."""

from __future__ import annotations

from neural_coder.backend import Backend


class Ipex(Backend):
    """Intel's own kernels, bound to one torch version. No feature uses it yet; `neural-coder doctor` shows it."""

    name = "ipex"
    title = "Intel Extension for PyTorch"
    modules = ("torch", "intel_extension_for_pytorch")
    distribution = "intel-extension-for-pytorch"
