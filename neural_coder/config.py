"""Settings from `[tool.neural_coder]` of the nearest pyproject.toml, and the parsers for their values.

Read once, then passed down. What is given on the command line or to `enable` goes before it.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from neural_coder.configurations import MODES, Wanted
from neural_coder.criteria import AllowedLoss, GivenMetric, parse_accuracy, parse_metric
from neural_coder.errors import UserError
from neural_coder.records import Mode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

TABLE = "neural_coder"
SCRIPT = "script"
"""In a table of interpreters: the one that runs the script."""

_DURATION = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m(?:in)?)?(?:(?P<s>\d+(?:\.\d+)?)s?)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a project has settled for itself."""

    features: Literal["auto"] | tuple[str, ...] = "auto"
    """Features to try together, as on the command line; `auto` searches."""
    accuracy: AllowedLoss = field(default_factory=AllowedLoss)
    """Largest loss that is allowed."""
    metrics: tuple[GivenMetric, ...] = ()
    """The user's metrics, from `metric = "NAME=REGEX"` or a list of these."""
    lower_is_better: bool = False
    budget: float = 600.0
    """Seconds for the whole search."""
    timeout: float = 300.0
    """Seconds for one run of the script."""
    exclude: tuple[str, ...] = ()
    """Globs, relative to the folder of pyproject.toml, of files that `patch` and `analyze` pass over in folders."""
    python: Path | None = None
    """Interpreter that runs the script."""
    pythons: Mapping[str, Path] = field(default_factory=dict)
    """By engine: another interpreter that it runs with."""
    configurations: Wanted = field(default_factory=Wanted)
    """Run configurations to measure, besides the features."""
    path: Path | None = None
    """The pyproject.toml that this comes from; None when no such file has the table."""


def load(start: Path) -> Config:
    """Read the settings of the project that a file or folder belongs to.

    Args:
        start: A file or folder; its parents are searched for the nearest pyproject.toml.

    Returns:
        The defaults where there is no such file or it has no `[tool.neural_coder]`.

    Raises:
        UserError: The file cannot be read, a key is unknown, or a value makes no sense.
    """
    path = _nearest(start)
    if path is None:
        return Config()
    table = _table(path)
    if table is None:
        return Config()
    settings: dict[str, object] = {}
    for key, value in table.items():
        if key not in _SETTINGS:
            raise UserError(f"{path}: [tool.{TABLE}] has no setting {key!r}{_suggestion(key)}.")
        try:
            settings.update(_SETTINGS[key](value, path.parent))
        except UserError as error:
            raise UserError(f"{path}: {key} of [tool.{TABLE}]: {error}") from None
    wanted = Wanted(**{name: settings.pop(name) for name in _CONFIGURATION if name in settings})  # type: ignore[arg-type]
    return Config(path=path, configurations=wanted, **settings)  # type: ignore[arg-type]


def fingerprint(start: Path) -> str:
    """All that a project has settled for us, as one text that changes when any of it does; never raises."""
    path = _nearest(start)
    try:
        data = {} if path is None else tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        # Whoever needs the settings says what is wrong with them.
        return str(error)
    tool = data.get("tool")
    ours = {key: value for key, value in tool.items() if key.startswith("neural")} if isinstance(tool, dict) else {}
    return json.dumps(ours, sort_keys=True, default=str)


def catalogue_table(start: Path) -> tuple[Mapping[str, object], Path] | None:
    """The entries that a project adds to the catalogue of libraries (see docs/catalogue.md), as they are written.

    Args:
        start: A file or folder of the project, as for `load`.

    Returns:
        `[tool.neural_coder.catalogue]`, and the file that it stands in; None when there is none.

    Raises:
        UserError: The file has settings of ours, but cannot be read.
    """
    path, settings = _own_table(start)
    table = settings.get("catalogue")
    if path is None or table is None:
        return None
    if not isinstance(table, Mapping):
        raise UserError(f"{path}: catalogue of [tool.{TABLE}] must be a table: [tool.{TABLE}.catalogue].")
    return table, path


