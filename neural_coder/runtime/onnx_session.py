"""Sessions of ONNX Runtime: who executes, how graphs are optimized, and tensors without copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neural_coder.runtime.engine import CannotConvert
from neural_coder.runtime.flat import Session

if TYPE_CHECKING:
    from neural_coder.runtime.engine_onnxruntime import Options

CPU = "CPUExecutionProvider"
_ON_CPU = ("OpenVINOExecutionProvider", CPU)
_ON_GPU = ("TensorrtExecutionProvider", "CUDAExecutionProvider", CPU)
_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""On CPUs, one kernel for a sum and its layer normalization takes several times as long as the two kernels that it
replaces: BERT is 6 % faster in float32 and 11 % in 8 bits without."""
_WARNINGS_OFF = 3
_INLINE_BYTES = 1024
"""Weights below this size stay in the file of the graph."""


def providers_for(device: str, wanted: str | Sequence[str]) -> list[str]:
    """Names of the execution providers, the preferred one first.

    Args:
        device: Type of the device that the model is on.
        wanted: `auto` takes those that are installed for that device; or their names.

    Raises:
        CannotConvert: for one that is not installed.
    """
    import onnxruntime

    installed = onnxruntime.get_available_providers()
    if wanted == "auto":
        return [name for name in (_ON_GPU if device == "cuda" else _ON_CPU) if name in installed]
    missing = [name for name in wanted if name not in installed]
    if missing:
        raise CannotConvert(f"ONNX Runtime has no {missing[0]} here; it has: {', '.join(installed)}")
    return list(wanted)


def optimize(source: Path, target: Path, options: Options) -> None:
    """Write the graph as ONNX Runtime optimizes it for this machine, its weights beside it."""
    import onnxruntime

    settings = _settings(options)
    settings.optimized_model_filepath = str(target)
    settings.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", target.with_suffix(".data").name
    )
    settings.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(_INLINE_BYTES)
    )
    onnxruntime.InferenceSession(str(source), settings, providers=[CPU], disabled_optimizers=_SLOW_FUSIONS)


def open_session(
    file: Path, inputs: Sequence[str], providers: Sequence[str], options: Options, *, optimized: bool
) -> Session:
    """Open a file.

    Args:
        file: The graph.
        inputs: Names of its inputs, in the order of the tensors.
        providers: Who executes it.
        options: What the caller of `accelerate` asked for.
        optimized: It was written by `optimize` and needs no more of it.
    """
    import onnxruntime

    settings = _settings(options)
    if optimized:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(file), settings, providers=list(providers))
    if any(name in session.get_providers() for name in _ON_GPU[:-1]):
        return _through_bindings(session, inputs)
    return _through_arrays(session, inputs)


def _settings(options: Options) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _WARNINGS_OFF
    settings.intra_op_num_threads = options.threads or torch.get_num_threads()
    settings.inter_op_num_threads = options.inter_op_threads
    if options.inter_op_threads > 1:
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[options.optimization])
    return settings


def _through_arrays(session: Any, inputs: Sequence[str]) -> Session:
    """Tensors on the CPU share their memory with what the session reads; each answer gets memory of its own."""
    # What an optimizer found unused is no input of the session any more.
    taken = {each.name for each in session.get_inputs()}
    places = [(place, name) for place, name in enumerate(inputs) if name in taken]
    execute = session.run

    def run(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        answers = execute(None, {name: tensors[place].detach().numpy() for place, name in places})
        return [torch.from_numpy(answer) for answer in answers]

    return run


def _through_bindings(session: Any, inputs: Sequence[str]) -> Session:
    """Tensors on a GPU are read where they are, and answers stay there."""
    import numpy

    taken = {each.name for each in session.get_inputs()}
    places = [(place, name) for place, name in enumerate(inputs) if name in taken]
    outputs = [each.name for each in session.get_outputs()]

    def run(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        binding, device = session.io_binding(), tensors[0].device
        kept = [tensors[place].detach().contiguous() for place, _ in places]
        for tensor, (_, name) in zip(kept, places, strict=True):
            kind = numpy.dtype(str(tensor.dtype).removeprefix("torch."))
            binding.bind_input(
                name, tensor.device.type, tensor.device.index or 0, kind, tuple(tensor.shape), tensor.data_ptr()
            )
        for name in outputs:
            binding.bind_output(name, device.type, device.index or 0)
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()  # the session works on a stream of its own
        session.run_with_iobinding(binding)
        return [torch.from_dlpack(value) for value in binding.get_outputs()]

    return run
