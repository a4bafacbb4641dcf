"""A module around a module that takes and gives nothing but tensors, as tracing wants it."""

from __future__ import annotations

import torch
from torch import Tensor

from neural_coder.runtime.structure import Call, tensors_of


class Flat(torch.nn.Module):  # type: ignore[misc]  # torch is not followed, so its base class is Any to mypy
    """A module whose other inputs are those of one example."""

    def __init__(self, module: torch.nn.Module, example: Call) -> None:
        """Wrap `module` for calls that have the structure of `example`."""
        super().__init__()
        self.module = module
        self._example = example

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Put the tensors where they belong in the example, and list the tensors of the answer."""
        given = iter(tensors)
        call = self._example.with_tensors(lambda _: next(given))
        return tuple(tensors_of(self.module.forward(*call.args, **call.kwargs)))
