"""The store of all trials: every child run of every search, with its settings and raw figures, in one SQLite file.

Rows are written once, when a run has ended, each in a transaction of its own; several searches may write at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from neural_coder import cache, codec
from neural_coder.bench import stats
from neural_coder.bench.protocol import Job
from neural_coder.errors import UserError
from neural_coder.locks import locked
from neural_coder.records import Run

FORM = 1
"""Of the tables; a store of a higher one was written by a newer Neural Coder."""
PATIENCE = 60.0
"""Seconds that one search waits for another one's writing."""
_TABLES = """
CREATE TABLE searches (
    id INTEGER PRIMARY KEY,
    known_by TEXT NOT NULL,
    script TEXT NOT NULL,
    args TEXT NOT NULL,
    cwd TEXT NOT NULL,
    python TEXT NOT NULL,
    criterion TEXT NOT NULL,
    machine TEXT NOT NULL,
    neural_coder TEXT NOT NULL,
    folder TEXT NOT NULL,
    began REAL NOT NULL,
    ended REAL,
    state TEXT NOT NULL DEFAULT 'open',
    chosen TEXT,
    conclusion TEXT NOT NULL DEFAULT ''
);
CREATE INDEX searches_by_script ON searches (script);
CREATE TABLE trials (
    id INTEGER PRIMARY KEY,
    search INTEGER NOT NULL REFERENCES searches (id),
    variant TEXT NOT NULL,
    purpose TEXT NOT NULL,
    number INTEGER NOT NULL,
    digest TEXT NOT NULL,
    began REAL NOT NULL,
    used REAL NOT NULL,
    seed INTEGER NOT NULL,
    job TEXT NOT NULL,
    ending TEXT NOT NULL,
    seconds_per_call REAL,
    versions TEXT NOT NULL,
    run TEXT NOT NULL,
    UNIQUE (search, digest, purpose, number)
);
"""

State = Literal["open", "finished", "failed", "abandoned"]
"""`open`: it goes on, or was left before its end and can be resumed; `failed`: there was nothing to measure;
`abandoned`: it was left for so long that what it needs to go on was removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One search."""

    id: int
    known_by: Mapping[str, str]
    """What makes it the same search: a digest of each part, by name."""
    script: Path
    args: tuple[str, ...]
    cwd: Path
    python: Path
    machine: Mapping[str, Any]
    criterion: Mapping[str, Any]
    neural_coder: str
    """Our own version."""
    folder: Path
    """Holds the captured outputs of the original until the search has ended."""
    began: float
    """Seconds since the epoch."""
    ended: float | None
    state: State
    chosen: str | None
    conclusion: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One child run of a search, without its raw figures."""

    id: int
    search: int
    variant: str
    """The plan's id; empty: the original."""
    purpose: str
    """`first`, `control`, `look`, `operators`, `round`, `confirmation`."""
    number: int
    """Counts the runs of this variant for this purpose, from 1."""
    began: float
    """Seconds since the epoch."""
    used: float
    """Seconds of the search's time that were used up at its end."""
    seed: int
    ending: str
    seconds_per_call: float | None
    versions: Mapping[str, str]


