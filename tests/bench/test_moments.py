"""How a child process tells its own time from that of others."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from neural_coder._worker import load
from neural_coder._worker.moments import RESOLUTION, Moment, Moments
from neural_coder._worker.sites import EXTRA, Sampling, Site

SAMPLING = Sampling(warmup=0, min_samples=5, max_samples=50, min_seconds=10.0, max_seconds=100.0)
FREE, HELD_UP = Moment(2.0, 2.0, 0.0), Moment(6.0, 4.0, 5.0)
needs_scheduler = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="Linux tells waiting times")


def test_a_call_is_calm_when_nobody_waited_or_one_thread_was_at_work() -> None:
    assert Moment(1.0, 2.0, 0.01).calm
    assert Moment(3.0, 1.0, 2.0).calm
    assert Moment(3.0, 0.5, 0.5).calm
    assert not Moment(3.0, 2.0, 2.5).calm


def test_what_probes_cost_is_not_the_scripts() -> None:
    assert Moment(10.0, 8.0, 3.0).since(Moment(1.0, 2.0, 1.0), overhead=1.0) == Moment(8.0, 5.0, 2.0)


@needs_scheduler
def test_waiting_for_a_core_that_others_have_is_seen() -> None:
    code = """
import os, subprocess, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
burner = subprocess.Popen([sys.executable, "-c", "print(1, flush=True)\\nwhile True: pass"], stdout=subprocess.PIPE)
burner.stdout.readline()
from neural_coder._worker.moments import Moments
moments = Moments()
begin = moments.begin()
while time.process_time() < 0.3 + begin.cpu: pass
taken = moments.end().since(begin)
burner.kill(); burner.wait()
print(taken.waited > 0.05, taken.waited <= taken.wall, taken.calm)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True", "True", "True"], done.stderr


@needs_scheduler
def test_threads_that_have_ended_leave_no_open_files() -> None:
    moments = Moments()
    moments.begin()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        thread = threading.Thread(target=time.sleep, args=(3 * RESOLUTION,))
        thread.start()
        time.sleep(2 * RESOLUTION)
        moments.begin()
        thread.join()
    time.sleep(2 * RESOLUTION)
    assert moments.end().waited >= 0.0
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


@needs_scheduler
def test_threads_may_ask_at_the_same_time() -> None:
    moments = Moments()
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(300):
                moments._asked = 0.0
                moments.begin()
        except BaseException as error:
            failed.append(error)

    for _ in range(5):
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed


@needs_scheduler
def test_a_script_that_closes_our_files_costs_only_the_waiting_times(tmp_path: Path) -> None:
    moments = Moments()
    moments.begin()
    for handle in moments._files.values():
        os.close(handle)
    mine = [(tmp_path / str(number)).open("w+") for number in range(3)]
    time.sleep(2 * RESOLUTION)
    first = moments.begin()
    time.sleep(2 * RESOLUTION)
    assert moments.end().waited == first.waited
    for file in mine:
        file.write("still open")
        file.close()


# --- when a site has been measured enough


def sampled(*calls: Moment) -> Site:
    site = Site("a", "inference")
    for call in calls:
        site.add(call, SAMPLING, startup=False)
    return site


def test_calm_samples_are_enough() -> None:
    site = sampled(*[FREE] * 5)
    assert site.enough(SAMPLING)
    assert site.calm(SAMPLING)
    assert site.as_json()["cpu"] == [2.0] * 5
    assert site.as_json()["waited"] == [0.0] * 5


def test_a_disturbed_site_is_measured_for_longer_but_not_for_ever() -> None:
    site = sampled(*[HELD_UP] * 5)
    assert site.enough(SAMPLING)
    assert not site.calm(SAMPLING)
    assert site.may_go_on(SAMPLING)
    assert not sampled(*[HELD_UP] * 7).may_go_on(SAMPLING)
    assert sum(sampled(*[HELD_UP] * 7).samples) >= EXTRA * SAMPLING.min_seconds


# --- the machine


def test_processes_of_our_own_are_not_others() -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("only Linux tells who uses the cores")
    before = load._own_ticks()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and load._own_ticks() < before + 20:
            time.sleep(0.1)
        assert load._own_ticks() >= before + 20
    finally:
        child.kill()
        child.wait()


def snapshot(busy: int, idle: int, steal: int, own: float, waited: int = 0) -> load.Snapshot:
    found = load.Snapshot()
    found._cores = {"cpu0": (busy, idle, steal)}
    found._own = own
    found._threads = {"1": (busy * 10**7, waited)}
    return found


def test_waiting_is_the_fault_of_others_only_where_there_are_any() -> None:
    before = snapshot(0, 0, 0, 0)
    alone = snapshot(100, 0, 0, 99, waited=10**9)
    assert before.others(alone) == 0.0
    assert before.disturbed(alone) == 0.0
    crowded = snapshot(100, 0, 0, 50, waited=10**9)
    assert before.others(crowded) == pytest.approx(0.5)
    assert before.disturbed(crowded) == pytest.approx(0.5)


def test_what_the_hypervisor_takes_counts_in_any_case() -> None:
    before, later = snapshot(0, 0, 0, 0), snapshot(90, 0, 10, 90)
    assert before.stolen(later) == pytest.approx(0.1)
    assert before.disturbed(later) == pytest.approx(0.1)
