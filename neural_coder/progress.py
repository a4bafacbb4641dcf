"""What the command line says while something goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show what is going on: a spinner on a terminal, a line for each step elsewhere.

    What is a whole sentence, with its full stop, stays on a terminal; the next step takes the place of all else.
    """
    if not sys.stderr.isatty():
        yield lambda message: click.echo(f"... {message}", err=True)
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    with console.status("starting") as status:
        yield (
            lambda message: (
                console.print(message, markup=False, highlight=False)
                if message.endswith(".")
                else status.update(escape(message))
            )
        )
