"""Intel Extension for PyTorch: its kernels behind a traced and frozen graph, in fp32, bfloat16 or static int8.

A trace knows one path through the model and one set of shapes, so each signature gets a trace of its own, and each is
compared with the original twice. Without a trace the extension is slower than PyTorch itself on most models.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from neural_coder.runtime.engine import (
    QUANTIZED_TOLERANCE,
    REDUCED_TOLERANCE,
    CannotConvert,
    Conversion,
    Engine,
    Program,
    Request,
)

if TYPE_CHECKING:
    import torch

    from neural_coder.runtime.structure import Call

_WARM_UPS = 3
"""Calls of a fresh trace: the first ones gather profiles and compile fused kernels."""
_OBSERVERS = ("histogram", "minmax")
_DISTRIBUTION = "intel-extension-for-pytorch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings that only this engine has."""

    traced: bool = True
    """False runs the prepared model operation by operation: for models that cannot be traced; slow."""
    observer: str = "histogram"
    """How static int8 finds ranges: `histogram` cuts off rare values where that loses less, `minmax` keeps all."""
    alpha: float | None = None
    """Switches SmoothQuant on for linear layers: how much of the difficulty moves from activations into weights, from
    0 to 1 (0.5 suits most transformers)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.observer not in _OBSERVERS:
            raise ValueError(f"observer is one of {', '.join(_OBSERVERS)}; got {self.observer!r}")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is a number from 0 to 1; got {self.alpha!r}")


class Prepared(Conversion):
    """A copy with the extension's layers, traced for each signature."""

    def __init__(self, module: torch.nn.Module, precision: str, *, traced: bool) -> None:
        """Keep the prepared copy.

        Args:
            module: The copy, which takes calls as the original does.
            precision: What it was prepared for.
            traced: Whether it is traced.
        """
        super().__init__(module)
        self._precision = precision
        self._traced = traced

    def program(self, call: Call, output: object) -> Program:
        """Trace the copy on the tensors of `call`, or run it as it is."""
        from neural_coder.runtime.structure import Leaves, describe, rebuild, tensors_of

        leaves = Leaves()
        describe(output, leaves)
        if leaves.objects or not leaves.tensors:
            raise CannotConvert("an output is no tensor, and a trace returns tensors only")
        run_flat = self._trace(call) if self._traced else self._untraced(call)
        # Only the structure of the example is kept, not its memory.
        template = rebuild(output, lambda tensor: tensor.new_empty(0))

        def run(args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
            outputs = iter(run_flat(*map(_dense, tensors_of((args, tuple(kwargs.values()))))))
            return rebuild(template, lambda _: next(outputs))

        return run

    def dtypes(self) -> Iterator[str]:
        """Names of the types that weights are stored in."""
        if self._precision.startswith("int8"):
            yield "qint8"
        yield "bfloat16" if self._precision.endswith("bf16") else "float32"

    def _flat(self, call: Call) -> torch.nn.Module:
        from neural_coder.runtime.flat import Flat

        return Flat(self.module, call).eval()

    def _autocast(self) -> AbstractContextManager[object]:
        return autocast(self._precision.endswith("bf16"))

    def _trace(self, call: Call) -> torch.jit.ScriptModule:
        import torch

        tensors = tuple(map(_dense, call.leaves.tensors))
        flat = self._flat(call)  # not under autocast: what is computed in bfloat16 would not be quantized
        with torch.no_grad(), self._autocast(), _without_deprecations():
            try:
                traced = torch.jit.trace(flat, tensors, strict=False, check_trace=False)
            except RuntimeError as error:
                raise _explained(error) from error
            frozen = torch.jit.freeze(traced)
            for _ in range(_WARM_UPS):
                frozen(*tensors)
        self.graphs += 1
        return frozen

    def _untraced(self, call: Call) -> Callable[..., tuple[torch.Tensor, ...]]:
        flat = self._flat(call)

        def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            with self._autocast():
                outputs: tuple[torch.Tensor, ...] = flat(*tensors)
            return outputs

        return run


class Quantized(Prepared):
    """Copies whose operators were given scales: one for each structure of a call, and for each set of plain inputs."""

    def __init__(self, source: torch.nn.Module, request: Request) -> None:
        """Keep what is quantized once the structure of a call is known.

        Args:
            source: A copy of the model.
            request: Holds the settings and the calls to calibrate on.
        """
        options: Options = request.settings.options  # type: ignore[assignment]
        super().__init__(source, request.precision, traced=options.traced)
        self._request = request
        self._options = options
        self._made: dict[Hashable, torch.nn.Module] = {}

    def _flat(self, call: Call) -> torch.nn.Module:
        key = (call.key, tuple(map(repr, call.leaves.plain)))
        if key not in self._made:
            self._made[key] = self._quantized(call)
        return self._made[key]

    def _trace(self, call: Call) -> torch.jit.ScriptModule:
        from neural_coder.runtime.ipex_threads import in_this_thread_only

        with in_this_thread_only():
            return super()._trace(call)

    def _untraced(self, call: Call) -> Callable[..., tuple[torch.Tensor, ...]]:
        from neural_coder.runtime.ipex_threads import in_this_thread_only

        return in_this_thread_only()(super()._untraced(call))

    def _quantized(self, call: Call) -> torch.nn.Module:
        import torch

        from neural_coder.runtime.ipex_quantization import quantized

        with torch.inference_mode(False), torch.no_grad(), _without_deprecations():
            flat, self.quantized_modules = quantized(
                _copy(self.module), self._request, call, observer=self._options.observer, alpha=self._options.alpha
            )
        return flat


class IpexEngine(Engine):
    """Traced and frozen, with the extension's kernels."""

    precisions = ("fp32", "bf16", "int8_static", "int8_static_bf16")
    modules = ("intel_extension_for_pytorch",)
    options = Options
    specialised = True
    max_kinds = 4
    checks = 2
    under_autocast = False  # a trace under autocast would keep casts of weights that it must not keep

    def tolerance(self, precision: str) -> float:
        """Rounding only at fp32; quantization may lose much and still keep the answers."""
        return {"fp32": 0.01, "bf16": REDUCED_TOLERANCE}.get(precision, QUANTIZED_TOLERANCE)

    def memory(self, precision: str) -> float:
        """The copy's weights where they are cast, and the frozen ones in the layout of the kernels."""
        return {"fp32": 2.0, "bf16": 1.5}.get(precision, 2.5)

    def missing(self) -> str:
        """Say what to do where the extension is not there, or is made for another PyTorch: it ends the process then."""
        import torch

        command = "`neural-coder env create ipex` makes an environment for it"
        if absent := super().missing():
            return f"{absent.partition(':')[0]}: pip install {_DISTRIBUTION} beside its own PyTorch; {command}"
        try:
            version = metadata.version(_DISTRIBUTION)
        except metadata.PackageNotFoundError:
            return ""  # built from source: then it says itself what it needs
        if version.split(".")[:2] != torch.__version__.split(".")[:2]:
            made_for = ".".join(version.split(".")[:2])
            return (
                f"intel_extension_for_pytorch {version} works with PyTorch {made_for} only, and this is "
                f"{torch.__version__}; {command}"
            )
        return ""

    def unavailable(self, precision: str) -> str:
        """Packing weights in bfloat16 fails where the processor is too old for it."""
        import torch

        if precision.endswith("bf16") and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return "this processor has no instructions for the extension's bfloat16 (AVX512 or AVX_NE_CONVERT)"
        return ""

    def compute_dtype(self, precision: str) -> torch.dtype | None:
        """Inputs stay as they are: autocast inside of the graph decides what is computed in bfloat16."""
        return None

    def convert(self, model: torch.nn.Module, request: Request) -> Conversion:
        """Prepare a copy of the model, or calibrate and quantize it."""
        import torch

        options: Options = request.settings.options  # type: ignore[assignment]
        precision = request.precision
        _load()
        with torch.inference_mode(False), torch.no_grad(), _without_deprecations():
            copied = _copy(model)
            if precision.startswith("int8"):
                return Quantized(copied, request)
            prepared = _optimized(copied, precision, traced=options.traced)
        return Prepared(prepared, precision, traced=options.traced)


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """The same values in the order that fused kernels were compiled for: they take no look at strides."""
    return tensor.contiguous()


def autocast(enabled: bool) -> AbstractContextManager[object]:
    """Autocast to bfloat16 without the cache of casts, which a trace would turn into constants of the wrong kind."""
    import torch

    context: AbstractContextManager[object] = torch.autocast(
        "cpu", dtype=torch.bfloat16, enabled=enabled, cache_enabled=False
    )
    return context


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Tracing and the extension read every property of every module, those too that a library has deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@functools.cache
def _load() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        import intel_extension_for_pytorch  # noqa: F401


def _copy(model: torch.nn.Module) -> torch.nn.Module:
    """A copy with parameters of its own on the same memory: the extension changes the layout of those it is given."""
    import torch

    from neural_coder.runtime.conversion import twin

    copied = twin(model)
    own: dict[int, torch.nn.Parameter] = {}
    for module in copied.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fresh = torch.nn.Parameter(parameter.detach(), requires_grad=False)
                module._parameters[name] = own.setdefault(id(parameter), fresh)
    return copied


def _optimized(copied: torch.nn.Module, precision: str, *, traced: bool) -> torch.nn.Module:
    import intel_extension_for_pytorch as ipex
    import torch

    # Freezing folds batch normalizations, also those that the extension's own folding (by torch.fx) cannot reach or
    # would get wrong (arguments with defaults); it needs plain convolutions for that, and packs their weights itself.
    prepared: torch.nn.Module = ipex.optimize(
        copied,
        dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        inplace=True,
        conv_bn_folding=False,
        linear_bn_folding=False,
        weights_prepack=not traced,
    )
    return prepared


def _explained(error: RuntimeError) -> CannotConvert:
    """Say in plain words what a trace of a quantized model could not do."""
    text = str(error).strip()
    if "control flow" in text:
        return CannotConvert(
            "its forward takes another way while it is traced than in the calls it was calibrated on, and the "
            f"extension quantizes no such models: {text.splitlines()[0][:200]}"
        )
    return CannotConvert(f"it cannot be traced: {text.splitlines()[0][:300] if text else type(error).__name__}")


ENGINE = IpexEngine()
