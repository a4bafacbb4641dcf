"""What goes wrong is said once, and the original answers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from promised import Variant, each_engine, each_keeping, each_variant, is_close, original, small  # noqa: E402
from torch import nn  # noqa: E402

from neural_coder.runtime import AccelerationError, AccelerationWarning, accelerate, explain  # noqa: E402
from neural_coder.runtime.cache import FOLDER_VARIABLE  # noqa: E402

pytestmark = pytest.mark.torch


class Jealous(nn.Module):
    """Lets no copy of itself run."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 4)
        self.own = id(self)

    def forward(self, x):
        if self.own != id(self):
            raise RuntimeError("a copy must not run")
        return self.out(x)


@each_variant
def test_what_cannot_be_converted_is_said_once_and_the_original_runs(variant):
    x = torch.ones(2, 4)
    model = variant.put_on(Jealous().eval(), (x,), strict=False)
    with torch.no_grad():
        with pytest.warns(AccelerationWarning, match=f"{variant} does not run Jealous: ") as caught:
            model(x)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        for factor in (1, 2, 3):
            assert torch.equal(model(factor * x), original(model, factor * x))
        assert explain(model).running == "original"
        strict = variant.put_on(Jealous().eval(), (x,))
        with pytest.raises(AccelerationError, match="does not run Jealous"):
            strict(x)


@each_variant
def test_a_missing_engine_is_named_with_its_command(variant, monkeypatch):
    if not variant.engine.modules:
        pytest.skip("needs nothing but PyTorch")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    model, x = small(), torch.ones(1, 16)
    with pytest.warns(AccelerationWarning, match=rf"{variant.engine.modules[0]} is not installed: pip install"):
        accelerate(model, engine=variant.name, precision=variant.precision)
    with torch.no_grad():
        assert torch.equal(model(x), original(model, x))


@each_engine
def test_a_model_that_does_not_fit_into_memory_is_refused(variant):
    class Huge(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.zeros(1).expand(1_000_000, 1_000_000))  # counts as 4 TB, takes 4 bytes

        def forward(self, x):
            return x + self.table[0, :4]

    model, x = variant.put_on(Huge().eval(), (torch.ones(2, 4),), strict=False), torch.ones(2, 4)
    with torch.no_grad(), pytest.warns(AccelerationWarning, match=r"needs about [\d.]+ GB of memory and [\d.]+ GB are"):
        assert torch.equal(model(x), x)
    assert explain(model).conversion_seconds == 0


# Engines that keep what they convert.


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A cache of one's own."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def converted(variant: Variant, x: torch.Tensor) -> nn.Module:
    model = variant.put_on(small(), (x,))
    with torch.no_grad():
        for _ in range(2):
            assert is_close(model(x), original(model, x), variant.tolerance)
    assert variant.runs(model), explain(model)
    return model


@each_keeping
def test_damaged_and_half_written_entries_are_made_anew(variant, folder):
    x = torch.randn(4, 16)
    converted(variant, x)
    (entry,) = folder.iterdir()
    (part,) = (each for each in entry.iterdir() if each.is_dir())
    largest = max((each for each in part.rglob("*") if each.is_file()), key=lambda each: each.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-20])
    (entry / "partial-0").mkdir()
    (entry / "partial-0" / largest.name).write_bytes(b"half")
    converted(variant, x)
    (anew,) = (each for each in entry.iterdir() if each.is_dir() and each.name != "partial-0")
    assert anew != part


@each_keeping
def test_a_cache_that_cannot_be_written_is_done_without(variant, folder):
    folder.parent.write_text("a file where the folder should be: not even root can write into it")
    model = converted(variant, torch.randn(4, 16))
    assert "the cache cannot be written" in explain(model).cache_problem


@each_keeping
@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
def test_a_full_disk_costs_no_answers_and_leaves_no_half_written_files(variant, folder):
    """No file of this process may grow beyond a kilobyte, as if the disk were full; what needs none may still run."""
    code = f"""
        import resource, signal, sys, tempfile, warnings
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch
        from promised import VARIANTS, small, original
        from neural_coder.runtime import explain
        variant = next(each for each in VARIANTS if str(each) == {str(variant)!r})
        model, x = small(), torch.randn(4, 16)
        variant.put_on(model, (x,), strict=False)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                answer, expected = model(x), original(model, x)
                running = explain(model).running
                assert torch.allclose(answer, expected, atol=0.0 if running == "original" else 0.1)
        print(running, sum(each.category.__name__ == "AccelerationWarning" for each in caught))
    """
    environment = {**os.environ, FOLDER_VARIABLE: str(folder.parent), "TMPDIR": str(folder.parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=False, timeout=300, env=environment,
    )  # fmt: skip
    assert done.stdout.strip() in ("original 1", f"{variant} 0"), done.stderr[-2000:]
    assert [each for each in folder.rglob("*") if each.is_file()] == []
