"""Tables for people, drawn from the JSON data alone; readable at 80 columns and without colour."""

from __future__ import annotations

import io
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from neural_coder.report import observed_text, sweep_text, tuning_text
from neural_coder.units import count, duration, percent, ratio, size

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STYLES = {
    "faster": "bold green",
    "same": "",
    "undecided": "cyan",
    "slower": "yellow",
    "inaccurate": "red",
    "unverified": "magenta",
    "no_effect": "dim",
    "failed": "red",
    "skipped": "dim",
}
_WORDS = {"no_effect": "no effect"}
_HEADERS = ("variant", "verdict", "speed-up", "per call", "accuracy", "start-up")
_WIDTHS = (0, 10, 18, 8, 8, 11)
"""Of the columns; the variant takes what is left."""
_MOST_VARIANT = 48
_MOST_OBSERVED = 3
"""Of models, of additional sites, of conflicts: in the result of a search, and where they are the result."""
_ALL_OBSERVED = 20
_NOTHING = "–"
_NEGLIGIBLE_STARTUP = 0.1
_SMALLEST_LOSS = 0.0005


def result_text(data: Mapping[str, Any], width: int | None = None, *, color: bool = False) -> str:
    """The result of a search: every variant with its figures and its reason, then what to do.

    Args:
        data: The report as plain data (`as_json.to_dict`).
        width: Columns; None: the terminal's.
        color: Whether to add colours for a terminal.
    """
    width = width or _terminal_width()
    head = Text(_clean(" ".join([data["script"], *map(shlex.quote, data["args"])])), style="bold")
    led_nowhere = tuning_text.hidden(data)
    rows = [_variant_row(variant, data, width) for variant in _sorted(data) if variant["id"] not in led_nowhere]
    parts: list[RenderableType] = [head, _original(data), Text(), _header(data, width), *rows, _rule(width)]
    return _render(Group(*parts, *_ending(data)), width, color=color)


def analysis_text(data: Mapping[str, Any], width: int | None = None, *, color: bool = False) -> str:
    """The sites of files, one table for each file that has any; ends with a newline.

    Args:
        data: From `as_json.analysis_json`.
        width: Columns; None: the terminal's.
        color: Whether to add colours for a terminal.
    """
    parts: list[RenderableType] = []
    empty = 0
    for file in data["files"]:
        table = _sites_table(file)
        if table.row_count:
            parts += [Text(_clean(file["path"]), style="bold"), Padding(table, (0, 0, 1, 2))]
        else:
            empty += 1
    if empty:
        which = "more file" if parts else "file"
        parts.append(Text(f"No models, training steps or data loaders in {count(empty, which)}."))
    parts += [Text(_clean(line)) for line in observed_text.lines(data.get("observed"), _ALL_OBSERVED)]
    return _render(Group(*parts), width, color=color) + "\n" if parts else ""


def features_text(data: Mapping[str, Any], width: int | None = None, *, color: bool = False) -> str:
    """The features that there are.

    Args:
        data: With `features`: for each its name, summary, tasks, hardware, risk, values and whether it is automatic.
        width: Columns; None: the terminal's.
        color: Whether to add colours for a terminal.
    """
    parts: list[RenderableType] = []
    for feature in data["features"]:
        name = feature["name"] + (f"={'|'.join(feature['values'])}" if feature.get("values") else "")
        tasks = " and ".join({"inference": "infer", "training": "train"}.get(task, task) for task in feature["tasks"])
        asked = "" if feature.get("automatic", True) else "; only when asked for"
        parts.append(
            Text.assemble((_clean(name), "bold"), f"  for scripts that {tasks}; risk: {feature['risk']}{asked}")
        )
        parts.append(Padding(Text(_clean(feature["summary"])), (0, 0, 0, 4)))
        parts.append(Padding(Text(f"On: {_clean(feature['hardware'])}.", style="dim"), (0, 0, 0, 4)))
    return _render(Group(*parts), width, color=color)


