"""Some optimizers can update all parameters in one kernel."""

from __future__ import annotations

from collections.abc import Iterator

from neural_coder.edits import AddArgument, Edit
from neural_coder.records import Analysis, LeftAlone, Optimizer, Safety, Witness
from neural_coder.transform import Example, Transform

FUSED = {"torch.optim.Adam": 6, "torch.optim.AdamW": 6, "torch.optim.SGD": 6, "torch.optim.Adagrad": 6}
"""Optimizers with a fused kernel on the CPU, and how many positional arguments come before their implementation is
chosen."""
INCOMPATIBLE = ("foreach", "fused", "differentiable", "capturable")


class FusedOptimizer(Transform):
    """Let Adam, AdamW, SGD and Adagrad update the parameters in one fused kernel.

    Helps where the optimizer's step is a visible part of a training step: many parameters, small batches. On the CPU it
    needs torch 2.4 or newer.

    The arithmetic stays the same, up to rounding. Sparse gradients (`Embedding(sparse=True)`) have no fused kernel and
    raise an error. Optimizers that name another implementation (`foreach`, `differentiable`, `capturable`) are left alone.

    Source: https://docs.pytorch.org/docs/stable/optim.html#algorithms
    """

    safety = Safety.SAME_MATH
    tasks = frozenset({"training"})
    slot = "optimizer"
    order = 80
    hardware = "any CPU; NVIDIA GPUs"
    promise = 1.05

    LEAVES_ALONE = [
        "import torch\n\nmodel = torch.nn.Linear(3, 1)\n"
        "optimizer = torch.optim.Adam(model.parameters(), lr=0.1, foreach=True)\n",
        "import torch\n\nmodel = torch.nn.Linear(3, 1)\n"
        "optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=False)\n",
        "import torch\n\nmodel = torch.nn.Linear(3, 1)\noptions = {'foreach': True}\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **options)\n",
        "import torch\n\nmodel = torch.nn.Linear(3, 1)\n"
        "optimizer = torch.optim.Adagrad(model.parameters(), 0.1, 0, 0, 0, 1e-10, True)\n",
        "import torch\n\nmodel = torch.nn.Linear(3, 1)\noptimizer = torch.optim.RMSprop(model.parameters(), lr=0.1)\n",
        "import torch\nfrom mylib.optim import Adam\n\nmodel = torch.nn.Linear(3, 1)\n"
        "optimizer = Adam(model.parameters(), lr=0.1)\n",
    ]
    CHANGES = [
        Example(
            before="import torch\n\nmodel = torch.nn.Linear(3, 1)\n"
            "optimizer = torch.optim.Adam(model.parameters(), lr=0.1)\n",
            after="import torch\n\nmodel = torch.nn.Linear(3, 1)\n"
            "optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)\n",
        ),
        Example(
            before="import torch.nn as nn\nfrom torch.optim import SGD as Descent\n\nnet = nn.Linear(3, 1)\n"
            "opt = Descent(\n    net.parameters(),\n    lr=0.1,\n)\n",
            after="import torch.nn as nn\nfrom torch.optim import SGD as Descent\n\nnet = nn.Linear(3, 1)\n"
            "opt = Descent(\n    net.parameters(),\n    lr=0.1,\n    fused=True,\n)\n",
        ),
        Example(
            before="from torch import nn, optim\n\n\nclass Trainer:\n    def __init__(self):\n"
            "        self.model = nn.Linear(3, 1)\n"
            "        self.optimizer = optim.AdamW(self.model.parameters())\n",
            after="from torch import nn, optim\n\n\nclass Trainer:\n    def __init__(self):\n"
            "        self.model = nn.Linear(3, 1)\n"
            "        self.optimizer = optim.AdamW(self.model.parameters(), fused=True)\n",
        ),
    ]

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Ask each optimizer that has one for its fused kernel."""
        for optimizer in facts.optimizers:
            if reason := self._why_not(optimizer):
                yield self.leave(optimizer.line, reason)
            else:
                words = "one kernel updates all parameters"
                yield AddArgument(call=optimizer.call, keyword="fused", value="True", reason=words)

    @staticmethod
    def _why_not(optimizer: Optimizer) -> str:
        kind = optimizer.qualified_name
        if kind not in FUSED:
            return f"{kind.rpartition('.')[2] or 'this optimizer'} has no fused kernel on the CPU"
        keywords = [argument.keyword for argument in optimizer.arguments]
        if "*" in keywords or "**" in keywords:
            return "some of its arguments are only known at run time"
        for keyword in INCOMPATIBLE:
            if keyword in keywords:
                return f"the script sets {keyword} itself"
        if keywords.count(None) > FUSED[kind]:
            return "its positional arguments choose an implementation"
        return ""

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when an optimizer ran fused."""
        return "" if after.fused_optimizers else "no optimizer ran with its fused kernel"
