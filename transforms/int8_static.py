"""Convolutions and matrix products can multiply 8-bit integers, with scales found beforehand."""

from __future__ import annotations

from neural_coder.quantization import MATRICES, StaticQuantization
from neural_coder.records import Safety
from neural_coder.transform import Example, code


class Int8Static(StaticQuantization):
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
    also_decides = frozenset({"engine", "memory_format"})  # its value names the engine
    quantizable = {  # noqa: RUF012
        "onnxruntime": MATRICES | {"ConvTranspose3d", "MultiheadAttention"},
        "openvino": MATRICES | {"ConvTranspose3d", "MultiheadAttention", "LSTM", "GRU"},
        "inductor": frozenset({"Conv1d", "Conv2d", "Linear", "MultiheadAttention"}),
        "ipex": MATRICES | {"Embedding", "LSTM"},
    }
    values = tuple(quantizable)
    precision = "int8_static"
    rest = "fp32"
    effect = "multiplies in 8-bit integers"
    hardware = "CPUs with AVX512_VNNI, AMX or Arm dot product instructions"
    promise = 5.0
    kernel = "int8"

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

                m = torch.nn.Sequential(torch.nn.Linear(3, 8))
                m.eval()
                out = m(torch.zeros(1, 3))
            """),
            after=code("""
                import torch
                import neural_coder.runtime

                m = torch.nn.Sequential(torch.nn.Linear(3, 8))
                m.eval()
                m = neural_coder.runtime.accelerate(m, engine="onnxruntime", precision="int8_static")
                out = m(torch.zeros(1, 3))
            """),
        ),
    )
