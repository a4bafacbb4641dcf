"""Makes the records of data loaders and optimizers."""

from __future__ import annotations

import ast

from neural_coder.analysis.facts import Binding, Facts
from neural_coder.analysis.syntax import Parsed
from neural_coder.records import DataLoader, Optimizer


def find_loaders(facts: Facts, parsed: Parsed) -> tuple[DataLoader, ...]:
    """The statements of a file that bind data loaders."""
    for call in facts.forwards.values():
        for site in call.loaders:
            facts.loaders[site].used_for.add("training" if call.training else "inference")
    bindings = facts.loader_bindings.values()
    have_names = {site for binding in bindings if binding.name for site in binding.sites}
    found = [
        _record(facts, binding)
        for binding in bindings
        if binding.parsed is parsed
        and any(facts.loaders[site].confirmed for site in binding.sites)
        # A loop stands for the loader that it goes through where no statement gives that one a name.
        and (binding.name or have_names.isdisjoint(binding.sites))
    ]
    return tuple(sorted(found, key=lambda loader: (loader.statement, loader.name)))


def _record(facts: Facts, binding: Binding) -> DataLoader:
    parsed = binding.parsed
    built = [facts.loaders[site] for site in binding.sites]
    inside = [item for item in built if any(item.site is node for node in ast.walk(binding.statement))]
    names = {item.qualified_name for item in built}
    call = inside[0].site if len(inside) == 1 else None
    span = parsed.span(binding.statement)
    return DataLoader(
        name=binding.written or binding.name,
        line=span.line,
        statement=span,
        call=parsed.span(call) if call is not None else None,
        scope=parsed.scope(binding.statement),
        qualified_name=names.pop() if len(names) == 1 else "",
        arguments=parsed.arguments(call) if isinstance(call, ast.Call) else (),
        used_for=frozenset().union(*(item.used_for for item in built)),
        evidence=built[0].evidence,
    )


def find_optimizers(facts: Facts, parsed: Parsed) -> tuple[Optimizer, ...]:
    """The optimizers that a file builds."""
    found = []
    for site, built in facts.optimizers.items():
        if built.parsed is parsed and isinstance(site, ast.Call):
            found.append(
                Optimizer(
                    name=facts.optimizer_names.get(site, ""),
                    line=site.lineno,
                    call=parsed.span(site),
                    statement=parsed.span(parsed.statement(site)),
                    scope=parsed.scope(site),
                    qualified_name="" if "?" in built.qualified_name else built.qualified_name,
                    arguments=parsed.arguments(site),
                    evidence=built.evidence,
                )
            )
    return tuple(sorted(found, key=lambda optimizer: optimizer.call))
