"""OpenVINO, Intel's inference engine."""

from __future__ import annotations

from neural_coder.backend import Backend


class Ov(Backend):
    """Runs models as compiled graphs on Intel and Arm CPUs; NNCF quantizes them."""

    name = "openvino"
    title = "OpenVINO"
    modules = ("nncf", "openvino")
    distribution = "openvino"
    extra = "openvino"
    startup_seconds = 15.0
