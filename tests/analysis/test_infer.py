"""What neither the project nor the catalogue explains is looked up in the user's environment, by reading alone."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from neural_coder import config
from neural_coder.analysis import Project, analyze
from neural_coder.analysis.infer import Inference

HERE = Path("script.py")
LIBRARY = {
    "torch/__init__.py": "open(WITNESS, 'w').close()\n",
    "torch/nn/__init__.py": "from torch.nn.modules.module import Module\n",
    "torch/nn/modules/__init__.py": "",
    "torch/nn/modules/module.py": "class Module:\n    pass\n",
    "acme/__init__.py": "open(WITNESS, 'w').close()\nfrom acme.zoo import make_net, Tool, Strange\n",
    "acme/zoo.py": """\
import torch.nn as nn
from acme import _missing

class Net(nn.Module):
    @classmethod
    def load(cls, path):
        return cls()

class Deep(Net):
    pass

class Tool:
    pass

class Strange(_missing.Base):
    pass

def make_net(name):
    if name:
        return Net()
    return Deep()

def make_tool(name):
    return Tool()
""",
}
"""A package that builds on a tiny stand-in for PyTorch. Importing any of them would leave a trace."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    for name, text in LIBRARY.items():
        file = packages / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("WITNESS", repr(str(folder / "was_imported"))))
    hidden = folder / "hidden.py"
    hidden.write_text(f"open({str(folder / 'was_imported')!r}, 'w').close()\nclass Thing: pass\n")
    py_compile.compile(str(hidden), cfile=str(packages / "hidden.pyc"), doraise=True)
    return folder


@pytest.fixture(scope="module")
def inference(environment: Path) -> Inference:
    return Inference(environment / "bin" / "python", budget=60.0)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("acme.zoo.Net", True),
        ("acme.zoo.Deep", True),
        ("acme.make_net", True),
        ("acme.zoo.make_net", True),
        ("acme.zoo.Net.load", True),
        ("acme.zoo.Tool", False),
        ("acme.zoo.make_tool", False),
        ("acme.zoo.Strange", False),
        ("acme.zoo.missing", None),
        ("missing.thing", None),
        ("acme", None),
        ("hidden.Thing", None),  # there is no source; only importing it would tell
    ],
)
def test_packages_of_the_users_environment_are_read(
    inference: Inference, environment: Path, name: str, answer: bool | None
) -> None:
    assert inference.gives_module(name, HERE) is answer
    assert not (environment / "was_imported").exists()


def test_many_questions_take_one_child(inference: Inference) -> None:
    inference.gives_module("acme.zoo.Net", HERE)
    first = inference._child
    inference.gives_module("acme.zoo.another", HERE)
    assert inference._child is first


def test_models_of_unknown_libraries_are_found_in_a_script(environment: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\nimport acme\nfrom acme.zoo import Deep, make_tool\n\n"
        "thing = acme.make_net('a')\nmodel = make_tool('b')\n\n\nclass Mine(Deep):\n    pass\n\n\nmine = Mine()\n"
        "with torch.no_grad():\n    thing(torch.ones(1))\n    model(torch.ones(1))\n    mine(torch.ones(1))\n"
    )
    project = Project(tmp_path, python=environment / "bin" / "python")
    project.inference._budget = 60.0
    facts = analyze(script, project)
    assert [(model.line, model.evidence.known_by) for model in facts.models] == [(5, "jedi"), (13, "jedi")]
    assert [call.line for call in facts.inference] == [15, 17]
    assert not (environment / "was_imported").exists()


def test_the_interpreter_of_the_settings_is_asked(environment: Path, tmp_path: Path) -> None:
    python = (environment / "bin" / "python").as_posix()
    (tmp_path / "pyproject.toml").write_text(f'[tool.neural_coder]\npython = "{python}"\n')
    assert Inference(config.interpreter(tmp_path), budget=60.0).gives_module("acme.zoo.Net", HERE) is True


def test_no_file_and_no_setting_of_the_users_folder_is_run(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = "open('was_run', 'w').close()\n"
    for name in ("json.py", "jedi.py", "other.py", "sitecustomize.py"):
        (tmp_path / name).write_text(trap)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ntouch {tmp_path}/was_run\n")
    python.chmod(0o755)
    (tmp_path / ".jedi").mkdir()
    (tmp_path / ".jedi" / "project.json").write_text(
        f'[1, {{"path": "{tmp_path}", "environment_path": "{python}", "load_unsafe_extensions": true}}]'
    )
    monkeypatch.chdir(tmp_path)
    assert Inference(environment / "bin" / "python", budget=60.0).gives_module("other.A", tmp_path / "a.py") is None
    assert not list(tmp_path.rglob("was_run"))


def test_the_answer_is_unknown_when_the_time_of_the_file_is_up(environment: Path) -> None:
    hurried = Inference(environment / "bin" / "python", budget=0.0001)
    started = time.monotonic()
    assert hurried.gives_module("acme.zoo.Net", HERE) is None
    assert hurried.exhausted(HERE)
    assert time.monotonic() - started < 30
    hurried._budget = 60.0
    assert hurried.gives_module("acme.zoo.Net", Path("another.py")) is None  # it stays what it was
    assert hurried.gives_module("acme.zoo.Deep", Path("another.py")) is True


def test_a_missing_interpreter_means_unknown(tmp_path: Path) -> None:
    inference = Inference(tmp_path / "no_python", budget=60.0)
    assert inference.gives_module("acme.zoo.Net", HERE) is None
    assert inference.gives_module("acme.zoo.Deep", HERE) is None


def test_the_child_ends_with_its_owner(environment: Path) -> None:
    inference = Inference(environment / "bin" / "python", budget=60.0)
    inference.gives_module("acme.zoo.Net", HERE)
    assert inference._child is not None
    process = inference._child._process
    assert process.poll() is None
    del inference
    assert process.poll() is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_child_that_was_killed_is_replaced(environment: Path) -> None:
    inference = Inference(environment / "bin" / "python", budget=60.0)
    assert inference.gives_module("acme.zoo.Net", HERE) is True
    assert inference._child is not None
    inference._child._process.kill()
    inference._child._process.wait()
    assert inference.gives_module("acme.zoo.Tool", HERE) is None
    assert inference.gives_module("acme.zoo.Deep", HERE) is True
