from __future__ import annotations

import math
from dataclasses import replace

import pytest

from neural_coder.bench import accuracy
from neural_coder.records import Accuracy, Comparison, Criterion, Ending, Metric, MetricValue, Run, Safety, Witness

SAME = Comparison(
    calls=4,
    same_inputs=True,
    rows=0,
    top1_agreement=None,
    relative_error=0.0,
    exact_agreement=None,
    not_finite=0,
)
LOGITS = replace(SAME, rows=500, top1_agreement=1.0)
TOKENS = replace(SAME, relative_error=None, exact_agreement=1.0)
ACC = Metric(name="acc", pattern="acc ([0-9.]+)")
CURVE = tuple(2.0 - 0.05 * step for step in range(20))


def run(comparison: Comparison | None = None, losses: tuple[float, ...] = (), metric: float | None = None) -> Run:
    metrics = (MetricValue(name="acc", value=metric, problem="" if metric else "nothing was printed"),)
    return Run(ending=Ending(kind="ok"), comparison=comparison, losses=losses, metrics=metrics)


def outputs(
    variant: Comparison | None,
    control: Comparison | None = SAME,
    safety: Safety = Safety.CLOSE,
    criterion: Criterion | None = None,
) -> Accuracy:
    return accuracy.check(
        "inference",
        criterion=criterion or Criterion(),
        safety=safety,
        baseline=run(),
        control=run(control),
        variant=run(variant),
    )


def training(
    variant: tuple[float, ...], control: tuple[float, ...] = CURVE, old: tuple[float, ...] = CURVE
) -> Accuracy:
    return accuracy.check(
        "training",
        criterion=Criterion(),
        safety=Safety.CLOSE,
        baseline=run(losses=old),
        control=run(losses=control),
        variant=run(losses=variant),
    )


def metric(old: float | None, again: float | None, new: float | None, *, lower: bool = False, **allowed) -> Accuracy:
    return accuracy.check(
        "training",
        criterion=Criterion(metrics=(replace(ACC, lower_is_better=lower, **allowed),)),
        safety=Safety.LOSSY,
        baseline=run(metric=old),
        control=run(metric=again),
        variant=run(metric=new),
    )


def verified_and_kept(found: Accuracy) -> bool:
    assert found.reason.endswith("."), found.reason
    assert found.reason[:1].isupper() or found.reason[0].isdigit(), found.reason
    return found.verified and found.kept


# --- outputs


def test_equal_outputs_are_kept() -> None:
    found = outputs(SAME)
    assert verified_and_kept(found)
    assert found.loss == 0.0


@pytest.mark.parametrize("error", [0.002, 0.01])
def test_outputs_that_differ_by_no_more_than_is_allowed_are_kept(error: float) -> None:
    found = outputs(replace(SAME, relative_error=error))
    assert verified_and_kept(found)
    assert found.loss == error
    assert found.criterion == "relative error of outputs"


@pytest.mark.parametrize("error", [0.012, 0.07])
def test_embeddings_that_differ_by_more_need_a_user_who_allows_it(error: float) -> None:
    found = outputs(replace(SAME, relative_error=error))
    assert found.verified
    assert not found.kept
    assert verified_and_kept(outputs(replace(SAME, relative_error=error), criterion=Criterion(relative_loss=0.1)))


@pytest.mark.parametrize("error", [0.15, 0.31, 1.0, math.inf])
def test_embeddings_that_point_elsewhere_are_lost(error: float) -> None:
    found = outputs(replace(SAME, relative_error=error), safety=Safety.LOSSY)
    assert found.verified
    assert not found.kept


def test_the_same_arithmetic_must_give_nearly_the_same_numbers() -> None:
    assert verified_and_kept(outputs(replace(SAME, relative_error=5e-5), safety=Safety.SAME_MATH))
    found = outputs(replace(SAME, relative_error=0.01), safety=Safety.SAME_MATH)
    assert found.verified
    assert not found.kept
    assert "0.1 % is allowed" in found.reason


def test_agreement_of_many_rows_is_enough() -> None:
    assert verified_and_kept(outputs(replace(LOGITS, relative_error=0.15), control=LOGITS, safety=Safety.LOSSY))


