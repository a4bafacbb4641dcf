"""Whether sums of 8-bit products overflow on this processor, so that one side of the products must have 7 bits.

Without VNNI, x86 adds two products of an unsigned and a signed 8-bit number in 16 bits (`vpmaddubsw`), and cuts off
what does not fit: see <https://uxlfoundation.github.io/oneDNN/dev_guide_int8_computations.html>.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_WIDE_SUMS = ("avx512_vnni", "avx_vnni", "amx_int8")


def is_arm() -> bool:
    """Whether the processor is an Arm one of 64 bits, which adds in 32 bits."""
    return platform.machine().lower() in ("aarch64", "arm64")


def sums_overflow() -> bool:
    """Whether this processor cuts sums of full 8-bit products off."""
    if is_arm():
        return False
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:
        return not any(capabilities.get(name) for name in _WIDE_SUMS)
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux: 7 bits are right everywhere
        return True
