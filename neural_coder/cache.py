"""Analyses kept between runs. An entry counts as long as nothing has changed that its analysis had looked at.

One file for each project and signature (our version and sources, settings, Python): JSON behind a digest, replaced in
one step. What is damaged, foreign or half-written is as good as not there.
"""

from __future__ import annotations

import array
import base64
import functools
import hashlib
import json
import logging
import os
import sys
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import platformdirs

from neural_coder import __version__, config
from neural_coder.analysis.folders import Folders, Question
from neural_coder.analysis.footprint import Reading, digest, stamp
from neural_coder.codec import Plain
from neural_coder.errors import UserError
from neural_coder.source import write_bytes_atomically

log = logging.getLogger(__name__)

T = TypeVar("T")

FOLDER_VARIABLE = "NEURAL_CODER_CACHE"
MOST_BYTES = 256_000_000
"""What all kept projects may take together; those not used for the longest time go first."""
DISPUTED = -1
"""The number of what two analyses have seen differently: a file has changed in between."""
_MAGIC = b"neural-coder-analyses-1 "


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept about one file."""

    analysis: Plain = None
    """In plain form (`codec`); None when there is no site."""
    guard: int | None = None
    """Line of its main guard."""
    problem: str = ""
    """Why it could not be analysed."""
    seconds: float = 0.0
    """What the analysis took."""


@dataclass(slots=True)
class _Tables:
    """All that entries depend on, by number: files first by one count, questions by another."""

    readings: dict[str, Reading] = field(default_factory=dict)
    answers: dict[Question, str] = field(default_factory=dict)
    file_numbers: dict[str, int] = field(default_factory=dict)
    question_numbers: dict[Question, int] = field(default_factory=dict)

    def number_file(self, path: str, reading: Reading) -> int:
        """The number of a file; `DISPUTED` when another analysis has seen something else in it."""
        known = self.readings.setdefault(path, reading)
        number = self.file_numbers.setdefault(path, len(self.file_numbers))
        return number if known.digest == reading.digest else DISPUTED

    def number_question(self, question: Question, answer: str) -> int:
        """The number of a question; `DISPUTED` when another analysis has got another answer."""
        known = self.answers.setdefault(question, answer)
        number = self.question_numbers.setdefault(question, len(self.question_numbers))
        return number if known == answer else DISPUTED


class AnalysisCache:
    """The kept analyses of one project.

    Args:
        file: Where they are kept.
    """

    def __init__(self, file: Path):
        self._file = file
        self._tables = _Tables()
        self._entries: dict[str, tuple[Kept, str, str]] = {}
        self._changed = False
        try:
            self._load()
        except (OSError, ValueError, TypeError, LookupError, zlib.error) as error:
            log.debug("%s is not used: %s: %s", file, type(error).__name__, error)
            self._tables, self._entries, self._changed = _Tables(), {}, True

    @classmethod
    def of(cls, root: Path) -> AnalysisCache:
        """The kept analyses of a project.

        Args:
            root: The project's folder.

        Raises:
            UserError: The project's settings cannot be read.
        """
        installed = _installed(config.interpreter(root))
        name = digest("\0".join((str(root), signature(), config.fingerprint(root), installed)).encode())
        return cls(folder() / f"{name}.json")

    def get(self, path: Path) -> Kept | None:
        """What is kept about a file; None when that is nothing, or no longer true."""
        entry = self._entries.get(str(path))
        return entry[0] if entry else None

    def digest_of(self, path: Path) -> str:
        """The digest of a file's bytes that its entry is about."""
        return self._tables.readings[str(path)].digest

    def put(self, path: Path, kept: Kept, readings: Mapping[str, Reading], answers: Mapping[Question, str]) -> None:
        """Keep what an analysis found.

        What it saw must agree with what the others saw: a file that changes while a run is going on is not kept.

        Args:
            path: The file.
            kept: What was found.
            readings: The files that were read for it, itself among them.
            answers: What folders said to the questions that were asked for it.
        """
        files = [self.number_file(*item) for item in readings.items()]
        self.put_numbered(path, kept, files, [self.number_question(*item) for item in answers.items()])

    def number_file(self, path: str, reading: Reading) -> int:
        """A number for what a file held; `DISPUTED` when an earlier analysis has seen something else in it."""
        return self._tables.number_file(path, reading)

    def number_question(self, question: Question, answer: str) -> int:
        """A number for what a folder said; `DISPUTED` when it said something else before."""
        return self._tables.number_question(question, answer)

    def put_numbered(self, path: Path, kept: Kept, files: Collection[int], questions: Collection[int]) -> None:
        """The same as `put`, with the numbers of what was seen."""
        if DISPUTED not in files and DISPUTED not in questions:
            self._entries[str(path)] = (kept, _pack(files), _pack(questions))
            self._changed = True

    def save(self) -> str:
        """Write what has changed.

        Returns:
            Why that was not possible, in words; empty when all is well.
        """
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            if self._changed:
                write_bytes_atomically(self._file, _sealed(self._dump()))
                self._changed = False
                _make_room(self._file.parent)
            else:
                os.utime(self._file)  # Used: it goes last when room is needed.
        except (OSError, UserError) as error:
            return f"What was found could not be kept for the next time: {error}"
        return ""

    # --- form -------------------------------------------------------------------------------------------------------

    def _dump(self) -> bytes:
        folders = {
            folder: number for number, folder in enumerate(dict.fromkeys(q.folder for q in self._tables.answers))
        }
        data = {
            "files": [[path, item.digest, item.stamp] for path, item in self._tables.readings.items()],
            "folders": list(folders),
            "questions": [[folders[q.folder], q.about, answer] for q, answer in self._tables.answers.items()],
            "entries": {
                path: [kept.analysis, kept.guard, kept.problem, kept.seconds, files, questions]
                for path, (kept, files, questions) in self._entries.items()
            },
        }
        return json.dumps(data, separators=(",", ":")).encode()

    def _load(self) -> None:
        if not self._file.exists():
            return
        data = json.loads(_unsealed(self._file.read_bytes()))
        readings = {path: Reading(seen, tuple(mark) if mark else None) for path, seen, mark in data["files"]}
        folders = data["folders"]
        answers = {Question(folders[number], about): answer for number, about, answer in data["questions"]}
        entries = {
            path: (Kept(analysis=analysis, guard=guard, problem=problem, seconds=seconds), files, questions)
            for path, (analysis, guard, problem, seconds, files, questions) in data["entries"].items()
        }
        self._take_what_holds(readings, answers, entries)

    def _take_what_holds(
        self,
        readings: dict[str, Reading],
        answers: dict[Question, str],
        entries: dict[str, tuple[Kept, str, str]],
    ) -> None:
        """Look at the file system, and drop what depends on something that is no longer so."""
        now = {path: _look_again(path, reading) for path, reading in readings.items()}
        self._changed = now != readings
        look = Folders().answer
        stale_files = {number for number, path in enumerate(readings) if now[path].digest != readings[path].digest}
        stale_questions = {number for number, (asked, told) in enumerate(answers.items()) if look(asked) != told}
        if not stale_files and not stale_questions:
            self._tables = _Tables(now, answers, _numbered(now), _numbered(answers))
            self._entries = entries
            return
        self._changed = True
        # Numbers change, too: what no entry depends on any more is left behind.
        paths, questions = list(readings), list(answers)
        for path, (kept, packed_files, packed_questions) in entries.items():
            file_numbers, question_numbers = _unpack(packed_files), _unpack(packed_questions)
            if stale_files.isdisjoint(file_numbers) and stale_questions.isdisjoint(question_numbers):
                seen = {paths[number]: now[paths[number]] for number in file_numbers}
                asked = (questions[number] for number in question_numbers)
                self.put(Path(path), kept, seen, {question: answers[question] for question in asked})


