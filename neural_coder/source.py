"""Reading and writing users' files without losing a byte.

Python's own rules decide the encoding (BOM, then coding line, then UTF-8). What decoding drops is remembered, so that
`encode` gives the original bytes back; files are replaced in one step, never written in place.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import os
import tempfile
import tokenize
from dataclasses import dataclass, replace
from pathlib import Path

from neural_coder.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One Python file: its text as the parsers see it, and what is needed to give the same bytes back."""

    path: Path
    text: str
    """Decoded, newlines as they are; without `prefix`."""
    encoding: str = "utf-8"
    prefix: str = ""
    """What stands before the text and means nothing to a parser: a BOM, form feeds. libcst drops both."""

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read a Python file.

        Args:
            path: The file.

        Returns:
            Its text and how it is stored.

        Raises:
            UserError: It is missing, unreadable, a folder, or not text in the encoding that it declares.
        """
        return cls.decode(read_bytes(path), path)

    @classmethod
    def decode(cls, data: bytes, path: Path) -> Source:
        """Decode the bytes of a Python file.

        Raises:
            UserError: They are not text in the encoding that the file declares.
        """
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            text = data.decode(encoding)
        except (SyntaxError, UnicodeError, LookupError) as error:
            raise UserError(f"{path} is not a Python text file: {error}.") from None
        if "\0" in text:
            raise UserError(f"{path} is not a Python text file: it holds a NUL byte.")
        prefix = ""
        if encoding == "utf-8-sig":
            encoding, prefix = "utf-8", codecs.BOM_UTF8.decode()
        rest = text.lstrip("\f")
        prefix += text[: len(text) - len(rest)]
        source = cls(path=path, text=rest, encoding=encoding, prefix=prefix)
        # Some codecs write the same text in several ways (UTF-7), or put a mark in front of it (UTF-16).
        if encoding != "utf-8" and source.encode() != data:
            raise UserError(f"{path}: its encoding, {encoding}, does not give the same bytes back.")
        return source

    @classmethod
    def from_text(cls, text: str, path: Path | str = "script.py") -> Source:
        """Take a text as a UTF-8 file that need not exist."""
        return cls.decode(text.encode(), Path(path))

    def encode(self) -> bytes:
        """The bytes of the file; equal to those read when the text is unchanged.

        Raises:
            UserError: The text holds a character that the file's encoding lacks.
        """
        try:
            return (self.prefix + self.text).encode(self.encoding)
        except UnicodeEncodeError as error:
            raise UserError(f"{self.path}: cannot be written as {self.encoding}: {error.reason}.") from None

    def with_text(self, text: str) -> Source:
        """The same file with another text."""
        return replace(self, text=text)

    @property
    def sha256(self) -> str:
        """Digest of the file's bytes."""
        return hashlib.sha256(self.encode()).hexdigest()


def read_bytes(path: Path) -> bytes:
    """Read a file that is meant to hold Python.

    Raises:
        UserError: It is missing, unreadable, or a folder.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a Python file in it.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Replace a file in one step; whoever reads it sees the old bytes or the new ones, and its mode stays.

    A symbolic link stays a link: the file behind it is replaced. What is no file (a pipe, `/dev/null`) is written to.

    Raises:
        UserError: The folder or the file cannot be written.
    """
    target = path.resolve()
    temporary: str | None = None
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
        mode = target.stat().st_mode & 0o7777 if target.exists() else None
        if mode is not None and not os.access(target, os.W_OK):
            raise PermissionError(13, "Permission denied")
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(mode if mode is not None else 0o666 & ~_umask())
        Path(temporary).replace(target)
        temporary = None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}. Nothing was changed.") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
