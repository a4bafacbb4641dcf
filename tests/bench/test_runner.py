"""Whatever a script does, a run ends with a value, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest
from projects import Project

from neural_coder.bench import limits, runner
from neural_coder.bench.protocol import Probe
from neural_coder.bench.reading import last_number
from neural_coder.bench.runner import run
from neural_coder.records import Span

LOOP = """
import sys
def model(x):
    return [x, 2.0 * x]
for x in range(10000):
    y = model(x)
"""


def loop(root: Path, text: str = LOOP) -> Project:
    return Project(root, text).probe("inference", "model(x)")


def leftovers() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"neural-coder-{os.getpid()}-*"))


def processes_with(word: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def waited_for(condition: object, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if callable(condition) and condition():
            return True
        time.sleep(0.05)
    return False


def test_every_sample_comes_with_cpu_time_waiting_time_and_the_speed_of_the_processor(tmp_path: Path) -> None:
    text = LOOP.replace("return [x, 2.0 * x]", "return [x, 2.0 * sum(range(20_000))]")
    (timing,) = run(loop(tmp_path, text).job()).timings
    assert len(timing.samples) == len(timing.cpu) == len(timing.waited) == len(timing.pace) >= 3
    assert all(cpu > 0 for cpu in timing.cpu)
    assert all(1e-6 < pace < 0.1 for pace in timing.pace)
    assert all(waited >= 0 for waited in timing.waited)


def test_samples_made_by_repeating_calls_have_them_too(tmp_path: Path) -> None:
    (timing,) = run(loop(tmp_path, LOOP.replace("10000", "2")).job()).timings
    assert len(timing.samples) == len(timing.cpu) == len(timing.waited) == len(timing.pace) >= 3


def test_calls_are_timed_and_the_loop_is_stopped(tmp_path: Path) -> None:
    result = run(loop(tmp_path).job())
    assert result.ok, result.ending
    (timing,) = result.timings
    assert timing.calls < 10000
    assert 3 <= len(timing.samples) <= 5
    assert not result.ended_by_itself
    assert leftovers() == []


def test_to_the_end_lets_the_script_finish_and_reads_its_metric(tmp_path: Path) -> None:
    text = LOOP + "print('accuracy: 0.5')\nprint('accuracy: 0.75')\n"
    result = run(loop(tmp_path, text).job(to_the_end=True, pattern=r"accuracy: ([\d.]+)"))
    assert result.ok, result.ending
    assert result.ended_by_itself
    assert result.timings[0].calls == 10000
    assert result.metric == 0.75


def test_rubbish_on_both_streams_is_no_result(tmp_path: Path) -> None:
    text = 'import os\nprint(\'{"ended": "end"}\')\nos.write(2, b"\\xff\\x00rubbish\\n")\n' + LOOP
    assert run(loop(tmp_path, text).job()).ok


def test_megabytes_of_output_do_not_block(tmp_path: Path) -> None:
    text = LOOP.replace("    y =", "    print('x' * 1_000_000)\n    y =")
    assert run(loop(tmp_path, text).job()).ok


def test_endless_output_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_LIMIT", 5_000_000)
    result = run(loop(tmp_path, "while True:\n    print('x' * 100_000)\n" + LOOP).job())
    assert result.ending.kind == "no_result"
    assert "output" in result.ending.message


def test_crash_shows_the_users_own_traceback(tmp_path: Path) -> None:
    project = Project(tmp_path, "import helper\nhelper.start(3)\n")
    project.add("helper.py", "def inner(x):\n    raise ValueError('broken')\n\n\ndef start(x):\n    return inner(x)\n")
    project.probe("inference", "inner(x)", file="helper.py")
    result = run(project.job())
    by_hand = subprocess.run([sys.executable, str(project.script)], capture_output=True, text=True, cwd=tmp_path)
    assert result.ending.kind == "crashed"
    assert result.ending.code == 1
    assert result.ending.message == "ValueError: broken"
    assert result.ending.stderr_tail.splitlines() == by_hand.stderr.splitlines()


def test_syntax_error_is_a_crash(tmp_path: Path) -> None:
    project = Project(tmp_path, "x = 1\n")
    project.script.write_text("def f(:\n")
    result = run(project.job())
    assert result.ending.kind == "crashed"
    assert f'File "{project.script}", line 1' in result.ending.stderr_tail


def test_usage_of_a_script_that_needs_arguments_is_kept(tmp_path: Path) -> None:
    text = "import argparse\np = argparse.ArgumentParser()\np.add_argument('data')\np.parse_args()\n" + LOOP
    ending = run(loop(tmp_path, text).job()).ending
    assert (ending.kind, ending.code) == ("crashed", 2)
    assert "usage: main.py" in ending.stderr_tail
    assert run(loop(tmp_path, text).job(args=("some",))).ok


@pytest.mark.parametrize("leave", ["sys.exit()", "sys.exit(0)", "raise SystemExit"])
def test_good_exit_is_a_good_end(tmp_path: Path, leave: str) -> None:
    result = run(loop(tmp_path, LOOP.replace("10000", "2") + leave + "\n").job())
    assert result.ok, result.ending
    assert result.ended_by_itself
    assert result.timings[0].calls == 2
    assert len(result.timings[0].samples) >= 3


@pytest.mark.parametrize(("leave", "code"), [("sys.exit(3)", 3), ("sys.exit('no data')", 1)])
def test_bad_exit_is_a_crash(tmp_path: Path, leave: str, code: int) -> None:
    ending = run(loop(tmp_path, LOOP.replace("10000", "1") + leave + "\n").job()).ending
    assert (ending.kind, ending.code) == ("crashed", code)


def test_process_that_vanishes_leaves_no_result(tmp_path: Path) -> None:
    ending = run(loop(tmp_path, LOOP.replace("10000", "1") + "import os; os._exit(7)\n").job()).ending
    assert (ending.kind, ending.code) == ("no_result", 7)
    ending = run(loop(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n" + LOOP).job()).ending
    assert (ending.kind, ending.code) == ("no_result", -9)
    assert "SIGKILL" in ending.message


def test_hanging_script_is_ended_and_says_where(tmp_path: Path) -> None:
    text = "import time, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    text += "def stuck():\n    time.sleep(60)\nstuck()\n"
    began = time.monotonic()
    ending = run(loop(tmp_path, text + LOOP).job(timeout=2.0)).ending
    assert time.monotonic() - began < 8
    assert ending.kind == "timed_out"
    assert "before any model call" in ending.message
    assert "in stuck" in ending.stderr_tail


def test_slow_calls_give_what_samples_there_are(tmp_path: Path) -> None:
    text = LOOP.replace("    return", "    import time; time.sleep(0.5)\n    return")
    result = run(loop(tmp_path, text).job(timeout=3.0))
    assert result.ok, result.ending
    assert 1 <= len(result.timings[0].samples) <= 4


def test_script_without_a_probed_call_says_so(tmp_path: Path) -> None:
    ending = run(loop(tmp_path, LOOP.replace("10000", "0")).job()).ending
    assert ending.kind == "no_calls"
    assert "no probed call" in ending.message


def test_probe_without_a_call_is_an_internal_error(tmp_path: Path) -> None:
    project = loop(tmp_path)
    wrong = Probe(site="x", kind="inference", call=Span(line=2, column=0, end_line=2, end_column=3))
    ending = run(project.job(probes={project.script: (wrong,)})).ending
    assert ending.kind == "no_result"
    assert "please report" in ending.message


def test_missing_interpreter_is_unusable(tmp_path: Path) -> None:
    ending = run(loop(tmp_path).job(python=tmp_path / "python")).ending
    assert ending.kind == "unusable"
    assert leftovers() == []


def test_missing_torch_is_named(tmp_path: Path) -> None:
    text = "import sys\nsys.modules['torch'] = None\nimport torch\n" + LOOP
    ending = run(loop(tmp_path, text).job()).ending
    assert ending.kind == "unusable"
    assert "PyTorch is not installed" in ending.message


def test_script_that_deletes_its_working_directory(tmp_path: Path) -> None:
    text = "import os, shutil\nshutil.rmtree(os.getcwd())\n" + LOOP
    project = loop(tmp_path, text)
    project.add("work/file.txt", "x")
    before = project.snapshot()
    assert run(project.job(cwd=tmp_path / "work")).ok
    assert project.snapshot() == before


@pytest.mark.parametrize("how", ["plain", "own_session"])
def test_children_left_behind_are_ended(tmp_path: Path, how: str) -> None:
    word = f"left-behind-{tmp_path.name}-{os.getpid()}"
    text = f"""
