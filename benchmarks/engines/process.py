"""One fresh process of the benchmark: the original, an engine by hand and our variant of it take turns on one model.

    python process.py '{"model": "lstm", "batch": 1, "variant": "openvino/fp32", "seconds": 3}'

The result is the last line of the standard output, as JSON.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from by_hand import CALIBRATION, INTEL, RECIPES, Answer, first_tensor
from zoo import Inputs, Subject, build

BLOCK_SECONDS = 0.3
ACCURACY_SAMPLES = 200
"""Enough that a single one of them does not decide about one per cent."""
_ANSWERS = 100_000
"""Seeds from here on make inputs that no calibration has seen."""


def main(job: Mapping[str, Any]) -> dict[str, Any]:
    """Do what the job says.

    Args:
        job: `model`, `batch`, `variant` (`engine/precision`) and `seconds` that each contestant is measured for.

    Returns:
        For each contestant the median time of a call in seconds, in each of its blocks, and what went wrong.
    """
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    subject = build(job["model"])
    inputs = subject.inputs(job["batch"], 0)
    calibration = [subject.inputs(job["batch"], seed) for seed in range(1, 1 + -(-CALIBRATION // job["batch"]))]
    contestants: dict[str, Answer] = {"original": lambda given: subject.model(**given)}
    problems: dict[str, str] = {}
    startup: dict[str, float] = {}
    makers: dict[str, Callable[[], Answer]] = {
        "by_hand": lambda: RECIPES[job["variant"]](_copy(subject), inputs, calibration),
        "ours": lambda: _ours(_copy(subject).model, job["variant"], calibration, inputs),
    }
    for name in ("by_hand",) if job["variant"].startswith(INTEL) else ("by_hand", "ours"):
        started = time.perf_counter()
        try:
            answer = makers[name]()
            answer(inputs)
        except Exception as error:  # the border to the engines: what fails is part of the result
            problems[name] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            continue
        contestants[name], startup[name] = answer, time.perf_counter() - started
    return {
        **job,
        "seconds_per_call": _measure(contestants, inputs, job["seconds"]),
        "startup_seconds": startup,
        "problems": problems,
        "accuracy": {
            name: _accuracy(subject, contestants["original"], answer)
            for name, answer in contestants.items()
            if name != "original" and subject.has_trained_weights
        },
        "threads": torch.get_num_threads(),
    }


def _copy(subject: Subject) -> Subject:
    return Subject(copy.deepcopy(subject.model), subject.inputs, subject.has_trained_weights, subject.is_transformer)


def _ours(model: torch.nn.Module, variant: str, calibration: list[Inputs], inputs: Inputs) -> Answer:
    import neural_coder.runtime

    engine, _, precision = variant.partition("/")
    neural_coder.runtime.accelerate(
        model, engine=engine, precision=precision, calibration=calibration, cache=False, strict=True
    )
    for _ in range(3):
        model(**inputs)
    explanation = neural_coder.runtime.explain(model)
    if explanation.running == "original":
        raise RuntimeError(explanation.reason)
    return lambda given: model(**given)


def _measure(contestants: Mapping[str, Answer], inputs: Inputs, seconds: float) -> dict[str, list[float]]:
    """Let the contestants take turns in blocks of calls; the first calls of a block only warm the caches."""
    medians: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(max(3, round(seconds / BLOCK_SECONDS))):
        for name, answer in contestants.items():
            medians[name].append(_block(answer, inputs))
    return medians


def _block(answer: Answer, inputs: Inputs) -> float:
    answer(inputs)
    calls: list[float] = []
    end = time.perf_counter() + BLOCK_SECONDS
    while not calls or (len(calls) < 200 and time.perf_counter() < end):
        started = time.perf_counter()
        answer(inputs)
        calls.append(time.perf_counter() - started)
    return statistics.median(calls)


def _accuracy(subject: Subject, original: Answer, answer: Answer) -> dict[str, float]:
    """How the answers agree with the original's on inputs that were not calibrated on."""
    wanted, got = [], []
    for seed in range(_ANSWERS, _ANSWERS + ACCURACY_SAMPLES):
        inputs = subject.inputs(1, seed)
        try:
            got.append(first_tensor(answer(inputs)).flatten())
        except Exception:  # a graph by hand that knows only the batch that it was made for
            return {}
        wanted.append(first_tensor(original(inputs)).flatten())
    expected, actual = torch.stack(wanted), torch.stack(got)
    return {
        "top1": float((expected.argmax(-1) == actual.argmax(-1)).float().mean()),
        "relative_error": float((actual - expected).norm() / expected.norm()),
        "cosine": float(torch.nn.functional.cosine_similarity(expected, actual, dim=-1).mean()),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
