"""One search as it goes on: each run is looked up in the store first, and kept there when it has ended.

A search is resumed by going through it once more: runs that are known are not made again, and the clock is set to where
it stood after each. So all decisions fall as they fell, up to where the search was left.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from neural_coder import codec, locks
from neural_coder.bench import runner
from neural_coder.bench.protocol import Job
from neural_coder.bench.shadow import PREFIX, remove_tree
from neural_coder.cache import FOLDER_VARIABLE
from neural_coder.errors import NeuralCoderError, UserError
from neural_coder.race import Clock, Result, Say
from neural_coder.records import Run
from neural_coder.trials import Search, State, Store, absolute
from neural_coder.units import count
from neural_coder.verdict import conclusion

KEPT_DAYS = 7
"""A search that was left for longer can no longer be resumed."""
MOST_BYTES = 5 * 1024**3
"""What searches that were left may keep together; the oldest go first."""
CAPTURED, LOCK = "captured", "lock"


class _Place(NamedTuple):
    """Where a run stands in its search."""

    job: Job
    digest: str
    number: int
    """Of the runs of this job, from 1."""


class Journal:
    """Keeps the runs of one search; a context manager.

    Attributes:
        folder: Holds the captured outputs and the compilers' caches of this search.
        search: Its number in the store; None: it is not kept.
    """

    def __init__(self, folder: Path, clock: Clock, say: Say, store: Store | None = None, search: int | None = None):
        self.folder = folder
        self.search = search
        self._clock = clock
        self._say = say
        self._store = store
        self._lock: int | None = None
        self._counts: Counter[tuple[str, str]] = Counter()
        self._warm: set[str] = set()
        """Folders of caches that a run has filled which has ended."""
        self._followers: list[Clock] = []
        self._state: State = "open"
        self._chosen: str | None = None
        self._conclusion = ""

    def run(self, job: Job) -> Run:
        """Run a job, or hand back what came of it before the search was resumed.

        Args:
            job: The run to make; the n-th of its kind is the n-th in the store.
        """
        return self.run_together([job])[0]

    def run_together(self, jobs: Sequence[Job]) -> tuple[Run, ...]:
        """The same for several processes that measure at the same time: all of them are known, or all are run."""
        places = [self._place_of(absolute(job)) for job in jobs]
        known = [self._known(place) for place in places]
        ended = [each for each in known if each is not None]
        if len(ended) == len(places):
            self._set_clocks(max(used for _, used in ended))
            self._warm.update(_caches(place.job) for place in places)
            return tuple(run for run, _ in ended)
        for place in places:
            self._clear(place.job)
        began = time.time()
        runs = runner.run_together([place.job for place in places])
        for place, run, before in zip(places, runs, known, strict=True):
            self._warm.add(_caches(place.job))
            if before is None:
                self._keep(place, run, began)
        return runs

    def follow(self, clock: Clock) -> Clock:
        """Set another clock of this search, too, when the search is gone through once more."""
        self._followers.append(clock)
        return clock

    def _place_of(self, job: Job) -> _Place:
        digest = digest_of(job)
        self._counts[digest, job.purpose] += 1
        return _Place(job, digest, self._counts[digest, job.purpose])

    def _set_clocks(self, used: float) -> None:
        shift = time.monotonic() - used - self._clock.started
        for clock in (self._clock, *self._followers):
            clock.started += shift

    def answer(self, found: Result) -> None:
        """Note the answer of the search; it is over, unless it was interrupted."""
        self._state = "open" if found.ended == "interrupted" else "finished"
        self._chosen = found.chosen.plan.id if found.chosen else None
        self._conclusion = conclusion(found.chosen, found.verdicts)

    def __enter__(self) -> Journal:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what the search no longer needs; keep all of it where it can be resumed."""
        if isinstance(error, NeuralCoderError):
            self._state, self._conclusion = "failed", str(error).partition("\n")[0]
        # In this order: a search without its folder that counts as open could not be resumed.
        if self._store is not None:
            self._end(self._store)
        if self._store is None or self._state != "open":
            remove_tree(self.folder)
        if self._lock is not None:
            locks.release(self._lock)

    def _end(self, store: Store) -> None:
        try:
            if self.search is not None:
                store.end_search(self.search, self._state, chosen=self._chosen, conclusion=self._conclusion)
                if self._state == "open":
                    self._say(
                        f"Search {self.search} is not at its end: the same command with --resume goes on with it."
                    )
        except sqlite3.Error as problem:
            self._say(f"The end of this search could not be kept: {problem}.")
        finally:
            store.close()

    def _known(self, place: _Place) -> tuple[Run, float] | None:
        if self._store is None or self.search is None:
            return None
        try:
            return self._store.find_run(self.search, place.digest, place.job.purpose, place.number)
        except (sqlite3.Error, ValueError, TypeError, LookupError) as problem:
            self._say(f"A run of this search could not be read and is made again: {problem}.")
            return None

    def _clear(self, job: Job) -> None:
        """What an interrupted run has left behind must not be mixed with what this one makes, or warm its start."""
        caches = _caches(job)
        cold = [] if caches in self._warm or not Path(caches).is_relative_to(self.folder) else [Path(caches)]
        for folder in (job.capture_to, *cold):
            if folder is not None and folder.exists():
                remove_tree(folder)

    def _keep(self, place: _Place, run: Run, began: float) -> None:
        if self._store is None or self.search is None:
            return
        try:
            self._store.add_trial(self.search, place.digest, place.number, place.job, run, began, self._clock.used)
        except sqlite3.Error as problem:
            self._say(f"Runs of this search are no longer kept: {problem}.")
            self.search = None

    def claim(self) -> bool:
        """Take the search for this process; False when another one is at it."""
        try:
            self._lock = locks.hold(self.folder / LOCK)
        except OSError:
            return False
        return self._lock is not None