import subprocess, sys
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100) # {word}"
subprocess.Popen([sys.executable, "-c", code], start_new_session={how == "own_session"})
"""
    assert run(loop(tmp_path, text + LOOP).job()).ok
    assert waited_for(lambda: not processes_with(word))


def test_forked_children_record_nothing(tmp_path: Path) -> None:
    text = LOOP.replace("10000", "100 if child == 0 else 1").replace("for x", "import os\nchild = os.fork()\nfor x")
    text += "if child:\n    print('status', os.waitpid(child, 0)[1])\nelse:\n"
    result = run(loop(tmp_path, text + "    raise SystemExit(5)\n").job(pattern=r"status (\d+)"))
    assert result.ok, result.ending
    assert result.timings[0].calls == 1
    assert result.metric == 5 << 8  # it ran on to its own exit


def test_threads_are_waited_for(tmp_path: Path) -> None:
    text = """
import threading, time
def model(x):
    return x
def work():
    time.sleep(0.3)
    for x in range(5):
        model(x)
threading.Thread(target=work).start()
"""
    result = run(loop(tmp_path, text).job())
    assert result.ok, result.ending


def test_nested_probes_count_once_for_the_outer(tmp_path: Path) -> None:
    text = """
def inner(x):
    return x
def outer(x):
    return inner(x)
