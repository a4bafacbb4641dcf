"""Diffs go through git, forwards and backwards, whatever the bytes are."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from neural_coder.diff import changed_blocks, join, quote, unified_diff

CASES = {
    "plain": (b"a\nb\nc\n", b"a\nB\nc\n"),
    "windows newlines": (b"a\r\nb\r\nc\r\n", b"a\r\nb\r\nnew\r\nc\r\n"),
    "mixed newlines": (b"a\r\nb\nc\rd\n", b"a\r\nb\nx\nc\rd\n"),
    "old mac newlines": (b"a\rb\rc", b"a\rb\rx\rc"),
    "tabs": (b"if x:\n\ta\n\tb\n", b"if x:\n\ta\n\tnew\n\tb\n"),
    "BOM": (b"\xef\xbb\xbfa\nb\n", b"\xef\xbb\xbfimport torch\na\nb\n"),
    "latin-1": (b"# -*- coding: latin-1 -*-\nx = '\xe9'\n", b"# -*- coding: latin-1 -*-\ny = 1\nx = '\xe9'\n"),
    "no final newline": (b"a\nb", b"a\nb\nc"),
    "final newline lost": (b"a\nb\n", b"a\nb"),
    "final newline won": (b"a\nb", b"a\nb\n"),
    "form feeds": (b"a\n\x0c\nb\n\x0cc\n", b"a\n\x0c\nB\n\x0cc\n"),
    "escapes in strings": (b'print(f"{x}\\n")\nmodel(x)\n', b'print(f"{x}\\n")\nwith a:\n    model(x)\n'),
    "other line ends of Unicode": ("a\x0b\u2028\x85\nb\n".encode(), "a\x0b\u2028\x85\nc\n".encode()),
    "from empty": (b"", b"a\n"),
    "to empty": (b"a\nb\n", b""),
    "first line": (b"a\nb\nc\nd\ne\nf\n", b"x\nb\nc\nd\ne\nf\n"),
    "far apart": (b"".join(b"%d\n" % i for i in range(50)), b"new\n" + b"".join(b"%d\n" % i for i in range(49))),
}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


def git(folder: Path, *arguments: str, data: bytes = b"") -> bytes:
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *arguments], cwd=folder, input=data, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def assert_goes_through_git(repo: Path, name: str, before: bytes, after: bytes) -> None:
    path = repo / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(before)
    diff = unified_diff(name, before, after)
    git(repo, "apply", "--check", data=diff)
    git(repo, "apply", data=diff)
    assert path.read_bytes() == after
    git(repo, "apply", "-R", data=diff)
    assert path.read_bytes() == before


@pytest.mark.parametrize("case", CASES, ids=str)
def test_git_applies_and_reverts(repo, case):
    before, after = CASES[case]
    if before and after:
        assert_goes_through_git(repo, "script.py", before, after)
    else:
        diff = unified_diff("script.py", before, after)
        assert b"@@ -0,0 +1 @@" in diff or b"@@ -1,2 +0,0 @@" in diff


@pytest.mark.parametrize(
    "name", ["a b.py", "söhne/モデル.py", 'quo"te.py', "tab\there.py", "back\\slash.py", "deep/er/x.py", " lead.py"]
)
def test_unusual_names_go_through_git(repo, name):
    assert_goes_through_git(repo, name, b"a\nb\n", b"a\nc\n")


def test_names_are_quoted_as_git_quotes_them(repo):
    assert quote("a b.py") == "a b.py"
    assert quote("ä.py") == '"\\303\\244.py"'
    name = 'ä"\\\t.py'
    (repo / name).write_bytes(b"a\n")
    git(repo, "add", "-A")
    (repo / name).write_bytes(b"b\n")
    assert git(repo, "diff").splitlines()[2].decode() == f"--- {quote('a/' + name)}"


def test_equal_files_have_no_diff():
    assert unified_diff("x.py", b"a\n", b"a\n") == b""


def test_the_diff_reads_as_that_of_git(repo):
    before = b"".join(b"line %d\n" % i for i in range(40))
    after = before.replace(b"line 7\n", b"line seven\n").replace(b"line 11\n", b"").replace(b"line 30\n", b"30\nx\n")
    (repo / "x.py").write_bytes(before)
    git(repo, "add", "-A")
    (repo / "x.py").write_bytes(after)
    lines = [line for line in git(repo, "diff").split(b"\n") if not line.startswith(b"index ")]
    theirs = [line.split(b" @@")[0] + b" @@" if line.startswith(b"@@") else line for line in lines]
    assert unified_diff("x.py", before, after).split(b"\n") == theirs


def test_joined_diffs_are_applied_together(repo):
    (repo / "a.py").write_bytes(b"1")
    (repo / "b.py").write_bytes(b"2\n")
    git(repo, "apply", data=join([unified_diff("a.py", b"1", b"one\n"), unified_diff("b.py", b"2\n", b"two\n")]))
    assert ((repo / "a.py").read_bytes(), (repo / "b.py").read_bytes()) == (b"one\n", b"two\n")


def test_random_changes_go_through_git(repo):
    dice = random.Random(4)
    for _ in range(40):
        before = [
            dice.choice([b"\n", b"x\n", b"y\r\n", b"%d\n" % dice.randrange(9)]) for _ in range(dice.randrange(1, 60))
        ]
        after = list(before)
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(after) + 1)
            after[at : at + dice.randrange(3)] = [b"new %d\n" % dice.randrange(3)] * dice.randrange(3)
        if after != before and after:
            assert_goes_through_git(repo, "x.py", b"".join(before), b"".join(after).rstrip(b"\n") or b"z")


def test_a_long_file_with_many_changes_takes_no_time(repo):
    """A diff over 64 KiB, on lines of which most occur thousands of times, hung the predecessor and difflib."""
    lines = [b"    )\n", b"\n", b"    x = f(\n", b"        1,\n"] * 5000
    before = b"".join(lines)
    after = b"".join(b"with torch.no_grad():\n" + line if index % 9 == 0 else line for index, line in enumerate(lines))
    started = time.process_time()
    diff = unified_diff("long.py", before, after)
    assert time.process_time() - started < 5
    assert len(diff) > 64 * 1024
    assert_goes_through_git(repo, "long.py", before, after)


def test_blocks_rebuild_the_new_text():
    dice = random.Random(1)
    for _ in range(200):
        a = [b"%d" % dice.randrange(6) for _ in range(dice.randrange(30))]
        b = [b"%d" % dice.randrange(6) for _ in range(dice.randrange(30))]
        rebuilt, position = [], 0
        for block in changed_blocks(a, b):
            rebuilt += [*a[position : block.a_from], *b[block.b_from : block.b_to]]
            position = block.a_to
        assert rebuilt + a[position:] == b
