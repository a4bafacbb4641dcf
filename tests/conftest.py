"""What all tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from neural_coder.cli import main


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a test does reaches the user's own folders."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _own_recursion_limit() -> Iterator[None]:
    """Compilers raise the limit for the whole process; what nests too deeply for Python depends on it."""
    limit = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(limit)


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def neural_coder(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run the command line in this process."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        code: object = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        assert isinstance(code, int) or code is None
        return Done(exit_code=code or 0, stdout=out, stderr=err)

    return run
