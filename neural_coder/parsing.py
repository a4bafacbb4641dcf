"""What parsing other people's code takes: silence about odd escapes in their strings, and room for deep nesting."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator

LIMIT = 6000
"""Frames; our walks take several for each level of a tree. What Python can import fits well within them."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the compiler's warnings about users' code to itself, also where warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@contextlib.contextmanager
def deep_recursion() -> Iterator[None]:
    """Let functions call each other deeper than Python usually allows."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, LIMIT))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
