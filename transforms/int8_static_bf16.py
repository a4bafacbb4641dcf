"""Layers that multiply in 8-bit integers, and everything around them in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

from neural_coder.edits import Accelerate, Edit
from neural_coder.records import Analysis, LeftAlone, Model, Safety, Witness
from neural_coder.transform import (
    OCCUPIED,
    REDUCED,
    Example,
    Transform,
    code,
    why_not,
    why_not_accelerated,
    why_not_inference_only,
)

QUANTIZABLE = {
    "ipex": frozenset({"Conv1d", "Conv2d", "Conv3d", "ConvTranspose2d", "Embedding", "Linear", "LSTM"}),
    "openvino": frozenset({"Conv1d", "Conv2d", "Conv3d", "ConvTranspose2d", "Linear", "MultiheadAttention"}),
}


class Int8StaticBf16(Transform):
    """Quantize an inference model to int8 with scales found on its first calls, and run the rest in bfloat16.

    Helps on CPUs that have both 8-bit dot products and bfloat16 instructions, most where much is left to do between
    the quantized layers: attention, normalization, activations.

    The value names the engine. The first calls run the original and serve as calibration data. The answers change, by
    how much depends on the model: they must be measured. Models that are trained, and those without layers to
    quantize, are left alone.

    Source: https://docs.openvino.ai/2025/openvino-workflow/model-optimization-guide/quantizing-models-post-training/basic-quantization-flow.html
    Source: https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference/precision-control.html
    """

    safety = Safety.LOSSY
    tasks = frozenset({"inference"})
    slot = "precision"
    order = 58
    implies = ("inference_mode",)
    # Its value decides the engine, which chooses its own layout.
    excludes = frozenset({"compile", "intel_extension", "torchscript", "open_vino", "channels_last"})
    values = ("openvino", "ipex")
    hardware = "CPUs with AMX, or with AVX512_VNNI and AVX512_BF16"
    promise = 5.5

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.nn.Sequential(torch.nn.ReLU())
            out = model(torch.zeros(1, 3, 9, 9))
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 8).half()
            out = model(torch.zeros(1, 3).half())
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                loss = model(torch.ones(2, 3)).sum()
                loss.backward()
                optimizer.step()
        """),
        code("""
            from mylib import Linear

            model = Linear(3, 8)
            print(model)
        """),
    )
    CHANGES = (
        Example(
            before=code("""
                import torch

                m = torch.nn.Sequential(torch.nn.Linear(3, 8))
                m.eval()
                out = m(torch.zeros(1, 3))
            """),
            after=code("""
                import torch
                import neural_coder.runtime

                m = torch.nn.Sequential(torch.nn.Linear(3, 8))
                m.eval()
                m = neural_coder.runtime.accelerate(m, engine="openvino", precision="int8_static_bf16")
                out = m(torch.zeros(1, 3))
            """),
        ),
    )

    @classmethod
    def backend_for(cls, value: str | None) -> str:
        """The engine that the value names."""
        return value or cls.values[0]

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Hand each inference model that may hold layers to quantize to the runtime."""
        engine = self.backend_for(value)
        for model in facts.models:
            reason = self._why_not(model, facts, engine)
            if reason or model.ready is None:
                yield self.leave(model.line, reason)
            else:
                words = f"{model.name} multiplies in 8-bit integers, the rest is bfloat16"
                yield Accelerate(
                    at=model.ready, name=model.name, reason=words, engine=engine, precision="int8_static_bf16"
                )

    @staticmethod
    def _why_not(model: Model, facts: Analysis, engine: str) -> str:
        if reason := why_not_inference_only(model, facts):
            return reason
        if model.layers is not None and not model.layers & QUANTIZABLE[engine]:
            return f"{model.name} has no layers that {engine} quantizes"
        return why_not(model, OCCUPIED | REDUCED)

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when the runtime ran the model in int8."""
        return "" if after.accelerated.endswith("/int8_static_bf16") else why_not_accelerated(after)
