"""Whatever a file looks like: analysis answers, and the patches of every feature keep their promises."""

from __future__ import annotations

import functools
import tempfile
import warnings
from pathlib import Path

import bulk
import layouts
import pytest
from examine import Finding, Patched, examine, plans
from guesses import Guess

from neural_coder import patching, planner
from neural_coder.analysis import Project, analyze
from neural_coder.errors import UserError
from neural_coder.patching import Conflict, Patch, Unpatchable
from neural_coder.source import Source


def cases(files: dict[str, bytes]) -> list[object]:
    return [pytest.param(data, id=name.replace(" ", "-")) for name, data in files.items()]


@functools.cache
def examined(data: bytes) -> tuple[Finding, list[Patched]]:
    with tempfile.TemporaryDirectory() as folder:
        return examine(Source.read(written(Path(folder), data)), Project(Path(folder)), guesses=2)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "script.py"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("data", cases(layouts.PYTHON))
def test_patches_keep_their_promises(data):
    finding, _ = examined(data)
    assert not finding.crashes, finding.crashes[0]
    assert not finding.broken
    assert not finding.unreadable


def test_other_programs_agree(tmp_path):
    """No name is unbound in any patch, and git applies and reverses all diffs."""
    found = [each.patch for data in layouts.PYTHON.values() for each in examined(data)[1]]
    pairs = [
        bulk.Pair(f"{number}.py", patch.before.encode(), patch.after.encode(), patch.before.text, patch.after.text)
        for number, patch in enumerate(found)
    ]
    assert len(pairs) > 5 * len(layouts.STATEMENTS)
    assert not bulk.new_problems(pairs, tmp_path / "ruff")
    assert not bulk.refused_by_git(pairs, tmp_path / "git")


@pytest.mark.parametrize("data", cases({**layouts.ENCODINGS, **layouts.LINES}))
def test_bytes_survive_reading_and_writing(tmp_path, data):
    assert Source.read(written(tmp_path, data)).encode() == data


@pytest.mark.parametrize("data", cases(layouts.DEEP))
def test_deep_nesting_is_patched_or_refused(tmp_path, data):
    """Deeper than Python's own limit allows our walks to go."""
    source = Source.read(written(tmp_path, data))
    facts = analyze(source.path, Project(tmp_path))
    assert [model.name for model in facts.models] == ["m"]
    for found in (facts, Guess.of(source).facts(source)):
        outcome = patching.apply(source, planner.edits_for(plans()[-1], found)[0])
        assert isinstance(outcome, Patch | Unpatchable | Conflict)


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


@pytest.mark.parametrize("name", ["odd escapes", "odd escapes for a GPU", "odd escapes in an annotation"])
def test_odd_escapes_warn_nobody(tmp_path, name):
    source = Source.read(written(tmp_path, layouts.STATEMENTS[name]))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        finding, _ = examine(source, Project(tmp_path))
    assert finding.patches
    assert not seen