def test_agreement_of_a_dozen_rows_may_be_chance() -> None:
    few = replace(LOGITS, rows=12, relative_error=0.15)
    found = outputs(few, control=LOGITS, safety=Safety.LOSSY)
    assert found.verified
    assert not found.kept


def test_flipped_answers_are_lost() -> None:
    found = outputs(replace(LOGITS, top1_agreement=0.97, relative_error=0.01), control=LOGITS)
    assert found.verified
    assert not found.kept
    assert found.loss == pytest.approx(0.03)
    assert "485 of 500 rows" in found.reason


def test_one_row_that_flips_by_rounding_alone_is_a_near_tie() -> None:
    tie = replace(LOGITS, rows=8, top1_agreement=7 / 8, relative_error=0.01)
    found = outputs(tie, control=LOGITS)
    assert verified_and_kept(found)
    assert "near tie" in found.reason


@pytest.mark.parametrize(
    "change",
    [
        {"relative_error": 0.04},
        {"top1_agreement": 6 / 8},
        {"rows": 800, "top1_agreement": 7 / 8},
        {"rows": 1, "top1_agreement": 0.0},
        {"exact_agreement": 7 / 8},
    ],
)
def test_a_flip_is_no_near_tie_when_more_than_that_differs(change: dict[str, float]) -> None:
    tie = replace(LOGITS, rows=8, top1_agreement=7 / 8, relative_error=0.01)
    assert not outputs(replace(tie, **change), control=LOGITS).kept  # type: ignore[arg-type]


def test_no_flip_is_allowed_when_no_loss_is() -> None:
    tie = replace(LOGITS, rows=8, top1_agreement=7 / 8, relative_error=0.01)
    assert not outputs(tie, control=LOGITS, criterion=Criterion(relative_loss=0.0)).kept


def test_tokens_must_be_equal() -> None:
    assert verified_and_kept(outputs(TOKENS, control=TOKENS))
    found = outputs(replace(TOKENS, exact_agreement=0.9), control=TOKENS)
    assert found.verified
    assert not found.kept
    assert found.criterion == "equal outputs"


def test_the_worst_kind_of_output_counts() -> None:
    assert not outputs(replace(LOGITS, exact_agreement=0.5), control=LOGITS).kept


@pytest.mark.parametrize("control", [None, replace(SAME, calls=0), replace(SAME, degenerate="all are zero")])
def test_without_evidence_nothing_is_verified(control: Comparison | None) -> None:
    found = outputs(SAME, control=control)
    assert not found.verified
    assert not found.kept
    assert found.loss is None


def test_the_reason_of_degenerate_evidence_is_told() -> None:
    assert "all are zero" in outputs(SAME, control=replace(SAME, degenerate="all are zero")).reason


@pytest.mark.parametrize(
    "control",
    [
        replace(SAME, relative_error=1.4),
        replace(SAME, relative_error=math.nan),
        replace(LOGITS, top1_agreement=0.5),
        replace(SAME, structure="2 tensors instead of 1"),
        replace(SAME, same_inputs=False),
    ],
)
def test_a_baseline_that_differs_from_itself_cannot_verify(control: Comparison) -> None:
    found = outputs(SAME, control=control)
    assert not found.verified
    assert not found.kept


def test_no_captured_outputs_of_the_variant_verify_nothing() -> None:
    assert not outputs(None).verified
    assert not outputs(replace(SAME, calls=0)).verified
    assert not outputs(replace(SAME, relative_error=None)).verified


def test_new_nans_are_lost_answers() -> None:
    found = outputs(replace(SAME, not_finite=2))
    assert found.verified
    assert not found.kept
    assert "2 calls" in found.reason


def test_another_structure_is_a_lost_answer() -> None:
    found = outputs(replace(SAME, structure="a dict became a tuple"))
    assert found.verified
    assert not found.kept
    assert "a dict became a tuple" in found.reason


def test_answers_to_other_inputs_prove_nothing_when_they_differ() -> None:
    found = outputs(replace(SAME, same_inputs=False, relative_error=0.8))
    assert not found.verified
    assert "--metric" in found.reason


def test_a_second_model_may_get_rounded_inputs_from_the_first() -> None:
    assert verified_and_kept(outputs(replace(SAME, same_inputs=False, relative_error=0.01)))


# --- the user's metric


