"""Warnings of PyTorch about what engines use inside; they are this package's business, not the user's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_OURS: tuple[tuple[str, type[Warning]], ...] = (
    (r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning),
    (r"torch\.ao\.quantization is deprecated", DeprecationWarning),
    (r"torch\.quantize_per_tensor, torch\.quantize_per_channel .* are deprecated", UserWarning),
    (r"", torch.jit.TracerWarning),
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence exactly these warnings, also where warnings are errors."""
    with warnings.catch_warnings():
        for message, category in _OURS:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield
