"""The race on a simulated machine, where the truth is known (benchmarks/simulation.py)."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from simulation import (
    CRITERION,
    Machine,
    Program,
    SimulatedBench,
    SimulatedClock,
    candidate,
    measure_fully,
    name_of,
    search,
)

from neural_coder import race as racing
from neural_coder.race import FEWEST_ROUNDS, MOST_ROUNDS, ROUNDS, Race, without_effect
from neural_coder.records import Feature, Plan, Run, Witness

TRIALS = 25
BUSY = {
    "one thread": {},
    "two threads": {"parallel": True},
    "never quiet": {"load": (1, 2), "parallel": True},
    "shared cores": {"load": (0,), "neighbour": 1.7},
}


def programs(**speeds: float) -> dict[str, Program]:
    return {"": Program(0.02), **{name: Program(0.02 / speed) for name, speed in speeds.items()}}


def race_on(bench: SimulatedBench, budget: float = 600.0, **settings: object) -> Race:
    given: dict[str, object] = {"say": lambda _: None, **settings}
    clock = SimulatedClock(budget=budget, machine=bench.machine)
    first, control = bench.baseline(), bench.baseline()
    return Race(bench=bench, task="inference", first=first, control=control, clock=clock, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("scene", BUSY)
def test_an_identical_variant_does_not_win_on_a_busy_machine(scene: str) -> None:
    found = [search(Machine(random.Random(seed), **BUSY[scene]), programs(same=1.0)) for seed in range(TRIALS)]  # type: ignore[arg-type]
    assert sum(result.chosen is not None for result in found) <= 0.05 * TRIALS


@pytest.mark.parametrize("scene", ["one thread", "two threads", "shared cores"])
def test_a_variant_that_is_a_tenth_faster_is_found_on_a_busy_machine(scene: str) -> None:
    found = [search(Machine(random.Random(seed), **BUSY[scene]), programs(faster=1.1)) for seed in range(TRIALS)]  # type: ignore[arg-type]
    assert sum(result.chosen is not None for result in found) >= 0.85 * TRIALS


def test_a_machine_that_never_gets_quiet_is_told_so() -> None:
    slow = {"": 0.2, "x": 0.2 / 1.1}
    results = [
        search(Machine(random.Random(seed), load=(1, 2), parallel=True), {name: Program(slow[name]) for name in slow})
        for seed in range(9)
    ]
    undecided = [found.verdicts[0] for found in results if found.verdicts[0].status == "undecided"]
    assert len(undecided) > 4
    assert all(verdict.reason.startswith("Cannot tell") for verdict in undecided)
    assert any("other programs had the cores" in verdict.reason for verdict in undecided)


def test_what_is_not_decided_gets_more_rounds() -> None:
    noisy = [
        search(Machine(random.Random(seed), load=(0,), slow_processes=0.0, process_noise=0.06), programs(x=1.12))
        for seed in range(9)
    ]
    rounds = [result.verdicts[0].rounds for result in noisy if result.chosen]
    assert max(rounds) > ROUNDS
    assert max(rounds) <= MOST_ROUNDS


def test_what_is_clear_is_decided_after_the_fewest_rounds() -> None:
    found = search(Machine(random.Random(1), load=(0,), slow_processes=0.0), programs(fast=2.0))
    assert found.chosen is not None
    assert found.chosen.rounds == FEWEST_ROUNDS
    assert found.confirmed is not None
    assert found.confirmed.median == pytest.approx(2.0, rel=0.05)


def test_losers_leave_early() -> None:
    speeds = {"winner": 2.0, "close": 1.97, "second": 1.7, "third": 1.3, "slow": 0.5, "useless": 1.0}
    given = programs(**speeds)
    found = search(Machine(random.Random(2), load=(0,), slow_processes=0.0), given)
    assert found.chosen is not None
    assert given["slow"].runs == given["useless"].runs == given["third"].runs == 1
    assert 1 < given["second"].runs < 1 + FEWEST_ROUNDS
    assert given["close"].runs > given["second"].runs


def test_what_cannot_win_after_what_its_engine_has_shown_is_listed_without_a_look() -> None:
    machine = Machine(random.Random(2), load=(0,), slow_processes=0.0)
    given = programs(winner=4.0, same=1.0, hopeless=9.0)
    promises = {"winner": 1.5, "same": 1.4, "hopeless": 1.3}
    race = race_on(SimulatedBench(machine, given), promise=lambda plan: promises[name_of(plan)])
    engines = {"winner": "openvino", "same": "inductor", "hopeless": "inductor"}
    items = [candidate(name) for name in engines]
    found = race.run(
        [replace(each, plan=replace(each.plan, backend=engines[name_of(each.plan)])) for each in reversed(items)]
    )
    assert found.chosen is not None
    assert name_of(found.chosen.plan) == "winner"
    assert found.ended == "complete"
    (spared,) = [each for each in found.verdicts if each.status == "skipped"]
    assert name_of(spared.plan) == "hopeless"
    assert spared.reason.startswith("Not run: ")
    assert given["hopeless"].runs == 0


def test_a_faster_variant_that_looks_slower_by_bad_luck_gets_a_second_look() -> None:
    given = programs(unlucky=1.2)
    machine = Machine(random.Random(3), load=(0,), slow_processes=0.0, process_noise=0.0)
    race = race_on(SimulatedBench(machine, given))
    (timing,) = race.control.timings
    lucky = replace(timing, samples=tuple(seconds / 1.25 for seconds in timing.samples))
    race.control = replace(race.control, timings=(lucky,))
    assert race.run([candidate("unlucky")]).chosen is not None


@pytest.mark.parametrize(("neighbour", "stays"), [(1.7, True), (1.0, False)])
def test_a_variant_that_looks_a_tenth_slower_stays_only_where_cores_are_shared(neighbour: float, stays: bool) -> None:
    machine = Machine(random.Random(3), load=(0,), slow_processes=0.0, process_noise=0.0, neighbour=neighbour)
    race = race_on(SimulatedBench(machine, programs(slower=0.9)))
    standing = race.first_look(candidate("slower"), "[1/1]")
    for _ in range(FEWEST_ROUNDS - 1):
        race.baselines.append(race.bench.baseline())
        standing.rounds.append(race.bench.variant(standing.candidate))
    assert (race._still_open([standing], len(standing.rounds)) == [standing]) is stays


@pytest.mark.parametrize(
    ("speed", "pairs"), [(1.0, racing.MOST_CONFIRMATIONS), (1.3, racing.CONFIRMATIONS)], ids=["denied", "confirmed"]
)
def test_a_gain_that_fresh_runs_deny_is_asked_for_again_before_it_is_given_up(speed: float, pairs: int) -> None:
    given = programs(x=speed)
    race = race_on(SimulatedBench(Machine(random.Random(3), load=(0,), slow_processes=0.0), given))
    standing = race.first_look(candidate("x"), "[1/1]")
    looked = given["x"].runs
    confirmed = race._fresh_pairs(standing)
    assert confirmed is not None
    assert confirmed.median == pytest.approx(speed, rel=0.05)
    assert given["x"].runs - looked == pairs


def test_a_lucky_look_does_not_count_as_a_round() -> None:
    given = programs(left=1.7, winner=2.0)
    found = search(Machine(random.Random(2), load=(0,), slow_processes=0.0), given)
    left = next(verdict for verdict in found.verdicts if verdict.plan.features[0].value == "left")
    assert "before it left the race" in left.reason
    winner = next(verdict for verdict in found.verdicts if verdict is not left)
    standing = racing.Standing(candidate=candidate("left"), look=found.baseline[0], verdict=left)
    assert racing._measured([standing]) == []
    assert found.chosen is winner


def test_disturbed_rounds_are_made_again_until_the_patience_ends() -> None:
    said: list[str] = []
    machine = Machine(random.Random(4), load=(2,), parallel=True)
    race = race_on(SimulatedBench(machine, programs(x=1.5)), budget=10_000, say=said.append)
    race.run([candidate("x")])
    assert sum("once more" in line for line in said) == racing.REPEATS


def test_the_race_takes_less_than_half_the_time_of_measuring_everything() -> None:
    chance = random.Random(5)
    speeds = {f"v{number}": chance.uniform(0.5, 1.8) for number in range(18)}
    machine, full = Machine(random.Random(6)), Machine(random.Random(6))
    found = search(machine, programs(**speeds), budget=1e6)
    best, seconds = measure_fully(full, programs(**speeds), ROUNDS)
    assert found.chosen is not None
    chosen = found.chosen.plan.features[0].value or ""
    assert speeds[chosen] >= 0.97 * speeds[best]
    assert machine.now < 0.5 * seconds


def test_only_features_that_did_nothing_are_named() -> None:
    plan = Plan(features=(Feature(name="channels_last"), Feature(name="compile")), backend="torch")
    run = SimulatedBench(Machine(random.Random(0)), programs()).baseline()
    nothing, both = without_effect(plan, run, run)
    assert both
    assert "channels_last" in nothing
    assert "compile" in nothing
    seen = replace(run, witness=Witness(graphs_compiled=1))
    some, both = without_effect(plan, run, seen)
    assert not both
    assert some.startswith("channels_last:")
    assert without_effect(plan, run, _converted(seen)) == ("", False)


def _converted(run: Run) -> Run:
    return replace(run, witness=replace(run.witness, channels_last_outputs=3))


def test_the_first_call_of_the_cold_process_is_reported() -> None:
    found = search(Machine(random.Random(1), load=(0,), slow_processes=0.0), programs(fast=2.0))
    figures = found.verdicts[0].figures
    assert figures is not None
    assert figures.p50 <= figures.p90 <= figures.p99
    assert figures.first_call_seconds == pytest.approx(0.01, rel=0.3)
    assert CRITERION.minimum_gain == 1.03
