"""What looks like a site but could not be decided, and why."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from neural_coder.analysis.facts import Facts
from neural_coder.analysis.syntax import Parsed, dotted
from neural_coder.analysis.usage import looks_like_model, names_a_model
from neural_coder.records import Unclear

_MOST = 8
"""Places to list for one file: further ones are counted."""
_LONGEST = 80
_UNSURE = 0.7
"""Models that are known with less confidence are listed, too."""
_CHOSEN_LATE = frozenset(
    {"builtins.eval", "builtins.globals", "builtins.locals", "builtins.vars", "builtins.getattr", "builtins.__import__",
     "importlib.import_module"}
)  # fmt: skip


def find_unclear(facts: Facts, parsed: Parsed) -> tuple[Unclear, ...]:
    """The places of a file where the analysis could not tell, in the order of its text."""
    results = list(_unknown_results(facts, parsed))
    named = {name for name, _ in results}
    found = [item for _, item in results]
    found += _unknown_callees(facts, parsed, named)
    found += _unsure_models(facts, parsed)
    found += _unread_imports(facts, parsed)
    found += _executed_texts(facts, parsed)
    found += _unfollowed(facts, parsed)
    return _shortened(sorted(found, key=lambda item: item.line))


def _shortened(found: list[Unclear]) -> tuple[Unclear, ...]:
    if len(found) <= _MOST:
        return tuple(found)
    last = found[_MOST - 1]
    reason = f"{last.reason} (and {len(found) - _MOST} more such places)"
    return (*found[: _MOST - 1], Unclear(line=last.line, text=last.text, reason=reason))


def _unknown_results(facts: Facts, parsed: Parsed) -> Iterator[tuple[str, Unclear]]:
    """Calls that nothing explains, whose result is used like a model."""
    bound = {
        (binding.name, parsed.scope(binding.statement))
        for binding in facts.bindings.values()
        if binding.parsed is parsed
    }
    for call, name in facts.unexplained.items():
        if call not in parsed.parents or not name or call in facts.models:
            continue
        target = _target(parsed, call)
        if target is None or (name, parsed.scope(call)) in bound or _is_explained(facts, call):
            continue
        if looks_like_model(target, parsed.function(call) or parsed.tree, parsed, facts.catalogue) == 1:
            reason = f"`{name}` is called like a model, but {_why_unknown(facts, parsed, call)}"
            yield name, _unclear(parsed, call, call.func, reason)


def _target(parsed: Parsed, call: ast.Call) -> ast.expr | None:
    statement = parsed.statement(call)
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        return statement.targets[0]
    return statement.target if isinstance(statement, ast.AnnAssign) else None


def _why_unknown(facts: Facts, parsed: Parsed, call: ast.Call) -> str:
    callee = _short(parsed, call.func)
    inside = [part for part in ast.walk(call.func) if isinstance(part, ast.Call)]
    late = next((name for part in inside if (name := facts.resolved.get(part, "")) in _CHOSEN_LATE), "")
    resolved = facts.resolved.get(call, "")
    entry = facts.catalogue.call(resolved) if resolved else None
    if entry is not None and entry.gives == "any":
        return f"what `{callee}` builds is not said in the code"
    if late or "?" in resolved:
        by = f" (`{late.removeprefix('builtins.')}`)" if late else ""
        return f"what `{callee}` is shows only when the script runs{by}"
    why = f"what `{callee}` gives is not known"
    if resolved and parsed.key in facts.out_of_time:
        why += "; the time for looking into installed packages was used up"
    elif any(keyword.arg is None for keyword in call.keywords):
        why += ", and its arguments come from elsewhere (`**`)"
    return why


def _is_explained(facts: Facts, call: ast.Call) -> bool:
    """Whether the result comes from something that has nothing to do with models."""
    chain: ast.expr = call
    while True:
        resolved = facts.resolved.get(chain, "")
        entry = facts.catalogue.call(resolved) if resolved else None
        foreign = resolved.startswith("torch.") or facts.catalogue.is_foreign(resolved)
        if foreign and resolved not in _CHOSEN_LATE and (entry is None or entry.gives != "any"):
            return True
        if isinstance(chain, ast.Call):
            chain = chain.func
        elif isinstance(chain, ast.Attribute):
            chain = chain.value
        else:
            return False


def _unknown_callees(facts: Facts, parsed: Parsed, named: set[str]) -> Iterator[Unclear]:
    """Calls of attributes and names that are named like models, but come from nowhere."""
    calls = [call for call, file in facts.blind.items() if file is parsed and call not in facts.forwards]
    calls = [call for call in calls if names_a_model(dotted(call.func)) and (call.args or call.keywords)]
    seen = named | _bound_to_results(parsed) if calls else named
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        name = dotted(call.func)
        if name in seen or facts.catalogue.names_loss(name) or _inside_module(facts, parsed, call):
            continue
        seen.add(name)
        holder = name.rpartition(".")[0]
        what = f"what `{holder}` is" if holder and holder != "self" else "where it comes from"
        yield _unclear(parsed, call, call.func, f"`{name}` is called like a model, but {what} is not known")


def _bound_to_results(parsed: Parsed) -> set[str]:
    """Names that calls are bound to: they are explained, or listed where they are bound."""
    return {
        dotted(target)
        for node in parsed.nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
    }


def _inside_module(facts: Facts, parsed: Parsed, node: ast.AST) -> bool:
    """Whether a call belongs to the inner working of a module."""
    for parent in parsed.ancestors(node):
        if isinstance(parent, ast.ClassDef) and parent in facts.models:
            return True
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef) and parent.name in {"forward", "__call__"}:
            return True
    return False


def _unsure_models(facts: Facts, parsed: Parsed) -> Iterator[Unclear]:
    for binding in facts.bindings.values():
        if binding.parsed is parsed and any(facts.models[site].evidence.confidence < _UNSURE for site in binding.sites):
            reason = f"`{binding.name}` is taken for a model only because of how it is named and called"
            yield _unclear(parsed, binding.statement, binding.value or binding.target, reason)


def _unread_imports(facts: Facts, parsed: Parsed) -> Iterator[Unclear]:
    for statement, path in facts.imports.items():
        why = facts.unread.get(path)
        if why is not None and statement in parsed.parents:
            yield _unclear(parsed, statement, statement, f"`{path.name}` was not looked into: {why}")


def _executed_texts(facts: Facts, parsed: Parsed) -> Iterator[Unclear]:
    for node, name in facts.resolved.items():
        if name == "builtins.exec" and isinstance(node, ast.Call) and node in parsed.parents:
            yield _unclear(parsed, node, node, "what is executed here shows only when the script runs")


def _unfollowed(facts: Facts, parsed: Parsed) -> Iterable[Unclear]:
    call = facts.unfollowed.get(parsed.key)
    if call is None:
        return ()
    reason = "what the script calls is too large: from here on, functions were not followed into what they call"
    return (_unclear(parsed, call, call.func, reason),)


def _unclear(parsed: Parsed, at: ast.AST, shown: ast.AST, reason: str) -> Unclear:
    return Unclear(line=getattr(at, "lineno", 1), text=_short(parsed, shown), reason=reason)


def _short(parsed: Parsed, node: ast.AST) -> str:
    text = " ".join(parsed.text(node).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
