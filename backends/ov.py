"""OpenVINO, Intel's inference engine."""

from __future__ import annotations

from collections.abc import Mapping

from neural_coder.backend import Backend
from neural_coder.records import Setting


class Ov(Backend):
    """Runs models as compiled graphs on Intel and Arm CPUs; NNCF quantizes them."""

    name = "openvino"
    title = "OpenVINO"
    modules = ("nncf", "openvino")
    distribution = "openvino"
    extra = "openvino"
    startup_seconds = 15.0

    @classmethod
    def tunable(cls, kinds: frozenset[str]) -> Mapping[str, tuple[Setting, ...]]:
        """Asymmetric activations, other ranges, and for transformers another share of SmoothQuant."""
        convolutional = any(kind.startswith("Conv") and kind != "Conv1D" for kind in kinds)
        smoothing: Mapping[str, tuple[Setting, ...]] = {} if convolutional else {"alpha": (0.5,)}
        return {"preset": ("mixed",), **smoothing, "observer": ("percentile", "minmax")}
