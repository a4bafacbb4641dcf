"""`neural-coder env`: environments of their own for engines that are bound to another PyTorch than the user's."""

from __future__ import annotations

from pathlib import Path

import click

from neural_coder.progress import progress


@click.group()
def env() -> None:
    """Make, list and remove environments for engines that do not work with the PyTorch of your script."""


@env.command()
@click.argument("engine")
@click.option(
    "--path", type=click.Path(path_type=Path, file_okay=False), help="Its folder (default: in your data folder)."
)
@click.option(
    "--python", type=click.Path(path_type=Path), help="Interpreter to make it with (default: that of your scripts)."
)
@click.option(
    "--with",
    "packages",
    multiple=True,
    metavar="PACKAGES",
    help="What your scripts need besides, as for pip: 'transformers pillow==11.0'; may be given several times.",
)
@click.option(
    "--requirements",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The same from a requirements file.",
)
def create(
    engine: str, path: Path | None, python: Path | None, packages: tuple[str, ...], files: tuple[Path, ...]
) -> None:
    """Make the environment of ENGINE, or add packages to the one that is there.

    `optimize` then finds it by itself. pip is asked as you have configured it: where its index has a build of PyTorch
    for the CPU only (PIP_EXTRA_INDEX_URL), the environment is much smaller.
    """
    from neural_coder import config, environments, interpreters

    with progress() as say:
        made = environments.create(
            engine,
            path=path,
            python=interpreters.interpreter(python) if python else config.default_python(),
            packages=[package for words in packages for package in words.split()],
            files=files,
            say=say,
        )
    click.echo(environments.describe(made))


@env.command("list")
def list_() -> None:
    """List the environments that were made."""
    from neural_coder import environments

    found = environments.listed()
    for made in found:
        click.echo(environments.describe(made))
    if not found:
        click.echo("There are no environments; `neural-coder env create ENGINE` makes one.", err=True)


@env.command()
@click.argument("engine")
def remove(engine: str) -> None:
    """Remove the environment of ENGINE."""
    from neural_coder import environments

    with progress() as say:
        say(f"removing the environment of {engine}")
        folder = environments.remove(engine)
    click.echo(f"{folder} is removed.", err=True)
