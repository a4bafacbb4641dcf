"""What an engine is: a file `engine_NAME.py` in this folder that holds one `ENGINE`.

An engine converts a copy of a model once (`convert`), and makes a program for each kind of call (`Conversion.program`).
Everything else, when it may run and whether its answers are right, is the dispatcher's business.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_coder.runtime.settings import NoOptions, Settings

if TYPE_CHECKING:
    import torch

    from neural_coder.runtime.cache import Entry
    from neural_coder.runtime.calibration import Calibration
    from neural_coder.runtime.structure import Call

REDUCED_TOLERANCE = 0.2
"""Relative difference that two ways to compute in 16 bits may have."""
QUANTIZED_TOLERANCE = 0.6
"""Relative difference beyond which a quantized model is broken; up to there it may lose much and keep the answers."""

PREFIX = "engine_"
Program = Callable[[tuple[object, ...], Mapping[str, object]], object]


class CannotConvert(Exception):
    """An engine cannot take this model or this call; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an engine is asked to make of a model."""

    settings: Settings
    calibration: Calibration
    """Holds the calls to calibrate on, once it is complete."""
    entry: Entry | None = None
    """Where converted models of this very kind are kept; None when nothing is to be kept."""

    @property
    def precision(self) -> str:
        """The precision that was asked for."""
        return self.settings.precision


class Conversion:
    """A model as an engine holds it."""

    def __init__(self, module: torch.nn.Module, *, compute_dtype: torch.dtype | None = None) -> None:
        """Keep the converted copy.

        Args:
            module: The converted copy.
            compute_dtype: Floating-point inputs are cast to this type; None leaves them as they are.
        """
        self.module = module
        self.compute_dtype = compute_dtype
        self.quantized_modules = 0
        self.graphs = 0
        self.cache_problem = ""
        """Why the converted model could not be kept; empty when it was, or need not be."""

    def program(self, call: Call, output: object) -> Program:
        """Return what answers calls like `call`.

        Args:
            call: An example, cast to `compute_dtype`.
            output: What the original gave for it; only its structure should be used.
        """
        module = self.module
        return lambda args, kwargs: module.forward(*args, **kwargs)

    def first_not_finite(self, call: Call) -> str:
        """Name the part of the converted model whose output is the first with NaN or infinity; empty if unknown.

        Args:
            call: The inputs, cast to `compute_dtype`.
        """
        from neural_coder.runtime.finite import first_not_finite

        return first_not_finite(self.module, call)

    def dtypes(self) -> Iterator[str]:
        """Names of the types that weights are stored in."""
        for parameter in self.module.parameters():
            yield str(parameter.dtype).removeprefix("torch.")


class Engine(ABC):
    """One way to run a model faster."""

    precisions: tuple[str, ...]
    modules: tuple[str, ...] = ()
    """Packages it needs besides torch; looked up, not imported, before it is used."""
    extra = ""
    """The extra of this package that installs them."""
    distributions: tuple[str, ...] = ()
    """Distributions whose versions decide whether a kept model may be used again."""
    options: type[Any] = NoOptions
    """A dataclass of the settings that only this engine has."""
    keeps = False
    """Whether conversions are kept on disk (see `Request.entry`)."""
    specialised = False
    """A program answers only calls with exactly the same shapes and plain values."""
    max_kinds = 8
    """Kinds of call (structures, types, and shapes where specialised) that get a program of their own."""
    checks = 1
    """How many calls of each kind are answered by the original too, to compare."""
    takes_objects = False
    """Whether inputs may hold objects that the forward changes, such as the key-value cache of a language model."""
    under_autocast = True

    @abstractmethod
    def convert(self, model: torch.nn.Module, request: Request) -> Conversion:
        """Convert a copy of `model`, whose own modules must stay as they are.

        Raises:
            CannotConvert: with the reason in words.
        """

    @abstractmethod
    def tolerance(self, precision: str) -> float:
        """Largest relative difference to the original's answers that can still be rounding."""

    @abstractmethod
    def memory(self, precision: str) -> float:
        """Memory that a conversion takes at its peak, as a multiple of the size of the model's weights."""

    def compute_dtype(self, precision: str) -> torch.dtype | None:
        """The type that floating-point inputs are cast to; None leaves them as they are."""
        if precision != "bf16":
            return None
        import torch

        return torch.bfloat16

    def original_suffices(self, precision: str) -> bool:
        """Whether this is just how the original runs."""
        return False

    def unavailable(self, precision: str) -> str:
        """Say why this machine cannot run a precision at all; empty when it can."""
        return ""

    def surroundings(self) -> str:
        """What a kept model depends on besides the model, its settings and versions; empty for nothing."""
        return ""

    def missing(self) -> str:
        """Say what to install before this engine can be used; empty when everything is there."""
        absent = [name for name in self.modules if importlib.util.find_spec(name) is None]
        return f"{absent[0]} is not installed: pip install 'neural-coder[{self.extra}]'" if absent else ""


def engine_names() -> list[str]:
    """Names of all engines, found by their files."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name.removeprefix(PREFIX) for module in found if module.name.startswith(PREFIX))


def load_engine(name: str, precision: str) -> Engine:
    """Return an engine by its name, after checking that it knows the precision.

    Raises:
        ValueError: for a name or a precision that does not exist, with what does.
    """
    names = engine_names()
    if name not in names:
        raise ValueError(f"no engine is called {name!r}{_nearest(name, names)}; engines: {', '.join(names)}")
    engine: Engine = importlib.import_module(f"{__package__}.{PREFIX}{name}").ENGINE
    if precision not in engine.precisions:
        known = ", ".join(engine.precisions)
        raise ValueError(f"engine {name!r} has no precision {precision!r}; it has: {known}")
    return engine


def _nearest(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
