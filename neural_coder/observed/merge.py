"""Brings together what the code says and what a run has shown: sites confirmed and added, models ranked, conflicts.

Nothing is ever taken back: where the code and the run disagree, that is said, and the reader decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from neural_coder.observed.results import Added, Conflict, Merged, ModelShare
from neural_coder.observed.sites import calls_of, models_of
from neural_coder.observed.words import describe, describe_models, join, text_of, way
from neural_coder.records import (
    Analysis,
    Call,
    CodeFrame,
    Evidence,
    Model,
    Observation,
    ObservedCall,
    ObservedModel,
    Span,
    TrainingCall,
)
from neural_coder.units import count, percent

_CLASS = re.compile(r"[A-Z]\w*")


def merge(analyses: Sequence[Analysis], observation: Observation, root: Path, *, complete: bool) -> Merged:
    """Bring the facts on a script's files together with what was seen when it ran.

    Args:
        analyses: From the code alone.
        observation: From the run.
        root: The project's folder, which the names of sites are relative to.
        complete: The script ran to its end: what did not happen does not happen.
    """
    return _Merger(analyses, observation, root, complete).merged()


class _Merger:
    """The work of `merge`, and what it finds on the way."""

    def __init__(self, analyses: Sequence[Analysis], observation: Observation, root: Path, complete: bool) -> None:
        self._analyses = analyses
        self._seen = observation
        self._root = root
        self._complete = complete and not observation.truncated
        self._by_path = {facts.path: facts for facts in analyses}
        self._models = {model.number: model for model in observation.models}
        self._conflicts: list[Conflict] = []
        self._at: dict[str, list[ObservedCall]] = {}
        """By the name of a site: the calls that were seen at it."""
        self._elsewhere: list[ObservedCall] = []
        """Calls that no site covers."""

    def merged(self) -> Merged:
        for call in self._seen.calls:
            names = self._sites_of(call)
            if not names:
                self._elsewhere.append(call)
            for name in names:
                self._at.setdefault(name, []).append(call)
        analyses = [self._confirmed(facts) for facts in self._analyses]
        added = [*self._added_models(), *self._added_calls()]
        return Merged(
            analyses=self._with_added(analyses, added),
            observation=self._seen,
            added=tuple(added),
            shares=self._shares(),
            conflicts=tuple(sorted(self._conflicts, key=lambda conflict: (str(conflict.path), conflict.line))),
        )

    # --- calls

    def _sites_of(self, call: ObservedCall) -> list[str]:
        """The sites that a call was made at: those of the innermost frame that is at any."""
        for depth, frame in enumerate(call.frames):
            facts = self._by_path.get(frame.path)
            if facts is None:
                continue
            sites = [(name, site) for name, site in calls_of(facts, self._root) if _is_at(frame, site.call)]
            # What a trainer calls back in the project is a site of its own.
            names = [name for name, site in sites if site.kind != "fit" or depth == 0]
            if names:
                return names
        return []

    def _confirmed(self, facts: Analysis) -> Analysis:
        calls = {id(call): self._confirmed_call(facts, name, call) for name, call in calls_of(facts, self._root)}
        return replace(
            facts,
            models=tuple(
                replace(model, evidence=self._model_evidence(facts, name, model))
                for name, model in models_of(facts, self._root)
            ),
            inference=tuple(replace(call, evidence=calls[id(call)]) for call in facts.inference),
            training=tuple(
                replace(call, evidence=calls[id(call)]) if id(call) in calls else call for call in facts.training
            ),
        )

    def _confirmed_call(self, facts: Analysis, name: str, call: Call | TrainingCall) -> Evidence:
        seen = self._at.get(name, [])
        if not seen:
            return self._unseen_call(facts, name, call)
        for message in (_wrong_kind(facts, call, seen), self._wrong_class(facts, call, seen)):
            if message:
                self._conflict(facts, call.line, f"{call.callee}(...)", message)
        return _observed(call.evidence, describe(seen))

    def _unseen_call(self, facts: Analysis, name: str, call: Call | TrainingCall) -> Evidence:
        if name in self._seen.reached_within:
            return _observed(call.evidence, "within the call of another model")
        reached = self._seen.reached.get(name)
        if reached == 0:
            return replace(call.evidence, note=join(call.evidence.note, "not reached in this run"))
        if reached and self._complete and not self._seen.compiled_graphs:
            message = f"The script came here {count(reached, 'time')}, but no model was called."
            self._conflict(facts, call.line, f"{call.callee}(...)", message)
        return call.evidence

    def _wrong_class(self, facts: Analysis, call: Call | TrainingCall, seen: Sequence[ObservedCall]) -> str:
        """Whether the model is of another class than the code says, in words."""
        name = call.model if isinstance(call, Call) else None
        if name is None or call.callee != name:
            return ""
        expected = {_expected_class(model) for model in facts.models if model.name == name}
        if not expected or None in expected:
            return ""
        for item in seen:
            if item.through or item.form or not item.built:
                continue
            bases = {base for number in item.built if number in self._models for base in self._models[number].bases}
            if bases and not expected & bases:
                said = " or ".join(sorted(str(name) for name in expected))
                return f"The code says that this is a {said}; in the run it was a {item.name}."
        return ""

    def _added_calls(self) -> Iterator[Added]:
        groups: dict[tuple[Path, int, Span | None, str], list[ObservedCall]] = {}
        for call in self._elsewhere:
            if call.frames:
                frame = call.frames[0]
                groups.setdefault((frame.path, frame.line, frame.call, call.name), []).append(call)
        for calls in groups.values():
            first = calls[0]
            trained = any(mode.backward for call in calls for mode in call.modes)
            yield _added("forward" if trained else "inference", first)

    # --- models

    def _model_evidence(self, facts: Analysis, name: str, model: Model) -> Evidence:
        built = [item for item in self._seen.models if _built_by(item, facts.path, model.statement)]
        reached = self._seen.reached.get(name)
        if not built:
            if reached and self._complete and not self._may_come_from_elsewhere(model):
                message = f"This ran {count(reached, 'time')}, but no module was built by it."
                self._conflict(facts, model.line, text_of(model), message)
                return model.evidence
            note = "not reached in this run" if reached == 0 else ""
            return replace(model.evidence, note=join(model.evidence.note, note))
        expected = _expected_class(model)
        if expected is not None and not any(expected in item.bases for item in built):
            names = ", ".join(dict.fromkeys(item.name for item in built if item.part_of is None))
            self._conflict(facts, model.line, text_of(model), f"The code says {expected}; the run built {names}.")
        if self._complete and (model.inferred or model.trained) and self._never_called(built):
            message = "It was built, but neither it nor a part of it was called in this run."
            self._conflict(facts, model.line, text_of(model), message)
        return _observed(model.evidence, describe_models(built))

    def _may_come_from_elsewhere(self, model: Model) -> bool:
        """Whether the run built something that this statement may have been given (as an argument, from a cache)."""
        if model.scope.endswith("__init__"):
            return True  # What is built for a module that is being built counts as its layer.
        expected = _expected_class(model)
        if expected is not None:
            return any(expected in item.bases for item in self._seen.models)
        return any(item.part_of is None and not self._is_known(item) for item in self._seen.models)

    def _is_known(self, item: ObservedModel) -> bool:
        """Whether a statement that the code shows to build a model has built this one."""
        return any(_built_by(item, facts.path, model.statement) for facts in self._analyses for model in facts.models)

    def _never_called(self, built: Sequence[ObservedModel]) -> bool:
        return not self._seen.compiled_graphs and not any(item.called for item in built)

    def _added_models(self) -> Iterator[Added]:
        """Models that were called and built by no statement that is known to build any."""
        for item in self._seen.models:
            whole = item.part_of is None and item.form != "compiled"
            if item.frames and item.called and whole and not self._is_known(item):
                yield _added("model", item)

    def _shares(self) -> tuple[ModelShare, ...]:
        groups: dict[tuple[str, int | None], list[ObservedCall]] = {}
        for call in self._seen.calls:
            whole = self._whole(call.built[0]) if call.built else None
            key = (call.name, None) if whole is None else (whole.name, whole.number)
            groups.setdefault(key, []).append(call)
        shares = [self._share(name, number, calls) for (name, number), calls in groups.items()]
        return tuple(sorted(shares, key=lambda share: -share.seconds))

    def _share(self, name: str, number: int | None, calls: Sequence[ObservedCall]) -> ModelShare:
        built = self._models[number] if number is not None else None
        seconds = sum(call.seconds for call in calls)
        ordered = sorted(calls, key=lambda call: -call.seconds)
        return ModelShare(
            name=name,
            built=built.frames[0] if built is not None and built.frames else None,
            parameters=built.parameters if built is not None else None,
            calls=sum(call.calls for call in calls),
            seconds=seconds,
            share=seconds / self._seen.seconds if self._seen.seconds > 0 else 0.0,
            called=tuple(dict.fromkeys(call.frames[0] for call in ordered if call.frames)),
        )

    def _whole(self, number: int) -> ObservedModel | None:
        """The model that a part belongs to (what `torch.compile` put around it does not count)."""
        model = self._models.get(number)
        for _ in self._models:
            if model is None or model.part_of is None:
                break
            outer = self._models.get(model.part_of)
            if outer is None or outer.form == "compiled" or outer.name == model.name:
                break
            model = outer
        return model

    # --- what both share

    def _conflict(self, facts: Analysis, line: int, text: str, message: str) -> None:
        self._conflicts.append(Conflict(path=facts.path, line=line, text=text, message=message))

    def _with_added(self, analyses: Iterable[Analysis], added: Iterable[Added]) -> tuple[Analysis, ...]:
        by_path = {facts.path: facts for facts in analyses}
        for item in added:
            facts = by_path.get(item.path) or Analysis(path=item.path)
            by_path[item.path] = _with(facts, item)
        return tuple(by_path.values())


def _is_at(frame: CodeFrame, call: Span) -> bool:
    """Whether a frame is in a call; calls are told apart by their ends, which no two share."""
    if frame.call is None:
        return call.line <= frame.line <= call.end_line
    return (frame.call.end_line, frame.call.end_column) == (call.end_line, call.end_column)


def _built_by(item: ObservedModel, path: Path, statement: Span) -> bool:
    return any(_is_in(frame, path, statement) for frame in item.frames)


def _is_in(frame: CodeFrame, path: Path, statement: Span) -> bool:
    if frame.path != path:
        return False
    if frame.call is None:
        return statement.line <= frame.line <= statement.end_line
    return statement.contains(frame.call)


def _wrong_kind(facts: Analysis, call: Call | TrainingCall, seen: Sequence[ObservedCall]) -> str:
    """Whether the calls were for another purpose than the code says, in words."""
    modes = [mode for item in seen for mode in item.modes]
    if call.kind == "inference":
        trained = sum(mode.calls for mode in modes if mode.backward)
        where = "in training mode" if any(mode.backward and mode.training for mode in modes) else "in eval mode"
        return f"The code says inference; {count(trained, 'call')} {where} fed a backward." if trained else ""
    # A teacher's call is known as both: as inference, and as a part of the training step.
    both = any(other.call == call.call for other in facts.inference)
    if call.kind != "forward" or both or any(mode.backward for mode in modes):
        return ""
    if all(mode.grad_mode != "enabled" for mode in modes):
        return "The code says training; all calls ran without gradients."
    if not any(mode.training and mode.grad_mode == "enabled" for mode in modes):
        return "The code says training; all calls ran in eval mode, and no backward followed."
    return ""


def _expected_class(model: Model) -> str | None:
    """The class that the code says is built; None when that is a factory's own affair."""
    name = model.qualified_name.rpartition(".")[2]
    known = model.kind == "module" and model.library in ("project", "torch")
    return name if known and _CLASS.fullmatch(name) else None


