"""Patches every Python file of big libraries with every feature, and checks the promises on patches.

    python tests/ecosystem/ecosystem.py [--only torch,sklearn] [--jobs 2] [--every 10] [--alone]

What was found is kept in `build/ecosystem`; a run that was stopped goes on where it was. The exit code is 1 when a
promise is broken, 0 when all are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bulk
import corpus
import processes
from examine import Alone, Finding, examine

import neural_coder
from neural_coder.analysis import Project
from neural_coder.errors import UserError
from neural_coder.source import Source

STORE = Path("build/ecosystem/findings.jsonl")
BATCH = 6
"""Files that are looked at together, so that ruff and git start once for all of them."""
FILE_LIMIT = 60.0
"""Seconds for one file; a batch may take that for each of its files."""
SHOWN = 40
WIDTHS = (7, 9, 9, 9, 9, 9, 8, 8)


@dataclass(frozen=True, slots=True)
class Task:
    """A file to look at, and by what its finding is known."""

    file: Path
    root: Path
    key: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the survey; the exit code."""
    options = _parser().parse_args(arguments)
    found, missing = corpus.find([name for name in options.only.split(",") if name])
    found += [corpus.Corpus(path.name, path) for path in options.folder]
    for name in missing:
        print(f"{name} is not installed here and is left out.", file=sys.stderr)
    store = Store(options.store, fresh=options.fresh)
    digest = _digest_of_code(f"{options.guesses} {options.alone}")
    tasks = {each.name: list(_tasks(each, digest, options)) for each in found}
    wanted = [task for each in tasks.values() for task in each if task.key not in store.findings]
    try:
        _work(wanted, store, options)
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    return _summary({name: _known(each, store) for name, each in tasks.items()})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Check the promises on patches over many files.")
    parser.add_argument("--only", default=",".join([*corpus.PACKAGES, corpus.STANDARD_TESTS]), help="names of packages")
    parser.add_argument("--folder", type=Path, action="append", default=[], help="one more folder of files")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--every", type=int, default=1, help="take only every n-th file")
    parser.add_argument("--longest", type=int, default=0, help="leave out files of more bytes; 0 takes all")
    parser.add_argument(
        "--alone", action="store_true", help="look at each file as if it imported no other: much faster"
    )
    parser.add_argument("--guesses", type=int, default=2, help="plans to try on made-up facts, for each file")
    parser.add_argument("--limit", type=float, default=FILE_LIMIT, help="seconds for a file")
    parser.add_argument("--store", type=Path, default=STORE, help="file for the findings")
    parser.add_argument("--fresh", action="store_true", help="forget earlier findings")
    return parser


# --- what is known already ------------------------------------------------------------------------------------------


