"""Do something right after the script imports a module, without importing it for scripts that do not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Action = Callable[[Any], None]


class AfterImport(MetaPathFinder):
    """Runs actions once the modules that they wait for are there."""

    def __init__(self) -> None:
        self._actions: dict[str, list[Action]] = {}

    def add(self, name: str, action: Action) -> None:
        """Run `action(module)` as soon as the module has been imported; at once if it already has."""
        if name in sys.modules:
            action(sys.modules[name])
        else:
            self._actions.setdefault(name, []).append(action)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find an awaited module as Python would, and note when it has been executed."""
        if fullname not in self._actions:
            return None
        spec = _find_without(self, fullname, path, target)
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            self._watch(spec.loader)
        return spec

    def _watch(self, loader: Loader) -> None:
        # The actions are taken only when the module really runs: many libraries look a spec up and drop it again.
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for action in self._actions.pop(module.__name__, ()):
                action(module)

        loader.exec_module = exec_module  # type: ignore[method-assign]


def _find_without(
    finder: MetaPathFinder, fullname: str, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    for other in sys.meta_path:
        if other is finder or not hasattr(other, "find_spec"):
            continue
        spec = other.find_spec(fullname, path, target)
        if spec is not None:
            return spec
    return None
