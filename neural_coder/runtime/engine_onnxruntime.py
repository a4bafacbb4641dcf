"""ONNX Runtime: the model exported to ONNX, in floating point or quantized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neural_coder.runtime.engine import QUANTIZED_TOLERANCE, Conversion, Engine, Request

if TYPE_CHECKING:
    import torch

    from neural_coder.runtime.exported import Exported, Shapes
    from neural_coder.runtime.graphs import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings that only ONNX Runtime has."""

    threads: int = 0
    """Threads within an operator; 0 takes as many as PyTorch uses."""


class OnnxruntimeEngine(Engine):
    """Sessions of ONNX Runtime."""

    precisions = ("fp32",)
    modules = ("onnx", "onnxscript", "onnxruntime")
    distributions = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnxruntime"
    options = Options
    keeps = True
    specialised = True
    max_kinds = 64

    def tolerance(self, precision: str) -> float:
        """Rounding only at fp32; quantization may lose much and still keep the answers."""
        return 0.01 if precision == "fp32" else QUANTIZED_TOLERANCE

    def memory(self, precision: str) -> float:
        """The exported graph, its serialized form, and the session's own copy."""
        return 3.0

    def convert(self, model: torch.nn.Module, request: Request) -> Conversion:
        """Prepare a copy; it is exported when the shapes of a call are known."""
        from neural_coder.runtime.conversion import twin
        from neural_coder.runtime.graphs import Graphs

        class Sessions(Graphs):
            def write(self, exported: Exported, folder: Path) -> None:
                import torch

                torch.onnx.export(exported.program, (), folder / "model.onnx", dynamo=True, verbose=False)

            def open(self, folder: Path, shapes: Shapes) -> Session:
                import onnxruntime
                import torch

                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = torch.get_num_threads()
                session = onnxruntime.InferenceSession(folder / "model.onnx", options)
                names = [each.name for each in session.get_inputs()]

                def run(tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
                    feed = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
                    return [torch.from_numpy(each) for each in session.run(None, feed)]

                return run

        return Sessions(twin(model), request)


ENGINE = OnnxruntimeEngine()
