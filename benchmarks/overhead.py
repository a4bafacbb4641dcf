"""What the runtime itself costs: its guards in each call, and its starts without and with a filled cache.

    python benchmarks/overhead.py [--only onnxruntime ...] [--models small bert] [--no-starts]

Calls of the accelerated model and of the engine's bare session take turns in one process; starts are fresh processes,
timed from `accelerate` to the end of the first call that the engine answered.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module

import torch

from neural_coder.runtime import accelerate, explain
from neural_coder.runtime.engine import engine_names
from neural_coder.runtime.flat import FlatProgram

BLOCKS = 40
CALLS = 250


def small() -> tuple[torch.nn.Module, torch.Tensor]:
    """A model that takes a few microseconds, so that what is around it shows."""
    torch.manual_seed(0)
    layers = (torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.LayerNorm(32), torch.nn.Linear(32, 5))
    return torch.nn.Sequential(*layers).eval(), torch.randn(4, 16)


def bert() -> tuple[torch.nn.Module, torch.Tensor]:
    """A model of the size of BERT-base, with random weights."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    return BertModel(BertConfig()).eval(), torch.randint(0, 30000, (1, 128))


MODELS = {"small": small, "bert": bert}


def variants(only: list[str]) -> Iterator[tuple[str, str]]:
    """Engines and precisions that work here."""
    for name in engine_names():
        engine = import_module(f"neural_coder.runtime.engine_{name}").ENGINE
        for precision in engine.precisions if not only or name in only else ():
            if not (engine.missing() or engine.unavailable(precision) or engine.original_suffices(precision)):
                yield name, precision


def overhead(name: str, precision: str) -> tuple[list[float], list[float]]:
    """Microseconds per call of the model and of the bare session, block by block."""
    model, x = small()
    accelerate(model, engine=name, precision=precision, calibration=[x], strict=True)
    with torch.inference_mode():
        for _ in range(5):
            model(x)
        bare = _bare(model, x)
        for _ in range(500):
            model(x)
            bare()
        pairs = [(_block(lambda: model(x)), _block(bare)) for _ in range(BLOCKS)]
    assert explain(model).running == f"{name}/{precision}", explain(model)
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _bare(model: torch.nn.Module, x: torch.Tensor) -> Callable[[], object]:
    converted = vars(model)["forward"]._prover.converted
    (kind,) = converted.kinds.values()
    dtype = converted.conversion.compute_dtype
    given = x if dtype is None else x.to(dtype)
    if isinstance(kind.program, FlatProgram):
        return lambda: kind.program.session([given])
    return lambda: kind.program((given,), {})


def _block(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started) / CALLS * 1e6


def start(model_name: str, name: str, precision: str) -> float:
    """Seconds from `accelerate` to the end of the first accelerated call."""
    model, x = MODELS[model_name]()
    with torch.inference_mode():
        model(x)
        started = time.perf_counter()
        accelerate(model, engine=name, precision=precision, calibration=[x] * 8, strict=True)
        while not explain(model).calls_accelerated:
            model(x)
        return time.perf_counter() - started


def _fresh(model_name: str, name: str, precision: str, folder: str) -> float:
    environment = {**os.environ, "NEURAL_CODER_CACHE": folder, "TORCHINDUCTOR_CACHE_DIR": folder}
    command = [sys.executable, "-W", "ignore", __file__, "--start", model_name, name, precision]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="ENGINE")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--no-starts", action="store_true")
    parser.add_argument("--start", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.start:
        print(json.dumps(start(*options.start)))
        return
    chosen = list(variants(options.only))
    torch.set_num_threads(1)
    print(f"{'µs per call':32} {'model':>8} {'session':>8} {'guards':>8}   quartiles of the difference")
    for name, precision in chosen:
        with_guards, bare = overhead(name, precision)
        differences = [mine - theirs for mine, theirs in zip(with_guards, bare, strict=True)]
        low, middle, high = statistics.quantiles(differences, n=4)
        figures = f"{statistics.median(with_guards):8.1f} {statistics.median(bare):8.1f} {middle:8.1f}"
        print(f"{name + '/' + precision:32} {figures}   {low:.1f} to {high:.1f}", flush=True)
    if options.no_starts:
        return
    print(f"\n{'seconds to the first answer':32} {'model':>8} {'cold':>8} {'warm':>8} {'ratio':>8}")
    for model_name in options.models:
        for name, precision in chosen:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    cold, *warm = [_fresh(model_name, name, precision, folder) for _ in range(4)]
                except RuntimeError as error:
                    print(f"{name + '/' + precision:32} {model_name:>8} {error}")
                    continue
            again = statistics.median(warm)
            print(
                f"{name + '/' + precision:32} {model_name:>8} {cold:8.2f} {again:8.2f} {again / cold:8.0%}", flush=True
            )


if __name__ == "__main__":
    main()
