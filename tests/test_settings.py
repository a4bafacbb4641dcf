"""Settings within features: how they are written, checked, shortened, and put into the patch."""

from __future__ import annotations

import pytest

from neural_coder import candidate, planner, registry, settings
from neural_coder.analysis import Project, analyze_script
from neural_coder.errors import UserError
from neural_coder.records import Feature

WRITTEN = "int8_static=openvino:8:exclude=blocks.0.dense:exclude=head:alpha=0.6:bias_correction=false"
SCRIPT = """\
import torch

net = torch.nn.Sequential(torch.nn.Linear(3, 8))
net.eval()
with torch.no_grad():
    out = net(torch.zeros(1, 3))
"""


def patched(tmp_path, *features):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    project = Project.find(script)
    plan = planner.plan_for([registry.parse_feature(feature) for feature in features], "inference")
    built = candidate.build(plan, project, analyze_script(script, project))
    (patch,) = built.patches
    return patch.after.text


def test_a_feature_with_settings_is_read_and_written_alike():
    feature = registry.parse_feature(WRITTEN)
    assert feature.value == "openvino:8"
    assert dict(feature.settings) == {"exclude": ("blocks.0.dense", "head"), "alpha": 0.6, "bias_correction": False}
    assert str(feature) == WRITTEN
    assert registry.parse_feature(str(feature)) == feature


def test_the_order_of_settings_does_not_matter():
    assert registry.parse_feature("int8_static=openvino:preset=mixed:alpha=1:exclude=a") == registry.parse_feature(
        "int8_static=openvino:exclude=a:alpha=1:preset=mixed"
    )


def test_nothing_in_it_means_anything_to_a_shell_or_to_a_list_of_features():
    assert not set(WRITTEN) & set(" ,;&|<>()[]{}$`\"'\\!*?#~")


def test_a_plan_keeps_settings_and_names_long_ones_shortly():
    names = tuple(f"encoder.layer.{number}.output.dense" for number in range(40))
    long = Feature(name="int8_static", value="openvino", settings=(("exclude", names),))
    plan, other = (
        planner.plan_for([feature], "inference")
        for feature in (long, Feature(name="int8_static", value="openvino", settings=(("exclude", names[:-1]),)))
    )
    assert long in plan.features
    assert "exclude=40~" in plan.id
    assert len(plan.id) < 80
    assert plan.id != other.id
    assert planner.plan_for([registry.parse_feature("int8_static=openvino:exclude=head")], "inference").id.endswith(
        "int8_static=openvino:exclude=head"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bf16:alpha=0.5", "bf16 takes no settings"),
        ("int8_static=openvino:alhpa=0.5", "did you mean alpha"),
        ("int8_static=inductor:alpha=0.5", "inductor has no setting 'alpha'"),
        ("int8_static=openvino:calibration=8", "int8_static=openvino:8"),
        ("int8_static=openvino:alpha=", "write NAME=VALUE"),
        ("int8_static=openvino:alpha=1:alpha=2", "given twice"),
        ("int8_static=openvino:mixed", "a number of samples"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        registry.parse_feature(text)


def test_the_settings_of_an_engine_are_the_fields_of_its_options():
    assert {"preset", "alpha", "observer", "hint"} <= set(settings.offered("openvino"))
    assert settings.offered("torch") == settings.offered("no_such_engine") == ()


@pytest.mark.torch
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "inductor", "ipex"])
def test_what_is_read_from_an_engines_file_is_what_the_engine_has(engine):
    import dataclasses
    import importlib

    options = importlib.import_module(f"neural_coder.runtime.engine_{engine}").ENGINE.options
    assert settings.offered(engine) == tuple(field.name for field in dataclasses.fields(options))


@pytest.mark.torch
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "inductor", "ipex"])
@pytest.mark.parametrize("kinds", [frozenset({"Linear"}), frozenset({"Conv2d", "Linear"})])
def test_what_tuning_tries_is_what_the_engine_takes(engine, kinds):
    import importlib

    options = importlib.import_module(f"neural_coder.runtime.engine_{engine}").ENGINE.options
    for name, values in registry.backends()[engine].tunable(kinds).items():
        for value in values:
            assert getattr(options(**{name: value}), name) == value != getattr(options(), name)


def test_settings_stand_in_the_patch_in_the_open(tmp_path):
    text = patched(tmp_path, WRITTEN)
    assert 'exclude=["blocks.0.dense", "head"]' in text
    assert "alpha=0.6" in text
    assert "calibration=8" in text
    assert "bias_correction=False" in text


def test_a_feature_without_settings_is_patched_as_before(tmp_path):
    assert 'accelerate(net, engine="openvino", precision="int8_static")' in patched(tmp_path, "int8_static=openvino")


def test_a_call_that_would_be_too_long_to_read_takes_several_lines(tmp_path):
    names = [f"encoder.layer.{number}.output.dense" for number in range(12)]
    text = patched(tmp_path, "int8_static=openvino" + "".join(f":exclude={name}" for name in names))
    assert max(map(len, text.splitlines())) < 80
    assert all(f'        "{name}",\n' in text for name in names)
    compile(text, "script.py", "exec")
