"""What kind of module an object is: a model or a mere function with state, compiled or scripted, of which class."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from . import values

MOST_SHAPES = 8
LONGEST_SIGNATURE = 160


def is_model(module: Any) -> bool:
    """Whether a module has weights, as losses, activations and most transforms have not."""
    torch: Any = sys.modules["torch"]
    if next(module.parameters(), None) is not None:
        return True
    # Weights of frozen, exported and quantized modules are constants.
    if isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule)):
        return True
    return any(_is_quantized(type(inner)) for inner in module.modules())


def unwrapped(module: Any) -> Any:
    """The module inside of what `torch.compile` and the wrappers for several devices put around it."""
    torch: Any = sys.modules["torch"]
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        inner = module.module if isinstance(module, wrappers) else _compiled_from(module)
        if inner is None:
            return module
        module = inner


def model_in(function: Any, args: tuple[Any, ...]) -> Any:
    """A model that a function works with: its own, one that it is given, one in its closure or among its globals."""
    function_of = getattr(function, "__func__", function)
    inside = inspect.getclosurevars(function_of) if inspect.isfunction(function_of) else None
    named = [] if inside is None else [*inside.nonlocals.values(), *inside.globals.values()]
    candidates = [getattr(function, "__self__", None), *args, *named]
    return next((value for value in candidates if values.is_module(value) and is_model(value)), None)


def class_name(module: Any) -> str:
    """The name of its class, as its author wrote it."""
    module = unwrapped(module)
    original = getattr(module, "original_name", None) if _is_scripted(module) else None
    return original if isinstance(original, str) and original else type(module).__qualname__.rpartition(">.")[2]


def base_names(module: Any) -> list[str]:
    """The names of its class and of all base classes below `Module`."""
    torch: Any = sys.modules["torch"]
    names = [kind.__name__ for kind in type(unwrapped(module)).__mro__]
    return [class_name(module), *names[: names.index(torch.nn.Module.__name__)]]


def form(module: Any) -> str:
    """`compiled`, `scripted`, or empty."""
    if _compiled_from(module) is not None or module.__dict__.get("_compiled_call_impl") is not None:
        return "compiled"
    return "scripted" if _is_scripted(module) else ""


def parameters(module: Any) -> int:
    """How many parameters it has; those of lazy modules count once they are there."""
    torch: Any = sys.modules["torch"]
    lazy = torch.nn.parameter.UninitializedTensorMixin
    return sum(int(tensor.numel()) for tensor in module.parameters() if not isinstance(tensor, lazy))


def signature(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """What a call was given, in short: `float32[4, 3, 224, 224], mask=bool[4, 17]`."""
    parts = [_short(value) for value in args] + [f"{name}={_short(value)}" for name, value in kwargs.items()]
    return ", ".join(parts)[:LONGEST_SIGNATURE]


def autocast() -> str:
    """The dtype of an active autocast, or empty."""
    torch: Any = sys.modules["torch"]
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            return str(torch.get_autocast_dtype(device)).rpartition(".")[2]
    return ""


def _compiled_from(module: Any) -> Any:
    """What `torch.compile` made this from; None for others."""
    parts = module.__dict__.get("_modules")
    return parts.get("_orig_mod") if isinstance(parts, dict) else None


def _short(value: Any, depth: int = 0) -> str:
    # Nothing else is asked for its shape: stand-ins of tracers would take that down.
    if values.is_tensor(value) or values.is_array(value):
        return f"{str(value.dtype).rpartition('.')[2]}{list(value.shape)}"
    if isinstance(value, (list, tuple)) and depth < 2:
        inner = ", ".join(_short(item, depth + 1) for item in value[:MOST_SHAPES])
        return f"[{inner}{', ...' if len(value) > MOST_SHAPES else ''}]"
    if isinstance(value, dict) and depth < 2:
        return "{" + ", ".join(f"{key}: {_short(value[key], depth + 1)}" for key in list(value)[:MOST_SHAPES]) + "}"
    return repr(value) if value is None or isinstance(value, (bool, int, float)) else type(value).__name__


def _is_scripted(module: Any) -> bool:
    torch: Any = sys.modules["torch"]
    return isinstance(module, torch.jit.ScriptModule)


def _is_quantized(kind: type) -> bool:
    return kind.__module__.startswith("torch.") and "quantized" in kind.__module__.split(".")
