"""The public face in Python: `enable`, and the result that it hands back."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import platformdirs

from neural_coder import config, criteria, diff, engine, interpreters, registry, repo, vendoring
from neural_coder.configurations import Wanted
from neural_coder.engine import Request
from neural_coder.errors import UserError
from neural_coder.patching import Patch
from neural_coder.race import Say
from neural_coder.records import Feature
from neural_coder.report import as_json, text
from neural_coder.source import write_bytes_atomically
from neural_coder.tuning.outcome import DEFAULT_STRATEGY, DEFAULT_TRIALS, Wish

log = logging.getLogger(__name__)

Features = Literal["auto"] | str | Sequence[str]


def enable(
    code: str | os.PathLike[str],
    features: Features = "auto",
    *,
    args: Sequence[str] = (),
    metric: str | Sequence[str] = (),
    lower_is_better: bool | None = None,
    accuracy: str | float | None = None,
    budget: str | float | None = None,
    timeout: str | float | None = None,
    cwd: str | os.PathLike[str] | None = None,
    python: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    mode: str | None = None,
    instances: int | None = None,
    cores_per_instance: int | None = None,
    threads: int | str | Sequence[int] | None = None,
    batch_size: int | str | Sequence[int] | None = None,
    apply: bool = False,
    run: bool = True,
    vendor: bool = False,
    resume: bool = False,
    strategy: str | None = None,
    max_trials: int | None = None,
    seed: int = 0,
) -> Result:
    """Make a PyTorch script faster: patch it, run the variants, verify their answers, and pick the fastest.

    Nothing in the user's tree changes unless `apply` is set or `Result.apply` is called.

    Args:
        code: Path of the script.
        features: `"auto"` searches; otherwise a list of features (or a comma-separated string), such as
            `["bf16", "channels_last"]`, that are tried together.
        args: Arguments of the script.
        metric: A metric of your own, or several, all of which must be kept: `NAME=REGEX`, a pattern over the script's
            output whose first group is the value (the last match counts), or `NAME=FILE.py:FUNCTION`, a function that
            gets the script's global names once it has ended, and gives a number, or one for each sample. Behind the
            name may stand `:lower` or `:higher` and an allowed loss of its own: `loss:lower:2%=loss ([0-9.]+)`. None:
            the agreement of outputs, or of the loss curve for a script that trains.
        lower_is_better: Metrics are errors, not scores. Default: False.
        accuracy: Largest loss that is allowed, relative: `0.01` or `"1%"` (the default), or in the unit of your metric:
            `"0.5abs"`.
        budget: Time for the whole search: seconds, or `"10m"` (the default).
        timeout: Limit for one run of the script: seconds, or `"5m"` (the default).
        cwd: Working directory of the script. None: the current one.
        python: Interpreter that runs the script (default: that of the active virtual environment, else this one), or
            several: `ENGINE=PATH` names one for an engine that needs an environment of its own.
        mode: Also measure the original and the best variants in the run configurations that matter for `"latency"`,
            `"throughput"` or `"multi-instance"`, and say which is best for what. None: only where one of the following
            is given.
        instances: Run configurations: processes at the same time.
        cores_per_instance: Run configurations: cores that each of them is bound to.
        threads: Run configurations: numbers of threads of each instance. Default: its cores.
        batch_size: Run configurations: batch sizes.
        apply: Change the files when something faster was found (with `run=False`: at once).
        run: False patches with the given features without running anything; that needs no PyTorch.
        vendor: The patch brings a copy of the runtime along, if it needs it, so that the script runs where Neural Coder
            is not installed.
        resume: Go on with the same search where it was left (after Ctrl-C, say); runs that had ended are not made
            again.
        strategy: How variants are tuned that are fast but lose too much: `basic`, `mse`, `bayesian`, `sigopt`,
            `exhaustive` or `random`. None: `basic` in a search, and no tuning where features are given.
        max_trials: Trials for tuning in one search, 20 by default; 0 switches it off.
        seed: Of the strategy's random numbers.

    Returns:
        What was found; its `repr` is the table of all variants. After Ctrl-C in the midst of it that is the best that
        was verified so far, with "interrupted" as `data["ended"]`; `apply` is then left to you.

    Raises:
        UserError: The script or an argument cannot be worked with.
        BackendMissing: PyTorch is not installed for the interpreter that runs the script.
        NothingMeasured: The script fails by itself, or no model call was reached.
    """
    say: Say = log.info
    if run:
        result = optimize(
            Path(code),
            args=args,
            say=say,
            features=features,
            accuracy=accuracy,
            metric=metric,
            lower_is_better=lower_is_better,
            budget=budget,
            timeout=timeout,
            cwd=None if cwd is None else Path(cwd),
            python=[python] if isinstance(python, str | os.PathLike) else python,
            vendor=vendor,
            resume=resume,
            mode=mode,
            instances=instances,
            cores_per_instance=cores_per_instance,
            threads=threads,
            batch_size=batch_size,
            strategy=strategy,
            max_trials=max_trials,
            seed=seed,
        )
    else:
        wanted = _features(features)
        if wanted is None:
            raise UserError('run=False needs features by name, such as ["bf16"]: "auto" can only choose by running.')
        plan, patches, base = engine.build_patches(Path(code), wanted)
        patches = vendoring.vendor(patches, Path(code).resolve().parent) if vendor else patches
        result = Result(data={}, patches=patches, base=base, summary=f"{plan.id}: patched, not run")
    if apply and result.patches and not result.interrupted:
        result.apply()
    return result


def optimize(
    script: Path,
    *,
    args: Sequence[str],
    say: Say,
    features: Features | None = None,
    accuracy: str | float | None = None,
    metric: str | Sequence[str] = (),
    lower_is_better: bool | None = None,
    budget: str | float | None = None,
    timeout: str | float | None = None,
    cwd: Path | None = None,
    python: Sequence[str | os.PathLike[str]] = (),
    vendor: bool = False,
    resume: bool = False,
    mode: str | None = None,
    instances: int | None = None,
    cores_per_instance: int | None = None,
    threads: int | str | Sequence[int] | None = None,
    batch_size: int | str | Sequence[int] | None = None,
    strategy: str | None = None,
    max_trials: int | None = None,
    seed: int = 0,
) -> Result:
    """Do what `enable` does with `run=True`; None takes `[tool.neural_coder]` of the project, then the default.

    Args:
        say: Called with a short sentence whenever something new begins.
        script: See `enable`, as for all others.
        args: See `enable`.
        features: See `enable`.
        accuracy: See `enable`.
        metric: See `enable`.
        lower_is_better: See `enable`.
        budget: See `enable`.
        timeout: See `enable`.
        cwd: See `enable`.
        python: See `enable`.
        vendor: See `enable`.
        resume: See `enable`.
        mode: See `enable`.
        instances: See `enable`.
        cores_per_instance: See `enable`.
        threads: See `enable`.
        batch_size: See `enable`.
        strategy: See `enable`.
        max_trials: See `enable`.
        seed: See `enable`.
    """
    settings = config.load(script.resolve().parent)
    metrics = [metric] if isinstance(metric, str) else metric
    wanted = _features(features if features is not None else settings.features)
    request = replace(
        _request(script, args, settings, budget=budget, timeout=timeout, cwd=cwd, python=python),
        features=wanted,
        vendor=vendor,
        resume=resume,
        configurations=Wanted(
            mode=config.parse_mode(mode) if mode else settings.configurations.mode,
            instances=config.parse_number(instances) if instances is not None else settings.configurations.instances,
            cores_per_instance=(
                config.parse_number(cores_per_instance)
                if cores_per_instance is not None
                else settings.configurations.cores_per_instance
            ),
            threads=config.parse_numbers(threads) if threads is not None else settings.configurations.threads,
            batch_sizes=(
                config.parse_numbers(batch_size) if batch_size is not None else settings.configurations.batch_sizes
            ),
        ),
        tuning=_wish(strategy, max_trials, seed, searching=wanted is None),
        criterion=criteria.criterion(
            [criteria.parse_metric(text, Path.cwd()) for text in metrics] or settings.metrics,
            lower_is_better=lower_is_better if lower_is_better is not None else settings.lower_is_better,
            allowed=criteria.parse_accuracy(accuracy) if accuracy is not None else settings.accuracy,
        ),
    )
    done = engine.optimize(request, say)
    return Result(data=as_json.to_dict(done.report), patches=done.patches, base=done.base)


def observe(
    script: Path,
    *,
    args: Sequence[str],
    say: Say,
    budget: str | float | None = None,
    timeout: str | float | None = None,
    cwd: Path | None = None,
    python: Sequence[str | os.PathLike[str]] = (),
) -> dict[str, Any]:
    """Run a script once, and show where it builds and calls models: as its code says, and as the run shows.

    Args:
        script: Path of the script.
        args: Its arguments.
        say: Called with a short sentence whenever something new begins.
        budget: Time after which the script is stopped; what was seen until then is the result. See `enable`.
        timeout: See `enable`.
        cwd: See `enable`.
        python: See `enable`.

    Returns:
        The sites as plain data, in the documented JSON form.

    Raises:
        UserError: The script or an argument cannot be worked with.
        NothingMeasured: The script fails by itself.
    """
    settings = config.load(script.resolve().parent)
    request = _request(script, args, settings, budget=budget, timeout=timeout, cwd=cwd, python=python)
    merged, root = engine.observe(request, say)
    return as_json.observed_analysis_json(merged, root)


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """What was found, and the means to act on it."""

    data: dict[str, Any]
    """The whole result as plain data, in the documented JSON form; empty when nothing was run."""
    patches: tuple[Patch, ...]
    """The winner's change, one patch for each file."""
    base: Path
    """The folder that paths in the diff are relative to."""
    summary: str = ""

    def __repr__(self) -> str:
        """The table of all variants."""
        return text.result_text(self.data) if self.data else f"{self.summary}\n{self.diff}"

    @property
    def interrupted(self) -> bool:
        """Whether the search was left before its end, by Ctrl-C."""
        return self.data.get("ended") == "interrupted"

    @property
    def best(self) -> dict[str, Any] | None:
        """The chosen variant, as in `variants`; None when the script should stay as it is."""
        chosen = self.data.get("chosen")
        return next((variant for variant in self.variants if variant["id"] == chosen), None) if chosen else None

    @property
    def variants(self) -> list[dict[str, Any]]:
        """Every variant that was considered, also those that failed or did not apply."""
        return list(self.data.get("variants", ()))

    @property
    def diff(self) -> str:
        """The winner's change as a unified diff; empty when there is none."""
        return self.diff_bytes.decode("utf-8", "replace")

    @property
    def diff_bytes(self) -> bytes:
        """The diff in the files' own encodings, as `git apply` wants it."""
        return diff.join(patch.diff(self.base) for patch in self.patches)

    def apply(self) -> Path:
        """Change the files, all or none.

        Returns:
            A copy of the diff, kept in the user's state folder: `git apply -R` with it undoes the change.

        Raises:
            UserError: A file has changed since it was read, or cannot be written; then nothing is changed.
        """
        kept = _keep(self.diff_bytes, self.patches)
        repo.write_patches(self.patches)
        return kept

    def revert(self) -> None:
        """Give the files their original bytes back.

        Raises:
            UserError: A file is no longer as `apply` left it.
        """
        repo.revert_patches(self.patches)

    def to_json(self) -> str:
        """The whole result as JSON."""
        return as_json.dumps(self.data)


