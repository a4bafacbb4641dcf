"""Keeps the user's files as they are: what the script writes goes to the shadow, or is refused.

The shadow of the project holds links to large files and folders. Before anything is written through such a link, it is
replaced by a real copy; writes to the user's own project by absolute paths are refused.
"""

# The audit hook sees every file that is opened: the functions of `os` do the same as `pathlib` at a fraction of the
# cost, and leave `..` behind links alone.
# ruff: noqa: PTH102, PTH104, PTH105, PTH108, PTH110, PTH112, PTH115, PTH117, PTH118, PTH120, PTH123, PTH208, PTH211

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .imports import AfterImport
from .keeper import keeper_of_run, parent_of

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
HOPS = 40
"""Links followed before a path counts as a loop, as in Linux."""


class Guard:
    """Watches what the process writes."""

    def __init__(self, shadow: str, real: str, writable: Sequence[str]) -> None:
        """Start to watch.

        Args:
            shadow: The root of the shadow.
            real: The user's own project, which must stay as it is.
            writable: Folders in it that may be written all the same (caches of libraries, in a home folder).
        """
        self._shadow = shadow
        self._real = real
        self._writable = tuple(writable)
        self._local = threading.local()

    def shadow_of(self, path: str) -> str:
        """The place in the shadow of a path in the user's project, if there is one; else the path itself."""
        real = os.path.realpath(path) if path else path
        if path and _inside(real, self._real) and not _inside(real, self._shadow):
            mirrored = os.path.join(self._shadow, os.path.relpath(real, self._real))
            if os.path.lexists(mirrored):
                return os.path.normpath(mirrored)
        return path

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let this thread write what it likes: it writes for us."""
        before = getattr(self._local, "busy", False)
        self._local.busy = True
        try:
            yield
        finally:
            self._local.busy = before

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """See every event of the interpreter; installed with `sys.addaudithook`."""
        watch = _EVENTS.get(event)
        if watch is None or getattr(self._local, "busy", False):
            return
        with self.paused():
            watch(self, args)

    def prepare(self, path: object, *, follow: bool = True, truncate: bool = False, folder: object = None) -> None:
        """Make a path safe to be changed.

        Args:
            path: As it was given to the function that is going to change it; anything but a path is fine.
            follow: A link at the end of the path is followed (it is not when the link itself is removed or renamed).
            truncate: The file's content is going to be dropped, so that none need be copied.
            folder: Descriptor of the folder that a relative path starts from; None or negative: the working directory.

        Raises:
            PermissionError: It belongs to the user's own project.
        """
        if isinstance(path, int) or not isinstance(path, (str, bytes, os.PathLike)):
            return
        text = os.fsdecode(path)
        start = f"/proc/self/fd/{folder}" if isinstance(folder, int) and folder >= 0 else "."
        try:
            base = os.path.realpath(start) if not os.path.isabs(text) else "/"
        except OSError:
            return
        target = self._walk(os.path.join(base, text), follow, truncate)
        if self._is_users(target):
            raise PermissionError(
                errno.EACCES,
                f"Neural Coder runs this script on a copy and keeps your project as it is, so {target} is not changed "
                "(relative paths lead into the copy)",
                text,
            )

    def check_signal(self, pid: object, number: object) -> None:
        """Let the script signal its own processes only.

        Raises:
            PermissionError: It is another one's: that of whoever measures, or of the user.
        """
        if number == 0 or not isinstance(pid, int) or pid == 0 or _is_own(abs(pid) if pid != -1 else 1):
            return
        raise PermissionError(
            errno.EPERM, f"Neural Coder runs this script, and lets it end its own processes only; {pid} is not one"
        )

    def _is_users(self, path: str) -> bool:
        if not _inside(path, self._real) or _inside(path, self._shadow):
            return False
        return not any(_inside(path, folder) for folder in self._writable)

    def _walk(self, path: str, follow: bool, truncate: bool) -> str:
        """Follow a path as the system would, but turn links from the shadow into the project into copies on the way."""
        current, pending, hops = "/", path.split("/")[::-1], 0
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                current = os.path.dirname(current)
                continue
            candidate = os.path.join(current, name)
            last = not any(part not in ("", ".") for part in pending)
            target = None if last and not follow else _link_target(candidate)
            hops += target is not None
            if target is None or hops > HOPS:
                current = candidate
            elif self._is_ours(candidate, target):
                _replace_by_copy(candidate, os.path.join(current, target), truncate and last)
                current = candidate
            else:
                current = "/" if os.path.isabs(target) else current
                pending.extend(target.split("/")[::-1])
        return current

    def _is_ours(self, link: str, target: str) -> bool:
        if not _inside(link, self._shadow):
            return False
        place = os.path.normpath(os.path.join(os.path.dirname(link), target))
        return _inside(place, self._real) and not _inside(place, self._shadow)

    # --- writers that are not written in Python raise no audit events

    def await_imports(self, imports: AfterImport) -> None:
        """Also watch the writers of PyTorch and safetensors, once the script imports them."""
        imports.add("torch.serialization", lambda module: self._watch_function(module, "save", 1, "f"))
        imports.add("torch", lambda torch: self._watch_function(torch, "save", 1, "f"))
        imports.add("torch.jit._script", lambda script: self._watch_function(script.ScriptModule, "save", 1, "f"))
        imports.add("torch.jit", lambda module: self._watch_function(module, "save", 1, "f"))
        for name in ("safetensors.torch", "safetensors.numpy"):
            imports.add(name, lambda module: self._watch_function(module, "serialize_file", 1, "filename"))
            imports.add(name, lambda module: self._watch_function(module, "save_file", 1, "filename"))

    def _watch_function(self, module: Any, name: str, position: int, keyword: str) -> None:
        original: Callable[..., Any] | None = getattr(module, name, None)
        if original is None or hasattr(original, "__neural_coder_guarded__"):
            return

        @functools.wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            path = args[position] if len(args) > position else kwargs.get(keyword)
            with self.paused():
                self.prepare(path, truncate=True)
            return original(*args, **kwargs)

        guarded.__neural_coder_guarded__ = True  # type: ignore[attr-defined]
        setattr(module, name, guarded)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_own(pid: int) -> bool:
    """Whether a process (or there is none) is below the keeper of this run; without a keeper all are."""
    keeper = keeper_of_run()
    while keeper and pid > 1 and pid != keeper:
        above = parent_of(pid)
        if above == keeper:
            return True
        if not above:
            return True  # It has gone; the system says so.
        pid = above
    return not keeper


def _link_target(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _replace_by_copy(link: str, target: str, truncate: bool) -> None:
    """Put a real file or folder in the place of a link; a folder's entries become links in their turn."""
    copy = f"{link}.neural-coder-{os.getpid()}-{threading.get_ident()}"
    if os.path.isdir(target):
        os.mkdir(copy)
        for name in os.listdir(target):
            os.symlink(os.path.join(target, name), os.path.join(copy, name))
        os.unlink(link)
        os.rename(copy, link)
    elif os.path.exists(target):
        if truncate:
            with open(copy, "wb"):
                pass
            shutil.copymode(target, copy)
        else:
            shutil.copy2(target, copy)
        os.replace(copy, link)
    else:
        os.unlink(link)


