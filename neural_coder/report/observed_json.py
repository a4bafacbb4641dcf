"""What a run has shown of a script's models, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from neural_coder.observed import Added, Conflict, Merged, ModelShare
from neural_coder.records import CodeFrame, ObservedCall, ObservedMode, ObservedModel
from neural_coder.report.paths import relative


def to_dict(merged: Merged, root: Path) -> dict[str, Any]:
    """The block `observed`.

    Args:
        merged: The sites and the run.
        root: Paths inside this folder are shown relative to it, with forward slashes.
    """
    seen = merged.observation
    return {
        "seconds": seen.seconds,
        "models": [_share(share, root) for share in merged.shares],
        "added": [_added(item, root) for item in merged.added],
        "conflicts": [_conflict(conflict, root) for conflict in merged.conflicts],
        "calls": [_call(call, seen.seconds, root) for call in sorted(seen.calls, key=lambda call: -call.seconds)],
        "built": [_built(model, root) for model in seen.models],
        "compiled_graphs": seen.compiled_graphs,
        "truncated": seen.truncated,
        "problems": list(seen.problems),
    }


def _share(share: ModelShare, root: Path) -> dict[str, Any]:
    return {
        "name": share.name,
        "built": None if share.built is None else _frame(share.built, root),
        "parameters": share.parameters,
        "calls": share.calls,
        "seconds": share.seconds,
        "share": share.share,
        "called": _frames(share.called, root),
    }


def _added(item: Added, root: Path) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "path": relative(item.path, root),
        "line": item.line,
        "scope": item.scope,
        "name": item.name,
        "frames": _frames(item.frames, root),
        "through": list(item.through),
    }


def _conflict(conflict: Conflict, root: Path) -> dict[str, Any]:
    return {
        "path": relative(conflict.path, root),
        "line": conflict.line,
        "text": conflict.text,
        "message": conflict.message,
    }


def _call(call: ObservedCall, seconds: float, root: Path) -> dict[str, Any]:
    return {
        "name": call.name,
        "home": call.home,
        "form": call.form,
        "direct": call.direct,
        "probed": call.probed,
        "calls": call.calls,
        "seconds": call.seconds,
        "share": call.seconds / seconds if seconds > 0 else None,
        "modes": [_mode(mode) for mode in call.modes],
        "built": list(call.built),
        "frames": _frames(call.frames, root),
        "through": list(call.through),
    }


def _mode(mode: ObservedMode) -> dict[str, Any]:
    return {
        "training": mode.training,
        "grad_mode": mode.grad_mode,
        "autocast": mode.autocast,
        "calls": mode.calls,
        "seconds": mode.seconds,
        "backward": mode.backward,
        "signatures": list(mode.signatures),
    }


def _built(model: ObservedModel, root: Path) -> dict[str, Any]:
    return {
        "number": model.number,
        "name": model.name,
        "home": model.home,
        "form": model.form,
        "how": model.how,
        "count": model.count,
        "parameters": model.parameters,
        "called": model.called,
        "part_of": model.part_of,
        "frames": _frames(model.frames, root),
        "through": list(model.through),
    }


def _frames(frames: Iterable[CodeFrame], root: Path) -> list[dict[str, Any]]:
    return [_frame(frame, root) for frame in frames]


def _frame(frame: CodeFrame, root: Path) -> dict[str, Any]:
    return {"path": relative(frame.path, root), "line": frame.line, "function": frame.function}
