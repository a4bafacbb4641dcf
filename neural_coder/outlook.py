"""What first looks have shown so far says about the variants that still wait for theirs.

Which one comes next, and which cannot win any more: where an engine is far behind with one precision, the others need
no look of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from neural_coder import registry
from neural_coder.records import Feature, Plan
from neural_coder.units import ratio

RUN_SECONDS = 8.0
"""What a run of a script typically takes before its model is at full speed: imports, weights, the first calls."""
SURPRISE = 2.0
"""How many times faster than foreseen a variant may turn out. Engines used by hand on six networks (ResNet-50, ViT,
BERT, ...; AVX-512 with BF16 and VNNI) gave at most 1.8 times what their float32 and the promises foretell; compiled
bf16 autocast gave 2.8 times that, and was never the fastest."""
RESTLESS_SURPRISE = 4.0
"""The same where other programs were at work during a look, which then is easily off by half."""

ORIGINAL = Plan(features=(), backend="torch")
FLOAT32: frozenset[Feature] = frozenset()
"""No feature that lowers the precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What one first look has shown."""

    plan: Plan
    gain: float | None
    """Speed-up; None where the variant did not run as itself."""
    right: bool
    """Whether it may still win: its answers were kept."""
    seconds: float
    """For the whole run."""
    restless: bool = False
    """Whether other programs took the cores."""


@dataclass(slots=True)
class Outlook:
    """Foresees gain and cost of first looks, from promises and from the looks at other variants of the same engine."""

    promise: Callable[[Plan], float]
    """How many times faster a plan typically is on this machine."""
    run_seconds: float = RUN_SECONDS
    """For one run of the original."""
    shown: list[Shown] = field(default_factory=list)

    def next_of(self, waiting: Sequence[Plan]) -> Plan:
        """The plan that promises most for the time that its look takes; among equals the first.

        An engine begins in float32: that is its cheapest conversion, and tells most about the others.
        """
        best = max(waiting, key=self.worth)
        if self._seen(best.backend, FLOAT32):
            return best
        return max(
            (plan for plan in waiting if plan.backend == best.backend),
            key=lambda plan: (not _lower_precision(plan), self.worth(plan)),
        )

    def worth(self, plan: Plan) -> float:
        """What a look at it promises for each second; for what would be slower than the original, its low cost."""
        gain, seconds = self.gain(plan) - 1.0, self.seconds(plan)
        return gain / seconds if gain > 0 else gain * seconds

    def gain(self, plan: Plan) -> float:
        """How many times faster it would be: as promised, times what came of such promises so far."""
        kept = [gain / self.promise(known) for known, gain in self._kin(plan)]
        return self.promise(plan) * max(kept, default=1.0)

    def seconds(self, plan: Plan) -> float:
        """What its look would take: as long as the longest of its engine."""
        usual = self.run_seconds + registry.backends()[plan.backend].startup_seconds
        return max((each.seconds for each in self.shown if each.plan.backend == plan.backend), default=usual)

    def why_hopeless(self, plan: Plan) -> str:
        """Why it needs no look, in words; empty when it may win."""
        gain, best = self.gain(plan), max((each for each in self.shown if each.right), key=_gain, default=None)
        rival = max(1.0, _gain(best)) if best else 1.0
        known = self._kin(plan)
        surprise = RESTLESS_SURPRISE if any(each.restless for each in self.shown) else SURPRISE
        if not known or gain * surprise >= rival:
            return ""
        nearest, seen = max(known, key=lambda each: each[1])
        than = f"{best.plan.id} has {ratio(rival)}" if best and rival > 1 else "the original is faster"
        so_far = f"{nearest.id} came to {ratio(seen)}, so " if nearest.features else "on this machine "
        return f"Not run: {so_far}this would come to about {ratio(gain)}; {than}."

    def _kin(self, plan: Plan) -> list[tuple[Plan, float]]:
        """The speed-ups that tell most: of the same engine in the same precision, else in float32."""
        return self._seen(plan.backend, _lower_precision(plan)) or self._seen(plan.backend, FLOAT32)

    def _seen(self, backend: str, precision: frozenset[Feature]) -> list[tuple[Plan, float]]:
        """What an engine has shown in a precision; that PyTorch's own in float32 is the original is known before."""
        found = [
            (each.plan, each.gain)
            for each in self.shown
            if each.plan.backend == backend and each.gain and _lower_precision(each.plan) == precision
        ]
        return [(ORIGINAL, 1.0)] if not found and (backend, precision) == (ORIGINAL.backend, FLOAT32) else found


def _lower_precision(plan: Plan) -> frozenset[Feature]:
    return frozenset(feature for feature in plan.features if registry.transform(feature.name).kernel)


def _gain(shown: Shown) -> float:
    return shown.gain or 0.0
