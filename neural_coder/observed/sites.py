"""The sites that a run can confirm: their names, and what the child process is to count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from neural_coder.bench.protocol import Mark, Probe, site_name
from neural_coder.records import Analysis, Call, Model, TrainingCall


def probes_to_see(analyses: Iterable[Analysis], root: Path) -> dict[Path, tuple[Probe, ...]]:
    """The model calls of each file, to be counted and not measured."""
    found = {
        facts.path: tuple(
            Probe(site=name, kind="seen", call=call.call) for name, call in calls_of(facts, root) if call.kind != "fit"
        )
        for facts in analyses
    }
    return {path: probes for path, probes in found.items() if probes}


def marks(analyses: Iterable[Analysis], root: Path) -> dict[Path, tuple[Mark, ...]]:
    """The statements of each file that build models."""
    found = {
        facts.path: tuple(Mark(site=name, statement=model.statement) for name, model in models_of(facts, root))
        for facts in analyses
    }
    return {path: here for path, here in found.items() if here}


def calls_of(facts: Analysis, root: Path) -> Iterator[tuple[str, Call | TrainingCall]]:
    """The calls of models that a run can confirm, each with the name of its site."""
    for number, call in enumerate(facts.inference):
        yield site_name(facts.path, root, "inference", number), call
    for number, step in enumerate(facts.training):
        if step.kind in ("forward", "fit"):
            yield site_name(facts.path, root, step.kind, number), step


def models_of(facts: Analysis, root: Path) -> Iterator[tuple[str, Model]]:
    """The statements that build models, each with the name of its site."""
    for number, model in enumerate(facts.models):
        yield site_name(facts.path, root, "model", number), model
