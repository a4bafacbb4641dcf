"""Intel Extension for PyTorch brings kernels of its own for Intel's CPUs."""

from __future__ import annotations

from neural_coder.accelerated import Accelerated
from neural_coder.records import Safety
from neural_coder.transform import Example, code


class IntelExtension(Accelerated):
    """Run an inference model with Intel Extension for PyTorch: prepared for its kernels, traced and frozen.

    Helps convolutional models and transformers on Intel CPUs, above all together with `bf16_weights`. The extension is
    bound to one version of PyTorch, so the script runs in an environment of its own, which
    `neural-coder env create ipex` makes; it must hold what the script imports.

    The arithmetic stays the same. Tracing follows the branches that the example input took: the runtime checks the
    traced model against the original and runs the original for inputs of other kinds. Intel no longer develops the
    extension further. Models that are trained are left alone; `intel_training` is for those.

    Source: https://intel.github.io/intel-extension-for-pytorch/cpu/2.8.0+cpu/tutorials/examples.html
    """

    safety = Safety.SAME_MATH
    tasks = frozenset({"inference"})
    slot = "engine"
    order = 65
    backend = "ipex"
    effect = "runs with Intel's kernels"
    implies = ("inference_mode",)
    # Autocast around a trace is baked into it only in part; the extension chooses memory formats itself.
    also_decides = frozenset({"memory_format"})
    excludes = frozenset({"bf16"})
    hardware = "Intel CPUs with AVX2, AVX-512 or AMX"
    promise = 1.5

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.jit.script(torch.nn.Linear(3, 8))
            out = model(torch.zeros(1, 3))
        """),
        code("""
            import torch

            model = torch.compile(torch.nn.Linear(3, 8))
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
                model = neural_coder.runtime.accelerate(model, engine="ipex")
                out = model(torch.zeros(1, 3))
            """),
        ),
    )
