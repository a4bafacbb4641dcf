"""What the features that run models under autocast share: which calls and steps can be wrapped, and which not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from neural_coder.edits import Edit, Wrap
from neural_coder.records import Analysis, Call, LeftAlone, TrainingStep, Witness
from neural_coder.transform import OCCUPIED, REDUCED, Transform, traits_of

ALREADY = "it already runs under autocast"
TEACHES = "its result is used in training and keeps full precision"
HANDLED = REDUCED | {trait: OCCUPIED[trait] for trait in ("accelerate", "jit", "quantized")}


class Autocast(Transform):
    """A feature that puts `torch.autocast` around inference calls, and around forward and loss of training steps."""

    device: ClassVar[str] = "cpu"
    """The kind of device that the models run on."""

    dtypes: ClassVar[Mapping[str | None, str]] = {None: "bfloat16"}
    """For each value of the feature the type in `torch` that operations are cast to."""

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Wrap the forward and loss of each training step, and each inference call."""
        dtype = self.dtypes[value or next(iter(self.dtypes))]
        item = f'torch.autocast("{self.device}", dtype=torch.{dtype})'
        steps = [(step, self.why_not_step(step, facts, dtype)) for step in facts.steps]
        alone = _alone((step.scope, step.backward.line, reason) for step, reason in steps)
        wrapped = []
        for step, reason in steps:
            reason = reason or alone.get(step.scope, "")
            if reason or step.forward_and_loss is None:
                yield self.leave(step.backward.line, reason)
            elif step.forward_and_loss not in wrapped:  # one forward may serve several backwards
                wrapped.append(step.forward_and_loss)
                yield Wrap(at=step.forward_and_loss, item=item, reason=f"forward and loss run in {dtype}")
        if steps and not wrapped and any(reason != ALREADY for _, reason in steps):
            for call in facts.inference:
                yield self.leave(call.line, "the script trains in float32 and evaluates so, too")
            return
        outside = [call for call in facts.inference if not any(around.contains(call.statement) for around in wrapped)]
        calls = [(call, _why_not_call(call, facts, dtype)) for call in outside]
        alone = _alone((call.scope, call.line, reason) for call, reason in calls)
        for call, reason in calls:
            if reason := reason or alone.get(call.scope, ""):
                yield self.leave(call.line, reason)
            else:
                yield Wrap(at=call.statement, item=item, reason=f"{call.callee}() runs in {dtype}")

    def why_not_step(self, step: TrainingStep, facts: Analysis, dtype: str) -> str:
        """Why a training step keeps its precision, in words; empty when it can be wrapped."""
        if step.autocast:
            return ALREADY
        if any(use.kind == "grad_scaler" for use in facts.devices):
            return "the script scales its loss for float16"
        if dtype == "bfloat16" and any(forward.reaches_numpy for forward in step.forwards):
            return f"its result goes to NumPy, which has no {dtype}"
        if step.forward_and_loss is None:
            return step.why_not or "its forward and loss are not in one block"
        return ""

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when such an autocast was active at the measured calls."""
        known = " or ".join(self.dtypes.values())
        return "" if after.autocast in self.dtypes.values() else f"no {known} autocast was active at the measured calls"


def _why_not_call(call: Call, facts: Analysis, dtype: str) -> str:
    if call.autocast:
        return ALREADY
    if call.feeds_training:
        return TEACHES
    if dtype == "bfloat16" and call.reaches_numpy:
        return "its result goes to NumPy, which has no bfloat16; bf16_weights gives float32 results"
    if call.reaches_cross_entropy:
        return f"its result goes to a binary cross-entropy, which takes no {dtype} with float32 targets"
    found = [words for trait, words in sorted(HANDLED.items()) if trait in traits_of(call, facts)]
    if found:
        return f"{call.model} {found[0]}"
    return "" if call.wrappable else call.why_not_wrappable or "no `with` block can be put around it"


def _alone(sites: Iterable[tuple[str, int, str]]) -> dict[str, str]:
    """For each scope that has a site which must stay in float32, why its other sites stay so, too.

    What one site makes may reach another, and a float32 layer that gets bfloat16 outside of autocast raises an error.

    Args:
        sites: The scope and the line of each site, and why it cannot be wrapped.
    """
    return {
        scope: f"line {line} stays in float32 ({reason}), and one result may reach the other"
        for scope, line, reason in sites
        if reason not in ("", ALREADY, TEACHES)
    }
