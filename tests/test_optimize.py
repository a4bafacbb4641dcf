"""The main job end to end, in real child processes: the whole path from a script to a verified, reviewable patch."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import neural_coder
from neural_coder.errors import NothingMeasured, UserError

pytestmark = pytest.mark.torch

MEASURED = ("faster", "same", "slower", "undecided")  # the last where the machine is too noisy to tell

SCRIPTS = Path(__file__).resolve().parent.parent / "fixtures" / "scripts"

INFER = """\
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
)
model.eval()
for _ in range(40):
    logits = model(torch.randn(4, 3, 48, 48))
    print(int(logits.sum() * 1000))
"""

TRAIN = """\
import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
loss_fn = nn.MSELoss()
for step in range(10_000):
    x = torch.randn(128, 64)
    optimizer.zero_grad()
    loss = loss_fn(net(x), x.sum(1, keepdim=True))
    loss.backward()
    optimizer.step()
net.eval()
print("error:", loss_fn(net(x), x.sum(1, keepdim=True)).item())
"""


def write(folder: Path, text: str, name: str = "script.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def only(result: neural_coder.Result) -> dict:
    (variant,) = result.variants
    return variant


@pytest.mark.slow
def test_an_inference_script_is_run_measured_and_verified(tmp_path):
    script = write(tmp_path, INFER)
    before = digest(tmp_path)
    result = neural_coder.enable(script, features=["channels_last"], budget=120)
    variant = only(result)
    assert digest(tmp_path) == before
    assert variant["status"] in MEASURED
    assert variant["accuracy"]["verified"]
    assert variant["accuracy"]["kept"]
    assert variant["speedup"]["low"] <= variant["speedup"]["median"] <= variant["speedup"]["high"]
    assert result.data["baseline"]["task"] == "inference"
    assert result.data["baseline"]["seconds_per_call"]["median"] > 0
    assert 0 < result.data["baseline"]["model_share"] <= 1
    observed = result.data["sites"]["observed"]
    assert [(model["name"], model["built"]["line"]) for model in observed["models"]] == [("Sequential", 5)]
    assert 0 < observed["models"][0]["share"] < 1
    assert observed["added"] == observed["conflicts"] == []
    assert {site["known_by"] for site in result.data["sites"]["files"][0]["inference"]} == {"observed"}
    assert "channels_last" in repr(result)
    assert "Models by time" in repr(result)
    if result.best:
        (tmp_path / "winner.patch").write_bytes(result.diff_bytes)
        subprocess.run(["git", "apply", "--check", "winner.patch"], cwd=result.base, check=True)


@pytest.mark.slow
def test_a_training_script_that_would_run_long_is_stopped_after_enough_steps(tmp_path):
    result = neural_coder.enable(write(tmp_path, TRAIN), features=["fused_optimizer"], budget=120)
    variant = only(result)
    assert result.data["baseline"]["task"] == "training"
    assert variant["accuracy"]["criterion"]
    assert variant["accuracy"]["verified"], variant
    assert variant["status"] in MEASURED


@pytest.mark.slow
def test_the_users_metric_decides_when_one_is_given(tmp_path):
    short = TRAIN.replace("10_000", "60")
    result = neural_coder.enable(
        write(tmp_path, short),
        features=["fused_optimizer"],
        metric="error=error: ([0-9.e-]+)",
        lower_is_better=True,
        budget=120,
    )
    accuracy = only(result)["accuracy"]
    assert "error" in accuracy["criterion"]
    assert accuracy["baseline_value"] == pytest.approx(accuracy["value"], rel=0.01)


CLASSIFY = """\
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
model.eval()
images = torch.randn(30, 4, 3, 32, 32)
labels = torch.randint(0, 5, (120,))
logits = torch.cat([model(batch) for batch in images])
print("loss:", nn.functional.cross_entropy(logits, labels).item())
"""
METRICS = """\
def top1(names):
    return names["logits"].argmax(-1) == names["labels"]


def forgetful(names):
    return 1.0 if names["logits"].is_contiguous() and names["model"][0].weight.stride()[1] != 1 else None
