"""The only door to jedi: asks whether a callee gives a PyTorch module, within a time budget; "unknown" is an answer.

jedi cannot be interrupted and can raise from anywhere, so it works in a child process, which is ended when the time
for a file is used up.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from neural_coder.source import Source

if TYPE_CHECKING:
    from jedi.api.classes import BaseName

log = logging.getLogger(__name__)

BUDGET_SECONDS = 2.0
"""Time that questions about one file may take together."""
_MODULE_NAMES = frozenset({"torch.nn.Module", "torch.nn.modules.module.Module"})
# `python -c` puts its working directory first on `sys.path`: there must be no user's file called `json.py`.
_HOME = Path(__file__).resolve().parents[2]
_START = "from neural_coder.analysis.infer import serve; serve()"


class Inference:
    """Answers questions about installed code that neither the project nor the catalogue explains.

    Args:
        python: The user's interpreter, whose installed packages are looked at; None for the running one.
        budget: Seconds that one file's questions may take; what is not answered by then is unknown.
    """

    def __init__(self, python: Path | None = None, budget: float = BUDGET_SECONDS):
        self._python = python
        self._budget = budget
        self._spent: dict[Path, float] = {}
        self._answers: dict[tuple[Path, int, int], bool | None] = {}

    def gives_module(self, source: Source, line: int, column: int) -> bool | None:
        """Whether calling what stands at a position gives an instance of `torch.nn.Module`.

        Args:
            source: The file.
            line: Line of the callee's last name.
            column: Column inside that name, in characters.

        Returns:
            None when jedi does not know, fails, or the file's time is used up.
        """
        key = (source.path, line, column)
        if key not in self._answers:
            self._answers[key] = self._timed(source, line, column)
        return self._answers[key]

    def _timed(self, source: Source, line: int, column: int) -> bool | None:
        left = self._budget - self._spent.get(source.path, 0.0)
        if left <= 0:
            log.debug("%s:%d not inferred: the time for this file is used up", source.path, line)
            return None
        started = time.monotonic()
        answer = self._ask(source, line, column, left)
        self._spent[source.path] = self._spent.get(source.path, 0.0) + time.monotonic() - started
        return answer

    def _ask(self, source: Source, line: int, column: int, seconds: float) -> bool | None:
        question = {
            "text": source.text,
            "path": str(source.path.resolve()),
            "line": line,
            "column": column,
            "python": str(self._python) if self._python else None,
        }
        try:
            done = subprocess.run(
                [sys.executable, "-c", _START],
                input=json.dumps(question),
                capture_output=True,
                text=True,
                timeout=seconds,
                cwd=_HOME,
                check=True,
            )
            answer = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            log.debug("%s:%d not inferred: %s: %s", source.path, line, type(error).__name__, error)
            return None
        return answer if isinstance(answer, bool) else None


def serve() -> None:
    """Answer one question: JSON from standard input, JSON to standard output. Runs in the child process."""
    sys.setrecursionlimit(5000)
    question = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        answer = _infer(question["text"], question["path"], question["line"], question["column"], question["python"])
    sys.stdout.write(json.dumps(answer))


def _infer(text: str, path: str, line: int, column: int, python: str | None) -> bool | None:
    import jedi

    environment = jedi.create_environment(python, safe=False) if python else None
    names = jedi.Script(text, path=path, environment=environment).infer(line, column)
    answers = [_is_module_factory(name) for name in names]
    return all(answers) if answers else None


def _is_module_factory(name: BaseName) -> bool:
    if name.type == "class":
        return _derives_from_module(name)
    if name.type == "function":
        given = name.execute()
        return bool(given) and all(_derives_from_module(item) for item in given)
    return False


def _derives_from_module(name: BaseName) -> bool:
    """Whether a class, or the class of an instance, has `torch.nn.Module` among its ancestors."""
    for value in name._name.infer():
        kind = value.py__class__() if not value.is_class() else value
        for ancestor in kind.py__mro__():
            full = f"{ancestor.get_root_context().py__name__()}.{ancestor.py__name__()}"
            if full in _MODULE_NAMES:
                return True
    return False
