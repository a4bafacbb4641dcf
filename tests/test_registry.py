"""Features and engines are found by their files, and named as people write them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import neural_coder.transforms
import pytest

from neural_coder import registry
from neural_coder.errors import InternalError, UserError
from neural_coder.records import Feature


def test_a_file_is_a_feature():
    root = Path(next(iter(neural_coder.transforms.__path__)))
    files = {path.stem for path in root.glob("*.py")} - {"__init__"}
    assert set(registry.transforms()) == files
    assert all(name == kind.name() for name, kind in registry.transforms().items())


def test_the_registry_cannot_be_changed():
    with pytest.raises(TypeError):
        registry.transforms()["x"] = registry.transforms()["bf16"]


def test_hyphens_are_as_good_as_underscores():
    assert registry.transform("channels-last") is registry.transforms()["channels_last"]
    assert registry.parse_feature(" channels-last ") == Feature(name="channels_last")
    assert registry.parse_feature("openvino") == Feature(name="open_vino")


@pytest.mark.parametrize(("typed", "meant"), [("bf61", "bf16"), ("chanels_last", "channels_last"), ("int8", "int8")])
def test_an_unknown_feature_is_answered_with_the_nearest_names(typed, meant):
    with pytest.raises(UserError, match=rf"no feature called '{typed}'.*{meant}"):
        registry.transform(typed)


def test_a_name_like_nothing_is_answered_with_all_names():
    with pytest.raises(UserError, match=r"there are: .*bf16.*torchscript"):
        registry.transform("zzz")


def test_values_are_read_and_checked():
    assert registry.parse_feature("batch-size=32") == Feature(name="batch_size", value="32")
    assert registry.parse_feature("int8_dynamic = torchao") == Feature(name="int8_dynamic", value="torchao")
    assert registry.parse_feature("int8_dynamic") == Feature(name="int8_dynamic")


@pytest.mark.parametrize("value", ["", "=", "=0", "=-1", "=\u0661", "=1.5", "=big"])
def test_a_batch_size_must_be_a_whole_number(value):
    with pytest.raises(UserError, match="whole number"):
        registry.parse_feature(f"batch_size{value}")


def test_names_are_found_however_their_words_are_joined():
    for name in ("onnxruntime", "onnx-runtime", "onnx_runtime"):
        assert registry.transform(name).name() == "onnx_runtime"


def test_a_value_may_name_an_engine_and_a_number_of_samples():
    assert registry.parse_feature("int8_static=onnxruntime:8").value == "onnxruntime:8"
    for wrong in ("onnxruntime:", "onnxruntime:0", "onnxruntime:many", "nobody:8"):
        with pytest.raises(UserError, match="int8_static takes"):
            registry.parse_feature(f"int8_static={wrong}")


def test_wrong_values_are_refused():
    engines = "torch, torchao, inductor, onnxruntime, openvino"
    with pytest.raises(UserError, match=f"one of: {engines}; 'int8_dynamic=x' was given"):
        registry.parse_feature("int8_dynamic=x")
    with pytest.raises(UserError, match="takes no value"):
        registry.parse_feature("bf16=1")


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Files that are looked for where the project's own transforms are."""
    monkeypatch.setattr(neural_coder.transforms, "__path__", [str(tmp_path)])
    registry.transforms.cache_clear()
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    registry.transforms.cache_clear()


def test_a_file_without_a_transform_is_refused(plugins):
    (plugins / "empty_one.py").write_text("from neural_coder.transform import Transform\n")
    with pytest.raises(InternalError, match="empty_one must define exactly one Transform; it has none"):
        registry.transforms()


def test_a_file_with_two_transforms_is_refused(plugins):
    code = "from neural_coder.transform import Transform\nclass A(Transform): ...\nclass B(Transform): ...\n"
    (plugins / "double_one.py").write_text(code)
    with pytest.raises(InternalError, match="it has A, B"):
        registry.transforms()


def test_discovery_needs_neither_torch_nor_libcst():
    code = (
        "import sys; from neural_coder import registry; registry.transforms(), registry.backends(); "
        "sys.exit(' '.join({'torch', 'libcst', 'jedi'} & set(sys.modules)) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, found.stderr) == (0, "")
