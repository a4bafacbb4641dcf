"""Tensors in, tensors out, as tracing and graphs want it: a module and a program of that form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from neural_coder.runtime.engine import CannotConvert
from neural_coder.runtime.structure import Call, Leaves, describe, rebuild, tensors_of

Session = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""What an engine makes of a graph: tensors in, tensors out, in the order of the graph."""


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


class FlatProgram:
    """A program of tensors; what is around them in the answer is that of an example."""

    __slots__ = ("_template", "session")

    def __init__(self, session: Session, output: object) -> None:
        """Answer with what `session` gives, in the structure of `output`.

        Raises:
            CannotConvert: when `output` holds no tensor, or other objects.
        """
        check_output(output)
        self.session = session
        # Only the structure of the example is kept, not its memory.
        self._template = rebuild(output, lambda tensor: tensor.new_empty(0))

    def __call__(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        """Take the tensors out of the inputs, and put those of the session into the answer."""
        inputs = Leaves()
        describe(args, inputs)
        describe(kwargs, inputs)
        return self.dressed(self.session(inputs.tensors))

    def dressed(self, tensors: Sequence[Tensor]) -> object:
        """Put tensors into the structure of the answer."""
        if type(self._template) is Tensor:
            return tensors[0]
        following = iter(tensors)
        return rebuild(self._template, lambda _: next(following))


def check_output(output: object) -> None:
    """Refuse an answer that cannot be made of tensors alone.

    Raises:
        CannotConvert: with the reason in words.
    """
    leaves = Leaves()
    describe(output, leaves)
    if leaves.objects or not leaves.tensors:
        raise CannotConvert("an output is no tensor, and this engine returns tensors only")
