"""Work on many files: which of them are known from before, which children do the rest, and what became of each.

Results come in the order of the files, whatever the number of children.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from traceback import format_exc
from typing import Any, Literal

from neural_coder import crew
from neural_coder.analysis.folders import Question
from neural_coder.analysis.footprint import Reading
from neural_coder.analysis.project import marked_root
from neural_coder.cache import AnalysisCache, Kept
from neural_coder.codec import decode
from neural_coder.crew import Lost, Reply
from neural_coder.errors import InternalError, UserError
from neural_coder.files import VENDORED
from neural_coder.records import Analysis

log = logging.getLogger(__name__)

Tick = Callable[[int, int, str], None]
"""Called whenever a file is done: how many are, how many there are, and the file's name."""
DEFAULT_LIMIT = 60.0
_GROUP = 24
_SMALL_GROUP = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to work on many files."""

    jobs: int | None = None
    """Children at a time; None: one for each core."""
    cached: bool = True
    """Whether to use and keep what is known from earlier runs."""
    limit: float = DEFAULT_LIMIT
    """Seconds for one file."""
    tick: Tick = lambda done, total, name: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a file could not be worked on."""

    path: Path
    kind: Literal["unusable", "timeout", "crash"]
    """`unusable`: it cannot be read or parsed, or not be patched safely; `crash`: a defect of ours."""
    message: str
    """One sentence; a syntax error with its line and a caret."""
    exit_code: int
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file."""

    path: Path
    kept: Kept | None
    """None when there was no end to its analysis."""
    problem: Problem | None = None
    cached: bool = False
    reply: Reply = field(default_factory=dict)
    """What the child said, beyond the analysis."""

    @property
    def analysis(self) -> Analysis | None:
        """Its sites; None when it could not be analysed."""
        if self.kept is None or self.kept.problem:
            return None
        return Analysis(path=self.path) if self.kept.analysis is None else decode(Analysis, self.kept.analysis)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What became of all files, in their order."""

    files: tuple[Outcome, ...]
    jobs: int
    """Children that there were at a time."""
    note: str
    """What the user should know about the cache, if anything."""


Job = Callable[[Path, Kept | None], "Mapping[str, object] | None"]
"""What a child is to do with a file of which this is known; None: nothing is left to do."""


def run(files: Sequence[Path], folders: Sequence[Path], job: Job, options: Options) -> Outcomes:
    """Do something with many files.

    Args:
        files: The files, with those of one folder next to each other.
        folders: The folders that were named by the user; they are roots where nothing else looks like one.
        job: Decides for each file.
        options: How.

    Raises:
        InternalError: Children cannot be started.
    """
    shift = _Shift(files, folders, job, options)
    try:
        shift.work()
    finally:
        # What was found before a Ctrl-C need not be found again.
        note = shift.save()
    return Outcomes(files=tuple(shift.outcomes[file] for file in files), jobs=shift.jobs, note=note)


class _Shift:
    """One run over many files."""

    def __init__(self, files: Sequence[Path], folders: Sequence[Path], job: Job, options: Options):
        self._files, self._job, self._options = files, job, options
        self._roots = _Roots(folders)
        self._caches: dict[Path, AnalysisCache | None] = {}
        self._seen: dict[str, _Seen] = {}
        self.outcomes: dict[Path, Outcome] = {}
        self.jobs = 0

    def work(self) -> None:
        """Work on all files."""
        waiting: list[tuple[int, Path, crew.Request]] = []
        for number, file in enumerate(self._files):
            cache = self._cache(file)
            kept = cache.get(file) if cache else None
            wanted = self._job(file, kept)
            if wanted is not None:
                waiting.append((number, file, self._request(file, kept, wanted)))
            elif kept is not None:
                self._finish(Outcome(path=file, kept=kept, problem=_own_problem(file, kept), cached=True))
        groups = _grouped(waiting)
        if not groups:
            return
        self.jobs = min(self._options.jobs or _cores(), len(groups))
        with closing(crew.work(groups, jobs=self.jobs, limit=self._options.limit)) as answers:
            for number, answer in answers:
                self._finish(self._taken_in(self._files[number], answer))

    def save(self) -> str:
        """Keep what was found.

        Returns:
            Why that was not possible, in words; empty when all is well.
        """
        return next((note for cache in self._caches.values() if cache and (note := cache.save())), "")

    def _request(self, file: Path, kept: Kept | None, wanted: Mapping[str, object]) -> crew.Request:
        request = {"path": str(file), "root": str(self._roots.of(file))}
        cache = self._cache(file)
        if cache and kept and not kept.problem:
            # The child works with these facts if the file is still the one that they are about.
            request |= {"analysis": kept.analysis, "digest": cache.digest_of(file)}
        return {**request, **wanted}

    def _taken_in(self, file: Path, answer: Reply | Lost) -> Outcome:
        try:
            return self._outcome(file, answer)
        except Exception as error:
            # The border of one file: an answer that makes no sense must not cost those about all others.
            told = {"kind": "crash", "message": f"{type(error).__name__}: {error}", "traceback": format_exc()}
            return Outcome(path=file, kept=None, problem=_answered_problem(file, told))

    def _outcome(self, file: Path, answer: Reply | Lost) -> Outcome:
        cache = self._cache(file)
        known = cache.get(file) if cache else None
        if isinstance(answer, Lost):
            return Outcome(path=file, kept=known, problem=_lost(file, answer))
        kept = decode(Kept, answer["kept"]) if "kept" in answer else known
        if cache and "seen" in answer:
            seen = self._seen.setdefault(answer["seen"]["by"], _Seen(cache))
            files, questions = seen.numbers(answer["seen"])
            if kept and "kept" in answer and not answer.get("hurried"):
                cache.put_numbered(file, kept, files, questions)
        problem = _answered_problem(file, answer["problem"]) if "problem" in answer else None
        return Outcome(path=file, kept=kept, problem=problem, reply=answer)

    def _finish(self, outcome: Outcome) -> None:
        self.outcomes[outcome.path] = outcome
        self._options.tick(len(self.outcomes), len(self._files), self._shown(outcome.path))

    def _shown(self, file: Path) -> str:
        root = self._roots.of(file)
        return str(file.relative_to(root)) if file.is_relative_to(root) else str(file)

    def _cache(self, file: Path) -> AnalysisCache | None:
        if not self._options.cached:
            return None
        root = self._roots.of(file)
        if root not in self._caches:
            self._caches[root] = _cache_of(root)
        return self._caches[root]


