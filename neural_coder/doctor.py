"""What this machine and a Python on it can do, as plain data: CPU, GPUs, memory, PyTorch, and each engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neural_coder import config, engine, registry
from neural_coder.backend import Backend
from neural_coder.bench import machine
from neural_coder.race import Say
from neural_coder.records import SCHEMA_VERSION


def diagnose(python: Path | None, say: Say) -> dict[str, Any]:
    """Look at the machine, and import each engine in a child process of its own.

    Args:
        python: The interpreter to look into; None: the one that scripts are run with.
        say: Called with what is being looked at.
    """
    interpreter = python or config.default_python()
    say(f"looking into {interpreter}")
    modules = sorted({module for backend in registry.backends().values() for module in backend.modules})
    environment = machine.inspect_environment(interpreter, modules, deep=True)
    return {
        "schema": SCHEMA_VERSION,
        "machine": machine.describe_machine().as_dict(),
        "python": {"path": str(interpreter), "version": environment.python_version},
        "engines": [_engine(backend, environment) for backend in _torch_first()],
    }


def _torch_first() -> list[type[Backend]]:
    """All engines build on PyTorch: without it nothing below it can work."""
    return sorted(registry.backends().values(), key=lambda backend: (backend.modules != ("torch",), backend.name))


def _engine(backend: type[Backend], environment: machine.Environment) -> dict[str, Any]:
    reason = engine.why_unavailable(backend.name, environment)
    return {
        "name": backend.name,
        "title": backend.title,
        # The engine's own module comes last, behind those that it builds on.
        "version": environment.version(backend.modules[-1]),
        "usable": not reason,
        "reason": reason,
        "install": engine.how_to_install(backend),
        "features": sorted(
            str(name) if value is None else f"{name}={value}"
            for name, transform in registry.transforms().items()
            for value in transform.values or (None,)
            if transform.backend_for(value) == backend.name
        ),
    }
