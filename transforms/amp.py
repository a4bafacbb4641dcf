"""Autocast runs matrix products and convolutions on a GPU in 16 bits and keeps the rest in float32."""

from __future__ import annotations

from neural_coder.autocast import Autocast
from neural_coder.records import Analysis, Safety, TrainingStep
from neural_coder.transform import Example, code


class Amp(Autocast):
    """Run models on a GPU under `torch.autocast`: in bfloat16, or with `amp=fp16` in float16.

    Helps on GPUs with tensor cores: float16 from Volta on, bfloat16 from Ampere on. On a machine without a GPU a search
    does not try it; `bf16` is the same for CPUs.

    Results differ by around 1 % in bfloat16 and 0.1 % in float16. float16 ends at 65504: what grows beyond becomes
    infinite. Training in float16 needs its loss scaled (`torch.amp.GradScaler`), so training steps get bfloat16 only.

    Source: https://docs.pytorch.org/docs/stable/amp.html#cuda-op-specific-behavior
    """

    safety = Safety.CLOSE
    tasks = frozenset({"inference", "training"})
    slot = "precision"
    order = 31
    device = "cuda"
    values = ("bf16", "fp16")
    dtypes = {"bf16": "bfloat16", "fp16": "float16"}  # noqa: RUF012
    hardware = "GPUs with tensor cores"
    promise = 2.0

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.nn.Linear(3, 8).cuda()
            with torch.autocast("cuda", dtype=torch.float16):
                out = model(torch.zeros(1, 3).cuda())
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 8).half().cuda()
            out = model(torch.zeros(1, 3, dtype=torch.float16).cuda())
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 1).cuda()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            scaler = torch.amp.GradScaler("cuda")
            for _ in range(3):
                optimizer.zero_grad()
                out = model(torch.ones(2, 3).cuda())
                loss = out.sum()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
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

                model = torch.nn.Linear(3, 8)
                model.eval()
                out = model(torch.zeros(1, 3))
            """),
            after=code("""
                import torch

                model = torch.nn.Linear(3, 8)
                model.eval()
                with torch.autocast("cuda", dtype=torch.bfloat16):
                    out = model(torch.zeros(1, 3))
            """),
        ),
        Example(
            value="fp16",
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
                with torch.autocast("cuda", dtype=torch.float16):
                    out = model(torch.zeros(1, 3))
            """),
        ),
    )

    @classmethod
    def needs_gpu(cls, value: str | None) -> bool:
        """It is for GPUs."""
        return True

    def why_not_step(self, step: TrainingStep, facts: Analysis, dtype: str) -> str:
        """Gradients in float16 underflow unless the loss is scaled."""
        reason = super().why_not_step(step, facts, dtype)
        return reason or ("training in float16 needs its loss scaled" if dtype == "float16" else "")
