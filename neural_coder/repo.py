"""The static jobs on files, folders and whole repos: find the sites, patch. Nothing of the user's is run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neural_coder import candidate, config, diff, planner, registry
from neural_coder.analysis import Project, analyze
from neural_coder.candidate import Refusal
from neural_coder.errors import InternalError, NeuralCoderError, UserError
from neural_coder.files import git_root, python_files
from neural_coder.patching import Patch
from neural_coder.race import Say
from neural_coder.records import Analysis, Feature, Plan, Task
from neural_coder.report.as_json import analysis_json
from neural_coder.source import write_bytes_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoPatch:
    """What patching files and folders came to."""

    patches: tuple[Patch, ...]
    """One for each file that changes."""
    base: Path
    """The folder that paths in the diff are relative to."""
    notes: tuple[str, ...]
    """What was left alone and why, and which files could not be worked with."""
    exit_code: int
    """0, or that of the worst problem."""

    @property
    def diff(self) -> bytes:
        """All changes as one unified diff for `git apply`."""
        return diff.join(patch.diff(self.base) for patch in self.patches)

    def write(self) -> None:
        """Change the files; when one cannot be written, those before it get their old bytes back."""
        write_patches(self.patches)


def analyze_paths(paths: Sequence[Path], say: Say) -> tuple[dict[str, Any], list[str]]:
    """Find the sites in files and folders.

    Returns:
        The sites as plain data (see `report.as_json.analysis_json`), and one sentence for each file that could not be
        read or parsed.
    """
    files, base = _files_and_base(paths)
    found: list[Analysis] = []
    problems: list[str] = []
    projects = _Projects()
    for number, file in enumerate(files, 1):
        say(f"[{number}/{len(files)}] {_shown(file, base)}")
        try:
            found.append(analyze(file, projects.of(file)))
        except NeuralCoderError as error:
            problems.append(str(error))
    return analysis_json(found, base), problems


def patch_paths(paths: Sequence[Path], features: Sequence[str], say: Say) -> RepoPatch:
    """Patch files and folders with features, statically.

    Args:
        paths: Files, folders, repos.
        features: As on the command line: `bf16`, `batch_size=32`.
        say: Called with the name of each file.

    Raises:
        UserError: A path or a feature does not exist, features exclude each other, or no file could be read.
    """
    wanted = [registry.parse_feature(text) for text in features]
    files, base = _files_and_base(paths)
    patches: list[Patch] = []
    notes: list[str] = []
    codes: list[int] = []
    projects = _Projects()
    for number, file in enumerate(files, 1):
        say(f"[{number}/{len(files)}] {_shown(file, base)}")
        try:
            patch, remarks = _patch_file(file, wanted, projects.of(file))
        except NeuralCoderError as error:
            notes.append(str(error))
            codes.append(error.exit_code)
            continue
        notes += [f"{_shown(file, base)}{remark}" for remark in remarks]
        if not patch.empty:
            patches.append(patch)
    if len(codes) == len(files):
        raise UserError("\n".join(notes))
    return RepoPatch(patches=tuple(patches), base=base, notes=tuple(notes), exit_code=max(codes, default=0))


def write_patches(patches: Sequence[Patch]) -> None:
    """Change files as patches say, all or none.

    Raises:
        UserError: A file has changed since it was read, or cannot be written; then no file is changed.
    """
    for patch in patches:
        if patch.before.path.read_bytes() != patch.before.encode():
            raise UserError(f"{patch.before.path} has changed since it was read; run again. Nothing was changed.")
    written: list[Patch] = []
    try:
        for patch in patches:
            write_bytes_atomically(patch.before.path, patch.after.encode())
            written.append(patch)
    except BaseException:
        # Also on Ctrl-C: a half-patched project is worse than an unpatched one.
        for patch in reversed(written):
            write_bytes_atomically(patch.before.path, patch.before.encode())
        raise


def revert_patches(patches: Sequence[Patch]) -> None:
    """Give files their original bytes back.

    Raises:
        UserError: A file is no longer as the patch left it.
    """
    for patch in patches:
        if patch.before.path.read_bytes() != patch.after.encode():
            raise UserError(f"{patch.before.path} has changed since it was patched; nothing was reverted.")
    for patch in patches:
        write_bytes_atomically(patch.before.path, patch.before.encode())


def _patch_file(file: Path, wanted: Sequence[Feature], project: Project) -> tuple[Patch, list[str]]:
    facts = analyze(file, project)
    plan = _plan(wanted, facts)
    outcome, left = candidate.patch_one(plan, project, facts)
    if isinstance(outcome, Refusal):
        error = InternalError if outcome.ours else UserError
        raise error(f"{file}: {outcome.reason}.")
    return outcome, [f":{item.line}: {item.author} leaves this alone: {item.reason}" for item in left]


def _plan(wanted: Sequence[Feature], facts: Analysis) -> Plan:
    """All that was asked for: a script that trains and then evaluates has places for features of both kinds."""
    task: Task = "training" if facts.steps else "inference"
    return planner.plan_for(wanted, task)


def _files_and_base(paths: Sequence[Path]) -> tuple[tuple[Path, ...], Path]:
    settings = config.load(Path.cwd())
    files = python_files(paths, settings.exclude)
    base = git_root(files[0]) or Path.cwd()
    if not all(file.is_relative_to(base) for file in files):
        base = Path(os.path.commonpath([file.parent for file in files]))
    return files, base


def _shown(file: Path, base: Path) -> str:
    return str(file.relative_to(base)) if file.is_relative_to(base) else str(file)


class _Projects:
    """One project for the files of one root, so that what was read of it is read once."""

    def __init__(self) -> None:
        self._by_root: dict[Path, Project] = {}

    def of(self, file: Path) -> Project:
        project = Project.find(file)
        return self._by_root.setdefault(project.root, project)
