"""Autocast runs matrix products and convolutions in bfloat16 and keeps the rest in float32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from neural_coder.edits import Edit, Wrap
from neural_coder.records import Analysis, Call, LeftAlone, Safety, TrainingStep, Witness
from neural_coder.transform import OCCUPIED, REDUCED, Example, Transform, code, traits_of

ITEM = 'torch.autocast("cpu", dtype=torch.bfloat16)'
ALREADY = "it already runs under autocast"
TEACHES = "its result is used in training and keeps full precision"
HANDLED = REDUCED | {trait: OCCUPIED[trait] for trait in ("accelerate", "jit", "quantized")}


class Bf16(Transform):
    """Run models under `torch.autocast` in bfloat16: the forward in inference, forward and loss in training.

    Helps on CPUs with bfloat16 instructions (AMX, AVX512_BF16, Arm BF16), where linear layers and convolutions run up
    to four times as fast; on CPUs without them it is slower than float32. Weights stay in float32 and are cast on each
    call; `bf16_weights` saves that where a model is only used for inference.

    Results differ by around one per cent, because bfloat16 keeps 8 significant bits. Outputs become bfloat16, which
    NumPy does not know: calls whose results go there are left alone. The context is one for the CPU: where the script
    itself moves its model to a GPU, it does nothing and no harm. The backward pass stays outside, as PyTorch asks.

    Source: https://docs.pytorch.org/docs/stable/amp.html#cpu-op-specific-behavior
    """

    safety = Safety.CLOSE
    tasks = frozenset({"inference", "training"})
    slot = "precision"
    order = 30
    hardware = "CPUs with AMX, AVX512_BF16 or Arm BF16"
    promise = 1.6

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.nn.Linear(3, 8)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = model(torch.zeros(1, 3))
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 8)
            with torch.no_grad():
                out = model(torch.zeros(1, 3)).numpy()
        """),
        code("""
            import numpy as np
            import torch

            model = torch.nn.Linear(3, 8)
            with torch.no_grad():
                out = model(torch.zeros(1, 3))
                top = np.argmax(out)
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 8).to(torch.bfloat16)
            out = model(torch.zeros(1, 3, dtype=torch.bfloat16))
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            scaler = torch.cuda.amp.GradScaler()
            for _ in range(3):
                optimizer.zero_grad()
                with torch.cuda.amp.autocast():
                    loss = model(torch.ones(2, 3)).sum()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
        """),
        code("""
            import torch

            encoder = torch.nn.Linear(3, 8)
            head = torch.nn.Linear(8, 2)
            with torch.no_grad():
                features = encoder(torch.zeros(1, 3))
                out = head(features).numpy()
        """),
        code("""
            import torch

            criterion = torch.nn.CrossEntropyLoss()
            loss = criterion(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))
        """),
        code("""
            import torch

            model = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Sigmoid())
            criterion = torch.nn.BCELoss()
            with torch.no_grad():
                out = model(torch.zeros(1, 3))
                print(criterion(out, torch.ones(1, 1)))
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

                model = torch.nn.Linear(3, 8)
                model.eval()
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    out = model(torch.zeros(1, 3))
            """),
        ),
        Example(
            before=code("""
                import torch

                model = torch.nn.Linear(3, 8)
                model.eval()
                with torch.no_grad():
                    out = model(torch.zeros(1, 3))
                    print(out.argmax())
            """),
            after=code("""
                import torch

                model = torch.nn.Linear(3, 8)
                model.eval()
                with torch.no_grad():
                    with torch.autocast("cpu", dtype=torch.bfloat16):
                        out = model(torch.zeros(1, 3))
                    print(out.argmax())
            """),
        ),
        Example(
            before=code("""
                import torch

                model = torch.nn.Linear(3, 1)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                for _ in range(3):
                    optimizer.zero_grad()
                    out = model(torch.ones(2, 3))
                    loss = out.sum()
                    loss.backward()
                    optimizer.step()
            """),
            after=code("""
                import torch

                model = torch.nn.Linear(3, 1)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                for _ in range(3):
                    optimizer.zero_grad()
                    with torch.autocast("cpu", dtype=torch.bfloat16):
                        out = model(torch.ones(2, 3))
                        loss = out.sum()
                    loss.backward()
                    optimizer.step()
            """),
        ),
    )

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Wrap the forward and loss of each training step, and each inference call."""
        steps = [(step, self._why_not_step(step, facts)) for step in facts.steps]
        alone = _alone((step.scope, step.backward.line, reason) for step, reason in steps)
        wrapped = []
        for step, reason in steps:
            reason = reason or alone.get(step.scope, "")
            if reason or step.forward_and_loss is None:
                yield self.leave(step.backward.line, reason)
            else:
                wrapped.append(step.forward_and_loss)
                yield Wrap(at=step.forward_and_loss, item=ITEM, reason="forward and loss run in bfloat16")
        if steps and not wrapped and any(reason != ALREADY for _, reason in steps):
            for call in facts.inference:
                yield self.leave(call.line, "the script trains in float32 and evaluates so, too")
            return
        outside = [call for call in facts.inference if not any(around.contains(call.statement) for around in wrapped)]
        calls = [(call, self._why_not_call(call, facts)) for call in outside]
        alone = _alone((call.scope, call.line, reason) for call, reason in calls)
        for call, reason in calls:
            if reason := reason or alone.get(call.scope, ""):
                yield self.leave(call.line, reason)
            else:
                yield Wrap(at=call.statement, item=ITEM, reason=f"{call.callee}() runs in bfloat16")

    @staticmethod
    def _why_not_step(step: TrainingStep, facts: Analysis) -> str:
        if step.autocast:
            return ALREADY
        if any(use.kind == "grad_scaler" for use in facts.devices):
            return "the script scales its loss for float16"
        if any(forward.reaches_numpy for forward in step.forwards):
            return "its result goes to NumPy, which has no bfloat16"
        if step.forward_and_loss is None:
            return step.why_not or "its forward and loss are not in one block"
        return ""

    @staticmethod
    def _why_not_call(call: Call, facts: Analysis) -> str:
        if call.autocast:
            return ALREADY
        if call.feeds_training:
            return TEACHES
        if call.reaches_numpy:
            return "its result goes to NumPy, which has no bfloat16; bf16_weights gives float32 results"
        if call.reaches_cross_entropy:
            return "its result goes to a binary cross-entropy, which takes no bfloat16 with float32 targets"
        found = [words for trait, words in sorted(HANDLED.items()) if trait in traits_of(call, facts)]
        if found:
            return f"{call.model} {found[0]}"
        return "" if call.wrappable else call.why_not_wrappable or "no `with` block can be put around it"

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when bfloat16 autocast was active at the measured calls."""
        return "" if after.autocast == "bfloat16" else "no bfloat16 autocast was active at the measured calls"


def _alone(sites: Iterable[tuple[str, int, str]]) -> dict[str, str]:
    """For each scope that has a site which must stay in float32, why its other sites stay so, too.

    What one site makes may reach another, and a float32 layer that gets bfloat16 outside of autocast raises an error.

    Args:
        sites: The scope and the line of each site, and why it cannot be wrapped.
    """
    return {
        scope: f"line {line} stays in float32 ({reason}), and one result may reach the other"
        for scope, line, reason in sites
        if reason not in ("", ALREADY, TEACHES)
    }