class _Seen:
    """What one child has told of the file system: its own numbers, and those of the cache."""

    def __init__(self, cache: AnalysisCache) -> None:
        self._cache = cache
        self._files: list[int] = []
        self._questions: list[int] = []

    def numbers(self, told: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """The cache's numbers for the files and questions that one analysis has looked at."""
        number_file, number_question = self._cache.number_file, self._cache.number_question
        self._files += [
            number_file(path, Reading(seen, tuple(mark) if mark else None)) for path, seen, mark in told["new_files"]
        ]
        self._questions += [
            number_question(Question(folder, about), answer) for folder, about, answer in told["new_questions"]
        ]
        files, questions = self._files, self._questions
        return [files[number] for number in told["files"]], [questions[number] for number in told["questions"]]


class _Roots:
    """The root of the project that a file belongs to."""

    def __init__(self, folders: Sequence[Path]):
        self._named = [folder.resolve() for folder in folders]
        self._by_folder: dict[Path, Path] = {}

    def of(self, file: Path) -> Path:
        """The nearest folder that looks like a root, else what the user has named, else the file's folder."""
        folder = file.parent
        if folder not in self._by_folder:
            self._by_folder[folder] = self._find(folder)
        return self._by_folder[folder]

    def _find(self, folder: Path) -> Path:
        marked = marked_root(folder)
        # An installed package does not belong to the project whose virtual environment it is in.
        if marked is not None and not VENDORED.intersection(folder.relative_to(marked).parts):
            return marked
        for named in self._named:
            if folder.is_relative_to(named):
                return _above_package(named)
        return marked or folder


def _cache_of(root: Path) -> AnalysisCache | None:
    try:
        return AnalysisCache.of(root)
    except UserError as error:
        # Its settings make no sense, which its files report.
        log.debug("nothing is kept for %s: %s", root, error)
        return None


def _above_package(folder: Path) -> Path:
    """The folder that the imports of a package's files start from; installed packages stay by themselves."""
    while (folder / "__init__.py").is_file() and folder.parent.name not in VENDORED:
        folder = folder.parent
    return folder


def _grouped(waiting: Sequence[tuple[int, Path, crew.Request]]) -> list[list[tuple[int, crew.Request]]]:
    """Requests for neighbouring files go to one child, which parses once what these files share."""
    groups: list[list[tuple[int, crew.Request]]] = []
    before: Path | None = None
    for number, file, request in waiting:
        here = groups[-1] if groups else []
        if not here or len(here) >= _GROUP or (file.parent != before and len(here) >= _SMALL_GROUP):
            groups.append([])
        groups[-1].append((number, request))
        before = file.parent
    return groups


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _own_problem(file: Path, kept: Kept) -> Problem | None:
    if not kept.problem:
        return None
    return Problem(path=file, kind="unusable", message=kept.problem, exit_code=UserError.exit_code)


def _lost(file: Path, lost: Lost) -> Problem:
    if lost.why == "timeout":
        message = f"{file}: given up, because it {lost.message}."
        return Problem(path=file, kind="timeout", message=message, exit_code=UserError.exit_code)
    return _crash(file, lost.message, "")


def _answered_problem(file: Path, told: Mapping[str, Any]) -> Problem:
    if told["kind"] == "crash":
        return _crash(file, f"failed with {told['message']}", told["traceback"])
    return Problem(path=file, kind="unusable", message=told["message"], exit_code=told["exit_code"])


def _crash(file: Path, what: str, traceback: str) -> Problem:
    message = f"{file}: Neural Coder's own work on it {what}. This is a defect of Neural Coder, not of the file."
    return Problem(path=file, kind="crash", message=message, exit_code=InternalError.exit_code, traceback=traceback)
