"""Where NaN or infinity first appears in a model, for the message that refuses its answers."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from neural_coder.runtime.structure import Call, tensors_of

log = logging.getLogger(__name__)


def first_not_finite(module: torch.nn.Module, call: Call) -> str:
    """Name the first submodule whose output is not finite; empty when all are, or when it cannot be found out.

    Args:
        module: A model; it is run once more.
        call: Inputs, in the types that the model takes.
    """
    found: list[str] = []
    handles = [
        part.register_forward_hook(_noting(found, f"{name or 'the model itself'} ({type(part).__name__})"))
        for name, part in module.named_modules()
        if not isinstance(part, torch.jit.ScriptModule)
    ]
    try:
        with torch.no_grad():
            module(*call.args, **call.kwargs)
    except Exception:  # the model's own code, once more; what it raises says nothing about numbers
        log.debug("%s cannot be run once more", type(module).__name__, exc_info=True)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds finite numbers only; integers always do."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _noting(found: list[str], name: str) -> Callable[[torch.nn.Module, object, object], None]:
    def note(module: torch.nn.Module, inputs: object, output: object) -> None:
        if not found and not all(map(is_finite, tensors_of(output))):
            found.append(name)

    return note
