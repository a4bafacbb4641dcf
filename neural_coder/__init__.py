"""Neural Coder: makes PyTorch scripts faster, measures that they are, and hands back a small diff.

Importing this package is cheap and loads neither torch nor libcst: patched scripts import `neural_coder.runtime`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neural_coder.api import Result, enable

__version__ = "0.1.0"

__all__ = ["Result", "__version__", "enable"]

_HERE = Path(__file__).resolve().parent
if not (_HERE / "transforms").is_dir():
    # A checkout keeps `transforms/` and `backends/` next to this folder; an installed wheel keeps them in it.
    __path__.append(str(_HERE.parent))


def __getattr__(name: str) -> Any:
    """Load the public names when they are first asked for."""
    if name in ("Result", "enable"):
        from neural_coder import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
