"""A copy of the runtime beside the patched script, so that it runs where Neural Coder is not installed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from neural_coder import __version__
from neural_coder.errors import UserError
from neural_coder.patching import Patch
from neural_coder.records import Change
from neural_coder.source import Source

RUNTIME = "neural_coder.runtime"
COPY = "neural_coder_runtime"
"""The name of the copy; also of its folder."""
_SOURCE = Path(__file__).parent / "runtime"
_ENGINE = "engine_"
_MARK = "# A part of Neural Coder"
_NAMED = re.compile(r"\bneural_coder\.runtime\b")


def vendor_each(patches: Sequence[Patch]) -> tuple[Patch, ...]:
    """Do what `vendor` does for files of several projects: each copy goes where its files import from.

    Raises:
        UserError: when something else stands where a copy belongs.
    """
    groups: dict[Path, list[Patch]] = {}
    for patch in patches:
        groups.setdefault(_outside_of_packages(patch.before.path.resolve().parent), []).append(patch)
    return tuple(each for folder, group in groups.items() for each in vendor(group, folder))


def _outside_of_packages(folder: Path) -> Path:
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


def vendor(patches: Sequence[Patch], folder: Path) -> tuple[Patch, ...]:
    """Let patches use a copy of the runtime, and add the files of the copy to them.

    Args:
        patches: What was made; those that do not use the runtime stay as they are.
        folder: Where the copy goes: the folder from which the patched files import.

    Returns:
        The patches, then one for each file of the copy that is not there yet or is another version.

    Raises:
        UserError: when something else stands where the copy belongs.
    """
    changed = [_renamed(patch) for patch in patches]
    engines = {engine for patch in changed for engine in _engines(patch.after.text)}
    if not engines:
        return tuple(patches)
    return (*changed, *_copies(folder / COPY, engines))


def _renamed(patch: Patch) -> Patch:
    """Name the copy in the lines that the patch brings, and in no other."""
    known = set(patch.before.text.splitlines(keepends=True))
    lines = patch.after.text.splitlines(keepends=True)
    text = "".join(line if line in known else _NAMED.sub(COPY, line) for line in lines)
    return replace(patch, after=replace(patch.after, text=text))


def _engines(text: str) -> set[str]:
    """The engines that a script hands models to through the copy."""
    engines = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"{COPY}.accelerate":
            named = [each.value for each in node.keywords if each.arg == "engine"]
            engines |= {each.value for each in named if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    return engines


def _copies(folder: Path, engines: Iterable[str]) -> list[Patch]:
    if folder.exists() and not _is_ours(folder):
        raise UserError(f"{folder} is not a copy of Neural Coder's runtime; it would have to be one for --vendor.")
    present = {engine for engine in engines_in(_SOURCE) if (folder / f"{_ENGINE}{engine}.py").is_file()}
    copies = (_copy(folder, file) for file in _files({*engines, *present}))
    return [each for each in copies if each is not None]


def _is_ours(folder: Path) -> bool:
    first = folder / "__init__.py"
    return first.is_file() and first.read_text(encoding="utf-8").startswith(_MARK)


def engines_in(folder: Path) -> set[str]:
    """The engines that a runtime has."""
    return {file.stem.removeprefix(_ENGINE) for file in folder.glob(f"{_ENGINE}*.py")}


def _files(engines: set[str]) -> list[Path]:
    """The runtime's files without those that only other engines need."""
    wanted = {f"{_ENGINE}{engine}" for engine in engines}
    files = {file.stem: file for file in _SOURCE.glob("*.py")}
    roots = [name for name in ("__init__", *wanted) if name in files]
    found: set[str] = set()
    while roots:
        name = roots.pop()
        found.add(name)
        roots += sorted((_imported(files[name]) & files.keys()) - found - set(roots))
    return [files[name] for name in sorted(found)]


def _imported(file: Path) -> set[str]:
    """The modules of the runtime that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.removeprefix(f"{RUNTIME}."))
            if node.module == RUNTIME:
                names |= {each.name for each in node.names}
    return names


def _copy(folder: Path, file: Path) -> Patch | None:
    target = folder / file.name
    note = f"{_MARK} {__version__}, Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0).\n"
    text = note + _NAMED.sub(COPY, file.read_text(encoding="utf-8"))
    exists = target.is_file()
    before = Source.read(target) if exists else Source(path=target, text="")
    if before.text == text:
        return None
    words = f"{target.parent.name}/{target.name}: the part of the runtime that the script uses"
    change = Change(author="vendor", line=1, reason=words)
    return Patch(before=before, after=Source(path=target, text=text), changes=(change,), creates=not exists)
