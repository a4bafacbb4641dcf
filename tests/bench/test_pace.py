"""What is the processor's own speed, and not the program's."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from neural_coder._worker.moments import RESOLUTION, Moments
from neural_coder.bench import pace, stats
from neural_coder.records import Ending, Run, SiteTiming

USUAL, SHARED = 1.0, 1.7
"""How much longer work takes: with a core for itself, and while another machine uses the other half of the core."""


def process(
    seconds: float, speeds: Sequence[float], chance: random.Random, *, follows: float = 1.0, python: str = "3.11"
) -> Run:
    """A process whose calls meet these speeds, one after the other."""
    samples = tuple(seconds * speed**follows * math.exp(chance.gauss(0, 0.02)) for speed in speeds)
    seen = tuple(1e-4 * speed * math.exp(chance.gauss(0, 0.04)) for speed in speeds)
    timing = SiteTiming(site="a", kind="inference", calls=99, warmup=(), samples=samples, pace=seen)
    return Run(ending=Ending(kind="ok"), timings=(timing,), versions={"python": python})


def changing(chance: random.Random, calls: int = 30) -> list[float]:
    """Speeds that a process meets: the other machine comes or goes once while it runs."""
    before, after = chance.choice((USUAL, SHARED)), chance.choice((USUAL, SHARED))
    moment = chance.randrange(calls)
    return [before] * moment + [after] * (calls - moment)


def processes(seconds: float, rounds: int, chance: random.Random, *, follows: float = 1.0) -> list[Run]:
    return [process(seconds, changing(chance), chance, follows=follows) for _ in range(rounds)]


@pytest.mark.parametrize("follows", [1.0, 0.4, 0.0])
def test_ratios_are_those_at_one_speed(follows: float) -> None:
    chance = random.Random(3)
    old, new = (processes(seconds, 8, chance, follows=follows) for seconds in (1.1, 1.0))
    found = stats.speedup(old, new)
    assert found is not None
    assert 1.06 < found.low <= found.high < 1.14


def test_without_it_the_same_processes_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "learn", lambda *_: None)
    chance = random.Random(3)
    found = stats.speedup(processes(1.1, 8, chance), processes(1.0, 8, chance))
    assert found is not None
    assert found.low < 1.0
    assert found.high > 1.2


def test_the_control_of_the_original_against_itself_is_corrected_as_well() -> None:
    chance = random.Random(4)
    found = stats.repeatability([process(1.0, [speed] * 30, chance) for speed in (SHARED, USUAL) * 4])
    assert found is not None
    assert found.median == pytest.approx(1.0, abs=0.2)


def test_how_far_calls_follow_the_processor_is_learned_from_them() -> None:
    chance = random.Random(5)
    for follows in (1.0, 0.4, 0.0):
        sides = [processes(seconds, 12, chance, follows=follows) for seconds in (2.0, 0.5)]
        learned = pace.learn(sides, "inference")
        assert learned is not None
        assert learned.share == pytest.approx(follows, abs=0.12)


def test_what_one_call_was_interrupted_for_says_nothing_of_the_processor() -> None:
    chance = random.Random(6)
    runs = processes(1.0, 6, chance)
    interrupted = [
        replace(run, timings=(replace(run.timings[0], samples=(50.0, *run.timings[0].samples[1:])),)) for run in runs
    ]
    learned = pace.learn([interrupted], None)
    assert learned is not None
    assert learned.share == pytest.approx(1.0, abs=0.2)


def test_a_steady_processor_is_left_alone() -> None:
    chance = random.Random(7)
    sides = [[process(1.0, [USUAL] * 30, chance) for _ in range(3)] for _ in range(2)]
    assert pace.at_usual_speed(sides, "inference") == sides


def test_nothing_is_corrected_by_what_is_not_known_or_cannot_be_compared() -> None:
    chance = random.Random(8)
    known = processes(1.0, 3, chance)
    unknown = [replace(run, timings=(replace(run.timings[0], pace=()),)) for run in known]
    elsewhere = [replace(run, versions={"python": "3.13"}) for run in known]
    assert pace.learn([known], "inference") is not None
    assert pace.learn([known, unknown], "inference") is None
    assert pace.learn([known, elsewhere], "inference") is None
    assert pace.learn([known], "training") is None
    assert pace.learn([[]], None) is None


def test_a_program_that_slows_the_core_down_by_itself_is_not_excused_for_that() -> None:
    chance = random.Random(10)
    alone = processes(1.0, 8, chance)
    spinning = [process(1.0, [SHARED] * 30, chance) for _ in range(8)]
    assert pace.learn([alone, spinning], "inference") is None
    assert stats.speedup(alone, spinning) == stats.speedup(alone, spinning, as_measured=True)


def test_ratios_as_measured_can_be_had_too() -> None:
    chance = random.Random(11)
    old, new = processes(1.0, 6, chance), processes(1.0, 6, chance)
    corrected, measured = stats.speedup(old, new), stats.speedup(old, new, as_measured=True)
    assert corrected is not None
    assert measured is not None
    assert measured.high / measured.low > 2 * corrected.high / corrected.low


def test_a_program_without_a_single_sample_is_no_trouble() -> None:
    chance = random.Random(12)
    old = processes(1.0, 6, chance)
    still_compiling = [replace(run, timings=(replace(run.timings[0], samples=(), pace=()),)) for run in old]
    assert pace.learn([old, still_compiling], "inference") is None
    assert pace.learn([old, []], "inference") is None
    assert stats.speedup(old, still_compiling) is None


def test_a_changing_processor_makes_looks_restless() -> None:
    chance = random.Random(9)
    slow, fast = (process(1.0, [speed] * 9, chance) for speed in (SHARED, USUAL))
    assert pace.difference([slow, fast]) == pytest.approx(0.7, abs=0.1)
    assert stats.is_restless([slow, fast])
    assert not stats.is_restless([fast, process(1.0, [USUAL] * 9, chance)])


def test_the_worker_times_the_same_work_beside_each_call_but_not_all_the_time() -> None:
    moments = Moments()
    first = moments.begin()
    assert 1e-6 < first.pace < 0.1
    assert moments.end().pace == first.pace
    time.sleep(2 * RESOLUTION)
    second = moments.begin()
    assert second.pace != first.pace
    assert second.since(first).pace == pytest.approx((first.pace + second.pace) / 2)
