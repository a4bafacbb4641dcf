"""One kind of call (structure, types, devices of the inputs), and how an engine answers it in the original's form."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import nullcontext

import torch
from torch import Tensor

from neural_coder.runtime.engine import CannotConvert, Conversion, Program
from neural_coder.runtime.structure import Call, Leaves, describe, rebuild


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
        self._program: Program | None = None
        self._compute_dtype: torch.dtype | None = None
        self._structure: Hashable = None
        self._dtypes: list[torch.dtype] = []
        self._casts = False

    def learn(self, conversion: Conversion, example: Call, expected: object) -> object:
        """Make the program, run it on the example, and return its answer.

        Args:
            conversion: The model as the engine holds it.
            example: A call of this kind.
            expected: What the original gave for it.
        """
        self._compute_dtype = conversion.compute_dtype
        if self._program is None:
            cast, _ = self._cast(example)
            self._program = conversion.program(cast, expected)
        cast, originals = self._cast(example)
        raw = self._run(cast)
        wanted, got = Leaves(), Leaves()
        describe(expected, wanted)
        self._structure = describe(raw, got)
        if len(wanted.tensors) != len(got.tensors):
            raise CannotConvert("the output has another structure than the original's")
        self._dtypes = [tensor.dtype for tensor in wanted.tensors]
        self._casts = self._dtypes != [tensor.dtype for tensor in got.tensors]
        return self._finish(raw, originals)

    def answer(self, call: Call) -> object:
        """Answer a call as the original would.

        Raises:
            OtherStructure: when the engine's answer is not of the structure that was compared.
        """
        cast, originals = self._cast(call)
        return self.hand_back(call, self._finish(self._run(cast), originals))

    def hand_back(self, call: Call, output: object) -> object:
        """Hand an answer back in the argument that the original would have extended, if it does such a thing."""
        if self.returned is None:
            return output
        given = call.args[self.returned] if isinstance(self.returned, int) else call.kwargs[self.returned]
        given.clear()  # type: ignore[attr-defined]
        given.update(output)  # type: ignore[attr-defined]
        return given

    def _run(self, call: Call) -> object:
        assert self._program is not None
        with torch.no_grad() if torch.is_grad_enabled() else nullcontext():
            return self._program(call.args, call.kwargs)

    def _cast(self, call: Call) -> tuple[Call, dict[int, Tensor]]:
        """Cast inputs; also map each cast tensor to the one that the caller gave."""
        originals: dict[int, Tensor] = {}
        if self._compute_dtype is None and self.returned is None:
            return call, originals

        def cast(tensor: Tensor) -> Tensor:
            # A single number (a time step, a scale) does not decide the type of a result, and loses less as it is.
            if self._compute_dtype is None or not tensor.is_floating_point() or tensor.dim() == 0:
                return tensor
            converted = tensor.to(self._compute_dtype)
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
