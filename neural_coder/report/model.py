"""What the main job found, as one record; JSON is made from it, and all else from the JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from neural_coder.observed import Merged
from neural_coder.records import Analysis, Criterion, Interval, Run, Sweep, Verdict
from neural_coder.tuning.outcome import Tuned

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"
"""Plain data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything about one search."""

    script: str
    """As the user named it."""
    args: tuple[str, ...] = ()
    root: Path
    """The folder that paths of sites are relative to."""
    machine: Mapping[str, Json] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    analyses: tuple[Analysis, ...] = ()
    observed: Merged | None = None
    """What the first run of the original has shown of its models."""
    criterion: Criterion = field(default_factory=Criterion)
    baseline: tuple[Run, ...] = ()
    """Runs of the original, in the order of the rounds."""
    verdicts: tuple[Verdict, ...] = ()
    """One for each variant, also those that failed or did not apply."""
    reproduce: Mapping[str, str] = field(default_factory=dict)
    """By variant id: the command that patches and runs just that variant."""
    pythons: Mapping[str, Path] = field(default_factory=dict)
    """By variant id: its interpreter, where it needs an environment of its own."""
    chosen: str | None = None
    """Id of the recommended variant; None: keep the script."""
    confirmed: Interval | None = None
    """The chosen variant's speed-up in fresh runs after it was chosen."""
    sweep: Sweep | None = None
    """The original and the best variants in several run configurations, where that was asked for."""
    diff: str = ""
    """Of the chosen variant; bytes that are no UTF-8 as `surrogateescape` has them."""
    notes: tuple[str, ...] = ()
    """What the reader should know besides, one sentence each (the machine was busy, the GPU was replaced)."""
    tuning: tuple[Tuned, ...] = ()
    """What was tried with variants that lost too much."""
    seconds: float | None = None
    """How long the search took."""
    search: int | None = None
    """Its number in the store of trials; None: it is not kept."""
    ended: Literal["complete", "budget", "interrupted"] = "complete"
    """Why it ended; see `race.Ended`."""
    evidence: Literal["confirmed", "rounds", "first look"] | None = None
    """What speaks for the chosen variant; see `race.Evidence`."""
