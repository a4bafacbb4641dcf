"""Child processes that answer requests: several at a time, each within a time limit, none able to end the run.

JSON lines go in and come out. A child that crashes or hangs is ended and replaced; when the run ends, for whatever
reason, no child is left.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from neural_coder.errors import InternalError

log = logging.getLogger(__name__)

Request = Mapping[str, Any]
Reply = dict[str, Any]

_HOME = Path(__file__).resolve().parents[1]
# `python -c` puts the working directory first on `sys.path`: there must be no user's file called `json.py`.
_START = (
    f"import sys; sys.path[:] = [{str(_HOME)!r}, *(entry for entry in sys.path if entry)]; "
    "from neural_coder.filework import serve; serve()"
)
COMMAND = (sys.executable, "-c", _START)
READY = "ready"
_STARTING_SECONDS = 60.0
_LOOK_SECONDS = 0.1
MEMORY_BYTES = 760_000_000
"""What all children may hold together before the fattest are replaced by fresh ones.

They are asked between files, and one big file can take another 100 MB; with us that stays below 1 GB on two cores.
"""
LEAST_BYTES = 200_000_000
"""What each of them may hold, however many there are: a child that is replaced after each file would share nothing."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A request that got no answer."""

    why: Literal["timeout", "crash"]
    message: str
    """What happened, as the end of a sentence: `took longer than 60 s`."""


Answered = tuple[int, "Reply | Lost"]
"""The number of a request, and what became of it."""


def work(
    groups: Sequence[Sequence[tuple[int, Request]]],
    *,
    jobs: int,
    limit: float,
    command: Sequence[str] = COMMAND,
    memory: int = MEMORY_BYTES,
    least: int = LEAST_BYTES,
) -> Generator[Answered, None, None]:
    """Let children answer requests.

    Args:
        groups: Numbered requests; those of one group go to one child, one after the other.
        jobs: Children at a time.
        limit: Seconds for one request.
        command: What starts a child.
        memory: Bytes that all children may hold together, as long as that leaves enough for each.
        least: Bytes that each child may hold in any case.

    Yields:
        Each request's number and answer, in the order in which they come.

    Raises:
        InternalError: A child cannot even start.
    """
    jobs = max(1, min(jobs, len(groups)))
    crew = _Crew(groups, jobs, limit, command, max(memory // jobs, least))
    try:
        yield from crew.answers()
    finally:
        # Also on Ctrl-C, and when the caller wants no more.
        crew.end()


class _Crew:
    """The children of one run, each with a thread of ours that talks to it."""

    def __init__(
        self,
        groups: Sequence[Sequence[tuple[int, Request]]],
        jobs: int,
        limit: float,
        command: Sequence[str],
        memory_each: int,
    ):
        self._waiting = deque(groups)
        self._left = sum(len(group) for group in groups)
        self._limit = limit
        self._command = command
        self._memory_each = memory_each
        self._done: queue.SimpleQueue[Answered | BaseException] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._children: set[_Child] = set()
        self._ending = False
        self._threads = [threading.Thread(target=self._tend, daemon=True) for _ in range(jobs)]

    def answers(self) -> Iterator[Answered]:
        """What comes in, until all requests are answered."""
        for thread in self._threads:
            thread.start()
        while self._left:
            try:
                found = self._done.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                self._end_the_late()
                continue
            if isinstance(found, BaseException):
                raise found
            self._left -= 1
            yield found

    def end(self) -> None:
        """End all children, and wait until they are gone."""
        with self._lock:
            self._ending = True
            self._waiting.clear()
            children = list(self._children)
        for child in children:
            child.kill()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _end_the_late(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [child for child in self._children if now > child.deadline]
        for child in late:
            child.kill(late=True)

    def _tend(self) -> None:
        """Keep one child busy; runs in a thread."""
        child: _Child | None = None
        try:
            while (group := self._next_group()) is not None:
                for number, request in group:
                    child = child or self._start()
                    if child is None:
                        return
                    answer = child.ask(request, self._limit)
                    if isinstance(answer, Lost) or answer.get("memory", 0) > self._memory_each:
                        self._dismiss(child)
                        child = None
                    self._done.put((number, answer))
        except BaseException as error:
            self._done.put(error)
        finally:
            if child is not None:
                self._dismiss(child)

    def _next_group(self) -> Sequence[tuple[int, Request]] | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _start(self) -> _Child | None:
        with self._lock:
            if self._ending:
                return None
            child = _Child(self._command)
            self._children.add(child)
        if not child.is_ready():
            self._dismiss(child)
            if self._ending:
                return None
            raise InternalError(f"A child process of ours does not start: {child.last_words or 'it gave no reason'}")
        return child

    def _dismiss(self, child: _Child) -> None:
        with self._lock:
            self._children.discard(child)
        child.close()


class _Child:
    """One child process and the pipes to it."""

    def __init__(self, command: Sequence[str]):
        self.deadline = time.monotonic() + _STARTING_SECONDS
        self.last_words = ""
        self._late = False
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        # In a session of its own: Ctrl-C in the terminal reaches us alone, and a child is ended with what it started.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
        )

    def is_ready(self) -> bool:
        """Wait until the child has started."""
        ready = bool(_parsed(self._read()) == READY)
        self.deadline = float("inf")
        if not ready:
            self.kill()
            self.last_words = self._tail()
        return ready

    def ask(self, request: Request, limit: float) -> Reply | Lost:
        """Hand over a request and wait for its answer."""
        self.deadline = time.monotonic() + limit
        try:
            self._write(request)
            line = self._read()
        except OSError as error:
            log.debug("the child is gone: %s", error)
            line = b""
        self.deadline = float("inf")
        answer = _parsed(line)
        if isinstance(answer, dict):
            return answer
        self.kill()
        if self._late:
            return Lost("timeout", f"took longer than {limit:g} s")
        return Lost("crash", "made it answer what makes no sense" if line else self._how_it_ended())

    def kill(self, *, late: bool = False) -> None:
        """End the child and whatever it has started."""
        self._late = self._late or late
        # As long as nobody has asked how it ended, its number is not given to another process.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if hasattr(os, "killpg"):
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()

    def close(self) -> None:
        """End the child and give its pipes back."""
        self.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _write(self, request: Request) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        said = self._tail().strip().splitlines()
        return f"ended the process that worked on it ({how}{': ' + said[-1] if said else ''})"

    def _tail(self) -> str:
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 2000))
        return self._stderr.read().decode(errors="replace")


def _parsed(line: bytes) -> Any:
    """What a child has said; None when it was nothing sensible."""
    try:
        return json.loads(line)
    except ValueError:
        return None
