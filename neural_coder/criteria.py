"""What users say about accuracy, as text: how much may be lost, and their own metrics.

`top1=top-1: ([0-9.]+)` reads the script's output, `top1=metrics.py:top1` calls a function; a direction and an allowed
loss of its own stand behind colons: `loss:lower:0.5abs=loss ([0-9.]+)`.
"""

from __future__ import annotations

import ast
import difflib
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from neural_coder import parsing
from neural_coder.errors import UserError
from neural_coder.records import Criterion, Metric
from neural_coder.source import Source

ABSOLUTE = "abs"
_DIRECTIONS = {"lower": True, "higher": False}
_FUNCTION = re.compile(r"(?P<file>[^\0]*\.py):(?P<function>[^\W\d]\w*)")
_NAME = re.compile(r"[\w.@/ -]+")
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedLoss:
    """The largest loss that is allowed."""

    amount: float = 0.01
    absolute: bool = False
    """In the metric's own unit; otherwise a share of the original's value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenMetric:
    """A metric as it was given; None stands for what holds for all of them."""

    metric: Metric
    lower_is_better: bool | None = None
    allowed: AllowedLoss | None = None


def parse_accuracy(text: str | float) -> AllowedLoss:
    """Read an allowed loss: `1%` and `0.01` are relative, `0.5abs` is in the metric's own unit.

    Raises:
        UserError: It is no such number, negative, or relative and 100 % or more (`1`, where `1%` is probably meant).
    """
    if isinstance(text, str) and text.strip().endswith(ABSOLUTE):
        return _absolute(text)
    wrong = UserError(
        f"{text!r} is not a relative loss; write 1% or 0.01 (at least 0, less than 100%), or 0.5{ABSOLUTE} for one in "
        "the metric's own unit."
    )
    if isinstance(text, bool):
        raise wrong
    number, scale = (text.strip()[:-1], 0.01) if isinstance(text, str) and text.strip().endswith("%") else (text, 1.0)
    try:
        value = round(float(number) * scale, 12)
    except ValueError:
        raise wrong from None
    if not 0 <= value < 1:
        raise wrong
    return AllowedLoss(amount=value)


def _absolute(text: str) -> AllowedLoss:
    try:
        value = float(text.strip().removesuffix(ABSOLUTE))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"{text!r} is not an absolute loss; write a number of at least 0, such as 0.5{ABSOLUTE}.")
    return AllowedLoss(amount=value, absolute=True)


def parse_metric(text: str, folder: Path) -> GivenMetric:
    """Read a metric: `NAME[:lower|higher][:LOSS]=REGEX`, or with `FILE.py:FUNCTION` in the place of the pattern.

    Args:
        text: As given.
        folder: What the file's path is relative to.

    Raises:
        UserError: The name is missing, a part behind a colon means nothing, or the pattern is no regular expression
            with a group.
    """
    head, equals, source = text.partition("=")
    name, *told = (part.strip() for part in head.split(":"))
    if not equals or not _NAME.fullmatch(name) or not source.strip():
        raise UserError(
            f"{text!r} is not a metric; write NAME=REGEX, for example 'acc=accuracy: ([0-9.]+)', "
            "or NAME=FILE.py:FUNCTION."
        )
    given = _told(name, told)
    if called := _FUNCTION.fullmatch(source.strip()):
        file = folder / os.path.expanduser(called["file"])  # noqa: PTH111 - that of pathlib fails for unknown users
        return replace(given, metric=Metric(name=name, file=file, function=called["function"]))
    _check_pattern(name, source)
    return replace(given, metric=Metric(name=name, pattern=source))


def _told(name: str, parts: Sequence[str]) -> GivenMetric:
    """What stands behind the colons of a metric's name."""
    given = GivenMetric(metric=Metric(name=name))
    for part in parts:
        is_direction = part in _DIRECTIONS
        if (given.lower_is_better if is_direction else given.allowed) is not None:
            raise UserError(f"The metric {name} is given {'a direction' if is_direction else 'an allowed loss'} twice.")
        if is_direction:
            given = replace(given, lower_is_better=_DIRECTIONS[part])
            continue
        try:
            given = replace(given, allowed=parse_accuracy(part))
        except UserError as error:
            raise UserError(f"{part!r} behind the metric {name} is neither lower, higher nor a loss: {error}") from None
    return given


def _check_pattern(name: str, pattern: str) -> None:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"The metric's pattern {pattern!r} is no regular expression: {error}. "
            "Characters such as ( [ . + * stand for themselves behind a backslash."
        ) from None
    if compiled.groups < 1:
        raise UserError(
            f"The metric's pattern {pattern!r} does not say which part is the number; "
            f"put that into parentheses: '{name}={pattern.rstrip()} ([0-9.]+)'."
        )


def criterion(
    given: Sequence[GivenMetric], *, lower_is_better: bool = False, allowed: AllowedLoss | None = None
) -> Criterion:
    """Bring together what was said about accuracy.

    Args:
        given: The metrics.
        lower_is_better: Holds for metrics that name no direction.
        allowed: Holds for metrics that name no loss, and where there are no metrics. None: 1 %.

    Raises:
        UserError: Two metrics have one name, a file has no such function, or the loss is absolute and there is no
            metric that it could apply to.
    """
    allowed = allowed or AllowedLoss()
    if allowed.absolute and not given:
        raise UserError(
            f"{allowed.amount:g}{ABSOLUTE} is in the unit of a metric, and there is none (--metric): outputs and loss "
            "curves are compared relatively; write 1% or 0.01."
        )
    names = [each.metric.name for each in given]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"Two metrics are called {twice}; give each a name of its own.")
    metrics = []
    for each in given:
        _check_function(each.metric)
        loss = each.allowed or allowed
        lower = lower_is_better if each.lower_is_better is None else each.lower_is_better
        metrics.append(replace(each.metric, lower_is_better=lower, allowed=loss.amount, absolute=loss.absolute))
    relative = AllowedLoss() if allowed.absolute else allowed
    return Criterion(relative_loss=relative.amount, metrics=tuple(metrics))


def as_option(metric: Metric) -> str:
    """A metric as it is given on the command line."""
    told = f"{metric.name}:{'lower' if metric.lower_is_better else 'higher'}:{metric.allowed:.12g}"
    source = f"{metric.file}:{metric.function}" if metric.file else metric.pattern
    return f"{told}{ABSOLUTE if metric.absolute else ''}={source}"


# --- functions ------------------------------------------------------------------------------------------------------


def _check_function(metric: Metric) -> None:
    """Find out before the search, and without running the file, that it has no such function."""
    name, file, function = metric.name, metric.file, metric.function
    if file is None:
        return
    try:
        with parsing.quiet():
            tree = ast.parse(Source.read(file).text)
    except SyntaxError as error:
        raise UserError(
            f"The file of the metric {name} is not valid Python: {file}:{error.lineno}: {error.msg}."
        ) from None
    except UserError as error:
        raise UserError(f"The file of the metric {name} cannot be read: {error}") from None
    bound = set(_bound(tree))
    if function not in bound and "*" not in bound:
        near = difflib.get_close_matches(function, sorted(bound), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UserError(f"The metric {name} names {function}, which {file} does not define{hint}")


def _bound(tree: ast.AST) -> Iterator[str]:
    """The names that a module binds; `*` where it takes all names of another one."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _SCOPES):
            yield node.name
            continue
        if isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        yield from _bound(node)
