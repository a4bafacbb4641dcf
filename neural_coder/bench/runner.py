"""Run one variant of the user's script in a child process, and read what came of it.

Whatever the script does wrong is a value in the result; nothing of it is left behind.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import neural_coder
from neural_coder.bench.limits import Limits
from neural_coder.bench.machine import usable_cores
from neural_coder.bench.protocol import Job, Meeting
from neural_coder.bench.reading import (
    comparison_from,
    metrics_from,
    observation_from,
    tail_of,
    timing_from,
    witness_from,
)
from neural_coder.bench.shadow import Shadow, remove_leftovers
from neural_coder.records import Ending, MetricValue, Operator, Run

log = logging.getLogger(__name__)

WORKER = Path(neural_coder.__file__).resolve().parent / "_worker" / "worker.py"
MARK = "NEURAL_CODER_RUN"
"""Environment variable that all processes of a run inherit, so that none is left behind."""
LONGEST_FOLDER = 60
"""Characters: sockets that a script makes among its temporary files need short paths."""
TIMED_OUT = "timed out"
SHOWING = 0.3
"""Seconds that a process gets to write its traceback when the time limit has come."""
GRACE = 3.0
"""Seconds between asking processes to end and ending them."""


def run(job: Job) -> Run:
    """Run the script once, as the job says.

    Args:
        job: Which script, patched how, probed where, and when to stop.

    Returns:
        Raw figures and how the process ended. The user's files are as they were, and no process is left.
    """
    return run_together([job])[0]


def run_together(jobs: Sequence[Job]) -> tuple[Run, ...]:
    """Run several processes at the same time; they measure while all of them run.

    Args:
        jobs: One for each process.

    Returns:
        What came of each, in the same order.
    """
    remove_leftovers(_end_marked)
    with contextlib.ExitStack() as stack:
        children: list[_Child] = []
        shadows = [stack.enter_context(Shadow(job.root, job.script, job.patched, job.cwd)) for job in jobs]
        place = shadows[0].folder / "meeting"
        place.mkdir()
        for number, (job, shadow) in enumerate(zip(jobs, shadows, strict=True)):
            meeting = Meeting(folder=place, number=number, count=len(jobs)) if len(jobs) > 1 else None
            children.append(_Child(replace(job, meeting=meeting), shadow))
            stack.callback(children[-1].end)
        for child in children:
            child.start()
        running = children
        while running := [child for child in running if child.goes_on()]:
            _sleep_until_an_end([child.process for child in running], min(child.patience for child in running))
        return tuple(child.read() for child in children)


class _Child:
    """One child process, from its job file to its result."""

    def __init__(self, job: Job, shadow: Shadow) -> None:
        self._job = job
        self._shadow = shadow
        self._folder = shadow.folder
        self._mark = shadow.folder.name
        self._streams = (shadow.folder / "stdout", shadow.folder / "stderr")
        self._process: subprocess.Popen[bytes] | None = None
        self._limits: Limits | None = None
        self._began = self._seconds = 0.0
        self._killed = ""
        self._unusable = ""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Only while it goes on."""
        assert self._process is not None
        return self._process

    # --- before

    def start(self) -> None:
        """Start the process; where that cannot be done, `read` says so."""
        self._write_job()
        self._began = time.perf_counter()
        try:
            with self._streams[0].open("wb") as out, self._streams[1].open("wb") as err:
                self._process = self._start(out, err)
            self._limits = Limits(self._process.pid, self._folder, self._streams)
        except OSError as error:
            self._unusable = f"{self._job.python} could not be started: {error.strerror}."

    def _write_job(self) -> None:
        job, shadow = self._job, self._shadow
        (self._folder / "tmp").mkdir()
        (self._folder / "support").mkdir()
        (self._folder / "support" / "neural_coder").symlink_to(WORKER.parent.parent, target_is_directory=True)
        text = json.dumps(
            {
                "parent": os.getpid(),
                "folder": str(self._folder),
                "support": str(self._folder / "support"),
                "script": str(shadow.script),
                "args": [shadow.argument(arg) for arg in job.args],
                "shadow": str(shadow.root),
                "root": str(job.root.resolve()),
                "writable": [str(folder) for folder in _writable_folders(job.root.resolve())],
                "probes": [
                    {"file": str(shadow.path_of(path)), "site": probe.site, "kind": probe.kind, **asdict(probe.call)}
                    for path, probes in job.probes.items()
                    for probe in probes
                ],
                "seed": job.seed,
                "timeout": job.timeout,
                "to_the_end": job.to_the_end,
                "functions": [
                    {"name": metric.name, "file": str(_present(shadow, metric.file)), "function": metric.function}
                    for metric in job.metrics
                    if metric.file and job.to_the_end
                ],
                "capture_to": str(job.capture_to) if job.capture_to else None,
                "compare_with": str(job.compare_with) if job.compare_with else None,
                "sampling": asdict(job.sampling),
                "observe": job.observe,
                "marks": [
                    {"file": str(shadow.path_of(path)), "site": mark.site, **asdict(mark.statement)}
                    for path, marks in job.marks.items()
                    for mark in marks
                ],
                "rank_operators": job.rank_operators,
                "stop_after": job.stop_after,
                "cores": list(job.cores),
                "meeting": asdict(job.meeting) | {"folder": str(job.meeting.folder)} if job.meeting else None,
                "items": job.items,
            }
        )
        (self._folder / "job.json").write_text(text, encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        threads = str(self._job.threads or usable_cores())
        given = os.environ
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {
            **{name: threads if self._job.threads else given.get(name, threads) for name in names},
            "PYTHONHASHSEED": str(self._job.seed % 2**32),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PWD": str(self._shadow.cwd),
        }
        if len(str(self._folder)) <= LONGEST_FOLDER:
            # Runs are stopped in their midst: what they keep for a while goes with them.
            environment["TMPDIR"] = str(self._folder / "tmp")
        return {**given, **environment, **self._job.environment, MARK: self._mark}

    def _start(self, out: BinaryIO, err: BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(self._job.python), str(WORKER), str(self._folder / "job.json")],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=self._shadow.cwd,
            env=self._environment(),
            start_new_session=True,
        )

    # --- during

    @property
    def patience(self) -> float:
        """Seconds until somebody should look again."""
        pause = self._limits.pause if self._limits else 0.0
        return min(pause, max(self._began + self._job.timeout - time.perf_counter(), 0.01))

    def goes_on(self) -> bool:
        """Whether the process still runs; one that is out of time or writes without end is ended."""
        if self._process is not None and self._limits is not None and self._process.poll() is None:
            if time.perf_counter() >= self._began + self._job.timeout:
                _show_where(self._process)
                self._killed = TIMED_OUT
            else:
                self._killed = self._limits.broken()
            if not self._killed:
                return True
        self.end()
        return False

    def end(self) -> None:
        """End the process and all that it has started; those that measure with it need not wait for it."""
        if self._process is not None and not self._seconds:
            _end_group(self._process, self._mark)
            self._seconds = time.perf_counter() - self._began
        if meeting := self._job.meeting:
            for mark in ("ready", "enough"):
                (meeting.folder / f"{mark}-{meeting.number}").touch()

    # --- after

    def read(self) -> Run:
        """What has come of the process, once it has ended."""
        if self._process is None:
            return Run(ending=Ending(kind="unusable", message=self._unusable))
        result = self._result()
        seconds = self._seconds
        ending = self._ending(result, self._process.returncode, self._killed)
        if result is None:
            return Run(ending=ending, wall_seconds=seconds)
        return Run(
            ending=ending,
            timings=tuple(timing_from(entry) for entry in result["timings"]),
            losses=tuple(result["losses"]),
            comparison=comparison_from(result["comparison"]),
            witness=witness_from(result["witness"]),
            metrics=self._metrics(result["metrics"]),
            ended_by_itself=result["ended"] == "end",
            wall_seconds=seconds,
            loop_seconds=result["loop_seconds"],
            model_seconds=result["model_seconds"],
            peak_memory_bytes=result["peak_memory_bytes"],
            disturbed=result["disturbed"],
            stolen=result["stolen"],
            versions=result["versions"],
            observed=observation_from(result["observed"]),
            cores=tuple(result["cores"]),
            threads=result["threads"],
            operators=tuple(Operator(**entry) for entry in result["operators"]),
        )

    def _result(self) -> dict[str, Any] | None:
        try:
            result: dict[str, Any] = json.loads((self._folder / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return result

    def _ending(self, result: dict[str, Any] | None, code: int, killed: str) -> Ending:
        tail = tail_of(self._folder / "stderr", self._shadow, WORKER.parent)
        if result is None:
            return _ending_without_result(self._job, code, killed, (self._folder / "reached").exists(), tail)
        if result["wrong_probe"]:
            message = f"A probe of Neural Coder has no call at its place ({result['wrong_probe']}); please report this."
            return Ending(kind="no_result", code=result["code"], message=message, stderr_tail=tail)
        if result["ended"] == "error" and result.get("missing_module") == "torch":
            message = f"PyTorch is not installed in {self._job.python}."
            return Ending(kind="unusable", code=1, message=message, stderr_tail=tail)
        if result["ended"] in ("error", "exit"):
            message = result.get("message") or f"The script exited with status {result['code']}."
            return Ending(kind="crashed", code=result["code"], message=message, stderr_tail=tail)
        message = " ".join(result["notes"])
        if self._job.stop_after is not None or self._job.rank_operators:
            return Ending(kind="ok", code=0, message=message, stderr_tail=tail)
        if not any(timing["samples"] for timing in result["timings"]):
            message = message if self._job.items else _why_no_samples(result, message)
            return Ending(kind="no_calls", code=0, message=message, stderr_tail=tail)
        return Ending(kind="ok", code=0, message=message, stderr_tail=tail)

    def _metrics(self, answers: Sequence[Mapping[str, Any]]) -> tuple[MetricValue, ...]:
        metrics = self._job.metrics
        has_patterns = any(metric.pattern for metric in metrics)
        stdout = self._folder / "stdout"
        return metrics_from(metrics, answers, stdout.read_text("utf-8", "replace") if has_patterns else "")


def _why_no_samples(result: dict[str, Any], note: str) -> str:
    reached = sum(timing["calls"] for timing in result["timings"])
    if not reached:
        return f"The script ran to its end, but came to no probed call. {note}".strip()
    return f"The script ran to its end with {reached} probed call(s), too few for a figure. {note}".strip()


def _ending_without_result(job: Job, code: int, killed: str, reached: bool, tail: str) -> Ending:
    if killed == TIMED_OUT:
        where = "while model calls were being measured" if reached else "before any model call was reached"
        message = f"The time limit of {job.timeout:.0f} s came {where}."
        return Ending(kind="timed_out", code=code, message=message, stderr_tail=tail)
    if killed:
        return Ending(kind="no_result", code=code, message=killed, stderr_tail=tail)
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        hint = " (often: out of memory)" if -code == signal.SIGKILL else ""
        message = f"The process was ended by {name}{hint} and left no result."
    else:
        message = f"The process vanished with exit status {code} and left no result."
    return Ending(kind="no_result", code=code, message=message, stderr_tail=tail)


def _present(shadow: Shadow, path: Path) -> Path:
    """A file's place in the mirror, if it is there (what git keeps, say, is not)."""
    mirrored = shadow.path_of(path)
    return mirrored if mirrored.is_file() else path


def _writable_folders(root: Path) -> list[Path]:
    """Folders of a project that its libraries may write to: caches and settings, where it is a home folder."""
    home = Path.home()
    folders = [Path(value) for name, value in os.environ.items() if name in ("TORCHINDUCTOR_CACHE_DIR", "HF_HOME")]
    if home.is_relative_to(root):
        with contextlib.suppress(OSError):
            folders += [entry for entry in home.iterdir() if entry.name.startswith(".") and entry.is_dir()]
    temporary = Path("/tmp" if sys.platform != "darwin" else "/private/tmp")
    if temporary.is_relative_to(root):
        folders.append(temporary)
    return [folder for folder in folders if folder.is_relative_to(root)]


# --- waiting and ending


def _sleep_until_an_end(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Sleep until one of the processes ends or the time is over, without waking up in between."""
    if hasattr(os, "pidfd_open"):
        import select

        handles: list[int] = []
        try:
            handles += [os.pidfd_open(process.pid) for process in processes]
            select.select(handles, [], [], seconds)
        except OSError as error:
            log.debug("No handle of a process can be had here: %s", error)
        else:
            return
        finally:
            for handle in handles:
                os.close(handle)
    with contextlib.suppress(subprocess.TimeoutExpired):
        # Others that run beside it are looked at a little later.
        processes[0].wait(seconds)


def _show_where(process: subprocess.Popen[bytes]) -> None:
    """Let the worker write to its standard error where it is just now."""
    if hasattr(signal, "SIGQUIT") and process.poll() is None:
        process.send_signal(signal.SIGQUIT)
        time.sleep(SHOWING)


def _end_group(process: subprocess.Popen[bytes], mark: str) -> None:
    """End the process and all that it has started, also those that went to a session of their own."""
    _signal_all(process.pid, mark, signal.SIGTERM)
    deadline = time.perf_counter() + GRACE
    while time.perf_counter() < deadline and (process.poll() is None or _marked(mark)):
        time.sleep(0.02)
    _signal_all(process.pid, mark, signal.SIGKILL)
    process.wait()


def _signal_all(group: int, mark: str, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
    for pid in _marked(mark):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _end_marked(mark: str) -> None:
    """End what is left of a run whose parent was killed; its keeper, if it lives, is at it: it must not be killed."""
    deadline = time.perf_counter() + GRACE
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _marked(mark):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        while time.perf_counter() < deadline and _marked(mark):
            time.sleep(0.02)


def _marked(mark: str) -> list[int]:
    """Processes whose environment says that they belong to a run (Linux; elsewhere the group must do)."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found
