"""How long `analyze` takes over a big package, in units of what `ast.parse` takes over the same files.

    python benchmarks/analyze.py [--package transformers | --path FOLDER] [--repeats 3]

Each repeat measures four things in fresh processes: `ast.parse` over all files, in one process; `analyze` with an empty
cache; the same again, with what the first run has kept; and `analyze --jobs 1` with an empty cache. Ratios are formed
within a repeat: of the time on the clock, and of the processors' time, which tells more on a machine that is busy with
other things.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from neural_coder.units import count, duration, size

FIRST_RUN_LIMIT = 4.0
SECOND_RUN_LIMIT = 0.2
MEMORY_LIMIT = 1_000_000_000
_PARSE = """
import ast, json, sys, time, warnings
warnings.simplefilter("ignore")
texts = [open(path, "rb").read() for path in json.load(sys.stdin)]
started, used = time.perf_counter(), time.process_time()
for text in texts:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        pass
print(json.dumps([time.perf_counter() - started, time.process_time() - used]))
"""
_SAMPLE_SECONDS = 0.2


class Seconds(NamedTuple):
    """How long something took."""

    clock: float
    processor: float


@dataclass(frozen=True)
class Repeat:
    """One repeat, and the bytes that all processes of a first run held together at most."""

    parse: Seconds
    first: Seconds
    second: Seconds
    alone: Seconds
    memory: int


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--package", default="transformers", help="installed package; it is not imported")
    where.add_argument("--path", type=Path, help="folder, instead of a package")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    folder = options.path or _folder_of(options.package)
    repeats = []
    for number in range(options.repeats):
        repeats.append(_measure(folder))
        latest = repeats[-1]
        print(
            f"{number + 1}: ast.parse {duration(latest.parse.clock)}, analyze {duration(latest.first.clock)}, "
            f"again {duration(latest.second.clock)}, in one process {duration(latest.alone.clock)}, "
            f"memory {size(latest.memory)}",
            flush=True,
        )
    _print_table(repeats)


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed here.")
    return Path(next(iter(spec.submodule_search_locations)))


def _measure(folder: Path) -> Repeat:
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as other:
        first, memory, data = _analyze(folder, cache)
        files = [str(Path(data["root"]) / file["path"]) for file in data["files"]]
        done = subprocess.run(
            [sys.executable, "-c", _PARSE], input=json.dumps(files), capture_output=True, text=True, check=True
        )
        parse = Seconds(*json.loads(done.stdout))
        second, _, again = _analyze(folder, cache)
        alone, most, _ = _analyze(folder, other, "--jobs", "1")
    if again["summary"]["cached"] != again["summary"]["files"]:
        print(f"only {again['summary']['cached']} of {count(again['summary']['files'], 'file')} were known from before")
    return Repeat(parse, first, second, alone, max(memory, most))


def _analyze(folder: Path, cache: str, *options: str) -> tuple[Seconds, int, dict[str, Any]]:
    """Seconds, peak memory and result of one run, its own child included."""
    command = [sys.executable, "-m", "neural_coder", "analyze", str(folder), *options, "--json"]
    result = Path(cache) / "result.json"
    environment = {**os.environ, "NEURAL_CODER_CACHE": cache}
    started, used = time.perf_counter(), _processor_seconds()
    process = subprocess.Popen([*command, str(result)], env=environment, stderr=subprocess.DEVNULL)
    peak = [0]
    watch = threading.Thread(target=_watch, args=(process, peak))
    watch.start()
    process.wait()
    seconds = Seconds(time.perf_counter() - started, _processor_seconds() - used)
    watch.join()
    return seconds, peak[0], json.loads(result.read_text())


def _processor_seconds() -> float:
    """What all children that have ended have used so far."""
    times = os.times()
    return times.children_user + times.children_system


def _watch(process: subprocess.Popen[bytes], peak: list[int]) -> None:
    """Note the most memory that a process and its descendants hold together (Linux only)."""
    while process.returncode is None:
        peak[0] = max(peak[0], _held(process.pid))
        time.sleep(_SAMPLE_SECONDS)


def _held(pid: int) -> int:
    children: dict[int, list[int]] = {}
    pages: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It has ended in the meantime.
        children.setdefault(int(fields[1]), []).append(int(folder.name))
        pages[int(folder.name)] = int(fields[21])
    total, waiting = 0, [pid]
    while waiting:
        current = waiting.pop()
        total += pages.get(current, 0)
        waiting += children.get(current, [])
    return total * os.sysconf("SC_PAGE_SIZE")


def _print_table(repeats: Sequence[Repeat]) -> None:
    limits = (
        ("first run", FIRST_RUN_LIMIT, "first"),
        ("second run", SECOND_RUN_LIMIT, "second"),
        ("first run in one process", FIRST_RUN_LIMIT, "alone"),
    )
    for name, limit, run in limits:
        for which in Seconds._fields:
            pairs = [(getattr(item, run), item.parse) for item in repeats]
            ratios = [getattr(took, which) / getattr(parse, which) for took, parse in pairs]
            middle = statistics.median(ratios)
            verdict = "ok" if middle <= limit else "TOO SLOW"
            spread = f"{min(ratios):.3g} to {max(ratios):.3g}"
            print(f"{name} / ast.parse, {which:9} {middle:8.3g}  ({spread}; at most {limit:g}: {verdict})")
    memory = max(item.memory for item in repeats)
    verdict = "ok" if memory <= MEMORY_LIMIT else "TOO MUCH"
    print(f"peak memory of all processes: {size(memory)}  (at most {size(MEMORY_LIMIT)}: {verdict})")


if __name__ == "__main__":
    main()