for x in range(100):
    outer(x)
"""
    project = Project(tmp_path, text).probe("inference", "outer(x)").probe("inference", "inner(x)")
    result = run(project.job(to_the_end=True))
    assert [(timing.site, timing.calls) for timing in result.timings] == [("main.py:inference:0", 100)]


def test_exceptions_pass_through_probes(tmp_path: Path) -> None:
    text = """
def model(x):
    if x % 2:
        raise KeyError(x)
    return x
caught = 0
for x in range(20):
    try:
        model(x)
    except KeyError:
        caught += 1
print("caught", caught)
"""
    result = run(loop(tmp_path, text).job(to_the_end=True, pattern=r"caught (\d+)"))
    assert result.metric == 10
    assert result.timings[0].calls == 10


def test_environment_is_that_of_a_script_run_by_hand(tmp_path: Path) -> None:
    checks = """
    import os, sys, __main__
    assert __name__ == "__main__" and __main__.LOOKED_UP, dir(__main__)
    assert sys.argv[1:] == ["--a", "b c"], sys.argv
    assert os.path.basename(__file__) == "main.py" and sys.argv[0] == __file__
    assert sys.path[0] == os.path.dirname(__file__), sys.path
    assert not any(path.endswith("_worker") for path in sys.path)
    assert os.getcwd() == os.path.dirname(__file__)
    assert sys.stdin.read() == ""
    assert not {"context", "values", "capture", "recorder"} & set(sys.modules)
    import values, pickle
    assert values.MINE
    class Thing: pass
    assert type(pickle.loads(pickle.dumps(Thing()))) is Thing
    import inspect
    assert "def model(x)" in inspect.getsource(model)
    """
    text = (
        "LOOKED_UP = True\ndef model(x):\n    return x\n"
        + textwrap.dedent(checks)
        + "for x in range(99):\n    model(x)\n"
    )
    project = loop(tmp_path, text)
    project.add("values.py", "MINE = True\n")
    result = run(project.job(args=("--a", "b c")))
    assert result.ok, result.ending


def test_patch_is_what_runs_and_seeds_are_fixed(tmp_path: Path) -> None:
    text = "import random\n" + LOOP.replace("10000", "5")
    project = loop(tmp_path, text)
    patched = {project.script: (text + "print('figure', random.random(), hash('a'))\n").encode()}
    figures = [
        run(project.job(patched=patched, pattern=r"figure (.*) ", to_the_end=True, seed=seed)).metric
        for seed in (1, 1, 2)
    ]
    assert figures[0] == figures[1] != figures[2]
    assert project.script.read_text() == text


def test_runtime_is_found_by_a_python_that_lacks_it(tmp_path: Path) -> None:
    text = """
