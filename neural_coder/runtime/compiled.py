"""A module under `torch.compile`, with its weights frozen into the compiled graphs."""

from __future__ import annotations

from collections.abc import Mapping

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
        self._compiled = torch.compile(module, options=inductor_options(max_autotune))

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


def inductor_options(max_autotune: bool) -> dict[str, object]:
    """Inductor's settings for one compilation; the user's own, which are global, stay as they are."""
    return {"freezing": True, "max_autotune": True} if max_autotune else {"freezing": True}