def doctor_text(data: Mapping[str, Any], width: int | None = None, *, color: bool = False) -> str:
    """What a machine and its Python can do.

    Args:
        data: Facts by name, nested where that helps; `engines` lists the engines, each with `title`, `version`,
            `usable`, `reason` and `install`.
        width: Columns; None: the terminal's.
        color: Whether to add colours for a terminal.
    """
    facts = _grid()
    for key, value in data.items():
        if key == "kernels":
            facts.add_row(Text("matrix products", style="bold"), Text(_clean(_kernels(value))))
        elif key not in ("schema", "engines"):
            _add_facts(facts, key, value)
    engines = _table("engine", "version", "usable", "")
    for engine in data.get("engines", ()):
        usable = Text("yes", style="green") if engine["usable"] else Text("no", style="red")
        reason, install = engine.get("reason") or "", engine.get("install") or ""
        how = [reason] * bool(reason) + [f"Install: {install}"] * (bool(install) and not engine["usable"])
        title = engine.get("title") or engine["name"]
        engines.add_row(_clean(title), _clean(engine.get("version") or _NOTHING), usable, _clean("\n".join(how)))
    parts: list[RenderableType] = [facts, Text(), engines] if engines.row_count else [facts]
    return _render(Group(*parts), width, color=color)


# --- result ---------------------------------------------------------------------------------------------------------


