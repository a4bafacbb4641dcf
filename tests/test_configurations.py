"""Which run configurations a mode or explicit numbers stand for, and which cores the instances get."""

from __future__ import annotations

import pytest

from neural_coder.configurations import Wanted, command, configurations, describe, placements
from neural_coder.errors import UserError
from neural_coder.records import RunConfiguration

NODES = ((0, 1, 2, 3, 4), (10, 11, 12, 13, 14))
"""Ten cores on two memory nodes."""


def layouts(cores, **wanted):
    found = configurations(Wanted(**wanted), cores)
    return [(one.instances, one.cores_per_instance, one.threads, one.batch_size) for one in found]


def test_the_usual_way_to_run_a_script_comes_first_and_once():
    for mode in ("latency", "throughput", "multi-instance"):
        assert layouts(8, mode=mode)[0] == (1, 8, 8, None)
        assert layouts(8, mode=mode).count((1, 8, 8, None)) == 1


def test_latency_is_one_instance_with_all_or_half_of_the_threads():
    assert layouts(8, mode="latency") == [(1, 8, 8, None), (1, 8, 4, None)]
    assert layouts(1, mode="latency") == [(1, 1, 1, None)]


def test_throughput_is_one_instance_with_larger_batches():
    assert layouts(8, mode="throughput") == [(1, 8, 8, None), (1, 8, 8, 16)]


def test_multi_instance_is_several_instances_of_four_cores_or_of_one():
    assert layouts(16, mode="multi-instance")[1:] == [(4, 4, 4, None), (16, 1, 1, None)]
    assert layouts(2, mode="multi-instance")[1:] == [(2, 1, 1, None)]


def test_numbers_go_before_what_the_mode_means():
    assert layouts(8, mode="multi-instance", instances=2)[1:] == [(2, 4, 4, None)]
    assert layouts(8, mode="multi-instance", cores_per_instance=3)[1:] == [(2, 3, 3, None)]
    assert layouts(8, mode="latency", threads=(1, 2), batch_sizes=(1, 8))[1:] == [
        (1, 8, 1, 1),
        (1, 8, 1, 8),
        (1, 8, 2, 1),
        (1, 8, 2, 8),
    ]


def test_numbers_without_a_mode_are_enough():
    assert layouts(8, batch_sizes=(32,)) == [(1, 8, 8, None), (1, 8, 8, 32)]
    assert layouts(8, instances=4, cores_per_instance=2)[1:] == [(4, 2, 2, None)]
    assert layouts(8, cores_per_instance=2)[1:] == [(4, 2, 2, None)]


@pytest.mark.parametrize(
    ("cores", "wanted", "words"),
    [
        (4, {"instances": 3, "cores_per_instance": 2}, "3 instances of 2 cores need 6 cores, .* may use 4"),
        (4, {"cores_per_instance": 8}, "need 8 cores"),
        (4, {"mode": "latency", "instances": 2}, "measures one instance"),
        (1, {"mode": "multi-instance"}, "needs at least 2 cores"),
    ],
)
def test_what_the_machine_cannot_do_or_contradicts_itself_is_refused(cores, wanted, words):
    with pytest.raises(UserError, match=words):
        configurations(Wanted(**wanted), cores)


def run_as(instances, cores):
    return RunConfiguration(instances=instances, cores_per_instance=cores, threads=cores)


def test_no_two_instances_share_a_core():
    for configuration in (run_as(10, 1), run_as(5, 2), run_as(2, 5), run_as(3, 3), run_as(1, 10)):
        places = placements(configuration, NODES)
        used = [cpu for cores in places for cpu in cores]
        assert len(places) == configuration.instances
        assert {len(cores) for cores in places} == {configuration.cores_per_instance}
        assert len(used) == len(set(used))


def test_an_instance_stays_on_one_memory_node_where_that_works_out():
    assert placements(run_as(4, 2), NODES) == ((0, 1), (2, 3), (10, 11), (12, 13))
    assert placements(run_as(5, 2), NODES)[2] == (4, 10)


def test_without_known_cores_nothing_is_bound():
    assert placements(run_as(3, 1), ()) == ((), (), ())
    assert command(run_as(3, 1), (), ["python", "a b.py"]) == "env OMP_NUM_THREADS=1 python 'a b.py'"


def test_a_configuration_is_described_and_can_be_started_by_hand():
    configuration = RunConfiguration(instances=2, cores_per_instance=4, threads=1, batch_size=8)
    assert describe(configuration) == "2 instances of 4 cores, 1 thread, batch 8"
    assert (
        command(configuration, (4, 5), ["python", "x.py"]) == "env OMP_NUM_THREADS=1 taskset --cpu-list 4,5 python x.py"
    )
