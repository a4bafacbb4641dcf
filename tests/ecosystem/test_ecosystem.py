"""The survey goes on where it was; a file that hangs or kills its process costs only itself; the table tells all."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import ecosystem
import processes
import pytest
from examine import Finding

SCRIPT = "import torch\nmodel = torch.nn.Conv2d(3, 8, 3)\nout = model(x)\n"


@pytest.fixture
def folder(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.py").write_text(SCRIPT)
    (files / "b.py").write_text("print 'old'\n")
    (files / "c.py").write_bytes(b"import torch\n\xff\n")
    return files


def run(folder, *more: str) -> int:
    store = folder.parent / "store.jsonl"
    return ecosystem.main(["--only", "", "--folder", str(folder), "--store", str(store), "--jobs", "2", *more])


def test_a_survey_ends_with_a_table(folder, capsys):
    assert run(folder) == 0
    shown = capsys.readouterr().out
    assert "All promises are kept" in shown
    row = next(line for line in shown.splitlines() if line.startswith("files")).split()
    files, sites, patches, unread = row[1], row[4], row[5], row[7]
    assert (files, sites, unread) == ("3", "1", "2")
    assert int(patches) > 5
    assert "channels_last" in shown


def test_a_second_survey_looks_only_at_what_changed(folder):
    run(folder)
    store = folder.parent / "store.jsonl"
    first = store.read_text().splitlines()
    with store.open("a") as stream:
        stream.write('{"key": "cut off')
    run(folder)
    assert store.read_text().splitlines()[: len(first)] == first
    (folder / "b.py").write_text("x = 1\n")
    store.write_text("\n".join(first) + "\n")
    run(folder)
    after = store.read_text().splitlines()
    assert after[: len(first)] == first
    assert len(after) == len(first) + 1
    assert json.loads(after[-1])["unreadable"] == ""


def test_a_broken_promise_is_shown_and_counts(capsys):
    broken = Finding(lines=1, broken=["bf16: it does not compile"])
    assert ecosystem._summary({"some": [(Path("x.py"), broken), (Path("y.py"), Finding())]}) == 1
    assert "bf16: it does not compile" in capsys.readouterr().out
    assert ecosystem._summary({"some": [(Path("y.py"), Finding())]}) == 0


def answer(item: object) -> object:
    if item == "hang":
        time.sleep(60)
    if item == "die":
        os._exit(7)
    return [item]


def test_a_child_that_hangs_or_dies_costs_only_its_item():
    done = list(processes.run(answer, ["one", "hang", "die", "two"], jobs=1, limit=2))
    results = {each.item: each.result or each.failure for each in done}
    assert results["one"] == ["one"]
    assert results["two"] == ["two"]
    assert "longer than 2 seconds" in results["hang"]
    assert "code 7" in results["die"]