def folder() -> Path:
    """Where analyses are kept."""
    return base() / "analyses"


def base() -> Path:
    """Where everything is kept: `NEURAL_CODER_CACHE`, or the user's cache folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("neural-coder")


def _look_again(path: str, reading: Reading) -> Reading:
    """What a file holds now; it is read only where its stamp does not tell."""
    mark = stamp(path)
    if mark is not None and mark == reading.stamp:
        return reading
    try:
        return Reading(digest(Path(path).read_bytes()), mark)
    except OSError:
        return Reading("", None)


def _numbered(items: Iterable[T]) -> dict[T, int]:
    return {item: number for number, item in enumerate(items)}


def _pack(numbers: Iterable[int]) -> str:
    return base64.b64encode(zlib.compress(array.array("I", sorted(numbers)).tobytes(), 1)).decode()


def _unpack(text: str) -> array.array[int]:
    numbers = array.array("I")
    numbers.frombytes(zlib.decompress(base64.b64decode(text)))
    return numbers


def _sealed(body: bytes) -> bytes:
    return _MAGIC + digest(body).encode() + b"\n" + body


def _unsealed(data: bytes) -> bytes:
    head, _, body = data.partition(b"\n")
    if head != _MAGIC + digest(body).encode():
        raise ValueError("it is damaged or of another form")
    return body


def _make_room(kept_in: Path) -> None:
    """Remove the projects that were not used for the longest time until the rest is small enough."""
    files = sorted(kept_in.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > MOST_BYTES:
            file.unlink(missing_ok=True)


# --- what all analyses depend on ------------------------------------------------------------------------------------


@functools.cache
def signature() -> str:
    """Our version and sources, and the Python that parses."""
    home = Path(__file__).resolve().parent
    files = sorted(file for file in home.rglob("*") if file.is_file() and file.suffix != ".pyc")
    total = hashlib.blake2b(digest_size=16)
    for file in files:
        total.update(f"{file.relative_to(home)}\0".encode() + file.read_bytes() + b"\0")
    return "\0".join((__version__, total.hexdigest(), sys.version, sys.byteorder))


def _installed(python: Path) -> str:
    """The interpreter that questions about installed packages go to, and what is installed for it."""
    executable = Path(os.path.abspath(python))  # noqa: PTH100 (a virtual environment is a link)
    base = executable.parent.parent
    folders = sorted({*base.glob("lib/python*/*-packages"), *base.glob("Lib/site-packages")})
    names = [name for packages in folders for name in sorted(_names_in(packages)) if "-info" in name or "egg" in name]
    return digest("\0".join((str(executable), os.path.realpath(executable), *map(str, folders), *names)).encode())


def _names_in(packages: Path) -> list[str]:
    try:
        return os.listdir(packages)  # noqa: PTH208 (names are wanted, not paths)
    except OSError:
        return []
