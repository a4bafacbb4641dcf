"""Which variants there are: the combinations of features that the features' own declarations allow.

Nothing here names a feature: slots, exclusions, implied features, order and engines are all declared by the transforms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from neural_coder import outlook, registry
from neural_coder.edits import Accelerate
from neural_coder.errors import UserError
from neural_coder.patching import Authored
from neural_coder.records import Analysis, Feature, LeftAlone, Plan, Run, Task
from neural_coder.transform import Transform

EAGER = "torch"
"""The engine of features that need none of their own."""
USUAL_RATIOS = {"bf16": 2.25, "int8": 4.6}
"""How many times faster than float32 one core multiplies matrices where the promises were measured (AVX-512 with BF16
and VNNI)."""


def plan_for(features: Sequence[Feature], task: Task) -> Plan:
    """Make the variant that a list of features asks for.

    Args:
        features: What is wanted, in any order; a feature that takes values gets its default where none is given.
        task: The kind of script: implied features come along where they can help it.

    Returns:
        The wanted features and those that they imply, in the order in which they apply.

    Raises:
        UserError: A feature or its value does not exist, or two features exclude each other; the message names both.
    """
    wanted = list(dict.fromkeys(_with_default(feature) for feature in features))
    for one, other in itertools.combinations(wanted, 2):
        if reason := _conflict(one, other):
            raise UserError(f"{one} and {other} exclude each other: {reason}.")
    complete = [*wanted, *_implied(wanted, task)]
    engines = sorted({_backend(feature) for feature in complete} - {EAGER})
    if len(engines) > 1:
        names = " and ".join(str(feature) for feature in complete if _backend(feature) in engines)
        raise UserError(f"{names} exclude each other: each brings an engine of its own.")
    ordered = sorted(complete, key=lambda feature: (_kind(feature).order, feature.name))
    return Plan(features=tuple(ordered), backend=engines[0] if engines else EAGER)


def automatic_plans(
    task: Task,
    *,
    available: Mapping[str, str],
    always: Sequence[Feature] = (),
    gpu: bool = False,
    kernels: Mapping[str, float] | None = None,
) -> tuple[Plan, ...]:
    """List the variants that a search tries: all combinations of automatic features and of their values.

    Args:
        task: The kind of script.
        available: For each backend why it cannot be used here, in words; empty when it can.
        always: Features that are part of every variant; combinations that they exclude are left out.
        gpu: Whether PyTorch can use a GPU here.
        kernels: By kind (`Transform.kernel`): how many times faster than float32 it is on this machine. What is not
            among them counts as usual.

    Returns:
        The plans, the most promising first: by what their features typically gain, for the time that it takes to see.
        Plans that cannot be tried here are among them, and say why.
    """
    plans: dict[tuple[Feature, ...], Plan] = {}
    companions = _companions(task)
    for combination in itertools.product(*_choices(task)):
        chosen = [*always, *(feature for feature in combination if feature is not None)]
        chosen += [feature for feature in companions if not _any_conflict([*chosen, feature])]
        if len(chosen) == len(always) or _any_conflict(chosen):
            continue
        plan = plan_for(chosen, task)
        plans[plan.features] = replace(plan, skipped=available.get(plan.backend, "") or _why_no_gpu(plan, gpu))
    before = outlook.Outlook(promise=lambda plan: promise(plan, kernels or {}))
    return tuple(sorted(plans.values(), key=lambda plan: (-before.worth(plan), len(plan.features), plan.id)))


def promise(plan: Plan, kernels: Mapping[str, float]) -> float:
    """How many times faster than the original a plan typically is.

    Args:
        plan: The variant.
        kernels: As for `automatic_plans`.
    """
    return math.prod(_promise(_kind(feature), kernels) for feature in plan.features)


def edits_for(plan: Plan, analysis: Analysis) -> tuple[tuple[Authored, ...], tuple[LeftAlone, ...]]:
    """Ask the features of a plan for their edits of one file.

    Args:
        plan: The variant.
        analysis: The facts on the original file. All features see the same, without what one of them takes out of it.

    Returns:
        The edits, each with its author, and the sites that were left alone, each with the reason.
    """
    edits: list[Authored] = []
    left: list[LeftAlone] = []
    gone = {use for feature in plan.features for use in _kind(feature).takes_out}
    for feature in plan.features:
        kind = _kind(feature)
        devices = tuple(use for use in analysis.devices if use.kind not in gone - kind.takes_out)
        for item in kind().edits(replace(analysis, devices=devices), feature.value):
            if isinstance(item, LeftAlone):
                left.append(item)
                continue
            if feature.settings and isinstance(item, Accelerate):
                item = replace(item, settings=feature.settings)
            edits.append(Authored(author=kind.name(), order=kind.order, edit=item))
    return tuple(edits), tuple(left)


def fitted(plan: Plan, run: Run) -> Plan:
    """The plan with values that suit a script.

    Args:
        plan: The variant.
        run: A run of the original. One that was stopped says nothing about how often the script calls its models.
    """
    sites = [site for site in run.timings if site.kind == "inference"]
    if not run.ended_by_itself or not sites:
        return plan
    busiest = max(sites, key=lambda site: site.calls)
    features = tuple(
        replace(each, value=_kind(each).fitted(each.value, calls=busiest.calls, items=busiest.items or 1))
        for each in plan.features
    )
    return replace(plan, features=features)


def asked_for(plan: Plan) -> tuple[Feature, ...]:
    """The features that make a plan what it is: those that must change something and take effect.

    Companions, and what others imply, may find nothing to do; in a plan of their own they must.
    """
    implied = {name for feature in plan.features for name in _kind(feature).implies}
    own = [item for item in plan.features if item.name not in implied and not _kind(item).companion]
    return tuple(own) or plan.features


def _why_no_gpu(plan: Plan, gpu: bool) -> str:
    needing = [] if gpu else [str(item) for item in plan.features if _kind(item).needs_gpu(item.value)]
    return f"{needing[0]} needs a GPU that PyTorch can use" if needing else ""


def _kind(feature: Feature) -> type[Transform]:
    return registry.transform(feature.name)


def _backend(feature: Feature) -> str:
    return _kind(feature).backend_for(feature.value)


def _with_default(feature: Feature) -> Feature:
    """The feature with its canonical name, and with a value where it takes one of several."""
    kind = _kind(feature)
    value = kind.values[0] if feature.value is None and kind.values else feature.value
    if problem := kind.check_value(value):
        raise UserError(f"{problem}; {str(feature)!r} was given.")
    return replace(feature, name=kind.name(), value=value)


def _conflict(one: Feature, other: Feature) -> str:
    """Why two features exclude each other, in words; empty when they do not."""
    first, second = _kind(one), _kind(other)
    both = {first.slot, *first.also_decides} & {second.slot, *second.also_decides}
    if both:
        return f"both decide the {min(both).replace('_', ' ')}"
    if second.name() in first.excludes or first.name() in second.excludes:
        return "they cannot work on one model together"
    return ""


def _any_conflict(features: Sequence[Feature]) -> bool:
    distinct = dict.fromkeys(_with_default(feature) for feature in features)
    if len({_backend(feature) for feature in distinct} - {EAGER}) > 1:
        return True
    return any(_conflict(one, other) for one, other in itertools.combinations(distinct, 2))


def _implied(wanted: Sequence[Feature], task: Task) -> list[Feature]:
    """What the wanted features bring along, also at second hand; what does not fit what was asked for stays out."""
    found: list[Feature] = []
    queue = list(wanted)
    while queue:
        for name in _kind(queue.pop(0)).implies:
            implied = _with_default(Feature(name=name))
            fits = not any(implied == known or _conflict(implied, known) for known in (*wanted, *found))
            if fits and task in _kind(implied).tasks:
                found.append(implied)
                queue.append(implied)
    return found


def _companions(task: Task) -> list[Feature]:
    return [
        Feature(name=name)
        for name, kind in registry.transforms().items()
        if kind.automatic and kind.companion and task in kind.tasks
    ]


def _choices(task: Task) -> list[list[Feature | None]]:
    """For each slot the automatic features that may fill it, with each of their values; None leaves it empty."""
    slots: dict[str, list[Feature | None]] = {}
    for name, kind in registry.transforms().items():
        if kind.automatic and not kind.companion and task in kind.tasks:
            values: Sequence[str | None] = kind.values or (None,)
            slots.setdefault(kind.slot, [None]).extend(Feature(name=name, value=value) for value in values)
    return list(slots.values())


def _promise(kind: type[Transform], kernels: Mapping[str, float]) -> float:
    """What a feature promises on this machine: as declared, times what its kernel reaches here against where it was."""
    if kind.kernel not in kernels:
        return kind.promise
    return kind.promise * kernels[kind.kernel] / USUAL_RATIOS[kind.kernel]
