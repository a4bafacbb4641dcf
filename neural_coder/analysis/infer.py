"""The only door to jedi: asks whether something of an installed package is or gives a PyTorch module.

jedi cannot be interrupted and can raise from anywhere, so it works in a child process, which is ended when the time for
a file is used up. It reads the packages of the user's environment; nothing of them is imported. "Unknown" is an answer.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from jedi.api.classes import BaseName
    from jedi.api.environment import Environment

log = logging.getLogger(__name__)

BUDGET_SECONDS = 2.0
"""Time that the questions of one file may take together."""
TOTAL_SECONDS = 30.0
"""Time that the questions of one project may take together."""
START_SECONDS = 15.0
"""Time until the child must be ready, once for a project."""
_LOST_SECONDS = 60
"""After so long over one question a child ends itself: nobody waits for it any more."""
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
        self._child: _Child | None = None
        self._broken = False
        self._spent: dict[Path, float] = {}
        self._answers: dict[str, bool | None] = {}
        self._hurried: set[str] = set()
        self.misses = 0
        """How often there was no answer for lack of time; with more of it, there might be one."""

    def gives_module(self, name: str, asking: Path) -> bool | None:
        """Whether a class derives from `torch.nn.Module`, or a function gives an instance of such a class.

        The answer to a name stays the same: a patched file must not look different from the original.

        Args:
            name: Dotted name of something of an installed package: `package.module.function`.
            asking: The file in which the question comes up.

        Returns:
            None when jedi does not know, fails, or the file's time is used up.
        """
        if name not in self._answers:
            self._answers[name] = self._timed(name, asking)
        self.misses += name in self._hurried
        return self._answers[name]

    def exhausted(self, asking: Path) -> bool:
        """Whether a file's time, or that of its project, is used up."""
        return self._left(asking) <= 0

    def _left(self, asking: Path) -> float:
        of_project = max(TOTAL_SECONDS, self._budget) - sum(self._spent.values())
        return min(self._budget - self._spent.get(asking, 0.0), of_project)

    def _timed(self, name: str, asking: Path) -> bool | None:
        if self.exhausted(asking):
            log.debug("%s not inferred: the time for %s is used up", name, asking)
            self._hurried.add(name)
            return None
        child = self._running()
        if child is None:
            self._hurried.add(name)
            return None
        started = time.monotonic()
        answer = child.ask(name, self._left(asking))
        self._spent[asking] = self._spent.get(asking, 0.0) + time.monotonic() - started
        if not child.usable:
            self._hurried.add(name)
        return answer

    def _running(self) -> _Child | None:
        """The child, started when it is first needed (or is needed again after it was ended)."""
        if self._child is None or not self._child.usable:
            if self._broken:
                return None
            self._child = _Child(self._python or Path(sys.executable))
            self._broken = not self._child.usable
        return None if self._broken else self._child


class _Child:
    """A process that answers one question a line, until its input ends."""

    def __init__(self, python: Path):
        self._owner = os.getpid()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.usable = False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(python)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                cwd=_HOME,
            )
        except OSError as error:
            log.debug("nothing is inferred: %s", error)
            return
        assert self._process.stdout is not None
        reader = threading.Thread(target=_collect, args=(self._process.stdout, self._lines), daemon=True)
        reader.start()
        self._end = weakref.finalize(self, _end, self._process, reader, self._owner)
        self.usable = True
        self._receive("the start", START_SECONDS)

    def ask(self, name: str, seconds: float) -> bool | None:
        """The answer to one question; a child that does not answer in time is ended."""
        if os.getpid() != self._owner:
            self.usable = False  # a forked process must not talk through its parent's pipe
            return None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(name) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            log.debug("%s not inferred: %s", name, error)
            self._stop()
            return None
        return self._receive(name, seconds)

    def _receive(self, name: str, seconds: float) -> bool | None:
        try:
            given = json.loads(self._lines.get(timeout=seconds))
        except (queue.Empty, ValueError) as error:
            log.debug("%s not inferred: no answer within %.1f s (%s)", name, seconds, type(error).__name__)
            self._stop()
            return None
        if given["error"]:
            log.debug("%s not inferred: %s", name, given["error"])
        answer = given["answer"]
        return answer if isinstance(answer, bool) else None

    def _stop(self) -> None:
        self.usable = False
        self._end()


def _collect(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    """Pass on what the child writes; an empty text when it has ended."""
    for line in stream:
        lines.put(line)
    lines.put("")


def _end(process: subprocess.Popen[str], reader: threading.Thread, owner: int) -> None:
    if os.getpid() != owner:
        return
    process.kill()
    process.wait()
    reader.join()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was still to be written has no reader any more
                stream.close()


# --- in the child -----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer questions: a name in JSON on each line of standard input, JSON on each line of standard output."""
    sys.setrecursionlimit(5000)
    out, sys.stdout = sys.stdout, sys.stderr

    def reply(answer: bool | None, error: str = "") -> None:
        out.write(json.dumps({"answer": answer, "error": error}) + "\n")
        out.flush()

    with contextlib.suppress(KeyboardInterrupt):
        environment = _environment(sys.argv[1])
        reply(None)
        for line in sys.stdin:
            faulthandler.dump_traceback_later(_LOST_SECONDS, exit=True)
            try:
                reply(_infer(json.loads(line), environment))
            except Exception as error:  # jedi raises anything; one question must not cost the others
                reply(None, f"{type(error).__name__}: {error}")
            faulthandler.cancel_dump_traceback_later()


def _environment(python: str) -> Environment:
    import jedi

    return jedi.create_environment(python, safe=False)


def _infer(name: str, environment: Environment) -> bool | None:
    import jedi

    class ReadOnly(jedi.Project):  # type: ignore[misc]
        """A project that lets jedi read files, but import no compiled modules from them."""

        def _get_base_sys_path(self, inference_state: object) -> list[str]:
            return []

    # It stands in a folder that is nobody's, so that no settings of the user's repo are loaded (`.jedi`).
    project = ReadOnly(tempfile.gettempdir(), sys_path=environment.get_sys_path(), smart_sys_path=False)
    for text in _questions(name):
        lines = text.split("\n")
        script = jedi.Script(text, environment=environment, project=project)
        names = script.infer(len(lines), len(lines[-1]))
        if names:
            return all(_is_module_factory(item) for item in names)
    return None


def _questions(name: str) -> Iterator[str]:
    """Texts that end with the name; how many of its parts are modules is not known."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        yield f"import {'.'.join(parts[:count])}\n{name}"


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
