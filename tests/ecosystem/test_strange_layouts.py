"""Whatever a file looks like: analysis answers, and the patches of every feature keep their promises."""

from __future__ import annotations

import warnings
from pathlib import Path

import bulk
import layouts
import pytest
from examine import examine, plans
from guesses import Guess

from neural_coder import patching, planner
from neural_coder.analysis import Project, analyze
from neural_coder.errors import UserError
from neural_coder.patching import Patch, Unpatchable
from neural_coder.source import Source


def cases(files: dict[str, bytes]) -> list[object]:
    return [pytest.param(data, id=name.replace(" ", "-")) for name, data in files.items()]


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "script.py"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("data", cases(layouts.PYTHON))
def test_patches_keep_their_promises(tmp_path, data):
    source = Source.read(written(tmp_path, data))
    assert source.encode() == data
    finding, patched = examine(source, Project(tmp_path), guesses=4)
    assert not finding.crashes, finding.crashes[0]
    assert not finding.broken
    assert not finding.unreadable
    pairs = [
        bulk.Pair(
            f"{number}.py", each.patch.before.encode(), each.patch.after.encode(), source.text, each.patch.after.text
        )
        for number, each in enumerate(patched)
    ]
    if pairs:
        assert not bulk.new_problems(pairs, tmp_path / "ruff")
        assert not bulk.refused_by_git(pairs, tmp_path / "git")


@pytest.mark.parametrize("data", cases(layouts.DEEP))
def test_deep_nesting_is_patched_or_refused(tmp_path, data):
    """Deeper than Python's own limit allows our walks to go."""
    path = written(tmp_path, data)
    source, project = Source.read(path), Project(tmp_path)
    facts = analyze(path, project)
    assert [model.name for model in facts.models] == ["m"]
    for plan in plans():
        for found in (facts, Guess.of(source).facts(source)):
            outcome = patching.apply(source, planner.edits_for(plan, found)[0])
            assert isinstance(outcome, Patch | Unpatchable | patching.Conflict)


@pytest.mark.parametrize("data", cases(layouts.UNREADABLE))
def test_what_is_no_text_is_a_clear_problem(tmp_path, data):
    path = written(tmp_path, data)
    with pytest.raises(UserError, match=r"script\.py"):
        Source.read(path)
    with pytest.raises(UserError, match=r"script\.py"):
        analyze(path, Project(tmp_path))


@pytest.mark.parametrize("data", cases(layouts.NO_PYTHON))
def test_what_is_no_python_is_a_clear_problem(tmp_path, data):
    with pytest.raises(UserError, match=r"script\.py"):
        analyze(written(tmp_path, data), Project(tmp_path))


def test_odd_escapes_warn_nobody(tmp_path):
    """Where warnings are errors, as here, a warning that leaks would be a crash."""
    for name in ("odd escapes", "odd escapes for a GPU", "odd escapes in an annotation"):
        data = layouts.STATEMENTS[name]
        path = written(tmp_path, data)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            finding, _ = examine(Source.read(path), Project(tmp_path), guesses=len(plans()))
        assert finding.patches
        assert not seen
