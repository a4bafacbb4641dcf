"""Calls of a compiled model: PyTorch's memory in, memory of the answer's own out, any number of threads at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neural_coder.runtime.engine import CannotConvert
from neural_coder.runtime.openvino_library import openvino

_DTYPES = {
    "f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "boolean": torch.bool,
    "i64": torch.int64, "i32": torch.int32, "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8,
}  # fmt: skip


_VIEWS = frozenset({
    "Concat", "Convert", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "StridedSlice", "Transpose",
    "Unsqueeze", "VariadicSplit",
})  # fmt: skip
"""Operations that may hand on memory instead of computing anything."""
_SMALL = 16_384
"""Elements of an output up to which a copy takes less than telling OpenVINO of other memory does. PyTorch copies twice
as many with one thread still; its other threads would stay busy waiting, and be in the way of the next call."""


@dataclass(frozen=True, slots=True)
class Ports:
    """How a graph's inputs and outputs lie in OpenVINO's form of it."""

    inputs: tuple[int, ...]
    """For each input of the model, which of the graph's it is: what nothing depends on is left out."""
    outputs: tuple[int, ...]
    """For each output of the graph, which of the model's it is: none is there twice."""
    computed: tuple[bool, ...]
    """For each output of the model, whether it is computed; otherwise it is a constant, or (a part of) an input."""


class CompiledSession:
    """A compiled model."""

    def __init__(self, compiled: Any, ports: Ports) -> None:
        """Look at what the model gives.

        Args:
            compiled: An `openvino.CompiledModel`.
            ports: Where its inputs and outputs are.
        """
        self.compiled = compiled
        self._ports = ports
        self._in_order = ports.outputs == tuple(range(len(ports.computed)))
        self._outputs = [_Output(*each) for each in zip(compiled.outputs, ports.computed, strict=True)]
        self._idle: list[tuple[Any, list[Tensor | None]]] = []

    def __call__(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Answer a call. Each thread that is inside has a request of its own."""
        try:
            request, kept = self._idle.pop()
        except IndexError:
            request, kept = self._new_request()
        inputs = [tensors[place].detach().contiguous() for place in self._ports.inputs]  # held until the call ends
        for place, tensor in enumerate(inputs):
            request.set_input_tensor(place, view(tensor))
        places = [
            output.place(request, place) if own is None else own
            for place, (output, own) in enumerate(zip(self._outputs, kept, strict=True))
        ]
        request.infer(share_outputs=True)
        answers = [
            output.taken(request, place) if own is None else own.clone()
            for output, place, own in zip(self._outputs, places, kept, strict=True)
        ]
        self._idle.append((request, kept))
        return answers if self._in_order else [answers[place] for place in self._ports.outputs]

    def _new_request(self) -> tuple[Any, list[Tensor | None]]:
        """A request, and for each output the memory that it always writes that to; None where it is another each time.

        That memory is PyTorch's own, not OpenVINO's, which may hand the same to several outputs.
        """
        request = self.compiled.create_infer_request()
        kept = [output.place(request, place) if output.is_small else None for place, output in enumerate(self._outputs)]
        return request, kept


class _Output:
    """One output of a compiled model, and whose memory it is written to."""

    def __init__(self, port: Any, is_computed: bool) -> None:
        self._type = port.element_type
        name = self._type.to_string()
        if name not in _DTYPES:
            raise CannotConvert(f"an output is {name}, which PyTorch does not have")
        self._dtype = _DTYPES[name]
        shape = port.partial_shape
        self._shape = tuple(shape.to_shape()) if shape.is_static else None
        self._unknown = [0] * (len(shape) if shape.rank.is_static else 1)
        self._is_computed = is_computed
        self.is_small = is_computed and self._shape is not None and math.prod(self._shape) <= _SMALL
        """Whether its size is known, and it is quicker copied than placed anew."""

    def place(self, request: Any, place: int) -> Any:
        """Let it be written to fresh memory: a tensor, or what OpenVINO resizes where the size is not known."""
        if not self._is_computed:  # OpenVINO would take that memory for the input's
            return place
        if self._shape is not None:
            answer = torch.empty(self._shape, dtype=self._dtype)
            request.set_output_tensor(place, view(answer))
            return answer
        resized = openvino().Tensor(self._type, self._unknown)
        request.set_output_tensor(place, resized)
        return resized

    def taken(self, request: Any, place: Any) -> Tensor:
        """What was written there."""
        if isinstance(place, Tensor):
            return place
        data = request.get_output_tensor(place).data.copy() if isinstance(place, int) else place.data
        return torch.from_numpy(data).view(self._dtype)  # NumPy knows no bfloat16


def find_ports(model: Any, inputs: Sequence[str], outputs: Sequence[int]) -> Ports:
    """Look at a model.

    Args:
        model: An `openvino.Model`.
        inputs: Names of the graph's inputs.
        outputs: For each output of the graph, which of the model's it is.
    """
    names = [port.get_names() for port in model.inputs]
    found = tuple(next(place for place, name in enumerate(inputs) if name in known) for known in names)
    computed = tuple(_is_computed(result.input_value(0).get_node()) for result in model.get_results())
    return Ports(found, tuple(outputs), computed)


def _is_computed(node: Any) -> bool:
    while node.get_type_name() in _VIEWS:
        node = node.input_value(0).get_node()
    return node.get_type_name() not in ("Parameter", "Constant")


def view(tensor: Tensor) -> Any:
    """A tensor of OpenVINO that is the memory of one of PyTorch, which must be contiguous and outlive it."""
    library = openvino()
    if tensor.dtype == torch.bfloat16:  # unknown to NumPy
        return library.Tensor(tensor.view(torch.uint16).numpy(), list(tensor.shape), library.Type.bf16)
    return library.Tensor(tensor.numpy(), shared_memory=True)
