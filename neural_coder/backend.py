"""What a backend is: an engine that can run models, where it is found, and how it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from neural_coder.records import Setting


class Backend:
    """One engine. A subclass stands alone in `backends/`; the facts are looked up in the user's Python, not in ours."""

    name: ClassVar[str]
    """As in variants and in `runtime.accelerate(engine=...)`."""
    title: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]
    """Modules that must be importable, its own last."""
    distribution: ClassVar[str]
    """Name on the package index, whose version is shown."""
    extra: ClassVar[str] = ""
    """`pip install neural-coder[EXTRA]` installs it; empty when it comes with PyTorch."""
    needs_compiler: ClassVar[bool] = False
    """Whether it builds C++ code at run time."""
    startup_seconds: ClassVar[float] = 0.0
    """What building a model's code typically takes. It only decides which variants a search tries first."""
    requirements: ClassVar[tuple[str, ...]] = ()
    """What an environment of its own holds, by exact versions, where it does not work with the user's PyTorch (see
    `neural-coder env`); empty: it runs where the script runs."""
    disk_gb: ClassVar[float] = 0.0
    """How much such an environment takes, at most."""
    environment: ClassVar[dict[str, str]] = {}
    """Environment variables for the child process."""

    @classmethod
    def tunable(cls, kinds: frozenset[str]) -> Mapping[str, tuple[Setting, ...]]:
        """Settings of static quantization, and the values that are worth a trial when the default loses too much.

        Args:
            kinds: Classes of the layers that are quantized.

        Returns:
            The most promising setting first, the most promising value of each first.
        """
        return {}
