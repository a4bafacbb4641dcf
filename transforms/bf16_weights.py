"""A model that is only used for inference can keep its weights in bfloat16."""

from __future__ import annotations

from neural_coder.accelerated import Accelerated
from neural_coder.records import Safety
from neural_coder.transform import OCCUPIED, REDUCED, Example, code


class Bf16Weights(Accelerated):
    """Keep the weights of an inference model in bfloat16; inputs are cast on the way in, outputs back to float32.

    Helps on CPUs with bfloat16 instructions (AMX, AVX512_BF16, Arm BF16), and anywhere else where reading the weights
    takes most of the time, as in generating text: half as many bytes are read. Other than autocast it casts no weights
    during a call, and the script gets float32 results, which NumPy knows.

    Results differ by around one per cent; everything, also normalization and softmax, runs in bfloat16. Models that are
    trained are left alone. It goes through `neural_coder.runtime`, which runs the original where it cannot help.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.to
    """

    safety = Safety.CLOSE
    tasks = frozenset({"inference"})
    slot = "precision"
    precision = "bf16"
    chooses_engine = False
    taken = OCCUPIED | REDUCED
    effect = "keeps its weights in bfloat16"
    order = 50
    implies = ("inference_mode",)
    hardware = "CPUs with AMX, AVX512_BF16 or Arm BF16"
    promise = 2.5
    kernel = "bf16"

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.nn.Linear(3, 8).to(torch.bfloat16)
            out = model(torch.zeros(1, 3, dtype=torch.bfloat16))
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

            model = torch.jit.script(torch.nn.Linear(3, 8))
            out = model(torch.zeros(1, 3))
        """),
        code("""
            import torch

            criterion = torch.nn.MSELoss()
            loss = criterion(torch.zeros(3), torch.zeros(3))
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
                import neural_coder.runtime

                model = torch.nn.Linear(3, 8)
                model.eval()
                model = neural_coder.runtime.accelerate(model, engine="torch", precision="bf16")
                out = model(torch.zeros(1, 3))
            """),
        ),
        Example(
            before=code("""
                import torch


                def main():
                    net = torch.nn.Sequential(torch.nn.Linear(3, 8)).eval()
                    with torch.no_grad():
                        print(net(torch.zeros(1, 3)).numpy())


                main()
            """),
            after=code("""
                import torch
                import neural_coder.runtime


                def main():
                    net = torch.nn.Sequential(torch.nn.Linear(3, 8)).eval()
                    net = neural_coder.runtime.accelerate(net, engine="torch", precision="bf16")
                    with torch.no_grad():
                        print(net(torch.zeros(1, 3)).numpy())


                main()
            """),
        ),
    )
