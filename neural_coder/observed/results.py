"""What comes of bringing the code and a run together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neural_coder.records import Analysis, CodeFrame, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A site that only the run has shown."""

    kind: Literal["model", "inference", "forward"]
    path: Path
    line: int
    scope: str
    name: str
    """Of the model's class."""
    frames: tuple[CodeFrame, ...]
    """The way there, the innermost frame first."""
    through: tuple[str, ...]
    """What lies between that frame and the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Something that the code seems to say and the run does not bear out."""

    path: Path
    line: int
    text: str
    """The site, as written."""
    message: str
    """What was expected and what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShare:
    """What one model (or several that were built at one place) took of the script's time."""

    name: str
    built: CodeFrame | None
    """Where it was built; None when that was not seen."""
    parameters: int | None
    calls: int
    seconds: float
    share: float
    """Of the time that the script ran, imports and all."""
    called: tuple[CodeFrame, ...]
    """From where, the most time first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The sites of a script's files with what its run has shown."""

    analyses: tuple[Analysis, ...]
    """With evidence from the run, and with the sites that it has added."""
    observation: Observation
    added: tuple[Added, ...]
    shares: tuple[ModelShare, ...]
    """The most time first."""
    conflicts: tuple[Conflict, ...]
