"""`--vendor`: the patched script runs where Neural Coder is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from neural_coder import enable
from neural_coder.vendoring import COPY

SCRIPT = """import torch

model = torch.nn.Sequential(torch.nn.Linear(3, 8))
model.eval()
with torch.inference_mode():
    for _ in range(3):
        out = model(torch.ones(1, 3))
print("sum", float(out.sum()))
"""
TELL = """
import sys
from neural_coder_runtime import explain

print("ran", explain(model).running)
print("neural_coder is loaded:", "neural_coder" in sys.modules)
"""
BLOCKED = """
import sys


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "neural_coder":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, NotInstalled())
"""


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "infer.py"
    file.write_text(SCRIPT)
    return file


def run(script: Path) -> str:
    """Run a script in a Python that does not have Neural Coder."""
    (script.parent / "site").mkdir(exist_ok=True)
    (script.parent / "site" / "sitecustomize.py").write_text(BLOCKED)
    environment = {**os.environ, "PYTHONPATH": str(script.parent / "site")}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def vendored(neural_coder, script, feature="bf16_weights"):
    return neural_coder("patch", script, "--feature", feature, "--vendor", "--write")


@pytest.mark.torch
def test_the_patched_script_runs_without_neural_coder(script, neural_coder):
    assert vendored(neural_coder, script).exit_code == 0
    script.write_text(script.read_text() + TELL)
    said = run(script)
    assert "ran torch/bf16" in said
    assert "neural_coder is loaded: False" in said


@pytest.mark.torch
def test_an_installed_runtime_would_have_been_missed(script, neural_coder):
    """What the test above relies on: Neural Coder really cannot be imported there."""
    neural_coder("patch", script, "--feature", "bf16_weights", "--write")
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        run(script)


def test_only_the_engine_that_is_used_is_copied(script, neural_coder):
    vendored(neural_coder, script)
    copied = {file.name for file in (script.parent / COPY).glob("engine_*.py")}
    assert copied == {"engine_torch.py"}


def test_a_second_engine_joins_the_first(script, neural_coder):
    vendored(neural_coder, script)
    other = script.with_name("other.py")
    other.write_text(SCRIPT)
    vendored(neural_coder, other, "torchscript")
    copied = {file.name for file in (script.parent / COPY).glob("engine_*.py")}
    assert copied == {"engine_torch.py", "engine_torchscript.py"}


def test_a_second_time_nothing_changes(script, neural_coder):
    vendored(neural_coder, script)
    again = vendored(neural_coder, script)
    assert "Nothing to change." in again.stderr


def test_the_diff_goes_through_git_apply_and_back(script, neural_coder):
    diff = neural_coder("patch", script, "--feature", "bf16_weights", "--vendor").stdout.encode()
    assert b"new file mode 100644" in diff
    for arguments in (["apply"], ["apply", "-R"]):
        subprocess.run(["git", *arguments], input=diff, cwd=script.parent, check=True)
        assert (script.parent / COPY).exists() == (arguments == ["apply"])
    assert script.read_text() == SCRIPT


def test_a_script_that_needs_no_runtime_gets_no_copy(script, neural_coder):
    vendored(neural_coder, script, "channels_last")
    assert not (script.parent / COPY).exists()


def test_a_folder_of_the_users_own_is_left_alone(script, neural_coder):
    folder = script.parent / COPY
    folder.mkdir()
    (folder / "mine.py").write_text("x = 1\n")
    refused = vendored(neural_coder, script)
    assert refused.exit_code == 2
    assert "is not a copy of Neural Coder's runtime" in refused.stderr
    assert script.read_text() == SCRIPT


def test_what_enable_applies_it_takes_back(script):
    result = enable(script, ["bf16_weights"], run=False, vendor=True, apply=True)
    assert (script.parent / COPY).is_dir()
    result.revert()
    assert not (script.parent / COPY).exists()
    assert script.read_text() == SCRIPT
