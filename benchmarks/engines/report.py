"""Draws what was measured: a page of tables, and a picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]
TOP1_KEPT = 0.99
RELATIVE_ERROR = 0.01
"""What counts as accurate: the same limits as in a search, on the models that come with trained weights."""
_EMBEDDING = frozenset({"minilm"})
_INTEL = "inc/"


def write_report(results: Sequence[Result], machine: Mapping[str, str], page: Path) -> None:
    """Write the page, and the picture beside it.

    Args:
        results: One for each process.
        machine: What it ran on, and versions.
        page: The Markdown file; the picture gets its name with `.svg`.
    """
    cells = _cells(results)
    if not cells:
        return
    batches = sorted({batch for _, batch, _ in cells})
    told = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    others = sorted(each.name for each in page.parent.glob("benchmarks*.md") if each.name != page.name)
    told += f"\n\nOther processors: {', '.join(f'[{name}]({name})' for name in others)}." if others else ""
    parts = [_HEAD.format(machine=told, picture=page.with_suffix(".svg").name)]
    for batch in batches:
        parts.append(f"## Batch {batch}\n\n{_table(cells, batch)}\n\n{_best(cells, batch)}")
    if compared := _against_intel(cells):
        parts.append(f"## Our best against Intel Neural Compressor\n\n{compared}")
    parts.append(f"## Ours against the same engine by hand\n\n{_against_by_hand(cells)}")
    if problems := _problems(results):
        parts.append(f"## What did not work\n\n{problems}")
    page.write_text("\n\n".join(parts) + "\n")
    _draw(cells, batches[0], page.with_suffix(".svg"))


_HEAD = """# What the engines reach

Speed against the same model in eager float32 PyTorch, measured by `make bench-engines`. In each fresh process the
original, the engine as its documentation uses it, and our variant (`neural_coder.runtime.accelerate`) take turns on the
same inputs; a figure is the median over processes of the ratio within a process, with the smallest and the largest.
Most models have random weights: their figures are about speed only. Trained weights: EfficientNet-Lite0, MiniLM.

{machine}

