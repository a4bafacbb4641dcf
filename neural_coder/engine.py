"""The main job: from a script to a report, and the static jobs (analyze, patch) on files and folders."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from neural_coder import (
    candidate,
    config,
    criteria,
    identity,
    interpreters,
    journal,
    observed,
    planner,
    registry,
    sweep,
)
from neural_coder.analysis import Project, analyze_script
from neural_coder.bench import kernels, machine, pace, runner, stats
from neural_coder.bench.protocol import Job
from neural_coder.candidate import Candidate, Refusal
from neural_coder.configurations import Wanted, configurations
from neural_coder.diff import join
from neural_coder.errors import BackendMissing, NothingMeasured, UserError
from neural_coder.files import git_root
from neural_coder.interpreters import Installed
from neural_coder.observed import Merged
from neural_coder.patching import Patch
from neural_coder.race import Bench, Clock, Race, Result, Say
from neural_coder.records import Analysis, Criterion, Feature, Observation, Plan, Run, Status, Task, Verdict
from neural_coder.report.model import Report
from neural_coder.tuning.outcome import Wish
from neural_coder.tuning.tuner import Tuner, check
from neural_coder.units import ratio
from neural_coder.vendoring import vendor

DEFAULT_BUDGET = 600.0
DEFAULT_TIMEOUT = 300.0
SHARE_OF_TIMEOUT = 0.9
"""After this share of the time limit a run that only observes is stopped, so that it can still report."""
CPU_INSTEAD = Feature(name="cuda_to_cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user wants optimized, and how."""

    script: Path
    args: tuple[str, ...] = ()
    features: tuple[Feature, ...] | None = None
    """None: search."""
    criterion: Criterion = field(default_factory=Criterion)
    budget: float = DEFAULT_BUDGET
    timeout: float = DEFAULT_TIMEOUT
    cwd: Path
    python: Path
    pythons: Mapping[str, Path] = field(default_factory=dict)
    """By engine: another interpreter that the user has named for it."""
    vendor: bool = False
    """Whether the patch brings a copy of the runtime along."""
    resume: bool = False
    """Go on with the same search where it was left, if it was."""
    configurations: Wanted = field(default_factory=Wanted)
    """Run configurations to measure the original and the best variants in."""
    tuning: Wish | None = None
    """How variants that lose too much are tuned; None: not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimized:
    """The end of the main job: everything that was found, and the winner's patches."""

    report: Report
    patches: tuple[Patch, ...]
    base: Path
    """The folder that the diff's paths are relative to."""


