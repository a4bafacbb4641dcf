"""The only door to jedi: asks whether a callee gives a PyTorch module, within a time budget; "unknown" is an answer."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from neural_coder.source import Source

if TYPE_CHECKING:
    import jedi

log = logging.getLogger(__name__)

BUDGET_SECONDS = 2.0
"""Time that questions about one file may take together."""


class Inference:
    """Answers questions about code that neither the project nor the catalogue explains.

    Args:
        python: The user's interpreter, whose installed packages are looked at; None for the running one.
        budget: Seconds that one file's questions may take; what is not answered by then is unknown.
    """

    def __init__(self, python: Path | None = None, budget: float = BUDGET_SECONDS):
        self._python = python
        self._budget = budget
        self._spent: dict[Path, float] = {}
        self._environment: object | None = None

    def gives_module(self, source: Source, line: int, column: int) -> bool | None:
        """Whether calling what stands at a position gives an instance of `torch.nn.Module`.

        Args:
            source: The file.
            line: Line of the callee's last name.
            column: Column inside that name, in characters.

        Returns:
            None when jedi does not know, fails, or the file's time is used up.
        """
        spent = self._spent.get(source.path, 0.0)
        if spent >= self._budget:
            log.debug("%s:%d not inferred: the time for this file is used up", source.path, line)
            return None
        started = time.monotonic()
        try:
            return self._ask(source, line, column, started + self._budget - spent)
        except Exception as error:  # jedi raises anything from deep inside (KeyError from its parser cache, say)
            log.debug("%s:%d not inferred: %s: %s", source.path, line, type(error).__name__, error)
            return None
        finally:
            self._spent[source.path] = spent + time.monotonic() - started

    def _ask(self, source: Source, line: int, column: int, deadline: float) -> bool | None:
        import jedi

        if self._environment is None and self._python is not None:
            self._environment = jedi.create_environment(str(self._python), safe=False)
        script = jedi.Script(source.text, path=str(source.path), environment=self._environment)
        answers: list[bool] = []
        for name in script.infer(line, column):
            if time.monotonic() > deadline:
                return None
            answers.append(_is_module_class(name, deadline))
        return all(answers) if answers else None


def _is_module_class(name: jedi.api.classes.Name, deadline: float) -> bool:
    """Whether a class derives from Module, or a function gives an instance of such a class."""
    if name.type == "class":
        return _derives_from_module(name, deadline, 0)
    if name.type == "function":
        given = name.execute()
        return bool(given) and all(_derives_from_module(item, deadline, 0) for item in given)
    return False


def _derives_from_module(name: jedi.api.classes.Name, deadline: float, depth: int) -> bool:
    if name.full_name in {"torch.nn.Module", "torch.nn.modules.module.Module"}:
        return True
    if depth > 8 or time.monotonic() > deadline:
        return False
    for base in name._name.infer() if name.type != "class" else (name._name,):
        for value in base.infer() if hasattr(base, "infer") else (base,):
            for parent in getattr(value, "py__mro__", tuple)():
                if getattr(parent, "py__name__", str)() == "Module" and "torch" in str(parent.get_root_context()):
                    return True
    return False
