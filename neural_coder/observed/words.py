"""Sentences about what was seen."""

from __future__ import annotations

from collections.abc import Sequence

from neural_coder.observed.results import Added
from neural_coder.records import Model, ObservedCall, ObservedModel
from neural_coder.units import count


def describe(calls: Sequence[ObservedCall]) -> str:
    """What was seen at one place, in words: `40 calls, in eval mode, under no_grad`."""
    modes = [mode for call in calls for mode in call.modes]
    training = {mode.training for mode in modes}
    grads = sorted({mode.grad_mode for mode in modes})
    forms = sorted({call.form for call in calls if call.form})
    through = next((call.through for call in calls if call.through), ())
    parts = [
        count(sum(call.calls for call in calls), "call"),
        *([] if len(training) > 1 else ["in training mode" if True in training else "in eval mode"]),
        "gradients on" if grads == ["enabled"] else f"under {' and '.join(grads)}".replace("enabled", "gradients"),
        *(["with a backward"] if any(mode.backward for mode in modes) else []),
        *forms,
        *([f"through {through[0]}"] if through else []),
    ]
    return ", ".join(parts)


def describe_models(built: Sequence[ObservedModel]) -> str:
    """What was built by one statement, in words: `Net with 1,234 parameters, built once`."""
    whole = [item for item in built if item.part_of is None] or list(built)
    first = max(whole, key=lambda item: item.parameters or 0)
    size = "" if first.parameters is None else f" with {count(first.parameters, 'parameter')}"
    return f"{first.name}{size}, {first.how} {count(first.count, 'time')}"


def way(item: Added) -> str:
    """How the script came to a place, in words: `through <string>:1 run; from main.py:7 <module>`."""
    inner = f"through {', '.join(item.through[:2])}" if item.through else ""
    outer = [f"{frame.path.name}:{frame.line} {frame.function}" for frame in item.frames[1:3]]
    return join(inner, f"from {', from '.join(outer)}" if outer else "")


def text_of(model: Model) -> str:
    """A model's site, as a reader finds it."""
    return f"{model.name} = {model.qualified_name or 'unknown'}"


def join(*parts: str) -> str:
    """Put together what there is to say."""
    return "; ".join(part for part in parts if part)
