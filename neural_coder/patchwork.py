"""Patch one file with all that was asked for (`neural-coder patch`)."""

from __future__ import annotations

from collections.abc import Sequence

from neural_coder import candidate, planner, registry
from neural_coder.analysis import Project
from neural_coder.candidate import Refusal
from neural_coder.errors import InternalError, UserError
from neural_coder.patching import Patch
from neural_coder.records import Analysis, Feature, Plan, Task


def patch_file(facts: Analysis, project: Project, features: Sequence[str]) -> tuple[Patch, list[str]]:
    """Patch one file.

    Args:
        facts: Its sites.
        project: Where it is.
        features: As on the command line: `bf16`, `batch_size=32`.

    Returns:
        The patch, maybe an empty one, and for each place that was left alone `:LINE: FEATURE leaves this alone: WHY`.

    Raises:
        UserError: A feature does not exist, features exclude each other, or the file cannot be patched safely.
        InternalError: A promise on patches would have been broken.
    """
    plan = _plan([registry.parse_feature(text) for text in features], facts)
    outcome, left = candidate.patch_one(plan, project, facts)
    if isinstance(outcome, Refusal):
        error = InternalError if outcome.ours else UserError
        raise error(f"{facts.path}: {outcome.reason}.")
    return outcome, [f":{item.line}: {item.author} leaves this alone: {item.reason}" for item in left]


def _plan(wanted: Sequence[Feature], facts: Analysis) -> Plan:
    """All that was asked for: a script that trains and then evaluates has places for features of both kinds."""
    task: Task = "training" if facts.steps else "inference"
    return planner.plan_for(wanted, task)