![Best speed-up by model]({picture})"""

Cell = dict[str, Any]
Cells = dict[tuple[str, int, str], Cell]


def _cells(results: Sequence[Result]) -> Cells:
    """What the processes of one model, batch size and variant came to."""
    cells: Cells = {}
    for result in results:
        if "original" not in result.get("seconds_per_call", {}):
            continue
        times = {name: statistics.median(each) for name, each in result["seconds_per_call"].items()}
        cell = cells.setdefault((result["model"], result["batch"], result["variant"]), {"original": []})
        cell["original"].append(times["original"])
        for name in ("ours", "by_hand"):
            if name in times:
                cell.setdefault(name, []).append(times["original"] / times[name])
        if {"ours", "by_hand"} <= times.keys():
            cell.setdefault("against", []).append(times["by_hand"] / times["ours"])
        name = "by_hand" if result["variant"].startswith(_INTEL) else "ours"
        cell.setdefault("accuracy", result.get("accuracy", {}).get(name, {}))
    return cells


def _is_accurate(model: str, cell: Cell) -> bool | None:
    """Whether the answers are kept; None where random weights cannot tell."""
    accuracy = cell.get("accuracy")
    if model == "efficientnet_lite0" and accuracy:
        return bool(accuracy["top1"] >= TOP1_KEPT)
    if model in _EMBEDDING and accuracy:
        return bool(accuracy["relative_error"] <= RELATIVE_ERROR)
    return None


def _table(cells: Cells, batch: int) -> str:
    models = _in_order(model for model, size, _ in cells if size == batch)
    variants = _in_order(variant for (_, size, variant), cell in cells.items() if size == batch and "ours" in cell)
    lines = [f"| ours | {' | '.join(models)} |", "|---" * (len(models) + 1) + "|"]
    originals = [
        statistics.median(
            seconds
            for (name, size, _), cell in cells.items()
            if (name, size) == (model, batch)
            for seconds in cell["original"]
        )
        for model in models
    ]
    lines.append(f"| original | {' | '.join(f'{1000 * seconds:.3g} ms' for seconds in originals)} |")
    for variant in variants:
        row = [_figure(cells.get((model, batch, variant), {}), model) for model in models]
        lines.append(f"| {variant} | {' | '.join(row)} |")
    return "\n".join(lines)


def _figure(cell: Cell, model: str) -> str:
    ratios = cell.get("ours")
    if not ratios:
        return "–"
    spread = f" [{min(ratios):.2f}–{max(ratios):.2f}]" if len(ratios) > 1 else ""
    mark = " (inaccurate)" if _is_accurate(model, cell) is False else ""
    return f"{statistics.median(ratios):.2f}{spread}{mark}"


def _best(cells: Cells, batch: int) -> str:
    best = _best_by_model(cells, batch)
    lines = [f"- {model}: ×{ratio:.2f} with {variant}" for model, (ratio, variant) in best.items()]
    mean = math.exp(statistics.fmean(math.log(ratio) for ratio, _ in best.values())) if best else 1.0
    return "\n".join(["Best variant whose answers are kept, or cannot be judged:", "", *lines]) + (
        f"\n\nGeometric mean of the best: **×{mean:.2f}** over {len(best)} models."
    )


def _best_by_model(cells: Cells, batch: int) -> dict[str, tuple[float, str]]:
    best: dict[str, tuple[float, str]] = {}
    for (model, size, variant), cell in cells.items():
        if size == batch and "ours" in cell and _is_accurate(model, cell) is not False:
            best[model] = max(best.get(model, (0.0, "")), (statistics.median(cell["ours"]), variant))
    return best


def _against_by_hand(cells: Cells) -> str:
    compared = {key: cell["against"] for key, cell in cells.items() if "against" in cell}
    slower = {key: each for key, each in compared.items() if statistics.median(each) < 0.95}
    lines = [
        f"{len(compared)} variants were compared; ours is more than 5 % slower in {len(slower)}.",
        "",
        "| model | batch | variant | by hand | ours | ours / by hand |",
        "|---|---|---|---|---|---|",
    ]
    for key in sorted(compared):
        cell = cells[key]
        by_hand, ours, against = (statistics.median(cell[name]) for name in ("by_hand", "ours", "against"))
        bold = "**" if key in slower else ""
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | {by_hand:.2f} | {ours:.2f} | {bold}{against:.2f}{bold} |")
    return "\n".join(lines)


def _against_intel(cells: Cells) -> str:
    """Our best variant over the better one of Intel's static int8 and mixed precision, by the same limits."""
    lines, ratios = ["| model | batch | Intel's best | ours | ours / Intel's |", "|---|---|---|---|---|"], []
    for batch in sorted({size for _, size, _ in cells}):
        for model, (ours, variant) in _best_by_model(cells, batch).items():
            intel = {
                other: (statistics.median(cell["by_hand"]), _is_accurate(model, cell) is not False)
                for (name, size, other), cell in cells.items()
                if (name, size) == (model, batch) and other.startswith(_INTEL) and "by_hand" in cell
            }
            if intel:
                kept = {other: ratio for other, (ratio, accurate) in intel.items() if accurate}
                best = max(kept, key=lambda other: kept[other], default="original")
                lost = [
                    f"{other} {ratio:.2f} is inaccurate" for other, (ratio, accurate) in intel.items() if not accurate
                ]
                told = "; ".join([f"{kept.get(best, 1.0):.2f} ({best})", *lost])
                ratios.append(ours / kept.get(best, 1.0))
                lines.append(f"| {model} | {batch} | {told} | {ours:.2f} ({variant}) | {ratios[-1]:.2f} |")
    if not ratios:
        return ""
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    return "\n".join(lines) + f"\n\nGeometric mean: **×{mean:.2f}** over {len(ratios)} comparisons."


def _problems(results: Sequence[Result]) -> str:
    lines = {
        f"- {each['model']}, batch {each['batch']}, {each['variant']}, {name.replace('_', ' ')}: {words}"
        for each in results
        for name, words in each.get("problems", {}).items()
    }
    return "\n".join(sorted(lines))


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _draw(cells: Cells, batch: int, picture: Path) -> None:
    from matplotlib.figure import Figure

    best = _best_by_model(cells, batch)
    order = sorted(best, key=lambda model: best[model][0])
    figure = Figure(figsize=(9, 0.5 * len(order) + 1.5), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(order, [best[model][0] for model in order], color="#4477aa")
    axes.bar_label(bars, [f"×{best[model][0]:.1f}  {best[model][1]}" for model in order], padding=4)
    axes.axvline(1.0, color="grey", linewidth=1)
    axes.set_xlabel(f"speed against eager float32, batch {batch}")
    axes.set_xlim(0, 1.45 * max(ratio for ratio, _ in best.values()))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture)