def interpreter(start: Path) -> Path:
    """The interpreter of a project's environment: that of its settings, else `default_python`.

    Raises:
        UserError: The file has settings of ours, but cannot be read.
    """
    path, settings = _own_table(start)
    named = settings.get("python")
    named = named.get(SCRIPT) if isinstance(named, Mapping) else named
    return path.parent / Path(named).expanduser() if path and isinstance(named, str) and named else default_python()


def default_python() -> Path:
    """The interpreter that a user's scripts run with: that of the active virtual environment, else our own."""
    active = os.environ.get("VIRTUAL_ENV")
    if active:
        for name in ("bin/python", "Scripts/python.exe"):
            if (Path(active) / name).exists():
                return Path(active) / name
    return Path(sys.executable)


def parse_duration(text: str | float) -> float:
    """Read a time such as `10m`, `90s`, `1h30m` or `600` (seconds).

    Returns:
        Seconds.

    Raises:
        UserError: It is no time, or not more than zero.
    """
    wrong = UserError(f"{text!r} is not a length of time; write 90s, 10m, 1h30m, or a number of seconds.")
    if isinstance(text, str):
        found = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
        if found is None:
            raise wrong
        parts = [float(found[unit] or 0) * factor for unit, factor in (("h", 3600), ("m", 60), ("s", 1))]
        seconds = sum(parts)
    elif isinstance(text, bool):
        raise wrong
    else:
        seconds = float(text)
    if not (0 < seconds < math.inf):
        raise wrong
    return seconds


def parse_mode(text: str) -> Mode:
    """Read a mode of run configurations.

    Raises:
        UserError: There is no such mode.
    """
    for mode in MODES:
        if text.strip().replace("_", "-") == mode:
            return mode
    raise UserError(f"{text!r} is no mode; there are {', '.join(MODES)}.")


def parse_numbers(given: str | int | Sequence[int]) -> tuple[int, ...]:
    """Read whole numbers of at least 1: `8`, `1,8,32` or a list.

    Raises:
        UserError: Something else was given.
    """
    wrong = UserError(f"{given!r} is no list of whole numbers of at least 1, such as 1,8,32.")
    items: Sequence[object] = (
        given.split(",") if isinstance(given, str) else given if isinstance(given, list | tuple) else [given]
    )
    numbers = [_whole(item) for item in items]
    if not numbers or min(numbers) < 1:
        raise wrong
    return tuple(dict.fromkeys(numbers))


def parse_number(given: str | int) -> int:
    """Read one whole number of at least 1.

    Raises:
        UserError: Something else was given.
    """
    numbers = parse_numbers(given)
    if len(numbers) > 1:
        raise UserError(f"{given!r} is more than one number.")
    return numbers[0]


def _whole(item: object) -> int:
    """A whole number; 0 for everything else."""
    if isinstance(item, str):
        return int(item) if item.strip().isdecimal() else 0
    return item if isinstance(item, int) and not isinstance(item, bool) else 0


# --- the table ------------------------------------------------------------------------------------------------------


def _nearest(start: Path) -> Path | None:
    start = start.resolve()
    return next(
        (file for folder in (start, *start.parents) if (file := folder / "pyproject.toml").is_file()),
        None,
    )


def _table(path: Path) -> Mapping[str, object] | None:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    tool = data.get("tool", {})
    if isinstance(tool, Mapping) and "neural-coder" in tool:
        raise UserError(f"{path}: the table is written [tool.{TABLE}], with an underscore.")
    table = tool.get(TABLE) if isinstance(tool, Mapping) else None
    if table is not None and not isinstance(table, Mapping):
        raise UserError(f"{path}: {TABLE} under [tool] must be a table: [tool.{TABLE}].")
    return table


def _own_table(start: Path) -> tuple[Path | None, Mapping[str, object]]:
    """The table of the nearest pyproject.toml; other tools' files are not read, some are templates and no TOML."""
    path = _nearest(start)
    if path is None or TABLE.encode() not in path.read_bytes():
        return path, {}
    return path, _table(path) or {}


