"""What the promises share."""

from __future__ import annotations

import pytest
import torch
from promised import Variant, everything, inputs

from neural_coder.runtime.cache import FOLDER_VARIABLE


@pytest.fixture
def model(variant: Variant) -> torch.nn.Module:
    """The accelerated model that the promises share; each leaves it as it was."""
    found = everything(variant)
    with torch.no_grad():
        found(*inputs())
    assert variant.runs(found)
    return found


@pytest.fixture(scope="session")
def _kept(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("kept"))


@pytest.fixture(autouse=True)
def _shared_cache(_own_folders: None, _kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for all: the promises use the same few models, and converting them takes seconds."""
    monkeypatch.setenv(FOLDER_VARIABLE, _kept)
