"""`analyze` and `patch` on a repo as people have them: notebooks, commands, broken, vendored and ignored files."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from neural_coder.analysis import footprint
from neural_coder.codec import decode
from neural_coder.filework import Desk
from neural_coder.patching import Patch

NETS = """\
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.layer(x)
"""
TRAIN = """\
import torch

from app.nets import Net


def main():
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.ones(1, 3, 8, 8)).sum().backward()
        optimizer.step()


if __name__ == "__main__":
    main()
"""
INFER = """\
import torch

from app.nets import Net

net = Net().eval()
with torch.no_grad():
    print(net(torch.ones(1, 3, 8, 8)))
"""
FAULTY = """\
import os, signal, time
import neural_coder.analysis as analysis

real = analysis.analyze

def analyze(path, project):
    if path.name == "crashes.py":
        raise KeyError("boom")
    if path.name == "dies.py":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.name == "hangs.py":
        print("hanging", file=open(os.environ["HANGING"], "w"))
        time.sleep(600)
    return real(path, project)

analysis.analyze = analyze
"""
"""A `sitecustomize` for the children: our analysis with defects, one for each name of a file."""


def git(repo, *arguments):
    subprocess.run(["git", "-C", str(repo), *arguments], check=True, capture_output=True)


@pytest.fixture
def repo(tmp_path, monkeypatch):
    root = tmp_path / "repo"
    (root / "app").mkdir(parents=True)
    files = {
        "app/__init__.py": "",
        "app/nets.py": NETS,
        "app/train.py": TRAIN,
        "infer.py": INFER,
        "broken.py": "import torch\ndef f(:\n",
        "plain.py": "print('no model here')\n",
        "look.ipynb": '{"cells": []}',
        "pyproject.toml": "[project]\nname = 'app'\n[project.scripts]\napp-train = 'app.train:main'\n",
        ".gitignore": "generated.py\nvenv/\n",
        "generated.py": INFER,
        "venv/lib.py": INFER,
        "third_party/theirs.py": INFER,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "-q")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    (tmp_path / "faulty").mkdir()
    (tmp_path / "faulty" / "sitecustomize.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "faulty"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("HANGING", str(tmp_path / "hanging"))
    return tmp_path / "hanging"


def analyzed(neural_coder, *arguments):
    result = neural_coder("analyze", ".", "--json", "-", *arguments)
    return json.loads(result.stdout), result


def timeless(data):
    """The same data without what differs between any two runs."""
    for file in data["files"]:
        del file["seconds"], file["cached"]
    for key in ("seconds", "analysis_seconds", "jobs", "cached"):
        del data["summary"][key]
    return data


def test_the_json_holds_files_entry_points_problems_and_figures(repo, neural_coder):
    data, result = analyzed(neural_coder)
    assert result.exit_code == 0
    assert [file["path"] for file in data["files"]] == [
        "app/__init__.py", "app/nets.py", "app/train.py", "infer.py", "plain.py",
    ]  # fmt: skip
    assert [(point["kind"], point["path"], point["line"]) for point in data["entry_points"]] == [
        ("console_script", "app/train.py", 6),
        ("main_guard", "app/train.py", 15),
        ("notebook", "look.ipynb", None),
    ]
    (problem,) = data["problems"]
    assert (problem["path"], problem["kind"]) == ("broken.py", "unusable")
    assert "broken.py:2" in problem["message"]
    summary = data["summary"]
    assert (summary["files"], summary["files_with_sites"], summary["problems"], summary["cached"]) == (6, 2, 1, 0)
    assert (summary["models"], summary["inference"], summary["training_steps"]) == (2, 1, 1)
    assert data["root"] == str(repo)


def test_the_number_of_processes_changes_nothing(repo, neural_coder):
    for number in range(20):
        (repo / f"part{number}").mkdir()
        (repo / f"part{number}" / "infer.py").write_text(INFER)
        (repo / f"part{number}" / "broken.py").write_text("def f(:\n")
    one, _ = analyzed(neural_coder, "--jobs", 1, "--no-cache")
    two, _ = analyzed(neural_coder, "--jobs", 2, "--no-cache")
    assert two["summary"]["jobs"] == 2
    assert timeless(one) == timeless(two)


def test_a_second_run_says_the_same_from_what_was_kept(repo, neural_coder):
    first, _ = analyzed(neural_coder)
    second, _ = analyzed(neural_coder)
    assert second["summary"]["cached"] == second["summary"]["files"] == 6
    assert all(file["cached"] for file in second["files"])
    assert timeless(first) == timeless(second)


def test_the_table_names_entry_points_and_counts_files_without_sites(repo, neural_coder):
    shown = neural_coder("analyze", ".").stdout
    assert "app-train" in shown
    assert "look.ipynb" in shown
    assert "plain.py" not in shown
    assert "6 files" in shown
    assert "2 files with sites" in shown


def test_the_table_of_a_big_repo_has_one_line_for_each_file_with_sites(repo, neural_coder):
    for number in range(60):
        (repo / f"infer{number}.py").write_text("import torch\nnet = torch.nn.Linear(1, 1)\nnet(torch.ones(1))\n")
        (repo / f"plain{number}.py").write_text("print()\n")
    shown = neural_coder("analyze", ".").stdout
    assert len(shown.splitlines()) < 70
    assert "more files; --json lists all" in shown


def test_a_file_that_is_named_is_worked_on_even_when_git_ignores_it(repo, neural_coder):
    assert "net" in neural_coder("analyze", "generated.py").stdout
    assert "net" in neural_coder("analyze", "third_party/theirs.py").stdout
    assert "net" in neural_coder("analyze", "venv").stdout


def test_a_notebook_that_is_named_is_listed_and_not_parsed(repo, neural_coder):
    result = neural_coder("analyze", "look.ipynb")
    assert result.exit_code == 0
    assert "notebook" in result.stdout
    assert neural_coder("patch", "look.ipynb", "--feature", "bf16").exit_code == 2


@pytest.mark.parametrize("command", [["analyze"], ["patch", "--feature", "channels_last"]])
@pytest.mark.parametrize(("name", "said"), [("crashes.py", "KeyError: 'boom'"), ("dies.py", "SIGSEGV")])
def test_a_defect_of_ours_in_one_file_is_reported_and_stops_nothing(repo, neural_coder, faulty, command, name, said):
    (repo / name).write_text(INFER)
    result = neural_coder(*command, ".")
    assert result.exit_code == 70
    complaint = next(line for line in result.stderr.splitlines() if name in line)
    assert said in complaint
    assert "defect of Neural Coder" in complaint
    assert "infer.py" in result.stdout
    # It is tried again: the next version may have mended it.
    assert name in neural_coder(*command, ".").stderr


def test_the_json_holds_the_traceback_of_a_defect(repo, neural_coder, faulty):
    (repo / "crashes.py").write_text(INFER)
    data, _ = analyzed(neural_coder)
    (traceback,) = [problem["traceback"] for problem in data["problems"] if problem["kind"] == "crash"]
    assert "boom" in traceback.splitlines()[-1]


@pytest.mark.parametrize("command", [["analyze"], ["patch", "--feature", "channels_last"]])
def test_a_file_that_hangs_is_given_up(repo, neural_coder, faulty, command):
    (repo / "hangs.py").write_text(INFER)
    result = neural_coder(*command, ".", "--file-timeout", "2s")
    complaint = next(line for line in result.stderr.splitlines() if "hangs.py" in line)
    assert "given up" in complaint
    assert "2 s" in complaint
    assert "infer.py" in result.stdout


def test_ctrl_c_ends_all_children_at_once_and_keeps_what_was_found(repo, neural_coder, faulty, tmp_path):
    (repo / "zzz").mkdir()
    (repo / "zzz" / "hangs.py").write_text(INFER)
    command = [sys.executable, "-m", "neural_coder", "analyze", ".", "--jobs", "2"]
    before = set(Path(repo).rglob("*"))
    # Whoever runs the tests in the background has them ignore interrupts, and children inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heed
    )
    deadline = time.monotonic() + 60
    while not faulty.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    started = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert child.returncode == 130
    assert stderr.decode().strip().endswith("interrupted; your files are unchanged.")
    assert "Traceback" not in stderr.decode()
    assert set(Path(repo).rglob("*")) == before
    assert not [pid for pid in children_of_ours() if "hangs" in pid]
    (repo / "zzz" / "hangs.py").unlink()
    data, _ = analyzed(neural_coder)
    assert data["summary"]["cached"] >= 1


def test_a_terminal_shows_how_far_the_work_is(repo):
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "neural_coder", "analyze", "."]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=end, env={**os.environ, "TERM": "xterm"}) as child:
        os.close(end)
        shown = b""
        # Reading from a terminal whose other end is closed is an error on Linux.
        with contextlib.suppress(OSError):
            while piece := os.read(terminal, 4096):
                shown += piece
    os.close(terminal)
    assert child.returncode == 0
    assert b"6/6" in shown


def test_nothing_is_shown_where_there_is_no_terminal(repo, neural_coder):
    (repo / "broken.py").unlink()
    assert neural_coder("analyze", ".").stderr == ""


def test_many_problems_do_not_flood_the_screen(repo, neural_coder):
    for number in range(30):
        (repo / f"broken{number}.py").write_text("def f(:\n")
    result = neural_coder("analyze", ".")
    assert result.stderr.count("invalid syntax") == 20
    assert "11 more of this kind" in result.stderr


def children_of_ours():
    """Command lines of processes that serve requests for a parent that is gone."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if "filework" in line and parent == "1":
            found.append(line)
    return found


