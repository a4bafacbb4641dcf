"""What is kept counts as long as nothing has changed that it depends on, and not a moment longer."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path

import pytest

from neural_coder import cache, crew, filejobs
from neural_coder.analysis import footprint
from neural_coder.analysis.infer import Inference
from neural_coder.filejobs import Options
from neural_coder.filework import Desk
from neural_coder.records import Analysis

MAIN = """\
from parts.nets import build

model = build()
print(model(1))
"""
NETS = """\
import torch


def build():
    return torch.nn.Linear(1, 1)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("NEURAL_CODER_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "project"
    (root / "parts").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (root / "main.py").write_text(MAIN)
    (root / "parts" / "__init__.py").touch()
    (root / "parts" / "nets.py").write_text(NETS)
    (root / "alone.py").write_text("import torch\n\nnet = torch.nn.Linear(2, 2)\nnet(torch.ones(2))\n")
    monkeypatch.chdir(root)
    return root


@pytest.fixture(autouse=True)
def _one_desk(monkeypatch):
    """The children's work is done in this process, which is faster; `test_survey` has real ones."""

    def work(groups, *, jobs, limit):
        desk = Desk()
        for number, asked in itertools.chain.from_iterable(groups):
            yield number, json.loads(json.dumps(desk.answer(json.loads(json.dumps(asked)))))

    monkeypatch.setattr(crew, "work", work)


def job(file, kept):
    return {"job": "analyze"} if kept is None else None


def run(project, **options):
    files = sorted(project.rglob("*.py"))
    done = filejobs.run(files, [project], job, Options(jobs=1, **options))
    assert not done.note
    return {str(outcome.path.relative_to(project)): outcome for outcome in done.files}


def made_again(outcomes):
    return {name for name, outcome in outcomes.items() if not outcome.cached}


def test_a_second_run_makes_nothing_again_and_finds_the_same(project):
    first = run(project)
    second = run(project)
    assert made_again(first) == set(first)
    assert made_again(second) == set()
    assert [item.analysis for item in first.values()] == [item.analysis for item in second.values()]
    assert first["main.py"].analysis.models


def test_a_changed_file_is_made_again_with_all_that_read_it(project):
    run(project)
    (project / "parts" / "nets.py").write_text(NETS.replace("torch.nn.Linear(1, 1)", "None"))
    after = run(project)
    assert made_again(after) == {"main.py", "parts/nets.py"}
    assert not after["main.py"].analysis.models


def test_a_change_of_the_same_size_within_one_tick_of_the_clock_is_noticed(project):
    nets = project / "parts" / "nets.py"
    run(project)
    before = nets.stat()
    nets.write_text(NETS.replace("Linear(1, 1)", "Linear(1, 2)"))
    os.utime(nets, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "parts/nets.py" in made_again(run(project))


def test_an_old_file_that_was_not_touched_is_not_read(project, monkeypatch):
    monkeypatch.setattr(footprint, "_SETTLED_NS", 0)
    run(project)
    read = []
    monkeypatch.setattr(cache, "digest", lambda data: read.append(data) or footprint.digest(data))
    assert made_again(run(project)) == set()
    assert NETS.encode() not in read


def test_a_young_file_is_read_again_because_its_stamp_does_not_tell(project):
    (project / "young.py").write_text("")
    assert footprint.stamp(project / "young.py") is None


def test_a_module_that_goes_away_is_noticed(project):
    run(project)
    (project / "parts" / "nets.py").unlink()
    after = run(project)
    assert made_again(after) == {"main.py"}
    assert not after["main.py"].analysis.models


def test_a_module_that_appears_is_noticed(project):
    (project / "parts" / "nets.py").rename(project / "nets.txt")
    assert not run(project)["main.py"].analysis.models
    (project / "nets.txt").rename(project / "parts" / "nets.py")
    after = run(project)
    assert made_again(after) == {"main.py", "parts/nets.py"}
    assert after["main.py"].analysis.models


def test_a_module_that_hides_another_is_noticed(project):
    """`parts.py` next to the folder `parts`, and a nearer `parts` in the script's own folder."""
    (project / "scripts").mkdir()
    (project / "scripts" / "go.py").write_text(MAIN)
    run(project)
    (project / "scripts" / "parts.py").touch()
    assert made_again(run(project)) >= {"scripts/go.py", "scripts/parts.py"}


def test_an_unrelated_new_file_makes_nothing_else_again(project):
    run(project)
    (project / "new.py").write_text("print('new')\n")
    (project / "outputs").mkdir()
    (project / "outputs" / "log.txt").touch()
    assert made_again(run(project)) == {"new.py"}


def test_what_two_files_share_is_known_to_both(project):
    """The second one gets from the child's memory what the first one read; it depends on it all the same."""
    (project / "again.py").write_text(MAIN)
    run(project)
    (project / "parts" / "nets.py").write_text(NETS.replace("torch.nn.Linear(1, 1)", "None"))
    assert made_again(run(project)) == {"again.py", "main.py", "parts/nets.py"}


def test_a_package_in_a_folder_of_the_root_is_noticed_when_it_appears(project):
    (project / "main.py").write_text(MAIN.replace("parts.nets", "helpers.nets"))
    run(project)
    (project / "lib" / "helpers").mkdir(parents=True)
    (project / "lib" / "helpers" / "nets.py").write_text(NETS)
    after = run(project)
    assert made_again(after) == {"main.py", "lib/helpers/nets.py"}
    assert after["main.py"].analysis.models


def test_settings_of_the_project_are_part_of_the_key(project):
    run(project)
    (project / "pyproject.toml").write_text("[project]\nname = 'y'\n")
    assert made_again(run(project)) == set()
    (project / "pyproject.toml").write_text("[tool.neural_coder]\nbudget = '5m'\n")
    assert made_again(run(project)) == {"main.py", "alone.py", "parts/__init__.py", "parts/nets.py"}


def test_installed_packages_are_part_of_the_key(project):
    packages = project / ".venv" / "lib" / "python3.11" / "site-packages"
    (packages / "one-1.0.dist-info").mkdir(parents=True)
    (project / "pyproject.toml").write_text("[tool.neural_coder]\npython = '.venv/bin/python'\n")
    run(project)
    (packages / "__pycache__").mkdir()
    assert made_again(run(project)) == set()
    (packages / "one-1.0.dist-info").rename(packages / "one-1.1.dist-info")
    assert made_again(run(project)) == {"main.py", "alone.py", "parts/__init__.py", "parts/nets.py"}


def test_what_there_was_no_time_to_infer_is_looked_at_again(project, monkeypatch):
    (project / "asks.py").write_text("import torch\nimport somelib\n\nmodel = somelib.Model()\nmodel(torch.ones(1))\n")
    monkeypatch.setattr(Inference, "_left", lambda self, asking: 0.0)
    run(project)
    assert made_again(run(project)) == {"asks.py"}


def test_a_syntax_error_is_kept_until_it_is_mended(project):
    broken = project / "broken.py"
    broken.write_text("def f(:\n")
    first, second = run(project)["broken.py"], run(project)["broken.py"]
    assert not first.cached
    assert second.cached
    assert first.problem == second.problem
    assert "broken.py:1" in second.problem.message
    broken.write_text("def f(): pass\n")
    assert run(project)["broken.py"].problem is None


def test_without_the_cache_all_is_made_again_and_nothing_kept(project):
    run(project)
    kept = {file: file.read_bytes() for file in cache.folder().iterdir()}
    assert made_again(run(project, cached=False)) == {"main.py", "alone.py", "parts/__init__.py", "parts/nets.py"}
    assert {file: file.read_bytes() for file in cache.folder().iterdir()} == kept


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"Linear", b"Linarr"),
        lambda data: b"{}" + data,
        lambda data: cache._sealed(b"[]"),
        lambda data: cache._sealed(b'{"files": [], "folders": [], "questions": [], "entries": {"a.py": [1]}}'),
        lambda data: b"\x80\x04\x95not json",
    ],
)
def test_a_damaged_cache_is_as_good_as_none_and_gets_written_anew(project, spoil):
    first = run(project)
    (file,) = cache.folder().iterdir()
    file.write_bytes(spoil(file.read_bytes()))
    after = run(project)
    assert made_again(after) == set(first)
    assert [item.analysis for item in after.values()] == [item.analysis for item in first.values()]
    assert made_again(run(project)) == set()


