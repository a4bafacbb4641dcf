"""What this machine and a Python on it can do, as plain data: CPU, GPUs, memory, PyTorch, and each engine."""

from __future__ import annotations

from typing import Any

from neural_coder import config, interpreters, registry
from neural_coder.backend import Backend
from neural_coder.bench import kernels, machine
from neural_coder.interpreters import Installed, Interpreters
from neural_coder.race import Say
from neural_coder.records import SCHEMA_VERSION


def diagnose(named: Interpreters, say: Say) -> dict[str, Any]:
    """Look at the machine, and import each engine in a child process of its own.

    Args:
        named: The interpreters to look into, where they are not those that scripts are run with.
        say: Called with what is being looked at.
    """
    interpreter = named.script or config.default_python()
    say(f"looking into {interpreter}")
    installed = interpreters.look(interpreter, named.engines, deep=True)
    say("multiplying matrices in each precision")
    return {
        "schema": SCHEMA_VERSION,
        "machine": machine.describe_machine().as_dict(),
        "python": {"path": str(interpreter), "version": installed.script.python_version},
        "kernels": _kernels(installed.script),
        "engines": [_engine(backend, installed) for backend in _torch_first()],
    }


def _kernels(environment: machine.Environment) -> dict[str, Any]:
    """How many times faster than float32 one core multiplies matrices in lower precision."""
    found = kernels.known(environment)
    return {
        "bf16": found.ratios.get("bf16"),
        "int8": found.ratios.get("int8"),
        "reason": "; ".join(f"{name}: {reason}" for name, reason in found.reasons.items()),
    }


def _torch_first() -> list[type[Backend]]:
    """All engines build on PyTorch: without it nothing below it can work."""
    return sorted(registry.backends().values(), key=lambda backend: (backend.modules != ("torch",), backend.name))


def _engine(backend: type[Backend], installed: Installed) -> dict[str, Any]:
    reason = installed.why_unavailable(backend.name)
    python = installed.pythons.get(backend.name)
    return {
        "name": backend.name,
        "title": backend.title,
        # The engine's own module comes last, behind those that it builds on.
        "version": installed.of(backend.name).version(backend.modules[-1]),
        "usable": not reason,
        "reason": reason,
        "install": interpreters.how_to_install(backend),
        "python": str(python) if python else None,
        "features": sorted(
            str(name) if value is None else f"{name}={value}"
            for name, transform in registry.transforms().items()
            for value in transform.values or (None,)
            if transform.backend_for(value) == backend.name
        ),
    }
