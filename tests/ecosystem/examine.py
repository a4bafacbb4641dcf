"""Looks at one file: analysis, the patches of every feature, and whether they keep the promises."""

from __future__ import annotations

import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from guesses import Guess, number
from promises import broken_promises

from neural_coder import candidate, patching, planner, registry
from neural_coder.analysis import Project, analyze
from neural_coder.errors import InternalError, UserError
from neural_coder.parsing import deep_recursion
from neural_coder.patching import Patch
from neural_coder.records import Analysis, Feature, Plan
from neural_coder.source import Source

COMBINATIONS = (
    ("bf16", "channels_last", "compile", "fused_optimizer", "cuda_to_cpu", "batch_size=16"),
    ("bf16_weights", "channels_last", "torchscript", "batch_size=16"),
)


@cache
def plans() -> tuple[Plan, ...]:
    """Every feature alone, with each of its values, and some combinations."""
    single = [
        (Feature(name=name, value=value),)
        for name, kind in registry.transforms().items()
        for value in kind.values or (kind.CHANGES[0].value,)
    ]
    combined = [tuple(registry.parse_feature(name) for name in names) for names in COMBINATIONS]
    return tuple(planner.plan_for(features, "inference") for features in [*single, *combined])


@dataclass(slots=True)
class Finding:
    """What was seen in one file."""

    seconds: float = 0.0
    lines: int = 0
    sites: int = 0
    unreadable: str = ""
    patches: Counter[str] = field(default_factory=Counter)
    """How many patches changed something, for each plan; plans on made-up facts begin with `guess:`."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Reasons why there was no patch, without names and numbers."""
    broken: list[str] = field(default_factory=list)
    """Broken promises, each with its plan."""
    crashes: list[str] = field(default_factory=list)
    """Tracebacks."""


@dataclass(frozen=True, slots=True)
class Patched:
    """One patch, for checks that take many at once."""

    plan: str
    patch: Patch


class Alone(Project):
    """A project in which no file imports another one of it."""

    def find_module(self, name: str, importer: Path, script_folder: Path, level: int = 0) -> Path | None:
        return None

    def with_overlay(self, overlay: Mapping[Path, Source]) -> Alone:
        return Alone(self.root, overlay)


def examine(
    source: Source,
    project: Project,
    *,
    real: Sequence[Plan] | None = None,
    guesses: int = 2,
    first: int | None = None,
) -> tuple[Finding, list[Patched]]:
    """Look at one file.

    Args:
        source: The file.
        project: The project that it belongs to; it must know the file.
        real: Plans to try on what the analysis finds; None for all.
        guesses: How many plans to try on made-up facts.
        first: The number of the first of them; None lets the file decide, so that each plan gets its files.
    """
    finding = Finding(lines=source.text.count("\n") + 1)
    began = time.perf_counter()
    patched: list[Patched] = []
    first = number(source.text[:2000]) if first is None else first
    for look in (
        partial(_with_real_facts, project=project, real=plans() if real is None else real),
        partial(_with_made_up_facts, guesses=guesses, first=first),
    ):
        try:
            with deep_recursion():  # for the checks; the package makes room for itself
                patched += look(source, finding)
        except UserError as error:
            finding.unreadable = _general(str(error).split(": ", 1)[-1])
        except Exception:  # whatever it is, it must not end the survey; the traceback is reported
            finding.crashes.append(traceback.format_exc(limit=-12))
    finding.seconds = time.perf_counter() - began
    return finding, patched


def _with_real_facts(source: Source, finding: Finding, project: Project, real: Sequence[Plan]) -> list[Patched]:
    facts = analyze(source.path, project)
    finding.sites = len([*facts.models, *facts.inference, *facts.training, *facts.dataloaders, *facts.optimizers])
    if not finding.sites and not facts.devices:
        return []
    return [each for plan in real for each in _with_plan(project, facts, plan, finding)]


def _with_plan(project: Project, facts: Analysis, plan: Plan, finding: Finding) -> Iterator[Patched]:
    """Patch with a plan on what the analysis found; the candidate's own check makes the second pass."""
    try:
        outcome, left = candidate.patch_one(plan, project, facts)
    except InternalError as error:
        finding.broken.append(f"{plan.id}: {error}")
        return
    if any(not item.reason for item in left):
        finding.broken.append(f"{plan.id}: a place is left alone without a reason")
    if isinstance(outcome, candidate.Refusal):
        finding.refusals[_general(outcome.reason)] += 1
        if outcome.ours:
            finding.broken.append(f"{plan.id}: {outcome.reason}")
        return
    if outcome.empty:
        return
    finding.patches[plan.id] += 1
    edits, _ = planner.edits_for(plan, facts)
    finding.broken += [f"{plan.id}: {words}" for words in broken_promises(outcome, [each.edit for each in edits])]
    yield Patched(plan.id, outcome)


def _with_made_up_facts(source: Source, finding: Finding, guesses: int, first: int) -> list[Patched]:
    every = plans()
    # All features at once do most of what each alone does; in turns, each gets its files.
    chosen = [
        every[-1 - first % len(COMBINATIONS)],
        *(every[(first + step) % len(every)] for step in range(guesses - 1)),
    ]
    guess = Guess.of(source)
    return [each for plan in chosen[:guesses] for each in try_plan(source, guess.facts, plan, finding)]


def try_plan(source: Source, find: Callable[[Source], Analysis], plan: Plan, finding: Finding) -> Iterator[Patched]:
    """Patch with a plan on any facts, then patch the patched file with the facts that it then has."""
    name = f"guess:{plan.id}"
    authored, _ = planner.edits_for(plan, find(source))
    try:
        outcome = patching.apply(source, authored)
    except InternalError as error:
        finding.broken.append(f"{name}: {error}")
        return
    if not isinstance(outcome, Patch):
        finding.refusals[_general(outcome.reason)] += 1
        return
    finding.broken += [f"{name}: {words}" for words in broken_promises(outcome, [each.edit for each in authored])]
    if outcome.empty:
        return
    finding.patches[name] += 1
    again = patching.apply(outcome.after, planner.edits_for(plan, find(outcome.after))[0])
    if not isinstance(again, Patch):
        finding.broken.append(f"{name}: a second pass gives none: {again.reason}")
    elif not again.empty:
        places = ", ".join(f"{change.author} at line {change.line}" for change in again.changes)
        finding.broken.append(f"{name}: a second pass would change it again ({places})")
    yield Patched(name, outcome)


def _general(reason: str) -> str:
    """A reason without the names and numbers of one file."""
    reason = re.sub(r"`[^`]*`|'[^']*'|\"[^\"]*\"|\S+\.py\b", "…", reason.splitlines()[0] if reason else "")
    return re.sub(r"\d+", "N", reason)[:120]
