"""The command line. stdout carries the product (table, diff, JSON), stderr the talk.

Importing this module stays cheap: everything heavy is imported by the command that needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neural_coder import __version__
from neural_coder.cli_env import env
from neural_coder.cli_history import history, reproduce
from neural_coder.errors import NeuralCoderError, UserError
from neural_coder.progress import progress

if TYPE_CHECKING:
    from neural_coder.api import Result
    from neural_coder.filejobs import Options, Tick

_MOST_COMPLAINTS = 20
EXIT_CODES = """\b
Exit codes:
  0    fine (also: "keep your script, nothing is faster")
  1    `patch --check`: something would change
  2    the request or the script cannot be worked with; the message says why
  3    nothing could be measured (the script fails by itself, or no model call was reached)
  70   a defect of Neural Coder; nothing was changed
  130  interrupted; nothing was changed (`optimize` still shows the best that was verified so far)
"""
EXIT_INTERRUPTED = 130


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="neural-coder")
def cli() -> None:
    """Find the fastest variant of a PyTorch script that still gives the same answers.

    `neural-coder optimize train.py` runs the script in many variants, measures and verifies each, and hands back the
    winner as a small diff. Your files stay as they are until you say otherwise.
    """


_vendor = click.option(
    "--vendor", is_flag=True, help="Let the patch bring the runtime along: the script then runs without Neural Coder."
)


@cli.command(epilog=EXIT_CODES)
@click.argument("script", type=click.Path(path_type=Path))
@click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGS OF THE SCRIPT]")
@click.option(
    "--features",
    default=None,
    metavar="LIST",
    help="`auto` (default) to search, or a comma-separated list: bf16,channels_last.",
)
@click.option(
    "--accuracy",
    default=None,
    metavar="LOSS",
    help="Largest loss allowed: 1% (default) or 0.01; 0.5abs in your metric's own unit.",
)
@click.option(
    "--metric",
    multiple=True,
    metavar="NAME[:lower|higher][:LOSS]=REGEX|FILE.py:FUNCTION",
    help="Your metric: a pattern over the script's output whose first group is the value, or a function of its global "
    "names. May be given several times: all must be kept.",
)
@click.option("--lower-is-better", is_flag=True, default=None, help="Metrics are errors, not scores.")
@click.option("--budget", default=None, metavar="TIME", help="Time for the whole search: 10m (default), 90s, 1h.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the winning diff there."
)
@_vendor
@click.option("--apply", "apply_", is_flag=True, help="Change the files; the diff to undo it is kept.")
@click.option("--json", "json_", metavar="FILE", help="Write the result as JSON; `-` for standard output.")
@click.option(
    "--cwd",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Working directory of the script (default: the current one).",
)
@click.option(
    "--python",
    "python",
    multiple=True,
    metavar="[ENGINE=]PATH",
    help="Interpreter that runs the script, or the variants of one engine; may be given several times.",
)
@click.option("--timeout", default=None, metavar="TIME", help="Limit for one run of the script: 5m (default).")
@click.option(
    "--resume", is_flag=True, help="Go on with this search where it was left: after Ctrl-C, a crash, kill -9."
)
@click.option(
    "--mode",
    metavar="MODE",
    help="Also measure run configurations for `latency`, `throughput` or `multi-instance`, and say which is best.",
)
@click.option("--instances", type=int, metavar="N", help="Run configurations: so many processes at the same time.")
@click.option("--cores-per-instance", type=int, metavar="N", help="Run configurations: each bound to so many cores.")
@click.option("--threads", metavar="N,...", help="Run configurations: threads of each instance (default: its cores).")
@click.option("--batch-size", metavar="N,...", help="Run configurations: batch sizes, such as 1,8,32.")
@click.option(
    "--strategy",
    default=None,
    metavar="NAME",
    help="How fast but inaccurate variants are tuned: basic (default), mse, bayesian, sigopt, exhaustive, random.",
)
@click.option("--max-trials", type=click.IntRange(min=0), metavar="N", help="Trials for tuning: 20 (default); 0: none.")
@click.option("--seed", type=int, default=0, metavar="N", help="Of the strategy's random numbers.")
def optimize(
    script: Path,
    args: tuple[str, ...],
    output: Path | None,
    apply_: bool,
    json_: str | None,
    **options: Any,
) -> None:
    """Run SCRIPT in many variants, verify and measure each, and show the fastest one as a diff.

    Arguments of the script follow after `--`:  neural-coder optimize infer.py --budget 5m -- --images photos/
    """
    from neural_coder import api

    if output is not None:
        _check_writable(output)
    if json_ not in (None, "-"):
        _check_writable(Path(str(json_)))
    with progress() as say:
        result = api.optimize(script, args=args, say=say, **options)
    _show(result, to_stderr=json_ == "-")
    if output is not None and result.diff:
        _write(output, result.diff_bytes)
        click.echo(f"The diff is in {output}; apply it with `git apply` in {result.base}.", err=True)
    if apply_ and result.best is not None and not result.interrupted:
        undo = result.apply()
        click.echo(f"Applied. To undo: cd {result.base} && git apply -R {undo}", err=True)
    if json_ == "-":
        click.echo(result.to_json())
    elif json_ is not None:
        _write(Path(json_), result.to_json().encode() + b"\n")
        click.echo(f"The whole result is in {json_}.", err=True)
    if result.interrupted:
        raise SystemExit(EXIT_INTERRUPTED)


def _many_files(command: Callable[..., None]) -> Callable[..., None]:
    """The options of commands that work on many files."""
    options = (
        click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Processes; default: one for each core."),
        click.option("--no-cache", is_flag=True, help="Neither use nor keep what is known from earlier runs."),
        click.option("--file-timeout", metavar="TIME", help="Limit for one file: 60s (default)."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _one_run(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that may run a script once."""
    folder = click.Path(path_type=Path, exists=True, file_okay=False)
    options = (
        click.option(
            "--run", "run_", is_flag=True, help="Run the first PATH once; what follows it are the script's arguments."
        ),
        click.option("--budget", metavar="TIME", help="With --run: stop the script after this time."),
        click.option("--timeout", metavar="TIME", help="With --run: limit for the whole run, 5m (default)."),
        click.option("--python", multiple=True, metavar="PATH", help="With --run: interpreter of the script."),
        click.option("--cwd", type=folder, help="With --run: working directory of the script (default: the current)."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@cli.command(epilog=EXIT_CODES)
@click.argument("paths", nargs=-1, required=True, type=click.UNPROCESSED, metavar="PATH... [-- ARGS OF THE SCRIPT]")
@click.option("--json", "json_", metavar="FILE", help="Write the sites as JSON; `-` for standard output.")
@_many_files
@_one_run
def analyze(
    paths: tuple[str, ...],
    json_: str | None,
    jobs: int | None,
    no_cache: bool,
    file_timeout: str | None,
    run_: bool,
    **limits: Any,
) -> None:
    """Show where models are built, infer and train, and where programs start. Nothing is run, but with --run.

    A file that cannot be analysed never stops the others; the exit code is 2 when there is no file that could be, and
    70 when the failure was ours.

    With --run one script runs once, on a copy of its project, and all that it builds and calls is shown, also what
    no look at the code could find: neural-coder analyze infer.py --run -- --images photos/
    """
    from neural_coder.report import as_json, text
    from neural_coder.report.survey_text import survey_text

    if json_ not in (None, "-"):
        _check_writable(Path(str(json_)))
    if not run_ and any(value not in (None, ()) for value in limits.values()):
        raise UserError("--budget, --timeout, --python and --cwd belong to `analyze SCRIPT --run`: else nothing runs.")
    data, exit_code = _observed(paths, limits) if run_ else _surveyed(paths, jobs, no_cache, file_timeout)
    if json_ is None:
        shown = text.analysis_text if run_ else survey_text
        click.echo(shown(data, color=sys.stdout.isatty()), nl=False)
    elif json_ == "-":
        click.echo(as_json.dumps(data))
    else:
        _write(Path(json_), as_json.dumps(data).encode() + b"\n")
    raise SystemExit(exit_code)


@cli.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option(
    "--feature",
    "features",
    multiple=True,
    required=True,
    metavar="NAME[=VALUE]",
    help="What to switch on; may be given several times. `neural-coder features` lists them.",
)
@click.option("--write", is_flag=True, help="Change the files instead of printing the diff.")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 when something would change.")
@_vendor
@_many_files
def patch(
    paths: tuple[Path, ...],
    features: tuple[str, ...],
    write: bool,
    check: bool,
    vendor: bool,
    jobs: int | None,
    no_cache: bool,
    file_timeout: str | None,
) -> None:
    """Patch files, folders or whole repos without running anything; the diff goes to standard output."""
    from neural_coder import repo

    if write and check:
        raise UserError("--write and --check exclude each other: --check never changes a file.")
    with _file_progress() as tick:
        outcome = repo.patch_paths(paths, features, _options(jobs, no_cache, file_timeout, tick), with_runtime=vendor)
    for note in outcome.notes:
        click.echo(f"neural-coder: {note}", err=True)
    if write:
        outcome.write()
    elif not check:
        _print_bytes(outcome.diff)
    for item in outcome.patches:
        name = os.path.relpath(item.before.path)
        for change in item.changes:
            click.echo(f"{name}:{change.line}: {change.author}: {change.reason}", err=True)
    if not outcome.patches:
        click.echo("Nothing to change.", err=True)
    raise SystemExit(1 if check and outcome.patches else outcome.exit_code)


@cli.command()
@click.option("--json", "json_", is_flag=True, help="As JSON.")
def features(json_: bool) -> None:
    """List the features: what each does, for which scripts and hardware, and its risk."""
    from neural_coder.explain import describe_features
    from neural_coder.report import as_json, text

    data = describe_features()
    click.echo(as_json.dumps(data) if json_ else text.features_text(data, color=sys.stdout.isatty()))


@cli.command()
@click.argument("feature")
def explain(feature: str) -> None:
    """Explain one FEATURE: what it does, when it helps, what it risks, where that is documented."""
    from neural_coder import explain as explaining

    click.echo(explaining.explain(feature))


@cli.command()
@click.option(
    "--python",
    "python",
    multiple=True,
    metavar="[ENGINE=]PATH",
    help="Interpreter to look into, or that of one engine.",
)
@click.option("--json", "json_", is_flag=True, help="As JSON.")
def doctor(python: tuple[str, ...], json_: bool) -> None:
    """Show what this machine and its Python can do: CPU features, GPUs, memory, PyTorch and each engine."""
    from neural_coder import interpreters
    from neural_coder.doctor import diagnose
    from neural_coder.report import as_json, text

    with progress() as say:
        data = diagnose(interpreters.parse(python), say)
    click.echo(as_json.dumps(data) if json_ else text.doctor_text(data, color=sys.stdout.isatty()))


@cli.group()
def cache() -> None:
    """Converted models that are kept on disk, so that a second start of a patched script is quick."""


@cache.command("list")
@click.option("--json", "json_", is_flag=True, help="As JSON.")
def cache_list(json_: bool) -> None:
    """List the converted models: what they are, their size, their last use; then the total and the folder."""
    from neural_coder.report import as_json, cache_text

    data = cache_text.as_data()
    click.echo(as_json.dumps(data) if json_ else cache_text.text(data))


@cache.command("clear")
@click.option("--json", "json_", is_flag=True, help="As JSON.")
def cache_clear(json_: bool) -> None:
    """Remove all converted models; the next start of a patched script converts anew."""
    from neural_coder.report import as_json, cache_text

    data = cache_text.clear()
    click.echo(as_json.dumps(data) if json_ else cache_text.cleared_text(data))


for _command in (env, history, reproduce):
    cli.add_command(_command)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code.

    Args:
        args: Arguments; those of the process when None.
    """
    try:
        cli.main(args=list(args) if args is not None else None, prog_name="neural-coder", standalone_mode=False)
    except click.exceptions.Exit as end:
        raise SystemExit(end.exit_code) from None
    except (click.Abort, KeyboardInterrupt):
        click.echo("neural-coder: interrupted; your files are unchanged.", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except click.NoSuchOption as error:
        error.show()
        click.echo(
            "Options of your own script go behind `--`: neural-coder optimize script.py -- --its-option", err=True
        )
        raise SystemExit(error.exit_code) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except NeuralCoderError as error:
        click.echo(f"neural-coder: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); nothing is left to say to it.
        sys.stderr.close()
        raise SystemExit(0) from None


@contextmanager
def _file_progress() -> Iterator[Tick]:
    """Show how far the work on many files is: a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total, name: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda done, total, name: progress.update(task, completed=done, total=total, description=escape(name))


def _options(jobs: int | None, no_cache: bool, file_timeout: str | None, tick: Tick) -> Options:
    from neural_coder import config
    from neural_coder.filejobs import DEFAULT_LIMIT, Options

    limit = config.parse_duration(file_timeout) if file_timeout else DEFAULT_LIMIT
    return Options(jobs=jobs, cached=not no_cache, limit=limit, tick=tick)


def _surveyed(
    paths: Sequence[str], jobs: int | None, no_cache: bool, file_timeout: str | None
) -> tuple[dict[str, Any], int]:
    """What the code of files and folders says, and the exit code."""
    from neural_coder import survey
    from neural_coder.report import as_json

    with _file_progress() as tick:
        found = survey.survey([Path(path) for path in paths], _options(jobs, no_cache, file_timeout, tick))
    _complain([*(problem.message for problem in found.problems), *found.notes])
    return as_json.survey_json(found), found.exit_code


def _observed(words: Sequence[str], limits: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """What one run of a script (the first word, with the others as its arguments) shows, and the exit code."""
    from neural_coder import api

    with progress() as say:
        return api.observe(Path(words[0]), args=words[1:], say=say, **limits), 0


def _complain(sentences: Sequence[str]) -> None:
    """Say what went wrong, as long as anybody would read it."""
    different = list(dict.fromkeys(sentences))
    for sentence in different[:_MOST_COMPLAINTS]:
        click.echo(f"neural-coder: {sentence}", err=True)
    if len(different) > _MOST_COMPLAINTS:
        more = len(different) - _MOST_COMPLAINTS
        click.echo(f"neural-coder: {more} more of this kind; --json lists all.", err=True)


def _show(result: Result, *, to_stderr: bool) -> None:
    from neural_coder.report import text

    stream = sys.stderr if to_stderr else sys.stdout
    click.echo(text.result_text(result.data, color=stream.isatty()), err=to_stderr)
    if result.diff_bytes and not to_stderr:
        _print_bytes(result.diff_bytes)


def _print_bytes(data: bytes) -> None:
    """Diffs go out as bytes: the files they are for need not be UTF-8."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _check_writable(file: Path) -> None:
    """Find out before the work, not after it, that a result cannot be written."""
    folder = file.absolute().parent
    if not folder.is_dir():
        raise UserError(f"{file} cannot be written: the folder {folder} does not exist.")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise UserError(f"{file} cannot be written: permission denied.")


def _write(file: Path, data: bytes) -> None:
    from neural_coder.source import write_bytes_atomically

    write_bytes_atomically(file, data)


if __name__ == "__main__":
    main()
