from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import pytest

from neural_coder.bench import stats
from neural_coder.records import Ending, Run, SiteTiming, Witness

NOISE = 0.02


def timing(site: str = "a", *samples: float, calls: int = 100, items: int | None = None, **more: object) -> SiteTiming:
    kind = str(more.get("kind", "inference"))
    warmup = tuple(more.get("warmup", ()))  # type: ignore[arg-type]
    return SiteTiming(site=site, kind=kind, calls=calls, warmup=warmup, samples=samples, items=items)  # type: ignore[arg-type]


def run(*timings: SiteTiming, ending: str = "ok", batch_sizes: Sequence[int] = ()) -> Run:
    witness = Witness(batch_sizes=frozenset(batch_sizes))
    return Run(ending=Ending(kind=ending), timings=timings, witness=witness)  # type: ignore[arg-type]


def processes(seconds: float, rounds: int, chance: random.Random, noise: float = NOISE) -> list[Run]:
    """Each process has a bias of its own, and its samples scatter around that."""
    found = []
    for _ in range(rounds):
        own = seconds * math.exp(chance.gauss(0, noise))
        found.append(run(timing("a", *(own * math.exp(chance.gauss(0, 0.03)) for _ in range(25)))))
    return found


def shared(*calls: tuple[float, float, float], disturbed: float = 0.4, stolen: float = 0.0) -> Run:
    """A run on a machine with others: wall time, CPU time and waiting time of each call."""
    wall, cpu, waited = zip(*calls, strict=True)
    timing = SiteTiming(site="a", kind="inference", calls=9, warmup=(), samples=wall, cpu=cpu, waited=waited)
    return Run(ending=Ending(kind="ok"), timings=(timing,), disturbed=disturbed, stolen=stolen)


FREE, HELD_UP, PARALLEL = (1.0, 1.0, 0.0), (3.0, 1.0, 2.0), (3.0, 2.0, 2.5)


def test_only_calls_that_were_left_in_peace_count_on_a_busy_machine() -> None:
    assert stats.seconds_per_call(shared(*[FREE] * 5, *[PARALLEL] * 20)) == 1.0


def test_waiting_is_taken_off_where_one_thread_was_at_work() -> None:
    run = shared(*[HELD_UP] * 6)
    assert stats.is_calm(run)
    assert stats.seconds_per_call(run) == pytest.approx(1.0)


def test_threads_that_wait_side_by_side_leave_no_figure_to_trust() -> None:
    run = shared(*[PARALLEL] * 20, *[FREE] * 4)
    assert not stats.is_calm(run)
    assert stats.seconds_per_call(run) == 3.0


def test_on_a_quiet_machine_all_calls_count() -> None:
    run = shared(*[PARALLEL] * 20, *[FREE] * 5, disturbed=0.01)
    assert stats.is_calm(run)
    assert stats.seconds_per_call(run) == 3.0


def test_what_the_hypervisor_takes_away_makes_a_run_worthless() -> None:
    assert not stats.is_calm(shared(*[FREE] * 9, disturbed=0.1, stolen=0.1))


def test_few_long_calls_are_enough_when_there_are_no_more() -> None:
    assert stats.is_calm(shared(FREE, FREE))
    assert not stats.is_calm(shared(FREE, PARALLEL))


def test_disturbed_rounds_are_left_out_when_others_suffice() -> None:
    calm, busy = shared(*[FREE] * 9), shared(*[PARALLEL] * 9)
    assert len(stats.rounds([calm] * 5, [calm, busy, calm, busy, calm])) == 3
    assert len(stats.rounds([calm] * 5, [calm, busy, busy, busy, calm])) == 5
    assert len(stats.rounds([calm, busy], [calm, calm])) == 1


def test_cpu_time_is_compared_when_asked_for() -> None:
    speedup = stats.speedup([shared(*[(1.0, 2.0, 0.0)] * 5)] * 3, [shared(*[FREE] * 5)] * 3, cpu=True)
    assert speedup is not None
    assert speedup.median == 2.0
    assert stats.speedup([run(timing("a", 1.0))] * 3, [run(timing("a", 1.0))] * 3, cpu=True) is None


def test_the_control_compares_the_original_with_itself() -> None:
    steady = [run(timing("a", seconds)) for seconds in (2.0, 1.0, 2.2, 1.1, 2.1, 1.05)]
    control = stats.repeatability(steady)
    assert control is not None
    assert control.median == pytest.approx(2.0)
    assert control.low > 1.9
    assert stats.repeatability(steady[:1]) is None


def test_quantiles_lie_between_neighbours() -> None:
    assert [stats.quantile([4.0, 1.0, 3.0, 2.0], share) for share in (0.0, 0.5, 0.9, 1.0)] == [1.0, 2.5, 3.7, 4.0]
    assert stats.quantile([7.0], 0.99) == 7.0


