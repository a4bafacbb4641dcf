"""Which modules stay in floating point, by the names that a caller gives."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from neural_coder.runtime.engine import CannotConvert

if TYPE_CHECKING:
    import torch


def excluded_modules(model: torch.nn.Module, names: Sequence[str]) -> frozenset[str]:
    """Return the qualified names of all modules that are meant, with what is inside of them.

    Args:
        model: The model.
        names: Qualified names of modules (`encoder.layer.0`), or names of classes (`LayerNorm`).

    Raises:
        CannotConvert: for a name that means none, with the nearest that does.
    """
    classes = {name: type(module).__name__ for name, module in model.named_modules()}
    known = {*classes, *classes.values()} - {""}
    for name in names:
        if name not in known:
            near = get_close_matches(name, sorted(known), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise CannotConvert(f"exclude names {name!r}, and no module or class of a module is called so{hint}")
    roots = [name for name, kind in classes.items() if name in names or kind in names]
    return frozenset(each for each in classes for root in roots if root in ("", each) or each.startswith(f"{root}."))
