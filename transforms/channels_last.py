"""Convolutions often run faster when images are stored channel by channel of each pixel."""

from __future__ import annotations

from collections.abc import Iterator

from neural_coder.edits import Edit, InsertAfter
from neural_coder.records import Analysis, LeftAlone, Model, Safety, Witness
from neural_coder.transform import Example, Transform, why_not

CONVOLUTIONS = frozenset({"Conv2d", "ConvTranspose2d", "LazyConv2d", "LazyConvTranspose2d"})


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
    implies = ("inference_mode",)
    hardware = "CPUs with AVX-512 or AMX; NVIDIA GPUs with tensor cores"
    promise = 1.1

    LEAVES_ALONE = [
        "import torch\n\nmodel = torch.nn.Linear(3, 8)\nout = model(torch.zeros(1, 3))\n",
        "import torch\n\nmodel = torch.nn.Conv1d(3, 8, 3)\nout = model(torch.zeros(1, 3, 9))\n",
        "import torch\n\nmodel = torch.nn.Conv2d(3, 8, 3)\nmodel = model.to(memory_format=torch.channels_last)\n"
        "out = model(torch.zeros(1, 3, 9, 9))\n",
        "from mylib import Conv2d\n\nlayer = Conv2d(3, 8, 3)\nprint(layer)\n",
        "import torch\n\nmodel = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU())\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\nfor _ in range(2):\n"
        "    loss = model(torch.ones(2, 3)).sum()\n    optimizer.zero_grad()\n    loss.backward()\n    optimizer.step()\n",
        "from transformers import pipeline\n\nclassify = pipeline('image-classification')\nprint(classify('cat.png'))\n",
    ]
    CHANGES = [
        Example(
            before="import torch\n\nmodel = torch.nn.Conv2d(3, 8, 3)\nout = model(torch.zeros(1, 3, 9, 9))\n",
            after="import torch\n\nmodel = torch.nn.Conv2d(3, 8, 3)\n"
            "model = model.to(memory_format=torch.channels_last)\nout = model(torch.zeros(1, 3, 9, 9))\n",
        ),
        Example(
            before="from torchvision.models import resnet18\n\nnet = resnet18()\nnet.eval()\nprint(net(load()))\n",
            after="from torchvision.models import resnet18\nimport torch\n\nnet = resnet18()\nnet.eval()\n"
            "net = net.to(memory_format=torch.channels_last)\nprint(net(load()))\n",
        ),
        Example(
            before="import torch\nfrom torch import nn\n\n\nclass Trainer:\n    def __init__(self):\n"
            "        self.model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))\n"
            "        self.steps = 0\n\n    def step(self, x):\n        return self.model(x)\n\n\n"
            "Trainer().step(torch.zeros(1, 3, 9, 9))\n",
            after="import torch\nfrom torch import nn\n\n\nclass Trainer:\n    def __init__(self):\n"
            "        self.model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))\n"
            "        self.model = self.model.to(memory_format=torch.channels_last)\n"
            "        self.steps = 0\n\n    def step(self, x):\n        return self.model(x)\n\n\n"
            "Trainer().step(torch.zeros(1, 3, 9, 9))\n",
        ),
        Example(
            before="import torch\n\nmodel = torch.nn.Conv2d(3, 8, 3)\n"
            "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\nfor _ in range(2):\n    optimizer.zero_grad()\n"
            "    loss = model(torch.ones(2, 3, 9, 9)).sum()\n    loss.backward()\n    optimizer.step()\n",
            after="import torch\n\nmodel = torch.nn.Conv2d(3, 8, 3)\n"
            "model = model.to(memory_format=torch.channels_last)\n"
            "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\nfor _ in range(2):\n    optimizer.zero_grad()\n"
            "    loss = model(torch.ones(2, 3, 9, 9)).sum()\n    loss.backward()\n    optimizer.step()\n",
        ),
    ]

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
        if model.layers is not None and not model.layers & CONVOLUTIONS:
            return f"{model.name} has no 2-D convolutions"
        return why_not(model, {"channels_last": "is already channels-last"})

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when a convolution gave a channels-last output."""
        return "" if after.channels_last_outputs else "no convolution gave a channels-last output"