class Store:
    """Findings by key, one JSON object a line; a line that was cut off by a crash is ignored."""

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self._path = path
        self.findings: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.write_text("")
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            self.findings[entry.pop("key")] = entry

    def add(self, entries: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Keep findings, at once also on disk."""
        with self._path.open("a", encoding="utf-8") as stream:
            for key, entry in entries:
                self.findings[key] = entry
                stream.write(json.dumps({"key": key, **entry}) + "\n")


def _digest_of_code(settings: str) -> str:
    """Of all that decides what a finding says: our package, its features, this survey and its settings."""
    package = Path(neural_coder.__file__).parent
    folders = (package, package.parent / "transforms", Path(__file__).parent)
    digest = hashlib.sha256(settings.encode())
    for file in sorted(file for folder in folders for file in folder.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _tasks(each: corpus.Corpus, digest: str, options: argparse.Namespace) -> Iterator[Task]:
    for file in each.files()[:: options.every]:
        if options.longest and file.stat().st_size > options.longest:
            continue
        content = hashlib.sha256(digest.encode() + str(file).encode() + b"\0" + file.read_bytes())
        yield Task(file, each.root.parent, content.hexdigest())


def _known(tasks: Sequence[Task], store: Store) -> list[tuple[Path, Finding]]:
    entries = ((task.file, store.findings.get(task.key)) for task in tasks)
    return [(file, _finding(entry)) for file, entry in entries if entry is not None]


def _entry(finding: Finding) -> dict[str, Any]:
    """A finding as plain data."""
    return {each.name: getattr(finding, each.name) for each in dataclasses.fields(Finding)}


def _finding(entry: dict[str, Any]) -> Finding:
    values = {each.name: entry[each.name] for each in dataclasses.fields(Finding)}
    return Finding(**{**values, "patches": Counter(values["patches"]), "refusals": Counter(values["refusals"])})


# --- work -----------------------------------------------------------------------------------------------------------


def _work(tasks: Sequence[Task], store: Store, options: argparse.Namespace) -> None:
    """Look at files batch by batch; the files of a batch that hangs or dies are looked at one by one."""
    batches = [list(tasks[start : start + BATCH]) for start in range(0, len(tasks), BATCH)]
    done = 0
    for size in (BATCH, 1):
        again: list[list[Task]] = []
        by_name = {str(task.file): task for batch in batches for task in batch}
        items = [
            [[str(task.file), str(task.root)] for task in batch] + [[options.guesses, options.alone]]
            for batch in batches
        ]
        limit = options.limit * (4 if size == BATCH else 1)
        for each in processes.run(look, items, jobs=options.jobs, limit=limit):
            batch = [by_name[name] for name, _ in each.item[:-1]]
            if each.failure and size > 1:
                again += [[task] for task in batch]
                continue
            entries = each.result or [_entry(Finding(crashes=[each.failure])) for _ in batch]
            store.add(zip((task.key for task in batch), entries, strict=True))
            done += len(batch)
            print(f"\r{done}/{len(tasks)} {batch[-1].file.name[:40]:40}", end="", file=sys.stderr, flush=True)
        batches = again
    print(file=sys.stderr)


_projects: dict[str, Project] = {}
"""What a working process has parsed."""


def look(item: list[list[Any]]) -> list[dict[str, Any]]:
    """Look at a batch of files, in a process of its own.

    Args:
        item: Path and project folder of each file; at the end the number of guesses, and whether imports are left out.
    """
    *places, (guesses, alone) = item
    gc.disable()
    findings: list[Finding] = []
    pairs: list[bulk.Pair] = []
    owners: dict[str, tuple[int, str]] = {}
    for number, (name, root) in enumerate(places):
        finding, patched = _examined(Path(name), _project(root, alone=alone), guesses)
        findings.append(finding)
        # What the file left behind goes; what it shares with the next is not walked through again and again.
        gc.collect(0)
        gc.freeze()
        for each in patched:
            before, after = each.patch.before, each.patch.after
            pair = bulk.Pair(f"{len(pairs)}.py", before.encode(), after.encode(), before.text, after.text)
            owners[pair.name] = (number, each.plan)
            pairs.append(pair)
    _check_together(pairs, owners, findings)
    return [_entry(finding) for finding in findings]


def _project(root: str, *, alone: bool) -> Project:
    if root not in _projects:
        _projects[root] = (Alone if alone else Project)(Path(root))
    return _projects[root]


def _examined(path: Path, project: Project, guesses: int) -> tuple[Finding, list[Any]]:
    began = time.perf_counter()
    try:
        source = Source.read(path)
        if source.encode() != path.read_bytes():
            return Finding(broken=["reading and writing gives other bytes"]), []
    except UserError as error:
        return Finding(unreadable=str(error).removeprefix(str(path))[:120]), []
    finding, patched = examine(source, project, guesses=guesses)
    finding.seconds = time.perf_counter() - began
    return finding, patched


def _check_together(pairs: Sequence[bulk.Pair], owners: dict[str, tuple[int, str]], findings: list[Finding]) -> None:
    if not pairs:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, problems in bulk.new_problems(pairs, folder / "ruff").items():
            number, plan = owners[file]
            findings[number].broken += [f"{plan}: ruff finds {problem}" for problem in problems]
        for problem in bulk.refused_by_git(pairs, folder / "git"):
            file = next((file for file in owners if file in problem), pairs[0].name)
            number, plan = owners[file]
            findings[number].broken.append(f"{plan}: git: {problem}")


# --- summary --------------------------------------------------------------------------------------------------------


def _summary(found: dict[str, list[tuple[Path, Finding]]]) -> int:
    """Print what was found; 1 when a promise is broken, else 0."""
    titles = ("files", "lines", "seconds", "sites in", "patches", "refused", "unread", "broken")
    print(" " * 14 + "".join(f"{title:>{width}}" for title, width in zip(titles, WIDTHS, strict=True)))
    for name, each in found.items():
        print(_row(name, [finding for _, finding in each]))
    everything = [pair for each in found.values() for pair in each]
    print(_row("all", [finding for _, finding in everything]))
    _print_counts("Patches", sum((finding.patches for _, finding in everything), Counter()))
    _print_counts("Refusals", sum((finding.refusals for _, finding in everything), Counter()))
    _print_counts("Not read", Counter(finding.unreadable for _, finding in everything if finding.unreadable))
    bad = [(file, words) for file, finding in everything for words in (*finding.broken, *finding.crashes)]
    for file, words in bad[:SHOWN]:
        print(f"\n{file}\n    " + words.strip().replace("\n", "\n    "))
    if len(bad) > SHOWN:
        print(f"\n... and {len(bad) - SHOWN} more.")
    print(f"\n{len(bad)} broken promises and crashes." if bad else "\nAll promises are kept.")
    return 1 if bad else 0


def _row(name: str, findings: Sequence[Finding]) -> str:
    figures = (
        len(findings),
        sum(finding.lines for finding in findings),
        round(sum(finding.seconds for finding in findings)),
        sum(bool(finding.sites) for finding in findings),
        sum(finding.patches.total() for finding in findings),
        sum(finding.refusals.total() for finding in findings),
        sum(bool(finding.unreadable) for finding in findings),
        sum(len(finding.broken) + len(finding.crashes) for finding in findings),
    )
    return f"{name:14}" + "".join(f"{figure:>{width}}" for figure, width in zip(figures, WIDTHS, strict=True))


def _print_counts(title: str, counts: Counter[str]) -> None:
    if counts:
        print(f"\n{title}:")
    for words, count in counts.most_common(25):
        print(f"{count:>8}  {words}")


if __name__ == "__main__":
    sys.exit(main())