def test_a_metric_that_stays_is_kept() -> None:
    found = metric(0.97, 0.97, 0.965)
    assert verified_and_kept(found)
    assert found.loss == pytest.approx(0.005 / 0.97)
    assert (found.baseline_value, found.value) == (0.97, 0.965)


def test_a_metric_that_falls_is_lost_and_one_that_rises_is_not() -> None:
    assert not metric(0.97, 0.97, 0.95).kept
    assert verified_and_kept(metric(0.97, 0.97, 0.99))


def test_an_error_may_fall_and_not_rise() -> None:
    assert verified_and_kept(metric(10.0, 10.0, 8.0, lower=True))
    assert not metric(10.0, 10.0, 10.2, lower=True).kept


def test_metrics_below_zero_lose_in_the_same_direction() -> None:
    assert verified_and_kept(metric(-10.0, -10.0, -9.0))
    assert not metric(-10.0, -10.0, -11.0).kept


def test_from_zero_no_step_in_the_bad_direction_is_allowed_unless_an_absolute_one_is() -> None:
    assert verified_and_kept(metric(0.0, 0.0, 0.0, lower=True))
    assert verified_and_kept(metric(0.0, 0.0, 0.4))
    lost = metric(0.0, 0.0, 0.001, lower=True)
    assert (lost.verified, lost.kept, lost.loss, lost.allowed, lost.absolute) == (True, False, 0.001, 0.0, True)
    assert "--accuracy 0.5abs" in lost.reason
    kept = metric(0.0, 0.0, 0.001, lower=True, allowed=0.002, absolute=True)
    assert verified_and_kept(kept)
    assert "abs" not in kept.reason


def test_a_baseline_of_zero_that_wavers_is_told_what_to_do() -> None:
    found = metric(0.0, 1e-9, 0.0)
    assert not found.verified
    assert "--accuracy 0.5abs" in found.reason


def test_an_absolute_loss_is_in_the_metrics_own_unit() -> None:
    kept = metric(76.1, 76.1, 75.7, allowed=0.5, absolute=True)
    assert verified_and_kept(kept)
    assert (kept.loss, kept.allowed, kept.absolute) == (pytest.approx(0.4), 0.5, True)
    lost = metric(76.1, 76.1, 75.5, allowed=0.5, absolute=True)
    assert not lost.kept
    assert lost.reason.endswith("; a loss of at most 0.5 is allowed.")
    assert not metric(76.1, 75.5, 76.1, allowed=0.5, absolute=True).verified
    assert verified_and_kept(metric(76.1, 75.7, 76.1, allowed=0.5, absolute=True))


# --- several metrics

LOSS = Metric(name="loss", pattern="loss ([0-9.]+)", lower_is_better=True, allowed=0.02)


def several(acc: float | None, loss: float | None, *, old_loss: float = 1.0) -> Accuracy:
    def of(*values: float | None) -> Run:
        named = zip(("acc", "loss"), values, strict=True)
        return replace(run(), metrics=tuple(MetricValue(name=name, value=value) for name, value in named))

    return accuracy.check(
        "inference",
        criterion=Criterion(metrics=(ACC, LOSS)),
        safety=Safety.LOSSY,
        baseline=of(0.9, old_loss),
        control=of(0.9, old_loss),
        variant=of(acc, loss),
    )


def test_of_several_metrics_the_one_nearest_to_failing_is_told() -> None:
    found = several(0.899, 1.015)
    assert verified_and_kept(found)
    assert (found.criterion, found.loss, found.allowed) == ("metric loss", pytest.approx(0.015), 0.02)
    assert "Of 2 metrics this one comes nearest" in found.reason
    assert [each.criterion for each in found.metrics] == ["metric acc", "metric loss"]
    assert several(0.8919, 1.001).criterion == "metric acc"


def test_all_metrics_must_be_kept() -> None:
    found = several(0.9, 1.03)
    assert (found.criterion, found.verified, found.kept) == ("metric loss", True, False)
    assert several(0.8, 0.5).criterion == "metric acc"
    assert [each.kept for each in several(0.8, 0.5).metrics] == [False, True]


def test_one_metric_that_cannot_be_checked_is_enough_to_verify_nothing() -> None:
    found = several(0.9, None)
    assert (found.criterion, found.verified, found.kept) == ("metric loss", False, False)


def test_what_is_surely_lost_counts_more_than_what_is_unknown() -> None:
    found = several(0.5, None)
    assert (found.criterion, found.verified, found.kept) == ("metric acc", True, False)


