"""What the features that quantize models share: an engine named by the value, and which models can be handed to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from neural_coder.edits import Accelerate, Edit
from neural_coder.records import Analysis, LeftAlone, Model, Witness
from neural_coder.transform import (
    OCCUPIED,
    REDUCED,
    Transform,
    why_not,
    why_not_accelerated,
    why_not_inference_only,
)

DEFAULT_SAMPLES = 32
"""What the runtime calibrates on when nothing is said."""
FEW_CALLS = 100
MIN_CALLS = 4
MATRICES = frozenset({"Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "Linear", "Conv1D"})
"""Layers that most engines quantize statically; `Conv1D` is a linear layer of transformers."""


class Quantization(Transform):
    """A feature that hands each inference model to an engine that quantizes it."""

    quantizable: ClassVar[Mapping[str, frozenset[str]]]
    """For each engine the classes of layers that it quantizes; the engines are the feature's values."""
    effect: ClassVar[str]
    """What becomes of the model, in words."""

    @classmethod
    def backend_for(cls, value: str | None) -> str:
        """The engine that the value names."""
        return (value or cls.values[0]).partition(":")[0]

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Hand each inference model that may hold such layers to the runtime."""
        engine, samples = self.backend_for(value), (value or "").partition(":")[2]
        for model in facts.models:
            reason = self._why_not(model, facts, engine)
            if reason or model.ready is None:
                yield self.leave(model.line, reason)
            else:
                yield Accelerate(
                    at=model.ready,
                    name=model.name,
                    reason=f"{model.name} {self.effect}",
                    engine=engine,
                    precision=self.name(),
                    calibration=int(samples) if samples else None,
                )

    def _why_not(self, model: Model, facts: Analysis, engine: str) -> str:
        if reason := why_not_inference_only(model, facts):
            return reason
        if model.layers is not None and not model.layers & self.quantizable[engine]:
            return f"{model.name} has no layers that {engine} quantizes in this way"
        return why_not(model, OCCUPIED | REDUCED)

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when the runtime ran the model so."""
        return "" if after.accelerated.endswith(f"/{self.name()}") else why_not_accelerated(after)


class StaticQuantization(Quantization):
    """One whose scales are found on the first calls; its value may say on how many samples: `ENGINE:8`."""

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
