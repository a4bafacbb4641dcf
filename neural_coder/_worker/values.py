"""Looks into arguments and results: which tensors they hold, under which names, how many items."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

DEPTH = 8


def is_tensor(value: object) -> bool:
    """Whether this is a tensor of the script's torch."""
    torch = sys.modules.get("torch")
    tensor_class = getattr(torch, "Tensor", None)
    return tensor_class is not None and isinstance(value, tensor_class)


def is_array(value: object) -> bool:
    """Whether this is a NumPy array."""
    array_class = getattr(sys.modules.get("numpy"), "ndarray", None)
    return array_class is not None and isinstance(value, array_class)


def is_module(value: object) -> bool:
    """Whether this is a PyTorch module."""
    module_class = getattr(getattr(sys.modules.get("torch"), "nn", None), "Module", None)
    return module_class is not None and isinstance(value, module_class)


def owner(function: Callable[..., Any]) -> Any:
    """The module that a callable is, or is a method of; None for others."""
    if is_module(function):
        return function
    holder = getattr(function, "__self__", None)
    return holder if is_module(holder) else None


def is_plain(value: object, depth: int = 0) -> bool:
    """Whether a value is made of tensors, arrays, numbers, texts and built-in containers only."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return True
    if is_tensor(value) or is_array(value):
        return True
    if depth > DEPTH:
        return False
    if type(value) in (list, tuple, set, frozenset):
        return all(is_plain(item, depth + 1) for item in value)  # type: ignore[attr-defined]
    if type(value) is dict:
        return all(is_plain(item, depth + 1) for item in value.values())
    return False


def leaves(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Walk through nested containers to the values in them, each with its path as a name."""
    if is_tensor(value) or is_array(value) or isinstance(value, (bool, int, float, str, bytes)) or depth > DEPTH:
        yield name, value
    elif isinstance(value, Mapping):
        for key in value:
            yield from leaves(value[key], f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for field in value._fields:
            yield from leaves(getattr(value, field), f"{name}.{field}" if name else field, depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, f"{name}[{index}]", depth + 1)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for entry in dataclasses.fields(value):
            inner = getattr(value, entry.name, None)
            yield from leaves(inner, f"{name}.{entry.name}" if name else entry.name, depth + 1)
    elif value is not None:
        yield name, value


def leading_dimension(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """How many items a call works on: the leading dimension of its first tensor, or the length of its first list."""
    both = (*args, *kwargs.values())
    for _, leaf in leaves(both):
        if (is_tensor(leaf) or is_array(leaf)) and len(leaf.shape) > 0:
            return int(leaf.shape[0])
    for value in both:
        if isinstance(value, (list, tuple)) and value:
            return len(value)
    return None


def first_tensor(*candidates: Any) -> Any | None:
    """The first tensor in some values."""
    return next((leaf for _, leaf in leaves(candidates) if is_tensor(leaf)), None)


def digest(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """A digest of all that a call is given: shapes, dtypes and bytes of tensors, numbers and texts."""
    state = hashlib.sha256()
    for name, leaf in leaves((args, dict(kwargs))):
        state.update(name.encode())
        state.update(_leaf_bytes(leaf))
    return state.hexdigest()


def _leaf_bytes(leaf: Any) -> bytes:
    if is_tensor(leaf):
        return _tensor_bytes(leaf)
    if hasattr(leaf, "tobytes"):  # a NumPy array or an image
        shape = getattr(leaf, "shape", getattr(leaf, "size", ""))
        return f"{getattr(leaf, 'dtype', '')}{shape}".encode() + bytes(leaf.tobytes())
    if isinstance(leaf, bytes):
        return leaf
    if isinstance(leaf, (bool, int, float, str)):
        return repr(leaf).encode()
    # Objects that we do not know by their class alone: their addresses differ between processes.
    return type(leaf).__qualname__.encode()


def _tensor_bytes(tensor: Any) -> bytes:
    torch: Any = sys.modules["torch"]
    head = f"{tensor.dtype}{tuple(tensor.shape)}".encode()
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        return head
    with torch.no_grad():
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        content = bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b""
    return head + content


def detached(value: Any, depth: int = 0) -> Any:
    """The same containers with tensors that hold no graph, so that keeping them keeps no memory of a step alive."""
    if is_tensor(value):
        return value.detach()
    if depth > DEPTH:
        return value
    if type(value) in (list, tuple):
        return type(value)(detached(item, depth + 1) for item in value)
    if type(value) is dict:
        return {key: detached(item, depth + 1) for key, item in value.items()}
    return value


def modules_of(function: Any) -> list[Any]:
    """The modules that a callable is, belongs to, or holds one level deep."""
    if is_module(function):
        return [function]
    holder = getattr(function, "__self__", None)
    if is_module(holder):
        return [holder]
    wrapped = getattr(function, "__wrapped__", None)
    candidates = [wrapped, *_attributes(holder), *_attributes(function), *_names_used(function)]
    found: list[Any] = []
    for value in candidates:
        if is_module(value) and all(value is not known for known in found):
            found.append(value)
    return found


def _attributes(holder: Any) -> list[Any]:
    if holder is None or isinstance(holder, ModuleType):
        return []
    return list(getattr(holder, "__dict__", {}).values())


def _names_used(function: Any) -> list[Any]:
    """Values of the global names and closure cells that a function uses."""
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        return []
    names = getattr(function, "__globals__", {})
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    return [*(names[name] for name in code.co_names if name in names), *cells]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - asking is the point
    except ValueError:
        return False
    return True
