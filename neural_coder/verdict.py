"""The verdict on a variant: did it run, did it do anything, are the answers kept, is it faster; in this order.

A missing number never passes: without evidence for the answers or without a speed a variant cannot win.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from neural_coder.bench import pace, stats
from neural_coder.records import Accuracy, Criterion, Ending, Interval, Plan, Run, Status, Verdict
from neural_coder.units import count, ratio

AS_GOOD = 0.03
"""So much of the gain is given for a patch in which every feature takes effect."""
WORTH_KNOWING = 1.05
"""A gain that may be this much beyond the smallest one that counts is not called "no difference"."""
RESTLESS_ROUNDS = 10
"""Fewer rounds prove nothing where other programs left no call in peace: their noise has no normal distribution."""
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
    idle: str = "",
) -> Verdict:
    """Say what became of one variant.

    Args:
        plan: The variant.
        baseline: Runs of the original, in the order of the rounds.
        variant: Runs of the variant, paired with them.
        accuracy: What the comparison of answers gave; None: they were not compared.
        no_effect: Why all of its features did nothing at run time, in words; empty when some took effect.
        criterion: What it must fulfil.
        final: Whether it was measured to the end; False: a first look, after which it left the race.
        idle: Which of its features did nothing while others took effect, and why, in words.

    Returns:
        The verdict, with all figures that could be formed, whatever its status.
    """
    numbers = _measure(plan, baseline, variant, accuracy)
    if idle and any(run.witness.inaccurate for run in variant):
        no_effect = idle
    status, reason = _decide(numbers, baseline, variant, no_effect, criterion, final=final)
    reason = reason if reason.endswith((".", "!", "?")) else f"{reason}."
    if idle and not no_effect:
        reason += f" Without effect in it: {idle}."
    return replace(numbers, status=status, reason=reason, idle=idle)


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
    best = min(candidates, key=_rank, default=None)
    if best is None or not best.idle:
        return best
    # What did nothing has no place in a patch, as long as others do as well without it.
    others = [verdict for verdict in candidates if not verdict.idle and _low(verdict) >= _low(best) * (1 - AS_GOOD)]
    return min(others, key=_rank, default=best)


def conclusion(chosen: Verdict | None, verdicts: Sequence[Verdict]) -> str:
    """The end of a search in one or two sentences: which variant, and why; or why the script should stay as it is."""
    if chosen is not None:
        others = sum(verdict.status == "faster" for verdict in verdicts) - 1
        why = f" {count(others, 'other variant')} also came out faster." if others > 0 else ""
        return f"Use {chosen.plan.id}: {chosen.reason}{why}"
    tried = [verdict for verdict in verdicts if verdict.status != "skipped"]
    if not tried:
        return "Keep your script: there was nothing to try."
    if undecided := [verdict for verdict in tried if verdict.status == "undecided"]:
        names = _few(verdict.plan.id for verdict in undecided)
        return (
            f"Keep your script for now: whether {names} would be faster cannot be told while the machine is so noisy. "
            "Close other programs, or give it more time with --budget."
        )
    doubtful = [verdict.plan.id for verdict in tried if _looks_faster(verdict)]
    if doubtful:
        return f"Keep your script: nothing is surely faster. Looked faster, but without proof: {_few(doubtful)}."
    return f"Keep your script: nothing is faster ({count(len(tried), 'variant')} tried)."


def _few(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(known[:3]) + (f" and {len(known) - 3} more" if len(known) > 3 else "")


def _looks_faster(verdict: Verdict) -> bool:
    unproven = verdict.status in ("unverified", "faster")
    return unproven and verdict.speedup is not None and verdict.speedup.low > 1.0


def _rank(verdict: Verdict) -> tuple[float, int, str]:
    return -_low(verdict), len(verdict.plan.features), verdict.plan.id


def _low(verdict: Verdict) -> float:
    assert verdict.speedup is not None
    return verdict.speedup.low


def _decide(
    numbers: Verdict,
    baseline: Sequence[Run],
    variant: Sequence[Run],
    no_effect: str,
    criterion: Criterion,
    *,
    final: bool,
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
    if final and (doubt := _why_not_to_be_trusted(numbers.speedup, baseline, variant, criterion)):
        return "undecided", f"Cannot tell: {doubt}"
    status, reason = _judge_speed(numbers, numbers.speedup, criterion, final=final)
    if not final and not stats.tells_after_a_look(baseline, variant):
        status = "undecided"
        reason = f"Cannot tell after a first look: {ratio(numbers.speedup.median)}."
    if status == "undecided":
        reason = f"{reason} {_what_was_seen(baseline, variant)}".strip()
    return status, reason


def _unverified(accuracy: Accuracy | None, speedup: Interval | None) -> str:
    reason = accuracy.reason if accuracy is not None else ""
    reason = reason or "Its answers could not be compared with the original's."
    return f"{reason} It would be {ratio(speedup.median)}." if speedup is not None else reason


def _judge_speed(numbers: Verdict, speedup: Interval, criterion: Criterion, *, final: bool) -> tuple[Status, str]:
    gain = criterion.minimum_gain
    rounds = count(numbers.rounds, "round")
    if final:
        seen = f"in {rounds}"
    else:
        seen = f"in a first look ({rounds})" if numbers.rounds < 2 else f"in {rounds}, before it left the race"
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
    bounds = f"between {ratio(speedup.low)} and {ratio(speedup.high)}"
    if final and speedup.high > gain * WORTH_KNOWING:
        return "undecided", f"Cannot tell {seen}: {ratio(speedup.median)}, but surely only {bounds}."
    return "same", f"No certain difference {seen}: {ratio(speedup.median)}, {bounds}."


def _why_not_to_be_trusted(
    speedup: Interval, baseline: Sequence[Run], variant: Sequence[Run], criterion: Criterion
) -> str:
    """Why a gain must not be believed although its interval shows one, in words; empty when it may be."""
    gain = criterion.minimum_gain
    if speedup.low <= gain:
        return ""
    control = stats.repeatability(baseline)
    unlike_itself = control is not None and (control.low > gain or control.high < 1 / gain)
    # What is surely faster than all that the original may be faster than itself has a gain, if not one of that size.
    if control is not None and unlike_itself and speedup.low <= max(control.high, 1 / control.low):
        return f"the original came out {ratio(control.median)} against itself. {_what_was_seen(baseline, variant)}"
    measured = stats.speedup(baseline, variant, as_measured=True)
    if measured is not None and measured.median < 1.0:
        return (
            f"it took {ratio(measured.median)} by the clock, and is faster only where the processor's changes of speed "
            f"are taken off. {_what_was_seen(baseline, variant)}"
        )
    used = stats.rounds(baseline, variant)
    if all(stats.is_calm(run) for pair in used for run in pair):
        return ""
    if len(used) < RESTLESS_ROUNDS:
        return f"{ratio(speedup.median)} in too few rounds for so busy a machine. {_what_was_seen(baseline, variant)}"
    # The second witness. CPU time knows nothing of threads that work side by side, so it proves no gain, but where
    # the cores were never left in peace, no gain is believed against it.
    cpu = stats.speedup(baseline, variant, cpu=True)
    if cpu is not None and cpu.median < 1.0:
        return (
            f"it took {ratio(speedup.median)} by the clock, but more CPU time than the original "
            f"({ratio(cpu.median)}). {_what_was_seen(baseline, variant)}"
        )
    return ""


def _what_was_seen(baseline: Sequence[Run], variant: Sequence[Run]) -> str:
    """How restless the machine was, in a sentence."""
    runs = [run for run in (*baseline, *variant) if run.ok]
    busy, stolen = (max(share) for share in zip(*((run.disturbed, run.stolen) for run in runs), strict=True))
    seen = []
    if busy > stats.DISTURBED:
        seen.append(f"for up to {busy:.0%} of the time other programs had the cores")
    if stolen > stats.DISTURBED:
        seen.append(f"the hypervisor took away up to {stolen:.0%}")
    apart = pace.difference([run for run in (*baseline, *variant) if run.ok])
    if apart > stats.UNSTEADY:
        seen.append(f"the processor itself was up to {ratio(1 + apart)} as fast at other times")
    own = [s for run in baseline if run.ok and (s := stats.seconds_per_call(run)) is not None]
    if len(own) > 1:
        seen.append(f"runs of the original differed by up to {max(own) / min(own) - 1:.0%}")
    text = ", and ".join(seen)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


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
    figures = stats.figures(usable, task, weights)
    share = _model_share(originals)
    loops = [run.loop_seconds for run in originals if run.ended_by_itself]
    if figures is not None:
        loop = None
        if loops and speedup is not None and share is not None:
            loop = statistics.median(loops) * (1 - share + share / speedup.median)
        figures = replace(figures, loop_seconds=loop)
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
        figures=figures,
        rounds=len(stats.rounds(baseline, variant)),
    )


def _model_share(runs: Sequence[Run]) -> float | None:
    shares = [share for run in runs if (share := stats.model_share(run)) is not None]
    return statistics.median(shares) if shares else None


def _extra_startup(baseline: Sequence[Run], variant: Sequence[Run]) -> float | None:
    old = [s for run in baseline if (s := stats.startup_seconds(run)) is not None]
    new = [s for run in variant if (s := stats.startup_seconds(run)) is not None]
    if not old or not new:
        return None
    return max(0.0, statistics.median(new) - statistics.median(old))
