"""Fixture sources in which a comment states what must be known about the next line, and that nothing else is."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from neural_coder.analysis import Project, analyze
from neural_coder.records import Analysis

FIXTURES = Path(__file__).parent / "fixtures"
EXPECTATION = re.compile(r"^\s*#\? (.*)$")


def expected(path: Path) -> dict[int, set[str]]:
    lines = path.read_text().split("\n")
    found: dict[int, set[str]] = defaultdict(set)
    for number, line in enumerate(lines, 1):
        match = EXPECTATION.match(line)
        if match:
            found[number + 1].update(part.strip() for part in match.group(1).split(","))
    return {line: words - {"nothing"} for line, words in found.items() if words - {"nothing"}}


def found_sites(facts: Analysis) -> dict[int, set[str]]:
    found: dict[int, set[str]] = defaultdict(set)
    for model in facts.models:
        if model.ready is None:
            found[model.line].add("model without place")
        elif model.ready == model.statement:
            found[model.line].add("model ready")
        else:
            found[model.line].add("model")
            found[model.ready.line].add(f"ready of {model.name}")
    for call in facts.inference:
        found[call.line].add("inference")
    words = {"forward": "training forward", "optimizer_step": "optimizer step"}
    for training in facts.training:
        found[training.line].add(words.get(training.kind, training.kind))
    for loader in facts.dataloaders:
        found[loader.line].add("loader")
    return dict(found)


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.py")), ids=lambda path: path.stem)
def test_each_line_is_known_for_what_it_is(path: Path) -> None:
    facts = analyze(path, Project(FIXTURES))
    devices: dict[int, set[str]] = {use.line: {use.kind} for use in facts.devices}
    found = devices if path.stem == "devices" else found_sites(facts)
    wanted = expected(path)
    differences = {
        line: (sorted(wanted.get(line, set())), sorted(found.get(line, set())))
        for line in sorted({*wanted, *found})
        if wanted.get(line, set()) != found.get(line, set())
    }
    assert not differences
