"""Run configurations that a user asks for: by mode, or by instances, cores, threads and batch sizes. Pure.

The modes mean what they meant in the predecessor's benchmark of this kind, but for latency: there each core was an
instance, and all of them ran at once; here it is one instance that has the machine for itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from neural_coder.errors import UserError
from neural_coder.records import Mode, RunConfiguration
from neural_coder.units import count

MODES: tuple[Mode, ...] = ("latency", "throughput", "multi-instance")
USUAL_CORES = 4
"""Cores of an instance where there are many: smaller models rarely gain from more."""
ITEMS_PER_CORE = 2
"""Batch size that a sweep for throughput tries, besides the script's own."""

Nodes = Sequence[Sequence[int]]
"""Logical CPUs, one for each physical core, by memory node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a user wants to see."""

    mode: Mode | None = None
    instances: int | None = None
    cores_per_instance: int | None = None
    threads: tuple[int, ...] = ()
    batch_sizes: tuple[int, ...] = ()

    @property
    def anything(self) -> bool:
        """Whether there is to be a sweep at all."""
        return self != Wanted()


def usual(cores: int) -> RunConfiguration:
    """How scripts are usually run: one process, on all cores."""
    return RunConfiguration(cores_per_instance=cores, threads=cores)


def configurations(wanted: Wanted, cores: int) -> tuple[RunConfiguration, ...]:
    """List what a sweep measures, the usual way to run a script first.

    Args:
        wanted: What was asked for.
        cores: Physical cores that may be used.

    Raises:
        UserError: The machine has too few cores for it, or it contradicts itself.
    """
    found = [usual(cores)]
    for instances, cores_each in _layouts(wanted, cores):
        for threads in wanted.threads or _threads(wanted, cores_each):
            for size in wanted.batch_sizes or _batch_sizes(wanted, cores):
                found.append(
                    RunConfiguration(
                        instances=instances, cores_per_instance=cores_each, threads=threads, batch_size=size
                    )
                )
    return tuple(dict.fromkeys(found))


def placements(configuration: RunConfiguration, nodes: Nodes) -> tuple[tuple[int, ...], ...]:
    """Give each instance cores of its own, those of one memory node where that works out.

    Args:
        configuration: How many instances, and how many cores for each.
        nodes: The cores that there are; none: processes cannot be bound to cores here.

    Returns:
        Logical CPUs for each instance; empty ones where processes cannot be bound.
    """
    each = configuration.cores_per_instance
    if not nodes:
        return ((),) * configuration.instances
    within = [part for node in nodes for part in _parts(node, each)]
    chosen = within if len(within) >= configuration.instances else _parts([cpu for node in nodes for cpu in node], each)
    return tuple(chosen[: configuration.instances])


def command(configuration: RunConfiguration, cores: Sequence[int], words: Sequence[str]) -> str:
    """What starts one instance by hand, with the cores that it had."""
    bound = ["taskset", "--cpu-list", ",".join(map(str, cores))] if cores else []
    return shlex.join(["env", f"OMP_NUM_THREADS={configuration.threads}", *bound, *words])


def describe(configuration: RunConfiguration) -> str:
    """A configuration in words: `2 instances of 1 core, 1 thread, batch 8`."""
    each = count(configuration.cores_per_instance, "core")
    parts = [f"{count(configuration.instances, 'instance')} of {each}", count(configuration.threads, "thread")]
    return ", ".join([*parts, *([f"batch {configuration.batch_size}"] if configuration.batch_size else [])])


def _parts(cpus: Sequence[int], each: int) -> list[tuple[int, ...]]:
    return [tuple(cpus[start : start + each]) for start in range(0, len(cpus) - each + 1, each)]


def _layouts(wanted: Wanted, cores: int) -> list[tuple[int, int]]:
    """Instances and the cores of each."""
    single = wanted.mode in ("latency", "throughput")
    if single and (wanted.instances or 1) > 1:
        raise UserError(
            f"--mode {wanted.mode} measures one instance, but --instances {wanted.instances} was given; "
            "use --mode multi-instance."
        )
    each = wanted.cores_per_instance
    if each is None and wanted.instances is None and wanted.mode == "multi-instance":
        if cores < 2:
            raise UserError("--mode multi-instance needs at least 2 cores, and this process may use 1.")
        return [(cores // some, some) for some in (USUAL_CORES, 1) if cores // some > 1]
    instances = wanted.instances or (1 if single or each is None else max(1, cores // each))
    each = each or max(1, cores // instances)
    if instances * each > cores:
        raise UserError(
            f"{count(instances, 'instance')} of {count(each, 'core')} need {instances * each} cores, and this process "
            f"may use {cores}."
        )
    return [(instances, each)]


def _threads(wanted: Wanted, cores: int) -> tuple[int, ...]:
    """As many as cores; small models often answer sooner with fewer."""
    return tuple(dict.fromkeys((cores, -(-cores // 2)))) if wanted.mode == "latency" else (cores,)


def _batch_sizes(wanted: Wanted, cores: int) -> tuple[int | None, ...]:
    return (None, ITEMS_PER_CORE * cores) if wanted.mode == "throughput" else (None,)