def optimize(request: Request, say: Say) -> Optimized:
    """Search for the fastest variant of a script that still gives the same answers.

    Args:
        request: The script and the limits of the search.
        say: Called with a short sentence whenever something new begins.

    Raises:
        UserError: The script or the request cannot be worked with.
        BackendMissing: PyTorch is not installed where the script runs.
        NothingMeasured: The script fails by itself, or reaches no model call.
    """
    asked = configurations(request.configurations, machine.usable_cores()) if request.configurations.anything else ()
    clock = Clock(budget=request.budget * (1 - sweep.SHARE if asked else 1))
    tuner = Tuner(request.tuning or Wish(max_trials=0), lambda plan: candidate.build(plan, project, analyses))
    if request.tuning is not None:
        check(request.tuning)
    say("reading the script")
    project = Project.find(request.script, request.python)
    analyses = analyze_script(request.script, project)
    _check_sites(request.script, analyses)
    installed = _installed(request, project, analyses)
    hardware = machine.describe_machine().as_dict()
    known_by = identity.known_by(request, project, hardware, installed)
    with journal.begin(identity.columns(request, hardware), known_by, clock, say, resume=request.resume) as kept:
        bench = Bench(
            job=_job(request, project, analyses),
            folder=kept.folder,
            criterion=request.criterion,
            pythons=installed.pythons,
            run=kept.run,
            run_together=kept.run_together,
        )
        ground = _ground(request, bench, project, analyses, installed.script, say)
        ratios = _kernels(request, installed, say)
        plans = _plans(request, ground, installed, ratios)
        candidates, refused = _candidates(plans, project, analyses)
        race = Race(
            bench=ground.bench,
            task=ground.task,
            first=ground.first,
            control=ground.control,
            clock=clock,
            say=say,
            promise=lambda plan: 1.0 if request.features else planner.promise(plan, ratios),
            tune=tuner,
        )
        found = race.run_or_stop(candidates)
        candidates += tuner.candidates
        plans = (*plans, *(item.plan for item in tuner.candidates))
        swept = None
        if asked and found.ended != "interrupted":
            sweeper = sweep.Sweeper(
                bench=ground.bench,
                task=ground.task,
                first=ground.first,
                control=ground.control,
                project=project,
                analyses=analyses,
                always=(CPU_INSTEAD,) if ground.moved else (),
                clock=kept.follow(Clock(budget=max(request.budget * sweep.SHARE, request.budget - clock.used))),
                say=say,
            )
            swept = sweeper.run(request.configurations.mode, asked, _finalists(request, found, candidates))
            if sweep.INTERRUPTED in swept.notes:
                found = replace(found, ended="interrupted")
        kept.answer(found)
    winner = found.candidate or ground.moved
    patches = winner.patches if winner else ()
    if request.vendor:
        patches = vendor(patches, request.script.resolve().parent)
    merged = _merged(project, analyses, ground)
    base = git_root(project.root) or project.root
    diffs = {item.plan.id: item.diff(base).decode("utf-8", "surrogateescape") for item in candidates}
    report = Report(
        script=str(request.script),
        args=request.args,
        root=project.root,
        machine=hardware,
        versions=ground.first.versions,
        analyses=merged.analyses if merged and not ground.moved else analyses,
        observed=merged,
        criterion=request.criterion,
        baseline=found.baseline,
        verdicts=tuple(
            replace(verdict, diff=diffs.get(verdict.plan.id, "")) for verdict in (*found.verdicts, *refused)
        ),
        reproduce={plan.id: _reproduce(request, plan) for plan in plans},
        pythons={plan.id: installed.pythons[plan.backend] for plan in plans if plan.backend in installed.pythons},
        chosen=found.chosen.plan.id if found.chosen else None,
        confirmed=found.confirmed,
        diff=join(patch.diff(base) for patch in patches).decode("utf-8", "surrogateescape"),
        sweep=swept,
        notes=(*_notes(ground, found.baseline), *tuner.notes),
        tuning=tuple(tuner.found),
        seconds=clock.used,
        search=kept.search,
        ended=found.ended,
        evidence=found.evidence,
    )
    return Optimized(report=report, patches=patches, base=base)


def observe(request: Request, say: Say) -> tuple[Merged, Path]:
    """Run a script once as it is, only to see where it builds and calls models.

    Args:
        request: The script; after its budget (or short of its time limit) the script is stopped.
        say: Called with a short sentence whenever something new begins.

    Returns:
        The sites of its files, merged with what was seen, and the folder that their paths are relative to.

    Raises:
        UserError: The script cannot be read.
        BackendMissing: PyTorch is not installed where the script runs.
        NothingMeasured: It fails by itself.
    """
    say("reading the script")
    project = Project.find(request.script, request.python)
    analyses = analyze_script(request.script, project)
    say("running the script once")
    run = runner.run(
        replace(
            _job(request, project, analyses),
            probes=observed.probes_to_see(analyses, project.root),
            metrics=(),
            observe=True,
            to_the_end=True,
            stop_after=min(request.budget, SHARE_OF_TIMEOUT * request.timeout),
        )
    )
    if run.ending.kind == "unusable":
        raise BackendMissing(f"{run.ending.message} Name the interpreter that runs your script with --python.")
    if not run.ok:
        raise NothingMeasured(_why_baseline_failed(request, run))
    seen = run.observed or Observation(seconds=run.wall_seconds)
    return observed.merge(analyses, seen, project.root, complete=run.ended_by_itself), project.root


def build_patches(script: Path, features: Sequence[Feature]) -> tuple[Plan, tuple[Patch, ...], Path]:
    """Patch a script and the files it imports with given features, without running anything.

    Returns:
        The plan, one patch for each file that changes, and the folder that the diff's paths are relative to.

    Raises:
        UserError: The features exclude each other or do not apply to this script; the message says why.
    """
    project = Project.find(script)
    analyses = analyze_script(script, project)
    _check_sites(script, analyses)
    task: Task = "training" if any(facts.steps for facts in analyses) else "inference"
    plan = planner.plan_for(features, task)
    built = candidate.build(plan, project, analyses)
    if isinstance(built, Refusal):
        raise UserError(f"{script}: {built.reason}.")
    return plan, built.patches, git_root(project.root) or project.root


