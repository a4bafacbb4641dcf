"""Locks between processes: a file that one of them holds, and that the system lets go of however that one ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where searches do not run.
    fcntl = None  # type: ignore[assignment, unused-ignore]


def hold(file: Path, *, wait: bool = False) -> int | None:
    """Take a lock.

    Args:
        file: It is made where there is none, and stays.
        wait: Wait for whoever holds it.

    Returns:
        What `release` wants; None when another process holds the lock.

    Raises:
        OSError: The file cannot be opened.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        # File systems without locks: better to go on than to refuse all work.
        return handle
    except BaseException:
        os.close(handle)
        raise
    return handle


def release(handle: int) -> None:
    """Let go of a lock."""
    os.close(handle)


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock for a block; others wait."""
    handle = hold(file, wait=True)
    try:
        yield
    finally:
        if handle is not None:
            release(handle)