def test_figures_tell_of_spread_cpu_time_and_throughput() -> None:
    calls = tuple(i / 100 for i in range(1, 102))
    site = SiteTiming(
        site="a", kind="inference", calls=9, warmup=(9.0, 1.0), samples=calls, items=8, cpu=calls, waited=(0.0,) * 101
    )
    ended = Run(ending=Ending(kind="ok"), timings=(site,), loop_seconds=5.0, ended_by_itself=True)
    found = stats.figures([ended] * 3, "inference", {"a": 1.0})
    assert found is not None
    assert (found.p50, found.p90, found.p99) == pytest.approx((0.51, 0.91, 1.0))
    assert found.throughput == pytest.approx(8 / 0.51)
    assert found.cpu_seconds == pytest.approx(0.51)
    assert (found.first_call_seconds, found.loop_seconds) == (9.0, 5.0)
    assert stats.figures([ended], "inference", {"elsewhere": 1.0}) is None


def test_a_run_with_training_steps_is_measured_by_them() -> None:
    both = run(timing("eval", 0.1), timing("step", 0.3, kind="training"))
    assert stats.task_of(both) == "training"
    assert stats.seconds_per_call(both) == 0.3
    assert stats.seconds_per_call(both, task="inference") == 0.1


def test_a_run_without_samples_has_no_task_and_no_figures() -> None:
    empty = run(timing("a", warmup=(1.0,)))
    assert stats.task_of(empty) is None
    assert stats.seconds_per_call(empty) is None
    assert stats.startup_seconds(empty) is None
    assert stats.speedup([empty], [empty]) is None


def test_sites_count_as_often_as_they_are_called() -> None:
    baseline = run(timing("often", 1.0, 2.0, 9.0, calls=200), timing("seldom", 10.0, calls=50))
    assert stats.site_weights(baseline) == {"often": 1.0, "seldom": 0.25}
    assert stats.seconds_per_call(baseline) == 2.0 + 0.25 * 10.0


def test_variants_are_weighted_like_the_baseline_wherever_they_were_stopped() -> None:
    baseline = run(timing("a", 1.0, calls=100), timing("b", 1.0, calls=100))
    stopped_early = run(timing("a", 0.5, calls=40), timing("b", 0.5, calls=10))
    speedup = stats.speedup([baseline] * 3, [stopped_early] * 3)
    assert speedup is not None
    assert speedup.median == pytest.approx(2.0)


def test_a_site_that_the_variant_did_not_reach_gives_no_figure() -> None:
    baseline = run(timing("a", 1.0), timing("b", 1.0))
    assert stats.speedup([baseline] * 3, [run(timing("a", 0.1))] * 3) is None


def test_a_site_that_hardly_takes_time_need_not_be_reached() -> None:
    baseline = run(timing("a", 1.0, calls=1000), timing("once", 1.0, calls=1))
    speedup = stats.speedup([baseline] * 3, [run(timing("a", 0.5))] * 3)
    assert speedup is not None
    assert speedup.median == pytest.approx(2.0)


def test_other_batch_sizes_are_compared_by_item() -> None:
    baseline = run(timing("a", 1.0, items=8))
    variant = run(timing("a", 2.0, items=32))
    assert stats.seconds_per_item(baseline) == 0.125
    speedup = stats.speedup([baseline] * 3, [variant] * 3)
    assert speedup is not None
    assert speedup.median == pytest.approx(2.0)


def test_a_smaller_last_batch_does_not_hide_the_batch_size() -> None:
    baseline, variant = run(timing("a", 1.0), batch_sizes=[8, 3]), run(timing("a", 2.0), batch_sizes=[32, 19])
    speedup = stats.speedup([baseline] * 3, [variant] * 3)
    assert speedup is not None
    assert speedup.median == pytest.approx(2.0)


def test_batches_that_are_not_counted_are_compared_by_call() -> None:
    speedup = stats.speedup([run(timing("a", 1.0))] * 3, [run(timing("a", 0.5))] * 3)
    assert speedup is not None
    assert speedup.median == pytest.approx(2.0)


def test_ratios_are_formed_within_a_round() -> None:
    # The machine gets slower from round to round; both feel it, so it must not widen the interval.
    drift = (1.0, 1.5, 2.0, 4.0, 8.0)
    speedup = stats.speedup([run(timing("a", d)) for d in drift], [run(timing("a", d / 2)) for d in drift])
    assert speedup is not None
    assert 1.97 < speedup.low <= speedup.median <= speedup.high < 2.03


def test_rounds_that_failed_are_left_out() -> None:
    good, bad = run(timing("a", 1.0)), run(timing("a", 9.0), ending="crashed")
    speedup = stats.speedup([bad, good, good, good], [good, bad, good, good])
    assert speedup == stats.interval([1.0, 1.0])


def test_intervals_hold_their_median_and_get_narrower_with_rounds() -> None:
    wide, narrow = stats.interval([1.0, 1.1, 1.05]), stats.interval([1.0, 1.1, 1.05] * 3)
    assert wide is not None
    assert narrow is not None
    assert wide.low < narrow.low < narrow.median < narrow.high < wide.high


