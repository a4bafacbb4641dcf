"""The cache of converted models, as data and as text."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from neural_coder.errors import UserError
from neural_coder.records import SCHEMA_VERSION
from neural_coder.runtime import cache
from neural_coder.units import count, size


def as_data() -> dict[str, Any]:
    """The entries of the cache, the last used first."""
    entries = cache.listed()
    return {
        "schema": SCHEMA_VERSION,
        "folder": str(cache.folder()),
        "limit_bytes": cache.limit_bytes(),
        "bytes": sum(entry.bytes for entry in entries),
        "entries": [
            {
                "key": entry.key,
                "about": entry.about,
                "bytes": entry.bytes,
                "used": datetime.fromtimestamp(entry.used).astimezone().isoformat(timespec="seconds"),
            }
            for entry in entries
        ],
    }


def text(data: dict[str, Any]) -> str:
    """A line for each entry, then the total."""
    lines = [
        f"{entry['key'][:12]}  {size(entry['bytes']):>8}  {entry['used'][:16].replace('T', ' ')}  {entry['about']}"
        for entry in data["entries"]
    ]
    total = f"{count(len(lines), 'converted model')}, {size(data['bytes'])} of at most {size(data['limit_bytes'])}"
    return "\n".join([*lines, f"{total}, in {data['folder']}"])


def clear() -> dict[str, Any]:
    """Remove all entries.

    Raises:
        UserError: when something cannot be removed.
    """
    number = len(cache.listed())
    try:
        freed = cache.clear()
    except OSError as error:
        raise UserError(f"{error.filename or cache.folder()} cannot be removed: {error.strerror}.") from error
    return {"schema": SCHEMA_VERSION, "folder": str(cache.folder()), "removed": number, "freed_bytes": freed}


def cleared_text(data: dict[str, Any]) -> str:
    """What was removed, in one line."""
    return f"Removed {count(data['removed'], 'converted model')}, {size(data['freed_bytes'])}, from {data['folder']}"
