"""`neural_coder.enable` without running anything: patching from Python, and giving the old bytes back."""

from __future__ import annotations

import subprocess
import sys

import pytest

import neural_coder
from neural_coder.errors import UserError

MODEL = """\
import torch

net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten())
net.eval()
print(net(torch.rand(1, 3, 8, 8)).shape)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "infer.py"
    path.write_bytes(MODEL.replace("\n", "\r\n").encode())
    return path


def test_explicit_features_are_patched_without_running(script):
    result = neural_coder.enable(script, features=["channels_last", "bf16"], run=False)
    assert "channels_last" in result.diff
    assert "autocast" in result.diff
    assert "channels_last" in repr(result)
    assert result.best is None


def test_the_number_of_samples_to_calibrate_on_is_written_into_the_patch(script):
    found = neural_coder.enable(script, ["int8_static=onnxruntime:8"], run=False)
    wanted = 'engine="onnxruntime", precision="int8_static", calibration=8'
    assert wanted in " ".join(found.patches[0].after.text.split())


def test_applying_and_reverting_gives_the_original_bytes_back(script):
    before = script.read_bytes()
    result = neural_coder.enable(script, features="channels_last", run=False)
    assert script.read_bytes() == before
    kept = result.apply()
    assert b"channels_last" in script.read_bytes()
    assert b"\r\n" in script.read_bytes()
    assert kept.read_bytes() == result.diff_bytes
    result.revert()
    assert script.read_bytes() == before


def test_the_kept_diff_undoes_the_change(script):
    before = script.read_bytes()
    result = neural_coder.enable(script, features="channels_last", run=False, apply=True)
    assert script.read_bytes() != before
    (script.parent / "again.patch").write_bytes(result.diff_bytes)
    subprocess.run(["git", "apply", "-R", "again.patch"], cwd=result.base, check=True)
    assert script.read_bytes() == before


def test_a_file_that_changed_meanwhile_is_not_overwritten(script):
    result = neural_coder.enable(script, features="channels_last", run=False)
    script.write_text("mine = 1\n")
    with pytest.raises(UserError, match="has changed since"):
        result.apply()
    assert script.read_text() == "mine = 1\n"


def test_a_patched_file_that_changed_meanwhile_is_not_reverted(script):
    result = neural_coder.enable(script, features="channels_last", run=False, apply=True)
    script.write_text("mine = 1\n")
    with pytest.raises(UserError, match="has changed since"):
        result.revert()
    assert script.read_text() == "mine = 1\n"


def test_auto_without_running_is_refused(script):
    with pytest.raises(UserError, match="can only choose by running"):
        neural_coder.enable(script, run=False)


def test_a_feature_that_does_not_apply_is_explained(tmp_path):
    script = tmp_path / "linear.py"
    script.write_text("import torch\n\nm = torch.nn.Linear(3, 8)\nprint(m(torch.rand(1, 3)))\n")
    with pytest.raises(UserError, match="channels_last"):
        neural_coder.enable(script, features="channels_last", run=False)


def test_patching_needs_no_torch(script):
    """An import hook stands in for an environment without PyTorch: any import of it fails."""
    code = (
        "import sys\nsys.modules['torch'] = None\nimport neural_coder\n"
        f"print(neural_coder.enable({str(script)!r}, features='channels_last', run=False).diff)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "channels_last" in done.stdout
