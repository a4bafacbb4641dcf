"""Which variants there are follows from what the features declare."""

from __future__ import annotations

from pathlib import Path

import pytest

from neural_coder import planner, registry
from neural_coder.errors import UserError
from neural_coder.records import Analysis, Call, Ending, Evidence, Feature, Model, Run, SiteTiming, Span

FINE = dict.fromkeys(registry.backends(), "")
SURE = Evidence(known_by="import", confidence=1.0)


def plan(*features, task="inference"):
    return planner.plan_for([registry.parse_feature(feature) for feature in features], task)


def automatic(task, **settings):
    """The plans for a machine without a GPU."""
    plans = planner.automatic_plans(task, **{"available": FINE, **settings})
    return [plan for plan in plans if not any(needs_gpu(feature) for feature in plan.features)]


def needs_gpu(feature):
    return registry.transform(feature.name).needs_gpu(feature.value)


def ids(plans):
    return {plan.id for plan in plans}


def test_implied_features_come_along_where_they_help():
    assert [str(feature) for feature in plan("compile").features] == ["inference_mode", "compile"]
    assert [str(feature) for feature in plan("compile", task="training").features] == ["compile"]


def test_nothing_comes_along_that_was_not_asked_for_or_needed():
    assert [str(feature) for feature in plan("bf16").features] == ["bf16"]
    assert [str(feature) for feature in plan("channels_last").features] == ["channels_last"]


def test_a_search_adds_companions_and_does_not_ask_them_to_change_anything():
    assert "bf16+inference_mode" in ids(automatic("inference"))
    assert "bf16" not in ids(automatic("inference"))
    assert [str(feature) for feature in planner.asked_for(plan("bf16", "inference_mode"))] == ["bf16"]
    assert [str(feature) for feature in planner.asked_for(plan("inference_mode"))] == ["inference_mode"]


def test_features_apply_in_their_declared_order():
    asked = plan("compile", "channels-last", "bf16")
    assert [feature.name for feature in asked.features] == ["inference_mode", "bf16", "channels_last", "compile"]
    assert asked == plan("bf16", "compile", "channels_last")
    assert asked.backend == "inductor"


def test_asking_twice_is_asking_once():
    assert plan("compile", "compile", "inference_mode") == plan("compile")


def test_a_missing_value_is_the_default():
    assert plan("int8_dynamic") == plan("int8_dynamic=torch")
    assert plan("int8_dynamic=torch").backend == "torch"
    assert plan("int8_dynamic=torchao").backend == "torchao"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("bf16", "bf16_weights"),
        ("bf16", "torchscript"),
        ("compile", "torchscript"),
        ("int8_dynamic", "compile"),
        ("int8_dynamic=torchao", "torchscript"),
        ("int8_dynamic", "bf16"),
        ("int8_dynamic", "channels_last"),
        ("batch_size=1", "batch_size=2"),
    ],
)
def test_features_that_exclude_each_other_are_refused_and_named(one, other):
    for pair in ((one, other), (other, one)):
        with pytest.raises(UserError) as caught:
            plan(*pair)
        assert one in str(caught.value)
        assert other in str(caught.value)


def test_unknown_features_and_values_are_refused():
    with pytest.raises(UserError, match="did you mean bf16"):
        planner.plan_for([Feature(name="bf61")], "inference")
    with pytest.raises(UserError, match="'batch_size' was given"):
        planner.plan_for([Feature(name="batch_size")], "inference")


def test_the_search_for_inference_tries_all_combinations():
    plans = automatic("inference")
    assert 10 <= len(plans) <= 50
    assert len(ids(plans)) == len(plans)
    for wanted in (
        ["inference_mode"],
        ["bf16", "channels_last", "compile"],
        ["bf16_weights", "compile"],
        ["bf16_weights", "torchscript"],
        ["int8_dynamic=torch"],
        ["int8_dynamic=torchao"],
        ["bf16_weights", "open_vino"],
        ["int8_static_bf16=openvino"],
        ["int8_dynamic=onnxruntime"],
        ["int8_static=onnxruntime"],
        ["onnx_runtime"],
    ):
        assert plan(*wanted).id in ids(plans)


def a_run(*calls, ended=True, items=1):
    timings = [
        SiteTiming(site=f"main.py:inference:{place}", kind="inference", calls=count, warmup=(), samples=(), items=items)
        for place, count in enumerate(calls)
    ]
    return Run(ending=Ending(kind="ok"), timings=tuple(timings), ended_by_itself=ended)


@pytest.mark.parametrize(
    ("run", "samples"),
    [
        (a_run(1, 30), ":10"),
        (a_run(6), ":4"),
        (a_run(24, items=2), ":16"),
        (a_run(24, items=None), ":8"),
        (a_run(30, items=8), ""),
        (a_run(1000), ""),
        (a_run(30, ended=False), ""),
        (a_run(), ""),
    ],
)
def test_scripts_that_make_few_calls_calibrate_on_a_third_of_them(run, samples):
    fitted = planner.fitted(plan("int8_static"), run)
    assert fitted.id == f"inference_mode+int8_static=onnxruntime{samples}"
    assert planner.fitted(plan("int8_static=onnxruntime:5"), run) == plan("int8_static=onnxruntime:5")
    assert planner.fitted(plan("bf16"), run) == plan("bf16")


