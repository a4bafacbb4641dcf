"""Makes the records of training: its calls, and which of them form a step."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from neural_coder.analysis.calls import is_site, is_training, record_of
from neural_coder.analysis.facts import BackwardCall, Facts, ForwardCall, Stack
from neural_coder.analysis.syntax import Parsed, dotted, has_suspension, walk_scope
from neural_coder.records import Span, TrainingCall, TrainingStep


@dataclass(frozen=True, slots=True)
class _Meeting:
    """Where the ways to a forward and to a backward part."""

    function: ast.AST
    first: ast.stmt
    """The statement on the way to the forward."""
    last: ast.stmt
    """The statement on the way to the backward."""
    way: Stack
    """All statements on the way to the forward."""


LOOPS = (ast.For, ast.AsyncFor, ast.While)


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
                backward.reached.add(call.node)
                facts.mark_trained(call.models)


def drop_stray_backwards(facts: Facts) -> None:
    """Leave out backwards of plain tensors: none of a model, and nothing else in the file is part of training."""
    busy = {call.parsed.path for call in facts.forwards.values()}
    busy |= {call.parsed.path for call in facts.others.values()}
    for node, backward in list(facts.backwards.items()):
        if not backward.forwards and backward.evidence.known_by == "name" and backward.parsed.path not in busy:
            del facts.backwards[node]


def _comes_before(call: ForwardCall, backward: BackwardCall, region: ast.AST) -> bool:
    """Whether a forward stands in a region, in front of a backward; in inner loops, too (a loop over layers, say)."""
    if _loop_or_function(call.parsed, call.node) is region:
        return True
    before = (call.node.lineno, call.node.col_offset) < (backward.node.lineno, backward.node.col_offset)
    inner = call.parsed.function(call.node) is backward.parsed.function(backward.node)
    return before and inner and region in call.parsed.ancestors(call.node)


def _loop_or_function(parsed: Parsed, node: ast.AST) -> ast.AST:
    for parent in parsed.ancestors(node):
        if isinstance(parent, (*LOOPS, ast.FunctionDef, ast.AsyncFunctionDef)):
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
    own = _loop_or_function(call.parsed, call.node)
    regions = [
        _loop_or_function(backward.parsed, backward.node)
        for backward in facts.backwards.values()
        if call.node in backward.forwards
    ]
    # The whole file is around everything: what a loop collects at top level is no part of a step further down.
    return any(region in around and (region is own or region is not call.parsed.tree) for region in regions)


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
    steps = [
        _step(facts, backward)
        for backward in facts.backwards.values()
        # Where a model's output only comes in detached, something else is trained (a temperature, say).
        if backward.parsed is parsed and (backward.reached or not backward.forwards)
    ]
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
    meetings = [_meetings(forward.stacks, backward.stacks) for forward in forwards]
    span, why = _forward_and_loss(facts, backward, forwards, meetings)
    return TrainingStep(
        forwards=records,
        backward=_record(parsed, backward.node, "backward", backward.evidence),
        optimizer_step=_following_step(facts, backward),
        scope=parsed.scope(backward.node),
        forward_and_loss=span,
        why_not=why,
        autocast=bool(records)
        and all(
            record.autocast or _all_under_autocast(facts, found)
            for record, found in zip(records, meetings, strict=True)
        ),
    )


def _all_under_autocast(facts: Facts, meetings: list[_Meeting]) -> bool:
    """Whether a forward runs under autocast on every way that leads to this backward (it may not on others)."""
    items = [
        [
            item
            for _, statement in meeting.way
            if isinstance(statement, ast.With | ast.AsyncWith)
            for item in statement.items
        ]
        for meeting in meetings
    ]
    return bool(items) and all(
        any(facts.contexts.get(item.context_expr) == "autocast" for item in found) for found in items
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


def _forward_and_loss(
    facts: Facts, backward: BackwardCall, forwards: list[ForwardCall], meetings: list[list[_Meeting]]
) -> tuple[Span | None, str]:
    """The run of statements from the first forward to the loss, in the block that also holds the backward."""
    if not forwards:
        return None, "no forward was found that leads to this backward"
    if not all(meetings):
        return None, "the forward and the backward are in functions that do not call each other"
    ways = [meeting for found in meetings for meeting in found]
    functions = {meeting.function for meeting in ways}
    if len(functions) > 1:
        return None, "the forwards lead to the backward on different ways"
    parsed = _file_of(facts, backward, forwards, next(iter(functions)))
    if parsed is None:
        return None, "the forward and the backward meet in a file that is not analysed"
    # What ran before the loop of the step (the features of a target, say) is no part of the step.
    ways = [way for way in ways if not isinstance(way.last, LOOPS)] or ways
    ways = [way for way in ways if not _crosses_backward(facts, parsed, way.first, way.last)] or ways
    return _range(facts, parsed, {meeting.first for meeting in ways}, {meeting.last for meeting in ways})


def _meetings(left: set[Stack], right: set[Stack]) -> list[_Meeting]:
    """The functions in which two calls come from different statements: of all ways there, those that part last."""
    found: dict[int, list[_Meeting]] = {}
    for one in left:
        for other in right:
            shortest = min(len(one), len(other))
            same = next((index for index in range(shortest) if one[index] != other[index]), shortest)
            if same < shortest and one[same][0] is other[same][0]:
                meeting = _Meeting(one[same][0], one[same][1], other[same][1], one)
                found.setdefault(same, []).append(meeting)
            elif same == shortest and same:
                function, statement = one[same - 1]
                found.setdefault(same, []).append(_Meeting(function, statement, statement, one))
    return found[max(found)] if found else []


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
    group = _backwards_around(facts, block, stop)
    # Forwards before another backward belong to that one's run (a GAN's generator serves two steps).
    barrier = max((index for index in range(group[0]) if _holds_backward(facts, block[index])), default=-1)
    starts = [positions[statement] for statement in firsts if positions[statement] > barrier]
    start = min(starts, default=stop)
    if start >= group[0]:
        return None, "no forward stands between this backward and the one before, in one block"
    if len(group) > 1:
        behind = set().union(*(names_bound(statement) for statement in block[group[0] : stop]))
        if behind & names_read(block[stop]):
            return None, "a part of the loss is computed behind another backward"
        trained = {
            statement
            for call in facts.forwards.values()
            if call.training
            for way in call.stacks
            for _, statement in way
        }
        start = min(index for index in range(barrier + 1, start + 1) if block[index] in trained)
    end = _end_of_loss(facts, block, start, group)
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


def _backwards_around(facts: Facts, block: list[ast.stmt], stop: int) -> list[int]:
    """The backwards of a block that no forward parts from one of them: they share what was run before."""
    ran = {statement for statement, _ in facts.forward_statements}
    first = stop
    while first and block[first - 1] not in ran:
        first -= 1
    last = next((index for index in range(stop + 1, len(block)) if block[index] in ran), len(block))
    return [index for index in range(first, last) if index == stop or _holds_backward(facts, block[index])]


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


def _end_of_loss(facts: Facts, block: list[ast.stmt], start: int, group: list[int]) -> int:
    """The last statement before some backwards that makes something that they need."""
    needed = set().union(*(names_read(block[index]) for index in group))
    end = start
    for index in range(group[0] - 1, start, -1):
        bound = names_bound(block[index])
        if bound & needed:
            end = max(end, index)
            needed |= names_read(block[index])
    return end


def names_read(statement: ast.AST) -> set[str]:
    """Dotted names in a piece of code."""
    return {dotted(node) for node in ast.walk(statement) if isinstance(node, ast.Name | ast.Attribute)} - {"", "self"}


def names_bound(statement: ast.AST) -> set[str]:
    """Dotted names that a piece of code binds, or whose objects it adds to."""
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
