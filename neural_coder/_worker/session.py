"""One run from start to end: prepare the process, run the script as `__main__`, write the result."""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import faulthandler
import importlib.util
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from . import instrument, keeper, load, metrics, replay, resized, together
from .capture import Captures
from .guard import Guard
from .imports import AfterImport
from .observe import Observer
from .recorder import Recorder
from .sensitivity import Sensitivity
from .sites import Sampling
from .witness import WitnessTaker

SHARE_OF_TIME_LIMIT = 0.85
"""After this share of the time limit the samples at hand must do."""


def main(job_file: str) -> None:
    """Run the job; ends the process with the script's own exit status."""
    job: dict[str, Any] = json.loads(Path(job_file).read_text(encoding="utf-8"))
    keeper.stand_between(job["parent"], job["folder"])
    together.bind(job["cores"])
    faulthandler.enable()
    if hasattr(faulthandler, "register"):
        # The parent asks for it at the time limit. (A timer of faulthandler would hang forked children at their end.)
        faulthandler.register(signal.SIGQUIT, all_threads=True, chain=False)
    Session(job).run()


def _library() -> Any:
    """The C library."""
    return ctypes.CDLL(None)


class Session:
    """What a run needs, and the steps that it takes."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.began = time.perf_counter()
        self.process = os.getpid()
        self.folder = Path(job["folder"])
        self.imports = AfterImport()
        self.guard = Guard(job["shadow"], job["root"], job["writable"])
        self.sampling = Sampling(**job["sampling"])
        self.recorder = Recorder(
            job["probes"],
            self.sampling if job["items"] is None else self.sampling.one(),
            seconds=job["timeout"] * SHARE_OF_TIME_LIMIT,
            to_the_end=job["to_the_end"],
        )
        self.meeting = together.Meeting(job["meeting"], job["timeout"] * SHARE_OF_TIME_LIMIT)
        self.captures = Captures(job["capture_to"], job["compare_with"])
        self.sensitivity = Sensitivity(self._stop) if job["rank_operators"] else None
        self.observer = Observer(self.recorder, job["shadow"], job["root"])
        self.witness = WitnessTaker()
        self.peak_memory = 0
        self.before_loop: load.Snapshot | None = None
        self.loop_end: load.Snapshot | None = None
        self.disturbed = False
        self.ask_again = 0.0
        self.wrong_probe = ""
        self.notes: list[str] = []
        self.declined = False
        """What was to be measured cannot be; the notes say why."""
        self.marks: dict[int, int] = {}
        """How often marked statements ran."""
        self.script_began = self.began
        self.names: dict[str, Any] = {}
        """The script's global names."""

    # --- before the script

    def run(self) -> None:
        """Run the script and leave with its exit status."""
        job = self.job
        sys.dont_write_bytecode = True
        self.recorder.stop = self._stop
        self.recorder.reached = self._reached
        if job["items"] is None:
            self._measure_together()
        self.recorder.others_disturb = self._others_disturb
        self.recorder.watcher = self.sensitivity or self.captures
        self._await_imports()
        probes = instrument.by_file(job["probes"])
        marks = instrument.by_file(job["marks"] if job["observe"] else [])
        instrument.install(probes, marks, self.recorder.probe, self._mark, self._probe_not_found)
        self._set_paths()
        sys.addaudithook(self.guard.hook)
        self._seed_generators()
        sys.argv = [job["script"], *job["args"]]
        data = Path(job["script"]).read_bytes()
        try:
            script = job["script"]
            code = instrument.instrument(data, script, probes.get(script, {}), marks.get(script, {}))
        except instrument.ProbeNotFound as error:
            self._probe_not_found(error)
            self._finish({"ended": "error", "code": 1})
            sys.exit(1)
        except SyntaxError as error:
            self._failed(error)
        self._execute(code)

    def _seed_generators(self) -> None:
        """Seed the generators of random numbers that there are, and the others once they are imported."""
        seed = self.job["seed"]
        random.seed(seed)
        self.imports.add("numpy", lambda numpy: numpy.random.seed(seed % 2**32))
        self.imports.add("torch", lambda torch: torch.manual_seed(seed))

    def _await_imports(self) -> None:
        self.witness.await_imports(self.imports)
        self.guard.await_imports(self.imports)
        if self.job["observe"]:
            self.recorder.in_model = lambda: self.observer.inside
            self.imports.add("torch", self.observer.start)
            self.imports.add("torch", lambda _: setattr(self.recorder, "is_compiling", self.observer.is_compiling))
        sys.meta_path.insert(0, self.imports)

    def _set_paths(self) -> None:
        """Make `sys.path` what it is when the script is run by hand, with the shadow in the project's place."""
        here = str(Path(__file__).resolve().parent)
        folder = str(Path(self.job["script"]).parent)
        sys.path[:] = [folder if Path(entry or ".").resolve() == Path(here) else entry for entry in sys.path]
        sys.path[:] = [self.guard.shadow_of(entry) for entry in sys.path]
        for name, module in list(sys.modules.items()):
            if name.startswith("__editable__"):
                _map_editable(module, self.guard)
        if not _runtime_is_installed():
            sys.path.append(self.job["support"])

    def _stop_in_time(self, seconds: float) -> None:
        """Stop the script after a while, wherever it is then."""
        self.observer.deadline = time.perf_counter() + seconds
        self.observer.stop = self._stop
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, lambda *_: self._stop())
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def _mark(self, index: int) -> None:
        self.marks[index] = self.marks.get(index, 0) + 1

    def _probe_not_found(self, error: instrument.ProbeNotFound) -> None:
        self.wrong_probe = str(error)

    # --- the script

    def _execute(self, code: CodeType) -> None:
        module = ModuleType("__main__")
        module.__dict__.update(__file__=self.job["script"], __builtins__=builtins, __cached__=None)
        self.names = module.__dict__
        sys.modules["__main__"] = module
        self.script_began = time.perf_counter()
        if self.job["stop_after"] is not None:
            self._stop_in_time(self.job["stop_after"])
        try:
            exec(code, module.__dict__)
            self._join_threads()
        except SystemExit as leave:
            self._exited(leave)
        except BaseException as error:
            self._failed(error)
        else:
            self._finish({"ended": "end", "code": 0})

    def _join_threads(self) -> None:
        for thread in threading.enumerate():
            while thread is not threading.current_thread() and not thread.daemon and not _is_idle(thread):
                thread.join(timeout=0.05)

    def _exited(self, leave: SystemExit) -> None:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        if code == 0:
            self._join_threads()
        self._finish({"ended": "end" if code == 0 else "exit", "code": code})
        raise leave

    def _failed(self, error: BaseException) -> None:
        missing = getattr(error, "name", "") if isinstance(error, ModuleNotFoundError) else ""
        message = f"{type(error).__name__}: {error}".strip().split("\n")[0][:400]
        self._finish({"ended": "error", "code": 1, "message": message, "missing_module": missing or ""})
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)

    def _reached(self) -> None:
        self.before_loop = load.Snapshot()
        with self.guard.paused():
            (self.folder / "reached").touch()

    def _measure_together(self) -> None:
        self.recorder.begin = self._begin_together
        self.recorder.over = self._over_together

    def _begin_together(self) -> None:
        with self.guard.paused():
            self.meeting.begin()

    def _over_together(self) -> bool:
        with self.guard.paused():
            return self.meeting.over()

    def _others_disturb(self) -> bool:
        """Whether others have used the cores since the first call; asked anew ten times a second at most."""
        if self.before_loop is not None and time.perf_counter() >= self.ask_again:
            with self.guard.paused():
                self.disturbed = self.before_loop.others(load.Snapshot()) > 0
            self.ask_again = time.perf_counter() + 0.1
        return self.disturbed

    # --- after the script, or in its midst

    def _stop(self) -> None:
        """There are enough samples: write the result and leave at once."""
        self._finish({"ended": "stopped", "code": 0})
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()  # type: ignore[union-attr]
        _library().fflush(None)
        os._exit(0)

    def _finish(self, result: dict[str, Any]) -> None:
        if os.getpid() != self.process:
            return  # A forked child came to the end of the script; its parent has the figures.
        if self.job["stop_after"] is not None and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        with self.guard.paused():
            if result["code"] != 0:
                self.meeting.leave()
            self.loop_end = load.Snapshot()
            self.recorder.switch_off()
            self.observer.switch_off()
            result["observed"] = self._observed(time.perf_counter() - self.script_began)
            if result["code"] == 0:
                self._look_closer(result["ended"])
            result["timings"] = [site.as_json() for site in self.recorder.timings()]
            result["losses"] = self.recorder.losses
            result["loop_seconds"] = self.recorder.loop_seconds
            result["model_seconds"] = self.recorder.model_seconds
            result["comparison"] = self.captures.comparison
            result["witness"] = self.witness.record
            result["peak_memory_bytes"] = self.peak_memory or load.peak_memory_bytes()
            result["disturbed"], result["stolen"] = self._unrest()
            result["versions"] = load.versions()
            result.update(together.placement())
            result["operators"] = self.sensitivity.operators if self.sensitivity else []
            result["notes"] = self.notes
            result["wrong_probe"] = self.wrong_probe
            result["metrics"] = metrics.unfinished(self.job["functions"])
            self._write(result)
        if result["ended"] == "end" and not self.declined:
            self._call_functions(result)

    def _write(self, result: dict[str, Any]) -> None:
        with self.guard.paused():
            unfinished = self.folder / "result.json.part"
            unfinished.write_text(json.dumps(result), encoding="utf-8")
            unfinished.replace(self.folder / "result.json")

    def _call_functions(self, result: dict[str, Any]) -> None:
        """Ask the user's metric functions, last: what they do to models and memory changes no figure any more."""
        for index, spec in enumerate(self.job["functions"]):
            # How often calls were made again depends on the clock, and so do random numbers by now.
            self._seed_generators()
            result["metrics"][index] = metrics.measure(spec, self.names)
            self._write(result)

    def _unrest(self) -> tuple[float, float]:
        """Shares of the time of measuring that others, and the hypervisor alone, took the cores from us."""
        if self.before_loop is None or self.loop_end is None:
            return 0.0, 0.0
        return self.before_loop.disturbed(self.loop_end), self.before_loop.stolen(self.loop_end)

    def _observed(self, seconds: float) -> dict[str, Any] | None:
        if not self.job["observe"]:
            return None
        try:
            observed = self.observer.as_json(seconds)
        except Exception as error:
            self.notes.append(f"the observation failed: {type(error).__name__}: {error}")
            return None
        if observed is not None:
            probes, marks = self.job["probes"], self.job["marks"]
            observed["reached"] = {
                **{spec["site"]: self.recorder.came_to.get(index, 0) for index, spec in enumerate(probes)},
                **{spec["site"]: self.marks.get(index, 0) for index, spec in enumerate(marks)},
            }
            observed["reached_within"] = [probes[index]["site"] for index in sorted(self.recorder.came_to_within)]
        return observed

    def _look_closer(self, ended: str) -> None:
        """Fill up samples, compare outputs, take the witness. What fails here must not cost the figures."""
        steps: list[tuple[str, Callable[[], None]]] = (
            [
                ("the look at operators", self.sensitivity.measure),
            ]
            if self.sensitivity
            else [
                ("the replay of calls", lambda: self._fill_up(ended)),
                ("the comparison of outputs", lambda: self.captures.finish(whole=ended == "end")),
                ("the witness", lambda: self.witness.take(self.recorder)),
            ]
        )
        for name, step in steps:
            if self.declined:
                break
            try:
                step()
            except Exception as error:
                self.notes.append(f"{name} failed: {type(error).__name__}: {error}")

    def _fill_up(self, ended: str) -> None:
        left = self.job["timeout"] - (time.perf_counter() - self.began)
        deadline = time.perf_counter() + left / 2
        if self.job["items"] is not None:
            self._measure_resized(self.job["items"], deadline)
        elif ended == "end" or not any(site.kind == "training" for site in self.recorder.timings()):
            # Also where the script was stopped: a call that it makes once is measured in all runs or in none.
            self.notes += replay.fill_up(self.recorder, deadline)
        self.loop_end = load.Snapshot()
        self.meeting.leave()
        self.peak_memory = load.peak_memory_bytes()

    def _measure_resized(self, items: int, deadline: float) -> None:
        self.recorder.sampling = self.sampling
        self._measure_together()
        try:
            self.captures.comparison = resized.measure(self.recorder, items, deadline)
        except resized.Declined as reason:
            self.declined = True
            self.notes = [str(reason)]
            for site in self.recorder.timings():
                site.restart(items)


def _is_idle(thread: threading.Thread) -> bool:
    """Whether a thread has ended, or belongs to a pool and waits for work: only the interpreter's own end ends it."""
    pools = sys.modules.get("concurrent.futures.thread")
    queues = getattr(pools, "_threads_queues", {})
    frame = sys._current_frames().get(thread.ident or 0)
    if thread not in queues or frame is None:
        return not thread.is_alive()
    waits = frame.f_code.co_name == "_worker" and frame.f_code.co_filename == getattr(pools, "__file__", "")
    return waits and bool(queues[thread].empty())


def _runtime_is_installed() -> bool:
    """Whether the script's Python has the package whose runtime patched scripts import."""
    return importlib.util.find_spec("neural_coder") is not None


def _map_editable(module: ModuleType, guard: Guard) -> None:
    """Point the finder of an editable install (setuptools) from the project to its shadow."""
    mapping = getattr(module, "MAPPING", None)
    if isinstance(mapping, dict):
        for name, path in mapping.items():
            mapping[name] = guard.shadow_of(path)
    namespaces = getattr(module, "NAMESPACES", None)
    if isinstance(namespaces, dict):
        for name, paths in namespaces.items():
            namespaces[name] = [guard.shadow_of(path) for path in paths]
