"""Intel Extension for PyTorch trains in bfloat16 with kernels and optimizers of its own."""

from __future__ import annotations

from collections.abc import Iterator

from neural_coder.edits import Edit, InsertAfter
from neural_coder.records import Analysis, Call, LeftAlone, Model, Optimizer, Safety, Witness
from neural_coder.transform import OCCUPIED, REDUCED, Example, Transform, code, why_not

CALL = (
    "{model}, {optimizer} = intel_extension_for_pytorch.optimize("
    "{model}, optimizer={optimizer}, dtype=torch.bfloat16, inplace=True)"
)
IMPORTS = ("torch", "intel_extension_for_pytorch")


class IntelTraining(Transform):
    """Train with Intel Extension for PyTorch: weights packed for its kernels, its fused optimizers, bfloat16.

    Helps training on Intel CPUs with bfloat16 instructions (AVX512_BF16, AMX). It goes together with `bf16`, which puts
    the forward and the loss under autocast. The extension is bound to one version of PyTorch, so the script runs in an
    environment of its own, which `neural-coder env create ipex` makes; it must hold what the script imports.

    Results differ by around one per cent, as with `bf16`; the optimizer keeps the digits that bfloat16 weights lack,
    and `state_dict()` gives float32 weights. Inserted behind the optimizer, where that is built of all parameters of
    one model. Left alone where the model also answers outside of autocast: its layers then take bfloat16 only.

    Source: https://intel.github.io/intel-extension-for-pytorch/cpu/2.8.0+cpu/tutorials/examples.html
    """

    safety = Safety.CLOSE
    tasks = frozenset({"training"})
    slot = "engine"
    order = 75
    backend = "ipex"
    implies = ("bf16",)
    excludes = frozenset({"fused_optimizer", "channels_last"})
    hardware = "Intel CPUs with AVX512_BF16 or AMX"
    promise = 1.8

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.nn.Linear(3, 1)
            model.eval()
            out = model(torch.zeros(1, 3))
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 1)
            head = torch.nn.Linear(1, 1)
            optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                loss = head(model(torch.ones(2, 3))).sum()
                loss.backward()
                optimizer.step()
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
            with torch.no_grad():
                print(model(torch.ones(2, 3)).numpy())
        """),
        code("""
            import torch

            model = torch.compile(torch.nn.Linear(3, 1))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                loss = model(torch.ones(2, 3)).sum()
                loss.backward()
                optimizer.step()
        """),
    )
    CHANGES = (
        Example(
            before=code("""
                import torch

                net = torch.nn.Linear(3, 1)
                opt = torch.optim.SGD(net.parameters(), lr=0.1)
                print('training')
                for _ in range(3):
                    opt.zero_grad()
                    loss = net(torch.ones(2, 3)).sum()
                    loss.backward()
                    opt.step()
            """),
            after=code("""
                import torch
                import intel_extension_for_pytorch

                net = torch.nn.Linear(3, 1)
                opt = torch.optim.SGD(net.parameters(), lr=0.1)
                net, opt = intel_extension_for_pytorch.optimize(net, optimizer=opt, dtype=torch.bfloat16, inplace=True)
                print('training')
                for _ in range(3):
                    opt.zero_grad()
                    loss = net(torch.ones(2, 3)).sum()
                    loss.backward()
                    opt.step()
            """),
        ),
        Example(
            before=code("""
                import torch
                import intel_extension_for_pytorch as ipex

                net = torch.nn.Linear(3, 1)
                opt = torch.optim.AdamW(params=net.parameters(), lr=0.1)
                for _ in range(3):
                    opt.zero_grad()
                    loss = net(torch.ones(2, 3)).sum()
                    loss.backward()
                    opt.step()
                with torch.no_grad():
                    print(net(torch.ones(2, 3)).sum())
            """),
            after=code("""
                import torch
                import intel_extension_for_pytorch as ipex

                net = torch.nn.Linear(3, 1)
                opt = torch.optim.AdamW(params=net.parameters(), lr=0.1)
                net, opt = ipex.optimize(net, optimizer=opt, dtype=torch.bfloat16, inplace=True)
                for _ in range(3):
                    opt.zero_grad()
                    loss = net(torch.ones(2, 3)).sum()
                    loss.backward()
                    opt.step()
                with torch.no_grad():
                    print(net(torch.ones(2, 3)).sum())
            """),
        ),
    )

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Hand each trained model to the extension, with the one optimizer that holds all of its parameters."""
        for model in facts.models:
            mine = [each for each in facts.optimizers if _updates(each, model)]
            reason = self._why_not(model, mine, facts)
            if reason:
                yield self.leave(model.line, reason)
            else:
                statement = CALL.format(model=model.name, optimizer=mine[0].name)
                words = f"Intel's extension trains {model.name} in bfloat16"
                yield InsertAfter(at=mine[0].statement, code=statement, reason=words, imports=IMPORTS)

    @staticmethod
    def _why_not(model: Model, optimizers: list[Optimizer], facts: Analysis) -> str:
        if not model.trained:
            return f"{model.name} is not trained"
        if reason := why_not(model, OCCUPIED | REDUCED):
            return reason
        if len(optimizers) != 1:
            return f"it is not known which optimizer updates all of {model.name}, and nothing else"
        if not optimizers[0].name or model.ready is None or optimizers[0].statement.line <= model.ready.line:
            return f"there is no place where both {model.name} and its optimizer are ready"
        outside = [call for call in facts.inference if call.model == model.name and not _is_castable(call)]
        if outside:
            return f"line {outside[0].line} uses {model.name} outside of autocast"
        if any(use.kind == "grad_scaler" for use in facts.devices):
            return "the script scales its loss for float16"
        return ""

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when the extension's layers ran."""
        return "" if after.extension_layers else "no layer of the extension ran at the measured steps"


def _updates(optimizer: Optimizer, model: Model) -> bool:
    """Whether an optimizer holds just the parameters of a model, in one scope with it."""
    given = [each.text for each in optimizer.arguments if each.keyword in (None, "params")][:1]
    return optimizer.scope == model.scope and given == [f"{model.name}.parameters()"]


def _is_castable(call: Call) -> bool:
    """Whether `bf16` puts a call under autocast, or the script does."""
    in_float = call.reaches_numpy or call.reaches_cross_entropy or call.feeds_training
    return call.autocast or (call.wrappable and not in_float)
