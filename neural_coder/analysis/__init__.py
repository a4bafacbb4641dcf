"""Facts about a user's files, from the code alone: which models there are, where they run, what trains them."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

from neural_coder.analysis.calls import find_calls, note_inference
from neural_coder.analysis.devices import find_devices
from neural_coder.analysis.facts import Facts
from neural_coder.analysis.glance import Glance
from neural_coder.analysis.interpreter import interpreted
from neural_coder.analysis.loaders import find_loaders, find_optimizers
from neural_coder.analysis.models import find_models
from neural_coder.analysis.not_training import release_fixed_targets, settle_derivatives
from neural_coder.analysis.project import Project
from neural_coder.analysis.syntax import Parsed
from neural_coder.analysis.training import assume_lost_training, drop_stray_backwards, find_steps, find_training
from neural_coder.analysis.unclear import find_unclear
from neural_coder.errors import UserError
from neural_coder.parsing import deep_recursion
from neural_coder.records import Analysis

__all__ = ["Project", "analyze", "analyze_script"]


def analyze(path: Path, project: Project) -> Analysis:
    """All that can be known about one file without running it.

    Args:
        path: The file; absolute imports are resolved against its folder first.
        project: The project that it belongs to.

    Returns:
        Its sites.

    Raises:
        UserError: The file cannot be read, or has a syntax error (with file, line, column and a caret).
    """
    with _no_collections():
        if not _glance(project).may_hold_sites(path):
            return Analysis(path=path)
        return _analyze(path, (path,), project)[0]


def analyze_script(script: Path, project: Project) -> tuple[Analysis, ...]:
    """Analyse a script and the project files that it imports, with what each tells about the others.

    Args:
        script: The file that starts the program.
        project: The project that it belongs to.

    Returns:
        One analysis for each of `project.files_of(script)`, in that order; files that cannot be parsed are empty.

    Raises:
        UserError: The script itself cannot be read, or has a syntax error.
    """
    project.parsed(script)
    return _analyze(script, project.files_of(script), project)


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the garbage collector from walking through all syntax trees again and again while more of them are built."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _glance(project: Project) -> Glance:
    """One for all analyses of a project: what it learns about one file serves the others."""
    if project.glance is None:
        project.glance = Glance(project)
    return project.glance


def _analyze(script: Path, files: tuple[Path, ...], project: Project) -> tuple[Analysis, ...]:
    project.parsed(script)
    if not project.mentions_models(script, script.resolve().parent):
        return tuple(Analysis(path=path) for path in files)
    try:
        with deep_recursion(), interpreted(project, _glance(project), script, files) as facts:
            settle_derivatives(facts)
            assume_lost_training(facts)
            release_fixed_targets(facts)
            drop_stray_backwards(facts)
            note_inference(facts)
            return tuple(_analysis(facts, project, path) for path in files)
    except RecursionError:
        raise UserError(f"{script} is nested too deeply to be analysed.") from None


def _analysis(facts: Facts, project: Project, path: Path) -> Analysis:
    parsed: Parsed = facts.files.get(path.resolve()) or project.empty(path)
    calls = find_calls(facts, parsed)
    return Analysis(
        path=path,
        models=find_models(facts, parsed),
        inference=tuple(call for call in calls if call.kind == "inference"),
        training=find_training(facts, parsed),
        steps=find_steps(facts, parsed),
        dataloaders=find_loaders(facts, parsed),
        optimizers=find_optimizers(facts, parsed),
        devices=find_devices(facts, parsed),
        unclear=find_unclear(facts, parsed),
    )