# --- the events; see https://docs.python.org/3/library/audit_events.html


def _open(guard: Guard, args: tuple[Any, ...]) -> None:
    path, _, flags = args
    if isinstance(flags, int) and flags & WRITING:
        guard.prepare(path, truncate=bool(flags & os.O_TRUNC))


def _entry(guard: Guard, args: tuple[Any, ...]) -> None:
    guard.prepare(args[0], follow=False, folder=args[-1])


def _folder(guard: Guard, args: tuple[Any, ...]) -> None:
    guard.prepare(args[0], folder=args[1] if len(args) > 1 else None)


def _content(guard: Guard, args: tuple[Any, ...]) -> None:
    guard.prepare(args[0], folder=args[-1] if len(args) > 2 else None)


def _plain(guard: Guard, args: tuple[Any, ...]) -> None:
    guard.prepare(args[0])


def _rename(guard: Guard, args: tuple[Any, ...]) -> None:
    guard.prepare(args[0], follow=False, folder=args[2] if len(args) > 2 else None)
    guard.prepare(args[1], follow=False, folder=args[3] if len(args) > 3 else None)


def _hard_link(guard: Guard, args: tuple[Any, ...]) -> None:
    # A hard link to a file of the user would be that very file: the copy in the shadow is linked instead.
    guard.prepare(args[0], folder=args[2])
    guard.prepare(args[1], follow=False, folder=args[3])


def _signal(guard: Guard, args: tuple[Any, ...]) -> None:
    guard.check_signal(args[0], args[1])


def _symbolic_link(guard: Guard, args: tuple[Any, ...]) -> None:
    guard.prepare(args[1], follow=False, folder=args[2])


_EVENTS: dict[str, Callable[[Guard, tuple[Any, ...]], None]] = {
    "open": _open,
    "os.kill": _signal,
    "os.killpg": _signal,
    "os.remove": _entry,
    "os.rmdir": _folder,
    "os.mkdir": _entry,
    "os.rename": _rename,
    "os.link": _hard_link,
    "os.symlink": _symbolic_link,
    "os.truncate": _plain,
    "os.chmod": _content,
    "os.chown": _content,
    "os.utime": _content,
    "os.setxattr": _plain,
    "os.removexattr": _plain,
    "shutil.rmtree": _folder,
    "sqlite3.connect": _plain,
}