def _suggestion(key: str) -> str:
    near = difflib.get_close_matches(key.replace("-", "_"), _SETTINGS, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(_SETTINGS))}"


def _features(value: object, _: Path) -> dict[str, object]:
    if value == "auto":
        return {"features": "auto"}
    names = value.split(",") if isinstance(value, str) else _strings(value, 'a list of names, or "auto"')
    return {"features": tuple(name.strip() for name in names if name.strip())}


def _accuracy(value: object, _: Path) -> dict[str, object]:
    return {"accuracy": parse_accuracy(_text_or_number(value))}


def _metric(value: object, folder: Path) -> dict[str, object]:
    texts = [value] if isinstance(value, str) else _strings(value, "a text; write NAME=REGEX between single quotes")
    return {"metrics": tuple(parse_metric(text, folder) for text in texts)}


def _lower_is_better(value: object, _: Path) -> dict[str, object]:
    if not isinstance(value, bool):
        raise UserError(f"{value!r} is neither true nor false.")
    return {"lower_is_better": value}


def _budget(value: object, _: Path) -> dict[str, object]:
    return {"budget": parse_duration(_text_or_number(value))}


def _timeout(value: object, _: Path) -> dict[str, object]:
    return {"timeout": parse_duration(_text_or_number(value))}


def _exclude(value: object, _: Path) -> dict[str, object]:
    return {"exclude": tuple(_strings(value, "a list of patterns"))}


def _python(value: object, folder: Path) -> dict[str, object]:
    """One interpreter, or a table: the script's under `script`, and others by engine."""
    if not isinstance(value, Mapping):
        return {"python": _interpreter(value, folder)}
    from neural_coder import registry

    known = (SCRIPT, *registry.backends())
    for name in value:
        if name not in known:
            raise UserError(f"{name!r} is no engine; there are: {', '.join(known)}.")
    pythons = {name: _interpreter(path, folder) for name, path in value.items()}
    return {"python": pythons.pop(SCRIPT, None), "pythons": pythons}


def _interpreter(value: object, folder: Path) -> Path:
    if not isinstance(value, str) or not value:
        raise UserError(f"{value!r} is not the path of an interpreter.")
    return folder / Path(value).expanduser()


def _catalogue(value: object, _: Path) -> dict[str, object]:
    """Read by `catalogue_table` where the analysis needs it."""
    if not isinstance(value, Mapping):
        raise UserError(f"it must be a table: [tool.{TABLE}.catalogue].")
    return {}


def _configuration(name: str, read: Callable[[Any], object]) -> Callable[[object, Path], dict[str, object]]:
    def setting(value: object, _: Path) -> dict[str, object]:
        if not isinstance(value, str | int | list):
            raise UserError(f"{value!r} is neither a text, a number nor a list.")
        return {name: read(value)}

    return setting


def _text_or_number(value: object) -> str | float:
    if isinstance(value, str | int | float):
        return value
    raise UserError(f"{value!r} is neither a text nor a number.")


def _strings(value: object, wanted: str) -> list[str]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise UserError(f"{value!r} is not {wanted}.")


_CONFIGURATION = tuple(each.name for each in fields(Wanted))

_SETTINGS: Mapping[str, Callable[[object, Path], dict[str, object]]] = {
    "features": _features,
    "accuracy": _accuracy,
    "metric": _metric,
    "lower_is_better": _lower_is_better,
    "budget": _budget,
    "timeout": _timeout,
    "exclude": _exclude,
    "catalogue": _catalogue,
    "mode": _configuration("mode", parse_mode),
    "instances": _configuration("instances", parse_number),
    "cores_per_instance": _configuration("cores_per_instance", parse_number),
    "threads": _configuration("threads", parse_numbers),
    "batch_size": _configuration("batch_sizes", parse_numbers),
    "python": _python,
}
