"""What transforms make of facts that scripts rarely show all at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from neural_coder import registry
from neural_coder.edits import Accelerate, InsertAfter, Replace, Wrap
from neural_coder.records import (
    Analysis,
    Argument,
    Call,
    DataLoader,
    DeviceUse,
    Evidence,
    LeftAlone,
    Model,
    Span,
    TrainingCall,
    TrainingStep,
    Witness,
)

SURE = Evidence(known_by="import", confidence=1.0)


def span(line, column=0, end_column=9, end_line=None):
    return Span(line=line, column=column, end_line=end_line or line, end_column=end_column)


MODEL = Model(
    name="model",
    line=1,
    statement=span(1),
    scope="<module>",
    qualified_name="mylib.Net",
    library="project",
    kind="module",
    ready=span(2),
    inferred=True,
    evidence=SURE,
)
CALL = Call(
    kind="inference",
    callee="model",
    line=5,
    call=span(5, 4),
    statement=span(5),
    scope="<module>",
    model="model",
    wrappable=True,
    evidence=SURE,
)
BACKWARD = TrainingCall(kind="backward", callee="loss.backward", line=9, call=span(9), scope="<module>", evidence=SURE)
STEP = TrainingStep(
    forwards=(replace(CALL, kind="forward", line=7, call=span(7), statement=span(7)),),
    backward=BACKWARD,
    optimizer_step=None,
    scope="<module>",
    forward_and_loss=span(7, end_line=8),
)


def edits(feature, value=None, **facts):
    """What a feature does with these facts."""
    return list(registry.transform(feature)().edits(Analysis(path=Path("script.py"), **facts), value))


def only_reason(feature, value=None, **facts):
    (found,) = edits(feature, value, **facts)
    assert isinstance(found, LeftAlone), found
    return found.reason


# --- inference_mode --------------------------------------------------------------------------------------------------


def test_one_no_grad_around_two_calls_is_replaced_once():
    calls = [
        replace(CALL, line=line, statement=span(line), grad_mode="no_grad", grad_mode_at=span(4)) for line in (5, 6)
    ]
    found = edits("inference_mode", inference=tuple(calls))
    assert [(type(edit), edit.at) for edit in found] == [(Replace, span(4))]


def test_a_no_grad_that_one_call_needs_for_training_stays_for_both():
    one = replace(CALL, grad_mode="no_grad", grad_mode_at=span(4))
    teacher = replace(one, line=6, statement=span(6), feeds_training=True)
    found = edits("inference_mode", inference=(one, teacher))
    assert [type(item) for item in found] == [LeftAlone, LeftAlone]


def test_gradients_that_are_off_for_the_whole_file_are_no_obstacle():
    found = edits("inference_mode", inference=(replace(CALL, grad_mode="no_grad"),))
    assert [type(item) for item in found] == [Wrap]


def test_the_reason_for_not_wrapping_is_passed_on():
    call = replace(CALL, wrappable=False, why_not_wrappable="inside a lambda")
    assert only_reason("inference_mode", inference=(call,)) == "inside a lambda"
    assert only_reason("bf16", inference=(call,)) == "inside a lambda"


# --- precision -------------------------------------------------------------------------------------------------------


def test_numpy_is_named_with_the_way_around_it():
    reason = only_reason("bf16", inference=(replace(CALL, reaches_numpy=True),))
    assert "NumPy" in reason
    assert "bf16_weights" in reason


def test_a_teacher_inside_the_step_is_wrapped_with_it():
    teacher = replace(CALL, line=7, statement=span(7), feeds_training=True)
    found = edits("bf16", inference=(teacher,), steps=(STEP,))
    assert [(type(edit), edit.at) for edit in found] == [(Wrap, STEP.forward_and_loss)]


def test_a_step_that_cannot_be_wrapped_says_why():
    step = replace(STEP, forward_and_loss=None, why_not="the loss is computed in another function")
    assert only_reason("bf16", steps=(step,)) == "the loss is computed in another function"


def test_what_trains_in_float32_evaluates_in_float32():
    step = replace(STEP, forward_and_loss=None, why_not="two backwards")
    found = edits("bf16", steps=(step,), inference=(replace(CALL, scope="evaluate"),))
    assert [type(item) for item in found] == [LeftAlone, LeftAlone]
    tuned = replace(STEP, autocast=True)
    found = edits("bf16", steps=(tuned,), inference=(replace(CALL, scope="evaluate"),))
    assert [type(item) for item in found] == [LeftAlone, Wrap]


def test_steps_of_one_function_stay_together():
    # In a GAN, what the generator makes in one step is what the discriminator gets in the next.
    stuck = replace(STEP, backward=replace(BACKWARD, line=19), forward_and_loss=None, why_not="two backwards")
    elsewhere = replace(STEP, scope="pretrain", forward_and_loss=span(27))
    found = edits("bf16", steps=(STEP, stuck, elsewhere))
    assert [type(item) for item in found] == [LeftAlone, LeftAlone, Wrap]
    assert "line 19 stays in float32 (two backwards)" in found[0].reason
    assert found[1].reason == "two backwards"


def test_calls_of_one_function_stay_together():
    to_numpy = replace(CALL, line=6, statement=span(6), reaches_numpy=True)
    elsewhere = replace(CALL, line=26, statement=span(26), scope="other")
    found = edits("bf16", inference=(CALL, to_numpy, elsewhere))
    assert [type(item) for item in found] == [LeftAlone, LeftAlone, Wrap]


@pytest.mark.parametrize("harmless", [{"autocast": True}, {"feeds_training": True}])
def test_calls_that_take_any_precision_keep_no_other_from_it(harmless):
    other = replace(CALL, line=6, statement=span(6), **harmless)
    found = edits("bf16", inference=(CALL, other))
    assert [type(item) for item in found] == [Wrap, LeftAlone]


def test_a_scaled_loss_is_float16_business():
    scaler = DeviceUse(
        kind="grad_scaler", line=3, expression=span(3), text="torch.cuda.amp.GradScaler()", evidence=SURE
    )
    assert "float16" in only_reason("bf16", steps=(STEP,), devices=(scaler,))


@pytest.mark.parametrize("trait", ["bfloat16", "half", "quantized", "jit", "accelerate"])
def test_models_that_have_their_precision_keep_it(trait):
    model = replace(MODEL, traits=frozenset({trait}))
    for feature in ("bf16_weights", "int8_dynamic", "int8_static"):
        assert only_reason(feature, models=(model,))
    assert only_reason("bf16", models=(model,), inference=(CALL,))


@pytest.mark.parametrize("feature", ["bf16_weights", "int8_dynamic", "int8_static", "onnx_runtime", "torchscript"])
def test_trained_models_are_never_converted(feature):
    assert "trained" in only_reason(feature, models=(replace(MODEL, trained=True),))


@pytest.mark.parametrize("feature", ["bf16_weights", "int8_dynamic", "int8_static", "onnx_runtime", "torchscript"])
def test_a_model_that_may_be_trained_is_not_converted(feature):
    unknown = replace(STEP, forwards=(replace(STEP.forwards[0], model=None),))
    model = replace(MODEL, inferred=False)
    assert "line 9" in only_reason(feature, models=(model,), steps=(unknown,))
    assert [type(edit) for edit in edits(feature, models=(MODEL,), steps=(unknown,))] == [Accelerate]


def test_layers_decide_what_is_quantized_where_they_are_known():
    recurrent = replace(MODEL, layers=frozenset({"LSTM"}))
    assert [edit.engine for edit in edits("int8_dynamic", models=(recurrent,))] == ["torch"]
    assert "torchao" in only_reason("int8_dynamic", "torchao", models=(recurrent,))
    assert "no layers that onnxruntime quantizes" in only_reason("int8_static", models=(recurrent,))


def test_a_model_without_a_place_to_convert_it_says_why():
    model = replace(MODEL, ready=None, why_not_ready="it is built inside a comprehension")
    for feature in (
        "bf16_weights",
        "int8_dynamic",
        "int8_static",
        "onnx_runtime",
        "torchscript",
        "compile",
        "channels_last",
    ):
        assert only_reason(feature, models=(model,)) == "it is built inside a comprehension"


# --- engines ---------------------------------------------------------------------------------------------------------


def test_weights_are_frozen_only_where_nothing_is_trained():
    (frozen,) = edits("compile", models=(MODEL,), inference=(CALL,))
    assert isinstance(frozen, Accelerate)
    assert "freezing" in frozen.alone
    (average,) = edits("compile", models=(MODEL,), inference=(CALL,), steps=(STEP,), training=(BACKWARD,))
    assert isinstance(average, InsertAfter)
    assert average.code == "model.compile()"


def test_a_pipeline_is_compiled_by_the_runtime():
    (edit,) = edits("compile", models=(replace(MODEL, kind="pipeline"),))
    assert (edit.engine, edit.alone) == ("inductor", "")


@pytest.mark.parametrize("trait", ["compile", "jit", "data_parallel", "accelerate"])
def test_engines_do_not_take_over_from_each_other(trait):
    model = replace(MODEL, traits=frozenset({trait}))
    for feature in ("compile", "torchscript"):
        assert only_reason(feature, models=(model,))


# --- cuda_to_cpu -----------------------------------------------------------------------------------------------------


def device(kind, text, *, at=None, receiver=None, statement=False):
    """A use on line 1, starting at a column."""
    start = at or 0
    return DeviceUse(
        kind=kind,
        line=1,
        expression=span(1, start, start + len(text)),
        text=text,
        receiver=span(1, start, start + len(receiver)) if receiver else None,
        is_statement=statement,
        evidence=SURE,
    )


@pytest.mark.parametrize(
    ("use", "code"),
    [
        (device("device", '"cuda:0"'), '"cpu"'),
        (device("device", "'cuda'"), "'cpu'"),
        (device("device", "0"), '"cpu"'),
        (device("map_location", "lambda storage, loc: storage.cuda(0)"), '"cpu"'),
        (device("cuda_method", "x.cuda(0, non_blocking=True)", receiver="x"), "x"),
        (device("cuda_method", "model.cuda()", receiver="model", statement=True), ""),
        (device("cuda_method", "nets['g'].cuda()", receiver="nets['g']", statement=True), ""),
        (device("cuda_method", "model.train().cuda()", receiver="model.train()", statement=True), "model.train()"),
        (device("pin_memory", "True"), "False"),
        (device("pin_memory", "x.pin_memory()", receiver="x"), "x"),
        (device("pin_memory", "load(x).pin_memory()", receiver="load(x)", statement=True), "load(x)"),
        (device("cuda_call", "torch.cuda.synchronize()", statement=True), ""),
        (device("cuda_call", "torch.cuda.max_memory_allocated(0)"), "0"),
        (device("grad_scaler", "GradScaler(init_scale=2.0)"), 'torch.amp.GradScaler("cpu", enabled=False)'),
        (device("autocast", "autocast()"), 'torch.autocast("cpu", dtype=torch.bfloat16)'),
        (device("autocast", "autocast"), 'torch.autocast("cpu", dtype=torch.bfloat16)'),
        (device("autocast", "autocast(args.amp)"), 'torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.amp)'),
        (
            device("autocast", "torch.autocast('cuda', torch.float16, enabled=args.amp)"),
            'torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.amp)',
        ),
        (
            device("autocast", "torch.autocast(device_type='cuda', dtype=torch.float16)"),
            'torch.autocast("cpu", dtype=torch.bfloat16)',
        ),
    ],
    ids=lambda part: part.text if isinstance(part, DeviceUse) else "",
)
def test_each_use_of_a_gpu_becomes_one_of_the_cpu(use, code):
    (edit,) = edits("cuda_to_cpu", devices=(use,))
    assert edit.code == code


def test_a_use_inside_another_is_rewritten_with_it():
    inner = device("device", '"cuda"', at=len("Net().to("))
    outer = device("cuda_method", 'Net().to("cuda").cuda()', receiver='Net().to("cuda")')
    (edit,) = edits("cuda_to_cpu", devices=(inner, outer))
    assert edit.code == 'Net().to("cpu")'


def test_uses_nest_to_any_depth_and_over_lines():
    lines = ["f(", '    a.to("cuda:1").cuda(),', "    b.cuda()", ").cuda()"]
    text = "\n".join(lines)

    def at(line, column, end_line, end_column):
        return Span(line=10 + line, column=column, end_line=10 + end_line, end_column=end_column)

    uses = [
        ("cuda_method", text, at(0, 8, 3, 8), at(0, 8, 3, 1)),
        ("cuda_method", 'a.to("cuda:1").cuda()', at(1, 4, 1, 25), at(1, 4, 1, 18)),
        ("device", '"cuda:1"', at(1, 9, 1, 17), None),
        ("cuda_method", "b.cuda()", at(2, 4, 2, 12), at(2, 4, 2, 5)),
    ]
    found = edits(
        "cuda_to_cpu",
        devices=tuple(
            DeviceUse(kind=kind, line=10, expression=where, text=part, receiver=receiver, evidence=SURE)
            for kind, part, where, receiver in uses
        ),
    )
    assert [edit.code for edit in found] == ['f(\n    a.to("cpu"),\n    b\n)']


def test_a_receiver_keeps_its_parentheses():
    text = "(a + b).cuda()"
    use = replace(device("cuda_method", text), receiver=span(1, 1, 6))
    (edit,) = edits("cuda_to_cpu", devices=(use,))
    assert edit.code == "(a + b)"


def test_what_has_no_counterpart_is_left_alone():
    assert "Event" in only_reason("cuda_to_cpu", devices=(device("cuda_call", "torch.cuda.Event()"),))


# --- batch_size ------------------------------------------------------------------------------------------------------


def loader(*arguments, **settings):
    return DataLoader(
        name="loader",
        line=3,
        statement=span(3),
        call=span(3, 2),
        scope="<module>",
        arguments=tuple(Argument(keyword=keyword, text=text, value=span(3, 4)) for keyword, text in arguments),
        evidence=SURE,
        **{"qualified_name": "torch.utils.data.DataLoader", "used_for": frozenset({"inference"}), **settings},
    )


def test_a_loader_for_both_tasks_is_left_alone():
    both = loader((None, "data"), used_for=frozenset({"inference", "training"}))
    assert "feeds training" in only_reason("batch_size", "8", dataloaders=(both,))
    assert "not known" in only_reason("batch_size", "8", dataloaders=(loader(used_for=frozenset()),))


def test_a_batch_size_that_is_right_already_is_left_alone():
    found = loader((None, "data"), ("batch_size", "8"))
    assert "already" in only_reason("batch_size", "8", dataloaders=(found,))


def test_only_a_named_batch_size_of_other_loaders_is_changed():
    geometric = {"qualified_name": "torch_geometric.loader.DataLoader"}
    assert only_reason("batch_size", "8", dataloaders=(loader((None, "data"), **geometric),))
    (edit,) = edits("batch_size", "8", dataloaders=(loader(("batch_size", "2"), **geometric),))
    assert isinstance(edit, Replace)


# --- witnesses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feature", "seen"),
    [
        ("inference_mode", Witness(inference_mode=True)),
        ("channels_last", Witness(channels_last_outputs=3)),
        ("bf16", Witness(autocast="bfloat16")),
        ("bf16_weights", Witness(accelerated="torch/bf16")),
        ("bf16_weights", Witness(accelerated="inductor/bf16")),
        ("compile", Witness(graphs_compiled=1)),
        ("torchscript", Witness(accelerated="torchscript/fp32")),
        ("int8_dynamic", Witness(accelerated="torchao/int8_dynamic")),
        ("int8_static", Witness(accelerated="onnxruntime/int8_static")),
        ("onnx_runtime", Witness(accelerated="onnxruntime/fp32")),
        ("fused_optimizer", Witness(fused_optimizers=1)),
        ("cuda_to_cpu", Witness()),
        ("batch_size", Witness(batch_sizes=frozenset({32}))),
    ],
)
def test_a_feature_that_was_seen_at_work_took_effect(feature, seen):
    assert registry.transform(feature)().no_effect(Witness(batch_sizes=frozenset({1})), seen) == ""


def test_the_reason_of_the_runtime_is_passed_on():
    seen = Witness(fallback="the model has no linear layers")
    for feature in ("bf16_weights", "torchscript", "onnx_runtime", "int8_dynamic", "int8_static", "compile"):
        assert "no linear layers" in registry.transform(feature)().no_effect(Witness(), seen)
