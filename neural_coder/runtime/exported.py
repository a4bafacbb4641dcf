"""A model as a graph of PyTorch's operators, which other engines convert: `torch.export`, and the shapes it holds for.

A graph takes the tensors of a call and gives those of the answer. Control flow that depends on data cannot be exported;
it is refused with the place in the user's code, and never baked into the graph.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neural_coder.runtime.engine import CannotConvert
from neural_coder.runtime.flat import Flat
from neural_coder.runtime.structure import Call

Dimension = int | tuple[str, int, int | None]
"""A fixed size, or a name with the smallest and the largest size (None: any); equal names have equal sizes."""
_LIBRARIES = ("/torch/", "/transformers/", "<frozen", "<string>", "/neural_coder/runtime/")
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in .*\n\s*(.*)')


@dataclass(frozen=True, slots=True)
class Shapes:
    """The shapes that a graph takes, input by input."""

    inputs: tuple[tuple[Dimension, ...], ...]

    @property
    def are_fixed(self) -> bool:
        """Whether every size is fixed."""
        return all(isinstance(size, int) for shape in self.inputs for size in shape)

    def admit(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the graph holds for these inputs."""
        if len(tensors) != len(self.inputs):
            return False
        sizes: dict[str, int] = {}
        for wanted, tensor in zip(self.inputs, tensors, strict=True):
            if len(wanted) != tensor.dim() or not all(map(_fits, wanted, tensor.shape, [sizes] * len(wanted))):
                return False
        return True

    def as_json(self) -> list[list[object]]:
        """Plain data."""
        return [[list(size) if isinstance(size, tuple) else size for size in shape] for shape in self.inputs]

    @classmethod
    def from_json(cls, data: Iterable[Iterable[object]]) -> Shapes:
        """The inverse of `as_json`."""
        return cls(tuple(tuple(_dimension(size) for size in shape) for shape in data))


@dataclass(frozen=True, slots=True)
class Exported:
    """A graph and the shapes that it holds for."""

    program: torch.export.ExportedProgram
    shapes: Shapes
    example: tuple[Tensor, ...]
    """Inputs like those that it was exported with."""

    def excluded(self, names: Iterable[str]) -> list[str]:
        """Names of the graph's nodes that belong to certain modules.

        Args:
            names: Qualified names of modules (`encoder.layer.0`), which stand for all that is inside of them, or names
                of classes (`LayerNorm`).
        """
        wanted = set(names)
        return [node.name for node in self.program.graph.nodes if wanted & set(_owners(node))]


def export(module: torch.nn.Module, call: Call, dynamic: Sequence[frozenset[int]]) -> Exported:
    """Export a model as one graph.

    Args:
        module: The model, in evaluation mode.
        call: An example.
        dynamic: For each tensor of the example the dimensions whose size may vary.

    Raises:
        CannotConvert: when the forward cannot be captured, with the place in the code.
    """
    tensors = tuple(call.leaves.tensors)
    vary = tuple({place: torch.export.Dim.AUTO for place in sorted(places)} or None for places in dynamic)
    try:
        with torch.no_grad():
            program = torch.export.export(Flat(module, call).eval(), tensors, dynamic_shapes=(vary,), strict=False)
    except Exception as error:  # the border to torch.export, which raises many kinds
        raise CannotConvert(f"its forward cannot be exported{_place(error)}: {_first_line(error)}") from error
    return Exported(program, _shapes(program), tensors)


def place_of(node: torch.fx.Node) -> str:
    """The last line of the user's own code that led to a node, in words; of a library's where there is none."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if not any(part in frame[0].replace("\\", "/") for part in _LIBRARIES)]
    if not frames:
        return ""
    file, line, code = (own or frames)[-1]
    return f" ({file}, line {line}: {code})"


def shapes_of(call: Call) -> list[torch.Size]:
    """The shapes of a call's tensors."""
    return [tensor.shape for tensor in call.leaves.tensors]


def resized(call: Call, shapes: Sequence[torch.Size]) -> Call:
    """A call like another one, with zeros of other shapes: a graph depends on no values."""
    sizes = iter(shapes)
    return call.with_tensors(lambda tensor: tensor.new_zeros(next(sizes)))


def best_example(met: Sequence[list[torch.Size]], dynamic: Sequence[frozenset[int]]) -> list[torch.Size]:
    """The shapes to export with: torch.export takes a size of 1 for a fixed one."""

    def worth(shapes: list[torch.Size]) -> tuple[int, int]:
        ones = sum(shape[place] == 1 for shape, places in zip(shapes, dynamic, strict=True) for place in places)
        return -ones, sum(shape.numel() for shape in shapes)

    return max(met, key=worth)


def varying(met: Sequence[Sequence[torch.Size]], mode: bool | str) -> list[frozenset[int]]:
    """Say which dimensions of each input vary.

    Args:
        met: The shapes of the inputs, call by call.
        mode: True lets all vary, False none, "auto" those in which the calls differ.
    """
    if mode is True:
        return [frozenset(range(len(shape))) for shape in met[0]]
    if mode is False:
        return [frozenset() for _ in met[0]]
    return [
        frozenset(place for place, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1)
        for shapes in zip(*met, strict=True)
    ]


def _fits(wanted: Dimension, size: int, sizes: dict[str, int]) -> bool:
    if isinstance(wanted, int):
        return wanted == size
    name, smallest, largest = wanted
    return sizes.setdefault(name, size) == size and smallest <= size and (largest is None or size <= largest)


def _dimension(data: Any) -> Dimension:
    if isinstance(data, int):
        return data
    name, smallest, largest = data
    return (str(name), int(smallest), None if largest is None else int(largest))


def _shapes(program: torch.export.ExportedProgram) -> Shapes:
    inputs = set(program.graph_signature.user_inputs)
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    ranges = {str(symbol): limits for symbol, limits in program.range_constraints.items()}
    return Shapes(tuple(tuple(_size(size, ranges) for size in value.shape) for value in values))


def _size(size: object, ranges: dict[str, object]) -> Dimension:
    if isinstance(size, int):
        return size
    limits = ranges.get(str(size))
    if limits is None:  # computed of another one: then only what was seen is certain
        return int(size.node.hint)  # type: ignore[attr-defined]
    smallest, largest = limits.lower, limits.upper  # type: ignore[attr-defined]
    # torch.export never tries a size of 1 where sizes vary. It nearly always holds for it, too, and a call of each
    # shape is compared with the original before the graph is trusted with it.
    lowest = 1 if int(smallest) == 2 else int(smallest)
    return (str(size), lowest, int(largest) if largest.is_Integer and int(largest) < 2**31 else None)


def _owners(node: torch.fx.Node) -> Iterable[str]:
    for path, kind in node.meta.get("nn_module_stack", {}).values():
        name = path.removeprefix("module").removeprefix(".")
        cls = kind if isinstance(kind, str) else getattr(kind, "__qualname__", "")
        yield from (name, cls.rpartition(".")[2])


def _place(error: BaseException) -> str:
    """The last line of the user's own code that led to an error, in words."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(part in frame.filename.replace("\\", "/") for part in _LIBRARIES)]
    frame = own[-1] if own else None
    return f" ({frame.filename}, line {frame.lineno}: {frame.line})" if frame else ""


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