"""


@pytest.mark.slow
def test_all_of_several_metrics_decide_one_of_which_is_a_function(tmp_path):
    script = write(tmp_path, CLASSIFY)
    file = write(tmp_path, METRICS, "metrics.py")
    before = digest(tmp_path)
    result = neural_coder.enable(
        script,
        features=["channels_last"],
        metric=[f"top1:0.1abs={file}:top1", "loss:lower:2%=loss: ([0-9.]+)"],
        budget=15,
    )
    assert digest(tmp_path) == before
    variant = only(result)
    accuracy = variant["accuracy"]
    assert variant["status"] in MEASURED
    assert accuracy["verified"]
    assert accuracy["kept"]
    top1, loss = accuracy["metrics"]
    assert (top1["criterion"], top1["absolute"], top1["allowed"]) == ("metric top1", True, 0.1)
    assert 0 < top1["baseline_value"] == top1["value"] < 1
    assert top1["loss_low"] <= top1["loss"] == 0 <= top1["loss_high"]
    assert (loss["criterion"], loss["absolute"], loss["loss_high"]) == ("metric loss", False, None)
    assert "Of 2 metrics" in accuracy["reason"]
    assert [metric["function"] for metric in result.data["criterion"]["metrics"]] == ["top1", None]
    assert f"--metric top1:higher:0.1abs={file}:top1" in variant["reproduce"]


@pytest.mark.slow
def test_a_function_that_fails_for_a_variant_leaves_it_unverified(tmp_path):
    """The function fails on what the feature does, so that the original has the metric and the variant has not."""
    write(tmp_path, METRICS, "metrics.py")
    metric = f"forgetful={tmp_path}/metrics.py:forgetful"
    result = neural_coder.enable(write(tmp_path, CLASSIFY), features=["channels_last"], metric=metric, budget=10)
    assert only(result)["status"] == "unverified"
    assert "TypeError: it returned NoneType" in only(result)["reason"]
    assert result.best is None


def test_a_function_that_fails_for_the_original_ends_the_search_with_its_reason(tmp_path):
    write(tmp_path, "def top1(names):\n    return names['answers']\n", "metrics.py")
    with pytest.raises(UserError, match=r"no value for the metric top1: metrics\.py:top1 raised KeyError: 'answers'"):
        neural_coder.enable(
            write(tmp_path, CLASSIFY), features=["channels_last"], metric=f"top1={tmp_path}/metrics.py:top1"
        )


@pytest.mark.slow
def test_wrong_answers_never_win(tmp_path):
    """Weights this large overflow in a lossy variant's scales or lose digits; the tolerance is set to nothing."""
    text = INFER.replace("model.eval()\n", "model.eval()\nwith torch.no_grad():\n    model[5].weight.mul_(50)\n")
    result = neural_coder.enable(write(tmp_path, text), features=["bf16"], accuracy=1e-9, budget=120)
    assert only(result)["status"] == "inaccurate"
    assert result.best is None
    assert result.diff == ""


@pytest.mark.slow
def test_constant_outputs_prove_nothing(tmp_path):
    text = INFER.replace("model.eval()\n", "model.eval()\nfor p in model.parameters():\n    p.data.zero_()\n")
    result = neural_coder.enable(write(tmp_path, text), features=["channels_last"], budget=60)
    assert only(result)["status"] == "unverified"
    assert result.best is None


@pytest.mark.slow
def test_a_variant_that_crashes_stays_in_the_table_with_its_reason(tmp_path):
    text = INFER.replace(
        "print(int(logits", "assert logits.dtype == torch.float32, 'no half measures'\n    print(int(logits"
    )
    result = neural_coder.enable(write(tmp_path, text), features=["bf16"], budget=60)
    variant = only(result)
    assert variant["status"] == "failed"
    assert "no half measures" in variant["reason"]
    assert "no half measures" in repr(result).replace("\n", " ")


