"""What a transform is: it looks at the facts of a file and describes edits; it never touches the text itself."""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from neural_coder.edits import Edit
from neural_coder.records import Analysis, Call, LeftAlone, Model, Safety, Task, Witness


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What a transform does to a small script; a test case and a piece of documentation at once."""

    before: str
    after: str
    value: str | None = None


def code(text: str) -> str:
    """A small script, written indented between triple quotes."""
    return textwrap.dedent(text.removeprefix("\n")).rstrip(" ")


class Transform(ABC):
    """One feature that a user can switch on.

    A subclass stands alone in `transforms/NAME.py`; the module's name is the feature's name. Its docstring is what
    `neural-coder explain NAME` prints: first line what it does, when it helps, what it risks, and a `Source:` line.
    """

    safety: ClassVar[Safety]
    tasks: ClassVar[frozenset[Task]]
    """Kinds of scripts that it can help."""
    slot: ClassVar[str]
    """What it decides (`precision`, `memory_format`, `engine`, ...); two features with one slot exclude each other."""
    also_decides: ClassVar[frozenset[str]] = frozenset()
    """Further slots that it fills."""
    order: ClassVar[int]
    """Position among features at the same place: lower goes first."""
    backend: ClassVar[str] = "torch"
    """The engine that runs the model when this feature is on (see `backends/`)."""
    implies: ClassVar[tuple[str, ...]] = ()
    """Features that it needs at its side; they come along where they apply."""
    companion: ClassVar[bool] = False
    """Whether a search adds it to every variant that it fits, because it costs nothing and may help anywhere."""
    excludes: ClassVar[frozenset[str]] = frozenset()
    """Features, beyond those of the same slot, that it cannot be combined with."""
    takes_out: ClassVar[frozenset[str]] = frozenset()
    """Kinds of `DeviceUse` that a script no longer has with it; the other features of a plan need not mind them."""
    automatic: ClassVar[bool] = True
    """Whether a search tries it without being asked."""
    values: ClassVar[tuple[str, ...]] = ()
    """Values that it takes (`NAME=VALUE`); a search tries each, and the first is the default."""
    hardware: ClassVar[str]
    """Where it helps, in words."""
    settable: ClassVar[bool] = False
    """Whether it takes settings: keyword arguments of the runtime's call, such as `exclude`."""
    rest: ClassVar[str] = ""
    """Where a search may leave operators unquantized: the precision that these then have (`bf16`, `fp32`)."""
    promise: ClassVar[float] = 1.0
    """A typical speed-up where it helps. It only decides which variants a search tries first."""

    kernel: ClassVar[str] = ""
    """The kind of matrix multiplication that its gain rests on (`bf16`, `int8`): what that reaches on the machine at
    hand, measured in a second, scales the promise. Empty: none that is measured."""

    CHANGES: ClassVar[Sequence[Example]]
    LEAVES_ALONE: ClassVar[Sequence[str]]

    @classmethod
    def name(cls) -> str:
        """The feature's name: that of its module."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def check_value(cls, value: str | None) -> str:
        """Say what is wrong with a value, in words; empty when it can be used."""
        if value is None or value in cls.values:
            return ""
        if not cls.values:
            return f"{cls.name()} takes no value"
        return f"{cls.name()} takes one of: {', '.join(cls.values)}"

    @classmethod
    def backend_for(cls, value: str | None) -> str:
        """The engine that runs the model for this value."""
        return cls.backend

    @classmethod
    def needs_gpu(cls, value: str | None) -> bool:
        """Whether this value does nothing on a machine without a GPU; a search does not try it there."""
        return False

    @classmethod
    def fitted(cls, value: str | None, *, calls: int, items: int) -> str | None:
        """The value that suits a script; what a search tries instead of the value alone.

        Args:
            value: One of `values`, or None.
            calls: How often the whole script calls its models.
            items: Samples of data in one call.
        """
        return value

    @classmethod
    def leave(cls, line: int, reason: str) -> LeftAlone:
        """Say why a site is left as it is."""
        return LeftAlone(line=line, author=cls.name(), reason=reason)

    @abstractmethod
    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Describe the edits for one file; yield `LeftAlone` for each site that is left as it is, and why.

        Args:
            facts: What is known about the file.
            value: The feature's value, or None for the default.
        """

    @abstractmethod
    def no_effect(self, before: Witness, after: Witness) -> str:
        """Say why the feature did nothing at run time, in words; empty when it took effect.

        Args:
            before: What was seen in the baseline.
            after: What was seen in the variant.
        """


OCCUPIED = {
    "accelerate": "is prepared by another library (accelerate, apex, DeepSpeed)",
    "compile": "is already compiled by the script",
    "data_parallel": "is spread over several devices by the script",
    "export": "is exported by the script",
    "jit": "is already TorchScript",
    "quantized": "is already quantized",
}
"""Traits of a model that another engine cannot take over, in words."""
REDUCED = {"bfloat16": "is already in bfloat16", "half": "is already in float16", "double": "is in float64"}
"""Traits of a model whose precision the script has chosen itself, in words."""


def traits_of(call: Call, facts: Analysis) -> frozenset[str]:
    """What the script itself does with the model of a call; of all models that the name may stand for."""
    named = [model.traits for model in facts.models if model.name == call.model]
    return frozenset().union(*named)


def why_not(model: Model, traits: Mapping[str, str]) -> str:
    """Why nothing can be inserted behind a model, in words; empty when it can.

    Args:
        model: The model.
        traits: What the script must not do with the model already, each in words.
    """
    if model.ready is None:
        return model.why_not_ready or f"there is no place behind which {model.name} is ready"
    found = [words for trait, words in sorted(traits.items()) if trait in model.traits]
    return f"{model.name} {found[0]}" if found else ""


def why_not_inference_only(model: Model, facts: Analysis) -> str:
    """Why a model must stay trainable, in words; empty when the project only infers with it."""
    if model.trained:
        return f"{model.name} is trained"
    unknown = any(forward.model is None for step in facts.steps for forward in step.forwards)
    if unknown and not model.inferred:
        return f"{model.name} may be the model that is trained at line {facts.steps[0].backward.line}"
    return ""


def why_not_accelerated(after: Witness) -> str:
    """Why the runtime did not take over the model, in words, from what was seen in a variant."""
    return f"the runtime ran the original model: {after.fallback or 'no call was eligible'}"
