"""Small projects to run in child processes."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

from neural_coder.bench.protocol import Job, Probe, Sampling
from neural_coder.records import Metric, Span

SHORT = Sampling(warmup=1, min_samples=3, max_samples=5, min_seconds=0.0, max_seconds=5.0)


def call_span(text: str, code: str, nth: int = 0) -> Span:
    """Where the nth call that reads like `code` stands."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and ast.unparse(node) == code]
    calls.sort(key=lambda node: (node.lineno, node.col_offset))
    lines = text.splitlines()

    def column(line: int, offset: int) -> int:
        return len(lines[line - 1].encode()[:offset].decode())

    node = calls[nth]
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return Span(
        line=node.lineno,
        column=column(node.lineno, node.col_offset),
        end_line=node.end_lineno,
        end_column=column(node.end_lineno, node.end_col_offset),
    )


class Project:
    """A folder with a script, and the job that runs it."""

    def __init__(self, root: Path, text: str, name: str = "main.py") -> None:
        self.root = root
        self.script = root / name
        self.probes: dict[Path, list[Probe]] = {}
        self.add(name, text)

    def add(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def probe(self, kind: str, code: str, *, file: str = "main.py", nth: int = 0) -> Project:
        """Watch a call."""
        path = self.root / file
        found = self.probes.setdefault(path, [])
        site = f"{file}:{kind}:{sum(probe.kind == kind for probe in found)}"
        span = call_span(path.read_text(encoding="utf-8"), code, nth)
        found.append(Probe(site=site, kind=kind, call=span))  # type: ignore[arg-type]
        return self

    def job(self, **settings: Any) -> Job:
        """The job, quick unless said otherwise; `pattern` is that of a metric."""
        if "pattern" in settings:
            settings["metrics"] = (Metric(name="seen", pattern=settings.pop("pattern")),)
        defaults: dict[str, Any] = {
            "python": Path(sys.executable),
            "script": self.script,
            "cwd": self.root,
            "root": self.root,
            "probes": {path: tuple(probes) for path, probes in self.probes.items()},
            "timeout": 60.0,
            "sampling": SHORT,
        }
        return Job(**{**defaults, **settings})

    def snapshot(self) -> dict[str, tuple[bytes | str, int]]:
        """Every file of the project: content and time of the last change."""
        return {
            str(path.relative_to(self.root)): (
                str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else "folder",
                path.lstat().st_mtime_ns,
            )
            for path in self.root.rglob("*")
        }
