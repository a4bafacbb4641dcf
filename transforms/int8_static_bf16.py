"""Layers that multiply in 8-bit integers, and everything around them in bfloat16."""

from __future__ import annotations

from neural_coder.quantization import MATRICES, StaticQuantization
from neural_coder.records import Safety
from neural_coder.transform import Example, code


class Int8StaticBf16(StaticQuantization):
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
    also_decides = frozenset({"engine", "memory_format"})  # its value names the engine
    quantizable = {  # noqa: RUF012
        "openvino": MATRICES | {"MultiheadAttention", "LSTM", "GRU"},
        "inductor": frozenset({"Conv1d", "Conv2d", "Linear", "MultiheadAttention"}),
        "ipex": MATRICES | {"Embedding", "LSTM"},
    }
    values = tuple(quantizable)
    precision = "int8_static_bf16"
    rest = "bf16"
    effect = "multiplies in 8-bit integers, the rest is bfloat16"
    hardware = "CPUs with AMX, or with AVX512_VNNI and AVX512_BF16"
    promise = 5.5
    kernel = "int8"

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
