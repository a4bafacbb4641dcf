"""Who answers a call: the guards that send it to the original when the converted copy might answer wrongly."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch.autograd import forward_ad

from neural_coder.runtime.structure import Leaves

_dispatch_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)
_is_tracing: Callable[[], bool] = getattr(torch._C, "_is_tracing", torch.jit.is_tracing)
_is_any_autocast_enabled: Callable[[], bool] = getattr(torch._C, "_is_any_autocast_enabled", lambda: True)
_functorch_level: Callable[[], object] = getattr(
    getattr(torch._C, "_functorch", None), "peek_interpreter_stack", lambda: None
)


def transformed() -> str:
    """Say which transformation of PyTorch is running the model just now; empty for a plain call."""
    if _is_tracing():
        return "the model is being traced"
    if _functorch_level() is not None:
        return "a transform of torch.func is active"
    if _dispatch_modes():
        return "a torch dispatch mode is active"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    return ""


def is_empty(leaves: Leaves) -> bool:
    """Whether one of the inputs has no elements, which engines answer wrongly or not at all."""
    return any([tensor.numel() == 0 for tensor in leaves.tensors])


def unfit(leaves: Leaves) -> str:
    """Say why no engine takes these inputs; empty when one may."""
    for tensor in leaves.tensors:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            return "an input is sparse, quantized or without data"
    if is_empty(leaves):
        return "an input is empty"
    for item in leaves.objects:
        if isinstance(item, torch.Tensor):
            return f"an input is a {type(item).__name__}, not a plain tensor"
    return "" if leaves.tensors or leaves.objects else "no input is a tensor"


def autocast_state(leaves: Leaves) -> Hashable:
    """What autocast does on the type of device that the tensors are on."""
    if not _is_any_autocast_enabled():
        return None
    device = str(leaves.tensors[0].device.type) if leaves.tensors else "cpu"
    if not torch.is_autocast_enabled(device):
        return None
    dtype: Hashable = torch.get_autocast_dtype(device)
    return dtype


_BY_TRAINING = (
    torch.nn.modules.batchnorm._NormBase,
    torch.nn.modules.dropout._DropoutNd,
    torch.nn.MultiheadAttention,
    torch.nn.RNNBase,
    torch.nn.RReLU,
)
"""Modules of PyTorch whose answers depend on their training flag; all others of `torch.nn.modules` ignore it."""


def answers_as_in_training(module: torch.nn.Module) -> bool:
    """Whether a module may answer otherwise than in evaluation, because its training flag is set.

    A new head on a model that is in evaluation already (`model.eval(); model.fc = nn.Linear(...)`) has the flag, too.
    """
    known = type(module).__module__.startswith("torch.nn.modules.")
    return module.training and (not known or isinstance(module, _BY_TRAINING))
