"""What the parent asks of a child process: which script, patched how, probed where, and when to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from neural_coder.records import Metric, Plan, Span


def site_name(path: Path, root: Path, kind: str, number: int) -> str:
    """The name of a site: by file, kind and number, so that all variants of a script agree on it."""
    file = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return f"{file}:{kind}:{number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A call to watch, at its place in the text that the child runs."""

    site: str
    """Name of the site, the same in baseline and variants: `train.py:inference:0`."""
    kind: Literal["inference", "forward", "backward", "optimizer_step", "seen"]
    """`seen`: how often the script comes to the call is counted, and nothing is measured."""
    call: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A statement whose executions are to be counted."""

    site: str
    statement: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """When a site has been measured enough. A run stops once all sites that it reached have."""

    warmup: int = 3
    """Calls of each site that are recorded apart."""
    min_samples: int = 10
    max_samples: int = 200
    min_seconds: float = 1.0
    """Time inside a site's samples after which `min_samples` are enough."""
    max_seconds: float = 20.0
    """Time inside a site's samples after which any number of them is enough (at least one)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Processes that measure at the same time: none begins before all are warm, none stops before all have enough."""

    folder: Path
    """Where they leave their marks."""
    number: int
    """Of this process, from 0."""
    count: int
    """How many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of the user's script."""

    python: Path
    """The interpreter that runs it."""
    script: Path
    """Absolute, in the user's own tree; the run itself happens in a shadow of `root`."""
    args: tuple[str, ...] = ()
    cwd: Path
    root: Path
    """The project's folder."""
    patched: Mapping[Path, bytes] = field(default_factory=dict)
    """Files of the project, by their real path, that have other content in this run."""
    probes: Mapping[Path, tuple[Probe, ...]] = field(default_factory=dict)
    """By the file's real path."""
    seed: int = 0
    threads: int = 0
    """Threads for every variant alike; 0: as many as the process may use cores, unless the environment says else."""
    cores: tuple[int, ...] = ()
    """Logical CPUs that the process is bound to before anything is imported; none: it may run on all."""
    meeting: Meeting | None = None
    """With which other processes it measures at the same time."""
    items: int | None = None
    """Measure inference calls with so many items: their inputs are repeated or cut along the first dimension once the
    script's own calls have been made. None: measure the script's own calls."""
    timeout: float = 600.0
    """Seconds for the whole process."""
    to_the_end: bool = False
    """Let the script run to its end, where the user's metrics are known."""
    capture_to: Path | None = None
    """Folder that the outputs of the first calls are written to (the baseline's first run)."""
    compare_with: Path | None = None
    """Folder of captured outputs to compare this run's with."""
    metrics: tuple[Metric, ...] = ()
    """The user's own: patterns look at all that is printed, functions are called when a run goes `to_the_end`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables on top of the parent's own."""
    sampling: Sampling = field(default_factory=Sampling)
    observe: bool = False
    """Also report where models are built and called, whether probed or not."""
    marks: Mapping[Path, tuple[Mark, ...]] = field(default_factory=dict)
    """By the file's real path; they count when `observe` is set."""
    rank_operators: bool = False
    """Measure nothing, but find out what quantizing each operator alone would do, on the first calls of the script."""
    stop_after: float | None = None
    """Seconds after which the script is stopped wherever it is, to report what was observed; None: samples decide."""
    plan: Plan | None = None
    """The variant, for the record; None: the original."""
    purpose: str = ""
    """What the run is for: `first`, `control`, `look`, `round`, `confirmation`."""
