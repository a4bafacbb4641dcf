"""Convolutions often run faster when images are stored channel by channel of each pixel."""

from __future__ import annotations

from collections.abc import Iterator

from neural_coder.edits import Edit, InsertAfter
from neural_coder.records import Analysis, LeftAlone, Model, Safety, Witness
from neural_coder.transform import Example, Transform, code, why_not

CONVOLUTIONS = frozenset({"Conv2d", "ConvTranspose2d"})


class ChannelsLast(Transform):
    """Store the weights of 2-D convolutions channels-last (NHWC), which their activations then follow.

    Helps convolutional networks on CPUs with AVX-512 or AMX and on GPUs with tensor cores, most of all together with
    bfloat16. Does nothing for models without 2-D convolutions, which are left alone where that is known.

    The arithmetic stays the same, only the order in memory changes. Code that calls `.view()` on activations, or reads
    their strides, may raise an error: such tensors are no longer contiguous.

    Source: https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html
    """

    safety = Safety.SAME_MATH
    tasks = frozenset({"inference", "training"})
    slot = "memory_format"
    order = 40
    hardware = "CPUs with AVX-512 or AMX; NVIDIA GPUs with tensor cores"
    promise = 1.1

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2))
            out = model(torch.zeros(1, 3, 9, 9))
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 8)
            out = model(torch.zeros(1, 3))
        """),
        code("""
            import torch

            model = torch.nn.Conv1d(3, 8, 3)
            out = model(torch.zeros(1, 3, 9))
        """),
        code("""
            import torch

            model = torch.nn.Conv2d(3, 8, 3)
            model = model.to(memory_format=torch.channels_last)
            out = model(torch.zeros(1, 3, 9, 9))
        """),
        code("""
            from mylib import Conv2d

            layer = Conv2d(3, 8, 3)
            print(layer)
        """),
        code("""
            import torch

            model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU())
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(2):
                loss = model(torch.ones(2, 3)).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """),
        code("""
            from transformers import pipeline

            classify = pipeline('image-classification')
            print(classify('cat.png'))
        """),
    )
    CHANGES = (
        Example(
            before=code("""
                import torch

                model = torch.nn.Conv2d(3, 8, 3)
                out = model(torch.zeros(1, 3, 9, 9))
            """),
            after=code("""
                import torch

                model = torch.nn.Conv2d(3, 8, 3)
                model = model.to(memory_format=torch.channels_last)
                out = model(torch.zeros(1, 3, 9, 9))
            """),
        ),
        Example(
            before=code("""
                from torchvision.models import resnet18

                net = resnet18()
                net.eval()
                print(net(load()))
            """),
            after=code("""
                from torchvision.models import resnet18
                import torch

                net = resnet18()
                net.eval()
                net = net.to(memory_format=torch.channels_last)
                print(net(load()))
            """),
        ),
        Example(
            before=code("""
                import torch
                from torch import nn


                class Trainer:
                    def __init__(self):
                        self.model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten())
                        self.steps = 0

                    def step(self, x):
                        return self.model(x)


                Trainer().step(torch.zeros(1, 3, 9, 9))
            """),
            after=code("""
                import torch
                from torch import nn


                class Trainer:
                    def __init__(self):
                        self.model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten())
                        self.model = self.model.to(memory_format=torch.channels_last)
                        self.steps = 0

                    def step(self, x):
                        return self.model(x)


                Trainer().step(torch.zeros(1, 3, 9, 9))
            """),
        ),
        Example(
            before=code("""
                import torch

                model = torch.nn.Conv2d(3, 8, 3)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                for _ in range(2):
                    optimizer.zero_grad()
                    loss = model(torch.ones(2, 3, 9, 9)).sum()
                    loss.backward()
                    optimizer.step()
            """),
            after=code("""
                import torch

                model = torch.nn.Conv2d(3, 8, 3)
                model = model.to(memory_format=torch.channels_last)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                for _ in range(2):
                    optimizer.zero_grad()
                    loss = model(torch.ones(2, 3, 9, 9)).sum()
                    loss.backward()
                    optimizer.step()
            """),
        ),
    )

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Convert each model that may hold 2-D convolutions, where it is ready."""
        for model in facts.models:
            reason = self._why_not(model)
            if reason or model.ready is None:
                yield self.leave(model.line, reason)
            else:
                code = f"{model.name} = {model.name}.to(memory_format=torch.channels_last)"
                yield InsertAfter(at=model.ready, code=code, reason="convolutions run faster channels-last")

    @staticmethod
    def _why_not(model: Model) -> str:
        if model.kind == "pipeline":
            return f"{model.name} is a pipeline, whose models it keeps to itself"
        if any(layer.startswith("Lazy") for layer in model.layers or ()):
            return f"{model.name} has lazy layers, whose weights have no shape yet"
        if model.layers is not None and not model.layers & CONVOLUTIONS:
            return f"{model.name} has no 2-D convolutions"
        return why_not(model, {"channels_last": "is already channels-last", "export": "is exported by the script"})

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when a convolution gave a channels-last output."""
        return "" if after.channels_last_outputs else "no convolution gave a channels-last output"
