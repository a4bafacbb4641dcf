"""Searches and trials as lines for people, drawn from the JSON data alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from neural_coder.units import count, duration, percent


def text(data: Mapping[str, Any], *, trials: bool = False) -> str:
    """A line for each search, and what became of it.

    Args:
        data: From `history.as_data`.
        trials: Also a line for each trial.
    """
    lines = [line for search in data["searches"] for line in _search(search, trials=trials)]
    if not lines:
        return "No search is kept; `neural-coder optimize SCRIPT` makes one."
    return "\n".join(lines)


def _search(search: Mapping[str, Any], *, trials: bool) -> list[str]:
    numbers = [trial["id"] for trial in search["trials"]]
    span = f"{count(len(numbers), 'trial')}" + (f" ({numbers[0]}–{numbers[-1]})" if len(numbers) > 1 else "")
    moment = search["began"][:16].replace("T", " ")
    script = shlex.join([search["script"], *search["args"]])
    lines = [f"search {search['id']}  {moment}  {script}  {search['state']}, {span}"]
    answer = f"chosen: {search['chosen']}" if search["chosen"] else search["conclusion"]
    lines += [f"    {answer}"] if answer else []
    return lines + [f"    {_trial(trial)}" for trial in search["trials"] if trials]


def _trial(trial: Mapping[str, Any]) -> str:
    seconds = trial["seconds_per_call"]
    figure = trial["ending"] if seconds is None else f"{duration(seconds)} per call"
    return f"{trial['id']:>5}  {trial['purpose']} {trial['number']}  {trial['variant'] or 'the original'}  {figure}"


def reproduced_text(data: Mapping[str, Any]) -> str:
    """The figures of a trial, then and now."""
    then, now = data["then"], data["now"]
    lines = [f"trial {data['trial']}: {data['variant'] or 'the original'}, {data['purpose']} {data['number']}"]
    if then["seconds_per_call"] and now["seconds_per_call"]:
        change = now["seconds_per_call"] / then["seconds_per_call"] - 1
        lines.append(
            f"per call: {duration(now['seconds_per_call'])} now, {duration(then['seconds_per_call'])} then "
            f"({'+' if change >= 0 else '–'}{percent(abs(change))})"
        )
    for key, words in (("relative_error", "relative error of outputs"), ("top1_agreement", "top-1 agreement")):
        if now[key] is not None:
            lines.append(f"{words}: {now[key]:.4g} now, {_number(then[key])} then")
    for name, value in now["metrics"].items():
        lines.append(f"{name}: {_number(value)} now, {_number(then['metrics'].get(name))} then")
    if now["ending"] != "ok" or then["ending"] != "ok":
        lines.append(f"ended: {now['ending']} now, {then['ending']} then. {now['message']}".rstrip())
    changed = {name for name in {*then["versions"], *now["versions"]}
               if then["versions"].get(name) != now["versions"].get(name)}  # fmt: skip
    if changed:
        lines.append(f"other versions than then: {', '.join(sorted(changed))}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"
