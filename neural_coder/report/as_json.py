"""From records to plain data, and to strict JSON (schema 1): no NaN, no infinity, no lone surrogates."""

from __future__ import annotations

import base64
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_coder.bench import pace, stats
from neural_coder.observed import Merged
from neural_coder.records import (
    SCHEMA_VERSION,
    Accuracy,
    Analysis,
    Call,
    Criterion,
    DataLoader,
    DeviceUse,
    Evidence,
    Figures,
    Interval,
    Metric,
    Model,
    Optimizer,
    Run,
    TrainingCall,
    Verdict,
)
from neural_coder.report import observed_json, sweep_json, tuning_json
from neural_coder.report.model import Report
from neural_coder.report.paths import relative
from neural_coder.verdict import conclusion

if TYPE_CHECKING:
    from neural_coder.entry_points import EntryPoint
    from neural_coder.filejobs import Problem
    from neural_coder.survey import Survey

_SURROGATES = re.compile("[\ud800-\udfff]")


def to_json(report: Report) -> str:
    """The whole report as JSON text."""
    return dumps(to_dict(report))


def dumps(data: Mapping[str, Any]) -> str:
    """Plain data as strict JSON text; figures that are no numbers become null."""
    return json.dumps(_strict(data), indent=2, ensure_ascii=False, allow_nan=False)


def to_dict(report: Report) -> dict[str, Any]:
    """The whole report as plain data."""
    baseline = _baseline(report.baseline)
    best = next((verdict for verdict in report.verdicts if verdict.plan.id == report.chosen), None)
    data = {
        "schema": SCHEMA_VERSION,
        "script": report.script,
        "args": list(report.args),
        "machine": report.machine,
        "versions": report.versions,
        "criterion": _criterion(report.criterion),
        "sites": _sites(report),
        "baseline": baseline,
        "variants": [_variant(verdict, report, baseline["model_share"]) for verdict in report.verdicts],
        "chosen": report.chosen,
        "conclusion": conclusion(best, report.verdicts),
        "confirmed": None if report.confirmed is None else {"speedup": _interval(report.confirmed)},
        "ended": report.ended,
        "evidence": report.evidence,
        "search": report.search,
        "run_configurations": None if report.sweep is None else sweep_json.to_dict(report.sweep),
        "tuning": [tuning_json.to_dict(tuned) for tuned in report.tuning],
        "notes": list(report.notes),
        "seconds": report.seconds,
        **_diff(report.diff),
    }
    plain: dict[str, Any] = _strict(data)
    return plain


def analysis_json(analyses: Sequence[Analysis], root: Path) -> dict[str, Any]:
    """The sites of files as plain data.

    Args:
        analyses: One for each file.
        root: Paths inside this folder are shown relative to it, with forward slashes.
    """
    files: dict[str, Any] = _strict(
        {"schema": SCHEMA_VERSION, "files": [_file(analysis, root) for analysis in analyses]}
    )
    return files


def observed_analysis_json(merged: Merged, root: Path) -> dict[str, Any]:
    """The sites of a script's files with what its run has shown, as plain data.

    Args:
        merged: The sites and the run.
        root: As for `analysis_json`.
    """
    observed: dict[str, Any] = _strict(observed_json.to_dict(merged, root))
    return {**analysis_json(merged.analyses, root), "observed": observed}


def survey_json(survey: Survey) -> dict[str, Any]:
    """All that was found in files and folders as plain data."""
    done = [(outcome, facts) for outcome in survey.files if (facts := outcome.analysis) is not None]
    data = analysis_json([facts for _, facts in done], survey.base)
    for file, (outcome, _) in zip(data["files"], done, strict=True):
        kept = outcome.kept
        file["main_guard"] = kept.guard if kept else None
        file["seconds"] = kept.seconds if kept else None
        file["cached"] = outcome.cached
    rest: dict[str, Any] = _strict(
        {
            "root": str(survey.base),
            "entry_points": [_entry_point(point, survey.base) for point in survey.entry_points],
            "problems": [_problem(problem, survey.base) for problem in survey.problems],
            "notes": list(survey.notes),
            "summary": _summary(survey, [facts for _, facts in done]),
        }
    )
    return data | rest


# --- parts of a survey ----------------------------------------------------------------------------------------------


def _entry_point(point: EntryPoint, base: Path) -> dict[str, Any]:
    return {
        "kind": point.kind,
        "path": None if point.path is None else relative(point.path, base),
        "line": point.line,
        "name": point.name,
        "target": point.target,
        "declared_in": None if point.declared_in is None else relative(point.declared_in, base),
        "note": point.note,
    }