def test_patch_uses_what_analyze_kept_and_gives_the_same_diff(repo, neural_coder):
    fresh = neural_coder("patch", ".", "--feature", "inference_mode", "--no-cache")
    analyzed(neural_coder)
    known = neural_coder("patch", ".", "--feature", "inference_mode")
    assert "torch.inference_mode()" in fresh.stdout
    assert known.stdout == fresh.stdout
    assert known.stderr == fresh.stderr
    assert known.exit_code == fresh.exit_code == 2


def test_patch_in_two_processes_writes_what_one_process_writes(repo, neural_coder):
    for number in range(20):
        (repo / f"infer{number}.py").write_text(INFER)
    one = neural_coder("patch", ".", "--feature", "inference_mode", "--jobs", 1)
    two = neural_coder("patch", ".", "--feature", "inference_mode", "--jobs", 2)
    assert one.stdout == two.stdout
    assert one.stdout.count("+with torch.inference_mode():") == 21


@pytest.mark.parametrize("changed", [False, True])
def test_patch_does_not_trust_facts_about_a_file_that_has_changed_since(repo, changed):
    """The parent looked, then someone saved the file, then the child got to it."""
    file, desk = repo / "infer.py", Desk()
    request = {"job": "patch", "path": str(file), "root": str(repo), "features": ["inference_mode"]}
    first = desk.answer(request)
    known = {"analysis": first["kept"][0], "digest": footprint.digest(file.read_bytes())}
    if changed:
        file.write_text("# one line more\n" + INFER)
    second = Desk().answer({**request, **known})
    assert ("kept" in second) is changed
    patch = decode(Patch, second["patch"])
    assert patch.after.text == file.read_text().replace("torch.no_grad()", "torch.inference_mode()")


@pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--jobs", "many"], ["--file-timeout", "soon"]])
def test_wrong_options_are_refused(repo, neural_coder, arguments):
    assert neural_coder("analyze", ".", *arguments).exit_code == 2
