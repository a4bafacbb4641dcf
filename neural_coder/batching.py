"""The ways to run a stranger's script with another batch size, the most honest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

OPTIONS = frozenset(
    {
        "--batch-size",
        "--batch_size",
        "--batchsize",
        "--eval-batch-size",
        "--eval_batch_size",
        "--test-batch-size",
        "--test_batch_size",
        "--per-device-eval-batch-size",
        "--per_device_eval_batch_size",
    }
)
"""Arguments by which scripts are told it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to set the batch size."""

    kind: Literal["argument", "loader", "inputs"]
    words: str
    """What was done."""
    args: tuple[str, ...] = ()
    """The script's arguments, where they are what changes."""


def ways(size: int, args: Sequence[str]) -> list[Way]:
    """All ways that may work for a script; each is checked by what the model is then given.

    Args:
        size: The batch size that is wanted.
        args: The script's arguments.
    """
    found = []
    changed = _changed(size, args)
    if changed is not None:
        found.append(Way(kind="argument", words=f"the script was given {changed[1]}", args=changed[0]))
    found.append(Way(kind="loader", words=f"its data loaders form batches of {size}"))
    words = "the inputs of the model's calls were repeated or cut; the script itself would have to form such batches"
    return [*found, Way(kind="inputs", words=words)]


def _changed(size: int, args: Sequence[str]) -> tuple[tuple[str, ...], str] | None:
    """The arguments with another batch size, and the one that was changed; None where none sets it."""
    for index, word in enumerate(args):
        name, equals, _ = word.partition("=")
        if name not in OPTIONS:
            continue
        if equals:
            return (*args[:index], f"{name}={size}", *args[index + 1 :]), f"{name}={size}"
        if index + 1 < len(args) and args[index + 1].isdecimal():
            return (*args[: index + 1], str(size), *args[index + 2 :]), f"{name} {size}"
    return None
