"""Turns the examples of a transform into test cases, for our own transforms and for yours.

In a test file of your own:

    @pytest.mark.parametrize("case", testing.cases(MyTransform), ids=str)
    def test_my_transform(case):
        testing.check(case)
"""

from __future__ import annotations

import ast
import tempfile
from dataclasses import dataclass
from pathlib import Path

from neural_coder import patching
from neural_coder.analysis import Project, analyze
from neural_coder.patching import Authored, Conflict, Patch, Unpatchable
from neural_coder.records import LeftAlone
from neural_coder.source import Source
from neural_coder.transform import Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A script, and what a transform makes of it."""

    transform: type[Transform]
    before: str
    after: str
    """Equal to `before` where the transform must leave the script alone."""
    value: str | None = None
    label: str = ""

    def __str__(self) -> str:
        return f"{self.transform.name()}-{self.label}"


def cases(transform: type[Transform]) -> tuple[Case, ...]:
    """All examples of a transform: what it changes, and what it leaves alone.

    A transform that needs a value gets, for the scripts it leaves alone, the value of its first example.
    """
    value = transform.CHANGES[0].value
    changes = [
        Case(transform=transform, before=item.before, after=item.after, value=item.value, label=f"changes-{number}")
        for number, item in enumerate(transform.CHANGES)
    ]
    alone = [
        Case(transform=transform, before=text, after=text, value=value, label=f"leaves-alone-{number}")
        for number, text in enumerate(transform.LEAVES_ALONE)
    ]
    return (*changes, *alone)


def check(case: Case) -> None:
    """Check one example and the promises that hold for every patch.

    Raises:
        AssertionError: The transform makes something else of the script, the result does not parse, a second pass
            changes it again, or a place was left alone without a reason.
    """
    outcome, left = apply(case.transform, Source.from_text(case.before), case.value)
    assert isinstance(outcome, Patch), f"{case}: {outcome}"
    assert outcome.after.text == case.after, _difference(case, outcome)
    assert outcome.empty == (case.before == case.after)
    assert outcome.before.text == case.before
    assert all(item.reason for item in left), f"{case}: a place was left alone without a reason"
    ast.parse(outcome.after.text)
    again, _ = apply(case.transform, outcome.after, case.value)
    assert isinstance(again, Patch), f"{case}, second pass: {again}"
    assert again.empty, f"{case}: a second pass changes it again:\n{again.after.text}"


def apply(
    transform: type[Transform], source: Source, value: str | None = None
) -> tuple[Patch | Conflict | Unpatchable, tuple[LeftAlone, ...]]:
    """Analyse a script and let one transform patch it, on its own, without the features it implies.

    Args:
        transform: The transform.
        source: The script; its path need not exist.
        value: The feature's value.

    Returns:
        The patch or why there is none, and the places that were left alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / source.path.name
        facts = analyze(path, Project(Path(folder), {path: source}))
    found = list(transform().edits(facts, value))
    left = tuple(item for item in found if isinstance(item, LeftAlone))
    edits = [
        Authored(author=transform.name(), order=transform.order, edit=item)
        for item in found
        if not isinstance(item, LeftAlone)
    ]
    return patching.apply(source, edits), left


def _difference(case: Case, patch: Patch) -> str:
    expected = Source.from_text(case.after, patch.after.path)
    shown = Patch(before=expected, after=patch.after).diff(patch.after.path.parent).decode()
    return f"{case}: expected (-) and got (+):\n{shown}"
