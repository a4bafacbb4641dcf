"""The model stays the user's object: its type, its weights, its modes, its copies, its hooks."""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import pytest

torch = pytest.importorskip("torch")

from promised import Everything, each_engine, each_variant, inputs, is_close, original, ready, small  # noqa: E402
from torch import nn  # noqa: E402

from neural_coder.runtime import explain  # noqa: E402

pytestmark = pytest.mark.torch


def logits(answer):
    return answer["pair"].first


@each_variant
def test_the_same_object_comes_back(variant):
    model = small()
    keys, kind = list(model.state_dict()), type(model)
    assert variant.put_on(model, (torch.randn(4, 16),)) is model
    assert isinstance(model, kind)
    assert type(model) is kind
    assert list(model.state_dict()) == keys


@each_variant
def test_weights_are_those_of_the_user(model, variant):
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.head.weight is model.embed.weight
    loaded = Everything().eval()
    loaded.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(logits(loaded(*inputs())), logits(original(model, *inputs())))
    model.load_state_dict(copy.deepcopy(model.state_dict()))


@each_variant
def test_training_mode_and_back(model, variant):
    model.train()
    model.normal.eval()  # running statistics that change would mean another conversion
    logits(model(*inputs())).sum().backward()
    assert model.mix.weight.grad is not None
    assert explain(model).reason == "training mode"
    model.zero_grad()
    model.eval()
    with torch.no_grad():
        model(*inputs())
    assert variant.runs(model)


@each_engine
def test_a_submodule_in_training_mode_trains(variant):
    model, x = nn.Sequential(nn.Linear(32, 64), nn.Dropout(0.5), nn.Linear(64, 64)).eval(), torch.ones(2, 32)
    ready(variant.put_on(model, (x,)), variant, x)
    model[1].train()
    with torch.no_grad():
        assert not torch.equal(model(x), model(x))
    assert explain(model).reason == "a submodule is in training mode"


@each_variant
def test_gradients_are_given_where_they_are_requested(model, variant):
    image, *others = inputs()
    assert logits(model(image, *others)).requires_grad
    assert "gradients are enabled" in explain(model).reason
    model.requires_grad_(False)
    image.requires_grad_(True)
    logits(model(image, *others)).sum().backward()
    assert image.grad is not None
    answer = model(image.detach(), *others)
    model.requires_grad_(True)
    assert not logits(answer).requires_grad
    assert variant.runs(model)


@each_variant
def test_a_deep_copy_is_plain_and_independent(model, variant):
    clone = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(logits(clone(*inputs())), logits(original(model, *inputs())))
        clone.norm.weight.zero_()
        clone.norm.bias.zero_()
        assert not logits(clone(*inputs())).any()
        assert is_close(logits(model(*inputs())), logits(original(model, *inputs())), variant.tolerance)
    assert explain(clone).engine == ""
    assert variant.runs(model)


@each_variant
def test_pickles_and_saved_models_are_plain(model, variant):
    assert b"neural_coder" not in pickle.dumps(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    with torch.no_grad():
        expected = logits(original(model, *inputs()))
        for loaded in (pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
            assert torch.equal(logits(loaded(*inputs())), expected)
            assert explain(loaded).engine == ""


@each_variant
def test_hooks_on_the_model_fire_once_per_call(model, variant):
    seen = []
    handles = [
        model.register_forward_pre_hook(lambda module, given: seen.append("before")),
        model.register_forward_hook(lambda module, given, output: seen.append("after")),
    ]
    with torch.no_grad():
        model(*inputs())
        model(*inputs())
    for handle in handles:
        handle.remove()
    assert seen == ["before", "after"] * 2
    assert variant.runs(model)


@each_variant
def test_hooks_on_submodules_fire(model, variant):
    seen = []
    handle = model.mix.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    with torch.no_grad():
        model(*inputs())
        assert explain(model).reason == "a submodule has hooks"
        handle.remove()
        model(*inputs())
    assert seen == [torch.float32]
    assert variant.runs(model)


@each_variant
def test_hooks_on_all_modules_fire(model, variant):
    seen = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, given, output: seen.append(module))
    try:
        with torch.no_grad():
            model(*inputs())
    finally:
        handle.remove()
    assert [type(module).__name__ for module in seen if module is not model] == [
        "Conv2d", "BatchNorm2d", "Embedding", "Linear", "LayerNorm", "Dropout", "Linear",
    ]  # fmt: skip


@each_variant
def test_tools_see_the_signature_of_the_original(model, variant):
    assert inspect.signature(model.forward) == inspect.signature(Everything().forward)