@pytest.mark.slow
def test_an_edit_without_effect_is_called_that(tmp_path):
    """The script undoes the feature behind the tool's back."""
    text = INFER.replace(
        "for _ in range(40):\n",
        "def restore():\n    model.to(memory_format=torch.contiguous_format)\n\nrestore()\nfor _ in range(40):\n",
    )
    result = neural_coder.enable(write(tmp_path, text), features=["channels_last"], budget=60)
    assert only(result)["status"] == "no_effect"


def test_a_feature_that_does_not_apply_is_listed_as_skipped_with_its_reason(tmp_path):
    text = "import torch\n\nm = torch.nn.Linear(3, 8)\nm.eval()\nfor _ in range(9):\n    m(torch.rand(2, 3))\n"
    result = neural_coder.enable(write(tmp_path, text), features=["channels_last"], budget=60)
    variant = only(result)
    assert variant["status"] == "skipped"
    assert "channels_last" in variant["reason"]
    assert result.best is None


def test_a_script_that_fails_by_itself_is_shown_its_own_traceback(tmp_path):
    script = write(tmp_path, INFER.replace("for _ in range(40):", "data = {}['missing']\nfor _ in range(40):"))
    with pytest.raises(NothingMeasured) as caught:
        neural_coder.enable(script, features=["channels_last"])
    message = str(caught.value)
    assert "KeyError: 'missing'" in message
    assert str(script) in message
    assert "_worker" not in message


def test_a_script_that_needs_arguments_shows_its_usage(tmp_path):
    parser = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--data', required=True)\np.parse_args()\n"
    with pytest.raises(NothingMeasured, match="usage:"):
        neural_coder.enable(write(tmp_path, parser + INFER), features=["channels_last"])


def test_a_script_that_never_reaches_its_model_says_so(tmp_path):
    script = write(tmp_path, INFER.replace("range(40)", "range(0)"))
    with pytest.raises(NothingMeasured, match="without reaching"):
        neural_coder.enable(script, features=["channels_last"])


def test_a_script_that_takes_too_long_to_reach_its_model_is_stopped(tmp_path):
    script = write(tmp_path, "import time\n" + INFER.replace("for _", "time.sleep(600)\nfor _"))
    started = time.monotonic()
    with pytest.raises(NothingMeasured, match="--timeout"):
        neural_coder.enable(script, features=["channels_last"], timeout=15)
    assert time.monotonic() - started < 120


def test_a_metric_that_matches_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="matches nothing"):
        neural_coder.enable(write(tmp_path, INFER), features=["channels_last"], metric="acc=accuracy=([0-9.]+)")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_tree_is_untouched_and_no_child_is_left_when_the_run_is_ended_by_force(tmp_path, number):
    script = write(tmp_path, "import pathlib\npathlib.Path('out.txt').write_text('x')\n" + TRAIN)
    before = digest(tmp_path)
    mark = f"nc-test-{os.getpid()}-{number}"
    command = [sys.executable, "-m", "neural_coder", "optimize", script.name, "--features", "bf16", "--", mark]
    # Shells start background jobs with SIGINT ignored, and children inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    )
    time.sleep(6)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert digest(tmp_path) == before
    assert process.returncode == (130 if number == signal.SIGINT else -number), stderr
    deadline = time.monotonic() + 20
    while (left := running_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def running_with(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in words:
            found.append(process.parent.name)
    return found


@pytest.mark.slow
def test_real_weights_through_the_command_line(tmp_path):
    """EfficientNet-Lite0 on photographs: table, diff, patch file and JSON agree with each other."""
    patch, report = tmp_path / "winner.patch", tmp_path / "result.json"
    command = [sys.executable, "-m", "neural_coder", "optimize", str(SCRIPTS / "classify_photos.py")]
    command += ["--features", "channels_last", "--budget", "3m", "--output", str(patch), "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    data = json.loads(report.read_text())
    (variant,) = data["variants"]
    assert data["schema"] == 1
    assert variant["accuracy"]["verified"]
    assert set(data) >= {"script", "args", "machine", "versions", "sites", "baseline", "chosen", "confirmed", "diff"}
    assert patch.exists() == bool(data["chosen"])
    assert data["diff"] in done.stdout