def _problem(problem: Problem, base: Path) -> dict[str, Any]:
    return {
        "path": relative(problem.path, base),
        "kind": problem.kind,
        "message": problem.message,
        "traceback": problem.traceback,
    }


def _summary(survey: Survey, analyses: Sequence[Analysis]) -> dict[str, Any]:
    return {
        "files": len(survey.files),
        "files_with_sites": sum(not facts.empty for facts in analyses),
        "models": sum(len(facts.models) for facts in analyses),
        "inference": sum(len(facts.inference) for facts in analyses),
        "training": sum(len(facts.training) for facts in analyses),
        "training_steps": sum(len(facts.steps) for facts in analyses),
        "dataloaders": sum(len(facts.dataloaders) for facts in analyses),
        "optimizers": sum(len(facts.optimizers) for facts in analyses),
        "devices": sum(len(facts.devices) for facts in analyses),
        "unclear": sum(len(facts.unclear) for facts in analyses),
        "entry_points": len(survey.entry_points),
        "problems": len(survey.problems),
        "cached": sum(outcome.cached for outcome in survey.files),
        "jobs": survey.jobs,
        "analysis_seconds": sum(
            outcome.kept.seconds for outcome in survey.files if outcome.kept and not outcome.cached
        ),
        "seconds": survey.seconds,
    }


# --- parts of a report ----------------------------------------------------------------------------------------------


def _baseline(runs: Sequence[Run]) -> dict[str, Any]:
    usable = [run for run in runs if run.ok]
    task = next((found for run in usable if (found := stats.task_of(run))), None)
    weights = stats.site_weights(usable[0], task) if usable else {}
    seconds = [stats.seconds_per_call(run, weights, task) for run in usable]
    shares = [share for run in usable if (share := stats.model_share(run)) is not None]
    share = statistics.median(shares) if shares else None
    return {
        "task": task,
        "rounds": len(usable),
        "seconds_per_call": _interval(stats.interval([value for value in seconds if value is not None])),
        "model_share": share,
        "end_to_end_limit": None if share is None else stats.end_to_end_limit(share),
        "peak_memory_bytes": max((run.peak_memory_bytes for run in usable), default=None) or None,
        "disturbed": max((run.disturbed for run in usable), default=0.0),
        "pace_difference": pace.difference(usable),
        "against_itself": _interval(stats.repeatability(usable, task)),
        **_figures(stats.figures(usable, task, weights)),
    }


def _variant(verdict: Verdict, report: Report, share: float | None) -> dict[str, Any]:
    speedup, python = verdict.speedup, report.pythons.get(verdict.plan.id)
    return {
        "id": verdict.plan.id,
        "features": [str(feature) for feature in verdict.plan.features],
        "settings": {item.name: dict(item.settings) for item in verdict.plan.features if item.settings},
        "backend": verdict.plan.backend,
        "status": verdict.status,
        "reason": verdict.reason,
        "speedup": _interval(speedup),
        "end_to_end_speedup": stats.end_to_end_limit(share, speedup.median) if speedup and share is not None else None,
        "seconds_per_call": _interval(verdict.seconds_per_call),
        "accuracy": _accuracy(verdict.accuracy),
        "startup_seconds": verdict.startup_seconds,
        "break_even_calls": verdict.break_even_calls,
        "peak_memory_bytes": verdict.peak_memory_bytes,
        "rounds": verdict.rounds,
        "idle": verdict.idle or None,
        **_figures(verdict.figures),
        "reproduce": report.reproduce.get(verdict.plan.id, ""),
        "python": str(python) if python else None,
        **_diff(verdict.diff),
    }


def _figures(figures: Figures | None) -> dict[str, Any]:
    names = [field.name for field in fields(Figures)]
    return {"figures": None if figures is None else {name: getattr(figures, name) for name in names}}


def _diff(text: str) -> dict[str, str]:
    """A diff as text; one that is not UTF-8 also byte for byte, because text cannot hold it."""
    if not _SURROGATES.search(text):
        return {"diff": text}
    return {"diff": text, "diff_base64": base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()}


