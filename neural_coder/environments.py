"""Environments of their own, for engines that are bound to another PyTorch than the user's: `neural-coder env`.

An environment counts once its record is written, which is the last step; what fails or is interrupted is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from neural_coder import __version__, registry
from neural_coder.backend import Backend
from neural_coder.errors import UserError
from neural_coder.source import write_bytes_atomically
from neural_coder.units import size

Say = Callable[[str], None]
RECORD = "neural-coder.json"
"""In the environment's folder, once it is complete: what it holds."""
CLAIM = "neural-coder.making"
"""In the environment's folder while it is made: the process that makes it."""
_RUNTIME = Path(__file__).resolve().parent / "runtime"
_TELLING = ("Collecting", "Downloading", "Installing")
"""Beginnings of pip's lines that a waiting person wants to see."""
_LONGEST_LINE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One finished environment."""

    name: str
    """The engine that it is for."""
    path: Path
    requirements: tuple[str, ...]
    added: tuple[str, ...]
    """What the user's scripts need besides."""
    bytes: int

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return python_in(self.path)


def backend_of(name: str) -> type[Backend]:
    """The engine that an environment is for.

    Raises:
        UserError: There is no such engine, or it needs no environment of its own.
    """
    kinds = {kind.name: kind for kind in registry.backends().values() if kind.requirements}
    if name in kinds:
        return kinds[name]
    why = "works in the environment of your script" if name in registry.backends() else "is no engine"
    raise UserError(f"{name!r} {why}; an environment can be made for: {', '.join(kinds)}.")


def find(name: str) -> Environment | None:
    """The environment that was made for an engine; None when there is none."""
    return _read(_place(name))


def listed() -> list[Environment]:
    """All environments that were made."""
    return [found for name in registry.backends() if (found := find(name)) is not None]


def create(
    name: str,
    *,
    path: Path | None,
    python: Path,
    packages: Sequence[str],
    files: Sequence[Path],
    say: Say,
) -> Environment:
    """Make an environment, or add to the one that is there.

    Args:
        name: The engine.
        path: Its folder; None: in the user's data folder.
        python: The interpreter that it is made with.
        packages: What the user's scripts need, as pip takes it.
        files: The same, as requirements files.
        say: Called with what is being done.

    Raises:
        UserError: It cannot be made; nothing is left behind then.
    """
    backend = backend_of(name)
    folder = (path or _place(name)).expanduser().absolute()
    made = _read(folder)
    if made is not None and made.requirements != backend.requirements:
        say(f"{folder} holds {', '.join(made.requirements)}: it is made anew")
        packages = [*made.added, *packages]
        _delete(folder)
        made = None
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} is no requirements file that can be read.")
    more = [*packages, *(word for file in files for word in ("-r", str(file.absolute())))]
    if made is None:
        made = _made(backend, folder, python, more, say)
    elif more:
        made = _extended(backend, made, more, say)
    else:
        say(f"{folder} is complete already")
        _give_runtime(made.python)
    _remember(name, folder)
    return made


def remove(name: str) -> Path:
    """Remove the environment of an engine.

    Returns:
        Where it was.

    Raises:
        UserError: There is none.
    """
    backend_of(name)
    folder = _place(name)
    if _read(folder) is None and not (folder / CLAIM).exists():
        raise UserError(f"There is no environment for {name}; `neural-coder env list` shows those that there are.")
    _refuse_if_being_made(folder)
    _delete(folder)
    _pointer(name).unlink(missing_ok=True)
    return folder