def _check_sites(script: Path, analyses: Sequence[Analysis]) -> None:
    if any(facts.models or facts.inference or facts.training for facts in analyses):
        return
    others = [facts.path.name for facts in analyses[1:]]
    files = f"{script} and the files it imports ({', '.join(others)})" if others else str(script)
    unclear = [f"{facts.path.name}:{item.line} {item.reason}" for facts in analyses for item in facts.unclear]
    hint = f" Unclear: {'; '.join(unclear[:3])}." if unclear else ""
    raise UserError(
        f"No PyTorch model found in {files}: looked for modules that are built (torch.nn, torchvision, timm, "
        "transformers, classes of your own), for calls of them, and for training steps (backward, optimizer.step)."
        f"{hint} What a run of it reaches is shown by: neural-coder analyze {script} --run"
    )


def _installed(request: Request, project: Project, analyses: Sequence[Analysis]) -> Installed:
    """What there is to run the script and its variants with."""
    needed = interpreters.imported([project.source(facts.path).text for facts in analyses])
    installed = interpreters.look(request.python, request.pythons, needed=needed)
    if not installed.script.usable("torch"):
        raise BackendMissing(
            f"PyTorch is not installed for {request.python}: `{request.python} -m pip install torch`, or name the "
            "interpreter that runs your script with --python. (`analyze` and `patch` work without it.)"
        )
    return installed


