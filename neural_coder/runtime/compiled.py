"""A module under `torch.compile`, with its weights frozen into the compiled graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from neural_coder.runtime.engine import Conversion, Program
from neural_coder.runtime.structure import Call


class Compiled(Conversion):
    """A copy that is compiled when it is first called."""

    def __init__(
        self, module: torch.nn.Module, *, compute_dtype: torch.dtype | None = None, max_autotune: bool = False
    ) -> None:
        """Compile `module`; see `Conversion`."""
        super().__init__(module, compute_dtype=compute_dtype)
        self._compiled = torch.compile(module, backend=_backend(max_autotune))

    def program(self, call: Call, output: object) -> Program:
        """The compiled module, for all kinds of call: it compiles anew for what it has not seen."""
        from torch._inductor import config

        has_run = False

        def run(args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
            nonlocal has_run
            if has_run:
                return self._run(args, kwargs)
            has_run = True
            # Dynamo keeps weights apart from inputs, without which nothing is frozen, only where this setting, which
            # is global, says so while it captures the graph; the option of torch.compile comes too late for that.
            with config.patch(freezing=True):
                return self._run(args, kwargs)

        return run

    def _run(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        from torch._dynamo.utils import counters

        before = counters["stats"]["unique_graphs"]
        output = self._compiled(*args, **kwargs)
        self.graphs += counters["stats"]["unique_graphs"] - before
        return output


def _backend(max_autotune: bool) -> Callable[[torch.fx.GraphModule, Sequence[torch.Tensor]], object]:
    """Inductor, as a compiler that Dynamo takes for another one each time.

    Code that Dynamo has from a copy of the same class, with weights that were frozen earlier, fits all of its guards:
    by the name `inductor` it would run it again, and answer with the old weights (seen in PyTorch 2.13).
    """

    def compile_graph(graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> object:
        from torch._inductor.compile_fx import compile_fx

        return compile_fx(graph, inputs, config_patches=inductor_options(max_autotune))

    return compile_graph


def inductor_options(max_autotune: bool) -> dict[str, object]:
    """Inductor's settings for one compilation; the user's own, which are global, stay as they are."""
    return {"freezing": True, "max_autotune": True} if max_autotune else {"freezing": True}