# --- metrics with a value for each sample


def sampled(old: list[float], new: list[float], **settings: float) -> Accuracy:
    def of(samples: list[float]) -> Run:
        value = MetricValue(name="acc", value=sum(samples) / len(samples), samples=tuple(samples), count=len(samples))
        return replace(run(), metrics=(value,))

    return accuracy.check(
        "inference",
        criterion=Criterion(metrics=(replace(ACC, **settings),)),
        safety=Safety.LOSSY,
        baseline=of(old),
        control=of(old),
        variant=of(new),
    )


def test_the_interval_comes_from_what_each_sample_has_lost() -> None:
    right = [1.0] * 90 + [0.0] * 10
    same = sampled(right, right)
    assert (same.loss_low, same.loss_high) == (0.0, 0.0)
    shifted = sampled([index + 1.0 for index in range(50)], [index + 0.9 for index in range(50)])
    # All have lost as much, however different they are among themselves.
    assert shifted.loss_low == pytest.approx(shifted.loss)
    assert shifted.loss_high == pytest.approx(shifted.loss)


def test_a_kept_metric_that_few_samples_speak_for_says_so() -> None:
    found = sampled([1.0] * 200, [1.0] * 199 + [0.0])
    assert verified_and_kept(found)
    assert found.loss_low <= found.loss < found.allowed < found.loss_high
    assert "it might lose as much as" in found.reason
    assert found.reason.endswith("more samples would tell more.")


def test_a_lost_metric_that_few_samples_speak_against_says_so() -> None:
    found = sampled([1.0] * 200, [1.0] * 197 + [0.0] * 3)
    assert not found.kept
    assert found.loss_low < found.allowed < found.loss
    assert "it might lose as little as" in found.reason


def test_many_samples_leave_no_doubt() -> None:
    kept = sampled([1.0] * 900 + [0.0] * 100, [1.0] * 899 + [0.0] * 101)
    assert kept.loss < kept.loss_high < kept.allowed
    assert "more samples" not in kept.reason


def test_other_samples_have_no_difference() -> None:
    assert sampled([1.0] * 50, [1.0] * 49).loss_high is None
    assert sampled([1.0] * 5, [1.0] * 4 + [0.9]).loss_high is None  # too few


def test_the_interval_is_in_the_unit_of_the_loss() -> None:
    old, new = [10.0, 20.0] * 20, [10.0, 19.0] * 20
    relative, absolute = sampled(old, new), sampled(old, new, allowed=0.7, absolute=True)
    assert absolute.loss == pytest.approx(0.5)
    assert absolute.loss_high == pytest.approx(15 * relative.loss_high)
    assert 0.5 < absolute.loss_high < 0.7


# --- functions that look at the model instead of at what the script has computed


@pytest.mark.parametrize(("calls_model", "verified"), [(True, False), (False, True)])
def test_a_function_that_calls_the_model_outside_of_the_variants_autocast_verifies_nothing(
    calls_model: bool, verified: bool
) -> None:
    def of(autocast: str) -> Run:
        value = MetricValue(name="acc", value=0.9, calls_model=calls_model)
        return replace(run(), metrics=(value,), witness=Witness(autocast=autocast))

    found = accuracy.check(
        "inference",
        criterion=Criterion(metrics=(ACC,)),
        safety=Safety.CLOSE,
        baseline=of(""),
        control=of(""),
        variant=of("bfloat16"),
    )
    assert found.verified is verified


# --- intervals of shares of rows and entries


def test_agreement_of_rows_has_an_interval() -> None:
    found = outputs(replace(LOGITS, top1_agreement=0.992, relative_error=0.001), control=LOGITS)
    assert verified_and_kept(found)
    assert found.loss_low < found.loss == pytest.approx(0.008)
    assert 0.01 < found.loss_high < 0.03
    assert "as much as" in found.reason
    assert outputs(replace(TOKENS, exact_agreement=0.992, entries=500), control=TOKENS).loss_high == found.loss_high


def test_rows_that_all_agree_and_errors_without_rows_leave_no_doubt() -> None:
    found = outputs(LOGITS, control=LOGITS)
    assert (found.loss_low, found.loss_high) == (0.0, 0.0)
    assert outputs(replace(SAME, relative_error=0.005)).loss_high is None


