"""All that an analysis learns from the file system it must learn through `Project`, which notes it for the cache."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from neural_coder import analysis

DOORS = {"project.py", "folders.py", "footprint.py", "catalogue_data.py"}
"""`catalogue_data.py` reads our own file; `infer.py` asks about packages, which the cache knows as a whole."""
LOOKS = {
    "exists", "is_file", "is_dir", "iterdir", "glob", "rglob", "scandir", "listdir", "stat", "lstat",
    "read_text", "read_bytes", "open",
}  # fmt: skip
FILES = sorted(file for file in Path(analysis.__file__).parent.glob("*.py") if file.name not in DOORS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_other_module_of_the_analysis_looks_at_files(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            assert name not in LOOKS or owner.endswith("project"), f"{file.name}:{node.lineno} calls {owner}.{name}"
