"""`neural-coder history` and `neural-coder reproduce`: what the store of trials holds, and one of them once more."""

from __future__ import annotations

from pathlib import Path

import click

from neural_coder.progress import progress


@click.command()
@click.argument("script", required=False, type=click.Path(path_type=Path))
@click.option("--trials", is_flag=True, help="Also list each trial: its number, purpose, variant, time per call.")
@click.option("--json", "json_", is_flag=True, help="As JSON, with all trials.")
def history(script: Path | None, trials: bool, json_: bool) -> None:
    """List the searches that were made (for SCRIPT): when, what was chosen, and their trials."""
    from neural_coder import history as past
    from neural_coder.report import as_json, history_text

    data = past.as_data(script)
    for note in data["notes"]:
        click.echo(f"neural-coder: {note}", err=True)
    click.echo(as_json.dumps(data) if json_ else history_text.text(data, trials=trials))


@click.command()
@click.argument("trial", type=click.IntRange(min=1))
@click.option("--print", "print_", is_flag=True, help="Only print the command; run nothing.")
@click.option("--json", "json_", is_flag=True, help="The figures as JSON, then and now.")
def reproduce(trial: int, print_: bool, json_: bool) -> None:
    """Print the one command that makes TRIAL again, and run it: the same patch, settings, interpreter and seed.

    `neural-coder history --trials` lists the numbers.
    """
    from neural_coder import history as past
    from neural_coder.report import as_json, history_text

    command = past.command(trial)
    if print_:
        click.echo(command)
        return
    click.echo(command, err=True)
    with progress() as say:
        data = past.reproduce(trial, say)
    click.echo(as_json.dumps(data) if json_ else history_text.reproduced_text(data))
