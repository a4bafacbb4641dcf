"""Converted models on disk: complete or not there, never too much, and the command that shows them."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from neural_coder.runtime import cache
from neural_coder.runtime.cache import Entry

KEYS = ["a" * 64, "b" * 64, "c" * 64]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    return cache.folder()


def write(content=b"weights", name="model.bin"):
    def into(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / name).write_bytes(content)

    return into


def kept(entry):
    return [(part / "deep" / "model.bin").read_bytes() for part in entry.parts()]


def test_a_part_is_found_again_by_its_key(root):
    entry = Entry(KEYS[0], "Small torch/bf16")
    assert kept(entry) == []
    part = entry.add(write())
    assert (part / "deep" / "model.bin").read_bytes() == b"weights"
    entry.add(write(b"more"))
    assert sorted(kept(Entry(KEYS[0], ""))) == [b"more", b"weights"]
    assert kept(Entry(KEYS[1], "")) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda part: (part / "deep" / "model.bin").write_bytes(b"weightz"),
        lambda part: (part / "deep" / "model.bin").write_bytes(b"weig"),
        lambda part: (part / "deep" / "model.bin").unlink(),
        lambda part: (part / "deep" / "more.bin").write_bytes(b"stranger"),
        lambda part: (part / "manifest.json").write_text("{"),
        lambda part: (part / "manifest.json").unlink(),
    ],
    ids=["changed", "cut", "missing", "more", "manifest", "no_manifest"],
)
def test_a_damaged_part_is_removed(root, damage):
    entry = Entry(KEYS[0], "")
    part = entry.add(write())
    damage(part)
    assert kept(Entry(KEYS[0], "")) == []
    assert not part.exists()
    entry.add(write(b"anew"))
    assert kept(Entry(KEYS[0], "")) == [b"anew"]


def test_what_fails_while_it_is_written_leaves_nothing_behind(root):
    def fail(folder):
        (folder / "half").write_bytes(b"half")
        raise RuntimeError("the engine failed")

    with pytest.raises(RuntimeError, match="the engine failed"):
        Entry(KEYS[0], "").add(fail)
    assert list(root.glob("*/*")) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_an_error_that_leaves_nothing_behind(root):
    def fill(folder):
        (folder / "file").write_bytes(b"some")
        (folder / "full").symlink_to("/dev/full")
        (folder / "full").write_bytes(b"too much")

    with pytest.raises(OSError, match="No space left"):
        Entry(KEYS[0], "").add(fill)
    assert list(root.glob("*/*")) == []


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|cannot find the path"):
        Entry(KEYS[0], "", root=tmp_path / "file").add(write())


def _add(root, number):
    Entry(KEYS[0], "shared", root=root).add(write(f"from {number}".encode()))


def test_processes_may_write_the_same_entry_at_once(root):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add, args=(root, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert sorted(kept(Entry(KEYS[0], ""))) == [b"from 0", b"from 1", b"from 2"]


def test_what_was_not_used_for_the_longest_time_goes_first(root, monkeypatch):
    for age, key in enumerate(KEYS[:2]):
        Entry(key, "").add(write(b"x" * 400_000))
        os.utime(root / key, (time.time() - 100 + age, time.time() - 100 + age))
    assert len(kept(Entry(KEYS[0], ""))) == 1  # used now
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "0.001")
    Entry(KEYS[2], "").add(write(b"x" * 400_000))
    assert {entry.key for entry in cache.listed()} == {KEYS[0], KEYS[2]}


def test_what_was_just_written_stays_even_beyond_the_limit(root, monkeypatch):
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "0.000001")
    entry = Entry(KEYS[0], "")
    entry.add(write(b"x" * 10_000))
    assert len(kept(entry)) == 1


def test_what_killed_processes_left_behind_goes_after_a_day(root):
    entry = Entry(KEYS[0], "")
    entry.add(write())
    old, new = root / KEYS[0] / "partial-old", root / KEYS[0] / "partial-new"
    for place in (old, new):
        place.mkdir()
    os.utime(old, (time.time() - 100_000, time.time() - 100_000))
    Entry(KEYS[1], "").add(write())
    assert kept(Entry(KEYS[0], "")) == [b"weights"]
    assert not old.exists()
    assert new.exists()


def test_a_limit_that_is_no_number_is_said_and_passed_over(root, monkeypatch, caplog):
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "much")
    assert cache.limit_bytes() == 8_000_000_000
    assert "NEURAL_CODER_CACHE_GB=much is no number" in caplog.text


def test_the_command_lists_what_is_kept(root, neural_coder):
    assert neural_coder("cache", "list").stdout == f"0 converted models, 0 B of at most 8.00 GB, in {root}\n"
    Entry(KEYS[0], "BertModel onnxruntime/int8_static").add(write(b"x" * 2000))
    Entry(KEYS[1], "ResNet openvino/fp32").add(write(b"x" * 1000))
    os.utime(root / KEYS[1], (0, 0))
    first, second, total = neural_coder("cache", "list").stdout.splitlines()
    assert first.startswith("aaaaaaaaaaaa   2.1")
    assert first.endswith("BertModel onnxruntime/int8_static")
    assert "1970-01-01" in second
    assert "2 converted models, 3." in total
    data = json.loads(neural_coder("cache", "list", "--json").stdout)
    assert [entry["about"] for entry in data["entries"]] == [
        "BertModel onnxruntime/int8_static",
        "ResNet openvino/fp32",
    ]
    assert data["folder"] == str(root)
    assert data["bytes"] == sum(entry["bytes"] for entry in data["entries"])


def test_the_command_clears_converted_models_and_nothing_else(root, neural_coder):
    Entry(KEYS[0], "").add(write(b"x" * 2000))
    (root / "notes").mkdir()
    (root.parent / "analyses.json").write_text("{}")
    result = neural_coder("cache", "clear")
    assert result.exit_code == 0
    assert result.stdout.startswith("Removed 1 converted model, 2.")
    assert [each.name for each in root.iterdir()] == ["notes"]
    assert (root.parent / "analyses.json").exists()
    assert json.loads(neural_coder("cache", "clear", "--json").stdout)["removed"] == 0
