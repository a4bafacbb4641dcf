"""`accelerate` and `explain`: put an engine behind a model's forward, and tell what it does there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, SupportsIndex, TypeVar
from weakref import WeakKeyDictionary

from neural_coder.runtime.engine import Engine, load_engine
from neural_coder.runtime.explanation import AccelerationError, Explanation, warn
from neural_coder.runtime.settings import SYNONYMS, Settings, checked, options_from

if TYPE_CHECKING:
    import torch

    from neural_coder.runtime.dispatcher import Dispatcher

AnyModel = TypeVar("AnyModel")

_REPLACED = ("forward", "__reduce_ex__", "_replicate_for_data_parallel")
"""What `accelerate` puts into the `__dict__` of a module; copies and pickles are made without it."""

_refused: WeakKeyDictionary[torch.nn.Module, Explanation] = WeakKeyDictionary()
"""Modules whose forward cannot be replaced at all."""


def accelerate(
    model: AnyModel,
    *,
    engine: str = "torch",
    precision: str = "fp32",
    calibration: int | Iterable[object] = 32,
    exclude: Sequence[str] = (),
    dynamic_shapes: bool | str = "auto",
    cache: bool = True,
    strict: bool = False,
    **options: object,
) -> AnyModel:
    """Let an engine answer for a model wherever its answers are those of the original.

    Nothing is converted yet: the first suitable call runs the original and serves as example; then a converted copy
    takes over. It is only asked in evaluation mode, with gradients switched off, for kinds of input that it was seen to
    answer right, and while the model is unchanged; every other call runs the original forward. After a change of
    weights the model is converted again, a few times. Changes that PyTorch does not count (through `.data`, or a NumPy
    array that shares memory) are noticed by samples of each weight: a change of a few elements may go unnoticed.

    The model stays the same object with the same parameters: `state_dict()`, `load_state_dict()`, `.to()`, `.train()`,
    hooks and `generate()` work as before. Copies and pickles of it are plain models, without acceleration.

    Args:
        model: A `torch.nn.Module`, or an object that holds some in its attributes (a pipeline): then each of those.
        engine: `torch`, `torchao`, `inductor`, `torchscript`, `onnxruntime`, `openvino` or `ipex`.
        precision: `fp32`, `bf16` (weights and arithmetic in bfloat16; inputs and outputs are cast), `int8_dynamic`
            (weights quantized beforehand, activations while running), `int8_static` or `int8` (both quantized with
            scales that were found beforehand) or `int8_static_bf16` (what stays in floating point is bfloat16); each
            engine has some of them.
        calibration: For static quantization: how many samples (rows of the first input) of the first calls to find the
            scales on; the original answers these. Or the data itself, such as a DataLoader, of which up to 300 samples
            are taken: each item a tensor, a tuple of positional or a dictionary of keyword arguments; what an item
            holds beyond the model's inputs (labels) is ignored.
        exclude: Names of modules (`encoder.layer.3`, with all that is inside), or of their classes (`LayerNorm`), that
            are not quantized.
        dynamic_shapes: Engines that need a graph make one for the shapes of the first calls, and another in which the
            sizes that changed may vary when other shapes come. True lets all sizes vary from the beginning (slower
            where one size would do); False leaves calls of other shapes to the original.
        cache: Keep the converted model on disk, where the engine can, so that a second start skips calibration and
            conversion. `NEURAL_CODER_CACHE` names the folder and `NEURAL_CODER_CACHE_GB` its limit (8 GB).
        strict: Raise instead of warning when the model cannot be accelerated.
        options: Settings that only this engine has; see the `Options` of its file.

    Returns:
        `model` itself.

    Raises:
        ValueError: for an engine, a precision or an option that does not exist, and for values that cannot be meant.
        AccelerationError: with `strict`, when the model cannot be accelerated, here or in a later call.
    """
    precision = SYNONYMS.get(precision, precision)
    chosen = load_engine(engine, precision)
    settings = checked(
        Settings(
            engine=engine,
            precision=precision,
            calibration=calibration,
            exclude=exclude if isinstance(exclude, str) else tuple(exclude),  # type: ignore[arg-type]
            dynamic_shapes=dynamic_shapes,
            cache=cache,
            strict=strict,
            options=options_from(chosen.options, options, engine),
        )
    )
    modules = _modules(model)
    if not modules:
        _complain(f"{type(model).__name__} is no torch.nn.Module and holds none in its attributes", strict)
    for module in modules:
        _install(module, chosen, settings)
    return model


def explain(model: object) -> Explanation:
    """Tell what ran the last call of a model, and why.

    Args:
        model: What was given to `accelerate`. Of an object that holds several models, the largest is meant.
    """
    explanations = {module: found for module in _modules(model) if (found := _explanation(module)) is not None}
    if not explanations:
        reason = "it was not given to accelerate()"
        return Explanation(running="original", reason=reason, engine="", precision="")
    return explanations[max(explanations, key=_size)]


def _explanation(module: torch.nn.Module) -> Explanation | None:
    dispatcher = _dispatcher(module)
    return _refused.get(module) if dispatcher is None else dispatcher.explain()


def _modules(model: object) -> list[torch.nn.Module]:
    """The module itself, or those among the attributes of another object."""
    torch = sys.modules.get("torch")
    if torch is None:  # then nothing is a module
        return []
    if isinstance(model, torch.nn.Module):
        return [model]
    held = getattr(model, "__dict__", {}).values()
    return list({id(value): value for value in held if isinstance(value, torch.nn.Module)}.values())


def _dispatcher(module: torch.nn.Module) -> Dispatcher | None:
    from neural_coder.runtime.dispatcher import Dispatcher

    forward = vars(module).get("forward")
    return forward if type(forward) is Dispatcher else None


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _install(module: torch.nn.Module, engine: Engine, settings: Settings) -> None:
    from neural_coder.runtime.dispatcher import Dispatcher

    _uninstall(module)
    unsuitable = _unsuitable(module)
    dispatcher = Dispatcher(module, engine, settings)
    if unsuitable:
        dispatcher.stop(unsuitable)
        _refused[module] = dispatcher.explain()
        return
    vars(module).update(zip(_REPLACED, (dispatcher, _reduce(module), _replicate(module)), strict=True))
    missing = engine.missing() or engine.unavailable(settings.precision)
    if missing:
        dispatcher.stop(missing)
    elif engine.original_suffices(settings.precision):
        dispatcher.stop(f"{settings.engine}/{settings.precision} is how the original runs", warn=False)


def _uninstall(module: torch.nn.Module) -> None:
    _refused.pop(module, None)
    if _dispatcher(module) is not None:
        for name in _REPLACED:
            del vars(module)[name]


def _unsuitable(module: torch.nn.Module) -> str:
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        return "it is a TorchScript module already"
    if "forward" in vars(module):
        return "its forward was replaced already (by torch.compile, say)"
    return ""


def _complain(reason: str, strict: bool) -> None:
    if strict:
        raise AccelerationError(reason)
    warn(f"{reason}; nothing is accelerated.")


def _reduce(module: torch.nn.Module) -> Callable[[SupportsIndex], object]:
    """What `copy` and `pickle` ask the module for: its state, without what `accelerate` put there."""

    def reduce_ex(protocol: SupportsIndex) -> object:
        reduced: object = type(module).__reduce_ex__(module, protocol)  # type: ignore[call-arg]
        if not isinstance(reduced, tuple) or len(reduced) < 3 or not isinstance(reduced[2], dict):
            return reduced
        return (*reduced[:2], _plain(reduced[2]), *reduced[3:])

    return reduce_ex


def _plain(attributes: dict[str, object]) -> dict[str, object]:
    from neural_coder.runtime.dispatcher import Dispatcher

    ours = _REPLACED if type(attributes.get("forward")) is Dispatcher else _REPLACED[1:]
    return {name: value for name, value in attributes.items() if name not in ours}


def _replicate(module: torch.nn.Module) -> Callable[[], torch.nn.Module]:
    """What `DataParallel` asks the module for: replicas share its `__dict__`, but must run their own forward."""

    def replicate() -> torch.nn.Module:
        replica: torch.nn.Module = type(module)._replicate_for_data_parallel(module)
        for name in _REPLACED:
            vars(replica).pop(name, None)
        return replica

    return replicate
