"""Inference needs no autograd graph."""

from __future__ import annotations

from collections.abc import Iterator

from neural_coder.edits import Edit, Replace, Wrap
from neural_coder.records import Analysis, Call, LeftAlone, Safety, Span, Witness
from neural_coder.transform import Example, Transform, code

ITEM = "torch.inference_mode()"


class InferenceMode(Transform):
    """Run inference calls under `torch.inference_mode()`, without recording anything for autograd.

    Helps small models most, where the bookkeeping of autograd is a visible part of a call, and saves the memory of
    activations everywhere. `torch.no_grad()` around inference becomes `torch.inference_mode()`.

    The arithmetic stays the same. The results are inference tensors: changing one in place outside the block, or using
    it in a computation that needs gradients, raises an error. Calls whose results feed training are left alone.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.autograd.grad_mode.inference_mode.html
    """

    safety = Safety.SAME_MATH
    tasks = frozenset({"inference"})
    slot = "grad_mode"
    companion = True
    order = 20
    hardware = "any"
    promise = 1.03

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.nn.Linear(3, 8)
            with torch.no_grad():
                features = model(torch.zeros(1, 3))
            features /= features.norm()
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 8)
            model.eval()
            with torch.inference_mode():
                out = model(torch.zeros(1, 3))
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 8)


            @torch.inference_mode()
            def predict(x):
                return model(x)


            predict(torch.zeros(1, 3))
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

            teacher = torch.nn.Linear(3, 8)
            student = torch.nn.Linear(3, 8)
            optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
            for _ in range(3):
                x = torch.ones(2, 3)
                with torch.no_grad():
                    target = teacher(x)
                loss = torch.nn.functional.mse_loss(student(x), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """),
        code("""
            import torch

            criterion = torch.nn.CrossEntropyLoss()
            loss = criterion(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))
        """),
        code("""
            from mylib import nn

            model = nn.load_table()
            rows = model.rows()
        """),
    )
    CHANGES = (
        Example(
            before=code("""
                import torch

                model = torch.nn.Linear(3, 8)
                features = model(torch.zeros(1, 3))
                features /= features.norm()
            """),
            after=code("""
                import torch

                model = torch.nn.Linear(3, 8)
                with torch.no_grad():
                    features = model(torch.zeros(1, 3))
                features /= features.norm()
            """),
        ),
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
                with torch.inference_mode():
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
            """),
            after=code("""
                import torch

                model = torch.nn.Linear(3, 8)
                model.eval()
                with torch.inference_mode():
                    out = model(torch.zeros(1, 3))
            """),
        ),
        Example(
            before=code("""
                import torch

                model = torch.nn.Linear(3, 8).eval()


                @torch.no_grad()
                def predict(x):
                    return model(x)


                predict(torch.zeros(1, 3))
            """),
            after=code("""
                import torch

                model = torch.nn.Linear(3, 8).eval()


                @torch.inference_mode()
                def predict(x):
                    return model(x)


                predict(torch.zeros(1, 3))
            """),
        ),
        Example(
            before=code("""
                import torch

                model = torch.nn.Linear(3, 8).eval()
                for _ in range(2):
                    scores = model(
                        torch.zeros(1, 3)
                    )
                    print(scores.shape)
            """),
            after=code("""
                import torch

                model = torch.nn.Linear(3, 8).eval()
                for _ in range(2):
                    with torch.inference_mode():
                        scores = model(
                            torch.zeros(1, 3)
                        )
                    print(scores.shape)
            """),
        ),
        Example(
            before=code("""
                import torch

                model = torch.nn.Linear(3, 1)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                for _ in range(3):
                    optimizer.zero_grad()
                    loss = model(torch.ones(2, 3)).sum()
                    loss.backward()
                    optimizer.step()

                model.eval()
                with torch.no_grad():
                    print(model(torch.ones(2, 3)))
            """),
            after=code("""
                import torch

                model = torch.nn.Linear(3, 1)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                for _ in range(3):
                    optimizer.zero_grad()
                    loss = model(torch.ones(2, 3)).sum()
                    loss.backward()
                    optimizer.step()

                model.eval()
                with torch.inference_mode():
                    print(model(torch.ones(2, 3)))
            """),
        ),
    )

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Wrap each inference call, or replace the `torch.no_grad()` that already covers it."""
        bound = {call.grad_mode_at for call in facts.inference if call.feeds_training or call.grad_mode_covers_training}
        replaced: set[Span] = set()
        for call in facts.inference:
            at = call.grad_mode_at if call.grad_mode == "no_grad" else None
            if reason := self._why_not(call, shares_training=at is not None and at in bound):
                yield self.leave(call.line, reason)
            elif call.changed_in_place and at is None:
                words = f"{call.callee}() needs no gradients here; its result is changed in place later"
                yield Wrap(at=call.statement, item="torch.no_grad()", reason=words)
            elif at is None:
                yield Wrap(at=call.statement, item=ITEM, reason=f"{call.callee}() needs no gradients here")
            elif at not in replaced:
                replaced.add(at)
                yield Replace(at=at, code=ITEM, reason="inference mode does less than no_grad", imports=("torch",))

    @staticmethod
    def _why_not(call: Call, *, shares_training: bool) -> str:
        if call.grad_mode == "inference_mode":
            return "it already runs in inference mode"
        if call.changed_in_place and call.grad_mode_at is not None:
            return "its result is changed in place outside of torch.no_grad(), which inference tensors forbid"
        if call.feeds_training:
            return "its result is used in training, which inference tensors cannot be"
        if shares_training:
            return "torch.no_grad() covers code of the training, too"
        if not call.wrappable and call.grad_mode_at is None:
            return call.why_not_wrappable or "no `with` block can be put around it"
        return ""

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when the measured calls ran in inference mode, or at least without gradients."""
        spared = before.grad_enabled and not after.grad_enabled
        return "" if after.inference_mode or spared else "the measured calls did not run in inference mode"
