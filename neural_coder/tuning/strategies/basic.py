"""Settings first; then operators fall back, by the impact that each was seen to have."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from neural_coder.tuning.search import Search
from neural_coder.tuning.space import Point, Space, Trial, best
from neural_coder.tuning.strategy import Strategy

SHARE_FOR_SETTINGS = 0.4
"""Share of the trials that settings may take before operators fall back."""
HELPFUL = 0.75
"""A setting must bring the loss down to this share of what it is by default to be kept while operators fall back: one
answer more or less may be chance."""
SINGLE = 3
"""Operators that are tried alone, the most suspicious ones; the groups of the others double in size."""
KNOWN_SHARE = 0.5
"""Share of the operators that may fall back on the word of the look beforehand."""

Group = tuple[str, ...]


class Basic(Strategy):
    """Try settings one by one; while the criterion fails, let operators fall back by their impact.

    What each operator does to the model's outputs was seen beforehand where there was time for that, so they fall back
    together in that order: 1, 2, 4, 8, ... of them. Where that does not lead to the criterion, an engine has troubles
    of its own: operators fall back alone (the less suspicious ones in groups) to see what each brings, then together,
    in the order of what they brought, until the criterion holds: in bf16 where the engine has it, then in fp32.
    """

    def trials(self, space: Space, search: Search, chance: random.Random) -> Iterator[Trial]:
        """Yield the trials of each phase."""
        start = yield from _settings(space, search)
        if start.kept:
            return
        known = [name for name in space.operators if name in space.impacts]
        doubling = doubled(known[: round(KNOWN_SHARE * len(space.operators))])
        found = yield from _together(doubling, start.point, space, search)
        if found is not None:
            yield from _quantized_again(found, doubling, space, search)
            return
        groups = grouped(space.operators)
        alone: list[tuple[Trial, Group]] = []
        for group in groups:
            trial = search.evaluate(space.point(group, like=start.point))
            yield trial
            alone.append((trial, group))
        ranked = [group for trial, group in sorted(alone, key=lambda item: item[0].gap)]
        for fallback in space.fallbacks:
            like = replace(start.point, fallback=fallback)
            found = yield from _together(ranked, like, space, search)
            if found is not None:
                yield from _quantized_again(found, ranked, space, search)
                return


def doubled(operators: Sequence[str]) -> list[Group]:
    """Groups that double what came before: of 1, 1, 2, 4, 8, ... operators."""
    return _doubling(operators[:1], operators[1:], size=1)


def grouped(operators: Sequence[str]) -> list[Group]:
    """The first operators alone, the others in groups of 2, 4, 8, ..."""
    return _doubling(operators[:SINGLE], operators[SINGLE:], size=2)


def _doubling(alone: Sequence[str], others: Sequence[str], size: int) -> list[Group]:
    groups: list[Group] = [(name,) for name in alone]
    rest = list(others)
    while rest:
        groups.append(tuple(rest[:size]))
        rest, size = rest[size:], size * 2
    return groups


def _settings(space: Space, search: Search) -> Generator[Trial, None, Trial]:
    """Try the defaults in each precision, then each setting by itself; return the best start for what follows."""
    points = [Point(fallback=fallback) for fallback in space.fallbacks]
    points += [
        Point(fallback=space.fallbacks[0], settings=((name, value),))
        for name, values in space.knobs.items()
        for value in values
    ]
    tried: list[Trial] = []
    for point in points:
        if len(tried) >= max(len(space.fallbacks), round(SHARE_FOR_SETTINGS * search.expected)):
            break
        trial = search.evaluate(point)
        yield trial
        tried.append(trial)
    # Another precision of the rest is tried again later; here the fastest that is nearest to the criterion counts.
    nearest = min(tried, key=_distance)
    plain = min((trial for trial in tried if not trial.point.settings), key=_distance)
    return best(tried) or (nearest if nearest.gap <= HELPFUL * plain.gap else plain)


def _distance(trial: Trial) -> tuple[float, float]:
    return trial.gap, -trial.speedup


def _together(
    ranked: Sequence[Group], like: Point, space: Space, search: Search
) -> Generator[Trial, None, Trial | None]:
    """Let one group after the other fall back, until the criterion holds."""
    left: list[str] = []
    for group in ranked:
        left += group
        trial = search.evaluate(space.point(left, like=like))
        yield trial
        if trial.kept:
            return trial
    return None


def _quantized_again(found: Trial, ranked: Sequence[Group], space: Space, search: Search) -> Iterator[Trial]:
    """Quantize halves of the group that fell back last, where the criterion holds without them."""
    kept = found
    last = next((group for group in reversed(ranked) if set(group) <= set(found.point.exclude)), ())
    names = [name for name in space.operators if name in last]
    while len(names) > 1:
        half = names[len(names) // 2 :]  # the less suspicious ones
        trial = search.evaluate(space.point(set(kept.point.exclude) - set(half), like=kept.point))
        yield trial
        if trial.kept:
            kept, names = trial, names[: len(names) // 2]
        else:
            names = half
