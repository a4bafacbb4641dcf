"""What makes two searches the same one: by name, a digest of each part that its runs depend on."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from neural_coder import __version__, cache, codec, registry
from neural_coder.analysis import Project
from neural_coder.records import Metric

if TYPE_CHECKING:
    from neural_coder.engine import Request
    from neural_coder.interpreters import Installed

APART = frozenset({"resume"})
"""What may differ between a search and its continuation."""
FILES = "files"
WHOLE = 64 * 1024 * 1024
"""Files up to this size are known by their content, larger ones by size and time."""


def columns(request: Request, machine: Mapping[str, object]) -> dict[str, object]:
    """What the store of trials keeps about a search as a whole."""
    return {
        "script": str(request.script.resolve()),
        "args": list(request.args),
        "cwd": str(request.cwd.resolve()),
        "python": str(request.python),
        "criterion": asdict(request.criterion),
        "machine": machine,
        "neural_coder": __version__,
    }


def known_by(request: Request, project: Project, machine: Mapping[str, object], installed: Installed) -> dict[str, str]:
    """Say what makes a search the same as another one.

    The files that matter are the script, those of the project that it imports, those that its arguments name, and those
    of metric functions. Data that it finds by itself is not among them: whether the inputs are the same is checked on
    each run's captured calls.

    Args:
        request: The script, and all options.
        project: Where its files are.
        machine: What it runs on.
        installed: What its interpreters have.
    """
    parts: dict[str, object] = {
        field.name: codec.encode(getattr(request, field.name)) for field in fields(request) if field.name not in APART
    }
    parts["script"] = str(request.script.resolve())
    parts["cwd"] = str(request.cwd.resolve())
    parts["machine"] = dict(machine)
    environments = {"": installed.script, **installed.others}
    parts["libraries"] = {
        name: [str(each.python), each.python_version, dict(each.versions)] for name, each in environments.items()
    }
    parts["neural coder"] = [cache.signature(), _contents(_own_features())]
    digests = {name: _digest_of(part) for name, part in parts.items()}
    return {**digests, FILES: files(project, request.script, request.args, request.cwd, request.criterion.metrics)}


def files(project: Project, script: Path, args: Sequence[str], cwd: Path, metrics: Sequence[Metric]) -> str:
    """A digest of the files that matter: see `known_by`."""
    asked = [metric.file for metric in metrics if metric.file]
    imported = [path for file in asked if file.is_file() for path in project.files_of(file)]
    return _digest_of(_contents([*project.files_of(script), *_named(args, cwd), *asked, *imported]))


def _named(args: Sequence[str], cwd: Path) -> list[Path]:
    """Files that arguments name: `config.yaml`, `--config=config.yaml`."""
    words = [word for arg in args for word in (arg, arg.partition("=")[2]) if word]
    return [path for word in words if "\0" not in word and len(word) < 4096 and (path := cwd / word).is_file()]


def _contents(files: Iterable[Path]) -> dict[str, str]:
    found = {}
    for file in files:
        try:
            about = file.stat()
            whole = about.st_size <= WHOLE
            found[str(file)] = _digest(file.read_bytes() if whole else f"{about.st_size} {about.st_mtime_ns}".encode())
        except OSError:
            found[str(file)] = ""
    return found


def _own_features() -> list[Path]:
    """Files of transforms and backends: in a checkout they lie outside of the package."""
    kinds = (*registry.transforms().values(), *registry.backends().values())
    return sorted({Path(inspect.getfile(kind)) for kind in kinds})


def _digest_of(part: object) -> str:
    return _digest(json.dumps(part, sort_keys=True).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
