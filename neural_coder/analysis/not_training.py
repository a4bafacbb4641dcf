"""Forwards that gradients are computed from and that train nothing: for gradients by inputs, and for fixed targets."""

from __future__ import annotations

import ast

from neural_coder.analysis.facts import BackwardCall, Facts, ForwardCall, Stack
from neural_coder.analysis.syntax import Parsed
from neural_coder.analysis.training import LOOPS, names_bound, names_read


def settle_derivatives(facts: Facts) -> None:
    """Gradients by the inputs of a model are a backward only on the way of something that is optimized, too."""
    busy = {other.parsed.function(other.node) or other.parsed.tree for other in facts.others.values()}
    for node, call in facts.derivatives.items():
        forwards = [facts.forwards[forward] for forward in call.forwards if forward in facts.forwards]
        if busy.isdisjoint(function for stack in call.stacks for function, _ in stack):
            for forward in forwards:
                forward.differentiated = True
            continue
        facts.backwards.setdefault(node, call)
        for forward in forwards:
            forward.training |= forward.node in call.reached
            forward.feeds_training |= forward.node not in call.reached
            facts.mark_trained(forward.models if forward.node in call.reached else ())


def release_fixed_targets(facts: Facts) -> None:
    """Take forwards in front of a loop of training steps for inference, where each step reads what they gave.

    PyTorch frees a graph with its first backward. Where a loop goes backward again and again from what was computed
    once, in front of it, no gradient that anybody needs flows there.
    """
    for call in facts.forwards.values():
        backwards = [backward for backward in facts.backwards.values() if call.node in backward.reached]
        if call.training and backwards and all(_is_fixed(facts, call, backward) for backward in backwards):
            call.training, call.feeds_training = False, True
            for backward in backwards:
                backward.reached.discard(call.node)


def _is_fixed(facts: Facts, call: ForwardCall, backward: BackwardCall) -> bool:
    if any(keyword.arg in {"retain_graph", "create_graph"} for keyword in backward.node.keywords):
        return False
    others = [facts.forwards[node] for node in backward.reached if node in facts.forwards and node is not call.node]
    return bool(call.stacks and backward.stacks) and all(
        _is_made_before(call, backward, way, end, others) for way in call.stacks for end in backward.stacks
    )


def _is_made_before(
    call: ForwardCall, backward: BackwardCall, way: Stack, end: Stack, others: list[ForwardCall]
) -> bool:
    """Whether a forward's way parts from the backward's in front of a loop that takes the steps."""
    same = next((index for index, (one, other) in enumerate(zip(way, end, strict=False)) if one != other), None)
    if same is None or way[same][0] is not end[same][0]:
        return False
    loop = next((step for step in end[same:] if _repeats(step[1])), None)
    # A step that learns anything runs a model itself.
    if loop is None or not any(loop in stack for other in others for stack in other.stacks):
        return False
    first, last = way[same][1], end[same][1]
    parsed = next((file for file in (call.parsed, backward.parsed) if first in file.parents), None)
    if parsed is None or last not in parsed.parents:
        return False
    given = _made_from(first, last, parsed)
    read_by_header = names_read(loop[1].iter) if isinstance(loop[1], ast.For | ast.AsyncFor) else set()
    return given is not None and given.isdisjoint(names_bound(loop[1]) | read_by_header)


def _repeats(statement: ast.stmt) -> bool:
    """A loop, or `optimizer.step(closure)`, which may call the closure many times."""
    if isinstance(statement, LOOPS):
        return True
    call = getattr(statement, "value", None)
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "step"
        and len(call.args) == 1
    )


def _made_from(first: ast.stmt, last: ast.stmt, parsed: Parsed) -> set[str] | None:
    """Names that hold what a statement gave, or what was made of it, up to a later one; None: there is none later."""
    block, index = parsed.block(first)
    names = _bound(first)
    for statement in block[index + 1 :]:
        if statement is last:
            return names
        if names & names_read(statement):
            names |= _bound(statement)
    return None


def _bound(statement: ast.stmt) -> set[str]:
    """What a statement binds for those that follow: not the variables of its comprehensions."""
    passing = {
        part.id
        for node in ast.walk(statement)
        if isinstance(node, ast.comprehension)
        for part in ast.walk(node.target)
        if isinstance(part, ast.Name)
    }
    return names_bound(statement) - passing
