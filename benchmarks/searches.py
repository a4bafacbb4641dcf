"""Searches by the command line, for benchmarks: they pay for what a user pays for."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "scripts"


def searched(script: str, *arguments: str) -> dict[str, Any]:
    """Optimize one of the fixtures.

    Args:
        script: Its name in `fixtures/scripts`.
        arguments: Options of `neural-coder optimize`.

    Returns:
        The JSON of the search.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "neural_coder", "optimize", str(FIXTURES / script), *arguments]
        done = subprocess.run([*command, "--json", str(file)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{script} {' '.join(arguments)}: {done.stderr}")
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found
