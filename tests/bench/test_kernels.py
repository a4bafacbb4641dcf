"""The probe of matrix products: it runs where the script runs, once."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from neural_coder.bench import kernels
from neural_coder.bench.kernels import Kernels
from neural_coder.bench.machine import Environment, inspect_environment

HERE = Environment(python=Path(sys.executable), python_version="3", versions={"torch": "2"}, reasons={"torch": ""})


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The interpreters that the probe was run in; each time it finds another figure."""
    seen: list[Path] = []

    def measure(python: Path) -> Kernels:
        seen.append(python)
        return Kernels(ratios={"bf16": float(len(seen))}, reasons={"int8": "no such kernel"})

    monkeypatch.setattr(kernels, "measure", measure)
    return seen


def test_what_was_measured_once_is_known(probed: list[Path]) -> None:
    first = kernels.known(HERE)
    assert kernels.known(HERE) == first == Kernels(ratios={"bf16": 1.0}, reasons={"int8": "no such kernel"})
    assert len(probed) == 1


def test_another_pytorch_or_python_is_measured_for_itself(probed: list[Path]) -> None:
    kernels.known(HERE)
    kernels.known(replace(HERE, versions={"torch": "3"}))
    kernels.known(replace(HERE, python=Path("/elsewhere/python")))
    assert len(probed) == 3


@pytest.mark.parametrize("damage", ["", "{", '{"ratios": 3}', '{"ratios": {"bf16": "fast"}, "reasons": {}}'])
def test_what_is_damaged_is_measured_anew(
    probed: list[Path], damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURAL_CODER_CACHE", str(tmp_path))
    kernels.known(HERE)
    (file,) = tmp_path.rglob("*.json")
    file.write_text(damage)
    kernels.known(HERE)
    assert len(probed) == 2
    assert json.loads(file.read_text())["ratios"] == {"bf16": 2.0}


def test_a_python_without_pytorch_is_not_asked(probed: list[Path]) -> None:
    found = kernels.known(replace(HERE, reasons={"torch": "torch is not installed"}))
    assert found == Kernels(reasons={"all": "torch is not installed"})
    assert not probed


def test_a_failure_is_no_figure_and_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURAL_CODER_CACHE", str(tmp_path / "cache"))
    found = kernels.known(replace(HERE, python=tmp_path / "none"))
    assert not found.ratios
    assert "could not be started" in found.reasons["all"]
    assert not (tmp_path / "cache").exists()


@pytest.mark.torch
def test_pytorch_is_really_asked() -> None:
    found = kernels.measure(inspect_environment(Path(sys.executable), ["torch"]).python)
    assert {*found.ratios, *found.reasons} == {"bf16", "int8"}
    assert all(ratio > 0 for ratio in found.ratios.values())
    assert "bf16" in found.ratios
