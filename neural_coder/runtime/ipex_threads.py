"""Keeps what Intel Extension for PyTorch replaces in PyTorch, while its modules are called, to the thread that calls.

It puts functions of its own in the place of two methods of PyTorch for the time of a call. Modules that another thread
calls meanwhile would go through them, fail, and confuse what is counted; and of two such calls at once the second one
would put back the functions of the first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from intel_extension_for_pytorch.quantization import _quantize_utils

_lock = threading.Lock()
_inside = 0
_plain: dict[type, tuple[Callable[..., object], Callable[..., object]]] = {}
"""What each class has instead of its own method meanwhile, and that method."""
_METHODS = ((torch.nn.Module, "__call__"), (torch.nn.Sequential, "forward"))


@contextmanager
def in_this_thread_only() -> Iterator[None]:
    """While this is open, the extension replaces methods of PyTorch for the thread that it runs in, not for others."""
    global _inside
    with _lock:
        if not _inside:
            _route()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _restore()


class _Own(threading.local):
    """Stands in for a class of PyTorch: a method that is set on it is set for this thread."""

    def __init__(self, method: str, plain: Callable[..., object]) -> None:
        """Start with the plain method; called once for each thread."""
        setattr(self, method, plain)


class _View:
    """A module in which some names stand for others."""

    def __init__(self, module: object, **replaced: object) -> None:
        self.__dict__.update(replaced)
        self._module = module

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)


def _route() -> None:
    """Let PyTorch's methods ask what stands for them in this thread, and the extension set that."""
    stand_ins = {owner.__name__: _routed(owner, method) for owner, method in _METHODS}
    _quantize_utils.torch = _View(torch, nn=_View(torch.nn, **stand_ins))


def _routed(owner: type, method: str) -> _Own:
    plain = getattr(owner, method)
    own = _Own(method, plain)

    def routed(module: torch.nn.Module, *args: object, **kwargs: object) -> object:
        return getattr(own, method)(module, *args, **kwargs)

    setattr(owner, method, routed)
    _plain[owner] = (routed, plain)
    return own


def _restore() -> None:
    _quantize_utils.torch = torch
    for owner, method in _METHODS:
        routed, plain = _plain.pop(owner)
        if getattr(owner, method) is routed:  # else somebody has replaced it meanwhile, and goes on to the plain one
            setattr(owner, method, plain)