def test_an_outlier_never_pushes_the_median_out_of_its_interval() -> None:
    found = stats.interval([1.0] * 30 + [1e9] * 14)
    assert found is not None
    assert found.low <= found.median <= found.high


def test_one_round_gives_a_wide_bound_and_none_gives_nothing() -> None:
    one = stats.interval([2.0])
    assert one is not None
    assert one.low == pytest.approx(1.6)
    assert one.high == pytest.approx(2.5)
    assert stats.interval([]) is None
    assert stats.interval([0.0, -1.0, math.nan, math.inf]) is None


def test_wildly_different_processes_do_not_overflow() -> None:
    found = stats.interval([1e-9, 1e9])
    assert found is not None
    assert math.isfinite(found.high)


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.706), (4, 2.776), (11, 2.201), (20, 2.086), (100, 1.984)])
def test_quantiles_are_those_of_the_printed_tables(degrees: int, quantile: float) -> None:
    assert stats._student(degrees) == pytest.approx(quantile, abs=2e-3)


@pytest.mark.parametrize("rounds", [2, 3, 4, 5, 6, 7, 15])
def test_the_truth_lies_within_the_interval_in_95_of_100_trials(rounds: int) -> None:
    chance = random.Random(rounds)
    trials = 2000
    held = 0
    for _ in range(trials):
        found = stats.interval([math.exp(chance.gauss(0, 0.03)) for _ in range(rounds)])
        assert found is not None
        held += found.low <= 1.0 <= found.high
    # With two rounds, SMALLEST_NOISE keeps pairs that agree by chance from giving a narrow interval.
    assert 0.935 <= held / trials <= (0.97 if rounds > 2 else 1.0)


def test_identical_variants_are_hardly_ever_called_faster() -> None:
    chance = random.Random(7)
    faster = surely_above_one = 0
    trials = 400
    for _ in range(trials):
        found = stats.speedup(processes(1.0, 5, chance), processes(1.0, 5, chance))
        assert found is not None
        faster += found.low > 1.03
        surely_above_one += found.low > 1.0
    assert faster / trials <= 0.005
    assert surely_above_one / trials <= 0.05


def test_a_variant_that_is_ten_per_cent_faster_is_found_with_five_rounds() -> None:
    chance = random.Random(8)
    trials = 400
    found = [stats.speedup(processes(1.1, 5, chance), processes(1.0, 5, chance)) for _ in range(trials)]
    assert sum(speedup is not None and speedup.low > 1.03 for speedup in found) / trials >= 0.9


def test_pooled_samples_would_call_identical_variants_different() -> None:
    """Shows that the simulation above can fail: pooling is the mistake that the unit of statistics avoids."""
    chance = random.Random(9)
    wrong = 0
    for _ in range(200):
        old, new = processes(1.0, 5, chance), processes(1.0, 5, chance)
        pooled = [
            a / b
            for x, y in zip(old, new, strict=True)
            for a, b in zip(x.timings[0].samples, y.timings[0].samples, strict=True)
        ]
        found = stats.interval(pooled)
        assert found is not None
        wrong += not found.low <= 1.0 <= found.high
    assert wrong / 200 > 0.1


def test_start_up_is_what_the_first_calls_take_beyond_a_usual_one() -> None:
    compiled = run(timing("a", 0.1, 0.1, 0.2, warmup=(30.0, 0.05, 0.1)))
    assert stats.startup_seconds(compiled) == pytest.approx(29.9)


def test_start_up_of_all_sites_adds_up() -> None:
    assert stats.startup_seconds(run(timing("a", 1.0, warmup=(3.0,)), timing("b", 1.0, warmup=(5.0,)))) == 6.0


def test_break_even_is_reached_when_the_start_is_earned_back() -> None:
    assert stats.break_even_calls(40.0, 0.010, 0.008) == 20000
    assert stats.break_even_calls(0.0, 0.010, 0.008) == 0
    assert stats.break_even_calls(1.0, 0.5, 0.1) == 3
    assert stats.break_even_calls(40.0, 0.010, 0.010) is None
    assert stats.break_even_calls(0.0, 0.010, 0.020) is None


def test_the_share_of_the_model_limits_what_can_be_gained() -> None:
    shared = Run(ending=Ending(kind="ok"), loop_seconds=10.0, model_seconds=3.8)
    share = stats.model_share(shared)
    assert share == pytest.approx(0.38)
    assert stats.end_to_end_limit(share) == pytest.approx(1.613, abs=1e-3)
    assert stats.end_to_end_limit(0.5, 2.0) == pytest.approx(4 / 3)
    assert stats.end_to_end_limit(1.0) is None
    assert stats.end_to_end_limit(1.0, 3.0) == pytest.approx(3.0)
    assert stats.model_share(run()) is None


def test_medians_ignore_single_slow_samples() -> None:
    samples = [1.0] * 9 + [50.0]
    assert stats.seconds_per_call(run(timing("a", *samples))) == statistics.median(samples)
