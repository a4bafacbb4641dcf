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
from neural_coder.runtime.openvino_graph import Translated, translate
from neural_coder.runtime.openvino_library import capabilities, core, in_words, openvino
from neural_coder.runtime.openvino_quantize import compress, quantize
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
            model, group = self._quantized(translated)
        _save(model, folder)
        with in_words():
            compiled = self._compile(folder, group)
            quantized = _quantized_layers(compiled)
            if self._is_quantized and not quantized:
                raise CannotConvert("it has no layer that OpenVINO computes in integers")
            ports = find_ports(model, translated.inputs, translated.outputs)
            blob = compiled.export_model().getvalue() if self.request.entry is not None else b""
        about = {"ports": dataclasses.astuple(ports), "quantized": quantized, "group": group}
        (folder / _ABOUT).write_text(json.dumps({**about, "machine": self._machine()}))
        if blob:
            (folder / _COMPILED).write_bytes(blob)
        self._just_compiled = compiled

    def open(self, folder: Path, shapes: Shapes) -> Session:
        """Take what `write` has just compiled, or load it, or compile again where another machine compiled it."""
        about = json.loads((folder / _ABOUT).read_text())
        compiled, self._just_compiled = self._just_compiled, None
        if compiled is None and about["machine"] == self._machine():
            compiled = self._load(folder, about["group"])
        if compiled is None:
            compiled = self._compile(folder, about["group"])
        self.quantized_modules = int(about["quantized"])
        return CompiledSession(compiled, Ports(*map(tuple, about["ports"])))

    def dtypes(self) -> Iterator[str]:
        """Names of the types that the engine multiplies in."""
        if self._is_quantized:
            yield "int8"
        yield "bfloat16" if self.request.precision.endswith("bf16") else "float32"

    @property
    def _options(self) -> Options:
        return cast("Options", self.request.settings.options)

    @property
    def _is_quantized(self) -> bool:
        return self.request.precision.startswith("int8")

    def _quantized(self, translated: Translated) -> tuple[Any, int]:
        """The model as it is to be run, and how many activations share a scale that is found while it runs."""
        if self.request.settings.needs_calibration:
            return quantize(translated, self.request, self._excluded, self._options), 0
        return compress(translated, self._excluded) if self._is_quantized else (translated.model, 0)

    def _configuration(self, group: int = 0) -> dict[str, object]:
        return {
            "PERFORMANCE_HINT": self._options.hint.upper(),
            "INFERENCE_NUM_THREADS": self._options.threads or torch.get_num_threads(),
            # Left to itself, OpenVINO takes bfloat16 wherever the processor has it.
            "INFERENCE_PRECISION_HINT": "bf16" if self.request.precision.endswith("bf16") else "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": group,
            "CACHE_MODE": "OPTIMIZE_SIZE",  # the compiled form holds no second copy of the weights
        }

    def _machine(self) -> str:
        """All that a compiled form is only good for."""
        name = core().get_property("CPU", "FULL_DEVICE_NAME")
        return repr((openvino().get_version(), name, sorted(capabilities()), self._configuration()))

    def _compile(self, folder: Path, group: int) -> Any:
        return core().compile_model(core().read_model(folder / _GRAPH), "CPU", self._configuration(group))

    def _load(self, folder: Path, group: int) -> Any:
        """Load the compiled form; None where that is not possible."""
        try:
            with (folder / _COMPILED).open("rb") as file:
                settings = {**self._configuration(group), "WEIGHTS_PATH": str(folder / _WEIGHTS)}
                return core().import_model(file.read(), "CPU", settings)
        except (OSError, RuntimeError) as error:
            log.debug("%s cannot be loaded and is compiled again: %s", folder / _COMPILED, error)
            return None


def _save(model: Any, folder: Path) -> None:
    """Save a model.

    Raises:
        OSError: when it cannot be written, which OpenVINO says by another error.
    """
    try:
        openvino().save_model(model, folder / _GRAPH, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(f"OpenVINO could not write to {folder}") from error


def _quantized_layers(compiled: Any) -> int:
    """Layers that multiply integers, in what will really run."""
    layers = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ordered_ops()]
    return sum(
        layer["layerType"].astype(str) in _MULTIPLYING and layer["runtimePrecision"].astype(str) in ("i8", "u8")
        for layer in layers
    )
