"""Turn a plan into a checked patch of the user's files, with the places where the patched script is to be probed.

A candidate has kept every promise before anyone sees it: a second pass over the patched text changes nothing, and the
patched text has the same sites, in the same order, as the original.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_coder import diff, patching, planner
from neural_coder.analysis import Project, analyze, analyze_script
from neural_coder.bench.protocol import Probe, site_name
from neural_coder.errors import InternalError
from neural_coder.patching import Patch
from neural_coder.records import Analysis, Change, LeftAlone, Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One variant, ready to run: what it changes, and where to probe it."""

    plan: Plan
    patches: tuple[Patch, ...]
    """One for each file that changes."""
    probes: Mapping[Path, tuple[Probe, ...]]

    @property
    def changes(self) -> tuple[Change, ...]:
        """All edits of all files."""
        return tuple(change for patch in self.patches for change in patch.changes)

    @property
    def patched(self) -> dict[Path, bytes]:
        """The new bytes of each changed file, by its path."""
        return {patch.before.path: patch.after.encode() for patch in self.patches}

    def diff(self, base: Path) -> bytes:
        """The whole change as one unified diff with paths relative to `base`."""
        return diff.join(patch.diff(base) for patch in self.patches)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a plan became no candidate."""

    plan: Plan
    reason: str
    ours: bool = False
    """A defect of ours: one of the promises on patches would have been broken."""


def build(plan: Plan, project: Project, analyses: Sequence[Analysis]) -> Candidate | Refusal:
    """Patch the files of a script as a plan says, and check the result.

    Args:
        plan: The features to apply.
        project: Where the files are.
        analyses: The facts on the script's files, the script first.

    Returns:
        The candidate, or why there is none.
    """
    try:
        return _build(plan, project, analyses)
    except InternalError as error:
        # One broken promise must not cost the user the other variants.
        log.error("%s: %s", plan.id, error)
        return Refusal(plan=plan, reason=f"Neural Coder refused its own patch: {error}", ours=True)


def _build(plan: Plan, project: Project, analyses: Sequence[Analysis]) -> Candidate | Refusal:
    patches: list[Patch] = []
    left: list[tuple[Path, LeftAlone]] = []
    for facts in analyses:
        outcome, alone = _patch_file(plan, project, facts)
        if not isinstance(outcome, Patch):
            return Refusal(plan=plan, reason=f"{facts.path.name}: {outcome}")
        left += [(facts.path, item) for item in alone]
        if not outcome.empty:
            patches.append(outcome)
    idle = _idle_features(plan, patches)
    if idle:
        return Refusal(plan=plan, reason="; ".join(_why_idle(name, left) for name in idle))
    patched = project.with_overlay({patch.before.path: patch.after for patch in patches})
    after = analyze_script(analyses[0].path, patched)
    problem = _broken_promise(plan, patched, analyses, after)
    if problem:
        log.error("%s: %s", plan.id, problem)
        return Refusal(plan=plan, reason=f"Neural Coder refused its own patch: {problem}", ours=True)
    return Candidate(plan=plan, patches=tuple(patches), probes=probes(after, project.root))


def patch_one(plan: Plan, project: Project, facts: Analysis) -> tuple[Patch | Refusal, tuple[LeftAlone, ...]]:
    """Patch one file for itself, without regard to the rest of its project (`neural-coder patch`).

    Returns:
        The checked patch (maybe empty) or why there is none; and the places that were left alone.
    """
    outcome, left = _patch_file(plan, project, facts)
    if not isinstance(outcome, Patch):
        return Refusal(plan=plan, reason=outcome), left
    if outcome.empty:
        return outcome, left
    patched = project.with_overlay({facts.path: outcome.after})
    after = (analyze(facts.path, patched),)
    problem = _broken_promise(plan, patched, (facts,), after)
    if problem:
        log.error("%s: %s: %s", facts.path, plan.id, problem)
        return Refusal(plan=plan, reason=f"Neural Coder refused its own patch: {problem}", ours=True), left
    return outcome, left


def probes(analyses: Iterable[Analysis], root: Path) -> dict[Path, tuple[Probe, ...]]:
    """The calls to watch in each file; sites are named by file, kind and number, so that variants agree on them."""
    found: dict[Path, tuple[Probe, ...]] = {}
    for facts in analyses:
        here = [
            Probe(site=site_name(facts.path, root, "inference", number), kind="inference", call=call.call)
            for number, call in enumerate(facts.inference)
        ]
        here += [
            Probe(site=site_name(facts.path, root, call.kind, number), kind=call.kind, call=call.call)
            for number, call in enumerate(facts.training)
            if call.kind != "fit"
        ]
        if here:
            found[facts.path] = tuple(here)
    return found


def _patch_file(plan: Plan, project: Project, facts: Analysis) -> tuple[Patch | str, tuple[LeftAlone, ...]]:
    edits, left = planner.edits_for(plan, facts)
    outcome = patching.apply(project.source(facts.path), edits)
    return (outcome if isinstance(outcome, Patch) else outcome.reason), left


def _idle_features(plan: Plan, patches: Sequence[Patch]) -> list[str]:
    """Features that were asked for and changed nothing."""
    active = {author for patch in patches for change in patch.changes for author in change.author.split("+")}
    return [feature.name for feature in planner.asked_for(plan) if feature.name not in active]


def _why_idle(name: str, left: Sequence[tuple[Path, LeftAlone]]) -> str:
    reasons = dict.fromkeys(
        f"{item.reason} ({path.name}:{item.line})" for path, item in left if item.author.split("+")[0] == name
    )
    return (
        f"{name}: {'; '.join(list(reasons)[:2])}" if reasons else f"{name}: there is nothing to change in this script"
    )


def _broken_promise(plan: Plan, patched: Project, before: Sequence[Analysis], after: Sequence[Analysis]) -> str:
    """Which promise on patches does not hold, in words; empty when all do."""
    originals = {facts.path.resolve(): facts for facts in before}
    for facts in after:
        again, _ = _patch_file(plan, patched, facts)
        if not isinstance(again, Patch):
            return f"a second pass over {facts.path.name} fails: {again}"
        if not again.empty:
            where = ", ".join(f"{change.author} at line {change.line}" for change in again.changes)
            return f"a second pass over {facts.path.name} would change it again ({where})"
        original = originals.get(facts.path.resolve())
        if original is None or not _same_sites(original, facts):
            return f"the sites in {facts.path.name} are no longer the same"
    if len(after) != len(before):
        return "the script no longer imports the same files"
    return ""


def _same_sites(before: Analysis, after: Analysis) -> bool:
    """Whether a patched file has the sites of the original, in the same order."""
    if [call.kind for call in before.training] != [call.kind for call in after.training]:
        return False
    pairs = itertools.zip_longest(before.inference, after.inference)
    return all(old and new and _same_callee(old.callee, new.callee) for old, new in pairs)


def _same_callee(before: str, after: str) -> bool:
    """Whether a patch left alone what is called, but for its layout: a block around a statement indents its lines.

    What is called by an expression with calls of its own may be patched itself: `model.cuda()(x)`.
    """
    return "(" in before or "".join(before.split()) == "".join(after.split())