def _request(
    script: Path,
    args: Sequence[str],
    settings: config.Config,
    *,
    budget: str | float | None,
    timeout: str | float | None,
    cwd: Path | None,
    python: Sequence[str | os.PathLike[str]],
) -> Request:
    named = interpreters.parse(python)
    script_python = named.script or settings.python
    return Request(
        script=script,
        args=tuple(args),
        budget=config.parse_duration(budget) if budget is not None else settings.budget,
        timeout=config.parse_duration(timeout) if timeout is not None else settings.timeout,
        cwd=cwd or Path.cwd(),
        python=interpreters.interpreter(script_python) if script_python else config.default_python(),
        pythons={
            **{engine: interpreters.interpreter(path) for engine, path in settings.pythons.items()},
            **named.engines,
        },
    )


def _features(features: Features) -> tuple[Feature, ...] | None:
    if features == "auto":
        return None
    names = features.split(",") if isinstance(features, str) else features
    wanted = tuple(registry.parse_feature(name.strip()) for name in names if name.strip())
    if not wanted:
        raise UserError('No feature named; `neural-coder features` lists them, and "auto" searches.')
    return wanted


def _wish(strategy: str | None, max_trials: int | None, seed: int, *, searching: bool) -> Wish | None:
    """How to tune. Who gives features wants just these, unless they name a strategy, too."""
    if max_trials is not None and max_trials < 0:
        raise UserError(f"{max_trials} is not a number of trials; 0 switches tuning off.")
    if strategy is None and not searching:
        return None
    return Wish(
        strategy=strategy or DEFAULT_STRATEGY,
        max_trials=DEFAULT_TRIALS if max_trials is None else max_trials,
        seed=seed,
    )


def _keep(data: bytes, patches: Sequence[Patch]) -> Path:
    """Store the diff where it does not litter the user's tree."""
    folder = platformdirs.user_state_path("neural-coder") / "applied"
    stem = patches[0].before.path.stem if patches else "nothing"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{stem}-", suffix=".patch", dir=folder)
        os.close(handle)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}), so the change could not be kept for undoing; "
            "nothing was changed."
        ) from error
    write_bytes_atomically(Path(name), data)
    return Path(name)
