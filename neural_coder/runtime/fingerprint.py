"""A digest of a model: its weights, its structure, its settings, and the code that runs it."""

from __future__ import annotations

import functools
import hashlib
import platform
import sys
import weakref
from collections.abc import Iterator, Mapping
from enum import Enum
from importlib import metadata
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

import torch

_PACKAGES = ("torch", "transformers")
"""Distributions whose versions stand for the code of all their modules."""
_OWN = frozenset(vars(torch.nn.Module())) - {"training"}
"""Attributes that every module has."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.Size, torch.dtype, torch.device, torch.memory_format)
_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, type, ModuleType)


class CannotDescribe(Exception):
    """Something in the model cannot be told apart from its like; the message names it."""


def digest(model: torch.nn.Module, *more: str, packages: tuple[str, ...] = ()) -> str:
    """Return the digest of a model.

    Args:
        model: The model.
        more: Whatever else the result depends on.
        packages: Distributions whose versions it depends on, besides PyTorch's.

    Raises:
        CannotDescribe: when two models that answer differently could have the same digest.
    """
    total = hashlib.sha256()
    for text in (*_structure(model), *_versions(packages), *more):
        total.update(text.encode() + b"\0")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        total.update(_tensor(name, tensor))
    return total.hexdigest()


def _structure(model: torch.nn.Module) -> Iterator[str]:
    seen: set[int] = set()
    for name, module in model.named_modules():
        cls = type(module)
        yield f"{name} {cls.__module__}.{cls.__qualname__}"
        for key, value in vars(module).items():
            if key not in _OWN and not (key == "forward" or key.startswith("_replicate") or key == "__reduce_ex__"):
                yield f"{key}={_describe(f'{name}.{key}', value, seen)}"
    yield from sorted({_code(type(module).__module__) for module in model.modules()})


def _describe(name: str, value: object, seen: set[int]) -> str:
    """Describe an attribute by its contents; objects that were described before by their kind only."""
    if isinstance(value, (*_PLAIN, Enum)):
        return repr(value)
    if isinstance(value, _FUNCTIONS):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if id(value) in seen or isinstance(value, torch.nn.Module):
        return kind
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(_tensor(name, value)).hexdigest()
    items = _items(value)
    if items is None and isinstance(value, weakref.ref):
        return kind  # of weights that are described anyway
    if items is None:
        raise CannotDescribe(f"its attribute {name} is a {type(value).__name__}, whose contents cannot be seen")
    return f"{kind}({', '.join(f'{key}: {_describe(name, item, seen)}' for key, item in items)})"


def _items(value: object) -> list[tuple[str, object]] | None:
    if isinstance(value, Mapping):
        return [(repr(key), item) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [("", item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [("", item) for item in sorted(value, key=repr)]
    if isinstance(value, functools.partial):
        return [("function", value.func), ("arguments", value.args), ("keywords", value.keywords)]
    return list(vars(value).items()) if hasattr(value, "__dict__") else None


@functools.cache
def _code(module: str) -> str:
    """A digest of the file that a class comes from, unless it belongs to a package whose version says enough."""
    if module.partition(".")[0] in _PACKAGES:
        return ""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or not Path(file).is_file():
        return ""
    return f"{module} {hashlib.sha256(Path(file).read_bytes()).hexdigest()}"


@functools.cache
def _own_code() -> str:
    """A digest of this package: as it is installed, or as it was copied beside a script."""
    total = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        total.update(file.read_bytes())
    return total.hexdigest()


def _versions(packages: tuple[str, ...]) -> Iterator[str]:
    yield _own_code()
    yield f"python {sys.version_info[:2]} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    for name in (*_PACKAGES, *packages):
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:  # a copy inside of a repository, say: its code is the script's own
            continue


def _tensor(name: str, tensor: torch.Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    found = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    found.update(memoryview(plain.numpy()))
    return found.digest()
