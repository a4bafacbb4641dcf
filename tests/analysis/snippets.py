"""Small scripts for tests: a header that builds a model, and what the analysis says of them."""

from __future__ import annotations

import textwrap
from pathlib import Path

from neural_coder.analysis import Project, analyze
from neural_coder.records import Analysis, Span

HEADER = "import torch\nfrom torch import nn\nmodel = nn.Sequential(nn.Linear(2, 2))\nx = torch.ones(1, 2)\n"


def facts_of(text: str, tmp_path: Path, *, header: str = HEADER) -> tuple[Analysis, str]:
    """What is known about a script, and its text."""
    path = tmp_path / "script.py"
    whole = header + textwrap.dedent(text)
    path.write_bytes(whole.encode())
    return analyze(path, Project(tmp_path)), whole


def text_at(text: str, span: Span | None) -> str:
    """The piece of a text that a span stands for."""
    assert span is not None
    lines = text.split("\n")
    if span.line == span.end_line:
        return lines[span.line - 1][span.column : span.end_column]
    middle = lines[span.line : span.end_line - 1]
    return "\n".join([lines[span.line - 1][span.column :], *middle, lines[span.end_line - 1][: span.end_column]])
