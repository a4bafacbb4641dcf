"""Calls the user's metric functions once the script has ended, and takes their answers apart."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import values

MOST_SAMPLES = 1000
"""Values that are reported; more are averaged in groups of neighbours, which tells as much about their mean."""
UNFINISHED = "the function did not come to its end"


def unfinished(specs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is reported when a function ends the process, or the time limit comes first."""
    return [_missing(spec, UNFINISHED) for spec in specs]


def measure(spec: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """Call one function; whatever goes wrong in it is part of the answer.

    Args:
        spec: The metric: `name`, `file`, `function`.
        names: The script's global names.

    Returns:
        The record `neural_coder.records.MetricValue` as plain data.
    """
    try:
        # What it prints is not the script's: patterns of other metrics must not find it.
        with contextlib.redirect_stdout(sys.stderr):
            function = getattr(_load(spec), spec["function"])
            with _watching() as called:
                numbers, is_sampled = _numbers(function(dict(names)))
        value = math.fsum(numbers) / len(numbers)
    except (Exception, SystemExit) as error:
        message = f"{type(error).__name__}: {error}".strip().split("\n")[0][:300].rstrip(". ")
        return _missing(spec, f"{Path(spec['file']).name}:{spec['function']} raised {message}")
    return {
        **_missing(spec, ""),
        "value": value,
        "samples": _grouped(numbers) if is_sampled else [],
        "count": len(numbers) if is_sampled else 0,
        "calls_model": bool(called),
    }


def _missing(spec: Mapping[str, Any], problem: str) -> dict[str, Any]:
    return {
        "name": spec["name"],
        "value": None,
        "samples": [],
        "count": 0,
        "calls_model": False,
        "problem": problem,
    }


def _load(spec: Mapping[str, Any]) -> Any:
    """Run the file under a name that no module of the user has."""
    name = f"_neural_coder_metric_{abs(hash(spec['file']))}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, spec["file"])
    if found is None or found.loader is None:
        raise ImportError(f"{spec['file']} cannot be imported")
    module = importlib.util.module_from_spec(found)
    # Data classes look their module up. The neighbours of the file come last, so that they hide nothing.
    sys.modules[name] = module
    sys.path.append(str(Path(spec["file"]).parent))
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _numbers(answer: Any) -> tuple[list[float], bool]:
    """The numbers that a function gave, and whether there is one for each sample.

    Raises:
        TypeError, ValueError: It gave something else, or nothing.
    """
    if values.is_tensor(answer):
        answer = answer.detach()
    plain = answer.reshape(-1) if getattr(answer, "shape", ()) != () and hasattr(answer, "reshape") else answer
    plain = plain.tolist() if hasattr(plain, "tolist") else plain
    if isinstance(plain, (bool, int, float)):
        return [float(plain)], False
    if isinstance(plain, (str, bytes, Mapping)) or not hasattr(plain, "__iter__"):
        raise TypeError(f"it returned {type(answer).__name__}, neither a number nor a sequence of numbers")
    numbers = [float(number) for number in plain]
    if not numbers:
        raise ValueError("it returned no numbers")
    return numbers, True


def _grouped(numbers: Sequence[float]) -> list[float]:
    size = math.ceil(len(numbers) / MOST_SAMPLES)
    groups = [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return [math.fsum(group) / len(group) for group in groups]


@contextlib.contextmanager
def _watching() -> Iterator[list[str]]:
    """Note whether a PyTorch module is called meanwhile; only the first call takes this way."""
    called: list[str] = []
    module_class = getattr(getattr(sys.modules.get("torch"), "nn", None), "Module", None)
    if module_class is None:
        yield called
        return
    before = module_class.__call__

    def note(module: Any, *args: Any, **kwargs: Any) -> Any:
        called.append(type(module).__name__)
        module_class.__call__ = before
        return before(module, *args, **kwargs)

    module_class.__call__ = note
    try:
        yield called
    finally:
        module_class.__call__ = before
