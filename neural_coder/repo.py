"""`neural-coder patch`: patch files, folders and whole repos without running anything of the user's."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_coder import config, diff, filejobs, planner, registry
from neural_coder.cache import Kept
from neural_coder.codec import decode
from neural_coder.errors import UserError
from neural_coder.filejobs import Options, Outcome
from neural_coder.files import python_files
from neural_coder.patching import Patch
from neural_coder.source import write_bytes_atomically
from neural_coder.survey import base_of
from neural_coder.vendoring import vendor_each


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


def patch_paths(
    paths: Sequence[Path], features: Sequence[str], options: Options, *, with_runtime: bool = False
) -> RepoPatch:
    """Patch files and folders with features, statically.

    Args:
        paths: Files, folders, repos.
        features: As on the command line: `bf16`, `batch_size=32`.
        options: How to work on many files.
        with_runtime: Put a copy of the runtime beside the patched files (see `vendoring`).

    Raises:
        UserError: A path or a feature does not exist, features exclude each other, or no file could be read.
    """
    wanted = [registry.parse_feature(text) for text in features]
    planner.plan_for(wanted, "inference")  # Says which features exclude each other.
    settings = config.load(Path.cwd())
    files = python_files(paths, settings.exclude)
    base = base_of(files)
    folders = [path for path in paths if path.is_dir()]
    done = filejobs.run(files, folders, _job_for(features), options)
    problems = [outcome.problem for outcome in done.files if outcome.problem is not None]
    notes = [note for outcome in done.files for note in _notes(outcome, base)]
    if len(problems) == len(files) and not any(problem.kind == "crash" for problem in problems):
        raise UserError("\n".join(notes))
    patches = [decode(Patch, plain) for outcome in done.files if (plain := outcome.reply.get("patch")) is not None]
    return RepoPatch(
        patches=vendor_each(patches) if with_runtime else tuple(patches),
        base=base,
        notes=(*notes, *([done.note] if done.note else [])),
        exit_code=max((problem.exit_code for problem in problems), default=0),
    )


def write_patches(patches: Sequence[Patch]) -> None:
    """Change files as patches say, all or none.

    Raises:
        UserError: A file has changed since it was read, or cannot be written; then no file is changed.
    """
    for patch in patches:
        if not _is_as(patch.before.path, None if patch.creates else patch.before.encode()):
            raise UserError(f"{patch.before.path} has changed since it was read; run again. Nothing was changed.")
    written: list[Patch] = []
    try:
        for patch in patches:
            if patch.creates:
                _make_folder(patch.before.path.parent)
            write_bytes_atomically(patch.before.path, patch.after.encode())
            written.append(patch)
    except BaseException:
        # Also on Ctrl-C: a half-patched project is worse than an unpatched one.
        for patch in reversed(written):
            _undo(patch)
        raise


def revert_patches(patches: Sequence[Patch]) -> None:
    """Give files their original bytes back.

    Raises:
        UserError: A file is no longer as the patch left it.
    """
    for patch in patches:
        if not _is_as(patch.before.path, patch.after.encode()):
            raise UserError(f"{patch.before.path} has changed since it was patched; nothing was reverted.")
    for patch in patches:
        _undo(patch)


def _is_as(path: Path, data: bytes | None) -> bool:
    """Whether a file holds exactly these bytes; None: whether there is no such file."""
    return not path.exists() if data is None else path.is_file() and path.read_bytes() == data


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}. Nothing was changed.") from error


def _undo(patch: Patch) -> None:
    if not patch.creates:
        write_bytes_atomically(patch.before.path, patch.before.encode())
        return
    patch.before.path.unlink()
    with contextlib.suppress(OSError):  # another file may be there, or Python's compiled ones
        patch.before.path.parent.rmdir()


def _job_for(features: Sequence[str]) -> filejobs.Job:
    """Patch what has sites; a file that is known to have none needs no work."""

    def job(file: Path, kept: Kept | None) -> Mapping[str, object] | None:
        if kept is not None and (kept.problem or kept.analysis is None):
            return None
        return {"job": "patch", "features": list(features)}

    return job


def _notes(outcome: Outcome, base: Path) -> list[str]:
    """What was left alone in a file, and why it could not be worked with."""
    problem = [outcome.problem.message] if outcome.problem else []
    return problem + [f"{_shown(outcome.path, base)}{note}" for note in outcome.reply.get("notes", ())]


def _shown(file: Path, base: Path) -> str:
    return str(file.relative_to(base)) if file.is_relative_to(base) else str(file)
