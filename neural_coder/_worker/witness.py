"""Takes down what shows that a feature was at work while the script ran."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from . import accelerated, context, values
from .imports import AfterImport
from .recorder import Recorder

LONGEST_CALL = 30.0
"""Seconds; calls that take longer are not made once more."""
FLOATS = ("float64", "float32", "bfloat16", "float16")


class WitnessTaker:
    """Looks at the recorded calls, once, when the timing is over."""

    def __init__(self) -> None:
        self._frozen_graphs = 0
        self._dtypes: set[str] = set()
        self._channels_last = 0
        self._quantized: set[int] = set()
        self._extension: set[int] = set()
        self.record: dict[str, Any] = {}

    def await_imports(self, imports: AfterImport) -> None:
        """Count from the start what leaves no other trace: graphs that Inductor freezes."""
        imports.add("torch._inductor.freezing", self._count_freezing)

    def _count_freezing(self, module: Any) -> None:
        freeze: Callable[..., Any] = module.freeze

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._frozen_graphs += 1
            return freeze(*args, **kwargs)

        module.freeze = counted

    def take(self, recorder: Recorder) -> None:
        """Look at the calls that were recorded; makes each of them once more, with hooks."""
        sites = recorder.timings()
        timed = [site for site in sites if site.last_call is not None and site.kind == "inference"]
        calls = [site.last_call for site in timed if site.last_call is not None]
        calls_in_training = list(recorder.forwards.values())
        self._take_facts(recorder, calls, calls_in_training)
        if context.torch_module() is not None:
            quick = [
                site.last_call
                for site in timed
                if site.last_call is not None and max(site.samples or site.warmup) < LONGEST_CALL
            ]
            for call in (*quick, *calls_in_training):
                self._look_inside(call, training=call in calls_in_training)
        self.record.update(
            dtypes=sorted(self._dtypes.union(self.record["dtypes"])),
            channels_last_outputs=self._channels_last,
            quantized_modules=self.record["quantized_modules"] + len(self._quantized),
            extension_layers=len(self._extension),
        )

    def _take_facts(self, recorder: Recorder, calls: list[context.Call], calls_in_training: list[context.Call]) -> None:
        both = [*calls, *calls_in_training]
        said = [one for call in both for one in accelerated.explanations(call.function)]
        running = [str(one.running) for one in said if getattr(one, "running", "original") != "original"]
        reasons = [str(getattr(one, "reason", "")) for one in said]
        self.record = {
            "inference_mode": any(call.modes.inference_mode for call in calls),
            "grad_enabled": any(call.modes.grad and not call.modes.inference_mode for call in both),
            "autocast": next((_name(dtype) for call in both for dtype in call.modes.autocast.values()), ""),
            "dtypes": [dtype for one in said for dtype in getattr(one, "dtypes", ()) if dtype in FLOATS],
            "quantized_modules": sum(getattr(one, "quantized_modules", 0) for one in said),
            "graphs_compiled": max(context.graphs_compiled(), sum(getattr(one, "graphs", 0) for one in said)),
            "frozen_graphs": self._frozen_graphs,
            "scripted": any(_is_scripted(call.function) for call in both)
            or any("torchscript" in one for one in running),
            "fused_optimizers": sum(_is_fused(optimizer) for optimizer in recorder.optimizers),
            "batch_sizes": sorted({size for site in recorder.timings() for size in site.sizes if size is not None}),
            "cuda_used": _cuda_used(),
            "accelerated": next(iter(running), ""),
            "inaccurate": any(getattr(one, "is_inaccurate", False) for one in said),
            "fallback": "" if running else next(filter(None, reasons), ""),
        }

    def _look_inside(self, call: context.Call, *, training: bool) -> None:
        """Make a call again and look at the outputs of the layers."""
        torch: Any = context.torch_module()
        for root in values.modules_of(call.function):
            for module in root.modules():
                self._see_module(module)
        if call.why_not_again():
            return
        handle = torch.nn.modules.module.register_module_forward_hook(self._see_output)
        try:
            with call.again() as again, _uncompiled(), torch.no_grad() if training else contextlib.nullcontext():
                again()
        finally:
            handle.remove()

    def _see_output(self, module: Any, _: object, output: object) -> None:
        torch: Any = context.torch_module()
        # Convolutions with a padding module of their own ("same" padding) are no leaves.
        is_convolution = isinstance(module, torch.nn.modules.conv._ConvNd)
        if not is_convolution and any(True for _ in module.children()):
            return
        self._see_module(module)
        for _, leaf in values.leaves(output):
            if values.is_tensor(leaf) and leaf.is_floating_point():
                self._dtypes.add(_name(leaf.dtype))
                self._channels_last += is_convolution and _is_channels_last(torch, leaf)

    def _see_module(self, module: Any) -> None:
        if _is_quantized(module):
            self._quantized.add(id(module))
        if type(module).__module__.startswith("intel_extension_for_pytorch."):
            self._extension.add(id(module))


def _name(dtype: object) -> str:
    return str(dtype).rpartition(".")[2]


def _is_channels_last(torch: Any, tensor: Any) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    layout = formats.get(tensor.dim())
    # One channel or one pixel is stored alike in both formats and proves nothing.
    return layout is not None and tensor.is_contiguous(memory_format=layout) and not tensor.is_contiguous()


def _is_quantized(module: Any) -> bool:
    home = type(module).__module__
    if "quantized" in home.split(".") and home.startswith("torch."):
        return bool(getattr(module, "weight", None) is not None)
    weight = module._parameters.get("weight")
    return weight is not None and type(weight).__module__.partition(".")[0] == "torchao"


def _is_scripted(function: Any) -> bool:
    jit = getattr(sys.modules.get("torch"), "jit", None)
    if jit is None:
        return False
    if isinstance(function, (jit.ScriptModule, jit.ScriptFunction)):
        return True
    return any(
        isinstance(module, jit.ScriptModule) for root in values.modules_of(function) for module in root.modules()
    )


def _is_fused(optimizer: Any) -> bool:
    return any(group.get("fused") for group in optimizer.param_groups)


def _cuda_used() -> bool:
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda is not None and bool(cuda.is_initialized())


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    """Run compiled models eagerly for a while: hooks see nothing in compiled code, and would make it compile anew."""
    torch: Any = context.torch_module()
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