def test_a_cache_that_cannot_be_written_is_a_note_and_no_error(project, monkeypatch, tmp_path):
    (tmp_path / "occupied").write_text("a file")
    monkeypatch.setenv("NEURAL_CODER_CACHE", str(tmp_path / "occupied"))
    files = sorted(project.rglob("*.py"))
    done = filejobs.run(files, [project], job, Options(jobs=1))
    assert "could not be kept" in done.note
    assert all(isinstance(outcome.analysis, Analysis) for outcome in done.files)


def test_projects_not_used_for_long_go_first_when_room_is_needed(project, monkeypatch):
    run(project)
    folder = cache.folder()
    old, recent = folder / "old.json", folder / "recent.json"
    old.write_bytes(b"x" * 2000)
    recent.write_bytes(b"x" * 2000)
    os.utime(old, (1, 1))
    os.utime(recent, (time.time() - 60, time.time() - 60))
    own = next(file for file in folder.iterdir() if file not in (old, recent))
    monkeypatch.setattr(cache, "MOST_BYTES", own.stat().st_size + 3500)
    (project / "new.py").touch()
    run(project)
    assert not old.exists()
    assert recent.exists()
    assert own.exists()


def test_a_file_that_changes_during_the_run_is_not_kept(project):
    """Two analyses saw two versions of a file: neither can be trusted to be about the one that is there."""
    kept = cache.AnalysisCache(project / "index.json")
    one, other = footprint.Reading("1"), footprint.Reading("2")
    kept.put(Path("a.py"), cache.Kept(), {"nets.py": one}, {})
    kept.put(Path("b.py"), cache.Kept(), {"nets.py": other}, {})
    assert kept.get(Path("a.py")) is not None
    assert kept.get(Path("b.py")) is None


def test_a_folder_named_like_an_imported_library_costs_no_file(project):
    """`gradio/demo.py` imports gradio: the folder beside it is no package, and there is nothing of it to read."""
    for library in ("gradio", "somelib"):
        (project / library).mkdir()
        (project / library / "demo.py").write_text(f"import {library} as lib\n\ndemo = lib.Interface(print)\n")
    outcomes = run(project)
    assert not [outcome.problem for outcome in outcomes.values() if outcome.problem]
    assert made_again(run(project)) == set()


def test_an_answer_that_makes_no_sense_costs_one_file(project, monkeypatch):
    answer = Desk.answer

    def wrong_about_one(desk, request):
        reply = answer(desk, request)
        if request["path"].endswith("alone.py"):
            reply["seen"]["files"].append(1_000_000)
        return reply

    monkeypatch.setattr(Desk, "answer", wrong_about_one)
    outcomes = run(project)
    assert {name for name, outcome in outcomes.items() if outcome.problem} == {"alone.py"}
    assert "IndexError" in outcomes["alone.py"].problem.message
    assert outcomes["main.py"].analysis.models
