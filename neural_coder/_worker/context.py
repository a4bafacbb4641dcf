"""The circumstances of a probed call (gradients, inference mode, autocast, training), to see and to repeat them."""

from __future__ import annotations

import contextlib
import copy
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from . import values

log = logging.getLogger(__name__)


def torch_module() -> Any | None:
    """The script's torch, when it has imported it (and is done with that)."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and hasattr(torch, "is_inference_mode_enabled") else None


def grad_enabled() -> bool:
    """Whether gradients are recorded; yes for scripts without torch."""
    torch = torch_module()
    return torch is None or (torch.is_grad_enabled() and not torch.is_inference_mode_enabled())


def synchronize() -> None:
    """Wait for the GPU, where one is in use."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and hasattr(cuda, "is_initialized") and cuda.is_initialized():
        cuda.synchronize()


def graphs_compiled() -> int:
    """How many graphs `torch.compile` has made so far."""
    utils = sys.modules.get("torch._dynamo.utils")
    counters = getattr(utils, "counters", None)
    if counters is None or "stats" not in counters:
        return 0
    return int(counters["stats"]["unique_graphs"])


class Modes:
    """PyTorch's modes at one moment."""

    def __init__(self) -> None:
        torch: Any = torch_module()
        self.inference_mode = torch is not None and bool(torch.is_inference_mode_enabled())
        self.grad = torch is None or bool(torch.is_grad_enabled())
        self.autocast: dict[str, Any] = {}
        if torch is not None:
            enabled = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
            self.autocast = {device: torch.get_autocast_dtype(device) for device in enabled}

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Restore these modes for a while."""
        torch = torch_module()
        with contextlib.ExitStack() as stack:
            if torch is not None:
                stack.enter_context(torch.inference_mode(self.inference_mode))
                stack.enter_context(torch.set_grad_enabled(self.grad))
                for device in ("cpu", "cuda"):
                    if device in self.autocast or torch.is_autocast_enabled(device):
                        dtype = self.autocast.get(device)
                        stack.enter_context(torch.autocast(device, dtype=dtype, enabled=device in self.autocast))
            yield


class Call:
    """One call of the script, with what is needed to make it again."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.modes = Modes()
        self.owner = values.owner(function)
        self.training = getattr(self.owner, "training", None)

    def why_not_again(self) -> str:
        """Why the call cannot be repeated, in words; empty when it can."""
        for value in (*self.args, *self.kwargs.values()):
            if hasattr(value, "__next__"):
                return "one of its arguments is an iterator, which is used up"
        return ""

    @contextlib.contextmanager
    def again(self) -> Iterator[Callable[[], Any]]:
        """Set the circumstances up once more; yields what makes the call."""
        args, kwargs = _fresh(self.args), _fresh(dict(self.kwargs))
        switched = self.training is not None and getattr(self.owner, "training", None) != self.training
        if switched:
            self.owner.train(self.training)
        try:
            with self.modes.again():
                yield lambda: self.function(*args, **kwargs)
        finally:
            if switched:
                self.owner.train(not self.training)


def _fresh(value: Any) -> Any:
    """A copy of arguments that a call may change (caches, say); tensors and plain values as they are."""
    if values.is_plain(value):
        return value
    try:
        return copy.deepcopy(value)
    except Exception as error:
        # Anything may refuse to be copied (locks, generators): then the call gets what the script gave it.
        log.debug("%s cannot be copied: %s", type(value).__name__, error)
        return value
