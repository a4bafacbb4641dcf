"""The verdict on a variant: did it run, did it do anything, are the answers kept, is it faster; in this order.

A missing number never passes: without evidence for the answers or without a speed a variant cannot win.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from neural_coder.bench import stats
from neural_coder.records import Accuracy, Criterion, Ending, Interval, Plan, Run, Status, Verdict
from neural_coder.units import count, ratio

_LAST_WORDS = 300


def judge(
    plan: Plan,
    *,
    baseline: Sequence[Run],
    variant: Sequence[Run],
    accuracy: Accuracy | None,
    no_effect: str,
    criterion: Criterion,
    final: bool,
) -> Verdict:
    """Say what became of one variant.

    Args:
        plan: The variant.
        baseline: Runs of the original, in the order of the rounds.
        variant: Runs of the variant, paired with them.
        accuracy: What the comparison of answers gave; None: they were not compared.
        no_effect: Why its features did nothing at run time, in words; empty when they took effect.
        criterion: What it must fulfil.
        final: Whether it was measured to the end; False: a first look, after which it left the race.

    Returns:
        The verdict, with all figures that could be formed, whatever its status.
    """
    numbers = _measure(plan, baseline, variant, accuracy)
    status, reason = _decide(numbers, variant, no_effect, criterion, final=final)
    return replace(numbers, status=status, reason=reason if reason.endswith((".", "!", "?")) else f"{reason}.")


def choose(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The fastest variant that is surely faster: by the low end of its interval, then the one with fewer features.

    Returns:
        None when nothing is faster; a variant seen in a single round never counts.
    """
    candidates = [
        verdict
        for verdict in verdicts
        if verdict.status == "faster"
        and verdict.speedup is not None
        and verdict.rounds >= stats.MINIMUM_ROUNDS
        and verdict.accuracy is not None
        and verdict.accuracy.verified
        and verdict.accuracy.kept
    ]
    return min(candidates, key=_rank, default=None)


def conclusion(chosen: Verdict | None, verdicts: Sequence[Verdict]) -> str:
    """The end of a search in one or two sentences: which variant, and why; or why the script should stay as it is."""
    if chosen is not None:
        others = sum(verdict.status == "faster" for verdict in verdicts) - 1
        why = f" {count(others, 'other variant')} also came out faster." if others > 0 else ""
        return f"Use {chosen.plan.id}: {chosen.reason}{why}"
    tried = [verdict for verdict in verdicts if verdict.status != "skipped"]
    if not tried:
        return "Keep your script: there was nothing to try."
    doubtful = [verdict.plan.id for verdict in tried if _looks_faster(verdict)]
    if doubtful:
        names = ", ".join(doubtful[:3]) + (f" and {len(doubtful) - 3} more" if len(doubtful) > 3 else "")
        return f"Keep your script: nothing is surely faster. Looked faster, but without proof: {names}."
    return f"Keep your script: nothing is faster ({count(len(tried), 'variant')} tried)."


def _looks_faster(verdict: Verdict) -> bool:
    unproven = verdict.status in ("unverified", "faster")
    return unproven and verdict.speedup is not None and verdict.speedup.low > 1.0


def _rank(verdict: Verdict) -> tuple[float, int, str]:
    assert verdict.speedup is not None
    return -verdict.speedup.low, len(verdict.plan.features), verdict.plan.id


def _decide(
    numbers: Verdict, variant: Sequence[Run], no_effect: str, criterion: Criterion, *, final: bool
) -> tuple[Status, str]:
    accuracy = numbers.accuracy
    if numbers.plan.skipped:
        return "skipped", numbers.plan.skipped
    if not variant:
        return "skipped", "It was not run: the time was spent on others."
    if failed := next((run for run in variant if not run.ok), None):
        return "failed", describe_ending(failed.ending)
    if no_effect:
        return "inaccurate" if any(run.witness.inaccurate for run in variant) else "no_effect", no_effect
    if accuracy is not None and accuracy.verified and not accuracy.kept:
        return "inaccurate", accuracy.reason or "The answers differ from the original's by more than is allowed."
    if accuracy is None or not accuracy.verified:
        return "unverified", _unverified(accuracy, numbers.speedup)
    if numbers.speedup is None:
        return "unverified", "No speed-up could be formed: not every call that the original makes could be measured."
    return _judge_speed(numbers, numbers.speedup, criterion, final=final)


def _unverified(accuracy: Accuracy | None, speedup: Interval | None) -> str:
    reason = accuracy.reason if accuracy is not None else ""
    reason = reason or "Its answers could not be compared with the original's."
    return f"{reason} It would be {ratio(speedup.median)}." if speedup is not None else reason


