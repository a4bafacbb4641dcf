"""Makes the records of model calls: inference and forwards, with what surrounds each."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Literal

from neural_coder.analysis.facts import Facts, ForwardCall
from neural_coder.analysis.models import model_bindings
from neural_coder.analysis.syntax import Parsed, has_suspension, named, walk_scope
from neural_coder.records import Call

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
GradMode = Literal["enabled", "no_grad", "inference_mode"]


@dataclass(frozen=True, slots=True)
class _Grad:
    mode: GradMode = "enabled"
    at: ast.AST | None = None
    region: ast.AST | None = None
    """The statement (or function) that the mode holds for."""


def is_site(facts: Facts, call: ForwardCall) -> bool:
    """Whether a forward is one of the script's own calls, not one that happens inside another site."""
    if call.node in facts.fits:
        return False
    outside = [outer for outer in call.outer if outer is None or outer in facts.fits or outer not in facts.forwards]
    return bool(outside)


def is_training(call: ForwardCall) -> bool:
    """Whether a forward is one of a training step."""
    return call.training


def note_inference(facts: Facts) -> None:
    """Mark the models that are run outside of training."""
    for call in facts.forwards.values():
        if not is_training(call) and is_site(facts, call):
            facts.mark_inferred(call.models)


def find_calls(facts: Facts, parsed: Parsed) -> tuple[Call, ...]:
    """All forwards of a file, of inference and of training."""
    found = [
        record_of(facts, call)
        for call in facts.forwards.values()
        if call.parsed.key == parsed.key and is_site(facts, call)
    ]
    return tuple(sorted(found, key=lambda call: call.call))


def record_of(facts: Facts, call: ForwardCall) -> Call:
    """The record of one forward."""
    parsed, node = call.parsed, call.node
    statement = parsed.statement(node)
    obstacle = why_not_wrappable(facts, parsed, node, statement)
    if call.differentiated and not is_training(call):
        obstacle = "gradients are computed from its result"
    grad = _grad_mode(facts, parsed, node)
    return Call(
        kind="forward" if is_training(call) else "inference",
        callee=parsed.text(node.func),
        line=node.lineno,
        call=parsed.span(node),
        statement=parsed.span(statement),
        scope=parsed.scope(node),
        model=_model_name(facts, call),
        wrappable=not obstacle,
        why_not_wrappable=obstacle,
        grad_mode=grad.mode,
        grad_mode_at=parsed.span(grad.at) if grad.at is not None else None,
        grad_mode_covers_training=grad.region is not None and _trains(facts, grad.region),
        autocast=call.autocast or _under_autocast(facts, parsed, node),
        feeds_training=call.feeds_training,
        reaches_numpy=call.reaches_numpy,
        reaches_cross_entropy=call.reaches_cross_entropy,
        changed_in_place=call.changed_in_place,
        loader=_loader_name(facts, call),
        evidence=call.evidence,
    )


def why_not_wrappable(facts: Facts, parsed: Parsed, node: ast.AST, statement: ast.stmt) -> str:
    """Why no `with` block may be put around the statement of a call; empty when one may."""
    child: ast.AST = node
    for parent in parsed.ancestors(node):
        if isinstance(parent, ast.Lambda):
            return "inside a lambda"
        if child is statement:
            break
        child = parent
    if isinstance(statement, _SCOPES):
        return "in a decorator, a default argument or a base class"
    if isinstance(statement, ast.For | ast.AsyncFor | ast.While):
        kind = "while" if isinstance(statement, ast.While) else "for"
        return f"in the header of a `{kind}` loop, whose body would be wrapped too"
    suspended = has_suspension(statement)
    if suspended:
        return f"the statement {suspended}"
    if isinstance(statement, ast.If | ast.With | ast.AsyncWith | ast.Match | ast.Try) and _trains(facts, statement):
        return "in the header of a compound statement that also trains"
    if _shares_line(parsed, statement):
        return "its statement shares a line with another one"
    return ""


def _shares_line(parsed: Parsed, statement: ast.stmt) -> bool:
    block, index = parsed.block(statement)
    span = parsed.span(statement)
    if index and parsed.span(block[index - 1]).end_line == span.line:
        return True
    if index + 1 < len(block) and block[index + 1].lineno == span.end_line:
        return True
    return bool(parsed.lines[span.line - 1][: span.column].strip())


def _trains(facts: Facts, region: ast.AST) -> bool:
    """Whether a backward, a training forward or an optimizer's step stands in a piece of code."""
    body = region.body if isinstance(region, ast.FunctionDef | ast.AsyncFunctionDef) else [region]
    for part in body:
        for node in (part, *walk_scope(part)):
            if node in facts.backwards or node in facts.others:
                return True
            forward = facts.forwards.get(node) if isinstance(node, ast.Call) else None
            if forward is not None and forward.training:
                return True
    return False


def _grad_mode(facts: Facts, parsed: Parsed, node: ast.AST) -> _Grad:
    """The nearest `with` item or decorator around a node that switches gradients off."""
    child = node
    for parent in parsed.ancestors(node):
        expressions: list[ast.expr] = []
        if isinstance(parent, ast.With | ast.AsyncWith):
            index = next((i for i, item in enumerate(parent.items) if item is child), len(parent.items))
            expressions = [item.context_expr for item in parent.items[:index]]
        elif isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef) and child in parent.body:
            expressions = list(parent.decorator_list)
        for expression in reversed(expressions):
            kind = facts.contexts.get(expression)
            if kind == "enable_grad":
                return _Grad()
            if kind in {"no_grad", "inference_mode"}:
                is_name = isinstance(expression, ast.Name) and isinstance(parent, ast.With | ast.AsyncWith)
                mode: GradMode = "no_grad" if kind == "no_grad" else "inference_mode"
                return _Grad(mode, None if is_name else expression, parent)
        child = parent
    return _Grad()


def _under_autocast(facts: Facts, parsed: Parsed, node: ast.AST) -> bool:
    for parent in parsed.ancestors(node):
        if isinstance(parent, ast.With | ast.AsyncWith):
            if any(facts.contexts.get(item.context_expr) == "autocast" for item in parent.items):
                return True
        elif isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
            return any(facts.contexts.get(item) == "autocast" for item in parent.decorator_list)
    return False


def _model_name(facts: Facts, call: ForwardCall) -> str | None:
    """The name of the one model that a call may run; None when there are several, or none is built in the project."""
    names = {}
    models = call.models | facts.holders_of(call.models)
    written = {}
    for binding, built in model_bindings(facts):
        if any(member.site in models for model in built for member in model.family()):
            names[binding.name] = binding.parsed is call.parsed
            written[binding.name] = binding.written or binding.name
    callee = named(call.node.func)
    fitting = [name for name in names if callee == name or callee.startswith((f"{name}.", f"{name}["))]
    here = [name for name, is_here in names.items() if is_here]
    for choice in (fitting, here, list(names)):
        if len(choice) == 1:
            return written[choice[0]]
    return None


def _loader_name(facts: Facts, call: ForwardCall) -> str | None:
    bindings = [binding for binding in facts.loader_bindings.values() if binding.name and binding.sites & call.loaders]
    names = {binding.written or binding.name for binding in bindings}
    here = {binding.written or binding.name for binding in bindings if binding.parsed is call.parsed}
    for choice in (here, names):
        if len(choice) == 1:
            return next(iter(choice))
    return None
