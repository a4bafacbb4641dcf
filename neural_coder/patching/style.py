"""Inserted code looks like the code around it: the file's quotes, and black's layout where black laid out the file."""

from __future__ import annotations

import functools
import logging
import sys
import tokenize
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

if TYPE_CHECKING:
    import black

log = logging.getLogger(__name__)


def requote(code: str, quote: str) -> str:
    """Write plain strings of a piece of code with another quote.

    Args:
        code: The code, on one or more lines.
        quote: `'` or `"`; empty: leave them.
    """
    other = {"'": '"', '"': "'"}.get(quote, "")
    if not other or other not in code:
        return code
    # In parentheses, the tokenizer does not mind how the lines of an expression are indented.
    lines = f"({code}\n)".splitlines(keepends=True)
    for token in reversed(list(tokenize.generate_tokens(iter(lines).__next__))):
        plain = token.type == tokenize.STRING and token.string[0] == other and token.start[0] == token.end[0]
        if plain and not any(found in token.string[1:-1] for found in (quote, other, "\\")):
            row, line = token.start[0] - 1, lines[token.start[0] - 1]
            lines[row] = line[: token.start[1]] + quote + token.string[1:-1] + quote + line[token.end[1] :]
    return "".join(lines)[1:-2]


def reformat(path: Path, before: str, after: str) -> str:
    """Lay out a patched text with black if black had laid out the original; else leave it.

    Args:
        path: The file; the nearest `pyproject.toml` above it with a `[tool.black]` table counts.
        before: The original text. Since black changes nothing in it, what it changes in the new one is near the edits.
        after: The patched text.
    """
    newline = "\r\n" if "\r\n" in before else "\n"
    plain_before, plain_after = before.replace(newline, "\n"), after.replace(newline, "\n")
    if "\r" in plain_before or (newline == "\r\n" and plain_before.count("\n") != before.count("\r\n")):
        return after
    if not plain_before.endswith("\n") or "\n\t" in plain_before:
        return after  # black would not leave it so; asking black takes seconds on a long file
    import black
    from black.parsing import InvalidInput

    try:
        mode = _mode(path)
        if not _left_alone(plain_before, _Settings(mode.get_cache_key(), mode)):
            return after
        return black.format_str(plain_after, mode=mode).replace("\n", newline)
    except (InvalidInput, ValueError, TypeError, tomllib.TOMLDecodeError) as error:
        log.debug("%s is not laid out by black: %s", path, error)
        return after


@dataclass(frozen=True)
class _Settings:
    """Black's settings, equal when they say the same."""

    key: str
    mode: black.Mode = field(compare=False)


@functools.lru_cache(maxsize=32)
def _left_alone(text: str, settings: _Settings) -> bool:
    """Whether black changes nothing in a text; many variants of one script ask for the same one."""
    import black

    return bool(black.format_str(text, mode=settings.mode) == text)


def _mode(path: Path) -> black.Mode:
    """Black's settings for a file.

    Raises:
        tomllib.TOMLDecodeError: The project's settings cannot be read.
    """
    import black

    for folder in path.absolute().parents:
        settings = folder / "pyproject.toml"
        if settings.is_file():
            table = tomllib.loads(settings.read_text(encoding="utf-8")).get("tool", {}).get("black")
            if table is not None:
                return _mode_from({name.replace("-", "_"): value for name, value in table.items()})
    return black.Mode()


def _mode_from(table: dict[str, object]) -> black.Mode:
    import black
    from black.mode import TargetVersion

    versions = table.get("target_version", [])
    assert isinstance(versions, list)
    return black.Mode(
        target_versions={TargetVersion[str(version).upper()] for version in versions},
        line_length=int(str(table.get("line_length", black.Mode().line_length))),
        string_normalization=not table.get("skip_string_normalization", False),
        magic_trailing_comma=not table.get("skip_magic_trailing_comma", False),
        preview=bool(table.get("preview", False)),
        unstable=bool(table.get("unstable", False)),
    )
