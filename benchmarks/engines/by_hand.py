"""Each engine used by hand, as its own documentation shows: what our variants are compared with.

Each recipe takes a model and inputs, and returns a function that answers calls with such inputs. The sources are named
at each one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from zoo import Inputs, Subject

Answer = Callable[[Inputs], Any]
CALIBRATION = 32
"""Samples that static quantization looks at; the same number as ours."""


def torch_bf16(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.to>."""
    model = subject.model.to(torch.bfloat16)
    return lambda given: model(**_bfloat16(given))


def torch_int8_dynamic(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://docs.pytorch.org/docs/stable/generated/torch.ao.quantization.quantize_dynamic.html>."""
    from torch.ao.quantization import quantize_dynamic

    model = quantize_dynamic(subject.model, {nn.Linear, nn.LSTM}, dtype=torch.qint8)
    return lambda given: model(**given)


def torchao_int8_dynamic(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://docs.pytorch.org/ao/stable/>."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(subject.model, Int8DynamicActivationInt8WeightConfig())
    return _compiled(subject.model)


def torchscript_fp32(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://docs.pytorch.org/docs/stable/generated/torch.jit.optimize_for_inference.html>."""
    traced = torch.jit.trace(subject.model, example_kwarg_inputs=inputs, strict=False, check_trace=False)
    model = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
    return lambda given: model(**given)


def torchscript_bf16(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """The same with weights in bfloat16."""
    subject.model.to(torch.bfloat16)
    answer = torchscript_fp32(subject, _bfloat16(inputs), calibration)
    return lambda given: answer(_bfloat16(given))


def inductor_fp32(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://docs.pytorch.org/tutorials/intermediate/inductor_debug_cpu.html> (freezing for inference)."""
    return _compiled(subject.model)


def inductor_bf16(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """The same with weights in bfloat16."""
    answer = _compiled(subject.model.to(torch.bfloat16))
    return lambda given: answer(_bfloat16(given))


def inductor_int8_static(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://docs.pytorch.org/ao/stable/tutorials_source/pt2e_quant_x86_inductor.html>."""
    return _pt2e(subject, inputs, calibration, dynamic=False)


def inductor_int8_dynamic(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """The same with scales found in each call."""
    return _pt2e(subject, inputs, calibration[:1], dynamic=True)


def inductor_int8_static_bf16(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """The same tutorial: int8 mixed with bfloat16 by autocast."""
    answer = _pt2e(subject, inputs, calibration, dynamic=False)

    def run(given: Inputs) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return answer(given)

    return run


def onnxruntime_fp32(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://docs.pytorch.org/tutorials/beginner/onnx/export_simple_model_to_onnx_tutorial.html>."""
    return _onnx_session(_exported_to_onnx(subject, inputs))


def onnxruntime_int8_dynamic(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html>."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = _exported_to_onnx(subject, inputs)
    quant_pre_process(path, path.with_name("prepared.onnx"))
    quantize_dynamic(path.with_name("prepared.onnx"), path.with_name("int8.onnx"), weight_type=QuantType.QInt8)
    return _onnx_session(path.with_name("int8.onnx"))


def onnxruntime_int8_static(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html> (QDQ, per channel)."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            given = next(self.left, None)
            return None if given is None else {name: tensor.numpy() for name, tensor in given.items()}

    path = _exported_to_onnx(subject, inputs)
    quant_pre_process(path, path.with_name("prepared.onnx"))
    quantize_static(
        path.with_name("prepared.onnx"),
        path.with_name("int8.onnx"),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return _onnx_session(path.with_name("int8.onnx"))


def openvino_fp32(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://docs.openvino.ai/2025/openvino-workflow/model-preparation/convert-model-pytorch.html>."""
    return _openvino(_converted_to_openvino(subject, inputs), "f32")


def openvino_bf16(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference/precision-control.html>."""
    return _openvino(_converted_to_openvino(subject, inputs), "bf16")


def openvino_int8_static(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://docs.openvino.ai/2025/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html>."""
    return _openvino(_nncf(subject, inputs, calibration), "f32")


def openvino_int8_static_bf16(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """The same, with bfloat16 for what is not quantized."""
    return _openvino(_nncf(subject, inputs, calibration), "bf16")


def inc_int8_static(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://intel.github.io/neural-compressor/latest/docs/source/3x/PT_StaticQuant.html>."""
    from neural_compressor.torch.export import export
    from neural_compressor.torch.quantization import convert, get_default_static_config, prepare

    exported = export(_Positional(subject.model, list(inputs)), tuple(inputs.values()))
    prepared = prepare(exported, get_default_static_config())
    for given in calibration:
        prepared(*given.values())
    return _compiled(convert(prepared), by_place=True)


def inc_bf16(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://intel.github.io/neural-compressor/latest/docs/source/3x/PT_MixedPrecision.html>."""
    from neural_compressor.torch.quantization import MixedPrecisionConfig, convert, prepare

    prepared = prepare(subject.model, MixedPrecisionConfig(dtype="bf16"))
    model = convert(prepared)
    return lambda given: model(**given)


def ipex_fp32(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://intel.github.io/intel-extension-for-pytorch/cpu/latest/tutorials/examples.html> (TorchScript)."""
    import intel_extension_for_pytorch as ipex

    return _frozen_trace(ipex.optimize(subject.model), inputs)


def ipex_bf16(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """The same with weights in bfloat16, under autocast."""
    import intel_extension_for_pytorch as ipex

    model = ipex.optimize(subject.model, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return _frozen_trace(model, inputs)


def ipex_int8_static(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Answer:
    """See <https://intel.github.io/intel-extension-for-pytorch/cpu/latest/tutorials/features/int8_overview.html>."""
    from intel_extension_for_pytorch.quantization import convert, default_static_qconfig_mapping, prepare

    prepared = prepare(subject.model, default_static_qconfig_mapping, example_kwarg_inputs=dict(inputs), inplace=True)
    for given in calibration:
        prepared(**given)
    return _frozen_trace(convert(prepared), inputs)


def _frozen_trace(model: nn.Module, inputs: Inputs) -> Answer:
    traced = torch.jit.trace(model, example_kwarg_inputs=dict(inputs), strict=False, check_trace=False)
    frozen = torch.jit.freeze(traced)
    frozen(**inputs), frozen(**inputs)  # the first calls compile
    return lambda given: frozen(**given)


class _Positional(nn.Module):
    """A model whose inputs are told apart by their place."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, first: Tensor, second: Tensor | None = None, third: Tensor | None = None) -> Any:
        given = [each for each in (first, second, third) if each is not None]
        return self.model(**dict(zip(self.names, given, strict=True)))


INTEL = "inc"
"""Intel Neural Compressor, which we are compared with; it runs in an environment of its own."""
RECIPES: dict[str, Callable[[Subject, Inputs, Sequence[Inputs]], Answer]] = {
    "torch/bf16": torch_bf16,
    "torch/int8_dynamic": torch_int8_dynamic,
    "torchao/int8_dynamic": torchao_int8_dynamic,
    "torchscript/fp32": torchscript_fp32,
    "torchscript/bf16": torchscript_bf16,
    "inductor/fp32": inductor_fp32,
    "inductor/bf16": inductor_bf16,
    "inductor/int8_dynamic": inductor_int8_dynamic,
    "inductor/int8_static": inductor_int8_static,
    "inductor/int8_static_bf16": inductor_int8_static_bf16,
    "onnxruntime/fp32": onnxruntime_fp32,
    "onnxruntime/int8_dynamic": onnxruntime_int8_dynamic,
    "onnxruntime/int8_static": onnxruntime_int8_static,
    "openvino/fp32": openvino_fp32,
    "openvino/bf16": openvino_bf16,
    "openvino/int8_static": openvino_int8_static,
    "openvino/int8_static_bf16": openvino_int8_static_bf16,
    "ipex/fp32": ipex_fp32,
    "ipex/bf16": ipex_bf16,
    "ipex/int8_static": ipex_int8_static,
    f"{INTEL}/int8_static": inc_int8_static,
    f"{INTEL}/bf16": inc_bf16,
}


def _bfloat16(inputs: Inputs) -> Inputs:
    return {name: each.bfloat16() if each.is_floating_point() else each for name, each in inputs.items()}


def _compiled(model: nn.Module, *, by_place: bool = False) -> Answer:
    """Compile with freezing, which the tutorials switch on by `TORCHINDUCTOR_FREEZING=1` for the whole process."""
    import torch._inductor.config

    compiled = torch.compile(model)
    met: set[object] = set()

    def run(given: Inputs) -> Any:
        shapes = tuple(each.shape for each in given.values())
        if shapes in met:
            return compiled(*given.values()) if by_place else compiled(**given)
        with torch._inductor.config.patch(freezing=True):  # another contestant may not want it
            met.add(shapes)
            return compiled(*given.values()) if by_place else compiled(**given)

    return run


def _pt2e(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs], *, dynamic: bool) -> Answer:
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_dynamic=dynamic))
    prepared = prepare_pt2e(torch.export.export(subject.model, (), inputs).module(), quantizer)
    for given in calibration:
        prepared(**given)
    return _compiled(convert_pt2e(prepared))


def _exported_to_onnx(subject: Subject, inputs: Inputs) -> Path:
    path = Path(tempfile.mkdtemp()) / "model.onnx"
    torch.onnx.export(subject.model, (), path, kwargs=inputs, dynamo=True, external_data=False, verbose=False)
    return path


def _onnx_session(path: Path) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda given: session.run(None, {name: given[name].numpy() for name in names})


def _converted_to_openvino(subject: Subject, inputs: Inputs) -> Any:
    import openvino

    model = openvino.convert_model(subject.model, example_input=inputs)
    model.reshape({port: list(inputs[port.get_any_name()].shape) for port in model.inputs})
    return model


def _nncf(subject: Subject, inputs: Inputs, calibration: Sequence[Inputs]) -> Any:
    import nncf

    data = nncf.Dataset(list(calibration), lambda given: {name: each.numpy() for name, each in given.items()})
    return nncf.quantize(
        _converted_to_openvino(subject, inputs),
        data,
        subset_size=len(calibration),
        model_type=nncf.ModelType.TRANSFORMER if subject.is_transformer else None,
    )


def _openvino(model: Any, precision: str) -> Answer:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return lambda given: compiled({name: each.numpy() for name, each in given.items()})


def first_tensor(answer: Any) -> Tensor:
    """The main output of a model, of whatever kind."""
    if isinstance(answer, Tensor):
        return answer.float()
    values = list(answer.values()) if hasattr(answer, "values") else list(answer)
    return torch.as_tensor(values[0]).float()
