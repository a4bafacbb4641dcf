"""Trials that Optuna's Gaussian process asks for; what `bayesian` and `sigopt` share.

Optuna was chosen because one sampler covers both: expected improvement with constraints, for one objective and for
several, over numbers and choices, asked point by point. BoTorch and Ax do the same with a tower of further packages on
top of PyTorch; scikit-optimize has neither constraints nor several objectives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from neural_coder.records import Setting
from neural_coder.tuning.search import Search
from neural_coder.tuning.space import Point, Space, Trial

NEEDS = ("optuna", "scipy", "torch")
SWITCHES = 8
"""Operators, the most suspicious ones, that the model decides on one by one; of the others it chooses how many."""
BEGINNING = (0, 1, 2, 4, SWITCHES)
"""How many of these are left out in the first trials."""
FRUITLESS = 10
"""Points in a row that were tried before after which nothing new is expected."""
OTHERS, FALLBACK = "others", "fallback"
START_SHARE = 1 / 3
"""Share of the trials that are drawn at random before the model has enough to learn from."""
FAILED = 10.0
"""What counts as the loss of a trial without any, in multiples of what is allowed."""


def trials(
    space: Space, search: Search, seed: int, *, better: Sequence[str], figures: Callable[[Trial], Sequence[float]]
) -> Iterator[Trial]:
    """Try what the model asks for; accuracy is its constraint.

    Args:
        space: What there is to choose from.
        search: Evaluates points.
        seed: For Optuna's random numbers.
        better: `maximize` or `minimize`, for each objective.
        figures: The objectives of a trial.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=max(3, round(START_SHARE * search.limits.trials)))
    study = optuna.create_study(directions=list(better), sampler=sampler)
    # Everything quantized, and the most suspicious operators left out: no random point says as much.
    for switches in BEGINNING:
        study.enqueue_trial(_plain(switches, space))
    seen: set[Point] = set()
    fruitless = 0
    while fruitless < FRUITLESS:
        asked = study.ask()
        point = _point(asked, space)
        trial = search.evaluate(point)
        fruitless = fruitless + 1 if point in seen else 0
        if point not in seen:
            seen.add(point)
            yield trial
        asked.set_constraint("loss", _too_much(trial))
        study.tell(asked, list(figures(trial)))


def _point(asked: Any, space: Space) -> Point:
    """What the model asks for; all parameters are always there, so that it can learn from each trial."""
    alone = _alone(space)
    names = [name for place, name in enumerate(alone) if asked.suggest_int(_switch(place), 0, 1)]
    others = space.operators[len(alone) :]
    if others:
        names += others[: asked.suggest_int(OTHERS, 0, len(others))]
    fallback = space.fallbacks[0]
    if len(space.fallbacks) > 1:
        fallback = asked.suggest_categorical(FALLBACK, space.fallbacks)
    settings: list[tuple[str, Setting]] = []
    for name, values in space.knobs.items():
        value = asked.suggest_categorical(name, (None, *values))
        settings += [] if value is None else [(name, value)]
    return space.point(names, like=Point(fallback=fallback, settings=tuple(settings)))


def _plain(switches: int, space: Space) -> dict[str, Any]:
    """All parameters of the point in which so many operators are left out, and all else is the default."""
    plain: dict[str, Any] = {_switch(place): int(place < switches) for place, _ in enumerate(_alone(space))}
    return {**plain, OTHERS: 0, FALLBACK: space.fallbacks[0], **dict.fromkeys(space.knobs)}


def _alone(space: Space) -> tuple[str, ...]:
    return space.operators[:SWITCHES]


def _switch(place: int) -> str:
    return f"operator {place}"


def _too_much(trial: Trial) -> float:
    """The constraint: at most zero where the answers are kept."""
    over = (FAILED if trial.loss is None else min(trial.loss, FAILED)) - 1.0
    return min(over, 0.0) if trial.kept else max(over, 0.01)
