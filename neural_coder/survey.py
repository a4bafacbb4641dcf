"""`neural-coder analyze`: sites and entry points of files, folders and whole repos. Nothing of the user's is run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_coder import config, filejobs
from neural_coder.cache import Kept
from neural_coder.entry_points import EntryPoint, entry_points
from neural_coder.errors import InternalError, UserError
from neural_coder.filejobs import Options, Outcome, Problem
from neural_coder.files import git_root, list_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was found in files and folders."""

    files: tuple[Outcome, ...]
    """In the order of the paths; those of a folder by name."""
    entry_points: tuple[EntryPoint, ...]
    base: Path
    """The folder that paths are shown relative to."""
    notes: tuple[str, ...]
    jobs: int
    seconds: float

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What could not be worked on, and why."""
        return tuple(outcome.problem for outcome in self.files if outcome.problem is not None)

    @property
    def exit_code(self) -> int:
        """70 after a defect of ours; 2 when not one file could be analysed; else 0."""
        if any(problem.kind == "crash" for problem in self.problems):
            return InternalError.exit_code
        return UserError.exit_code if self.files and len(self.problems) == len(self.files) else 0


def survey(paths: Sequence[Path], options: Options) -> Survey:
    """Find the sites and entry points in files and folders.

    Raises:
        UserError: A path does not exist, there is no Python file, or the settings are wrong.
        InternalError: No child process can be started.
    """
    started = time.monotonic()
    settings = config.load(Path.cwd())
    listing = list_files(paths, settings.exclude)
    folders = [path for path in paths if path.is_dir()]
    done = filejobs.run(listing.python, folders, _job, options)
    guards = {item.path: item.kept.guard for item in done.files if item.kept and item.kept.guard is not None}
    points, unread = entry_points(listing, guards)
    return Survey(
        files=done.files,
        entry_points=points,
        base=base_of(listing.python or listing.notebooks),
        notes=(*unread, *([done.note] if done.note else [])),
        jobs=done.jobs,
        seconds=time.monotonic() - started,
    )


def base_of(files: Sequence[Path]) -> Path:
    """The folder that paths are shown relative to: the git root, else the working directory, else what files share."""
    base = git_root(files[0]) or Path.cwd()
    if not all(file.is_relative_to(base) for file in files):
        base = Path(os.path.commonpath([file.parent for file in files]))
    return base


def _job(file: Path, kept: Kept | None) -> Mapping[str, object] | None:
    return {"job": "analyze"} if kept is None else None
