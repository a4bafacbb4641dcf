"""What raw samples of child processes say: time per call, speed-up with an interval, start-up, break-even.

Pure functions without I/O. One process gives one figure (the median of its samples); intervals are formed over
processes, because samples of one process share its memory layout, its threads and its luck.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from neural_coder._worker.moments import NEGLIGIBLE, Moment
from neural_coder.bench import pace
from neural_coder.records import Figures, Interval, Run, SiteTiming, Task

MINIMUM_ROUNDS = 3
"""Fewer rounds give no interval of their own, only the assumption below."""
ASSUMED_NOISE = 0.25
"""One or two rounds tell next to nothing about the noise (Student's factor for two is 12.7): the interval reaches this
far (relative) beyond what was seen."""
SMALLEST_NOISE = 0.005
"""Processes that agree better than this do so by chance: even quiet machines lay out memory anew each time."""
NEGLIGIBLE_SHARE = 0.01
"""Sites with a smaller share of the time are left out, so that a rare call need not be reached in every run."""

CALM_SAMPLES = 5
"""Samples without disturbance that make a process's figure; where there are fewer calls in all, all of them."""
TRIMMED_FROM = 7
"""Rounds from which on the highest and lowest fifth are left out of the interval's centre: a machine shared with others
now and then runs a whole process at half its speed, and nothing that a process can see says so."""
TRIMMED = 0.2
LOWER_QUARTILE = 0.25
BUSY = 0.1
"""Share of the time in which others had the cores, from which on the reader is told."""
DISTURBED = 0.02
"""Share of a run's time that others may take before its samples are looked at one by one."""

UNSTEADY = 0.1
"""Processor speeds further apart than this are told; what calls make of them is known in part only."""

_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def task_of(run: Run) -> Task | None:
    """What a run is measured by: its training steps where it has any, else its inference calls.

    Returns:
        None when it has samples of neither.
    """
    kinds = {timing.kind for timing in run.timings if timing.samples}
    return "training" if "training" in kinds else "inference" if kinds else None


def site_weights(run: Run, task: Task | None = None) -> Mapping[str, float]:
    """How often each site is called, as a share of the most frequent one.

    Formed once, from the baseline, and used for every variant: runs are stopped after enough samples, at other places.

    Args:
        run: A run of the baseline.
        task: Sites to look at; None: those of `task_of(run)`.

    Returns:
        By site; sites that were never sampled or take under 1 % of the time are left out.
    """
    measured = _measured(run, task)
    seconds = {timing.site: timing.calls * _typical(run, timing) for timing in measured}
    counted = [timing for timing in measured if seconds[timing.site] >= NEGLIGIBLE_SHARE * sum(seconds.values())]
    most = max((timing.calls for timing in counted), default=0)
    return {timing.site: timing.calls / most for timing in counted} if most else {}


def seconds_per_call(run: Run, weights: Mapping[str, float] | None = None, task: Task | None = None) -> float | None:
    """Seconds for one call of the most frequent site, with its share of the others.

    Args:
        run: One process.
        weights: Of the sites, from `site_weights` of the baseline; None: the run's own.
        task: Inference calls or training steps; None: `task_of(run)`.

    Returns:
        None when a site of `weights` was not measured.
    """
    return _weighted(run, weights, task, per_item=False)


def seconds_per_item(run: Run, weights: Mapping[str, float] | None = None, task: Task | None = None) -> float | None:
    """Seconds for one sample of data: like `seconds_per_call`, each call divided by the size of its batch.

    Returns:
        None when a site was not measured, or the size of its batches is unknown.
    """
    return _weighted(run, weights, task, per_item=True)


def calm_samples(run: Run, timing: SiteTiming) -> tuple[float, ...]:
    """The samples of a site that tell how long a call takes on a quiet machine.

    Where other programs took the cores during a run, only calls whose threads hardly waited for a core count. If there
    are too few of them, calls in which one thread was at work count without its waiting.

    Returns:
        Fewer than `CALM_SAMPLES` (or than there are at all) when the machine was too busy to tell.
    """
    if run.disturbed <= DISTURBED or len(timing.waited) != len(timing.samples):
        return timing.samples
    moments = [Moment(*times) for times in zip(timing.samples, timing.cpu, timing.waited, strict=True)]
    peaceful = tuple(moment.wall for moment in moments if moment.waited <= NEGLIGIBLE * moment.wall)
    if len(peaceful) >= _needed(timing):
        return peaceful
    return tuple(moment.wall - min(moment.waited, 0.9 * moment.wall) for moment in moments if moment.calm)


def is_calm(run: Run) -> bool:
    """Whether a run's figures can be trusted: nobody disturbed it, or enough of its calls were left in peace."""
    if run.stolen > DISTURBED:
        return False  # What the hypervisor takes away shows in no single call.
    return all(len(calm_samples(run, timing)) >= _needed(timing) for timing in run.timings if timing.samples)


def is_restless(runs: Sequence[Run]) -> bool:
    """Whether a look at these runs may be far off: others took the cores, or the processor changed its speed."""
    return any(run.disturbed > DISTURBED for run in runs) or pace.difference(runs) > UNSTEADY


def tells_after_a_look(baseline: Sequence[Run], variant: Sequence[Run]) -> bool:
    """Whether few runs tell how they compare: none was disturbed, and the processor was as fast in all, or is known."""
    pairs = rounds(baseline, variant)
    sides = [[old for old, _ in pairs], [new for _, new in pairs]]
    if not all(is_calm(run) for runs in sides for run in runs):
        return False
    return pace.difference([*sides[0], *sides[1]]) <= UNSTEADY or pace.learn(sides, None) is not None


def repeatability(runs: Sequence[Run], task: Task | None = None) -> Interval | None:
    """The A/A control: how runs of the same program, one after the other, compare with each other.

    Args:
        runs: Processes of one variant (the original), in the order in which they ran.
        task: Inference calls or training steps; None: `task_of` the first.

    Returns:
        The ratio of each run to the next one, of separate pairs; None for fewer than two runs.
    """
    (even,) = pace.at_usual_speed([[run for run in runs if run.ok]], task)
    times = [seconds for run in even if (seconds := seconds_per_call(run, None, task))]
    return interval([old / new for old, new in zip(times[::2], times[1::2], strict=False)])


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of the values stays below, interpolated between neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def figures(runs: Sequence[Run], task: Task | None, weights: Mapping[str, float]) -> Figures | None:
    """What a call costs in detail, at the site that is called most often.

    Args:
        runs: Processes of one variant; the first one had cold caches.
        task: Inference calls or training steps.
        weights: Of the sites, from `site_weights` of the baseline.

    Returns:
        None when that site was not measured.
    """
    site = max(weights, key=lambda name: weights[name], default=None)
    measured = [(run, timing) for run in runs for timing in _measured(run, task) if run.ok and timing.site == site]
    if not measured:
        return None
    spread = [[quantile(_steady(run, timing), share) for share in (0.5, 0.9, 0.99)] for run, timing in measured]
    p50, p90, p99 = (statistics.median(column) for column in zip(*spread, strict=True))
    cpu = [statistics.median(timing.cpu) for _, timing in measured if timing.cpu]
    items = _items(*measured[0])
    loops = [run.loop_seconds for run, _ in measured if run.ended_by_itself]
    return Figures(
        cpu_seconds=statistics.median(cpu) if cpu else None,
        p50=p50,
        p90=p90,
        p99=p99,
        throughput=items / p50 if items and p50 > 0 else None,
        first_call_seconds=first_call_seconds(measured[0][0], task),
        loop_seconds=statistics.median(loops) if loops else None,
    )


def same_batches(baseline: Run, variant: Run, weights: Mapping[str, float]) -> bool:
    """Whether one call handles as much data in both runs; if not, only times per item can be compared."""
    theirs = {timing.site: _items(variant, timing) for timing in variant.timings}
    return all(
        theirs[timing.site] == _items(baseline, timing)
        for timing in baseline.timings
        if timing.site in weights and timing.site in theirs
    )


def rounds(baseline: Sequence[Run], variant: Sequence[Run]) -> list[tuple[Run, Run]]:
    """The runs that are compared with each other: the i-th run of both make a round.

    Rounds in which one of them gave no figure are left out; so are disturbed ones, as long as the others suffice.
    """
    pairs = [(old, new) for old, new in zip(baseline, variant, strict=False) if old.ok and new.ok]
    calm = [(old, new) for old, new in pairs if is_calm(old) and is_calm(new)]
    return calm if len(calm) >= min(MINIMUM_ROUNDS, (len(pairs) + 1) // 2) else pairs


def speedup(
    baseline: Sequence[Run],
    variant: Sequence[Run],
    task: Task | None = None,
    *,
    cpu: bool = False,
    as_measured: bool = False,
) -> Interval | None:
    """How many times faster a variant is than the baseline, with a 95 % interval.

    The ratio is formed within each of `rounds`, whose runs share its noise; where the processor changed its speed
    meanwhile, of what calls would have taken at its usual one (`bench/pace.py`).

    Args:
        baseline: Runs of the original, one process each.
        variant: Runs of the variant, in the same order.
        task: Inference calls or training steps; None: what the baseline is measured by.
        cpu: Compare the CPU time that calls take, all threads together, instead of the wall time.
        as_measured: Correct nothing for the processor's speed.

    Returns:
        None when no round gave a ratio.
    """
    first = next((run for run in baseline if run.ok and task_of(run)), None)
    if first is None:
        return None
    task = task or task_of(first)
    weights = site_weights(first, task)
    pairs = rounds(baseline, variant)
    per_item = not all(same_batches(old, new, weights) for old, new in pairs)
    # What other programs do to caches and clocks shows in no waiting time, and only ever makes calls slower.
    share = LOWER_QUARTILE if any(run.disturbed > DISTURBED for pair in pairs for run in pair) else 0.5
    sides = [[old for old, _ in pairs], [new for _, new in pairs]]
    even = sides if as_measured else pace.at_usual_speed(sides, task)
    times = [
        (
            _weighted(old, weights, task, per_item=per_item, cpu=cpu, share=share),
            _weighted(new, weights, task, per_item=per_item, cpu=cpu, share=share),
        )
        for old, new in zip(*even, strict=True)
    ]
    return interval([old / new for old, new in times if old and new])


def interval(values: Sequence[float]) -> Interval | None:
    """The median of positive figures, one per process, and a 95 % interval.

    Student's interval on the logarithms. The percentile bootstrap is too narrow for so few processes (T. C. Hesterberg,
    "What Teachers Should Know About the Bootstrap", The American Statistician 69, 2015): with 3, 4, 5 and 7 rounds of
    normal noise it held the truth in 74, 87, 93 and 87 % of 1500 simulated trials (bootstrap of the mean: 72 to 87 %),
    Student's in 95 % each, and in 95 to 98 % with skewed noise or occasional outliers. Processes as the unit:
    T. Kalibera and R. Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013.

    From `TRIMMED_FROM` figures on it is the trimmed mean's (J. W. Tukey and D. H. McLaughlin, Sankhya A 25, 1963).
    Where every eighth process ran at 60 to 90 % of its speed, 15 rounds showed a gain of 10 % in 88 % of 3000 simulated
    trials, the plain interval in 41 %; both held the truth in 97 %, and with normal noise in 94 to 95 %.

    Args:
        values: One figure per process or round; figures that are not positive and finite are left out.

    Returns:
        None without figures. One or two figures: bounds by assumption (`ASSUMED_NOISE`), fit for a first look only.
    """
    usable = [value for value in values if value > 0 and math.isfinite(value)]
    if not usable:
        return None
    middle = statistics.median(usable)
    if len(usable) < MINIMUM_ROUNDS:
        return Interval(median=middle, low=min(usable) / (1 + ASSUMED_NOISE), high=max(usable) * (1 + ASSUMED_NOISE))
    center, half = _trimmed_mean(sorted(math.log(value) for value in usable))
    return Interval(
        median=middle,
        low=min(middle, math.exp(center - half)),
        high=max(middle, _exp(center + half)),
    )


def _trimmed_mean(values: Sequence[float]) -> tuple[float, float]:
    """The centre of sorted values and half of its interval; the spread is that of the winsorized values."""
    count = len(values)
    cut = int(TRIMMED * count) if count >= TRIMMED_FROM else 0
    kept = values[cut : count - cut]
    spread = statistics.stdev([kept[0]] * cut + list(kept) + [kept[-1]] * cut)
    spread = max(spread * math.sqrt((count - 1) / (len(kept) - 1)), SMALLEST_NOISE)
    return statistics.fmean(kept), _student(len(kept) - 1) * spread / math.sqrt(len(kept))


def startup_seconds(run: Run, task: Task | None = None) -> float | None:
    """What the first calls took beyond a usual one: compilation, conversion, cold caches.

    Returns:
        Seconds over all warm-up calls of all measured sites; None when nothing was measured.
    """
    measured = _measured(run, task)
    if not measured:
        return None
    usual = {timing.site: _typical(run, timing) for timing in measured}
    return sum(max(0.0, seconds - usual[timing.site]) for timing in measured for seconds in timing.warmup)


def first_call_seconds(run: Run, task: Task | None = None) -> float | None:
    """What the first call of a run took: the longest one, where there are several sites.

    Returns:
        None when nothing was measured, or no call warmed up.
    """
    return max((timing.warmup[0] for timing in _measured(run, task) if timing.warmup), default=None)


def break_even_calls(startup: float, baseline_seconds: float, variant_seconds: float) -> int | None:
    """Calls after which a variant has earned back what it costs at the start.

    Args:
        startup: Seconds that it costs beyond the baseline.
        baseline_seconds: Time per call of the original.
        variant_seconds: Time per call of the variant.

    Returns:
        0 when it costs nothing; None when it never earns it back.
    """
    if variant_seconds >= baseline_seconds:
        return None
    return max(0, math.ceil(startup / (baseline_seconds - variant_seconds)))


def model_share(run: Run) -> float | None:
    """Share of the script's loop that is spent inside the measured calls, from 0 to 1; None when that is unknown."""
    if run.loop_seconds <= 0:
        return None
    return min(1.0, max(0.0, run.model_seconds / run.loop_seconds))


def end_to_end_limit(share: float, factor: float = math.inf) -> float | None:
    """How many times faster the whole loop becomes when only the model does (Amdahl's law).

    Args:
        share: The model's share of the loop.
        factor: How many times faster the model becomes; infinite: what could be gained at best.

    Returns:
        None where there is no limit (the model is the whole loop and infinitely fast).
    """
    rest = 1.0 - share + share / factor
    return 1.0 / rest if rest > 0 else None


def _measured(run: Run, task: Task | None) -> list[SiteTiming]:
    wanted = task or task_of(run)
    return [timing for timing in run.timings if timing.kind == wanted and timing.samples]


def _weighted(
    run: Run,
    weights: Mapping[str, float] | None,
    task: Task | None,
    *,
    per_item: bool,
    cpu: bool = False,
    share: float = 0.5,
) -> float | None:
    if weights is None:
        weights = site_weights(run, task)
    by_site = {timing.site: timing for timing in _measured(run, task)}
    total = 0.0
    for site, weight in weights.items():
        timing = by_site.get(site)
        items = _items(run, timing) if timing is not None and per_item else 1
        if timing is None or not items or (cpu and not timing.cpu):
            return None
        total += weight * quantile(timing.cpu if cpu else _steady(run, timing), share) / items
    return total if weights else None


def _typical(run: Run, timing: SiteTiming) -> float:
    """Seconds of a usual call in one process."""
    return statistics.median(_steady(run, timing))


def _steady(run: Run, timing: SiteTiming) -> tuple[float, ...]:
    """The calm samples, or all where those are too few."""
    calm = calm_samples(run, timing)
    return calm if len(calm) >= _needed(timing) else timing.samples


def _needed(timing: SiteTiming) -> int:
    return min(CALM_SAMPLES, len(timing.samples))


def _items(run: Run, timing: SiteTiming) -> int | None:
    """Batch size of a site; where the last batch is a smaller one, the largest size seen is that of a usual batch."""
    return timing.items or max(run.witness.batch_sizes, default=None)


def _student(degrees: int) -> float:
    """The 97.5 % quantile of Student's distribution."""
    if degrees <= len(_STUDENT):
        return _STUDENT[degrees - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    # Cornish-Fisher expansion, exact to three digits from ten degrees on (Abramowitz and Stegun, 26.7.5).
    terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return math.fsum(term / math.pow(degrees, power) for power, term in enumerate(terms))


def _exp(value: float) -> float:
    """Two wildly different processes would overflow."""
    return math.exp(min(value, 700.0))
