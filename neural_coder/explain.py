"""What features there are and what each does, as plain data and as text; taken from the transforms themselves."""

from __future__ import annotations

import inspect
from textwrap import indent
from typing import Any

from neural_coder import registry
from neural_coder.transform import Transform


def describe_features() -> dict[str, Any]:
    """All features as plain data, in the order of their names."""
    return {"schema": 1, "features": [_describe(transform) for _, transform in sorted(registry.transforms().items())]}


def explain(name: str) -> str:
    """Explain one feature as text.

    Raises:
        UserError: There is no such feature; the message names the nearest ones.
    """
    transform = registry.transform(name)
    facts = _describe(transform)
    lines = [f"{facts['name']}: {inspect.getdoc(transform)}", ""]
    lines += [f"Scripts:   {' and '.join(facts['tasks'])}"]
    lines += [f"Backend:   {facts['backend']}"]
    lines += [f"Hardware:  {facts['hardware']}"]
    lines += [f"Risk:      {facts['risk']}"]
    if facts["values"]:
        lines += [f"Values:    {', '.join(facts['values'])}  (as {facts['name']}=VALUE)"]
    if facts["implies"]:
        lines += [f"Brings:    {', '.join(facts['implies'])}"]
    if facts["excludes"]:
        lines += [f"Excludes:  {', '.join(facts['excludes'])}"]
    example = transform.CHANGES[0]
    lines += ["", "Before:", indent(example.before.rstrip(), "    "), "After:", indent(example.after.rstrip(), "    ")]
    return "\n".join(lines)


def _describe(transform: type[Transform]) -> dict[str, Any]:
    others = registry.transforms().items()
    same_slot = {name for name, other in others if other.slot == transform.slot and other is not transform}
    return {
        "name": transform.name(),
        "summary": (inspect.getdoc(transform) or "").partition("\n")[0],
        "tasks": sorted(transform.tasks),
        "backend": transform.backend,
        "hardware": transform.hardware,
        "risk": transform.safety.value,
        "values": list(transform.values),
        "implies": list(transform.implies),
        "excludes": sorted(same_slot | transform.excludes),
        "automatic": transform.automatic,
    }