def test_the_search_for_training_tries_what_helps_training():
    plans = automatic("training")
    names = {feature.name for plan in plans for feature in plan.features}
    assert names == {"bf16", "channels_last", "compile", "fused_optimizer", "intel_training"}
    assert len(plans) == 16


def test_no_plan_of_the_search_excludes_itself():
    for task in ("inference", "training"):
        for found in automatic(task):
            assert planner.plan_for(found.features, task) == found


def test_the_most_promising_come_first_and_what_compiles_for_long_after_what_does_not():
    order = [plan.id for plan in automatic("inference")]
    assert order.index("bf16_weights+inference_mode") < order.index("bf16_weights+compile+inference_mode")
    assert order.index("bf16_weights+compile+inference_mode") < order.index("compile+inference_mode")
    assert order[-1] == "inference_mode"


def test_what_the_kernels_of_this_machine_reach_orders_the_queue():
    def order(**ratios):
        return [plan.id for plan in automatic("inference", kernels=ratios)]

    usual = order()
    assert order(**planner.USUAL_RATIOS) == usual
    weights, integers = "bf16_weights+inference_mode", "inference_mode+int8_dynamic=torch"
    assert order(bf16=20.0).index(weights) < order(bf16=20.0).index(integers)
    assert order(int8=20.0).index(integers) < order(int8=20.0).index(weights)
    slow = order(bf16=0.3)
    assert sorted(slow) == sorted(usual)
    assert all("bf16" in name for name in slow[-5:])
    assert slow.index("inference_mode") < slow.index(weights)


def test_kernels_that_features_rest_on_are_those_that_are_measured():
    declared = {kind.kernel for kind in registry.transforms().values()}
    assert declared == {"", *planner.USUAL_RATIOS}
    assert all("bf16" in name or "int8" in name for name, kind in registry.transforms().items() if kind.kernel)


def test_what_cannot_be_tried_here_is_listed_with_its_reason():
    plans = automatic("inference", available={**FINE, "inductor": "no C++ compiler was found"})
    skipped = {plan.backend for plan in plans if plan.skipped}
    assert skipped == {"inductor"}
    assert ids(plans) == ids(automatic("inference"))


def test_what_needs_a_gpu_is_tried_where_there_is_one():
    without = {plan.id: plan.skipped for plan in planner.automatic_plans("inference", available=FINE)}
    assert without["amp=fp16+inference_mode"] == "amp=fp16 needs a GPU that PyTorch can use"
    assert not any(plan.skipped for plan in planner.automatic_plans("inference", available=FINE, gpu=True))


def test_some_features_can_be_part_of_every_plan():
    plans = automatic("inference", always=[Feature(name="cuda_to_cpu"), Feature(name="batch_size", value="8")])
    assert len(plans) == len(automatic("inference"))
    for found in plans:
        assert found.features[0].name == "cuda_to_cpu"
        assert Feature(name="batch_size", value="8") in found.features


def test_what_is_always_there_limits_the_combinations():
    plans = automatic("inference", always=[Feature(name="bf16_weights")])
    assert plans
    assert all(Feature(name="bf16_weights") in plan.features for plan in plans)
    assert not any(feature.name in ("bf16", "int8_dynamic") for plan in plans for feature in plan.features)


def facts(**settings):
    span = Span(line=3, column=0, end_line=3, end_column=20)
    model = Model(
        name="model",
        line=3,
        statement=span,
        scope="<module>",
        qualified_name="torch.nn.Linear",
        library="torch",
        kind="module",
        ready=span,
        layers=frozenset({"Linear"}),
        inferred=True,
        evidence=SURE,
    )
    at = Span(line=4, column=0, end_line=4, end_column=8)
    call = Call(
        kind="inference",
        callee="model",
        line=4,
        call=at,
        statement=at,
        scope="<module>",
        model="model",
        wrappable=True,
        evidence=SURE,
    )
    return Analysis(path=Path("script.py"), models=(model,), inference=(call,), **settings)


def test_edits_carry_their_author_and_order():
    edits, left = planner.edits_for(plan("bf16", "channels_last", "compile"), facts())
    assert [authored.author for authored in edits] == ["inference_mode", "bf16", "compile"]
    assert [authored.order for authored in edits] == sorted(authored.order for authored in edits)
    assert [(item.author, item.line) for item in left] == [("channels_last", 3)]
    assert "no 2-D convolutions" in left[0].reason


def test_a_value_reaches_the_edits():
    edits, _ = planner.edits_for(plan("int8_dynamic=torchao"), facts())
    assert [authored.edit.engine for authored in edits if authored.author == "int8_dynamic"] == ["torchao"]