class Store:
    """The trials of one user.

    Args:
        file: The SQLite file; it is made where there is none.

    Raises:
        UserError: A newer Neural Coder has written it, or it cannot be written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.note = ""
        """What the user should know, one sentence: a damaged store was set aside."""
        self._lock = threading.RLock()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with locked(file.with_suffix(".lock")):
                self._open()
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"The store of trials, {file}, cannot be used: {error}.") from error

    @classmethod
    def of_user(cls) -> Store:
        """The store in the user's cache folder, or in `NEURAL_CODER_CACHE`."""
        return cls(cache.base() / "trials.sqlite")

    @property
    def folder(self) -> Path:
        """Where searches keep what they need to go on."""
        return self.file.parent / "searches"

    def close(self) -> None:
        """Leave the file."""
        self._connection.close()

    def _open(self) -> None:
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self._set_aside(str(error))
            self._connect()

    def _connect(self) -> None:
        self._connection = sqlite3.connect(self.file, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        (form,) = self._connection.execute("PRAGMA user_version").fetchone()
        if form > FORM:
            raise UserError(
                f"The store of trials, {self.file}, was written by a newer Neural Coder (form {form}, this one knows "
                f"{FORM}): update this one, or name another folder with {cache.FOLDER_VARIABLE}."
            )
        (problem,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
        if form == 0:
            with self._transaction():
                for statement in _TABLES.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {FORM}")

    def _set_aside(self, problem: str) -> None:
        """A damaged file may still be worth something to somebody: it is renamed, not removed."""
        name = f"{self.file.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.file}{suffix}").rename(self.file.with_name(name + suffix))
        self.note = (
            f"The store of trials was damaged ({problem.splitlines()[-1]}); it is kept as {self.file.with_name(name)}, "
            "and a new one has begun."
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    # --- searches

    def add_search(self, **columns: object) -> int:
        """Note that a search begins.

        Args:
            columns: Those of the table; records and mappings become JSON.

        Returns:
            Its number.
        """
        return self._insert("searches", {**columns, "began": time.time()})

    def set_folder(self, search: int, folder: Path) -> None:
        """Say where a search keeps what it needs to go on."""
        with self._transaction():
            self._connection.execute("UPDATE searches SET folder = ? WHERE id = ?", (str(folder), search))

    def end_search(self, search: int, state: State, *, chosen: str | None = None, conclusion: str = "") -> None:
        """Note what became of a search; one that stays `open` can be resumed."""
        with self._transaction():
            self._connection.execute(
                "UPDATE searches SET ended = ?, state = ?, chosen = ?, conclusion = ? WHERE id = ?",
                (time.time(), state, chosen, conclusion, search),
            )

    def searches(self, script: Path | None = None) -> list[Search]:
        """The searches (of one script), the last one first."""
        where = "" if script is None else "WHERE script = ?"
        values = () if script is None else (str(script.resolve()),)
        return [_search(row) for row in self._rows(f"SELECT * FROM searches {where} ORDER BY id DESC", values)]

    def search(self, number: int) -> Search | None:
        """One search."""
        rows = self._rows("SELECT * FROM searches WHERE id = ?", (number,))
        return _search(rows[0]) if rows else None

    # --- trials

    def add_trial(self, search: int, digest: str, number: int, job: Job, run: Run, began: float, used: float) -> int:
        """Keep a finished run; a second one for the same place in the same search is refused.

        Raises:
            sqlite3.Error: It cannot be kept.
        """
        return self._insert(
            "trials",
            {
                "search": search,
                "variant": job.plan.id if job.plan else "",
                "purpose": job.purpose,
                "number": number,
                "digest": digest,
                "began": began,
                "used": used,
                "seed": job.seed,
                "job": job_as_plain(job),
                "ending": run.ending.kind,
                "seconds_per_call": stats.seconds_per_call(run, None) if run.ok else None,
                "versions": dict(run.versions),
                "run": codec.encode(run),
            },
        )

    def find_run(self, search: int, digest: str, purpose: str, number: int) -> tuple[Run, float] | None:
        """What came of a run of a search, and the time that was used up then; None when it has not ended."""
        rows = self._rows(
            "SELECT run, used FROM trials WHERE search = ? AND digest = ? AND purpose = ? AND number = ?",
            (search, digest, purpose, number),
        )
        return (codec.decode(Run, json.loads(rows[0]["run"])), rows[0]["used"]) if rows else None

    def trials(self, search: int) -> list[Trial]:
        """The runs of a search that have ended, in that order."""
        columns = ", ".join(field.name for field in fields(Trial))
        return [
            _trial(row) for row in self._rows(f"SELECT {columns} FROM trials WHERE search = ? ORDER BY id", (search,))
        ]

    def trial(self, number: int) -> tuple[Trial, Job, Run] | None:
        """One run, with its settings and its raw figures.

        Raises:
            TypeError, ValueError, LookupError: Another version of Neural Coder has kept it in another form.
        """
        rows = self._rows("SELECT * FROM trials WHERE id = ?", (number,))
        if not rows:
            return None
        row = rows[0]
        run = codec.decode(Run, json.loads(row["run"]))
        return _trial(row), job_from_plain(json.loads(row["job"])), run

    def counts(self) -> dict[int, int]:
        """By search: how many runs of it have ended."""
        return dict(self._rows("SELECT search, count(*) FROM trials GROUP BY search"))  # type: ignore[arg-type]

    def _insert(self, table: str, columns: Mapping[str, object]) -> int:
        values = [_as_column(value) for value in columns.values()]
        places = ", ".join("?" * len(values))
        with self._transaction():
            done = self._connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", values)
            assert done.lastrowid is not None
            return done.lastrowid

    def _rows(self, question: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(question, tuple(values)).fetchall()


def job_as_plain(job: Job) -> dict[str, Any]:
    """A job's settings as plain data, by name: those of a later version may have more."""
    return {field.name: codec.encode(getattr(job, field.name)) for field in fields(Job)}


def absolute(job: Job) -> Job:
    """The same job, for a process in any folder: files of the project may be named relative to ours."""
    return replace(
        job,
        patched={path.absolute(): data for path, data in job.patched.items()},
        probes={path.absolute(): probes for path, probes in job.probes.items()},
        marks={path.absolute(): marks for path, marks in job.marks.items()},
    )


def job_from_plain(data: Mapping[str, Any]) -> Job:
    """The job that `job_as_plain` was given.

    Raises:
        TypeError, ValueError, LookupError: The data is not that of such a job.
    """
    hints = get_type_hints(Job)
    known = {name: codec.decode(hints[name], value) for name, value in data.items() if name in hints}
    return Job(**known)


def _as_column(value: object) -> object:
    if isinstance(value, str | Path):
        return str(value).encode("utf-8", "backslashreplace").decode()  # File names need not be UTF-8; columns must be.
    return value if value is None or isinstance(value, int | float) else json.dumps(codec.encode(value))


def _search(row: sqlite3.Row) -> Search:
    data = dict(row)
    for name in ("known_by", "args", "machine", "criterion"):
        data[name] = json.loads(data[name])
    for name in ("script", "cwd", "python", "folder"):
        data[name] = Path(data[name])
    return Search(**{**data, "args": tuple(data["args"])})


def _trial(row: sqlite3.Row) -> Trial:
    data = {field.name: row[field.name] for field in fields(Trial)}
    return Trial(**{**data, "versions": json.loads(data["versions"])})
