"""OpenVINO runs a model as one compiled graph, with kernels for Intel and Arm CPUs."""

from __future__ import annotations

from neural_coder.accelerated import Accelerated
from neural_coder.records import Safety
from neural_coder.transform import Example, code


class OpenVino(Accelerated):
    """Export an inference model and run it with OpenVINO.

    Helps nearly every model on CPUs, small convolutional ones most. With `bf16_weights` it computes in bfloat16, in
    about half the time where the CPU has instructions for it; `int8_static_bf16` quantizes for it.

    The arithmetic stays the same, up to rounding. Models whose control flow depends on data cannot be exported; the
    runtime runs the original then, and for inputs of other kinds than were compared. Converting takes between some
    seconds and a minute; a second start takes what is kept on disk. Models that are trained are left alone.

    Source: https://docs.openvino.ai/2025/openvino-workflow/model-preparation/convert-model-pytorch.html
    """

    safety = Safety.SAME_MATH
    tasks = frozenset({"inference"})
    slot = "engine"
    order = 64
    backend = "openvino"
    effect = "runs with OpenVINO"
    implies = ("inference_mode",)
    # OpenVINO chooses its own layout; autocast would become a part of the graph; int8_dynamic brings an engine along.
    also_decides = frozenset({"memory_format"})
    excludes = frozenset({"bf16"})
    hardware = "Intel and Arm CPUs"
    promise = 2.4

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.jit.script(torch.nn.Linear(3, 8))
            out = model(torch.zeros(1, 3))
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

            model = torch.compile(torch.nn.Linear(3, 8))
            out = model(torch.zeros(1, 3))
        """),
        code("""
            from openvino import Core

            model = Core().compile_model("model.xml")
            print(model([[1.0, 2.0]]))
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
                model = neural_coder.runtime.accelerate(model, engine="openvino")
                out = model(torch.zeros(1, 3))
            """),
        ),
        Example(
            before=code("""
                import torch


                def main():
                    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
                    with torch.no_grad():
                        print(net(torch.zeros(1, 3, 9, 9)).shape)


                main()
            """),
            after=code("""
                import torch
                import neural_coder.runtime


                def main():
                    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
                    net = neural_coder.runtime.accelerate(net, engine="openvino")
                    with torch.no_grad():
                        print(net(torch.zeros(1, 3, 9, 9)).shape)


                main()
            """),
        ),
    )