import sys
import neural_coder
assert "support" in sys.path[-1]
assert "support" in neural_coder.__file__, neural_coder.__file__
"""
    project = loop(tmp_path, text + LOOP)
    # The real interpreter behind the virtual environment, which knows nothing of its packages.
    bare = Path(sys.base_prefix) / "bin" / "python3"
    result = run(project.job(python=bare))
    assert result.ok, result.ending


def test_losses_and_steps_need_no_torch(tmp_path: Path) -> None:
    text = """
class Loss:
    def __init__(self, value): self.value = value
    def item(self): return self.value
    def backward(self): pass
class Optimizer:
    param_groups = []
    def step(self): pass
optimizer = Optimizer()
def model(x): return Loss(1.0 / (x + 1))
for x in range(1000):
    loss = model(x)
    loss.backward()
    optimizer.step()
"""
    project = Project(tmp_path, text).probe("forward", "model(x)").probe("backward", "loss.backward()")
    project.probe("optimizer_step", "optimizer.step()")
    result = run(project.job())
    assert result.losses[:3] == (1.0, 0.5, pytest.approx(1 / 3))
    assert [timing.kind for timing in result.timings] == ["training"]


def test_steps_end_at_the_backward_where_no_optimizer_is_reached(tmp_path: Path) -> None:
    text = """
class Loss:
    def item(self): return 1.0
    def backward(self): pass
def model(x): return Loss()
for x in range(1000):
    loss = model(x)
    loss.backward()
"""
    project = Project(tmp_path, text).probe("forward", "model(x)").probe("backward", "loss.backward()")
    result = run(project.job())
    assert [timing.site for timing in result.timings] == ["main.py:backward:0"]


def test_outputs_without_torch_are_compared(tmp_path: Path) -> None:
    captured = tmp_path / "captured"
    first = loop(tmp_path / "a")
    run(first.job(capture_to=captured))
    same = run(first.job(compare_with=captured)).comparison
    assert same is not None
    assert (same.same_inputs, same.relative_error, same.exact_agreement, same.degenerate) == (True, 0.0, 1.0, "")
    other = run(loop(tmp_path / "b", LOOP.replace("2.0 * x", "2.2 * x")).job(compare_with=captured)).comparison
    assert other is not None
    assert other.relative_error == pytest.approx(0.1)


def test_metric_is_the_last_match() -> None:
    assert last_number(r"acc=(\S+)", "acc=1 acc=2.5e-1") == 0.25
    assert last_number(r"acc=(\S+)", "acc=high") is None
    assert last_number(r"acc", "acc") is None
    assert last_number(r"loss=(\S+)", "acc=1") is None


PARENT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from projects import Project
from neural_coder.bench.runner import run
project = Project(Path({root!r}), Path({root!r}, "main.py").read_text())
print("started", flush=True)
run(project.job())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_ended_parent_leaves_no_process_and_an_untouched_tree(tmp_path: Path, number: signal.Signals) -> None:
    word = f"endless-{tmp_path.name}-{os.getpid()}"
    text = f"import time\nopen('out.txt', 'w').write('x')\nwhile True:\n    time.sleep(0.1)  # {word}\n"
    root = tmp_path / word
    project = Project(root, text)
    before = project.snapshot()
    code = PARENT.format(tests=str(Path(__file__).parent), root=str(root))
    # Shells start background jobs with SIGINT ignored, and children inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=heed
    )
    folders = lambda: list(Path(tempfile.gettempdir()).glob(f"neural-coder-{parent.pid}-*"))  # noqa: E731
    assert waited_for(lambda: any((folder / "project" / word / "out.txt").exists() for folder in folders()))
    assert processes_with(f"neural-coder-{parent.pid}-")
    parent.send_signal(number)
    parent.wait(10)
    assert parent.stdout is not None
    parent.stdout.close()
    assert waited_for(lambda: not processes_with(f"neural-coder-{parent.pid}-"))
    after = project.snapshot()
    assert {name: value[0] for name, value in after.items()} == {name: value[0] for name, value in before.items()}
    if number == signal.SIGINT:
        assert folders() == []
    else:
        runner.remove_leftovers()
        assert folders() == []