def _observed(before: Evidence, what: str) -> Evidence:
    """Evidence from the run, which keeps how a fact was known from the code."""
    known = f"from the code: {before.known_by} {percent(round(before.confidence, 2))}"
    return Evidence(known_by="observed", confidence=1.0, note=join(what, known, before.note))


def _added(kind: Literal["model", "inference", "forward"], item: ObservedCall | ObservedModel) -> Added:
    frame = item.frames[0]
    return Added(
        kind=kind,
        path=frame.path,
        line=frame.line,
        scope=frame.function,
        name=item.name,
        frames=item.frames,
        through=item.through,
    )


def _with(facts: Analysis, item: Added) -> Analysis:
    """A file's facts and one more, which is known from the run alone."""
    evidence = Evidence(known_by="observed", confidence=1.0, note=join("only the run shows it", way(item)))
    span = item.frames[0].call or Span(line=item.line, column=0, end_line=item.line, end_column=0)
    if item.kind == "model":
        model = Model(
            name="",
            line=item.line,
            statement=span,
            scope=item.scope,
            qualified_name=item.name,
            library="",
            kind="module",
            ready=None,
            why_not_ready="only the run shows it",
            evidence=evidence,
        )
        return replace(facts, models=(*facts.models, model))
    if item.kind == "forward":
        step = TrainingCall(
            kind="forward", callee=item.name, line=item.line, call=span, scope=item.scope, evidence=evidence
        )
        return replace(facts, training=(*facts.training, step))
    call = Call(
        kind="inference",
        callee=item.name,
        line=item.line,
        call=span,
        statement=span,
        scope=item.scope,
        model=None,
        wrappable=False,
        why_not_wrappable="only the run shows it",
        evidence=evidence,
    )
    return replace(facts, inference=(*facts.inference, call))
