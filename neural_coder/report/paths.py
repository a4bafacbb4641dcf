"""How paths are shown."""

from __future__ import annotations

import os
from pathlib import Path


def relative(path: Path, root: Path) -> str:
    """A path inside a folder relative to it, with forward slashes; other paths as they are."""
    absolute, base = Path(os.path.abspath(path)), Path(os.path.abspath(root))  # noqa: PTH100 (links stay links)
    return absolute.relative_to(base).as_posix() if absolute.is_relative_to(base) else path.as_posix()
