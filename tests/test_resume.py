"""A search that is interrupted or killed, again and again: the user's tree stays, no run is lost or made twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest

from neural_coder import cache

pytestmark = [pytest.mark.torch, pytest.mark.slow]

KILLS = int(os.environ.get("NEURAL_CODER_KILLS", "4"))
"""How often a search is killed; `NEURAL_CODER_KILLS=50` takes ten minutes or so."""
SCRIPT = """\
import os
import torch

with open(os.environ["RUNS"], "a") as log:
    log.write("run\\n")
with open("out.txt", "w") as file:
    file.write("of the copy")
class Net(torch.nn.Sequential):
    def forward(self, x):
        for _ in range(10 if torch.is_grad_enabled() else 1):  # a gain that few rounds show, however busy the machine
            y = super().forward(x)
        return y
torch.manual_seed(0)
model = Net(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(3528, 10))
model.eval()
for _ in range(30):
    logits = model(torch.randn(2, 3, 23, 23))
"""


class Searches:
    """Searches of one script, in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / "script.py").write_text(SCRIPT)
        self.mark = f"nc-resume-{os.getpid()}-{folder.name}"
        self.log = folder / "runs"
        self.log.touch()
        self.store = folder / "cache" / "trials.sqlite"
        self.environment = {**os.environ, cache.FOLDER_VARIABLE: str(folder / "cache"), "RUNS": str(self.log)}

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "neural_coder", "optimize", "script.py", "--features", "inference_mode"]
        return subprocess.Popen(
            [*command, "--budget", "3m", "--json", "-", *options, "--", self.mark],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Shells start background jobs with SIGINT ignored, and children inherit that.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    @property
    def runs(self) -> int:
        return self.log.read_text().count("run")

    def trials(self) -> dict[int, tuple[object, ...]]:
        """All trials, by number."""
        if not self.store.exists():
            return {}
        with contextlib.closing(sqlite3.connect(self.store, timeout=30)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            with contextlib.suppress(sqlite3.OperationalError):  # Killed before there were tables.
                return {row[0]: row for row in connection.execute("SELECT * FROM trials").fetchall()}
        return {}

    def states(self) -> list[str]:
        with contextlib.closing(sqlite3.connect(self.store, timeout=30)) as connection:
            return [state for (state,) in connection.execute("SELECT state FROM searches ORDER BY id")]

    def wait_for(self, what: str, process: subprocess.Popen[str]) -> None:
        """Until the script runs once more, or one more trial is kept; or until the search is over."""
        count = {"nothing": lambda: 0, "run": lambda: self.runs, "trial": lambda: len(self.trials())}[what]
        before = count()
        while what != "nothing" and process.poll() is None and count() == before:
            time.sleep(0.05)

    def check_nothing_is_left(self, process: subprocess.Popen[str]) -> None:
        assert {path.name: path.read_text() for path in self.project.iterdir()} == {"script.py": SCRIPT}
        deadline = time.monotonic() + 20
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left
        while (folders := self._folders(process)) and time.monotonic() < deadline:
            time.sleep(0.05)
        # A process that is killed while it makes its folder leaves that to the next one.
        assert len(folders) <= 1

    def _processes(self) -> list[str]:
        found = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if f"RUNS={self.log}".encode() in file.read_bytes().split(b"\0"):
                    found.append((file.parent / "cmdline").read_text())
        return found

    def _folders(self, process: subprocess.Popen[str]) -> list[Path]:
        return list(Path(tempfile.gettempdir()).glob(f"neural-coder-{process.pid}-*"))


def test_ctrl_c_answers_with_what_is_known_and_resume_goes_on(tmp_path):
    searches = Searches(tmp_path)
    process = searches.start()
    deadline = time.monotonic() + 400
    while not any("round" in trial for trial in searches.trials().values()) and time.monotonic() < deadline:
        assert process.poll() is None, "it was over before its first round"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    data = json.loads(out)
    assert data["ended"] == "interrupted"
    assert [variant["id"] for variant in data["variants"]] == ["inference_mode"]
    assert "Interrupted" in err
    assert "--resume goes on with search 1" in " ".join(err.split())
    assert "Search 1 is not at its end" in err
    searches.check_nothing_is_left(process)
    known, runs = searches.trials(), searches.runs
    assert runs - len(known) <= 1

    resumed = searches.start("--resume")
    out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    assert json.loads(out)["ended"] == "complete"
    assert json.loads(out)["search"] == 1
    trials = searches.trials()
    assert searches.runs - runs == len(trials) - len(known)
    assert {number: trials[number] for number in known} == known
    assert searches.states() == ["finished"]
    assert not list((searches.store.parent / "searches").iterdir())


def test_a_search_that_is_killed_at_random_loses_nothing_and_repeats_nothing(tmp_path):
    """`kill -9` whenever it may be; then the same command with `--resume`, to the end."""
    searches, chance = Searches(tmp_path), random.Random()
    known: dict[int, tuple[object, ...]] = {}
    killed, at = 0, []
    for _ in range(KILLS):
        process = searches.start("--resume")
        searches.wait_for(chance.choice(["nothing", "run", "trial"]), process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=chance.uniform(0.0, 3.0))
        killed += process.poll() is None
        process.kill()
        process.communicate()
        searches.check_nothing_is_left(process)
        trials = searches.trials()
        assert {number: trials[number] for number in known} == known
        known = trials
        at.append(len(known))
        assert len(known) <= searches.runs <= len(known) + killed
    process = searches.start("--resume")
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert json.loads(out)["ended"] == "complete"
    trials = searches.trials()
    assert {number: trials[number] for number in known} == known
    assert len(trials) <= searches.runs <= len(trials) + killed
    assert set(searches.states()) == {"finished"}
    print(f"trials known after each kill: {at}")
    print(f"{killed} kills, {len(searches.states())} searches, {len(trials)} trials, {searches.runs} runs begun")
