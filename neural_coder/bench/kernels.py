"""How fast a Python's PyTorch multiplies matrices in lower precision on this machine; measured once, then known."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

import neural_coder
from neural_coder.bench import machine
from neural_coder.bench.machine import Environment
from neural_coder.cache import FOLDER_VARIABLE
from neural_coder.errors import UserError
from neural_coder.source import write_bytes_atomically

log = logging.getLogger(__name__)

PROBE = Path(neural_coder.__file__).resolve().parent / "_worker" / "kernels.py"
SECONDS = 60.0
"""Limit for the probe; what takes the time is the import of PyTorch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """What the probe has shown."""

    ratios: Mapping[str, float] = field(default_factory=dict)
    """By kind (`bf16`, `int8`): how many times faster than float32."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """By kind: why there is no such figure."""


def known(environment: Environment) -> Kernels:
    """What an interpreter's PyTorch reaches on this machine, from the user's cache where it was measured before.

    Args:
        environment: The interpreter.
    """
    if problem := environment.why_unusable("torch"):
        return Kernels(reasons={"all": problem})
    file = _file(environment)
    found = _read(file)
    if found is None:
        found = measure(environment.python)
        if found.ratios:
            _keep(file, found)
    return found


def measure(python: Path) -> Kernels:
    """Run the probe in a child process."""
    answer, problem = machine.ask(python, "kernels", [], SECONDS, program=PROBE)
    if answer is None:
        return Kernels(reasons={"all": problem})
    return Kernels(ratios=answer["ratios"], reasons=answer["reasons"])


def _file(environment: Environment) -> Path:
    """Named by all that the figures depend on."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    base = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("neural-coder")
    hardware = machine.describe_machine()
    parts = [hardware.cpu, hardware.system, *hardware.features, str(environment.python)]
    parts += [environment.version("torch") or "", hashlib.sha256(PROBE.read_bytes()).hexdigest()]
    return base / "kernels" / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.json"


def _read(file: Path) -> Kernels | None:
    try:
        data: Any = json.loads(file.read_text(encoding="utf-8"))
        ratios = {str(name): float(value) for name, value in data["ratios"].items()}
        return Kernels(ratios=ratios, reasons={str(name): str(value) for name, value in data["reasons"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # Not there, or damaged: it is measured anew.


def _keep(file: Path, found: Kernels) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(file, json.dumps(asdict(found)).encode())
    except (OSError, UserError) as error:
        log.debug("%s cannot be kept: %s", file, error)
