"""Making a converted copy of a model, and proving that it answers as the original does."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Iterator
from contextlib import contextmanager
from operator import is_

import torch

from neural_coder.runtime.engine import CannotConvert
from neural_coder.runtime.structure import Call, Leaves, contents, describe, mutable_containers

RandomState = dict[str | int, torch.Tensor]

NOT_FINITE = "an output has NaN or infinity where the original's is finite"
_ROTARY = "inv_freq"


def twin(model: torch.nn.Module, dtype: torch.dtype | None = None, *, share_buffers: bool = True) -> torch.nn.Module:
    """Copy a model: modules of its own, weights shared with the original where they need not change.

    Args:
        model: The original.
        dtype: Floating-point weights get this type; None keeps and shares them.
        share_buffers: False copies buffers, for a copy that runs in place of the original.
    """
    memo: dict[int, object] = {}
    with torch.inference_mode(False), torch.no_grad():
        for parameter in model.parameters():
            memo[id(parameter)] = _parameter(parameter, dtype)
        for name, buffer in model.named_buffers():
            # Rotary frequencies stay exact: bfloat16 would put tokens that are far into a text at wrong positions.
            cast = None if name.endswith(_ROTARY) else dtype
            memo[id(buffer)] = _cast(buffer, cast) if share_buffers else buffer.clone()
        copied: torch.nn.Module = copy.deepcopy(model, memo)
    _forget_hooks(copied)
    # Flags that are still set belong to modules that ignore them; TorchScript freezes no module in training.
    return copied.eval()


def _parameter(parameter: torch.nn.Parameter, dtype: torch.dtype | None) -> torch.nn.Parameter:
    cast = _cast(parameter, dtype)
    return parameter if cast is parameter else torch.nn.Parameter(cast.detach(), requires_grad=False)


def _cast(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    if dtype is None or tensor.dtype == dtype or not tensor.is_floating_point():
        return tensor
    return tensor.detach().to(dtype)


def _forget_hooks(module: torch.nn.Module) -> None:
    """The original's own hooks fire around its forward; the copy must not fire them again."""
    for name, value in vars(module).items():
        if name.endswith("_hooks") and hasattr(value, "clear"):
            value.clear()


class InputsBefore:
    """The inputs of a call before it, to see what the forward does to them."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._versions = [None if t.is_inference() else t._version for t in call.leaves.tensors]
        self._values = [t.clone() if t.is_inference() else None for t in call.leaves.tensors]
        self._containers = list(mutable_containers((call.args, tuple(call.kwargs.values()))))

    def changed_tensor(self) -> bool:
        """Whether an input tensor was written to."""
        for tensor, version, value in zip(self._call.leaves.tensors, self._versions, self._values, strict=True):
            if value is not None and not torch.equal(_bits(tensor), _bits(value)):
                return True
            if version is not None and tensor._version != version:
                return True
        return False

    def changed_containers(self) -> list[object]:
        """Lists and dictionaries among the inputs that now hold something else."""
        changed = []
        for container, keys, values in self._containers:
            keys_now, values_now = contents(container)
            if keys_now != keys or len(values_now) != len(values) or not all(map(is_, values_now, values)):
                changed.append(container)
        return changed

    def returned_argument(self, output: object) -> int | str | None:
        """Position or name of the one dictionary argument that the forward extended and gave back.

        Raises:
            CannotConvert: when the forward changed its inputs in another way, which a copy could not repeat.
        """
        if self.changed_tensor():
            raise CannotConvert("its forward writes to its inputs")
        changed = self.changed_containers()
        if not changed:
            return None
        arguments: list[tuple[int | str, object]] = [*enumerate(self._call.args), *self._call.kwargs.items()]
        for name, value in arguments:
            if value is output and len(changed) == 1 and changed[0] is value and isinstance(value, (dict, UserDict)):
                return name
        raise CannotConvert("its forward changes lists or dictionaries among its inputs")


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """What a tensor holds, bit by bit: NaN equals itself there."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def disagreement(expected: object, actual: object, tolerance: float) -> str:
    """Say how an answer differs from the original's more than rounding can explain; empty when it does not."""
    wanted, got = Leaves(), Leaves()
    if describe(expected, wanted) != describe(actual, got):
        return "the output has another structure or other types than the original's"
    for place, (mine, theirs) in enumerate(zip(wanted.tensors, got.tensors, strict=True), 1):
        if mine.shape != theirs.shape:
            return f"an output has shape {tuple(theirs.shape)} instead of {tuple(mine.shape)}"
        reason = _tensor_disagreement(mine, theirs, tolerance)
        if reason:
            which = f" (output {place} of {len(wanted.tensors)})" if len(wanted.tensors) > 1 else ""
            return f"{reason}{which}"
    return ""


def _tensor_disagreement(expected: torch.Tensor, actual: torch.Tensor, tolerance: float) -> str:
    if not expected.is_floating_point() and not expected.is_complex():
        return ""  # tokens and labels may flip between equals; the structure was compared
    finite = torch.isfinite(expected)
    if not bool(torch.isfinite(actual)[finite].all()):
        return NOT_FINITE
    difference = torch.linalg.vector_norm((actual - expected)[finite].double())
    size = torch.linalg.vector_norm(expected[finite].double())
    if float(difference) > tolerance * float(size) + 1e-6:
        return f"an output differs by {float(difference) / max(float(size), 1e-30):.0%} from the original's"
    return ""


def random_state(model: torch.nn.Module) -> RandomState:
    """State of the random number generators that a forward may use: the CPU's, and those of the model's GPUs."""
    devices = {tensor.device.index for tensor in model.parameters() if tensor.device.type == "cuda"}
    return {"cpu": torch.get_rng_state(), **{device: torch.cuda.get_rng_state(device) for device in devices}}


@contextmanager
def replaying(state: RandomState) -> Iterator[None]:
    """Draw random numbers from `state` inside, and leave the generators as they were before."""
    with torch.random.fork_rng(devices=[device for device in state if isinstance(device, int)]):
        for device, values in state.items():
            if isinstance(device, int):
                torch.cuda.set_rng_state(values, device)
            else:
                torch.set_rng_state(values)
        yield
