"""Looks into the Python that runs it: which modules there are, in which versions, and whether they can be imported.

Run as `python environment.py OUTPUT.json find MODULE...` (imports nothing) or `... import MODULE` (really imports it).
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path

_STANDARD = frozenset(getattr(sys, "stdlib_module_names", ()))


def find(modules: Sequence[str]) -> dict[str, object]:
    """Say what is installed, without importing any of it."""
    return {
        "python_version": platform.python_version(),
        "modules": {module: _found(module) for module in modules},
        "cuda_build": _cuda_build(),
    }


def really_import(module: str) -> dict[str, object]:
    """Import a module and say what came of it."""
    try:
        loaded = importlib.import_module(module)
    except BaseException as error:
        return {"reason": f"importing {module} fails: {type(error).__name__}: {str(error).strip()[:300]}"}
    cuda = getattr(loaded, "cuda", None) if module == "torch" else None
    return {"reason": "", "cuda": bool(cuda is not None and cuda.is_available())}


def _found(module: str) -> dict[str, str | None]:
    top = module.partition(".")[0]
    try:
        spec = util.find_spec(top)
    except (ImportError, ValueError) as error:
        return {"version": None, "distribution": None, "reason": f"{top} cannot be found: {error}"}
    if spec is None:
        return {"version": None, "distribution": None, "reason": f"{top} is not installed"}
    name, version = (None, None) if top in _STANDARD else _distribution(top)
    return {"version": version, "distribution": name, "reason": ""}


def _distribution(top: str) -> tuple[str | None, str | None]:
    """Name and version of what a module was installed as."""
    for name in (top, top.replace("_", "-")):
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    # The distribution has another name than its module.
    for distribution in metadata.distributions():
        if top in _top_levels(distribution):
            return distribution.metadata["Name"], distribution.version
    return None, None


def _top_levels(distribution: metadata.Distribution) -> set[str]:
    listed = (distribution.read_text("top_level.txt") or "").split()
    files = () if listed else distribution.files or ()
    return {*listed, *(file.parts[0].partition(".py")[0] for file in files if file.suffix == ".py")}


def _cuda_build() -> bool:
    """Whether the installed torch was built for CUDA, read from its version file."""
    spec = util.find_spec("torch")
    if spec is None or not spec.origin:
        return False
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return False
    lines = [line for line in text.splitlines() if line.startswith("cuda")]
    return any("'" in line or '"' in line for line in lines)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    _, output, action, *names = sys.argv
    result = find(names) if action == "find" else really_import(names[0])
    Path(output).write_text(json.dumps(result), encoding="utf-8")
