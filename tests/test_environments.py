"""Environments of their own for engines: made, found, added to, removed, and never half-made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from neural_coder import environments, interpreters, registry
from neural_coder.errors import UserError

ENGINE = "ipex"


def wheel(folder: Path, name: str, *modules: str) -> Path:
    """A package that pip can install without an index."""
    file, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    contents = {f"{module}/__init__.py": "" for module in modules}
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    contents[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{path},,\n" for path in (*contents, f"{info}/RECORD"))
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in {**contents, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return file


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """The engine, with requirements that take no network and a second to install."""
    file = wheel(tmp_path, "stand_in", "torch", "intel_extension_for_pytorch")
    monkeypatch.setattr(registry.backends()[ENGINE], "requirements", (str(file),))
    return ENGINE


def create(name, **settings):
    given = {"path": None, "python": Path(sys.executable), "packages": (), "files": (), **settings}
    said: list[str] = []
    return environments.create(name, say=said.append, **given), said


def test_an_environment_is_made_found_extended_listed_and_removed(engine, tmp_path, neural_coder):
    assert environments.find(engine) is None
    made, said = create(engine)
    assert made.python.exists()
    assert made.bytes > 1_000_000
    assert "stand_in" in said[0]
    assert environments.find(engine) == made
    probe = "import intel_extension_for_pytorch, neural_coder.runtime as r; print(r.__all__[0])"
    ran = subprocess.run([made.python, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.stdout.strip() == "AccelerationError", ran.stderr

    assert create(engine) == (made, [f"{made.path} is complete already"])
    more = wheel(tmp_path, "more", "click", "something_else")
    listed = tmp_path / "requirements.txt"
    listed.write_text(f"{more}\n")

    installed = interpreters.look(Path(sys.executable), {}, needed=["click", "json", "no_such_module"])
    assert installed.pythons == {engine: made.python}
    assert not installed.why_unavailable(engine)
    missing = installed.why_skipped(engine)
    assert f"env create {engine} --with 'click==" in missing
    assert "json" not in missing
    assert "no_such_module" not in missing

    extended, _ = create(engine, files=[listed])
    assert extended.added == ("-r", str(listed))
    assert not interpreters.look(Path(sys.executable), {}, needed=["click"]).why_skipped(engine)
    shown = neural_coder("env", "list")
    assert str(made.path) in shown.stdout
    assert neural_coder("env", "remove", engine).exit_code == 0
    assert not made.path.exists()
    assert neural_coder("env", "list").stdout == ""
    assert neural_coder("env", "remove", engine).exit_code == 2


def test_what_cannot_be_installed_leaves_nothing_behind_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(registry.backends()[ENGINE], "requirements", (str(tmp_path / "missing-1.0-py3-none-any.whl"),))
    with pytest.raises(UserError, match=r"pip could not install .*missing-1\.0"):
        create(ENGINE, path=tmp_path / "here")
    assert not (tmp_path / "here").exists()
    assert environments.find(ENGINE) is None


def test_a_folder_of_the_user_is_never_taken_over(engine, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(UserError, match="was not made by Neural Coder"):
        create(engine, path=tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_an_environment_that_is_being_made_is_left_to_its_maker(engine, tmp_path):
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / environments.CLAIM).write_text(str(os.getpid()))
    with pytest.raises(UserError, match=f"by process {os.getpid()}"):
        create(engine, path=tmp_path / "busy")


def test_what_a_killed_process_has_left_is_made_anew_and_remembered_where_it_is(engine, tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    half = tmp_path / "half"
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").touch()
    (half / environments.CLAIM).write_bytes(gone.stdout)
    (half / "leftover").touch()
    made, _ = create(engine, path=half)
    assert not (half / "leftover").exists()
    assert json.loads((half / environments.RECORD).read_text())["requirements"] == list(made.requirements)
    assert environments.find(engine) == made
    assert environments.remove(engine) == half
    assert not half.exists()
    assert environments.find(engine) is None


@pytest.mark.parametrize(("name", "said"), [("torch", "works in the environment of your script"), ("tensor", "no eng")])
def test_only_engines_that_need_one_get_an_environment(name, said):
    with pytest.raises(UserError, match=said):
        create(name)


def test_interpreters_are_read_for_the_script_and_for_engines(tmp_path):
    python = Path(sys.executable)
    other = tmp_path / "a=b"
    other.symlink_to(python)
    assert interpreters.parse([]) == interpreters.Interpreters()
    named = interpreters.parse([python, f"ipex={python}"])
    assert (named.script, named.engines) == (python, {"ipex": python})
    assert interpreters.parse([other]).script == other
    with pytest.raises(UserError, match=r"'ipx' in .* is no engine"):
        interpreters.parse([f"ipx={python}"])
    with pytest.raises(UserError, match="not a Python interpreter"):
        interpreters.parse(["ipex=/no/such/python"])


def test_imports_are_seen_wherever_they_stand():
    texts = ["import a.b, c as d\nfrom . import e\nfrom f.g import h", "def f():\n    import i\nx = '\\d'\n"]
    assert interpreters.imported(texts) == {"a", "c", "f", "i"}
