"""The command line as a person meets it: output, exit codes, and what happens on bad input."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from neural_coder import repo
from neural_coder.errors import UserError
from neural_coder.progress import progress
from neural_coder.report import text

MODEL = """\
import torch

model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten())
model.eval()
print(model(torch.rand(1, 3, 8, 8)).shape)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "infer.py"
    path.write_text(MODEL)
    return path


def child(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, **options)


def test_help_imports_neither_torch_nor_libcst():
    code = (
        "import sys\nfrom neural_coder.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'libcst', 'jedi', 'black', 'rich', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    done = child("-c", code)
    assert done.returncode == 0, done.stderr
    assert "optimize" in done.stdout


def test_importing_the_package_and_its_runtime_loads_nothing_heavy():
    code = (
        "import sys, neural_coder, neural_coder.runtime\n"
        "heavy = {'torch', 'libcst', 'jedi', 'black', 'rich', 'click'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    assert child("-c", code).returncode == 0


def test_whole_sentences_stay_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress() as say:
        say("a step")
        say("Something to know [for] later.")
    assert "Something to know [for] later.\n" in capsys.readouterr().err


def test_public_names_are_those_in_all():
    import neural_coder

    for name in neural_coder.__all__:
        assert getattr(neural_coder, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        neural_coder.no_such_name  # noqa: B018


def test_analyze_prints_a_table_that_names_the_model(script, neural_coder):
    result = neural_coder("analyze", script)
    assert result.exit_code == 0
    assert "model" in result.stdout
    assert "infer.py" in result.stdout


def test_analyze_writes_the_documented_json(script, neural_coder):
    result = neural_coder("analyze", script, "--json", "-")
    data = json.loads(result.stdout)
    assert data["schema"] == 1
    (file,) = data["files"]
    assert file["path"] == "infer.py"
    assert [model["line"] for model in file["models"]] == [3]
    assert [call["line"] for call in file["inference"]] == [5]
    assert file["training"] == []
    assert set(file) >= {"path", "models", "inference", "training", "dataloaders", "unclear"}


@pytest.mark.torch
def test_a_pipe_is_written_to_and_stays_a_pipe(script, neural_coder, tmp_path):
    """As root, replacing it as a file is replaced would destroy `/dev/null`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert neural_coder("analyze", script, "--json", pipe).exit_code == 0
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert os.read(reader, 1) == b"{"
    finally:
        os.close(reader)


def test_analyze_with_a_run_shows_what_the_code_does_not_and_leaves_the_tree_as_it_is(script, neural_coder):
    script.write_text(
        "import sys, torch\nopen('out.txt', 'w').write('x')\nscope = {'torch': torch, 'width': int(sys.argv[1])}\n"
        "exec('net = torch.nn.Linear(width, 2)', scope)\nexec('y = net(torch.ones(1, width))', scope)\n"
    )
    result = neural_coder("analyze", script, "--run", "--json", "-", "--", "3")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert [(item["kind"], item["line"], item["name"]) for item in data["observed"]["added"]] == [
        ("model", 4, "Linear"),
        ("inference", 5, "Linear"),
    ]
    assert data["observed"]["calls"][0]["modes"][0]["signatures"] == ["float32[1, 3]"]
    assert [path.name for path in script.parent.iterdir()] == [script.name]
    shown = " ".join(text.analysis_text(data).split())
    assert "observed 100 %" in shown
    assert "Models by time" in shown
    assert "Only the run shows infer.py:5: inference, Linear, through <string>:1 <module>." in shown


def test_analyze_with_a_run_of_a_script_that_fails_says_so(script, neural_coder):
    script.write_text("import torch_of_nobody\n")
    result = neural_coder("analyze", script, "--run")
    assert result.exit_code == 3
    assert "No module named 'torch_of_nobody'" in result.stderr


def test_analyze_has_limits_only_for_runs(script, neural_coder):
    result = neural_coder("analyze", script, "--budget", "5s")
    assert result.exit_code == 2
    assert "--run" in result.stderr


def test_patch_prints_a_diff_that_git_applies_and_reverts(script, neural_coder):
    result = neural_coder("patch", script, "--feature", "channels-last")
    assert result.exit_code == 0
    assert script.read_text() == MODEL
    (script.parent / "change.patch").write_text(result.stdout)
    subprocess.run(["git", "apply", "change.patch"], cwd=script.parent, check=True)
    assert "channels_last" in script.read_text()
    subprocess.run(["git", "apply", "-R", "change.patch"], cwd=script.parent, check=True)
    assert script.read_text() == MODEL


def test_a_script_that_trains_and_evaluates_gets_every_feature_that_was_asked_for(script, neural_coder):
    script.write_text(
        "import torch\n\nnet = torch.nn.Linear(3, 1)\noptimizer = torch.optim.SGD(net.parameters(), lr=0.1)\n"
        "for _ in range(3):\n    loss = net(torch.ones(2, 3)).sum()\n    optimizer.zero_grad()\n    loss.backward()\n"
        "    optimizer.step()\nnet.eval()\nwith torch.no_grad():\n    print(net(torch.ones(2, 3)))\n"
    )
    result = neural_coder("patch", script, "--feature", "fused_optimizer", "--feature", "inference_mode")
    assert "fused=True" in result.stdout
    assert "+with torch.inference_mode():" in result.stdout


def test_patch_write_changes_the_file_and_a_second_time_nothing(script, neural_coder):
    assert neural_coder("patch", script, "--feature", "channels_last", "--write").exit_code == 0
    changed = script.read_text()
    assert changed != MODEL
    again = neural_coder("patch", script, "--feature", "channels_last", "--write")
    assert again.exit_code == 0
    assert "Nothing to change" in again.stderr
    assert script.read_text() == changed


def test_patch_check_exits_with_one_when_something_would_change(script, neural_coder):
    assert neural_coder("patch", script, "--feature", "channels_last", "--check").exit_code == 1
    assert script.read_text() == MODEL
    neural_coder("patch", script, "--feature", "channels_last", "--write")
    assert neural_coder("patch", script, "--feature", "channels_last", "--check").exit_code == 0


def test_patch_of_a_folder_goes_on_after_a_file_with_a_syntax_error(script, neural_coder):
    (script.parent / "broken.py").write_text("def f(:\n")
    result = neural_coder("patch", script.parent, "--feature", "channels_last")
    assert "infer.py" in result.stdout
    assert "broken.py:1" in result.stderr
    assert result.exit_code == 2


def test_patch_leaves_ignored_and_vendored_files_out(script, neural_coder):
    subprocess.run(["git", "init", "-q"], cwd=script.parent, check=True)
    (script.parent / ".gitignore").write_text("generated.py\n")
    (script.parent / "generated.py").write_text(MODEL)
    (script.parent / "third_party").mkdir()
    (script.parent / "third_party" / "theirs.py").write_text(MODEL)
    result = neural_coder("patch", script.parent, "--feature", "channels_last")
    assert "infer.py" in result.stdout
    assert "generated.py" not in result.stdout
    assert "theirs.py" not in result.stdout


def test_patch_writes_all_files_or_none(script, neural_coder, monkeypatch):
    """A disk that fills up at the second file: the first one gets its old bytes back."""
    other = script.parent / "other.py"
    other.write_text(MODEL)
    write = repo.write_bytes_atomically

    def full_disk(path, data):
        if path == other:
            raise UserError(f"{path} cannot be written: No space left on device.")
        write(path, data)

    monkeypatch.setattr(repo, "write_bytes_atomically", full_disk)
    result = neural_coder("patch", script, other, "--feature", "channels_last", "--write")
    assert result.exit_code == 2
    assert "No space left" in result.stderr
    assert script.read_text() == MODEL


def test_features_lists_every_feature_with_its_risk(neural_coder):
    result = neural_coder("features")
    for name in ("bf16", "channels_last", "compile", "int8_dynamic", "cuda_to_cpu"):
        assert name in result.stdout


@pytest.mark.parametrize("name", ["bf16", "channels-last", "int8_dynamic", "batch_size"])
def test_explain_says_what_a_feature_does_and_where_that_is_documented(neural_coder, name):
    result = neural_coder("explain", name)
    assert result.exit_code == 0
    assert "Source:" in result.stdout
    assert "Risk:" in result.stdout


def test_doctor_reports_torch_and_engines(neural_coder):
    result = neural_coder("doctor", "--json")
    data = json.loads(result.stdout)
    names = [engine["name"] for engine in data["engines"]]
    assert {"torch", "inductor", "onnxruntime", "openvino", "ipex"} <= set(names)
    assert all(engine["usable"] or engine["reason"] for engine in data["engines"])
    assert data["kernels"]["bf16"] > 0
    assert data["kernels"]["int8"] or data["kernels"]["reason"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["optimize", "missing.py"], "missing.py: no such file"),
        (["analyze", "missing.py"], "missing.py: no such file"),
        (["optimize", "."], "is a folder"),
        (["optimize", "notes.txt"], "not a Python"),
        (["optimize", "broken.py"], "broken.py:2:"),
        (["analyze", "broken.py"], "broken.py:2:"),
        (["optimize", "plain.py"], "No PyTorch model found"),
        (["optimize", "infer.py", "--features", "chanels_last"], "channels_last"),
        (["patch", "infer.py", "--feature", "bf61"], "bf16"),
        (["patch", "infer.py", "--feature", "bf16", "--feature", "bf16_weights"], "exclude"),
        (["explain", "compil"], "compile"),
        (["optimize", "infer.py", "--budget", "soon"], "soon"),
        (["optimize", "infer.py", "--mode", "fast"], "there are latency, throughput, multi-instance"),
        (["optimize", "infer.py", "--batch-size", "1,many"], "such as 1,8,32"),
        (["optimize", "infer.py", "--instances", "100000"], "may use"),
        (["optimize", "infer.py", "--mode", "latency", "--instances", "2"], "use --mode multi-instance"),
        (["optimize", "infer.py", "--accuracy", "high"], "high"),
        (["optimize", "infer.py", "--metric", "acc=("], "no regular expression"),
        (["optimize", "infer.py", "--metric", "acc=none.py:acc"], "none.py: no such file"),
        (["optimize", "infer.py", "--metric", "acc=infer.py:accuracy"], "infer.py does not define"),
        (["optimize", "infer.py", "--metric", "acc=broken.py:f"], "broken.py:2"),
        (["optimize", "infer.py", "--metric", "a=a(.)", "--metric", "a=b(.)"], "Two metrics are called a"),
        (["optimize", "infer.py", "--accuracy", "0.5abs"], "in the unit of a metric"),
        (["optimize", "infer.py", "--output", "no/such/folder.patch"], "does not exist"),
        (["optimize", "infer.py", "--json", "no/such/folder.json"], "does not exist"),
        (["optimize", "infer.py", "--python", "/no/such/python"], "/no/such/python"),
        (["optimize", "infer.py", "--epochs", "3"], "behind `--`"),
        (["patch", "infer.py", "--feature", "bf16", "--write", "--check"], "exclude each other"),
    ],
)
def test_bad_input_gets_one_clear_sentence_and_exit_code_two(script, neural_coder, arguments, said):
    (script.parent / "notes.txt").write_bytes(b"\xff\xfe\x00binary")
    (script.parent / "broken.py").write_text("import torch\ndef f(:\n    pass\n")
    (script.parent / "plain.py").write_text("print('no model here')\n")
    result = neural_coder(*arguments)
    assert result.exit_code == 2, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert script.read_text() == MODEL


def test_the_projects_metrics_hold_for_searches_alone_and_unless_others_are_given(script, neural_coder):
    table = "[tool.neural_coder]\nmetric = ['a=a (.)', 'b:lower=checks/none.py:b']\n"
    (script.parent / "pyproject.toml").write_text(table)
    result = neural_coder("optimize", script)
    assert result.exit_code == 2
    assert f"{script.parent.resolve()}/checks/none.py: no such file" in result.stderr
    assert "cannot be read: other.py" in neural_coder("optimize", script, "--metric", "a=other.py:a").stderr.replace(
        f"{Path.cwd()}/", ""
    )
    assert neural_coder("analyze", script).exit_code == 0


def test_a_syntax_error_is_shown_with_its_line_and_a_caret(script, neural_coder):
    broken = script.parent / "broken.py"
    broken.write_text("import torch\ndef f(:\n    pass\n")
    stderr = neural_coder("analyze", broken).stderr
    assert "def f(:" in stderr
    assert "^" in stderr


def test_a_python_without_torch_is_told_what_to_install(script, neural_coder, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    result = neural_coder("optimize", script, "--python", python)
    assert result.exit_code == 2
    assert "-m pip install torch" in result.stderr


def test_closing_the_pipe_early_is_no_error(script):
    Path("many").mkdir()
    for number in range(50):
        Path(f"many/infer{number}.py").write_text(MODEL)
    command = f"{sys.executable} -m neural_coder patch many --feature channels_last | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr
