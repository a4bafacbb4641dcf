"""Linear and recurrent layers can multiply in 8-bit integers, with scales found during each call."""

from __future__ import annotations

from neural_coder.quantization import Quantization
from neural_coder.records import Safety
from neural_coder.transform import Example, code


class Int8Dynamic(Quantization):
    """Quantize linear and recurrent layers of an inference model to int8; activations are quantized on the fly.

    Helps transformers and recurrent networks on CPUs with 8-bit dot products (AVX512_VNNI, AMX, Arm dot product).
    `int8_dynamic=torch` uses PyTorch's own quantized layers; `int8_dynamic=torchao` uses torchao and compiles the model
    with Inductor; `int8_dynamic=inductor` quantizes the exported graph by torchao's PT2E and compiles it ahead of time
    (x86); `int8_dynamic=onnxruntime` and `int8_dynamic=openvino` export the model and run it in these engines. Which
    is faster differs by machine and model. Convolutions are not quantized.

    The answers change, by how much depends on the model: they must be measured. Needs no calibration data. Models that
    are trained, and models without such layers, are left alone.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.ao.quantization.quantize_dynamic.html
    Source: https://docs.pytorch.org/ao/stable/pt2e_quantization/index.html
    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    Source: https://docs.openvino.ai/2025/openvino-workflow/model-optimization-guide/weight-compression.html
    Source: https://docs.pytorch.org/ao/stable/api_reference/generated/torchao.quantization.Int8DynamicActivationInt8WeightConfig.html
    """

    safety = Safety.LOSSY
    tasks = frozenset({"inference"})
    slot = "precision"
    order = 55
    implies = ("inference_mode",)
    also_decides = frozenset({"engine", "memory_format"})  # its value names the engine
    quantizable = {  # noqa: RUF012
        "torch": frozenset({"Linear", "LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell"}),
        "torchao": frozenset({"Linear"}),
        "inductor": frozenset({"Linear"}),
        "onnxruntime": frozenset({"Conv1D", "Linear", "LSTM"}),
        "openvino": frozenset({"Conv1D", "Linear", "MultiheadAttention"}),
    }
    values = tuple(quantizable)
    precision = "int8_dynamic"
    effect = "multiplies in 8-bit integers"
    hardware = "CPUs with AVX512_VNNI, AMX or Arm dot product instructions"
    promise = 3.0
    kernel = "int8"

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.nn.Conv2d(3, 8, 3)
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
                model = neural_coder.runtime.accelerate(model, engine="torch", precision="int8_dynamic")
                out = model(torch.zeros(1, 3))
            """),
        ),
        Example(
            value="torchao",
            before=code("""
                import torch

                net = torch.nn.Sequential(torch.nn.Linear(3, 8))
                net.eval()
                out = net(torch.zeros(1, 3))
            """),
            after=code("""
                import torch
                import neural_coder.runtime

                net = torch.nn.Sequential(torch.nn.Linear(3, 8))
                net.eval()
                net = neural_coder.runtime.accelerate(net, engine="torchao", precision="int8_dynamic")
                out = net(torch.zeros(1, 3))
            """),
        ),
    )
