"""Makes the records of models: where each is built, what is known about it, and where it is ready."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import replace

from neural_coder.analysis.facts import UNKNOWN_LAYER, Binding, BuiltModel, Facts
from neural_coder.analysis.readiness import ready_after
from neural_coder.analysis.syntax import Parsed
from neural_coder.records import Evidence, Model


def model_bindings(facts: Facts) -> list[tuple[Binding, list[BuiltModel]]]:
    """The bindings that count as models, each with the models that it may bind."""
    found = []
    bound = _family_sites(facts, facts.bindings.values())
    named = _family_sites(facts, [binding for binding in facts.bindings.values() if not binding.borrowed])
    extra = [
        binding
        for binding in facts.aliases.values()
        if not binding.sites & bound and not any(facts.models[site].consumed for site in binding.sites)
    ]
    for binding in [*facts.bindings.values(), *extra]:
        built = [facts.models[site] for site in binding.sites]
        kept = [model for model in built if not (_is_part(model, binding) or _is_kept_copy(facts, model, binding))]
        if binding.borrowed:
            kept = [model for model in kept if not any(origin.site in named for origin in model.family())]
        if kept and not facts.catalogue.names_loss(binding.name):
            found.append((binding, kept))
    return sorted(found, key=lambda pair: (pair[0].statement.lineno, pair[0].statement.col_offset, pair[0].name))


def _family_sites(facts: Facts, bindings: Iterable[Binding]) -> set[ast.AST]:
    return {model.site for binding in bindings for site in binding.sites for model in facts.models[site].family()}


def _is_part(model: BuiltModel, binding: Binding) -> bool:
    """Layers (and items of containers) that became part of something else are no models."""
    return model.consumed and (model.is_layer or binding.is_item)


def _is_kept_copy(facts: Facts, model: BuiltModel, binding: Binding) -> bool:
    """A copy that is put into a dict and never run there: `checkpoint = {"model": deepcopy(model).half()}`."""
    if not binding.is_item or model.copied_from is None:
        return False
    return not any(model.site in call.models for call in facts.forwards.values())


def find_models(facts: Facts, parsed: Parsed) -> tuple[Model, ...]:
    """The models that a file builds."""
    relatives = _Relatives(facts)
    records = [
        _record(facts, relatives, binding, built)
        for binding, built in model_bindings(facts)
        if binding.parsed.key == parsed.key
    ]
    # `self.target` is built in one method, built anew in another and trained in a third.
    trained = {(_owner(model), model.name) for model in records if model.trained and model.name.startswith("self.")}
    return tuple(replace(model, trained=model.trained or (_owner(model), model.name) in trained) for model in records)


def _owner(model: Model) -> str:
    """The class in whose method a model is built."""
    return model.scope.rpartition(".")[0]


class _Relatives:
    """What models are parts of what others, and which of them are run by themselves."""

    def __init__(self, facts: Facts):
        self.facts = facts
        self.run = {site for call in facts.forwards.values() for site in call.models}
        self.whole = {site for call in facts.forwards.values() if call.whole for site in call.models}
        self.copies: dict[ast.AST, set[ast.AST]] = {}
        self.parts: dict[ast.AST, set[ast.AST]] = {}
        self.views: dict[ast.AST, set[ast.AST]] = {}
        for model in list(facts.models.values()):
            if model.origin is not None:
                self.views.setdefault(model.origin.site, set()).add(model.site)
            if model.copied_from is not None:
                self.copies.setdefault(model.copied_from, set()).add(model.site)
            for holder in facts.holders_of([model.site]):
                self.parts.setdefault(holder, set()).add(model.site)

    def around(self, built: list[BuiltModel]) -> list[BuiltModel]:
        """The models that hold some models, and the models that these hold."""
        # What a function builds for several callers has its parts in common there, but is another model for each.
        own = {model.site for item in built for model in item.family() if model is item or len(self._views(model)) < 2}
        below = set().union(*(self.parts.get(site, set()) for site in own))
        return [self.facts.models[site] for site in self.facts.holders_of(own) | below]

    def _views(self, model: BuiltModel) -> set[ast.AST]:
        return self.views.get(model.site, set())

    def followed(self, built: list[BuiltModel]) -> list[BuiltModel]:
        """The models whose weights some models were given."""
        own = {member.site for model in built for member in model.family()}
        return [self.facts.models[site] for mine in own for site in self.facts.follows.get(mine, ())]

    def only_part(self, model: BuiltModel) -> bool:
        """Whether a model (or its copies) only works inside of another, which is run as a whole."""
        own = {member.site for member in model.family()}
        held = own.union(*(self.copies.get(site, set()) for site in own))
        above = [self.facts.models[site] for site in self.facts.holders_of(held)]
        holders = {member.site for model in above if model.kind == "module" for member in model.family()}
        views = set().union(*(self.views.get(site, set()) for site in holders))
        return bool((holders | views) & self.whole) and not own & self.run


def _record(facts: Facts, relatives: _Relatives, binding: Binding, built: list[BuiltModel]) -> Model:
    parsed = binding.parsed
    first = min(built, key=lambda model: (model.parsed is not parsed, getattr(model.site, "lineno", 0)))
    name, ready, why = ready_after(facts, binding)
    if all(relatives.only_part(model) for model in built):
        ready, why = None, "it only works as a part of another model"
    around = relatives.around(built)
    holding = [model for model in around if model.site in facts.holders_of(item.site for item in built)]
    name = binding.written or name if name == binding.name else name
    names = {model.qualified_name for model in built}
    libraries = {model.library for model in built}
    span = parsed.span(binding.statement)
    layers = frozenset().union(*(model.layers for model in built))
    traits = frozenset().union(*(model.traits for model in [*built, *holding]))
    return Model(
        name=name,
        line=span.line,
        statement=span,
        scope=parsed.scope(binding.statement),
        qualified_name=first.qualified_name if len(names) == 1 and "?" not in first.qualified_name else "",
        library=first.library if len(libraries) == 1 else "",
        kind=first.kind,
        ready=parsed.span(ready) if ready is not None else None,
        why_not_ready=why,
        layers=layers if _are_known(layers, built) else None,
        trained=any(model.trained for model in [*built, *around, *relatives.followed(built)]),
        inferred=any(model.inferred for model in [*built, *(item for item in holding if item.kind == "pipeline")]),
        traits=traits,
        evidence=_evidence(binding, first),
    )


def _are_known(layers: frozenset[str], built: list[BuiltModel]) -> bool:
    return UNKNOWN_LAYER not in layers and (bool(layers) or all(model.layers_known for model in built))


def _evidence(binding: Binding, model: BuiltModel) -> Evidence:
    in_statement = any(model.site is node for node in ast.walk(binding.statement))
    if in_statement:
        return model.evidence
    return Evidence(known_by="project", confidence=model.evidence.confidence * 0.97, note="built by a function")
