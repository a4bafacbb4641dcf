"""What must be true of each file in `backends/`."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import tomllib

from neural_coder import registry

BACKENDS = sorted(registry.backends().items())
SETTINGS = Path(__file__).parents[1] / "pyproject.toml"
SHADOWED = {"torch", "torchao", "onnxruntime", "openvino", "types", "json"}


@pytest.mark.parametrize(("name", "kind"), BACKENDS)
def test_it_says_what_it_is(name, kind):
    assert kind.name == name
    assert kind.title
    assert kind.distribution
    assert kind.modules
    assert inspect.getdoc(kind).endswith(".")
    assert inspect.getdoc(inspect.getmodule(kind))


@pytest.mark.parametrize(("name", "kind"), BACKENDS)
def test_its_extra_can_be_installed(name, kind):
    extras = tomllib.loads(SETTINGS.read_text())["project"]["optional-dependencies"]
    if kind.extra:
        assert any(requirement.startswith(kind.distribution) for requirement in extras[kind.extra])


@pytest.mark.parametrize(("name", "kind"), BACKENDS)
def test_its_file_hides_no_library(name, kind):
    assert kind.__module__.rpartition(".")[2] not in SHADOWED


@pytest.mark.parametrize(("name", "kind"), BACKENDS)
def test_it_says_so_when_no_feature_uses_it(name, kind):
    used = {
        transform.backend_for(value)
        for transform in registry.transforms().values()
        for value in (transform.values or (None,))
    }
    assert ("No feature uses it yet" in inspect.getdoc(kind)) == (name not in used)


def test_every_feature_names_a_backend_that_exists():
    for transform in registry.transforms().values():
        for value in transform.values or (None,):
            assert transform.backend_for(value) in registry.backends()
