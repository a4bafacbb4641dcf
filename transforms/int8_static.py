"""Convolutions and matrix products can multiply 8-bit integers, with scales found beforehand."""

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

_EVERY = frozenset({"Conv1D", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "Linear"})
QUANTIZABLE = {"onnxruntime": _EVERY | {"ConvTranspose3d", "MultiheadAttention"}}
"""By engine: classes of layers that it quantizes statically."""
DEFAULT_SAMPLES = 32
"""What the runtime calibrates on when nothing is said."""
FEW_CALLS = 100
MIN_CALLS = 4


class Int8Static(Transform):
    """Quantize an inference model to int8: weights and activations, with scales found on the first calls.

    Helps convolutional models and transformers on CPUs with 8-bit dot products (AVX512_VNNI, AMX, Arm dot product),
    more than anything else there. `int8_static=ENGINE` names the engine that quantizes and runs the model. The original
    answers the first 32 samples, on which the scales are found; `int8_static=ENGINE:8` takes 8, for a script that makes
    few calls. Embeddings, normalizations and softmax stay in floating point.

    The answers change, by how much depends on the model: they must be measured. Models that are trained, and models
    without such layers, are left alone.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """

    safety = Safety.LOSSY
    tasks = frozenset({"inference"})
    slot = "precision"
    order = 56
    implies = ("inference_mode",)
    # Its value decides the engine, and that the memory format.
    excludes = frozenset({"compile", "torchscript", "onnx_runtime", "channels_last"})
    values = tuple(QUANTIZABLE)
    hardware = "CPUs with AVX512_VNNI, AMX or Arm dot product instructions"
    promise = 5.0

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.nn.Embedding(3, 8)
            out = model(torch.zeros(1, 3, dtype=torch.long))
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
            import torch

            model = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(3, 8)))
            out = model(torch.zeros(1, 3))
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

                model = torch.nn.Sequential(torch.nn.Linear(3, 8))
                model.eval()
                out = model(torch.zeros(1, 3))
            """),
            after=code("""
                import torch
                import neural_coder.runtime

                model = torch.nn.Sequential(torch.nn.Linear(3, 8))
                model.eval()
                model = neural_coder.runtime.accelerate(
                    model, engine="onnxruntime", precision="int8_static"
                )
                out = model(torch.zeros(1, 3))
            """),
        ),
        Example(
            value="onnxruntime:8",
            before=code("""
                import torch

                net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))
                net.eval()
                out = net(torch.zeros(1, 3, 9, 9))
            """),
            after=code("""
                import torch
                import neural_coder.runtime

                net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))
                net.eval()
                net = neural_coder.runtime.accelerate(
                    net, engine="onnxruntime", precision="int8_static", calibration=8
                )
                out = net(torch.zeros(1, 3, 9, 9))
            """),
        ),
    )

    @classmethod
    def check_value(cls, value: str | None) -> str:
        """An engine, and maybe a number of samples."""
        engine, colon, samples = (value or "").partition(":")
        if colon and not (samples.isascii() and samples.isdigit() and int(samples) > 0):
            return f"{cls.name()} takes an engine, or ENGINE:SAMPLES with a number of samples"
        return super().check_value(engine if value is not None else None)

    @classmethod
    def backend_for(cls, value: str | None) -> str:
        """The engine that the value names."""
        return (value or cls.values[0]).partition(":")[0]

    @classmethod
    def fitted(cls, value: str | None, *, calls: int, items: int) -> str | None:
        """Scripts that make few calls calibrate on a third of them, so that the others gain."""
        samples = max(MIN_CALLS, calls // 3) * items
        if calls >= FEW_CALLS or samples >= DEFAULT_SAMPLES or ":" in (value or ""):
            return value
        return f"{cls.backend_for(value)}:{samples}"

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Hand each inference model that may hold layers of these kinds to the runtime."""
        engine, samples = self.backend_for(value), (value or "").partition(":")[2]
        for model in facts.models:
            reason = self._why_not(model, facts, engine)
            if reason or model.ready is None:
                yield self.leave(model.line, reason)
            else:
                words = f"{model.name} multiplies in 8-bit integers"
                yield Accelerate(
                    at=model.ready,
                    name=model.name,
                    reason=words,
                    engine=engine,
                    precision="int8_static",
                    calibration=int(samples) if samples else None,
                )

    @staticmethod
    def _why_not(model: Model, facts: Analysis, engine: str) -> str:
        if reason := why_not_inference_only(model, facts):
            return reason
        if model.layers is not None and not model.layers & QUANTIZABLE[engine]:
            return f"{model.name} has no layers that {engine} quantizes statically"
        return why_not(model, OCCUPIED | REDUCED)

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when the runtime ran the model in int8."""
        return "" if after.accelerated.endswith("/int8_static") else why_not_accelerated(after)
