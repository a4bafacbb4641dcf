"""What the features that quantize models share: an engine named by the value, and which models can be handed to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from neural_coder.accelerated import Accelerated
from neural_coder.records import Analysis, Model
from neural_coder.transform import OCCUPIED, REDUCED

DEFAULT_SAMPLES = 32
"""What the runtime calibrates on when nothing is said."""
FEW_CALLS = 100
MIN_CALLS = 4
MATRICES = frozenset({"Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "Linear", "Conv1D"})
"""Layers that most engines quantize statically; `Conv1D` is a linear layer of transformers."""


class Quantization(Accelerated):
    """A feature whose value names the engine that quantizes the models; its own name is the precision."""

    quantizable: ClassVar[Mapping[str, frozenset[str]]]
    """For each engine the classes of layers that it quantizes; the engines are the feature's values."""
    manner: ClassVar[str] = "dynamically"
    taken = OCCUPIED | REDUCED

    @classmethod
    def backend_for(cls, value: str | None) -> str:
        """The engine that the value names."""
        return (value or cls.values[0]).partition(":")[0]

    def why_not(self, model: Model, facts: Analysis, value: str | None) -> str:
        """A model that is known to have none of these layers is left alone, too."""
        reason, engine = super().why_not(model, facts, value), self.backend_for(value)
        if reason or model.layers is None or model.layers & self.quantizable[engine]:
            return reason
        return f"{model.name} has no layers that {engine} quantizes {self.manner}"


class StaticQuantization(Quantization):
    """One whose scales are found on the first calls; its value may say on how many samples: `ENGINE:8`."""

    manner = "statically"

    @classmethod
    def check_value(cls, value: str | None) -> str:
        """An engine, and maybe a number of samples."""
        engine, colon, samples = (value or "").partition(":")
        if colon and not (samples.isascii() and samples.isdigit() and int(samples) > 0):
            return f"{cls.name()} takes an engine, or ENGINE:SAMPLES with a number of samples"
        return super().check_value(engine if value is not None else None)

    @classmethod
    def fitted(cls, value: str | None, *, calls: int, items: int) -> str | None:
        """Scripts that make few calls calibrate on a third of them, so that the others gain."""
        samples = max(MIN_CALLS, calls // 3) * items
        if calls >= FEW_CALLS or samples >= DEFAULT_SAMPLES or ":" in (value or ""):
            return value
        return f"{cls.backend_for(value)}:{samples}"

    def samples(self, value: str | None) -> int | None:
        """The number that the value gives."""
        given = (value or "").partition(":")[2]
        return int(given) if given else None
