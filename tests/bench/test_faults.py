"""Scripts that take the machine's memory or disk, hide processes or attack their parent: the run ends, nothing else."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import pytest
from projects import Project

from neural_coder._worker import keeper
from neural_coder._worker.guard import Guard
from neural_coder.bench import limits
from neural_coder.bench.runner import run

LOOP = """
def model(x):
    return [x, 2.0 * x]
for x in range(10000):
    y = model(x)
"""
HIDE = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100) # {word}"
        os.execve(sys.executable, [sys.executable, "-c", code], {{}})
    os._exit(0)
time.sleep(0.5)
"""
"""A daemon: a session of its own, no parent, nothing in its environment that tells where it comes from."""


def loop(root: Path, text: str = LOOP) -> Project:
    return Project(root, text).probe("inference", "model(x)")


def processes_with(word: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def gone(word: str, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while processes_with(word):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_script_that_takes_all_memory_is_ended_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total, available = limits.memory()
    # As if the machine were nearly full: half a gigabyte more, and there is less than the reserve.
    monkeypatch.setattr(limits, "MEMORY_RESERVE", (available - 2**28) / total)
    monkeypatch.setattr(limits, "CULPRIT", 2**28 / total)
    # No more than that, if nobody ends it.
    text = "import time\nheld = []\nfor _ in range(64):\n    held.append(bytes(1) * 2**24)\n    time.sleep(0.01)\n"
    text += "time.sleep(20)\n"
    ending = run(loop(tmp_path, text + LOOP).job(timeout=15)).ending
    assert ending.kind == "no_result"
    assert "of memory" in ending.message


def test_memory_that_others_take_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMORY_RESERVE", 1.0)
    assert run(loop(tmp_path, "import time\ntime.sleep(1)\n" + LOOP).job()).ok


def test_the_kernel_ends_the_script_before_us_when_memory_is_over(tmp_path: Path) -> None:
    text = "print('score', open('/proc/self/oom_score_adj').read())\n"
    result = run(loop(tmp_path, text + LOOP.replace("10000", "5")).job(pattern=r"score (\d+)", to_the_end=True))
    assert result.metric == 900


def test_a_script_that_fills_the_disk_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DISK_LIMIT", 50_000_000)
    text = "import time\nfor n in range(300):\n    open(f'{n}.bin', 'wb').write(b'x' * 2**20)\n    time.sleep(0.01)\n"
    ending = run(loop(tmp_path, text + "time.sleep(60)\n" + LOOP).job(timeout=15)).ending
    assert ending.kind == "no_result"
    assert "of files" in ending.message
    assert [path.name for path in tmp_path.iterdir()] == ["main.py"]


def test_what_others_write_meanwhile_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DISK_LIMIT", -(10**15))
    monkeypatch.setattr(limits, "size_of", lambda folder: -(10**15))
    assert run(loop(tmp_path, "import time\ntime.sleep(1.5)\n" + LOOP).job()).ok


def test_temporary_files_of_a_stopped_script_go_with_its_run(tmp_path: Path) -> None:
    text = "import os, tempfile\nname = tempfile.mkdtemp()\nprint('inside', int('neural-coder-' in name))\n"
    before = set(Path(tempfile.gettempdir()).iterdir())
    result = run(loop(tmp_path, text + LOOP).job(pattern=r"inside (\d)"))
    assert result.metric == 1
    left = set(Path(tempfile.gettempdir()).iterdir()) - before
    assert not [path for path in left if path.name.startswith(f"neural-coder-{os.getpid()}-")]


def test_two_hundred_megabytes_of_output_are_read_past(tmp_path: Path) -> None:
    text = LOOP.replace("10000", "10") + "for _ in range(200):\n    print('x' * 1_000_000)\nprint('metric 7')\n"
    result = run(loop(tmp_path, text).job(to_the_end=True, pattern=r"metric (\d)"))
    assert result.ok, result.ending
    assert result.metric == 7


def test_a_hidden_daemon_is_ended_with_its_run(tmp_path: Path) -> None:
    word = f"hidden-{tmp_path.name}-{os.getpid()}"
    result = run(loop(tmp_path, HIDE.format(word=word) + LOOP).job())
    assert result.ok, result.ending
    assert gone(word, 0.5)


def test_a_hidden_daemon_is_ended_when_the_time_is_over(tmp_path: Path) -> None:
    word = f"hidden-{tmp_path.name}-{os.getpid()}"
    text = HIDE.format(word=word) + "signal = __import__('signal')\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    ending = run(loop(tmp_path, text + "time.sleep(60)\n" + LOOP).job(timeout=2)).ending
    assert ending.kind == "timed_out"
    assert gone(word, 0.5)


@pytest.mark.parametrize("target", ["os.getppid()", "-os.getpgid(os.getppid())", "outer"])
def test_signals_to_others_are_refused(tmp_path: Path, target: str) -> None:
    where = {"outer": str(os.getpid())}.get(target, target)
    # Of all signals the one that does no harm where it gets through.
    text = f"import os, signal\nos.kill({where}, signal.SIGURG)\n"
    ending = run(loop(tmp_path, text + LOOP).job()).ending
    assert ending.kind == "crashed"
    assert "own processes only" in ending.message


def test_a_signal_to_everybody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of the guard alone: a real one would end all that runs on this machine if it got through."""
    monkeypatch.setattr(keeper, "_keepers", [os.getppid()])
    guard = Guard("/shadow", "/real", [])
    with pytest.raises(PermissionError, match="own processes only"):
        guard.check_signal(-1, signal.SIGHUP)
    guard.check_signal(-1, 0)
    guard.check_signal(os.getpid(), signal.SIGHUP)


def test_a_script_may_signal_itself_and_its_children(tmp_path: Path) -> None:
    text = """
import os, signal, subprocess, sys
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
os.kill(os.getpid(), signal.SIGUSR1)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
os.kill(os.getppid(), 0)
os.killpg(child.pid, signal.SIGTERM)
print("status", -child.wait() + 100 * len(seen))
"""
    result = run(loop(tmp_path, text + LOOP).job(pattern=r"status (\d+)"))
    assert result.ok, result.ending
    assert result.metric == 100 + signal.SIGTERM


@pytest.mark.parametrize("command", ["kill -9 {parent}", "kill -HUP {parent}", "kill -TERM {parent}", "kill -9 0"])
def test_a_shell_that_kills_the_scripts_parent_ends_the_run_only(tmp_path: Path, command: str) -> None:
    word = f"hidden-{tmp_path.name}-{os.getpid()}"
    text = HIDE.format(word=word)
    text += (
        f"import subprocess\nsubprocess.run(['sh', '-c', {command!r}.format(parent=os.getppid())])\ntime.sleep(60)\n"
    )
    began = time.monotonic()
    ending = run(loop(tmp_path, text + LOOP).job(timeout=40)).ending
    assert ending.kind == "no_result"
    assert time.monotonic() - began < 20
    # Only a keeper that was killed cannot look for those that hide.
    assert gone(word, 2.0) or command == "kill -9 {parent}"
    for pid in processes_with(word):
        os.kill(pid, signal.SIGKILL)


PARENT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from projects import Project
from neural_coder.bench.runner import run
project = Project(Path({root!r}), Path({root!r}, "main.py").read_text()).probe("inference", "model(x)")
print("ended", run(project.job()).ending, flush=True)
"""


def test_the_terminal_is_out_of_a_scripts_reach(tmp_path: Path) -> None:
    text = "import os\ntry:\n    os.open('/dev/tty', os.O_RDWR)\nexcept OSError as error:\n"
    loop(tmp_path, text + "    raise SystemExit(error.errno)\n" + LOOP)
    master, slave = pty.openpty()
    code = PARENT.format(tests=str(Path(__file__).parent), root=str(tmp_path))
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=slave,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    out, _ = parent.communicate(timeout=60)
    os.close(master)
    os.close(slave)
    assert "code=6" in out  # ENXIO: it has no terminal


def test_nothing_outlives_a_killed_parent_and_its_copy_of_the_project_goes(tmp_path: Path) -> None:
    word = f"hidden-{tmp_path.name}-{os.getpid()}"
    project = loop(tmp_path, HIDE.format(word=word) + "open('ready', 'w').close()\ntime.sleep(100)\n" + LOOP)
    before = {name: content for name, (content, _) in project.snapshot().items()}
    code = PARENT.format(tests=str(Path(__file__).parent), root=str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    folders = lambda: list(Path(tempfile.gettempdir()).glob(f"neural-coder-{parent.pid}-*"))  # noqa: E731
    deadline = time.monotonic() + 30
    while not any(list(folder.glob("project/*/ready")) for folder in folders()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert processes_with(word)
    parent.kill()
    parent.wait(10)
    assert gone(word)
    assert gone(f"neural-coder-{parent.pid}-")
    while folders() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert folders() == []
    assert {name: content for name, (content, _) in project.snapshot().items()} == before


def test_what_a_killed_parent_and_keeper_have_left_is_ended_by_the_next_run(tmp_path: Path) -> None:
    gone_parent = subprocess.Popen([sys.executable, "-c", ""])
    gone_parent.wait()
    folder = Path(tempfile.mkdtemp(prefix=f"neural-coder-{gone_parent.pid}-"))
    environment = {**os.environ, "NEURAL_CODER_RUN": folder.name}
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
    try:
        assert run(loop(tmp_path).job()).ok
        assert left.wait(5) == -signal.SIGTERM
        assert not folder.exists()
    finally:
        left.kill()
