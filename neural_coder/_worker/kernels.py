"""Measures how fast this machine multiplies matrices in bfloat16 and in 8-bit integers, against float32.

Run as `python kernels.py OUTPUT.json kernels` by the Python whose PyTorch is meant. It takes about a second.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROWS, INNER, COLUMNS = 256, 1024, 1024
"""Of the matrices: large enough for kernels to matter, small enough for a second."""
LARGE = 4096
"""Rows and columns of weights that no cache holds."""
SECONDS = 0.2
"""For each measurement."""

Kernel = Callable[[], tuple[tuple[int, ...], Callable[[], Any]]]
"""Prepares a product; gives its shape (rows, inner, columns) and what computes it."""


def ratios() -> dict[str, object]:
    """How many times faster than float32 each kind is, and why others could not be measured."""
    import torch

    # One thread and its own time: other programs on the machine then hardly matter.
    torch.set_num_threads(1)
    kinds: dict[str, list[Kernel]] = {
        # Where bfloat16 has no instructions, it may still help where memory sets the pace.
        "bf16": [lambda: _bf16(torch, ROWS, INNER, COLUMNS), lambda: _bf16(torch, 1, LARGE, LARGE)],
        # Without VNNI the first is a plain loop; the second has real kernels then, but may be gone one day.
        "int8": [lambda: _int8(torch), lambda: _int8_by_fbgemm(torch)],
    }
    found: dict[str, float] = {}
    reasons: dict[str, str] = {}
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, kernels in kinds.items():
            for kernel in kernels:
                try:
                    (rows, inner, columns), low = kernel()
                    high = partial(torch.nn.functional.linear, torch.randn(rows, inner), torch.randn(columns, inner))
                    found[name] = max(_seconds(high) / _seconds(low), found.get(name, 0.0))
                except Exception as error:
                    reasons[name] = f"PyTorch cannot do it here: {type(error).__name__}: {str(error).strip()[:200]}"
    return {"ratios": found, "reasons": {name: reason for name, reason in reasons.items() if name not in found}}


def _bf16(torch: Any, *shape: int) -> tuple[tuple[int, ...], Callable[[], Any]]:
    rows, inner, columns = shape
    left, right = torch.randn(rows, inner).bfloat16(), torch.randn(columns, inner).bfloat16()
    return shape, lambda: torch.nn.functional.linear(left, right)


def _int8(torch: Any) -> tuple[tuple[int, ...], Callable[[], Any]]:
    one = torch.randint(-127, 128, (ROWS, INNER), dtype=torch.int8)
    other = torch.randint(-127, 128, (INNER, COLUMNS), dtype=torch.int8)
    return (ROWS, INNER, COLUMNS), lambda: torch._int_mm(one, other)


def _int8_by_fbgemm(torch: Any) -> tuple[tuple[int, ...], Callable[[], Any]]:
    scales, zeros = torch.full((COLUMNS,), 0.02), torch.zeros(COLUMNS, dtype=torch.long)
    weights = torch.quantize_per_channel(torch.randn(COLUMNS, INNER), scales, zeros, 0, torch.qint8)
    inputs = torch.quantize_per_tensor(torch.randn(ROWS, INNER), 0.05, 64, torch.quint8)
    packed = torch.ops.quantized.linear_prepack(weights, None)
    return (ROWS, INNER, COLUMNS), lambda: torch.ops.quantized.linear(inputs, packed, 0.1, 64)


def _seconds(kernel: Callable[[], Any]) -> float:
    """The shortest of several calls."""
    kernel()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        start = time.thread_time()
        kernel()
        times.append(time.thread_time() - start)
    return max(min(times), 1e-9)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    Path(sys.argv[1]).write_text(json.dumps(ratios()), encoding="utf-8")
