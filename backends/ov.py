"""OpenVINO, Intel's inference engine."""

from __future__ import annotations

from neural_coder.backend import Backend


class Ov(Backend):
    """Runs converted models on Intel and Arm. No feature uses it yet; `neural-coder doctor` shows it."""

    name = "openvino"
    title = "OpenVINO"
    modules = ("openvino",)
    distribution = "openvino"
    extra = "openvino"
