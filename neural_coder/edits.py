"""The kinds of edits that a transform can ask for. `neural_coder.patching` applies them, all on the original text.

Code in edits is written against canonical imports (`torch.channels_last`, `neural_coder.runtime.accelerate`): the
patching resolves these to what the file calls them, and adds a module-level import where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from neural_coder.records import Setting, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class InsertAfter:
    """Put statements behind a statement, in its block. Dropped where the same statement already follows."""

    at: Span
    code: str
    reason: str
    imports: tuple[str, ...] = ("torch",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrap:
    """Put a `with` block around one statement or a run of statements of one block.

    Wraps of the same statements become one `with` with several items; the same wrap of neighbouring statements becomes
    one block.
    """

    at: Span
    """From the first statement's start to the last one's end."""
    item: str
    """The context manager: `torch.inference_mode()`."""
    reason: str
    imports: tuple[str, ...] = ("torch",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """Put other code in the place of an expression; empty code on a whole statement takes it out.

    Where the statement is the only one of its block, or shares its line with others, `pass` takes its place.
    """

    at: Span
    code: str
    reason: str
    imports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddArgument:
    """Add a keyword argument at the end of a call's arguments (before `**` unpackings, which stay last)."""

    call: Span
    keyword: str
    value: str
    reason: str
    imports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerate:
    """Hand a model to the runtime: `model = neural_coder.runtime.accelerate(model, engine=..., precision=...)`.

    Several features may ask for it at one place: their settings are merged into one call. An edit that stands alone and
    has `alone` set becomes that plain statement instead (`model.compile()` needs no runtime).
    """

    at: Span
    """The statement behind which the model is ready."""
    name: str
    """The model's name there."""
    reason: str
    engine: str | None = None
    """None leaves it to another feature; `torch` when no feature says."""
    precision: str | None = None
    """None leaves it to another feature; `fp32` when no feature says."""
    calibration: int | None = None
    """Samples to find scales on; None leaves it to the runtime."""
    settings: tuple[tuple[str, Setting], ...] = ()
    """Further keyword arguments of the call, by name."""
    alone: str = ""
    imports: tuple[str, ...] = field(default=("neural_coder.runtime",))


Edit = InsertAfter | Wrap | Replace | AddArgument | Accelerate
