"""What the store of trials tells: which searches there were, and how one of their runs is made again."""

from __future__ import annotations

import os
import shlex
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from neural_coder import cache, identity, locks
from neural_coder.analysis import Project
from neural_coder.bench import runner, stats
from neural_coder.bench.protocol import Job
from neural_coder.bench.shadow import PREFIX
from neural_coder.errors import NothingMeasured, UserError
from neural_coder.journal import LOCK
from neural_coder.records import SCHEMA_VERSION, Run
from neural_coder.trials import Search, Store, Trial

Say = Callable[[str], None]


def as_data(script: Path | None = None) -> dict[str, Any]:
    """All searches that are kept, the last one first, each with its trials.

    Args:
        script: Only those of this script.

    Raises:
        UserError: The store cannot be read.
    """
    store = Store.of_user()
    try:
        searches = [_as_dict(search, store.trials(search.id)) for search in store.searches(script)]
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise UserError(f"The store of trials, {store.file}, cannot be read: {error}.") from error
    finally:
        store.close()
    note = [store.note] if store.note else []
    return {"schema": SCHEMA_VERSION, "store": str(store.file), "searches": searches, "notes": note}


def _as_dict(search: Search, trials: list[Trial]) -> dict[str, Any]:
    return {
        "id": search.id,
        "script": str(search.script),
        "args": list(search.args),
        "cwd": str(search.cwd),
        "python": str(search.python),
        "criterion": search.criterion,
        "machine": search.machine,
        "neural_coder": search.neural_coder,
        "began": _moment(search.began),
        "ended": None if search.ended is None else _moment(search.ended),
        "state": "running" if search.state == "open" and _is_held(search) else _STATES[search.state],
        "chosen": search.chosen,
        "conclusion": search.conclusion,
        "trials": [{**asdict(trial), "began": _moment(trial.began)} for trial in trials],
    }


_STATES = {"open": "unfinished", "finished": "finished", "failed": "failed", "abandoned": "abandoned"}


def _is_held(search: Search) -> bool:
    """Whether a process is at a search just now."""
    file = search.folder / LOCK
    if not file.exists():
        return False
    handle = locks.hold(file)
    if handle is None:
        return True
    locks.release(handle)
    return False


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


# --- once more ------------------------------------------------------------------------------------------------------


def find(number: int) -> tuple[Trial, Job, Run]:
    """A trial by its number, with its settings and raw figures.

    Raises:
        UserError: There is none, or it was kept by another version in a form that this one does not know.
    """
    store = Store.of_user()
    try:
        found = store.trial(number)
        last = max((trial.id for search in store.searches() for trial in store.trials(search.id)), default=None)
    except (sqlite3.Error, ValueError, TypeError, LookupError) as error:
        raise UserError(f"Trial {number} was kept in a form that this version cannot read: {error}.") from error
    finally:
        store.close()
    if found is None:
        known = "there is none yet" if last is None else f"they go from 1 to {last}"
        raise UserError(f"There is no trial {number}: {known}; `neural-coder history --trials` lists them.")
    return found


def command(number: int) -> str:
    """The one command that makes a trial again, from any folder, behind comments that say what it is.

    Raises:
        UserError: There is no such trial.
    """
    trial, job, _ = find(number)
    features = ", ".join(map(str, job.plan.features)) if job.plan else ""
    threads = job.threads or "as many as there are cores"
    about = [
        f"trial {number}: {trial.variant or 'the original'}, {trial.purpose} {trial.number}, of {_moment(trial.began)}",
        f"cd {shlex.quote(str(job.cwd))}; {shlex.join([str(job.python), str(job.script), *job.args])}",
        *([f"features: {features}"] if features else []),
        *(f"patched: {path}" for path in job.patched),
        f"seed {job.seed}, threads: {threads}, time limit {job.timeout:.0f} s",
    ]
    chosen = os.environ.get(cache.FOLDER_VARIABLE)
    variable = ["env", f"{cache.FOLDER_VARIABLE}={chosen}"] if chosen else []
    words = shlex.join([*variable, sys.executable, "-m", "neural_coder", "reproduce", str(number)])
    return "\n".join([*(f"# {' '.join(line.split())}" for line in about), words])