def python_in(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


# --- places and records ----------------------------------------------------------------------------------------------


def _root() -> Path:
    return platformdirs.user_data_path("neural-coder") / "envs"


def _pointer(name: str) -> Path:
    """Names the folder of an environment that is not in its usual place."""
    return _root() / f"{name}.path"


def _place(name: str) -> Path:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Path(_pointer(name).read_text(encoding="utf-8").strip())
    return _root() / name


def _remember(name: str, folder: Path) -> None:
    if folder == _root() / name:
        _pointer(name).unlink(missing_ok=True)
        return
    _root().mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(_pointer(name), f"{folder}\n".encode())


def _read(folder: Path) -> Environment | None:
    try:
        data: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        found = Environment(
            name=str(data["name"]),
            path=folder,
            requirements=tuple(data["requirements"]),
            added=tuple(data["added"]),
            bytes=int(data["bytes"]),
        )
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not ours
        return None
    return found if found.python.exists() else None


def _write(made: Environment) -> None:
    data = {**asdict(made), "path": str(made.path), "neural_coder": __version__}
    write_bytes_atomically(made.path / RECORD, json.dumps(data, indent=2).encode())


# --- making ----------------------------------------------------------------------------------------------------------


def _made(backend: type[Backend], folder: Path, python: Path, more: Sequence[str], say: Say) -> Environment:
    about = f"about {backend.disk_gb:g} GB, " if backend.disk_gb else ""
    say(f"making {folder} ({about}{', '.join(backend.requirements)})")
    with _claimed(folder):
        _run([str(python), "-m", "venv", str(folder)], "no virtual environment could be made", say)
        _pip([*backend.requirements, *more], folder, say)
        _give_runtime(python_in(folder))
        made = Environment(
            name=backend.name,
            path=folder,
            requirements=backend.requirements,
            added=tuple(more),
            bytes=_bytes_in(folder),
        )
        _write(made)
    return made


def _extended(backend: type[Backend], made: Environment, more: Sequence[str], say: Say) -> Environment:
    say(f"adding {' '.join(more)} to {made.path}")
    # The engine's own requirements are named again, so that nothing else can move their versions.
    _pip([*backend.requirements, *more], made.path, say)
    _give_runtime(made.python)
    added = tuple(dict.fromkeys((*made.added, *more))) if "-r" not in more else (*made.added, *more)
    extended = Environment(
        name=made.name,
        path=made.path,
        requirements=made.requirements,
        added=added,
        bytes=_bytes_in(made.path),
    )
    _write(extended)
    return extended


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Have a new folder to oneself; it is removed when what happens inside fails."""
    _refuse_if_being_made(folder)
    if (folder / CLAIM).exists():  # of a process that is gone
        _delete(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and was not made by Neural Coder; name another place with --path.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CLAIM).write_text(str(os.getpid()), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}.") from error
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    (folder / CLAIM).unlink()


def _refuse_if_being_made(folder: Path) -> None:
    try:
        owner = int((folder / CLAIM).read_text(encoding="utf-8"))
        os.kill(owner, 0)
    except (OSError, ValueError):  # nobody makes it, or no longer
        return
    raise UserError(f"{folder} is being made just now, by process {owner}.")


def _pip(arguments: Sequence[str], folder: Path, say: Say) -> None:
    command = [str(python_in(folder)), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
    _run(command, f"pip could not install {' '.join(arguments)}", say)


def _run(command: Sequence[str], failure: str, say: Say) -> None:
    """Run a command and tell of its progress.

    Raises:
        UserError: It fails; the message ends with its own last words.
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    lines: list[str] = []
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        ) as process:
            try:
                for line in process.stdout or ():
                    lines.append(line.strip())
                    if line.strip().startswith(_TELLING):
                        say(line.strip()[:_LONGEST_LINE])
            except BaseException:
                process.kill()
                raise
    except OSError as error:
        raise UserError(f"{failure}: {command[0]} could not be started: {error.strerror}.") from error
    if process.returncode:
        raise UserError(f"{failure}: {_last_words(lines)}")


def _last_words(lines: Sequence[str]) -> str:
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    said = [line for line in lines if line and not line.startswith("[notice]")]
    return (errors or said or ["it said nothing"])[-1]


def _give_runtime(python: Path) -> None:
    """Put the runtime into an environment, so that patched scripts run there; an installed Neural Coder stays."""
    asked = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    packages = Path(asked.stdout.strip())
    if any(packages.glob("neural_coder-*.dist-info")):
        return
    target, fresh = packages / "neural_coder", packages / f"neural_coder-{os.getpid()}"
    shutil.copytree(_RUNTIME, fresh / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    about = '"""The runtime of Neural Coder, for patched scripts; put here by `neural-coder env create`."""\n'
    (fresh / "__init__.py").write_text(f'{about}\n__version__ = "{__version__}"\n', encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _delete(folder: Path) -> None:
    """Remove a folder; first what says that it is complete.

    Raises:
        UserError: Something in it cannot be removed.
    """
    try:
        (folder / RECORD).unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be removed: {error.strerror}.") from error


def _bytes_in(folder: Path) -> int:
    return sum(each.lstat().st_size for each in folder.rglob("*") if not each.is_dir())


def describe(made: Environment) -> str:
    """One line about an environment."""
    more = f" and {' '.join(made.added)}" if made.added else ""
    return f"{made.name}  {made.path}  {size(made.bytes)}  {', '.join(made.requirements)}{more}"
