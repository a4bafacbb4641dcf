"""Which Python runs what: that of the script, and others for engines that need an environment of their own."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from neural_coder import environments, registry
from neural_coder.backend import Backend
from neural_coder.bench import machine
from neural_coder.errors import UserError
from neural_coder.parsing import quiet


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreters:
    """The interpreters that were named."""

    script: Path | None = None
    """Runs the script, and every engine that needs no other; None: not named."""
    engines: Mapping[str, Path] = field(default_factory=dict)
    """By engine."""


def parse(given: Iterable[str | os.PathLike[str]]) -> Interpreters:
    """Read interpreters as people name them: `PATH` for all, `ENGINE=PATH` for one engine.

    Raises:
        UserError: There is no such engine, or the path is no interpreter.
    """
    script: Path | None = None
    engines: dict[str, Path] = {}
    for item in [os.fspath(each) for each in given]:
        name, separator, path = item.partition("=")
        if not separator or Path(item).exists():
            script = interpreter(Path(item))
        elif name in registry.backends():
            engines[name] = interpreter(Path(path).expanduser())
        else:
            raise UserError(f"{name!r} in {item!r} is no engine; there are: {', '.join(registry.backends())}.")
    return Interpreters(script=script, engines=engines)


def interpreter(path: Path) -> Path:
    """Check that a path is an interpreter.

    Raises:
        UserError: It is not.
    """
    if not os.access(path, os.X_OK) or path.is_dir():
        raise UserError(f"{path} is not a Python interpreter that can be run.")
    # Not resolved: a virtual environment is known by the link that starts it.
    return Path(os.path.abspath(path))  # noqa: PTH100


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What the interpreters of one job offer."""

    script: machine.Environment
    others: Mapping[str, machine.Environment]
    """By engine, where that runs with another interpreter than the script."""
    needed: frozenset[str] = frozenset()
    """Modules that the script imports."""

    @property
    def pythons(self) -> dict[str, Path]:
        """By engine: its interpreter, where that is not the script's."""
        return {name: environment.python for name, environment in self.others.items()}

    def of(self, name: str) -> machine.Environment:
        """The environment that an engine runs in."""
        return self.others.get(name, self.script)

    def why_unavailable(self, name: str) -> str:
        """Why an engine cannot be used, in words; empty when it can."""
        backend, environment = registry.backends()[name], self.of(name)
        for module in backend.modules:
            if reason := environment.why_unusable(module):
                return reason
        if backend.needs_compiler and not environment.compiler:
            return "it builds C++ code, and no C++ compiler (g++ or clang++) was found"
        return ""

    def why_skipped(self, name: str) -> str:
        """As `why_unavailable`, with what to do about it; also where only what the script imports is missing."""
        if reason := self.why_unavailable(name):
            return f"{reason}; {how_to_install(registry.backends()[name])}"
        missing = [each for each in sorted(self.needed) if self._lacks(name, each)]
        if not missing:
            return ""
        packages = " ".join(self.script.requirement(module) for module in missing)
        made = environments.find(name)
        python = self.of(name).python
        if made is not None and made.python == python:
            command = f"neural-coder env create {name} --with '{packages}'"
        else:
            command = f"{python} -m pip install {packages}"
        return f"the script imports {', '.join(missing)}, which {name}'s own environment does not have; {command}"

    def _lacks(self, name: str, module: str) -> bool:
        return name in self.others and self.script.usable(module) and not self.others[name].usable(module)


def look(script: Path, engines: Mapping[str, Path], *, needed: Iterable[str] = (), deep: bool = False) -> Installed:
    """Ask each interpreter what it has.

    Args:
        script: The interpreter of the script.
        engines: Others, by engine. An engine that needs an environment of its own, and is not where the script runs,
            gets the one that `neural-coder env create` has made.
        needed: Modules that the script imports.
        deep: Also import each engine, in a child of its own, to see whether it works.
    """
    kinds = registry.backends().values()
    modules = sorted({module for kind in kinds for module in kind.modules})
    wanted = frozenset(needed)
    asked = [*modules, *sorted(wanted.difference(modules))]
    own = machine.inspect_environment(script, asked, deep=deep)
    others: dict[str, machine.Environment] = {}
    for kind in kinds:
        python = engines.get(kind.name) or _own_python(kind, own)
        if python is not None and python != script:
            listed = [*kind.modules, *sorted(wanted.difference(kind.modules))]
            others[kind.name] = machine.inspect_environment(python, listed, deep=deep)
    return Installed(script=own, others=others, needed=wanted)


def how_to_install(backend: type[Backend]) -> str:
    """The command that installs an engine."""
    if backend.requirements:
        return f"neural-coder env create {backend.name}"
    return f"pip install 'neural-coder[{backend.extra}]'" if backend.extra else f"pip install {backend.distribution}"


def imported(texts: Sequence[str]) -> frozenset[str]:
    """Top-level names of the modules that source texts import, wherever in them."""
    found: set[str] = set()
    for text in texts:
        with quiet():
            tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return frozenset(found)


def _own_python(backend: type[Backend], script: machine.Environment) -> Path | None:
    if not backend.requirements or all(script.usable(module) for module in backend.modules):
        return None
    made = environments.find(backend.name)
    return made.python if made else None