def reproduce(number: int, say: Say) -> dict[str, Any]:
    """Make a trial again: the same text, settings, interpreter and seeds, from the store alone.

    What it compared with the original's outputs is compared again: the original runs first, as it did in that search.

    Args:
        number: Of the trial.
        say: Called with a short sentence when something begins.

    Returns:
        The figures of both runs as plain data.

    Raises:
        UserError: There is no such trial, or its script is no longer there.
        NothingMeasured: The run fails now, where it did not then.
    """
    trial, job, before = find(number)
    if not job.script.is_file():
        raise UserError(f"{job.script}, the script of trial {number}, is no longer there.")
    changed = _has_changed(trial, job)
    if changed:
        say(changed)
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as name:
        folder = Path(name)
        job = replace(job, environment=_moved(job, folder), capture_to=_if(job.capture_to, folder / "captured"))
        if job.compare_with is not None:
            say("running the original, for its outputs")
            _capture(trial, folder)
            job = replace(job, compare_with=folder / "captured")
        say(f"running {trial.variant or 'the original'} as in trial {number}")
        after = runner.run(job)
    if before.ok and not after.ok:
        why = f"{changed} " if changed else ""
        raise NothingMeasured(
            f"Trial {number} fails now. {why}{after.ending.message}\n{after.ending.stderr_tail}".rstrip()
        )
    return {
        "schema": SCHEMA_VERSION,
        "trial": number,
        "variant": trial.variant or None,
        "purpose": trial.purpose,
        "number": trial.number,
        "then": _figures(before),
        "now": _figures(after),
    }


def _has_changed(trial: Trial, job: Job) -> str:
    """That the script is no longer what it was, as one sentence; empty when it is."""
    store = Store.of_user()
    try:
        search = store.search(trial.search)
    finally:
        store.close()
    project = Project.find(job.script, job.python)
    files = identity.files(project, job.script, job.args, job.cwd, job.metrics)
    same = search and search.known_by.get(identity.FILES) == files
    return "" if same else f"{job.script} or a file that it uses is no longer what it was in trial {trial.id}."


def _if(wanted: Path | None, path: Path) -> Path | None:
    return None if wanted is None else path


def _moved(job: Job, folder: Path) -> dict[str, str]:
    """The compilers' caches were in the folder of the search: the run starts with cold ones of its own."""
    caches = {"TORCHINDUCTOR_CACHE_DIR", cache.FOLDER_VARIABLE}
    return {key: str(folder / "caches") if key in caches else value for key, value in job.environment.items()}


def _capture(trial: Trial, folder: Path) -> None:
    """Run the original of a trial's search once more, to have its outputs."""
    store = Store.of_user()
    try:
        first = next((each for each in store.trials(trial.search) if each.purpose == "first"), None)
        found = store.trial(first.id) if first else None
    finally:
        store.close()
    if found is None:
        raise UserError(
            f"The first run of the original is missing in the store, so trial {trial.id} cannot be compared."
        )
    job = replace(found[1], environment=_moved(found[1], folder), capture_to=folder / "captured")
    runner.run(job)


def _figures(run: Run) -> dict[str, Any]:
    compared = run.comparison
    return {
        "ending": run.ending.kind,
        "message": run.ending.message,
        "seconds_per_call": stats.seconds_per_call(run) if run.ok else None,
        "samples": {timing.site: list(timing.samples) for timing in run.timings},
        "relative_error": None if compared is None else compared.relative_error,
        "top1_agreement": None if compared is None else compared.top1_agreement,
        "metric": run.metric,
        "metrics": {metric.name: metric.value for metric in run.metrics},
        "peak_memory_bytes": run.peak_memory_bytes,
        "disturbed": run.disturbed,
        "wall_seconds": run.wall_seconds,
        "versions": dict(run.versions),
    }
