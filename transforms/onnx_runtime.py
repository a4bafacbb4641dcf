"""ONNX Runtime runs a model that was exported to ONNX, without Python."""

from __future__ import annotations

from neural_coder.accelerated import Accelerated
from neural_coder.records import Safety
from neural_coder.transform import Example, code


class OnnxRuntime(Accelerated):
    """Export an inference model to ONNX and run it in ONNX Runtime, in float32.

    Helps convolutional models a lot, and transformers too: operators are fused, convolutions run in a layout that suits
    the CPU, and no Python runs between them. The export takes seconds to minutes once; the result is kept on disk.

    The arithmetic stays the same. Control flow that depends on data cannot be exported: then the runtime says so and
    runs the original, as it does for inputs of other kinds than it has compared. Models that are trained are left
    alone.

    Source: https://docs.pytorch.org/docs/stable/onnx_export.html
    """

    safety = Safety.SAME_MATH
    tasks = frozenset({"inference"})
    slot = "engine"
    order = 61
    backend = "onnxruntime"
    effect = "runs in ONNX Runtime"
    implies = ("inference_mode",)
    # It computes in float32 and chooses the order of data in memory itself.
    also_decides = frozenset({"memory_format"})
    excludes = frozenset({"bf16", "bf16_weights"})
    hardware = "any CPU; GPUs where onnxruntime-gpu is installed"
    promise = 2.2

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.jit.script(torch.nn.Linear(3, 8))
            out = model(torch.zeros(1, 3))
        """),
        code("""
            import torch

            model = torch.compile(torch.nn.Linear(3, 8))
            out = model(torch.zeros(1, 3))
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

            criterion = torch.nn.MSELoss()
            loss = criterion(torch.zeros(3), torch.zeros(3))
        """),
    )
    CHANGES = (
        Example(
            before=code("""
                import torch

                model = torch.nn.Linear(3, 8)
                model.eval()
                out = model(torch.zeros(1, 3))
            """),
            after=code("""
                import torch
                import neural_coder.runtime

                model = torch.nn.Linear(3, 8)
                model.eval()
                model = neural_coder.runtime.accelerate(model, engine="onnxruntime")
                out = model(torch.zeros(1, 3))
            """),
        ),
        Example(
            before=code("""
                import torch
                from torch import nn


                class Service:
                    def __init__(self):
                        self.net = nn.Sequential(nn.Linear(3, 8), nn.ReLU()).eval()

                    @torch.no_grad()
                    def answer(self, x):
                        return self.net(x).numpy()


                Service().answer(torch.zeros(1, 3))
            """),
            after=code("""
                import torch
                from torch import nn
                import neural_coder.runtime


                class Service:
                    def __init__(self):
                        self.net = nn.Sequential(nn.Linear(3, 8), nn.ReLU()).eval()
                        self.net = neural_coder.runtime.accelerate(self.net, engine="onnxruntime")

                    @torch.no_grad()
                    def answer(self, x):
                        return self.net(x).numpy()


                Service().answer(torch.zeros(1, 3))
            """),
        ),
    )