def _job(request: Request, project: Project, analyses: Sequence[Analysis]) -> Job:
    return Job(
        python=request.python,
        script=request.script.resolve(),
        args=request.args,
        cwd=request.cwd.resolve(),
        root=project.root,
        probes=candidate.probes(analyses, project.root),
        marks=observed.marks(analyses, project.root),
        timeout=request.timeout,
        metrics=request.criterion.metrics,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What variants are compared with."""

    bench: Bench
    first: Run
    control: Run
    task: Task
    moved: Candidate | None = None
    """The script needs a GPU that is not here: its CPU version, which then stands in for the original."""


def _ground(
    request: Request,
    bench: Bench,
    project: Project,
    analyses: tuple[Analysis, ...],
    environment: machine.Environment,
    say: Say,
) -> _Ground:
    """Run the original twice: the first run must work, the second shows how far it differs from itself."""
    say("running the original")
    first = bench.first_baseline()
    moved = None
    if first.ending.kind == "crashed" and not environment.cuda and any(facts.devices for facts in analyses):
        built = candidate.build(planner.plan_for([CPU_INSTEAD], "inference"), project, analyses)
        if isinstance(built, Candidate):
            say("the original needs a GPU; running it on the CPU instead")
            moved = built
            marks = observed.marks(_files_of(moved, project, analyses), project.root)
            bench = replace(bench, job=replace(bench.job, patched=moved.patched, probes=moved.probes, marks=marks))
            first = bench.first_baseline()
    if not first.ok:
        raise NothingMeasured(_why_baseline_failed(request, first))
    task = stats.task_of(first)
    if task is None:
        raise NothingMeasured(
            f"{request.script} ran, but no model call that could be timed was reached{_observed(first)}."
        )
    for metric, found in zip(request.criterion.metrics, first.metrics, strict=True):
        if found.value is None:
            raise UserError(f"{request.script} gives no value for the metric {metric.name}: {found.problem}.")
    say("running the original again, to see how far it differs from itself")
    control = bench.control()
    if not control.ok:
        raise NothingMeasured(
            f"{request.script} worked once and failed when it was run again: {control.ending.message}\n"
            f"{control.ending.stderr_tail}".rstrip()
        )
    return _Ground(bench=bench, first=first, control=control, task=task, moved=moved)


def _why_baseline_failed(request: Request, run: Run) -> str:
    ending = run.ending
    tail = f"\n{ending.stderr_tail}".rstrip()
    match ending.kind:
        case "timed_out":
            return (
                f"{request.script} reached no measurable model call within {request.timeout:g} s{_observed(run)}; "
                f"give it more with --timeout, or smaller inputs.{tail}"
            )
        case "no_calls":
            return (
                f"{request.script} ran to its end without reaching a model call that was found{_observed(run)}.{tail}"
            )
        case "crashed" if ending.code == 2 and "usage:" in ending.stderr_tail:
            return f"{request.script} needs other arguments; put them behind `--`. Its own message:{tail}"
        case _:
            return f"{request.script} fails by itself, unchanged; it must work first. {ending.message}{tail}"


def _observed(run: Run) -> str:
    calls = [] if run.observed is None else [call for call in run.observed.calls if call.frames and not call.probed]
    if not calls:
        return ""
    places = dict.fromkeys(f"{call.frames[0].path}:{call.frames[0].line} {call.name}" for call in calls)
    return f"; model calls were seen at {', '.join(list(places)[:3])}, which the analysis did not find"


def _files_of(moved: Candidate | None, project: Project, analyses: tuple[Analysis, ...]) -> tuple[Analysis, ...]:
    """The facts on the files that the baseline runs."""
    if moved is None:
        return analyses
    overlay = {patch.before.path: patch.after for patch in moved.patches}
    return analyze_script(analyses[0].path, project.with_overlay(overlay))


def _merged(project: Project, analyses: tuple[Analysis, ...], ground: _Ground) -> Merged | None:
    """The sites with what the first run of the original has shown of them."""
    first = ground.first
    if first.observed is None:
        return None
    facts = _files_of(ground.moved, project, analyses)
    return observed.merge(facts, first.observed, project.root, complete=first.ended_by_itself)


def _kernels(request: Request, installed: Installed, say: Say) -> Mapping[str, float]:
    """What a search is ordered by: how fast this machine multiplies in lower precision."""
    # On a GPU other kernels decide.
    if request.features is not None or installed.script.cuda:
        return {}
    say("looking at what this machine's kernels reach")
    return kernels.known(installed.script).ratios


def _plans(request: Request, ground: _Ground, installed: Installed, ratios: Mapping[str, float]) -> tuple[Plan, ...]:
    always = (CPU_INSTEAD,) if ground.moved else ()
    if request.features is not None:
        wanted = [feature for feature in always if feature not in request.features]
        return (planner.plan_for([*wanted, *request.features], ground.task),)
    available = {name: installed.why_skipped(name) for name in registry.backends()}
    plans = planner.automatic_plans(
        ground.task, available=available, always=always, gpu=installed.script.cuda, kernels=ratios
    )
    return tuple(planner.fitted(plan, ground.first) for plan in plans)


def _candidates(
    plans: Sequence[Plan], project: Project, analyses: Sequence[Analysis]
) -> tuple[list[Candidate], list[Verdict]]:
    built: list[Candidate] = []
    refused: list[Verdict] = []
    for plan in plans:
        if plan.skipped:
            refused.append(Verdict(plan=plan, status="skipped", reason=plan.skipped))
            continue
        outcome = candidate.build(plan, project, analyses)
        if isinstance(outcome, Candidate):
            built.append(outcome)
        else:
            status: Status = "failed" if outcome.ours else "skipped"
            refused.append(Verdict(plan=plan, status=status, reason=outcome.reason))
    return built, refused


def _finalists(request: Request, found: Result, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The variants that are worth measuring in other run configurations, the chosen one first."""
    proven = [
        each
        for each in found.verdicts
        if each.rounds >= stats.MINIMUM_ROUNDS
        and each.speedup is not None
        # What was asked for by name is shown, whether it is faster here or not.
        and each.status in (("faster",) if request.features is None else ("faster", "same", "slower"))
    ]
    proven.sort(key=lambda each: (each is not found.chosen, -each.speedup.median if each.speedup else 0.0))
    by_id = {item.plan.id: item for item in candidates}
    return [by_id[each.plan.id] for each in proven[: sweep.MOST_VARIANTS]]


def _reproduce(request: Request, plan: Plan) -> str:
    command = ["neural-coder", "optimize", str(request.script), "--features", ",".join(map(str, plan.features))]
    for metric in request.criterion.metrics:
        command += ["--metric", criteria.as_option(metric)]
    command += ["--accuracy", f"{request.criterion.relative_loss:g}"]
    command += ["--python", str(request.python)] if request.python != config.default_python() else []
    named = request.pythons.get(plan.backend)
    command += ["--python", f"{plan.backend}={named}"] if named else []
    return shlex.join([*command, *(["--", *request.args] if request.args else [])])


def _notes(ground: _Ground, baseline: Sequence[Run]) -> tuple[str, ...]:
    """What the reader should know besides the table."""
    notes = []
    if ground.moved:
        notes.append(
            "The script needs a GPU, and there is none here: variants are compared with its CPU version (cuda_to_cpu)."
        )
    busy = max((run.disturbed for run in baseline), default=0.0)
    if busy > stats.BUSY:
        notes.append(
            f"The machine was busy: for {busy:.0%} of the time the script waited for a core. Close other programs and "
            "run again for narrower intervals."
        )
    if (apart := pace.difference([run for run in baseline if run.ok])) > stats.UNSTEADY:
        notes.append(
            f"The processor was up to {ratio(1 + apart)} as fast in some runs of the original as in others, as where "
            "cores are shared with other machines. Speed-ups are corrected for that where both sides have met the same "
            "speeds; times are as they were."
        )
    return tuple(notes)
