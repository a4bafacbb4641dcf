"""Measures how fast this machine multiplies matrices in bfloat16 and in 8-bit integers, against float32.

Run as `python kernels.py OUTPUT.json kernels` by the Python whose PyTorch is meant. It takes about a second.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS, INNER, COLUMNS = 256, 1024, 1024
"""Of the matrices: large enough for kernels to matter, small enough for a second."""
SECONDS = 0.3
"""For each kind."""


def ratios() -> dict[str, object]:
    """How many times faster than float32 each kind is, and why others could not be measured."""
    import torch

    # One thread and its own time: other programs on the machine then hardly matter.
    torch.set_num_threads(1)
    left, right = torch.randn(ROWS, INNER), torch.randn(COLUMNS, INNER)
    kinds: dict[str, Callable[[], Any]] = {
        "bf16": _bf16(torch, left, right),
        "int8": _int8(torch),
    }
    found: dict[str, float] = {}
    reasons: dict[str, str] = {}
    with torch.inference_mode():
        single = _seconds(lambda: torch.nn.functional.linear(left, right))
        for name, kernel in kinds.items():
            try:
                found[name] = single / _seconds(kernel)
            except Exception as error:
                reasons[name] = f"PyTorch cannot do it here: {type(error).__name__}: {str(error).strip()[:200]}"
    return {"ratios": found, "reasons": reasons}


def _bf16(torch: Any, left: Any, right: Any) -> Callable[[], Any]:
    halves = left.bfloat16(), right.bfloat16()
    return lambda: torch.nn.functional.linear(*halves)


def _int8(torch: Any) -> Callable[[], Any]:
    one = torch.randint(-127, 128, (ROWS, INNER), dtype=torch.int8)
    other = torch.randint(-127, 128, (INNER, COLUMNS), dtype=torch.int8)
    return lambda: torch._int_mm(one, other)


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
