"""Makes the records of training: its calls, and which of them form a step."""

from __future__ import annotations

import ast

from neural_coder.analysis.calls import is_site, is_training, record_of
from neural_coder.analysis.facts import BackwardCall, Facts, ForwardCall, Stack
from neural_coder.analysis.syntax import Parsed, dotted, has_suspension, walk_scope
from neural_coder.records import Span, TrainingCall, TrainingStep

_LOOPS = (ast.For, ast.AsyncFor, ast.While)


def assume_lost_training(facts: Facts) -> None:
    """Where a backward's value could not be traced, forwards before it in the same loop are taken to lead to it.

    A training forward taken for inference would break the script; the other way round only a chance is missed.
    """
    for backward in facts.backwards.values():
        if backward.forwards:
            continue
        region = _loop_or_function(backward.parsed, backward.node)
        for call in facts.forwards.values():
            if call.grad and call.parsed is backward.parsed and _comes_before(call, backward, region):
                call.training = True
                backward.forwards.add(call.node)
                facts.mark_trained(call.models)


def _comes_before(call: ForwardCall, backward: BackwardCall, region: ast.AST) -> bool:
    """Whether a forward stands in a region, in front of a backward; in inner loops, too (a loop over layers, say)."""
    if _loop_or_function(call.parsed, call.node) is region:
        return True
    before = (call.node.lineno, call.node.col_offset) < (backward.node.lineno, backward.node.col_offset)
    inner = call.parsed.function(call.node) is backward.parsed.function(backward.node)
    return before and inner and region in call.parsed.ancestors(call.node)


def _loop_or_function(parsed: Parsed, node: ast.AST) -> ast.AST:
    for parent in parsed.ancestors(node):
        if isinstance(parent, (*_LOOPS, ast.FunctionDef, ast.AsyncFunctionDef)):
            return parent
    return parsed.tree


def find_training(facts: Facts, parsed: Parsed) -> tuple[TrainingCall, ...]:
    """The training calls of a file, in the order of its text."""
    found = []
    for call in facts.forwards.values():
        if call.parsed is parsed and is_site(facts, call) and (is_training(call) or _in_step(facts, call)):
            found.append(_record(parsed, call.node, "forward", call.evidence))
    for backward in facts.backwards.values():
        if backward.parsed is parsed:
            found.append(_record(parsed, backward.node, "backward", backward.evidence))
    for other in facts.others.values():
        if other.parsed is parsed:
            found.append(_record(parsed, other.node, other.kind, other.evidence))
    return tuple(sorted(found, key=lambda call: call.call))


def _in_step(facts: Facts, call: ForwardCall) -> bool:
    """Whether a forward without gradients is part of a training step: a teacher's or a target network's."""
    if not call.feeds_training:
        return False
    around = set(call.parsed.ancestors(call.node))
    return any(
        call.node in backward.forwards and _loop_or_function(backward.parsed, backward.node) in around
        for backward in facts.backwards.values()
    )


def _record(parsed: Parsed, node: ast.Call, kind: object, evidence: object) -> TrainingCall:
    return TrainingCall(
        kind=kind,  # type: ignore[arg-type]
        callee=parsed.text(node.func),
        line=node.lineno,
        call=parsed.span(node),
        scope=parsed.scope(node),
        evidence=evidence,  # type: ignore[arg-type]
    )


def find_steps(facts: Facts, parsed: Parsed) -> tuple[TrainingStep, ...]:
    """The training steps whose backward stands in a file."""
    steps = [_step(facts, backward) for backward in facts.backwards.values() if backward.parsed is parsed]
    return tuple(sorted(steps, key=lambda step: step.backward.call))


def _step(facts: Facts, backward: BackwardCall) -> TrainingStep:
    parsed = backward.parsed
    forwards = [
        facts.forwards[call]
        for call in backward.forwards
        if call in facts.forwards and facts.forwards[call].training and is_site(facts, facts.forwards[call])
    ]
    forwards.sort(key=lambda call: (call.parsed is not parsed, call.node.lineno, call.node.col_offset))
    records = tuple(record_of(facts, call) for call in forwards)
    span, why = _forward_and_loss(facts, backward, forwards)
    return TrainingStep(
        forwards=records,
        backward=_record(parsed, backward.node, "backward", backward.evidence),
        optimizer_step=_following_step(facts, backward),
        scope=parsed.scope(backward.node),
        forward_and_loss=span,
        why_not=why,
        autocast=bool(records) and all(record.autocast for record in records),
    )


def _following_step(facts: Facts, backward: BackwardCall) -> TrainingCall | None:
    """The optimizer's step that comes next in the function of the backward."""
    parsed = backward.parsed
    region = parsed.function(backward.node)
    position = (backward.node.lineno, backward.node.col_offset)
    later = [
        other
        for other in facts.others.values()
        if other.kind == "optimizer_step"
        and other.parsed is parsed
        and parsed.function(other.node) is region
        and (other.node.lineno, other.node.col_offset) > position
    ]
    if not later:
        return None
    nearest = min(later, key=lambda other: (other.node.lineno, other.node.col_offset))
    return _record(parsed, nearest.node, "optimizer_step", nearest.evidence)


