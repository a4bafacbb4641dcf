"""Warnings of PyTorch about what engines use inside; they are this package's business, not the user's."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_OURS: tuple[tuple[str, type[Warning]], ...] = (
    (r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning),
    (r"torch\.ao\.quantization is deprecated", DeprecationWarning),
    (r"torch\.quantize_per_tensor, torch\.quantize_per_channel .* are deprecated", UserWarning),
    (r"", torch.jit.TracerWarning),
    (r"To copy construct from a tensor", UserWarning),
    (r"The tensor attributes? .* assigned during export", UserWarning),
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    (r"JIT pass will be deprecated", UserWarning),
)
_LOUD = (
    "torch.onnx", "torch.export", "torch._export", "torch.utils._pytree", "torch.utils.cpp_extension",
    "torchao", "IPEX",
)  # fmt: skip
"""Loggers that report each operator that they do not need, and the like."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence exactly these warnings, also where warnings are errors, and these loggers below errors."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message, category in _OURS:
            warnings.filterwarnings("ignore", message=message, category=category)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