def _interval(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else {"median": interval.median, "low": interval.low, "high": interval.high}


def _accuracy(accuracy: Accuracy | None) -> dict[str, Any] | None:
    if accuracy is None:
        return None
    return {**_accuracy_of_one(accuracy), "metrics": [_accuracy_of_one(each) for each in accuracy.metrics]}


def _accuracy_of_one(accuracy: Accuracy) -> dict[str, Any]:
    return {
        "criterion": accuracy.criterion,
        "verified": accuracy.verified,
        "kept": accuracy.kept,
        "loss": accuracy.loss,
        "loss_low": accuracy.loss_low,
        "loss_high": accuracy.loss_high,
        "allowed": accuracy.allowed,
        "absolute": accuracy.absolute,
        "relative_error": accuracy.relative_error,
        "baseline_value": accuracy.baseline_value,
        "value": accuracy.value,
        "reason": accuracy.reason,
    }


def _criterion(criterion: Criterion) -> dict[str, Any]:
    first = criterion.metrics[0] if criterion.metrics else Metric(name="")
    return {
        "relative_loss": criterion.relative_loss,
        "metric": first.name or None,
        "pattern": first.pattern or None,
        "lower_is_better": first.lower_is_better,
        "metrics": [_metric(metric) for metric in criterion.metrics],
        "minimum_gain": criterion.minimum_gain,
    }


def _metric(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "pattern": metric.pattern or None,
        "file": str(metric.file) if metric.file else None,
        "function": metric.function or None,
        "lower_is_better": metric.lower_is_better,
        "allowed": metric.allowed,
        "absolute": metric.absolute,
    }


def _sites(report: Report) -> dict[str, Any]:
    first = next((run for run in report.baseline if run.ok), None)
    return {
        "files": [_file(analysis, report.root) for analysis in report.analyses],
        "measured": [] if first is None else _measured(first),
        "observed": None if report.observed is None else observed_json.to_dict(report.observed, report.root),
    }


def _measured(run: Run) -> list[dict[str, Any]]:
    return [
        {
            "site": timing.site,
            "kind": timing.kind,
            "calls": timing.calls,
            "items": timing.items,
            "seconds": stats.seconds_per_call(run, {timing.site: 1.0}, timing.kind),
        }
        for timing in run.timings
    ]


# --- sites of one file ----------------------------------------------------------------------------------------------


def _file(analysis: Analysis, root: Path) -> dict[str, Any]:
    return {
        "path": relative(analysis.path, root),
        "models": [_model(model) for model in analysis.models],
        "inference": [_call(call) for call in analysis.inference],
        "training": [_training(call) for call in analysis.training],
        "dataloaders": [_built(loader) | {"used_for": sorted(loader.used_for)} for loader in analysis.dataloaders],
        "optimizers": [_built(optimizer) for optimizer in analysis.optimizers],
        "devices": [_device(device) for device in analysis.devices],
        "unclear": [{"line": item.line, "text": item.text, "reason": item.reason} for item in analysis.unclear],
    }


def _model(model: Model) -> dict[str, Any]:
    return {
        "line": model.line,
        "name": model.name,
        "scope": model.scope,
        "qualified_name": model.qualified_name,
        "library": model.library,
        "kind": model.kind,
        "ready_line": None if model.ready is None else model.ready.end_line,
        "why_not_ready": model.why_not_ready,
        "layers": None if model.layers is None else sorted(model.layers),
        "trained": model.trained,
        "inferred": model.inferred,
        "traits": sorted(model.traits),
        **_evidence(model.evidence),
    }


def _call(call: Call) -> dict[str, Any]:
    return {
        "line": call.line,
        "callee": call.callee,
        "scope": call.scope,
        "model": call.model,
        "grad_mode": call.grad_mode,
        "autocast": call.autocast,
        "loader": call.loader,
        **_evidence(call.evidence),
    }


def _training(call: TrainingCall) -> dict[str, Any]:
    return {
        "line": call.line,
        "kind": call.kind,
        "callee": call.callee,
        "scope": call.scope,
        **_evidence(call.evidence),
    }


def _built(item: DataLoader | Optimizer) -> dict[str, Any]:
    return {
        "line": item.line,
        "name": item.name,
        "scope": item.scope,
        "qualified_name": item.qualified_name,
        "arguments": [{"keyword": argument.keyword, "text": argument.text} for argument in item.arguments],
        **_evidence(item.evidence),
    }


def _device(device: DeviceUse) -> dict[str, Any]:
    return {"line": device.line, "kind": device.kind, "text": device.text, **_evidence(device.evidence)}


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {"known_by": evidence.known_by, "confidence": evidence.confidence, "note": evidence.note}


# --- strictness -----------------------------------------------------------------------------------------------------


def _strict(value: Any) -> Any:
    """The same data with what JSON cannot hold replaced: non-finite numbers by null, lone surrogates by U+FFFD."""
    if isinstance(value, str):
        return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_strict(str(key)): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, set | frozenset):
        return [_strict(item) for item in sorted(value)]
    return value if value is None or isinstance(value, bool | int) else str(value)
