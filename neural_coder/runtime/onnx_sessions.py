"""A model as ONNX files and the sessions that run them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from neural_coder.runtime.conversion import twin
from neural_coder.runtime.engine import CannotConvert, Request
from neural_coder.runtime.exclusion import excluded_modules
from neural_coder.runtime.exported import Exported, Shapes
from neural_coder.runtime.graphs import Graphs, Session
from neural_coder.runtime.onnx_graph import load_graph, nodes_of, write_onnx
from neural_coder.runtime.onnx_quantization import (
    Feed,
    integer_nodes,
    prepare,
    quantize_dynamically,
    quantize_statically,
)
from neural_coder.runtime.onnx_session import CPU, open_session, optimize, providers_for

if TYPE_CHECKING:
    from neural_coder.runtime.engine_onnxruntime import Options

_GRAPH = "model.onnx"
_ABOUT = "onnx.json"
_REDUCED = (torch.float16, torch.bfloat16)
_FLOAT = 1
"""What ONNX calls float32."""


class OnnxSessions(Graphs):
    """A model as ONNX Runtime holds it."""

    def __init__(self, model: torch.nn.Module, request: Request) -> None:
        """Hold a copy of the model, and open what an earlier run has kept.

        Args:
            model: The original.
            request: What was asked for.
        """
        assert request.settings.options is not None
        self._options: Options = request.settings.options  # type: ignore[assignment]
        # On CPUs, ONNX Runtime has few operators in 16 bits; float32 is faster there, and exact.
        device = next((weight.device.type for weight in model.parameters()), "cpu")
        reduced = device == "cpu" and any(weight.dtype in _REDUCED for weight in model.parameters())
        self._providers = providers_for(device, self._options.providers)
        self._dtypes = {"float32"}
        super().__init__(twin(model, torch.float32 if reduced else None), request)
        self.compute_dtype = torch.float32 if reduced else None
        excluded_modules(self.module, request.settings.exclude)  # names that mean nothing are told before the work

    def write(self, exported: Exported, folder: Path) -> None:
        """Export, quantize and optimize a graph."""
        with tempfile.TemporaryDirectory(prefix="neural-coder-") as scratch:
            graph = Path(scratch) / "exported.onnx"
            write_onnx(exported, graph)
            inputs = _input_names(graph)
            if self.request.precision != "fp32":
                graph = self._quantized(graph, exported, inputs)
            about = {"inputs": inputs, "quantized": integer_nodes(graph), "dtypes": _weight_types(graph)}
            if self._providers == [CPU]:
                optimize(graph, folder / _GRAPH, self._options)
            else:  # other providers optimize for themselves, and cannot keep what they made
                _save(graph, folder / _GRAPH)
        (folder / _ABOUT).write_text(json.dumps(about))

    def open(self, folder: Path, shapes: Shapes) -> Session:
        """Open a session on a graph."""
        about = json.loads((folder / _ABOUT).read_text())
        session = open_session(
            folder / _GRAPH, about["inputs"], self._providers, self._options, optimized=self._providers == [CPU]
        )
        self.quantized_modules = max(self.quantized_modules, about["quantized"])
        self._dtypes |= {*about["dtypes"]}
        return session

    def dtypes(self) -> Iterator[str]:
        """Names of the types that weights are stored in."""
        yield from sorted(self._dtypes)

    def _quantized(self, graph: Path, exported: Exported, inputs: list[str]) -> Path:
        prepared, quantized = graph.with_name("prepared.onnx"), graph.with_name("quantized.onnx")
        prepare(graph, prepared)
        excluded = nodes_of(graph, excluded_modules(self.module, self.request.settings.exclude))
        if self.request.precision == "int8_dynamic":
            quantize_dynamically(prepared, quantized, excluded=excluded, options=self._options)
        else:
            feeds = self._feeds(exported, inputs)
            quantize_statically(prepared, quantized, feeds, excluded=excluded, options=self._options)
        return quantized

    def _feeds(self, exported: Exported, inputs: list[str]) -> list[Feed]:
        """The calibration calls whose shapes the graph takes."""
        feeds: list[Feed] = []
        for call in self.request.calibration.calls:
            tensors = [self._cast(tensor) for tensor in call.leaves.tensors]
            if exported.shapes.admit(tensors):
                feeds.append({name: tensor.cpu().numpy() for name, tensor in zip(inputs, tensors, strict=True)})
        if not feeds:
            raise CannotConvert("no call of the calibration data has the shapes of this graph")
        return feeds

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        # As `Kind` casts what a call brings.
        fits = self.compute_dtype is None or not tensor.is_floating_point() or tensor.dim() == 0
        return tensor if fits else tensor.to(self.compute_dtype)


def _input_names(file: Path) -> list[str]:
    return [each.name for each in load_graph(file).input]


def _weight_types(file: Path) -> list[str]:
    import onnx

    graph = load_graph(file)
    # Shapes and axes are constants of the graph as well; weights have at least two dimensions, or are real numbers.
    kinds = {weight.data_type for weight in graph.initializer if len(weight.dims) > 1 or weight.data_type == _FLOAT}
    return sorted(onnx.helper.tensor_dtype_to_np_dtype(kind).name for kind in kinds)


def _save(source: Path, target: Path) -> None:
    import onnx

    onnx.save_model(onnx.load(str(source)), str(target), save_as_external_data=True, location=f"{target.name}.data")
