"""What looks like a site but could not be decided, and why."""

from __future__ import annotations

import ast

from neural_coder.analysis.facts import Facts
from neural_coder.analysis.syntax import Parsed, dotted
from neural_coder.analysis.usage import looks_like_model
from neural_coder.records import Unclear


def find_unclear(facts: Facts, parsed: Parsed) -> tuple[Unclear, ...]:
    """Names that are used as models are, but whose origin is not known."""
    bound = {
        (binding.name, parsed.scope(binding.statement))
        for binding in facts.bindings.values()
        if binding.parsed is parsed
    }
    found = []
    for node in ast.walk(parsed.tree):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.value, ast.Call):
            continue
        target = node.targets[0]
        name = dotted(target)
        if not name or (name, parsed.scope(node)) in bound or _is_explained(facts, node.value):
            continue
        scope = parsed.function(node) or parsed.tree
        if looks_like_model(target, scope, parsed, facts.catalogue) == 1:
            reason = f"`{name}` is called like a model, but what `{parsed.text(node.value.func)}` gives is not known"
            found.append(Unclear(line=node.lineno, text=parsed.text(node.value.func), reason=reason))
    for binding in facts.bindings.values():
        if binding.parsed is parsed and any(facts.models[site].evidence.confidence < 0.6 for site in binding.sites):
            text = parsed.text(binding.value) if binding.value is not None else binding.name
            reason = f"`{binding.name}` is taken for a model only because of how it is named and called"
            found.append(Unclear(line=binding.statement.lineno, text=text, reason=reason))
    return tuple(sorted(found, key=lambda item: item.line))


def _is_explained(facts: Facts, call: ast.Call) -> bool:
    resolved = facts.resolved.get(call, "")
    return call in facts.models or facts.catalogue.is_foreign(resolved) or resolved.startswith("torch.")
