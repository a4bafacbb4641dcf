"""What the features share that hand an inference model to the runtime, which runs it in another engine or precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from neural_coder.edits import Accelerate, Edit
from neural_coder.records import Analysis, LeftAlone, Model, Witness
from neural_coder.transform import OCCUPIED, Transform, why_not, why_not_accelerated, why_not_inference_only


class Accelerated(Transform):
    """A feature that hands each model that is only used for inference to the runtime."""

    settable = True
    effect: ClassVar[str]
    """What becomes of a model, in words that follow its name."""
    precision: ClassVar[str | None] = None
    """What the runtime is asked for; None leaves it to another feature."""
    chooses_engine: ClassVar[bool] = True
    """Whether the runtime is told the engine; False leaves it to another feature."""
    taken: ClassVar[Mapping[str, str]] = OCCUPIED
    """Traits of models that it cannot take over, in words."""

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Hand over each model that can be."""
        for model in facts.models:
            reason = self.why_not(model, facts, value)
            if reason or model.ready is None:
                yield self.leave(model.line, reason)
            else:
                yield Accelerate(
                    at=model.ready,
                    name=model.name,
                    reason=f"{model.name} {self.effect}",
                    engine=self.backend_for(value) if self.chooses_engine else None,
                    precision=self.precision,
                    calibration=self.samples(value),
                )

    def why_not(self, model: Model, facts: Analysis, value: str | None) -> str:
        """Why a model is left alone, in words; empty when it is handed over."""
        return why_not_inference_only(model, facts) or why_not(model, self.taken)

    def samples(self, value: str | None) -> int | None:
        """Samples to calibrate on; None leaves it to the runtime."""
        return None

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when the runtime ran the model as it was asked to."""
        engine, _, precision = after.accelerated.partition("/")
        told = (not self.chooses_engine or self._ran_in(engine)) and self.precision in (None, precision)
        return "" if after.accelerated and told else why_not_accelerated(after)

    def _ran_in(self, engine: str) -> bool:
        return engine in {self.backend_for(value) for value in (self.values or (None,))}
