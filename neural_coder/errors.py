"""The mistakes that Neural Coder reports by raising; each knows its exit code.

NeuralCoderError
├── UserError          something in the request or the user's script (exit code 2)
├── BackendMissing     an engine is not installed (exit code 2)
├── NothingMeasured    the script ran, but no figure could be formed (exit code 3)
└── InternalError      a defect of ours (exit code 70, as in sysexits.h)

Expected ends of a run (a crash, a time-out) are values, not exceptions: see `neural_coder.records.Ending`.
"""

from __future__ import annotations


class NeuralCoderError(Exception):
    """Base of everything that this package raises on purpose.

    The message is one or two plain sentences: what, where, what to do next.
    """

    exit_code = 2


class UserError(NeuralCoderError):
    """The request or the user's script cannot be worked with; the message says what to change."""


class BackendMissing(NeuralCoderError):
    """A library that the request needs is not installed; the message holds the command that installs it."""


class NothingMeasured(NeuralCoderError):
    """The script was run, but nothing could be measured (it failed by itself, or reached no model call)."""

    exit_code = 3


class InternalError(NeuralCoderError):
    """A promise of ours was about to be broken (an unsafe patch, say); nothing was changed."""

    exit_code = 70
