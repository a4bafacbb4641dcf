"""Neural Coder: makes PyTorch scripts faster, measures that they are, and hands back a small diff.

Importing this package is cheap and loads neither torch nor libcst: patched scripts import `neural_coder.runtime`.
"""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"

_HERE = Path(__file__).resolve().parent
if not (_HERE / "transforms").is_dir():
    # A checkout keeps `transforms/` and `backends/` next to this folder; an installed wheel keeps them in it.
    __path__.append(str(_HERE.parent))
