"""A small process between the one that measures and the script: it outlives neither, and leaves nothing behind.

The script's process is its child. Whatever the script starts comes back to it when it loses its parent, wherever it
hides, and is ended with the script. A signal that the script sends to its parent hits the keeper, and so ends the run
only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import time
from typing import Any

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
PATIENCE = 1.0
"""Seconds between asking processes to end and ending them."""
FIRST_TO_DIE = "900"
"""For the kernel, when memory is over: this run goes before the process that measures, and before the user's others."""


_keepers: list[int] = []


def keeper_of_run() -> int:
    """The process above the script's; 0 where there is none."""
    return _keepers[0] if _keepers else 0


def stand_between(parent: int, folder: str) -> None:
    """Fork: the child comes back to run the script, this process stays behind to keep an eye on it.

    Args:
        parent: The process that measures.
        folder: The run's own, which is removed when that process is gone.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    # Before anything else: a parent that has gone already sends no signal any more.
    library.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    library.prctl(PR_SET_CHILD_SUBREAPER, 1)
    watched = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    if os.getppid() != parent:
        os._exit(1)
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        os.setsid()
        library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _keepers.append(keeper)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write(FIRST_TO_DIE)
        return
    _leave_as(_watch(child, watched), parent, folder, library)


def _watch(child: int, watched: set[signal.Signals]) -> int:
    """Sleep until the script's process ends; then, or when told to, end all that it has started. Its status."""
    while True:
        number = signal.sigwait(watched)
        if number == signal.SIGQUIT:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGQUIT)
            continue
        if number != signal.SIGCHLD:
            break
        ended = _reap().get(child)
        if ended is not None:
            _end_all({})
            return ended
    statuses: dict[int, int] = {}
    _end_all(statuses)
    return statuses.get(child, signal.SIGKILL)


def _end_all(statuses: dict[int, int]) -> None:
    """Ask all descendants to end, then end them; again until there is none, because they may have forked meanwhile."""
    deadline, asked = time.monotonic() + PATIENCE, False
    while found := _descendants():
        late = time.monotonic() > deadline
        for pid in found if late or not asked else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        asked = True
        time.sleep(0.01)
        statuses.update(_reap())


def _reap() -> dict[int, int]:
    """The children that have ended, and their status."""
    found = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            found[pid] = status
    return found


def _descendants() -> list[int]:
    """All processes below this one; those that have lost their parent are below it, too."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []  # Mostly: there is no need to look through all processes of the machine.
    names = os.listdir("/proc")  # noqa: PTH208 (names are wanted, not paths)
    parents = {int(name): parent_of(int(name)) for name in names if name.isdigit()}
    found, level = [], [os.getpid()]
    while level:
        level = [pid for pid, parent in parents.items() if parent in level]
        found += level
    return found


def parent_of(pid: int) -> int:
    """The parent of a process; 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _leave_as(status: int, parent: int, folder: str, library: Any) -> None:
    """End as the script's process has ended, so that the one that measures sees it."""
    if os.getppid() != parent:
        shutil.rmtree(folder, ignore_errors=True)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        library.prctl(PR_SET_DUMPABLE, 0)  # The core is the script's; there need not be one of this process.
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)
