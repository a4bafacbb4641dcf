"""Checks on many patches at once, by other programs: ruff for names, git for the diffs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_coder.diff import join, unified_diff

RULES = "F402,F632,F702,F704,F706,F811,F821,F822,F823,F842,PLE0115,PLE0117,PLE0118"
"""Undefined and unbound names, names declared global too late, and what else only a linter sees."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A file before and after its patch, under a name of its own."""

    name: str
    """Of a file in a flat folder: `17.py`."""
    before: bytes
    after: bytes
    before_text: str
    after_text: str


def new_problems(pairs: Sequence[Pair], folder: Path) -> dict[str, list[str]]:
    """What ruff says about each patched file that it does not say about the original.

    Args:
        pairs: The files.
        folder: An empty folder to work in.
    """
    for pair in pairs:
        # As UTF-8 without a BOM: ruff reads nothing else.
        _write(folder / "before" / pair.name, pair.before_text.encode())
        _write(folder / "after" / pair.name, pair.after_text.encode())
    old, new = _findings(folder / "before"), _findings(folder / "after")
    problems = {pair.name: sorted((new[pair.name] - old[pair.name]).elements()) for pair in pairs}
    return {name: found for name, found in problems.items() if found}


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


class _Findings(dict[str, Counter[str]]):
    def __missing__(self, name: str) -> Counter[str]:
        return Counter()


def _findings(folder: Path) -> Mapping[str, Counter[str]]:
    """How often each rule speaks of each name, file by file; lines may differ."""
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    options = ["--isolated", "--no-cache", "--ignore-noqa", "--exit-zero", "--quiet", "--target-version", version]
    command = [sys.executable, "-m", "ruff", "check", *options, "--select", RULES, "--output-format", "json", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    found = _Findings()
    for each in json.loads(done.stdout):
        message = each["message"].partition(" from line ")[0]
        if "`cpu`" in message:
            continue  # a made-up device in the place of a forward reference
        found.setdefault(Path(each["filename"]).name, Counter())[f"{each['code'] or 'syntax'}: {message}"] += 1
    return found


def refused_by_git(pairs: Sequence[Pair], folder: Path) -> list[str]:
    """Apply all diffs with git, compare, and reverse them.

    Args:
        pairs: The files.
        folder: An empty folder to work in.

    Returns:
        What went wrong, in words, by file.
    """
    for pair in pairs:
        _write(folder / pair.name, pair.before)
    patch = join(unified_diff(pair.name, pair.before, pair.after) for pair in pairs)
    problems = _git(folder, "apply", "--check", patch=patch) or _git(folder, "apply", patch=patch)
    problems += [f"{pair.name}: git makes another file of it" for pair in pairs if _differs(folder, pair, pair.after)]
    if not problems:
        problems = _git(folder, "apply", "--reverse", patch=patch)
        problems += [f"{pair.name}: git does not undo it" for pair in pairs if _differs(folder, pair, pair.before)]
    return problems


def _differs(folder: Path, pair: Pair, expected: bytes) -> bool:
    return (folder / pair.name).read_bytes() != expected


def _git(folder: Path, *command: str, patch: bytes) -> list[str]:
    # Nobody's settings count, and no repository around the folder.
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_DIR": os.devnull}
    whole = ["git", *command, "--whitespace=nowarn", "--allow-empty", "-"]
    done = subprocess.run(whole, cwd=folder, input=patch, capture_output=True, env=environment, check=False)
    return done.stderr.decode(errors="replace").splitlines()[:20] if done.returncode else []
