"""What a strategy searches: operators that may stay in floating point, and settings of the quantization."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from neural_coder.records import Setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One way to quantize: what stays in floating point, in which precision, and settings that are not the default."""

    exclude: tuple[str, ...] = ()
    """Operators that are not quantized, in the order of the space."""
    fallback: str
    """The precision of all that is not quantized."""
    settings: tuple[tuple[str, Setting], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """All ways to quantize one model."""

    operators: tuple[str, ...]
    """Those that hurt most first, as far as that is known before any trial."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """By operator: the error between its outputs in floating point and quantized."""
    impacts: Mapping[str, float] = field(default_factory=dict)
    """By operator: the error that it alone, quantized, makes in the model's outputs; known of some or all."""
    fallbacks: tuple[str, ...]
    """Precisions that operators may fall back to, the fastest first: `bf16`, `fp32`."""
    knobs: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)
    """Settings and the values that are worth a trial besides the default, the most promising first."""

    def point(self, exclude: Iterable[str] = (), *, like: Point | None = None) -> Point:
        """The point with these operators in floating point.

        Args:
            exclude: Operators, in any order.
            like: Where all else is taken from; None: the defaults.
        """
        left = frozenset(exclude)
        names = tuple(name for name in self.operators if name in left)
        return replace(like or Point(fallback=self.fallbacks[0]), exclude=names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What became of one point."""

    point: Point
    kept: bool
    """Whether the accuracy criterion holds."""
    speedup: float
    """Against the original; 0 when it failed."""
    loss: float | None
    """What is lost, in units of what is allowed: beyond 1 it is too much. None when nothing could be compared."""
    memory_bytes: int | None = None
    """Peak of the process."""
    size_bytes: int | None = None
    """The converted model on disk."""
    seconds: float = 0.0

    @property
    def gap(self) -> float:
        """How far it is from the criterion, to compare trials with; infinite when nothing is known."""
        return float("inf") if self.loss is None else self.loss


def best(trials: Iterable[Trial]) -> Trial | None:
    """The fastest that keeps the answers; of equals the one with the fewest operators in floating point."""
    kept = [trial for trial in trials if trial.kept and trial.speedup > 0]
    return max(kept, key=lambda trial: (trial.speedup, -len(trial.point.exclude)), default=None)


def pareto(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Of those that keep the answers: the ones that no other beats in speed and memory and size at once."""
    kept = [trial for trial in trials if trial.kept and trial.speedup > 0]
    return tuple(trial for trial in kept if not any(_dominates(other, trial) for other in kept))


def objectives(trial: Trial) -> tuple[float, float, float]:
    """Time, memory and size, all better when lower; what is unknown counts as nothing."""
    return -trial.speedup, float(trial.memory_bytes or 0), float(trial.size_bytes or 0)


def _dominates(one: Trial, other: Trial) -> bool:
    ours, theirs = objectives(one), objectives(other)
    return ours != theirs and all(mine <= yours for mine, yours in zip(ours, theirs, strict=True))