@pytest.mark.parametrize(
    ("old", "again", "new"),
    [(None, 1.0, 1.0), (math.nan, 1.0, 1.0), (1.0, None, 1.0), (1.0, 1.0, None), (1.0, 0.9, 1.0), (1.0, 1.1, 1.0)],
)
def test_a_metric_that_is_missing_or_unstable_verifies_nothing(
    old: float | None, again: float | None, new: float | None
) -> None:
    found = metric(old, again, new)
    assert not found.verified
    assert not found.kept


def test_a_metric_that_becomes_nan_is_lost() -> None:
    found = metric(1.0, 1.0, math.nan)
    assert found.verified
    assert not found.kept
    assert found.value is None


def test_the_metric_goes_before_the_outputs() -> None:
    found = accuracy.check(
        "inference",
        criterion=Criterion(metrics=(ACC,)),
        safety=Safety.LOSSY,
        baseline=run(metric=0.9),
        control=run(SAME, metric=0.9),
        variant=run(replace(SAME, relative_error=0.5), metric=0.9),
    )
    assert verified_and_kept(found)
    assert found.relative_error == 0.5


# --- the loss curve


def test_equal_loss_curves_are_kept() -> None:
    assert verified_and_kept(training(CURVE))


def test_rounding_in_the_losses_is_kept() -> None:
    assert verified_and_kept(training(tuple(loss * (1 + 0.004 * (-1) ** i) for i, loss in enumerate(CURVE))))


@pytest.mark.parametrize("factor", [1.05, 0.95])
def test_losses_that_are_higher_or_lower_mean_another_training(factor: float) -> None:
    found = training(tuple(loss * factor for loss in CURVE))
    assert found.verified
    assert not found.kept
    assert found.loss == pytest.approx(0.05)


def test_a_curve_that_drifts_away_at_its_end_is_lost() -> None:
    # Up and down cancel out over all steps, but not in the last third.
    bent = tuple(loss + (0.06 if step > 13 else -0.025) for step, loss in enumerate(CURVE))
    assert not training(bent).kept


def test_an_optimizer_that_does_nothing_is_lost() -> None:
    assert not training((2.0,) * 20).kept


def test_only_common_steps_are_compared() -> None:
    assert verified_and_kept(training(CURVE[:12]))


def test_the_noise_of_the_baseline_widens_what_is_allowed() -> None:
    noisy = tuple(loss * 1.02 for loss in CURVE)
    found = training(tuple(loss * 0.97 for loss in CURVE), control=noisy)
    assert verified_and_kept(found)
    assert found.allowed == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("old", "control", "variant"),
    [
        (CURVE, tuple(loss * 1.08 for loss in CURVE), CURVE),
        (CURVE, CURVE, CURVE[:2]),
        ((), (), ()),
        ((math.nan,) * 20, CURVE, CURVE),
        (CURVE, (math.inf,) * 20, CURVE),
        ((1.0,) * 20, (1.0,) * 20, (1.0,) * 20),
    ],
)
def test_losses_that_show_nothing_verify_nothing(
    old: tuple[float, ...], control: tuple[float, ...], variant: tuple[float, ...]
) -> None:
    found = training(variant, control, old)
    assert not found.verified
    assert not found.kept


def test_a_loss_that_becomes_nan_is_lost() -> None:
    found = training((*CURVE[:10], math.nan))
    assert found.verified
    assert not found.kept
    assert "NaN" in found.reason


def test_losses_around_zero_are_compared_by_their_size() -> None:
    adversarial = tuple((-1.0) ** step * (1 + 0.01 * step) for step in range(20))
    assert verified_and_kept(training(adversarial, adversarial, adversarial))
    assert verified_and_kept(training(tuple(loss + 0.005 for loss in adversarial), adversarial, adversarial))
    assert not training(tuple(-loss * 2 for loss in adversarial), adversarial, adversarial).kept


def test_a_training_script_whose_evaluation_becomes_nan_is_lost() -> None:
    found = accuracy.check(
        "training",
        criterion=Criterion(),
        safety=Safety.CLOSE,
        baseline=run(losses=CURVE),
        control=run(SAME, losses=CURVE),
        variant=run(replace(SAME, not_finite=1), losses=CURVE),
    )
    assert found.verified
    assert not found.kept
