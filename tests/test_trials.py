"""The store of trials: nothing is lost, nothing is counted twice, and what cannot be used is said in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from neural_coder import cache, history, identity, journal
from neural_coder.analysis import Project
from neural_coder.bench.machine import Environment
from neural_coder.bench.protocol import Job, Probe
from neural_coder.engine import Request
from neural_coder.errors import NothingMeasured, UserError
from neural_coder.interpreters import Installed
from neural_coder.race import Clock
from neural_coder.records import (
    Criterion,
    Ending,
    Feature,
    Metric,
    MetricValue,
    Plan,
    Run,
    SiteTiming,
    Span,
)
from neural_coder.trials import Store, job_as_plain, job_from_plain

SCRIPT = """\
import os
def model(x):
    return [x, 2.0 * x]
with open(os.environ["RUNS"], "a") as file:
    file.write("run\\n")
for x in range(10000):
    y = model(x)
"""
PLAN = Plan(features=(Feature(name="batch_size", value="8"),), backend="torch")
DONE = Run(
    ending=Ending(kind="ok", stderr_tail="\udcff"),
    timings=(SiteTiming(site="a", kind="inference", calls=3, warmup=(0.5,), samples=(0.1, float("nan"))),),
    versions={"python": "3.11"},
    metrics=(MetricValue(name="acc", value=float("nan"), samples=(0.5, float("inf")), count=2, problem="\udcff"),),
)
ABOUT = {
    "args": ["--x"],
    "cwd": "/",
    "python": sys.executable,
    "criterion": {"relative_loss": 0.01},
    "machine": {"cores": 2},
    "neural_coder": "0",
}
KNOWN_BY = {"files": "1", "budget": "2"}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    path = tmp_path / "project" / "main.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    return path


def job(script: Path, **settings: object) -> Job:
    probe = Probe(site="main.py:inference:0", kind="inference", call=Span(line=7, column=8, end_line=7, end_column=16))
    defaults = {
        "python": Path(sys.executable),
        "script": script,
        "cwd": script.parent,
        "root": script.parent,
        "probes": {script: (probe,)},
        "purpose": "round",
        "timeout": 60.0,
    }
    return Job(**{**defaults, **settings})


opened: list[Store] = []


@pytest.fixture(autouse=True)
def _close_stores() -> Iterator[None]:
    yield
    while opened:
        opened.pop().close()


def opened_store(file: Path | None = None) -> Store:
    """The store, for the length of one test."""
    opened.append(Store.of_user() if file is None else Store(file))
    return opened[-1]


class Said(list):
    """What was said."""

    def __call__(self, sentence: str) -> None:
        self.append(sentence)


def begin(script: Path, said: Said, *, resume: bool = False, known_by: dict[str, str] = KNOWN_BY) -> journal.Journal:
    clock = Clock(budget=100.0)
    return journal.begin({**ABOUT, "script": str(script)}, known_by, clock, said, resume=resume)


def runs(script: Path) -> int:
    file = Path(os.environ["RUNS"])
    return file.read_text().count("run") if file.exists() else 0


@contextlib.contextmanager
def interrupted(script: Path) -> Iterator[journal.Journal]:
    """A search that is interrupted behind this block."""
    with contextlib.suppress(KeyboardInterrupt), begin(script, Said()) as kept:
        yield kept
        raise KeyboardInterrupt


def leave(script: Path, *jobs: Job) -> list[Run]:
    """A search that is left, as by Ctrl-C, after these runs."""
    with interrupted(script) as kept:
        return [kept.run(each) for each in jobs]


def test_a_run_and_its_settings_come_back_whole(tmp_path):
    store = opened_store(tmp_path / "trials.sqlite")
    search = store.add_search(**ABOUT, script="/a\udcff.py", known_by=KNOWN_BY, folder=tmp_path)
    metrics = (Metric(name="acc", file=tmp_path / "m.py", function="acc"), Metric(name="loss", pattern="(.)"))
    patched = {tmp_path / "main.py": b"\xff\x00"}
    asked = job(tmp_path / "main.py", plan=PLAN, patched=patched, seed=3, metrics=metrics)
    number = store.add_trial(search, "d", 1, asked, DONE, 1.0, 2.5)
    trial, settings, run = store.trial(number)
    assert (trial.variant, trial.purpose, trial.number, trial.used, trial.seed) == ("batch_size=8", "round", 1, 2.5, 3)
    assert settings == asked
    assert repr(run) == repr(DONE)
    assert store.counts() == {search: 1}


def test_settings_that_a_later_version_adds_are_passed_over(tmp_path):
    asked = job(tmp_path / "main.py")
    assert job_from_plain({**job_as_plain(asked), "of_tomorrow": 3}) == asked


def test_a_run_is_never_counted_twice(tmp_path):
    store = opened_store(tmp_path / "trials.sqlite")
    search = store.add_search(**ABOUT, script="a.py", known_by=KNOWN_BY, folder=tmp_path)
    store.add_trial(search, "d", 1, job(tmp_path), DONE, 1.0, 2.0)
    with pytest.raises(sqlite3.IntegrityError):
        store.add_trial(search, "d", 1, job(tmp_path), DONE, 1.0, 2.0)
    assert len(store.trials(search)) == 1


def test_several_searches_write_at_once(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\nfrom test_trials import *\n"
        "store = Store(Path(sys.argv[2]))\n"
        "search = store.add_search(**ABOUT, script='a.py', known_by=KNOWN_BY, folder='x')\n"
        "for n in range(20):\n    store.add_trial(search, 'd', n, job(Path('main.py')), DONE, 1.0, 2.0)\n"
    )
    file = tmp_path / "trials.sqlite"
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(file)]
    children = [subprocess.Popen(command) for _ in range(3)]
    assert [child.wait(120) for child in children] == [0, 0, 0]
    assert sorted(opened_store(file).counts().values()) == [20, 20, 20]


def test_a_store_of_a_newer_version_is_left_alone(script):
    store = opened_store()
    store._connection.execute("PRAGMA user_version = 7")
    store.close()
    with pytest.raises(UserError, match="newer Neural Coder"):
        begin(script, Said(), resume=True)
    said = Said()
    with begin(script, said) as kept:
        assert kept.run(job(script)).ok
    assert "newer Neural Coder" in said[0]
    assert "not kept" in said[0]


@pytest.mark.parametrize("damage", ["foreign", "middle"])
def test_a_damaged_store_is_set_aside_and_said_so(script, damage):
    for _ in range(8):
        leave(script, job(script))
    file = opened_store().file
    data = bytearray(file.read_bytes())
    bad = b"no database" if damage == "foreign" else bytes(data[:4096] + b"\xa5" * 8192 + data[12288:])
    for extra in file.parent.glob("trials.sqlite-*"):
        extra.unlink()
    file.write_bytes(bad)
    said = Said()
    with begin(script, said) as kept:
        assert kept.run(job(script)).ok
    assert sum("damaged" in sentence for sentence in said) == 1
    (aside,) = [path for path in file.parent.glob("*.damaged-*") if not path.name.endswith(("-wal", "-shm"))]
    assert aside.read_bytes() == bad
    assert len(opened_store(file).searches()) == 1


def test_a_search_goes_on_where_the_store_cannot_be_written(script, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "file" / "cache"))
    said = Said()
    with begin(script, said) as kept:
        assert kept.run(job(script)).ok
        folder = kept.folder
    assert "not kept" in said[0]
    assert not folder.exists()


# --- resuming -------------------------------------------------------------------------------------------------------


def test_a_resumed_search_repeats_no_finished_run_and_goes_on_with_its_clock(script):
    first = job(script, purpose="control")
    before = leave(script, first, job(script), job(script))
    assert runs(script) == 3
    said = Said()
    with begin(script, said, resume=True) as kept:
        kept._clock.started -= 50  # Going through it again took some time, which is not counted.
        again = [kept.run(first), kept.run(job(script)), kept.run(job(script))]
        assert repr(again) == repr(before)
        assert kept._clock.used < 40
        assert runs(script) == 3
        kept.run(job(script))
    assert runs(script) == 4
    assert said[0] == "Going on with search 1, of which 3 runs can be told already."
    assert [(trial.purpose, trial.number) for trial in opened_store().trials(1)] == [
        ("control", 1),
        ("round", 1),
        ("round", 2),
        ("round", 3),
    ]


def test_a_run_that_computed_another_metric_is_not_reused(script):
    metrics = (Metric(name="loss", pattern="loss (.)"),)
    leave(script, job(script), job(script, metrics=metrics))
    assert runs(script) == 2
    with begin(script, Said(), resume=True) as kept:
        kept.run(job(script))
        kept.run(job(script, metrics=metrics))
        assert runs(script) == 2
        kept.run(job(script, metrics=(Metric(name="loss", pattern="error (.)"),)))
        assert runs(script) == 3


def test_runs_at_the_same_time_are_known_together_or_made_together(script):
    pair = [job(script, threads=1), job(script, threads=2)]
    with interrupted(script) as kept:
        before = kept.run_together(pair)
    with begin(script, Said(), resume=True) as kept:
        clock = kept.follow(Clock(budget=9.0))
        clock.started -= 100
        assert repr(kept.run_together(pair)) == repr(before)
        assert runs(script) == 2
        assert clock.used > 100  # The clock of a part of the search goes with that of the whole.
        kept.run_together(pair)
    assert runs(script) == 4
    assert [trial.number for trial in opened_store().trials(1)] == [1, 1, 2, 2]


def test_another_patch_is_another_run(script):
    leave(script, job(script))
    with begin(script, Said(), resume=True) as kept:
        kept.run(job(script, patched={script: SCRIPT.replace("2.0", "3.0").encode()}))
    assert runs(script) == 2


def test_captured_outputs_live_until_the_search_is_over(script):
    with interrupted(script) as kept:
        captured = kept.folder / "captured"
        kept.run(job(script, capture_to=captured))
    assert list(captured.iterdir())
    with contextlib.suppress(NothingMeasured), begin(script, Said(), resume=True) as kept:
        assert kept.folder == captured.parent
        compared = kept.run(job(script, compare_with=captured)).comparison
        raise NothingMeasured("over")
    assert compared.relative_error == 0
    assert not captured.parent.exists()
    assert [search.state for search in opened_store().searches()] == ["failed"]


def test_a_search_whose_captured_outputs_are_gone_is_not_resumed(script):
    with interrupted(script) as kept:
        captured = kept.folder / "captured"
        kept.run(job(script, purpose="first", capture_to=captured))
    shutil.rmtree(captured)
    said = Said()
    with begin(script, said, resume=True) as kept:
        assert kept.search == 2
    assert said[0] == "There is no search of this script to go on with; a new one begins."


def test_caches_of_a_run_that_did_not_end_are_made_anew(script):
    def job_of(kept: journal.Journal, name: str) -> Job:
        return job(script, environment={cache.FOLDER_VARIABLE: str(kept.folder / "caches" / name)})

    with interrupted(script) as kept:
        kept.run(job_of(kept, "ended"))
        for name in ("ended", "killed"):
            (kept.folder / "caches" / name).mkdir(parents=True)
    with begin(script, Said(), resume=True) as kept:
        kept.run(job_of(kept, "ended"))
        kept.run(job_of(kept, "ended"))
        kept.run(job_of(kept, "killed"))
        assert [path.name for path in (kept.folder / "caches").iterdir()] == ["ended"]


def test_a_new_search_tells_of_the_one_that_was_left(script):
    leave(script, job(script))
    said = Said()
    with begin(script, said) as kept:
        assert kept.search == 2
    assert said[0] == "Search 1 of this script was left before its end; --resume goes on with it."


def test_a_changed_search_is_not_resumed_and_what_changed_is_said(script):
    leave(script, job(script))
    said = Said()
    with begin(script, said, resume=True, known_by={**KNOWN_BY, "files": "9"}) as kept:
        assert kept.search == 2
    assert said[0] == "Search 1 of this script cannot be resumed, a new one begins; changed: files."


def test_a_search_that_goes_on_elsewhere_is_not_resumed(script):
    with begin(script, Said()), pytest.raises(UserError, match="going on in another process"):
        begin(script, Said(), resume=True)


def test_what_dead_searches_keep_is_removed_after_some_days(script, monkeypatch):
    leave(script, job(script))
    (search,) = opened_store().searches()
    with begin(script, Said()):
        assert search.folder.exists()
    old = time.time() - (journal.KEPT_DAYS + 1) * 86400
    os.utime(search.folder, (old, old))
    with begin(script, Said(), resume=True) as kept:
        assert kept.search != 1
    assert not search.folder.exists()
    states = {each.id: each.state for each in opened_store().searches()}
    assert states[1] == "abandoned"
    assert len(opened_store().trials(1)) == 1


def test_what_dead_searches_keep_is_bounded(script, monkeypatch):
    leave(script, job(script))
    (search,) = opened_store().searches()
    (search.folder / "big").write_bytes(b"x" * 1000)
    monkeypatch.setattr(journal, "MOST_BYTES", 500)
    with begin(script, Said()):
        assert not search.folder.exists()


def known_by(script: Path, **settings: object) -> dict[str, str]:
    request = Request(script=script, cwd=script.parent, python=Path(sys.executable))
    environment = Environment(python=Path(sys.executable), python_version="3", versions={"torch": "2"})
    return identity.known_by(
        replace(request, **settings),
        Project.find(script),
        {"cores": 2},
        Installed(script=environment, others={}),
    )


def test_a_search_is_known_by_all_that_matters_and_by_nothing_else(script):
    (script.parent / "helper.py").write_text("a = 1\n")
    (script.parent / "config.json").write_text("{}")
    script.write_text("import helper\n" + SCRIPT)
    args = ("--config=config.json",)
    (script.parent / "metrics.py").write_text("import rules\n")
    (script.parent / "rules.py").write_text("a = 1\n")
    acc = Metric(name="acc", file=script.parent / "metrics.py", function="acc")
    criterion = Criterion(metrics=(acc,))
    before = known_by(script, args=args, criterion=criterion)
    (script.parent / "notes.txt").write_text("unrelated")
    (script.parent / "other.py").write_text("unrelated")
    assert known_by(script, args=args, criterion=criterion, resume=True) == before

    def differs(**settings: object) -> set[str]:
        after = known_by(script, **{"args": args, "criterion": criterion, **settings})
        return {name for name in after if after[name] != before[name]}

    assert differs(args=(*args, "-v")) == {"args"}
    assert differs(budget=5.0) == {"budget"}
    assert differs(cwd=script.parent.parent) == {"cwd", "files"}
    for other in ({"lower_is_better": True}, {"allowed": 0.02}, {"absolute": True}, {"function": "other"}):
        assert differs(criterion=Criterion(metrics=(replace(acc, **other),))) == {"criterion"}
    assert differs(criterion=Criterion(metrics=(acc, replace(acc, name="more")))) == {"criterion"}
    (script.parent / "rules.py").write_text("a = 2\n")
    assert differs() == {"files"}
    (script.parent / "rules.py").write_text("a = 1\n")
    (script.parent / "helper.py").write_text("a = 2\n")
    assert differs() == {"files"}
    (script.parent / "helper.py").write_text("a = 1\n")
    (script.parent / "config.json").write_text("[]")
    assert differs() == {"files"}


# --- history and reproduction ---------------------------------------------------------------------------------------


def test_history_lists_searches_and_trials_of_a_script(script, neural_coder):
    assert "No search is kept" in neural_coder("history").stdout
    leave(script, job(script, purpose="first"), job(script, plan=PLAN))
    shown = neural_coder("history", script, "--trials").stdout
    assert f"{script} --x  unfinished, 2 trials (1–2)" in shown
    assert "2  round 1  batch_size=8" in shown
    assert "No search is kept" in neural_coder("history", script.parent / "other.py").stdout
    data = json.loads(neural_coder("history", "--json").stdout)
    (search,) = data["searches"]
    assert search["state"] == "unfinished"
    assert [(trial["id"], trial["variant"], trial["ending"]) for trial in search["trials"]] == [
        (1, "", "ok"),
        (2, "batch_size=8", "ok"),
    ]
    with begin(script, Said()):
        (running, _) = json.loads(neural_coder("history", "--json").stdout)["searches"]
    assert running["state"] == "running"


def test_a_trial_is_made_again_with_its_own_patch_from_any_folder(script, neural_coder, monkeypatch, tmp_path):
    monkeypatch.chdir(script.parent)
    changed = SCRIPT.replace("[x, 2.0 * x]", "[x, 2.5 * x]").encode()
    with begin(script, Said()) as kept:
        captured = kept.folder / "captured"
        kept.run(job(script, purpose="first", capture_to=captured))
        kept.run(job(script, plan=PLAN, patched={Path("main.py"): changed}, compare_with=captured))
    monkeypatch.chdir(tmp_path)
    result = neural_coder("reproduce", 2, "--json")
    data = json.loads(result.stdout)
    assert result.exit_code == 0
    assert data["now"]["relative_error"] == data["then"]["relative_error"] == pytest.approx(0.25, rel=0.1)
    assert data["now"]["seconds_per_call"] > 0
    assert runs(script) == 4  # The original once more, for its outputs.
    assert "per call" in neural_coder("reproduce", 1).stdout


def test_a_trials_metrics_are_computed_again(script, neural_coder):
    script.write_text(SCRIPT + "print('loss 3')\n")
    (script.parent / "metrics.py").write_text("def last(names):\n    return names['y']\n")
    last = Metric(name="last", file=script.parent / "metrics.py", function="last")
    metrics = (Metric(name="loss", pattern="loss (.)"), last)
    with begin(script, Said(), known_by=known_by(script, criterion=Criterion(metrics=metrics))) as kept:
        kept.run(job(script, metrics=metrics, to_the_end=True))
    shown = neural_coder("reproduce", 1)
    assert "loss: 3 now, 3 then" in shown.stdout
    assert "last: 1.5e+04 now, 1.5e+04 then" in shown.stdout
    assert "no longer" not in shown.stderr
    (script.parent / "metrics.py").write_text("def last(names):\n    return names['x']\n")
    shown = neural_coder("reproduce", 1)
    assert "last: 9999 now" in shown.stdout
    assert "no longer" in shown.stderr
    (script.parent / "metrics.py").unlink()
    assert "last: nothing now" in neural_coder("reproduce", 1).stdout


def test_printing_the_command_runs_nothing_and_the_command_works(script, neural_coder, tmp_path):
    leave(script, job(script))
    shown = neural_coder("reproduce", 1, "--print").stdout
    assert runs(script) == 1
    assert f"{sys.executable} {script}" in shown
    done = subprocess.run(["sh", "-c", shown], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "trial 1: the original, round 1" in done.stdout
    assert runs(script) == 2


def test_bad_numbers_of_trials_get_one_sentence(script, neural_coder):
    leave(script, job(script))
    for number, said in ((99, "go from 1 to 1"), ("x", "not a valid integer"), (0, "not in the range")):
        result = neural_coder("reproduce", number)
        assert result.exit_code == 2
        assert said in result.stderr
    script.unlink()
    assert "no longer there" in neural_coder("reproduce", 1).stderr


def test_a_trial_that_fails_now_is_not_passed_off_as_repeated(script):
    leave(script, job(script))
    script.write_text("raise ValueError('broken')\n")
    with pytest.raises(NothingMeasured, match="no longer what it was"):
        history.reproduce(1, Said())
