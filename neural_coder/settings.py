"""Settings within a feature: keyword arguments of the runtime's call, as people write them and as records hold them.

Written behind colons, so that no shell and no list of features needs quotes: `int8_static=openvino:exclude=head`.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

import neural_coder
from neural_coder.errors import UserError
from neural_coder.records import Feature, Setting
from neural_coder.transform import Transform

EXCLUDE = "exclude"
"""The setting that holds several values, each said by itself: `exclude=head:exclude=encoder.layer.0`."""
_COMMON = (EXCLUDE, "dynamic_shapes", "cache", "strict")
"""What `accelerate` takes for every engine, besides what features decide."""
_WORDS: dict[str, Setting] = {"none": None, "true": True, "false": False}


def parse(parts: Sequence[str]) -> tuple[tuple[str, Setting], ...]:
    """Read settings.

    Args:
        parts: Each as `NAME=VALUE`.

    Returns:
        Names and values: `exclude` first, the others by name, so that equal settings are equal.

    Raises:
        UserError: A setting is given twice, or without a value.
    """
    found: dict[str, Setting] = {}
    for part in parts:
        name, _, text = (piece.strip() for piece in part.partition("="))
        if not name or not text:
            raise UserError(f"{part.strip()!r} is not a setting; write NAME=VALUE.")
        if name == EXCLUDE:
            before = found.get(name, ())
            found[name] = (*(before if isinstance(before, tuple) else ()), text)
        elif name in found:
            raise UserError(f"The setting {name} is given twice.")
        else:
            found[name] = _value(text)
    return ordered(found.items())


def ordered(settings: Iterable[tuple[str, Setting]]) -> tuple[tuple[str, Setting], ...]:
    """Settings in their canonical order."""
    return tuple(sorted(settings, key=lambda item: (item[0] != EXCLUDE, item[0])))


def why_not(feature: Feature, kind: type[Transform]) -> str:
    """Say why a feature cannot have its settings, in words; empty when it can."""
    if not feature.settings:
        return ""
    if not kind.settable:
        return f"{kind.name()} takes no settings"
    engine = kind.backend_for(feature.value if feature.value is not None else next(iter(kind.values), None))
    known = (*_COMMON, *offered(engine))
    for name, _ in feature.settings:
        if name == "calibration":
            return f"the number of samples is part of the value: {kind.name()}={engine}:8"
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(known)}"
            return f"{engine} has no setting {name!r}; {hint}"
    return ""


@functools.cache
def offered(engine: str) -> tuple[str, ...]:
    """Names of the settings that only this engine has: the fields of its `Options`.

    They are read, not imported: the engines' files import PyTorch.
    """
    file = Path(neural_coder.__file__).parent / "runtime" / f"engine_{engine}.py"
    if not file.is_file():
        return ()
    tree = ast.parse(file.read_bytes())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Options"]
    fields = [node.target for found in classes for node in found.body if isinstance(node, ast.AnnAssign)]
    return tuple(target.id for target in fields if isinstance(target, ast.Name))


def _value(text: str) -> Setting:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
