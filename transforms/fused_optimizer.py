"""Some optimizers can update all parameters in one kernel."""

from __future__ import annotations

from collections.abc import Iterator

from neural_coder.edits import AddArgument, Edit
from neural_coder.records import Analysis, LeftAlone, Optimizer, Safety, Witness
from neural_coder.transform import Example, Transform, code

FUSED = {"torch.optim.Adam": 6, "torch.optim.AdamW": 6, "torch.optim.SGD": 6, "torch.optim.Adagrad": 6}
"""Optimizers with a fused kernel on the CPU, and how many positional arguments come before their implementation is
chosen."""
INCOMPATIBLE = ("foreach", "fused", "differentiable", "capturable")


class FusedOptimizer(Transform):
    """Let Adam, AdamW, SGD and Adagrad update the parameters in one fused kernel.

    Helps where the optimizer's step is a visible part of a training step: many parameters, small batches. On the CPU it
    needs torch 2.4 or newer.

    The arithmetic stays the same, up to rounding. Sparse gradients (`Embedding(sparse=True)`) have no fused kernel and
    raise an error. Optimizers for which the script names an implementation itself (`foreach`, ...) are left alone.

    Source: https://docs.pytorch.org/docs/stable/optim.html#algorithms
    """

    safety = Safety.SAME_MATH
    tasks = frozenset({"training"})
    slot = "optimizer"
    order = 80
    hardware = "any CPU; NVIDIA GPUs"
    promise = 1.05

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.nn.Linear(3, 1)
            optimizer = torch.optim.Adam(model.parameters(), lr=0.1, foreach=True)
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 1)
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=False)
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 1)
            options = {'foreach': True}
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **options)
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 1)
            optimizer = torch.optim.Adagrad(model.parameters(), 0.1, 0, 0, 0, 1e-10, True)
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 1)
            optimizer = torch.optim.RMSprop(model.parameters(), lr=0.1)
        """),
        code("""
            import torch
            from mylib.optim import Adam

            model = torch.nn.Linear(3, 1)
            optimizer = Adam(model.parameters(), lr=0.1)
        """),
    )
    CHANGES = (
        Example(
            before=code("""
                import torch

                model = torch.nn.Linear(3, 1)
                optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
            """),
            after=code("""
                import torch

                model = torch.nn.Linear(3, 1)
                optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
            """),
        ),
        Example(
            before=code("""
                import torch.nn as nn
                from torch.optim import SGD as Descent

                net = nn.Linear(3, 1)
                opt = Descent(
                    net.parameters(),
                    lr=0.1,
                )
            """),
            after=code("""
                import torch.nn as nn
                from torch.optim import SGD as Descent

                net = nn.Linear(3, 1)
                opt = Descent(
                    net.parameters(),
                    lr=0.1,
                    fused=True,
                )
            """),
        ),
        Example(
            before=code("""
                from torch import nn, optim


                class Trainer:
                    def __init__(self):
                        self.model = nn.Linear(3, 1)
                        self.optimizer = optim.AdamW(self.model.parameters())
            """),
            after=code("""
                from torch import nn, optim


                class Trainer:
                    def __init__(self):
                        self.model = nn.Linear(3, 1)
                        self.optimizer = optim.AdamW(self.model.parameters(), fused=True)
            """),
        ),
    )

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
            name = kind.rpartition(".")[2]
            known = f"{name} has no fused kernel on the CPU"
            return known if name.isidentifier() else "it is not known which optimizer this is"
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