def _sorted(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The chosen variant first, then by status, then the fastest first."""
    order = list(_STYLES)

    def rank(variant: Mapping[str, Any]) -> tuple[bool, int, float]:
        speedup = variant["speedup"]
        return variant["id"] != data["chosen"], order.index(variant["status"]), -speedup["median"] if speedup else 0.0

    return sorted(data["variants"], key=rank)


def _original(data: Mapping[str, Any]) -> Text:
    """What is known about the script as it is."""
    baseline = data["baseline"]
    seconds = baseline["seconds_per_call"]
    if seconds is None:
        return Text("The original gave no figures.")
    low, high = duration(seconds["low"]), duration(seconds["high"])
    text = f"The original takes {duration(seconds['median'])} per {_unit(data)} ({low} to {high}, "
    text += f"{count(baseline['rounds'], 'run')})."
    share, limit = baseline["model_share"], baseline["end_to_end_limit"]
    if share is not None:
        what = "A training step" if baseline["task"] == "training" else "The model"
        text += f" {what} is {percent(round(share, 3))} of the loop"
        text += f": at most {ratio(limit)} end to end." if limit is not None and limit < 100 else "."
    return Text(text)


def _unit(data: Mapping[str, Any]) -> str:
    return "training step" if data["baseline"]["task"] == "training" else "call"


def _columns(data: Mapping[str, Any], width: int) -> tuple[int, ...]:
    longest = max((len(variant["id"]) for variant in data["variants"]), default=0)
    left = width - sum(_WIDTHS) - 2 * (len(_WIDTHS) - 1)
    return (max(8, min(left, max(longest, len("variant")), _MOST_VARIANT)), *_WIDTHS[1:])


def _line(cells: Sequence[str | Text], widths: Sequence[int]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for cell_width in widths:
        grid.add_column(width=cell_width, overflow="fold")
    grid.add_row(*cells)
    return grid


def _header(data: Mapping[str, Any], width: int) -> Group:
    widths = _columns(data, width)
    names = [name.replace("call", "step") if data["baseline"]["task"] == "training" else name for name in _HEADERS]
    return Group(_line([Text(name, style="bold") for name in names], widths), _rule(width))


def _rule(width: int) -> Text:
    return Text("─" * width, style="dim")


def _variant_row(variant: Mapping[str, Any], data: Mapping[str, Any], width: int) -> Group:
    widths = _columns(data, width)
    status = variant["status"]
    style = _STYLES[status]
    chosen = variant["id"] == data["chosen"]
    cells: list[str | Text] = [
        Text(_fold_at_plus(variant["id"], widths[0]), style="bold" if chosen else ""),
        Text(_WORDS.get(status, status), style=style),
        _speedup(variant["speedup"], variant["rounds"]),
        duration(variant["seconds_per_call"]["median"]) if variant["seconds_per_call"] else _NOTHING,
        _accuracy(variant["accuracy"]),
        _startup(variant),
    ]
    elsewhere = " It runs in an environment of its own." if variant.get("python") and variant["rounds"] else ""
    reason = Text(_clean(variant["reason"] + elsewhere), style="dim")
    return Group(_line(cells, widths), Padding(reason, (0, 0, 0, 4)))


def _speedup(interval: Mapping[str, float] | None, rounds: int) -> str:
    if interval is None:
        return _NOTHING
    if rounds < 2:
        return f"about {ratio(interval['median'])}"
    low, high = (ratio(interval[bound]).removeprefix("×") for bound in ("low", "high"))
    return f"{ratio(interval['median'])} [{low}–{high}]"


def _accuracy(accuracy: Mapping[str, Any] | None) -> str:
    if accuracy is None:
        return _NOTHING
    if not accuracy["verified"]:
        return "not\nverified"
    if accuracy["loss"] is None:
        return "lost"
    if accuracy["absolute"]:
        return f"-{accuracy['loss']:.2g}" if accuracy["loss"] else "±0"
    return f"-{accuracy['loss'] * 100:.2g} %" if accuracy["loss"] >= _SMALLEST_LOSS else "±0 %"


def _startup(variant: Mapping[str, Any]) -> str:
    startup, calls = variant["startup_seconds"], variant["break_even_calls"]
    if startup is None:
        return _NOTHING
    if startup < _NEGLIGIBLE_STARTUP:
        return "none"
    return duration(startup) + (f"\n{count(calls, 'call')}" if calls else "")


def _ending(data: Mapping[str, Any]) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(_clean(data["conclusion"]), style="bold")]
    lines += [Text(sentence, style="yellow") for sentence in _unfinished(data)]
    chosen = next((variant for variant in data["variants"] if variant["id"] == data["chosen"]), None)
    if data["confirmed"]:
        lines.append(Text(f"Confirmed by fresh runs: {_speedup(data['confirmed']['speedup'], rounds=2)}."))
    if chosen is not None:
        lines += _consequences(chosen, data)
    lines += _sweep(data.get("run_configurations"))
    lines += [Text(_clean(line)) for line in tuning_text.lines(data)]
    lines += [Text(_clean(line)) for line in observed_text.lines(data["sites"]["observed"], _MOST_OBSERVED)]
    lines += [Text(_clean(note)) for note in data.get("notes", ())]
    if any((variant["startup_seconds"] or 0) >= _NEGLIGIBLE_STARTUP for variant in data["variants"]):
        lines.append(Text("Start-up: what it costs once, and the calls after which that is earned back.", style="dim"))
    return lines


def _unfinished(data: Mapping[str, Any]) -> list[str]:
    """Why this is not the last word, where the search came to no proper end."""
    if data["ended"] == "budget":
        return ["The time budget ended before every variant had its turn: this is the best of those that had."]
    if data["ended"] != "interrupted":
        return []
    seen = {
        "confirmed": "confirmed by fresh runs",
        "rounds": "seen in rounds, not confirmed by fresh runs",
        "first look": "seen in a first look only",
    }
    answer = f"the best verified variant so far, {seen[data['evidence']]}" if data["chosen"] else "what is known so far"
    resume = f" --resume goes on with search {data['search']}." if data["search"] else ""
    return [f"Interrupted: this is {answer}.{resume}"]


def _sweep(sweep: Mapping[str, Any] | None) -> list[RenderableType]:
    """The run configurations: a table, then which is best for what."""
    if sweep is None:
        return []
    table = _table("variant", "run configuration", f"per {'step' if sweep['unit'] == 'steps' else 'call'}", "", "")
    table.columns[3].header = f"{sweep['unit']}/s"
    for row in sweep_text.rows(sweep):
        table.add_row(*map(_clean, row))
    return [Text(), table, *(Text(_clean(line), style="bold") for line in sweep_text.conclusions(sweep)), Text()]


def _consequences(chosen: Mapping[str, Any], data: Mapping[str, Any]) -> list[Text]:
    """What the chosen variant means for the whole script, what it costs, and how to see it again."""
    lines = []
    if chosen["end_to_end_speedup"] is not None and data["baseline"]["model_share"] < 0.99:
        lines.append(Text(f"For the whole loop that is about {ratio(chosen['end_to_end_speedup'])}."))
    startup, calls = chosen["startup_seconds"], chosen["break_even_calls"]
    if calls and startup >= _NEGLIGIBLE_STARTUP:
        unit = _unit(data)
        lines.append(Text(f"Its start costs {duration(startup)}, earned back after {count(calls, unit)}."))
    if figures := chosen["figures"]:
        lines.append(Text(_figures(figures, data["baseline"]["figures"])))
    old, new = data["baseline"]["peak_memory_bytes"], chosen["peak_memory_bytes"]
    if old and new:
        lines.append(Text(f"Peak memory: {size(new)}; the original needs {size(old)}."))
    if python := chosen.get("python"):
        command = shlex.join([python, data["script"], *data["args"]])
        lines.append(Text(_clean(f"It needs an environment of its own; run the patched script with: {command}")))
    if chosen["reproduce"]:
        lines.append(Text(_clean(f"Run it again: {chosen['reproduce']}")))
    return lines


def _figures(new: Mapping[str, float | None], old: Mapping[str, float | None] | None) -> str:
    """How calls are spread, and what they cost in CPU time, before and after."""
    parts = []
    for name, label in (("p90", "90 % of calls within"), ("p99", "99 %"), ("cpu_seconds", "CPU time per call")):
        if (after := new[name]) is not None:
            before = old[name] if old else None
            parts.append(f"{label} {duration(after)}" + (f" (was {duration(before)})" if before is not None else ""))
    if (rate := new["throughput"]) is not None:
        before = old["throughput"] if old else None
        parts.append(f"{rate:,.4g} samples a second" + (f" (was {before:,.4g})" if before is not None else ""))
    text = ", ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _fold_at_plus(identifier: str, width: int) -> str:
    """Break a variant's name behind a `+` or `=` where it is too long for its column."""
    lines = [""]
    for part in re.findall(r"[^+=]+[+=]?", _clean(identifier)):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


# --- sites ----------------------------------------------------------------------------------------------------------


def _sites_table(file: Mapping[str, Any]) -> Table:
    table = _table("line", "site", "what", "known by")
    table.columns[0].justify = "right"
    rows = [(item["line"], site, what, item) for site, what, item in _sites(file)]
    for line, site, what, item in sorted(rows, key=lambda row: row[0]):
        known = f"{item['known_by']} {percent(round(item['confidence'], 2))}" if "known_by" in item else ""
        table.add_row(str(line), Text(site, style="magenta" if site == "unclear" else ""), Text(_clean(what)), known)
    return table


def _sites(file: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    """Each site as its kind, a few words about it, and its facts."""
    for item in file["models"]:
        uses = [word for word, on in (("trained", item["trained"]), ("used for inference", item["inferred"])) if on]
        ready = f"not ready: {item['why_not_ready']}" if item["why_not_ready"] else ""
        name = f"{item['name']} = " if item["name"] else ""
        yield "model", _join(f"{name}{item['qualified_name'] or 'unknown'}", *uses, ready), item
    for item in file["inference"]:
        mode = "" if item["grad_mode"] == "enabled" else f"under {item['grad_mode']}"
        yield "inference", _join(f"{item['callee']}(...)", mode), item
    for item in file["training"]:
        yield item["kind"].replace("_", " "), f"{item['callee']}(...)", item
    for item in file["dataloaders"]:
        name = f"{item['name']} = " if item["name"] else ""
        yield "data loader", f"{name}{item['qualified_name']}", item
    for item in file["optimizers"]:
        yield "optimizer", f"{item['name']} = {item['qualified_name']}", item
    for item in file["devices"]:
        yield "device", item["text"], item
    for item in file["unclear"]:
        yield "unclear", f"{item['text']}: {item['reason']}", item


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _kernels(kernels: Mapping[str, Any]) -> str:
    """What low precision reaches on one core, in one line."""
    shown = [f"{name} {ratio(kernels[name])}" for name in ("bf16", "int8") if kernels[name]]
    against = [f"{', '.join(shown)} against float32, on one core"] if shown else []
    return "; ".join([*against, *([kernels["reason"]] if kernels["reason"] else [])])


# --- drawing --------------------------------------------------------------------------------------------------------


def _add_facts(grid: Table, key: str, value: Any) -> None:
    """One line for each fact; nested ones get a name made of both, but for the machine's, which need none."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _add_facts(grid, name if key == "machine" else f"{key} {name}", inner)
        return
    label = key.removesuffix("_bytes").replace("_", " ")
    if key.endswith("_bytes") and isinstance(value, int | float):
        shown = size(value)
    elif isinstance(value, bool):
        shown = "yes" if value else "no"
    elif isinstance(value, Sequence) and not isinstance(value, str):
        shown = ", ".join(map(str, value)) or "none"
    else:
        shown = _NOTHING if value is None or value == "" else str(value)
    grid.add_row(Text(_clean(label), style="bold"), Text(_clean(shown)))


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def _clean(text: str) -> str:
    """Text without what would steer the terminal (colours in a script's traceback, say)."""
    return _CONTROL.sub("", text)


def _terminal_width() -> int:
    return max(60, shutil.get_terminal_size((80, 24)).columns)


def _render(content: RenderableType, width: int | None, *, color: bool) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width or _terminal_width(),
        force_terminal=color,
        color_system="standard" if color else None,
        legacy_windows=False,
        markup=False,
        highlight=False,
        emoji=False,
    )
    console.print(content)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
