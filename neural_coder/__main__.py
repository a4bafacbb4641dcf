"""`python -m neural_coder`: the command line; `python -m neural_coder script.py args` optimizes that script."""

from __future__ import annotations

import sys

from neural_coder.cli import main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments and arguments[0].endswith(".py"):
        script, *rest = arguments
        arguments = ["optimize", script, "--", *rest]
    main(arguments)
