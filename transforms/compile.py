"""Inductor compiles a model's operations into C++ kernels."""

from __future__ import annotations

from collections.abc import Iterator

from neural_coder.edits import Accelerate, Edit, InsertAfter
from neural_coder.records import Analysis, LeftAlone, Model, Safety, Witness
from neural_coder.transform import (
    OCCUPIED,
    Example,
    Transform,
    code,
    why_not,
    why_not_accelerated,
)

TWICE = {"double_backward": "is differentiated twice, which compiled code cannot be"}


class Compile(Transform):
    """Compile the model in place with Inductor; with frozen weights where it is only used for inference.

    Helps most models whose inputs keep their shape, and more so together with bfloat16. `Module.compile()` keeps the
    object, the names of its weights and methods such as `generate()`. Freezing folds the weights into the compiled
    code; it needs gradients to be off, and models that are trained are compiled without it.

    The arithmetic stays the same, up to rounding. Needs a C++ compiler; compiling takes seconds to minutes at the first
    calls, and again when shapes change. A class of `torch.nn` itself (a plain `Sequential`) is left out by
    `Module.compile()`: the runtime compiles it for inference, and in training it is left alone. After freezing, later
    changes of the weights go unnoticed. A class with a `compile` method of its own would run that one: use
    `torch.compile` by hand there.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.compile
    """

    safety = Safety.SAME_MATH
    tasks = frozenset({"inference", "training"})
    slot = "engine"
    order = 70
    backend = "inductor"
    implies = ("inference_mode",)
    hardware = "CPUs with AVX2, AVX-512 or NEON and a C++ compiler; GPUs with Triton"
    promise = 1.3

    LEAVES_ALONE = (
        code("""
            import torch

            model = torch.nn.Sequential(torch.nn.Linear(3, 1))
            loss = model(torch.ones(2, 3)).sum()
            loss.backward()
        """),
        code("""
            import torch

            model = torch.compile(torch.nn.Linear(3, 8))
            out = model(torch.zeros(1, 3))
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 8)
            model.compile()
            out = model(torch.zeros(1, 3))
        """),
        code("""
            import torch

            model = torch.jit.script(torch.nn.Linear(3, 8))
            out = model(torch.zeros(1, 3))
        """),
        code("""
            import re

            model = re.compile('x+')
            print(model.match('xx'))
        """),
        code("""
            import torch

            criterion = torch.nn.MSELoss()
            loss = criterion(torch.zeros(3), torch.zeros(3))
        """),
    )
    CHANGES = (
        Example(
            before=code("""
                import torch

                class Net(torch.nn.Linear):
                    pass


                model = Net(3, 8)
                model.eval()
                with torch.no_grad():
                    out = model(torch.zeros(1, 3))
            """),
            after=code("""
                import torch

                class Net(torch.nn.Linear):
                    pass


                model = Net(3, 8)
                model.eval()
                model.compile(options={"freezing": True})
                with torch.no_grad():
                    out = model(torch.zeros(1, 3))
            """),
        ),
        Example(
            before=code("""
                import torch

                model = torch.nn.Sequential(torch.nn.Linear(3, 8))
                model.eval()
                with torch.no_grad():
                    out = model(torch.zeros(1, 3))
            """),
            after=code("""
                import torch
                import neural_coder.runtime

                model = torch.nn.Sequential(torch.nn.Linear(3, 8))
                model.eval()
                model = neural_coder.runtime.accelerate(model, engine="inductor")
                with torch.no_grad():
                    out = model(torch.zeros(1, 3))
            """),
        ),
        Example(
            before=code("""
                import torch

                class Net(torch.nn.Linear):
                    pass


                model = Net(3, 1)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                for _ in range(3):
                    optimizer.zero_grad()
                    loss = model(torch.ones(2, 3)).sum()
                    loss.backward()
                    optimizer.step()
            """),
            after=code("""
                import torch

                class Net(torch.nn.Linear):
                    pass


                model = Net(3, 1)
                model.compile()
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                for _ in range(3):
                    optimizer.zero_grad()
                    loss = model(torch.ones(2, 3)).sum()
                    loss.backward()
                    optimizer.step()
            """),
        ),
        Example(
            before=code("""
                from transformers import pipeline

                classify = pipeline("text-classification")
                print(classify("well done"))
            """),
            after=code("""
                from transformers import pipeline
                import neural_coder.runtime

                classify = pipeline("text-classification")
                classify = neural_coder.runtime.accelerate(classify, engine="inductor")
                print(classify("well done"))
            """),
        ),
    )

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Compile each model where it is ready."""
        for model in facts.models:
            reason = why_not(model, OCCUPIED | TWICE)
            if reason or model.ready is None:
                yield self.leave(model.line, reason)
            elif self._may_freeze(model, facts):
                in_place = model.kind == "module" and not self._skipped_by_pytorch(model)
                alone = f'{model.name}.compile(options={{"freezing": True}})' if in_place else ""
                words = f"{model.name} is compiled with frozen weights"
                yield Accelerate(at=model.ready, name=model.name, reason=words, engine="inductor", alone=alone)
            elif self._skipped_by_pytorch(model):
                yield self.leave(model.line, f"Module.compile() does nothing for {model.qualified_name} itself")
            elif model.kind == "module":
                words = f"{model.name} is compiled and stays trainable"
                yield InsertAfter(at=model.ready, code=f"{model.name}.compile()", reason=words, imports=())
            else:
                yield self.leave(model.line, f"{model.name} is a pipeline in a script that trains")

    @staticmethod
    def _skipped_by_pytorch(model: Model) -> bool:
        """Whether the forward is PyTorch's own code, which dynamo does not start at when `Module.compile()` is used."""
        return model.qualified_name.startswith("torch.nn.")

    @staticmethod
    def _may_freeze(model: Model, facts: Analysis) -> bool:
        """Whether nothing changes the weights: frozen code would go on using the old ones.

        Where anything is trained, the weights of other models may follow (an average of weights, a synced copy).
        """
        return not (model.trained or facts.training or facts.steps)

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when a graph was compiled."""
        if after.graphs_compiled:
            return ""
        return why_not_accelerated(after) if after.fallback else "no graph was compiled"
