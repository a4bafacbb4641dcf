"""Pieces of text to put in, take out or replace, and how they are put together in one pass over the original."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Rank(enum.IntEnum):
    """What goes first among pieces at one offset."""

    BEHIND = 0
    """Lines that belong behind what stands before the offset."""
    ABOVE = 1
    """Lines that belong above what stands at the offset."""
    INDENT = 2
    """White space at the start of a line."""
    INSIDE = 3
    """Anything within a line."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Put `text` in the place of what stands from `start` to `end`."""

    start: int
    end: int
    text: str
    rank: Rank
    position: tuple[int, ...] = ()
    """Order among pieces of one offset and rank."""

    @property
    def key(self) -> tuple[int, int, int, tuple[int, ...]]:
        """Sorting key: the place, then the rank; of pieces that begin together, the longest first."""
        return (self.start, self.rank, -self.end, self.position)


def render(text: str, pieces: Iterable[Piece], start: int, end: int) -> str:
    """Write a stretch of a text with all pieces inside of it; pieces within a replaced stretch are left out."""
    parts: list[str] = []
    position = start
    for piece in sorted(pieces, key=lambda piece: piece.key):
        if piece.start < position or piece.end > end:
            continue
        parts += [text[position : piece.start], piece.text]
        position = piece.end
    return "".join([*parts, text[position:end]])
