"""Autocast runs matrix products and convolutions in bfloat16 and keeps the rest in float32."""

from __future__ import annotations

from neural_coder.autocast import Autocast
from neural_coder.records import Safety
from neural_coder.transform import Example, code


class Bf16(Autocast):
    """Run models under `torch.autocast` in bfloat16: the forward in inference, forward and loss in training.

    Helps on CPUs with bfloat16 instructions (AMX, AVX512_BF16, Arm BF16), where linear layers and convolutions run up
    to four times as fast; on CPUs without them it is slower than float32. Weights stay in float32 and are cast on each
    call; `bf16_weights` saves that where a model is only used for inference.

    Results differ by around one per cent, because bfloat16 keeps 8 significant bits. Outputs become bfloat16, which
    NumPy does not know: calls whose results go there are left alone. The context is one for the CPU: where the script
    itself moves its model to a GPU, it does nothing and no harm; `amp` is for GPUs. The backward pass
    stays outside, as PyTorch asks.

    Source: https://docs.pytorch.org/docs/stable/amp.html#cpu-op-specific-behavior
    """

    safety = Safety.CLOSE
    tasks = frozenset({"inference", "training"})
    slot = "precision"
    order = 30
    hardware = "CPUs with AMX, AVX512_BF16 or Arm BF16"
    promise = 1.6
    kernel = "bf16"

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