def begin(about: Mapping[str, object], known_by: Mapping[str, str], clock: Clock, say: Say, *, resume: bool) -> Journal:
    """Begin a search, or go on with one that was left.

    Args:
        about: The search's columns in the store, apart from `known_by` and `folder`.
        known_by: What makes it the same search as one that was left, by name.
        clock: Its time budget.
        say: Called with a short sentence.
        resume: Go on with a search that was left; there may be none.

    Raises:
        UserError: `resume` is set, and the store cannot be used, or another process is at that search.
    """
    try:
        store = Store.of_user()
    except UserError as problem:
        if resume:
            raise
        say(f"{problem} The trials of this search are not kept.")
        return Journal(Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")), clock, say)
    if store.note:
        say(store.note)
    try:
        _remove_abandoned(store)
        left = [search for search in store.searches(Path(str(about["script"]))) if search.state == "open"]
        found = next((search for search in left if search.known_by == known_by), None)
        if found is not None and not _is_whole(store, found):
            store.end_search(found.id, "abandoned", conclusion=found.conclusion)
            left.remove(found)
            found = None
        if found is not None and resume:
            return _resumed(store, found, clock, say)
        _say_what_is_left(left, found, known_by, say, resume=resume)
        return _new(store, about, known_by, clock, say)
    except (OSError, sqlite3.Error) as problem:
        store.close()
        raise UserError(f"The trials cannot be kept in {store.folder}: {problem}.") from problem


def _new(store: Store, about: Mapping[str, object], known_by: Mapping[str, str], clock: Clock, say: Say) -> Journal:
    store.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="search-", dir=store.folder))
    journal = Journal(folder, clock, say, store)
    journal.claim()
    journal.search = store.add_search(**about, known_by=known_by, folder=folder)
    return journal


def _resumed(store: Store, search: Search, clock: Clock, say: Say) -> Journal:
    journal = Journal(search.folder, clock, say, store, search.id)
    if not journal.claim():
        store.close()
        raise UserError(f"Search {search.id} is going on in another process; wait for it, or begin without --resume.")
    trials = store.trials(search.id)
    say(f"Going on with search {search.id}, of which {count(len(trials), 'run')} can be told already.")
    return journal


def _is_whole(store: Store, search: Search) -> bool:
    """Whether the outputs that variants are compared with are still there, if they ever were."""
    first = any(trial.purpose == "first" for trial in store.trials(search.id))
    return not first or (search.folder / CAPTURED).exists()


def _say_what_is_left(
    left: list[Search], found: Search | None, known_by: Mapping[str, str], say: Say, *, resume: bool
) -> None:
    if found is not None:
        say(f"Search {found.id} of this script was left before its end; --resume goes on with it.")
    elif resume and left:
        other = left[0]
        names = sorted(name for name in {*known_by, *other.known_by} if known_by.get(name) != other.known_by.get(name))
        say(f"Search {other.id} of this script cannot be resumed, a new one begins; changed: {', '.join(names)}.")
    elif resume:
        say("There is no search of this script to go on with; a new one begins.")


def _remove_abandoned(store: Store) -> None:
    """Remove what searches keep that nobody resumes: after some days, or when it is too much."""
    open_searches = {search.folder: search for search in store.searches() if search.state == "open"}
    total = 0
    folders = sorted(store.folder.glob("search-*"), key=_last_change, reverse=True)
    for folder in folders:
        handle = locks.hold(folder / LOCK)
        if handle is None:
            continue  # It goes on in another process.
        try:
            age = time.time() - _last_change(folder)
            total += _size(folder)
            search = open_searches.get(folder)
            if search is None and age < 3600:
                continue  # Its process may be about to enter it into the store.
            if search is None or age > KEPT_DAYS * 86400 or total > MOST_BYTES:
                remove_tree(folder)
                if search is not None:
                    store.end_search(search.id, "abandoned", conclusion=search.conclusion)
        finally:
            locks.release(handle)
    for folder, search in open_searches.items():
        if not (folder / LOCK).exists():
            store.end_search(search.id, "abandoned", conclusion=search.conclusion)


def _last_change(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:
            continue
    return total


def _caches(job: Job) -> str:
    return job.environment.get(FOLDER_VARIABLE, "")


def digest_of(job: Job) -> str:
    """What makes a run the same run in a resumed search."""
    return hashlib.sha256(json.dumps(codec.encode(job), sort_keys=True).encode()).hexdigest()