def _judge_speed(numbers: Verdict, speedup: Interval, criterion: Criterion, *, final: bool) -> tuple[Status, str]:
    gain = criterion.minimum_gain
    rounds = count(numbers.rounds, "round")
    seen = f"in {rounds}" if final else f"in a first look ({rounds})"
    if speedup.low > gain:
        if final and numbers.rounds < stats.MINIMUM_ROUNDS:
            return (
                "unverified",
                f"{ratio(speedup.median)} in a single round, which shows no certain gain; raise --budget.",
            )
        least = f", surely at least {ratio(speedup.low)}" if numbers.rounds >= stats.MINIMUM_ROUNDS else ""
        return "faster", f"{ratio(speedup.median)} {seen}{least}; {_answers(numbers.accuracy)}."
    if speedup.high < 1 / gain:
        return "slower", f"{ratio(speedup.median)} {seen}: slower than the original."
    if speedup.high <= gain:
        return "same", f"No measurable difference {seen}: at most {ratio(speedup.high)}."
    if speedup.median > gain:
        return "same", (
            f"{ratio(speedup.median)} {seen}, but not surely: it may be as little as {ratio(speedup.low)}, "
            f"and a gain of at least {ratio(gain)} is asked for."
        )
    bounds = f"between {ratio(speedup.low)} and {ratio(speedup.high)}"
    return "same", f"No certain difference {seen}: {ratio(speedup.median)}, {bounds}."


def _answers(accuracy: Accuracy | None) -> str:
    reason = accuracy.reason.rstrip(".") if accuracy is not None else ""
    return f"answers kept: {reason[:1].lower()}{reason[1:]}" if reason else "answers kept"


def describe_ending(ending: Ending) -> str:
    """Why a run gave no figures, as one sentence, with the last line of the script's own traceback."""
    last = _last_line(ending.stderr_tail)
    words = ending.message.strip().rstrip(".")
    match ending.kind:
        case "timed_out":
            return f"{words or 'It was stopped at the time limit'}."
        case "no_calls":
            return f"{words or 'It ended without reaching a measured call'}."
        case "unusable":
            return f"{words or last or 'Its environment cannot be used'}."
        case "no_result":
            text = words or "It vanished without a result, for want of memory perhaps"
        case _:
            text = words or f"It crashed{_status(ending.code)}"
    return f"{text}." if not last or last in text else f"{text}: {last.rstrip('.')}."


def _status(code: int | None) -> str:
    if code is None:
        return ""
    return f" (signal {-code})" if code < 0 else f" (exit status {code})"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    return line if len(line) <= _LAST_WORDS else f"{line[: _LAST_WORDS - 1]}…"


# --- figures --------------------------------------------------------------------------------------------------------


def _measure(plan: Plan, baseline: Sequence[Run], variant: Sequence[Run], accuracy: Accuracy | None) -> Verdict:
    """All figures that the runs hold; the status is still open."""
    usable = [run for run in variant if run.ok]
    originals = [run for run in baseline if run.ok]
    task = next((found for run in originals if (found := stats.task_of(run))), None)
    weights = stats.site_weights(originals[0], task) if originals else {}
    speedup = stats.speedup(baseline, variant, task)
    seconds = stats.interval([s for run in usable if (s := stats.seconds_per_call(run, weights, task))])
    before = stats.interval([s for run in originals if (s := stats.seconds_per_call(run, weights, task))])
    startup = _extra_startup(originals, usable)
    calls = None
    if startup is not None and before is not None and speedup is not None:
        # By the ratio, not by the variant's own time: with another batch size its calls are other calls.
        calls = stats.break_even_calls(startup, before.median, before.median / speedup.median)
    return Verdict(
        plan=plan,
        status="skipped",
        reason="",
        speedup=speedup,
        seconds_per_call=seconds,
        accuracy=accuracy,
        startup_seconds=startup,
        break_even_calls=calls,
        peak_memory_bytes=max((run.peak_memory_bytes for run in usable if run.peak_memory_bytes), default=None),
        rounds=sum(old.ok and new.ok for old, new in zip(baseline, variant, strict=False)),
    )


def _extra_startup(baseline: Sequence[Run], variant: Sequence[Run]) -> float | None:
    old = [s for run in baseline if (s := stats.startup_seconds(run)) is not None]
    new = [s for run in variant if (s := stats.startup_seconds(run)) is not None]
    if not old or not new:
        return None
    return max(0.0, statistics.median(new) - statistics.median(old))
