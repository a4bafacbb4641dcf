"""What each engine makes of well-known models: our variant, the same engine by hand, and the original take turns.

    python benchmarks/engines/run.py [--models lstm,minilm] [--batches 1,8] [--variants openvino/bf16] [--rounds 3]
        [--python inc=PATH] [--python ipex=PATH]

Each round starts a fresh process for each model, batch size and variant, in which the three contestants alternate;
ratios are formed within a process, and the process is the unit of the statistics. What was measured is kept in
`build/bench-engines.jsonl`, so that a run that was stopped goes on; `--report` only writes the page again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from report import write_report

HERE = Path(__file__).parent
STORE = Path("build/bench-engines.jsonl")
TIMEOUT_SECONDS = 900
ELSEWHERE = ("inc", "ipex")
"""What needs another environment than this one; `--python NAME=PATH` names it."""
PAGES = {"avx512_bf16": "benchmarks.md", "avx512_vnni": "benchmarks_vnni.md", "avx2": "benchmarks_avx2.md"}
"""Pages in `docs`, by the best instructions that a processor has; those that engines make the most of come first."""
PACKAGES = ("torch", "torchao", "transformers", "onnxruntime", "openvino", "nncf")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then write the page."""
    sys.path.insert(0, str(HERE))
    from by_hand import RECIPES
    from zoo import ZOO

    options = _parser(list(ZOO), list(RECIPES)).parse_args(arguments)
    pythons = dict(options.python)
    missing = [name for name in ELSEWHERE if name not in pythons]
    options.variants = [each for each in options.variants if each.partition("/")[0] not in missing]
    options.store.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in options.store.read_text().splitlines()] if options.store.exists() else []
    done = {_key(each) for each in known}
    wanted = [] if options.report else [job for job in _jobs(options) if _key(job) not in done]
    for place, job in enumerate(wanted, 1):
        print(f"{place}/{len(wanted)}  {job['model']}  batch {job['batch']}  {job['variant']}", end="  ", flush=True)
        result = _run(job, pythons.get(job["variant"].partition("/")[0], sys.executable))
        known.append(result)
        with options.store.open("a") as stream:
            stream.write(json.dumps(result) + "\n")
        print(_told(result), flush=True)
    write_report(known, _machine(), options.page or Path("docs") / _page())
    return 0


def _parser(models: list[str], variants: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure engines on well-known models.")
    parser.add_argument("--models", type=_names(models), default=models, help="names, separated by commas")
    parser.add_argument("--batches", type=lambda text: [int(each) for each in text.split(",")], default=[1, 8])
    parser.add_argument("--variants", type=_names(variants), default=variants, help="ENGINE/PRECISION, by commas")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes for each variant")
    parser.add_argument("--seconds", type=float, default=2.0, help="that each contestant is measured for")
    parser.add_argument("--python", type=_interpreter, action="append", default=[], metavar="ENGINE=PATH")
    parser.add_argument("--store", type=Path, default=STORE)
    parser.add_argument("--page", type=Path, help="default: in docs, one for each kind of processor")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    return parser


def _interpreter(text: str) -> tuple[str, str]:
    engine, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError("give ENGINE=PATH")
    return engine, path


def _names(known: list[str]) -> Any:
    def read(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [each for each in chosen if each not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of: {', '.join(known)}")
        return chosen

    return read


def _jobs(options: argparse.Namespace) -> Iterable[dict[str, Any]]:
    for round_ in range(options.rounds):
        for model in options.models:
            for batch in options.batches:
                for variant in options.variants:
                    yield {
                        "model": model, "batch": batch, "variant": variant, "round": round_, "seconds": options.seconds,
                    }  # fmt: skip


def _key(job: dict[str, Any]) -> tuple[object, ...]:
    return tuple(job[name] for name in ("model", "batch", "variant", "round"))


def _run(job: dict[str, Any], python: str) -> dict[str, Any]:
    command = [python, str(HERE / "process.py"), json.dumps(job)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return {**job, "problems": {"process": f"took more than {TIMEOUT_SECONDS} s"}}
    if done.returncode:
        return {**job, "problems": {"process": (done.stderr.strip().splitlines() or ["no words"])[-1][:300]}}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _told(result: dict[str, Any]) -> str:
    times = {name: statistics.median(each) for name, each in result.get("seconds_per_call", {}).items()}
    ratios = [f"{name} x{times['original'] / each:.2f}" for name, each in times.items() if name != "original"]
    return ", ".join([*ratios, *(f"{name}: {words}" for name, words in result["problems"].items())])


def _page() -> str:
    _, flags = _processor()
    return next((page for flag, page in PAGES.items() if flag in flags), "benchmarks_other.md")


def _processor() -> tuple[str, list[str]]:
    """Its name and its instructions, as far as the system tells."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return names[0] if names else platform.processor(), flags


def _machine() -> dict[str, str]:
    name, flags = _processor()
    telling = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if flag in flags]
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {
        "processor": f"{name}, {os.cpu_count()} cores, {' '.join(telling)}",
        "Python": platform.python_version(),
        **versions,
    }


if __name__ == "__main__":
    sys.exit(main())
