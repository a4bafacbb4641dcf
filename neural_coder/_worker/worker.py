"""The child process: runs the user's script with probes at its sites and leaves `result.json`.

Started as `python worker.py job.json` by the user's own Python (3.9 or later). This file and its neighbours need only
the standard library; they load under a name that no module of a user has, so that they hide nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

PACKAGE = "_neural_coder_worker"


def load_package() -> None:
    """Make the files next to this one importable without keeping their folder on `sys.path`."""
    here = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(PACKAGE, here / "__init__.py", submodule_search_locations=[str(here)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{here} holds no package")
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    load_package()
    sys.modules[f"{PACKAGE}.worker"] = sys.modules["__main__"]
    importlib.import_module(f"{PACKAGE}.session").main(sys.argv[1])
