"""Whether a variant still gives the answers of the original: the user's metrics, the loss curve, or the outputs.

The baseline runs twice first. What differs from itself, or proves nothing, is "not verified", and never wins.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from neural_coder.bench import bootstrap
from neural_coder.records import Accuracy, Comparison, Criterion, Metric, MetricValue, Run, Safety, Task
from neural_coder.units import count, percent

SAME_MATH_ERROR = 1e-3
"""Largest relative error of outputs where only rounding in the last digits may differ (fp32 gives 1e-6 to 1e-4)."""
ERROR_FACTOR = 10.0
"""Relative error of outputs that reduced precision may cause, in multiples of the allowed loss: 10 % for the usual 1 %.
Measured: bf16 0.5 to 1.2 % on BERT and MiniLM, 4.5 % on EfficientNet-Lite0; good int8 4 to 7 %, bad int8 31 to 42 %."""
MANY_ROWS_ERROR_FACTOR = 30.0
"""The same for logits, once enough rows agree that their agreement is evidence by itself."""
TIE_ERROR = 0.02
"""With so small an error of the logits, one flipped row among few is a near tie and no lost answer."""
UNSTABLE_LOSS = 0.05
"""A baseline whose loss curve differs from its own repetition by more than this cannot verify anything."""
LAST_THIRD_FACTOR = 5.0
"""The mean loss of the last third of the steps may differ by this multiple of what the mean over all steps may: it is
there to catch a run that diverges, and other dropout masks alone move it by several per cent."""
FEWEST_STEPS = 3
"""Fewer training steps show no curve."""


def check(task: Task, *, criterion: Criterion, safety: Safety, baseline: Run, control: Run, variant: Run) -> Accuracy:
    """Compare the answers of a variant with those of the original.

    The first that applies decides: the user's metrics, when there are any, of which all must be kept; the loss over the
    first steps, for training; the captured outputs.

    Args:
        task: What the script is measured by.
        criterion: The metrics, if any, and the loss that is allowed.
        safety: How much the variant's features may change outputs, at worst.
        baseline: The first run of the original.
        control: The second run of the original, compared with the first.
        variant: A run of the variant, compared with the first run of the original.
    """
    if criterion.metrics:
        result = _check_metrics(criterion.metrics, (baseline, control, variant))
    elif task == "training":
        result = _check_losses(criterion, baseline, control, variant)
    else:
        result = _check_outputs(criterion, safety, control.comparison, variant.comparison)
    error = variant.comparison.relative_error if variant.comparison else None
    return replace(result, relative_error=_finite(error))


# --- the user's metrics ---------------------------------------------------------------------------------------------


def _check_metrics(metrics: Sequence[Metric], runs: tuple[Run, Run, Run]) -> Accuracy:
    """Check each, and let the one decide that fails, or that cannot be checked, or that comes nearest to failing."""
    found = tuple(_check_metric(metric, runs) for metric in metrics)
    deciding = max(found, key=_strain)
    if deciding.kept and len(found) > 1:
        others = f"Of {count(len(found), 'metric')} this one comes nearest to what is allowed."
        deciding = replace(deciding, reason=f"{deciding.reason} {others}")
    return replace(deciding, metrics=found)


def _strain(found: Accuracy) -> tuple[bool, bool, float]:
    """How near a metric is to failing; what is surely lost counts more than what is unknown."""
    loss = math.inf if found.loss is None else found.loss
    return not found.kept and found.verified, not found.verified, loss / found.allowed if found.allowed else loss


def _check_metric(metric: Metric, runs: tuple[Run, Run, Run]) -> Accuracy:
    """Compare a metric's values in the original's first run, its second one, and the variant's.

    Relative to zero nothing can be said: a metric that is 0 may lose nothing, unless its allowed loss is absolute.
    """
    first, control, variant = (_value_of(metric, run) for run in runs)
    result = _Result(f"metric {metric.name}", metric.allowed, absolute=metric.absolute)
    old, again, new = first.value, control.value, variant.value
    if old is None or not math.isfinite(old):
        return result.unverified(_no_number(metric, first, "original"))
    if old == 0 and not metric.absolute:
        result = replace(result, allowed=0.0, absolute=True)
    result = replace(result, baseline_value=old, value=_finite(new))
    if again is None or not math.isfinite(again):
        return result.unverified(_no_number(metric, control, "original's second run"))
    scale = 1.0 if result.absolute else abs(old)
    if abs(again - old) / scale > result.allowed:
        return result.unverified(
            f"The metric {metric.name} of the original differs from run to run ({old:.6g}, {again:.6g}), "
            f"by more than is allowed; fix the script's seeds.{_at_zero(metric, old)}"
        )
    if new is None:
        return result.unverified(_no_number(metric, variant, "variant"))
    if variant.calls_model and runs[2].witness.autocast != runs[0].witness.autocast:
        return result.unverified(
            f"The function of the metric {metric.name} calls the model itself, outside of the autocast that the "
            "variant puts around the script's calls; let the script compute the answers, and the function judge them."
        )
    if not math.isfinite(new):
        return result.lost(None, f"The metric {metric.name} became {new}.")
    sign = 1 if metric.lower_is_better else -1
    loss = sign * (new - old) / scale
    bounds = _bounds(first, variant, sign / scale)
    detail = f"the metric {metric.name} was {old:.6g} and is {new:.6g}"
    found = result.decided(loss <= result.allowed, loss, detail, bounds)
    return found if found.kept else replace(found, reason=found.reason + _at_zero(metric, old))


def _value_of(metric: Metric, run: Run) -> MetricValue:
    missing = MetricValue(name=metric.name, value=None, problem="it was not looked at")
    return next((value for value in run.metrics if value.name == metric.name), missing)


def _no_number(metric: Metric, found: MetricValue, whose: str) -> str:
    problem = found.problem or f"it is {found.value}"
    return f"The {whose} gives no finite number for the metric {metric.name}: {problem}."


def _at_zero(metric: Metric, old: float) -> str:
    if old != 0 or metric.absolute:
        return ""
    return " Relative to 0 any loss is too much; allow one in the metric's own unit: --accuracy 0.5abs."


def _bounds(old: MetricValue, new: MetricValue, factor: float) -> tuple[float, float] | None:
    """The interval of a loss, from what each sample has lost; None where the samples are not the same ones."""
    if old.count != new.count or len(old.samples) != len(new.samples):
        return None
    losses = tuple(factor * (after - before) for before, after in zip(old.samples, new.samples, strict=True))
    return bootstrap.of_mean(losses) if all(map(math.isfinite, losses)) else None


# --- the loss curve -------------------------------------------------------------------------------------------------


def _check_losses(criterion: Criterion, baseline: Run, control: Run, variant: Run) -> Accuracy:
    """Compare mean losses over the common first steps, and over the last third of these.

    Both directions count: equal seeds give equal curves, and a loss that falls faster than the original's shows another
    training. A third of the steps carries about √3 times the noise, so it is allowed twice the difference.

    Measured on a small CNN on digits, 20 to 200 steps with Adam and with SGD: bf16 changes the mean loss by 0.004 to
    0.3 % (last third: up to 0.9 %), channels-last by at most 0.02 %, a fused optimizer not at all, other dropout masks
    by 0.2 to 1.3 % (up to 3.8 %); bf16 draws other masks, too (4.5 %).
    """
    result = _Result("loss curve", criterion.relative_loss)
    steps = min(len(baseline.losses), len(control.losses), len(variant.losses))
    old = baseline.losses[:steps]
    if reason := _why_no_curve(baseline.losses, control.losses, variant.losses):
        return result.unverified(reason)
    own = _curve_differences(old, control.losses[:steps])
    if not max(own) <= UNSTABLE_LOSS:
        return result.unverified(
            f"The loss of the original differs from run to run by {percent(max(own))}; fix the script's seeds."
        )
    result = replace(
        result,
        allowed=max(criterion.relative_loss, 2 * max(own)),
        baseline_value=statistics.fmean(old),
        value=_finite(statistics.fmean(variant.losses[:steps])),
    )
    if not all(map(math.isfinite, variant.losses[:steps])):
        return result.lost(None, "The loss became NaN or infinite, which it does not in the original.")
    if reason := _broken_outputs(variant.comparison):
        return result.lost(None, reason)
    whole, end = _curve_differences(old, variant.losses[:steps])
    kept = whole <= result.allowed and end <= LAST_THIRD_FACTOR * result.allowed
    detail = (
        f"over {count(steps, 'step')} the mean loss differs by {percent(whole)}, in the last third by {percent(end)}"
    )
    return result.decided(kept, max(whole, end / LAST_THIRD_FACTOR), detail)


def _why_no_curve(old: Sequence[float], again: Sequence[float], new: Sequence[float]) -> str:
    """Why these losses can show nothing, in words; empty when they can."""
    for losses, whose in ((old, "original"), (again, "original's second run"), (new, "variant")):
        if len(losses) < FEWEST_STEPS:
            seen = count(len(losses), "loss", "losses")
            return f"The {whose} showed {seen}; a curve needs at least {FEWEST_STEPS}."
    if not all(map(math.isfinite, (*old, *again))):
        return "The loss of the original is NaN or infinite."
    if len(set(old)) == 1:
        return "The loss of the original never changes, so that it proves nothing."
    return ""


def _curve_differences(old: Sequence[float], new: Sequence[float]) -> tuple[float, float]:
    """Relative difference of the means over all steps and over the last third."""
    last = len(old) - max(1, len(old) // 3)
    return _mean_difference(old, new), _mean_difference(old[last:], new[last:])


def _mean_difference(old: Sequence[float], new: Sequence[float]) -> float:
    # Losses may be negative and cancel out (adversarial training), so their size is the scale.
    scale = statistics.fmean(map(abs, old))
    difference = abs(statistics.fmean(new) - statistics.fmean(old))
    return difference / scale if scale else difference


# --- outputs --------------------------------------------------------------------------------------------------------


def _check_outputs(
    criterion: Criterion, safety: Safety, control: Comparison | None, variant: Comparison | None
) -> Accuracy:
    """Compare captured outputs, each kind by what it is used for; the worst kind counts.

    - Tokens, labels, text: the share of entries that differ.
    - Logits: the share of rows with another largest entry.
    - Other floating-point outputs (embeddings, regressions): the relative error. That is strict: bfloat16 alone gives
      0.5 to 1.2 % on sentence embeddings, whose similarities it changes by e²/2, under 0.01 %. Who can live with more
      says so (`--accuracy`, or better a metric).

    Behind logits the relative error must stay below a bound, too: a dozen rows that agree prove little by themselves.
    """
    result = _Result("agreement of outputs", criterion.relative_loss)
    if reason := _why_no_evidence(control, "original's second run"):
        return result.unverified(reason)
    assert control is not None
    result = replace(result, criterion=_kind_of(control))
    own, _ = _output_loss(control)
    if own is None or own > criterion.relative_loss or _broken_outputs(control):
        return result.unverified(_not_repeatable(control))
    if not control.same_inputs:
        return result.unverified("The original feeds its model other inputs in each run; fix the script's seeds.")
    if reason := _broken_outputs(variant):
        return result.lost(None, reason)
    if reason := _why_no_evidence(variant, "variant"):
        return result.unverified(reason)
    assert variant is not None
    return _judge_outputs(replace(result, criterion=_kind_of(variant)), safety, variant)


def _judge_outputs(result: _Result, safety: Safety, variant: Comparison) -> Accuracy:
    loss, samples = _output_loss(variant)
    if loss is None:
        return result.unverified("The variant's outputs hold nothing that can be compared.")
    bound = _error_bound(result.allowed, safety, variant)
    error = variant.relative_error or 0.0
    kept = loss <= result.allowed and error <= bound
    detail = _describe(variant)
    if not kept and error <= bound and _is_near_tie(result.allowed, variant):
        detail += "; a single row with so small an error is a near tie"
        return result.decided(True, 0.0, detail)
    if not kept and not variant.same_inputs:
        return result.unverified(
            f"The variant's calls got other inputs than the original's ({detail}), so that single calls cannot be "
            "compared; a metric (--metric) can."
        )
    if error > bound and loss <= result.allowed:
        return result.lost(loss, f"{_sentence(detail)}; a difference of at most {percent(bound)} is allowed.")
    return result.decided(kept, loss, detail, bootstrap.of_share(round(loss * samples), samples))


def _output_loss(comparison: Comparison) -> tuple[float | None, int]:
    """The largest loss over the kinds of outputs, and the number of rows or entries that it is a share of (or 0).

    The loss is None when there is nothing to compare, or where there is NaN.
    """
    losses = []
    if comparison.exact_agreement is not None:
        losses.append((1.0 - comparison.exact_agreement, comparison.entries))
    if comparison.rows and comparison.top1_agreement is not None:
        losses.append((1.0 - comparison.top1_agreement, comparison.rows))
    elif comparison.relative_error is not None:
        losses.append((min(1.0, comparison.relative_error), 0))
    if any(math.isnan(loss) for loss in (*(loss for loss, _ in losses), comparison.relative_error or 0.0)):
        return None, 0
    return max(losses, default=(None, 0))


def _error_bound(allowed: float, safety: Safety, comparison: Comparison) -> float:
    if safety is Safety.SAME_MATH:
        return SAME_MATH_ERROR
    return allowed * (MANY_ROWS_ERROR_FACTOR if comparison.rows * allowed >= 1 else ERROR_FACTOR)


def _is_near_tie(allowed: float, comparison: Comparison) -> bool:
    """Whether all that differs is one row among too few to resolve the allowed loss, by no more than rounding."""
    if comparison.top1_agreement is None or comparison.rows * allowed >= 1 or not comparison.same_inputs:
        return False
    flipped = round(comparison.rows * (1 - comparison.top1_agreement))
    exact = comparison.exact_agreement
    error = comparison.relative_error
    labels_agree = exact is None or 1 - exact <= allowed
    return (
        allowed > 0
        and flipped == 1
        and comparison.rows > 1
        and labels_agree
        and error is not None
        and error <= TIE_ERROR
    )


def _kind_of(comparison: Comparison) -> str:
    if comparison.rows and comparison.top1_agreement is not None:
        return "top-1 agreement"
    if comparison.relative_error is not None:
        return "relative error of outputs"
    return "equal outputs"


def _describe(comparison: Comparison) -> str:
    """What was seen, as the middle of a sentence."""
    parts = []
    if comparison.rows and comparison.top1_agreement is not None:
        agreeing = round(comparison.rows * comparison.top1_agreement)
        parts.append(f"{agreeing} of {count(comparison.rows, 'row')} have the same largest entry")
    if comparison.exact_agreement is not None:
        parts.append(f"{percent(comparison.exact_agreement)} of the labels or tokens are equal")
    if comparison.relative_error is not None:
        parts.append(f"the outputs differ by {percent(comparison.relative_error)}")
    return ", ".join(parts)


def _why_no_evidence(comparison: Comparison | None, whose: str) -> str:
    if comparison is None or comparison.calls == 0:
        return f"No outputs of the {whose} could be compared."
    if comparison.degenerate:
        return f"The outputs prove nothing: {comparison.degenerate}."
    return ""


def _broken_outputs(comparison: Comparison | None) -> str:
    """What no tolerance excuses, in words."""
    if comparison is None:
        return ""
    if comparison.not_finite:
        return f"NaN or infinity came out of {count(comparison.not_finite, 'call')} where the original gives numbers."
    if comparison.structure:
        return f"The outputs have another structure: {comparison.structure}."
    return ""


def _not_repeatable(control: Comparison) -> str:
    seen = _describe(control) or "their structure differs"
    return f"The original's outputs differ from run to run ({seen}), so that nothing can be compared with them."


# --- results --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Result:
    """What is known before the decision."""

    criterion: str
    allowed: float
    absolute: bool = False
    baseline_value: float | None = None
    value: float | None = None

    def unverified(self, reason: str) -> Accuracy:
        return self._accuracy(verified=False, kept=False, loss=None, reason=reason)

    def lost(self, loss: float | None, reason: str) -> Accuracy:
        return self._accuracy(verified=True, kept=False, loss=loss, reason=reason)

    def decided(self, kept: bool, loss: float, detail: str, bounds: tuple[float, float] | None = None) -> Accuracy:
        ending = "." if kept else f"; a loss of at most {self._shown(self.allowed)} is allowed."
        reason = _sentence(detail) + ending + self._doubt(kept, bounds)
        found = self._accuracy(verified=True, kept=kept, loss=max(0.0, loss), reason=reason)
        return found if bounds is None else replace(found, loss_low=bounds[0], loss_high=bounds[1])

    def _doubt(self, kept: bool, bounds: tuple[float, float] | None) -> str:
        """That other samples might have led to another decision, in words."""
        if bounds is None or not bounds[0] <= self.allowed < bounds[1]:
            return ""
        might = f"as much as {self._shown(bounds[1])}" if kept else f"as little as {self._shown(max(0.0, bounds[0]))}"
        return f" On other samples it might lose {might} (95 % interval): more samples would tell more."

    def _shown(self, loss: float) -> str:
        return f"{loss:.4g}" if self.absolute else percent(loss)

    def _accuracy(self, *, verified: bool, kept: bool, loss: float | None, reason: str) -> Accuracy:
        return Accuracy(
            criterion=self.criterion,
            verified=verified,
            kept=kept,
            loss=loss,
            allowed=self.allowed,
            absolute=self.absolute,
            baseline_value=self.baseline_value,
            value=self.value,
            reason=reason,
        )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
