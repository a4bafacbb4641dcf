r"""Unified diffs that `git apply` takes, in bytes.

Lines end at `\n` only, as they do for git: a `\r` or a form feed is part of its line. Lines that occur once in both
texts anchor the comparison (patience diff), which keeps it fast on long files where `difflib` alone is quadratic.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

CONTEXT = 3
_SMALL = 250_000
"""Gaps of at most this many line pairs are left to difflib."""
_ESCAPES = {
    0x07: "\\a", 0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0B: "\\v", 0x0C: "\\f", 0x0D: "\\r",
    0x22: '\\"', 0x5C: "\\\\",
}  # fmt: skip


class Block(NamedTuple):
    """Lines `a[a_from:a_to]` that were replaced by lines `b[b_from:b_to]`; either may be empty."""

    a_from: int
    a_to: int
    b_from: int
    b_to: int


def unified_diff(name: str, before: bytes | None, after: bytes) -> bytes:
    """Write the difference between two versions of a file as git does.

    Args:
        name: Path of the file relative to the folder in which the diff will be applied, with forward slashes.
        before: The old content; None for a new file.
        after: The new content.

    Returns:
        The diff with its headers; empty when nothing differs.
    """
    if before == after:
        return b""
    a, b = _lines(before or b""), _lines(after)
    blocks = changed_blocks(a, b)
    parts = [_header(name, is_new=before is None)]
    for group in _hunks(blocks):
        parts.extend(_hunk(group, a, b))
    return b"".join(parts)


def join(diffs: Iterable[bytes]) -> bytes:
    """Put the diffs of several files into one."""
    return b"".join(diffs)


def changed_blocks(a: Sequence[bytes], b: Sequence[bytes]) -> list[Block]:
    """Find what differs between two lists of lines, in order, neighbouring differences merged."""
    merged: list[Block] = []
    for block in _compare(a, b):
        last = merged[-1] if merged else None
        if last and last.a_to == block.a_from and last.b_to == block.b_from:
            merged[-1] = Block(last.a_from, block.a_to, last.b_from, block.b_to)
        else:
            merged.append(block)
    return merged


def quote(name: str) -> str:
    """Write a path as git does in a diff: in double quotes with octal escapes where it has unusual characters."""
    raw = os.fsencode(name)
    if all(0x20 <= byte < 0x7F and byte not in _ESCAPES for byte in raw):
        return name
    return '"' + "".join(_escape(byte) for byte in raw) + '"'


def _escape(byte: int) -> str:
    if byte in _ESCAPES:
        return _ESCAPES[byte]
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}"


def _lines(data: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _header(name: str, *, is_new: bool) -> bytes:
    old, new = quote(f"a/{name}"), quote(f"b/{name}")
    # git ends a name that holds a blank with a tab, else `patch` would take what follows the blank for a date.
    tail = "\t" if " " in name and not old.startswith('"') else ""
    left, mode = ("/dev/null", "new file mode 100644\n") if is_new else (f"{old}{tail}", "")
    return f"diff --git {old} {new}\n{mode}--- {left}\n+++ {new}{tail}\n".encode("ascii")


def _compare(a: Sequence[bytes], b: Sequence[bytes]) -> Iterator[Block]:
    """Yield the differing blocks, without recursion: gaps wait on a stack, the first one on top."""
    gaps = [Block(0, len(a), 0, len(b))]
    while gaps:
        gap = _trim(gaps.pop(), a, b)
        if gap.a_from == gap.a_to or gap.b_from == gap.b_to:
            if gap.a_from != gap.a_to or gap.b_from != gap.b_to:
                yield gap
            continue
        anchors = _anchors(gap, a, b)
        if anchors:
            gaps.extend(reversed(_between(gap, anchors)))
        elif (gap.a_to - gap.a_from) * (gap.b_to - gap.b_from) <= _SMALL:
            yield from _by_difflib(gap, a, b)
        else:
            yield gap


def _trim(gap: Block, a: Sequence[bytes], b: Sequence[bytes]) -> Block:
    """Take off the lines that both sides begin or end with."""
    a_from, a_to, b_from, b_to = gap
    while a_from < a_to and b_from < b_to and a[a_from] == b[b_from]:
        a_from, b_from = a_from + 1, b_from + 1
    while a_from < a_to and b_from < b_to and a[a_to - 1] == b[b_to - 1]:
        a_to, b_to = a_to - 1, b_to - 1
    return Block(a_from, a_to, b_from, b_to)


def _anchors(gap: Block, a: Sequence[bytes], b: Sequence[bytes]) -> list[tuple[int, int]]:
    """Pairs of lines that occur once on both sides: the longest run of them that keeps its order."""
    count_a, count_b = Counter(a[gap.a_from : gap.a_to]), Counter(b[gap.b_from : gap.b_to])
    where_b = {b[j]: j for j in range(gap.b_from, gap.b_to) if count_b[b[j]] == 1}
    pairs = [(i, where_b[a[i]]) for i in range(gap.a_from, gap.a_to) if count_a[a[i]] == 1 and a[i] in where_b]
    tails: list[int] = []
    tail_pairs: list[int] = []
    previous: list[int] = []
    for index, (_, j) in enumerate(pairs):
        place = bisect_left(tails, j)
        previous.append(tail_pairs[place - 1] if place else -1)
        tails[place : place + 1] = [j]
        tail_pairs[place : place + 1] = [index]
    chain: list[tuple[int, int]] = []
    index = tail_pairs[-1] if tail_pairs else -1
    while index >= 0:
        chain.append(pairs[index])
        index = previous[index]
    return chain[::-1]


def _between(gap: Block, anchors: list[tuple[int, int]]) -> list[Block]:
    starts = [(gap.a_from, gap.b_from), *((i + 1, j + 1) for i, j in anchors)]
    ends = [*anchors, (gap.a_to, gap.b_to)]
    return [Block(start[0], end[0], start[1], end[1]) for start, end in zip(starts, ends, strict=True)]


def _by_difflib(gap: Block, a: Sequence[bytes], b: Sequence[bytes]) -> Iterator[Block]:
    matcher = SequenceMatcher(None, a[gap.a_from : gap.a_to], b[gap.b_from : gap.b_to], autojunk=False)
    for tag, a_from, a_to, b_from, b_to in matcher.get_opcodes():
        if tag != "equal":
            yield Block(gap.a_from + a_from, gap.a_from + a_to, gap.b_from + b_from, gap.b_from + b_to)


def _hunks(blocks: list[Block]) -> Iterator[list[Block]]:
    """Group blocks whose contexts touch."""
    group: list[Block] = []
    for block in blocks:
        if group and block.a_from - group[-1].a_to > 2 * CONTEXT:
            yield group
            group = []
        group.append(block)
    if group:
        yield group


def _hunk(group: list[Block], a: list[bytes], b: list[bytes]) -> Iterator[bytes]:
    first, last = group[0], group[-1]
    lead = min(CONTEXT, first.a_from)
    trail = min(CONTEXT, len(a) - last.a_to)
    a_range = _range(first.a_from - lead, last.a_to + trail)
    b_range = _range(first.b_from - lead, last.b_to + trail)
    yield f"@@ -{a_range} +{b_range} @@\n".encode("ascii")
    position = first.a_from - lead
    for block in group:
        yield from _marked(b" ", a[position : block.a_from])
        yield from _marked(b"-", a[block.a_from : block.a_to])
        yield from _marked(b"+", b[block.b_from : block.b_to])
        position = block.a_to
    yield from _marked(b" ", a[position : position + trail])


def _range(start: int, stop: int) -> str:
    """A hunk's line range; an empty one names the line before it."""
    length = stop - start
    return f"{start if length == 0 else start + 1}" + ("" if length == 1 else f",{length}")


def _marked(mark: bytes, lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield mark + line
        if not line.endswith(b"\n"):
            yield b"\n\\ No newline at end of file\n"
