"""One kind of call (structure, types, devices of the inputs), and how an engine answers it in the original's form."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from torch import Tensor

from neural_coder.runtime.engine import CannotConvert, Conversion, Program
from neural_coder.runtime.flat import FlatProgram
from neural_coder.runtime.structure import Call, Leaves, describe, rebuild

Given = TypeVar("Given")
Answer = TypeVar("Answer")


class OtherStructure(Exception):
    """An engine's answer has another structure than the one that was compared with the original's."""


class Kind:
    """How calls of one kind are answered."""

    def __init__(self, *, returned: int | str | None = None, checks: int = 0, reason: str = "") -> None:
        """Describe a kind of call that has no program yet.

        Args:
            returned: Position or name of the argument (a dictionary) that the forward extends and returns.
            checks: Calls that still have to be compared with the original's answer.
            reason: Why the original answers these calls; empty when the engine may.
        """
        self.returned = returned
        self.checks = checks
        self.reason = reason
        self.program: Program | None = None
        self._compute_dtype: torch.dtype | None = None
        self._structure: Hashable = None
        self._dtypes: list[torch.dtype] = []
        self._casts = False
        self._passed: list[tuple[int, int]] = []
        """Outputs that are one of the inputs themselves."""

    def learn(self, conversion: Conversion, example: Call, expected: object) -> object:
        """Make the program, run it on the example, and return its answer.

        Args:
            conversion: The model as the engine holds it.
            example: A call of this kind.
            expected: What the original gave for it.
        """
        self._compute_dtype = conversion.compute_dtype
        wanted = Leaves()
        describe(expected, wanted)
        self._dtypes = [tensor.dtype for tensor in wanted.tensors]
        if self.program is None:
            self.program = conversion.program(self.cast(example)[0], expected)
            places = {id(tensor): place for place, tensor in enumerate(example.leaves.tensors)}
            outputs = enumerate(wanted.tensors)
            self._passed = [(place, places[id(tensor)]) for place, tensor in outputs if id(tensor) in places]
        if isinstance(self.program, FlatProgram):
            return self._run_flat(self.program, example)
        cast, originals = self.cast(example)
        raw, got = self._run(cast), Leaves()
        self._structure = describe(raw, got)
        if len(wanted.tensors) != len(got.tensors):
            raise CannotConvert("the output has another structure than the original's")
        self._casts = self._dtypes != [tensor.dtype for tensor in got.tensors]
        return self._finish(raw, originals)

    def answer(self, call: Call) -> object:
        """Answer a call as the original would.

        Raises:
            OtherStructure: when the engine's answer is not of the structure that was compared.
        """
        if isinstance(self.program, FlatProgram):
            return self.hand_back(call, self._run_flat(self.program, call))
        cast, originals = self.cast(call)
        return self.hand_back(call, self._finish(self._run(cast), originals))

    def hand_back(self, call: Call, output: object) -> object:
        """Hand an answer back in the argument that the original would have extended, if it does such a thing."""
        if self.returned is None:
            return output
        given = call.args[self.returned] if isinstance(self.returned, int) else call.kwargs[self.returned]
        given.clear()  # type: ignore[attr-defined]
        given.update(output)  # type: ignore[attr-defined]
        return given

    # Programs of tensors: nothing of the call is built anew.

    def _run_flat(self, program: FlatProgram, call: Call) -> object:
        given = call.leaves.tensors
        inputs = given if self._compute_dtype is None else [self._narrow(tensor) for tensor in given]
        raw = without_gradients(program.session, inputs)
        if len(raw) != len(self._dtypes):
            raise OtherStructure("the output has another structure than in the call that was compared")
        tensors = [
            tensor if tensor.dtype is dtype else tensor.to(dtype)
            for tensor, dtype in zip(raw, self._dtypes, strict=True)
        ]
        for place, source in self._passed:
            tensors[place] = given[source]
        return program.dressed(tensors)

    def _narrow(self, tensor: Tensor) -> Tensor:
        # A single number (a time step, a scale) does not decide the type of a result, and loses less as it is.
        if self._compute_dtype is None or not tensor.is_floating_point() or tensor.dim() == 0:
            return tensor
        return tensor.to(self._compute_dtype)

    # Programs of whole calls.

    def _run(self, call: Call) -> object:
        program = self.program
        assert program is not None
        return without_gradients(lambda given: program(given.args, given.kwargs), call)

    def cast(self, call: Call) -> tuple[Call, dict[int, Tensor]]:
        """Cast inputs; also map each cast tensor to the one that the caller gave."""
        originals: dict[int, Tensor] = {}
        if self._compute_dtype is None and self.returned is None:
            return call, originals

        def cast(tensor: Tensor) -> Tensor:
            converted = self._narrow(tensor)
            if converted is not tensor:
                originals[id(converted)] = tensor
            return converted

        return call.with_tensors(cast), originals

    def _finish(self, raw: object, originals: dict[int, Tensor]) -> object:
        leaves = Leaves()
        if describe(raw, leaves) != self._structure:
            raise OtherStructure("the output has another structure than in the call that was compared")
        if not self._casts and not originals:
            return raw
        dtypes = iter(self._dtypes)

        def restore(tensor: Tensor) -> Tensor:
            dtype = next(dtypes)
            return originals[id(tensor)] if id(tensor) in originals else tensor.to(dtype)

        return rebuild(raw, restore)


def without_gradients(run: Callable[[Given], Answer], given: Given) -> Answer:
    """Run something without gradients, and without paying for that where they are off already."""
    if not torch.is_grad_enabled():
        return run(given)
    with torch.no_grad():
        return run(given)