def _forward_and_loss(facts: Facts, backward: BackwardCall, forwards: list[ForwardCall]) -> tuple[Span | None, str]:
    """The run of statements from the first forward to the loss, in the block that also holds the backward."""
    if not forwards:
        return None, "no forward was found that leads to this backward"
    pairs = set()
    for forward in forwards:
        meeting = _meeting(forward.stacks, backward.stacks)
        if meeting is None:
            return None, "the forward and the backward are in functions that do not call each other"
        pairs.add(meeting)
    functions = {function for function, _, _ in pairs}
    if len(functions) > 1:
        return None, "the forwards lead to the backward on different ways"
    parsed = _file_of(facts, backward, forwards, next(iter(functions)))
    if parsed is None:
        return None, "the forward and the backward meet in a file that is not analysed"
    ways = {(first, last) for _, first, last in pairs}
    # What ran before the loop of the step (the features of a target, say) is no part of the step.
    ways = {way for way in ways if not isinstance(way[1], _LOOPS)} or ways
    ways = {way for way in ways if not _crosses_backward(facts, parsed, *way)} or ways
    firsts = {first for first, _ in ways}
    lasts = {last for _, last in ways}
    return _range(facts, parsed, firsts, lasts)


def _meeting(left: set[Stack], right: set[Stack]) -> tuple[ast.AST, ast.stmt, ast.stmt] | None:
    """The function in which two calls come from different statements, and these statements."""
    best = None
    for one in left:
        for other in right:
            same = 0
            while same < min(len(one), len(other)) and one[same] == other[same]:
                same += 1
            if same < min(len(one), len(other)) and one[same][0] is other[same][0]:
                if best is None or same > best[0]:
                    best = (same, (one[same][0], one[same][1], other[same][1]))
            elif same == min(len(one), len(other)) and same and (best is None or same > best[0]):
                shared = one[same - 1]
                best = (same, (shared[0], shared[1], shared[1]))
    return best[1] if best else None


def _crosses_backward(facts: Facts, parsed: Parsed, first: ast.stmt, last: ast.stmt) -> bool:
    """Whether another backward stands between a forward and a backward: the forward belongs to that one's step."""
    block, positions = _common_block(parsed, {first, last})
    if block is None:
        return False
    return any(_holds_backward(facts, statement) for statement in block[positions[first] : positions[last]])


def _file_of(facts: Facts, backward: BackwardCall, forwards: list[ForwardCall], function: ast.AST) -> Parsed | None:
    for parsed in [backward.parsed, *(forward.parsed for forward in forwards)]:
        if function is parsed.tree or function in parsed.parents:
            return parsed
    return None


def _range(facts: Facts, parsed: Parsed, firsts: set[ast.stmt], lasts: set[ast.stmt]) -> tuple[Span | None, str]:
    if firsts & lasts:
        return None, "the forward and the backward are in one statement"
    block, positions = _common_block(parsed, firsts | lasts)
    if block is None:
        return None, "the forward and the backward are not in one block"
    stop = min(positions[statement] for statement in lasts)
    # Forwards before another backward belong to that one's run (a GAN's generator serves two steps).
    barrier = max((index for index in range(stop) if _holds_backward(facts, block[index])), default=-1)
    starts = [positions[statement] for statement in firsts if positions[statement] > barrier]
    start = min(starts, default=stop)
    if start >= stop:
        return None, "no forward stands between this backward and the one before, in one block"
    end = _end_of_loss(facts, block, start, stop)
    run = block[start : end + 1]
    for statement in run:
        if any(node in facts.backwards or _is_step(facts, node) for node in ast.walk(statement)):
            return None, "another backward stands between the forward and the loss"
        suspended = has_suspension(statement)
        if suspended:
            return None, f"a statement between the forward and the loss {suspended}"
        if any(isinstance(node, ast.Return) for node in (statement, *walk_scope(statement))):
            return None, "a statement between the forward and the loss returns"
    return parsed.span_of_run(run[0], run[-1]), ""


def _holds_backward(facts: Facts, statement: ast.stmt) -> bool:
    return any(node in facts.backwards for node in (statement, *walk_scope(statement)))


def _is_step(facts: Facts, node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and node in facts.others


def _common_block(parsed: Parsed, statements: set[ast.stmt]) -> tuple[list[ast.stmt] | None, dict[ast.stmt, int]]:
    """The innermost block that holds all statements, and the place of each (or of what surrounds it) there."""
    chains = []
    for statement in statements:
        chain = []
        for node in (statement, *parsed.ancestors(statement)):
            if isinstance(node, ast.stmt):
                block, index = parsed.block(node)
                chain.append((id(block), block, index))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node is not statement:
                break
        chains.append((statement, chain))
    for key, block, _ in chains[0][1]:
        found = {statement: index for statement, chain in chains for other, _, index in chain if other == key}
        if len(found) == len(statements):
            return block, found
    return None, {}


def _end_of_loss(facts: Facts, block: list[ast.stmt], start: int, stop: int) -> int:
    """The last statement before the backward that makes something that the backward needs."""
    needed = _names_read(block[stop])
    end = start
    for index in range(stop - 1, start, -1):
        bound = _names_bound(block[index])
        if bound & needed:
            end = max(end, index)
            needed |= _names_read(block[index])
    return end


def _names_read(statement: ast.AST) -> set[str]:
    return {dotted(node) for node in ast.walk(statement) if isinstance(node, ast.Name | ast.Attribute)} - {"", "self"}


def _names_bound(statement: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            found.add(dotted(node.value if isinstance(node, ast.Subscript) else node))
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"append", "update"}
        ):
            found.add(dotted(node.func.value))
    return found - {""}
