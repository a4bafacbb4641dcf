"""What `analyze` shows to people: entry points, then the sites; in a big repo one line for each file that has any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from neural_coder.report.text import _clean, _render, _table, analysis_text
from neural_coder.units import count, duration

_MOST_TABLES = 12
"""Files with sites from which on each gets one line instead of a table."""
_MOST_LINES = 40
_KINDS = ("models", "inference", "training", "dataloaders", "optimizers", "devices", "unclear")
_COLUMNS = {
    "models": ("models",),
    "infer": ("inference",),
    "train": ("training",),
    "loaders": ("dataloaders",),
    "other": ("optimizers", "devices", "unclear"),
}
_POINTS = {
    "console_script": "command",
    "gui_script": "command (GUI)",
    "script": "script",
    "main_module": "python -m",
    "main_guard": "main guard",
    "notebook": "notebook",
}


def survey_text(data: Mapping[str, Any], width: int | None = None, *, color: bool = False) -> str:
    """Entry points, sites, and what they come to; ends with a newline.

    Args:
        data: From `as_json.survey_json`.
        width: Columns; None: the terminal's.
        color: Whether to add colours for a terminal.
    """
    with_sites = [file for file in data["files"] if any(file[kind] for kind in _KINDS)]
    small = len(with_sites) <= _MOST_TABLES
    points = _render(Group(*_points(data)), width, color=color)
    sites = analysis_text(data, width, color=color) if small else _render(_overview(with_sites), width, color=color)
    ending = _render(Text(_summary(data)), width, color=color) if len(data["files"]) > 1 else ""
    return "".join(f"{part}\n" for part in (points, sites.rstrip("\n"), ending) if part)


def _points(data: Mapping[str, Any]) -> list[RenderableType]:
    """The entry points, when there is anything to say beyond the file that was named."""
    points = data["entry_points"]
    if not points or (len(data["files"]) == 1 and len(points) == 1 and points[0]["kind"] == "main_guard"):
        return []
    table = _table("entry point", "where", "name")
    for point in points[:_MOST_TABLES]:
        where = f"{point['path'] or point['target']}{':' + str(point['line']) if point['line'] else ''}"
        note = f" ({point['note']})" if point["note"] else ""
        table.add_row(_POINTS[point["kind"]], Text(_clean(where)), Text(_clean(point["name"] + note)))
    more = len(points) - _MOST_TABLES
    return [
        Padding(table, (0, 0, 0 if more > 0 else 1, 0)),
        *([Text(_more(more, "entry point"), "dim")] if more > 0 else []),
    ]


def _overview(files: Sequence[Mapping[str, Any]]) -> RenderableType:
    table = _table("file", *_COLUMNS)
    for column in table.columns[1:]:
        column.justify = "right"
    for file in files[:_MOST_LINES]:
        numbers = (sum(len(file[kind]) for kind in kinds) for kinds in _COLUMNS.values())
        table.add_row(Text(_clean(file["path"])), *(str(number or "") for number in numbers))
    more = len(files) - _MOST_LINES
    return Group(table, *([Text(_more(more, "file"), "dim")] if more > 0 else []))


def _more(number: int, what: str) -> str:
    return f"... and {count(number, f'more {what}')}; --json lists all."


def _summary(data: Mapping[str, Any]) -> str:
    total = data["summary"]
    known = f", {total['cached']:,} known from before" if total["cached"] else ""
    return (
        f"{count(total['files'], 'file')} in {duration(total['seconds'])}{known}: "
        f"{count(total['files_with_sites'], 'file')} with sites, {count(total['models'], 'model')}, "
        f"{count(total['inference'], 'inference call')}, {count(total['training_steps'], 'training step')}, "
        f"{count(total['dataloaders'], 'data loader')}."
    )
