"""TorchScript records a model's operations once and runs them without Python."""

from __future__ import annotations

from neural_coder.accelerated import Accelerated
from neural_coder.records import Safety
from neural_coder.transform import Example, code


class Torchscript(Accelerated):
    """Trace an inference model into TorchScript, freeze it, and run that.

    Helps small models, where Python takes a visible part of a call, and convolutional ones, whose batch normalizations
    are folded into the convolutions. Unlike `compile` it needs no C++ compiler and starts in about a second.

    The arithmetic stays the same. Tracing follows the branches that the example input took: the runtime checks the
    traced model against the original and runs the original for inputs of other kinds. PyTorch no longer develops
    TorchScript further. Models that are trained are left alone.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.jit.optimize_for_inference.html
    """

    safety = Safety.SAME_MATH
    tasks = frozenset({"inference"})
    slot = "engine"
    order = 60
    backend = "torchscript"
    effect = "runs as frozen TorchScript"
    implies = ("inference_mode",)
    # Autocast around a trace is baked into it only in part; bf16_weights is the way to bfloat16 here.
    excludes = frozenset({"bf16"})
    hardware = "any CPU"
    promise = 1.15

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
                model = neural_coder.runtime.accelerate(model, engine="torchscript")
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
                        self.net = neural_coder.runtime.accelerate(self.net, engine="torchscript")

                    @torch.no_grad()
                    def answer(self, x):
                        return self.net(x).numpy()


                Service().answer(torch.zeros(1, 3))
            """),
        ),
    )
