"""The processor that a converted model was made for: kept ones must not be used on another kind."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def instructions() -> str:
    """The sets of instructions that the processor has, as the system names them."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
