"""A model as files of OpenVINO: its graph and weights, and what compiling made of them on this machine."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from neural_coder.runtime.engine import CannotConvert, Request
from neural_coder.runtime.exclusion import excluded_modules
from neural_coder.runtime.exported import Exported, Shapes
from neural_coder.runtime.graphs import Graphs, Session
from neural_coder.runtime.openvino_graph import translate
from neural_coder.runtime.openvino_library import capabilities, core, in_words, openvino
from neural_coder.runtime.openvino_quantize import quantize
from neural_coder.runtime.openvino_session import CompiledSession, Ports, find_ports

if TYPE_CHECKING:
    from neural_coder.runtime.engine_openvino import Options

log = logging.getLogger(__name__)

_GRAPH, _WEIGHTS, _COMPILED, _ABOUT = "model.xml", "model.bin", "compiled.blob", "openvino.json"
_MULTIPLYING = frozenset({"Convolution", "FullyConnected", "MatMul", "Deconvolution", "RNNSeq", "RNNCell", "MHA"})


class OpenvinoGraphs(Graphs):
    """Compiled models, one for each group of shapes."""

    def __init__(self, module: torch.nn.Module, request: Request) -> None:
        """Hold a copy of the model, and open what an earlier run has kept."""
        self._just_compiled: Any = None
        self._excluded = excluded_modules(module, request.settings.exclude)  # told before the work where it means none
        super().__init__(module, request)

    def write(self, exported: Exported, folder: Path) -> None:
        """Translate, quantize where asked to, compile, and save all of it."""
        translated = translate(exported)
        with in_words():
            model = translated.model
            if self.request.settings.needs_calibration:
                model = quantize(translated, self.request, self._excluded, self._options)
            openvino().save_model(model, folder / _GRAPH, compress_to_fp16=False)
            compiled = self._compile(folder)
        quantized = _quantized_layers(compiled)
        if self.request.settings.needs_calibration and not quantized:
            raise CannotConvert("it has no layer that OpenVINO computes in integers")
        ports = find_ports(model, translated.inputs, translated.outputs)
        about = {"ports": dataclasses.astuple(ports), "quantized": quantized, "machine": self._machine()}
        (folder / _ABOUT).write_text(json.dumps(about))
        if self.request.entry is not None:
            (folder / _COMPILED).write_bytes(compiled.export_model().getvalue())
        self._just_compiled = compiled

    def open(self, folder: Path, shapes: Shapes) -> Session:
        """Take what `write` has just compiled, or load it, or compile again where another machine compiled it."""
        about = json.loads((folder / _ABOUT).read_text())
        compiled, self._just_compiled = self._just_compiled, None
        if compiled is None and about["machine"] == self._machine():
            compiled = self._load(folder)
        if compiled is None:
            compiled = self._compile(folder)
        self.quantized_modules = int(about["quantized"])
        return CompiledSession(compiled, Ports(*map(tuple, about["ports"])))

    def dtypes(self) -> Iterator[str]:
        """Names of the types that the engine multiplies in."""
        if self.request.settings.needs_calibration:
            yield "int8"
        yield "bfloat16" if self.request.precision.endswith("bf16") else "float32"

    @property
    def _options(self) -> Options:
        return cast("Options", self.request.settings.options)

    def _configuration(self) -> dict[str, object]:
        return {
            "PERFORMANCE_HINT": self._options.hint.upper(),
            "INFERENCE_NUM_THREADS": self._options.threads or torch.get_num_threads(),
            # Left to itself, OpenVINO takes bfloat16 wherever the processor has it.
            "INFERENCE_PRECISION_HINT": "bf16" if self.request.precision.endswith("bf16") else "f32",
            "CACHE_MODE": "OPTIMIZE_SIZE",  # the compiled form holds no second copy of the weights
        }

    def _machine(self) -> str:
        """All that a compiled form is only good for."""
        name = core().get_property("CPU", "FULL_DEVICE_NAME")
        return repr((openvino().get_version(), name, sorted(capabilities()), self._configuration()))

    def _compile(self, folder: Path) -> Any:
        return core().compile_model(core().read_model(folder / _GRAPH), "CPU", self._configuration())

    def _load(self, folder: Path) -> Any:
        """Load the compiled form; None where that is not possible."""
        try:
            with (folder / _COMPILED).open("rb") as file:
                settings = {**self._configuration(), "WEIGHTS_PATH": str(folder / _WEIGHTS)}
                return core().import_model(file.read(), "CPU", settings)
        except (OSError, RuntimeError) as error:
            log.debug("%s cannot be loaded and is compiled again: %s", folder / _COMPILED, error)
            return None


def _quantized_layers(compiled: Any) -> int:
    """Layers that multiply integers, in what will really run."""
    layers = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ordered_ops()]
    return sum(
        layer["layerType"].astype(str) in _MULTIPLYING and layer["runtimePrecision"].astype(str) in ("i8", "u8")
        for layer in layers
    )
