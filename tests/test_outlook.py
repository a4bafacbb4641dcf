"""Which variant gets its first look next, and which ones need none."""

from __future__ import annotations

import pytest

from neural_coder import planner, registry
from neural_coder.outlook import SURPRISE, Outlook, Shown

AS_PROMISED = {"bf16": 2.25, "int8": 4.6}


def plan(*features):
    return planner.plan_for([registry.parse_feature(feature) for feature in features], "inference")


def outlook(*shown):
    return Outlook(promise=lambda plan: planner.promise(plan, AS_PROMISED), shown=list(shown))


def shown(features, gain, *, right=True, seconds=10.0, restless=False):
    return Shown(plan=plan(*features), gain=gain, right=right, seconds=seconds, restless=restless)


FAST = shown(["open_vino"], 8.0)
BEHIND = shown(["compile"], 0.5)
INT8_COMPILED = plan("int8_static=inductor")
INT8_OPENVINO = plan("int8_static=openvino")


def test_an_engine_that_is_far_behind_needs_no_look_at_its_other_precisions():
    reason = outlook(FAST, BEHIND).why_hopeless(INT8_COMPILED)
    assert reason == (
        "Not run: compile+inference_mode came to ×0.50, so this would come to about ×1.92; "
        "inference_mode+open_vino has ×8.00."
    )
    assert not outlook(FAST, BEHIND).why_hopeless(INT8_OPENVINO)


@pytest.mark.parametrize(
    "seen",
    [
        (),
        (FAST,),
        (BEHIND,),
        (FAST, shown(["compile"], None)),
        (FAST, shown(["compile"], 1.3)),
        (FAST, shown(["bf16", "compile"], 0.1)),
        (shown(["open_vino"], 40.0, right=False), BEHIND),
        (shown(["open_vino"], 7.0, restless=True), BEHIND),
    ],
    ids=[
        "nothing",
        "another engine only",
        "no rival",
        "it did not run as itself",
        "close behind",
        "only another precision is known",
        "a wrong rival",
        "a rival that was looked at while the machine was busy",
    ],
)
def test_nothing_is_spared_that_may_still_win(seen):
    assert not outlook(*seen).why_hopeless(INT8_COMPILED)


def test_what_is_spared_would_have_to_surprise_by_more_than_the_margin():
    seen = outlook(BEHIND)
    needed = seen.gain(INT8_COMPILED) * SURPRISE
    for rival, spared in ((needed * 0.99, False), (needed * 1.01, True)):
        assert bool(outlook(BEHIND, shown(["open_vino"], rival)).why_hopeless(INT8_COMPILED)) == spared


def test_what_an_engine_has_shown_decides_what_comes_next():
    waiting = [INT8_COMPILED, INT8_OPENVINO]
    assert outlook(BEHIND, FAST).next_of(waiting) == INT8_OPENVINO
    assert outlook(shown(["compile"], 4.0), shown(["open_vino"], 0.5)).next_of(waiting) == INT8_COMPILED


def test_an_engine_begins_in_float32_whatever_another_precision_promises():
    waiting = [plan("onnx_runtime"), plan("int8_static=onnxruntime"), plan("int8_dynamic=onnxruntime")]
    assert outlook().next_of(waiting) == plan("onnx_runtime")
    assert outlook(shown(["onnx_runtime"], 2.0)).next_of(waiting) == plan("int8_static=onnxruntime")


def test_what_pytorch_itself_reaches_in_float32_is_known_from_the_original():
    slow = Outlook(promise=lambda plan: planner.promise(plan, {"bf16": 0.4}))
    reason = slow.why_hopeless(plan("bf16"))
    assert reason == "Not run: on this machine this would come to about ×0.28; the original is faster."
    assert not outlook().why_hopeless(plan("bf16"))


def test_where_an_engine_was_slow_in_a_precision_its_other_combinations_need_no_look():
    slow = shown(["bf16", "channels_last"], 0.1)
    assert outlook(slow).why_hopeless(plan("bf16")).startswith("Not run: bf16+channels_last came to ×0.10")
    assert not outlook(slow).why_hopeless(plan("bf16_weights"))
    assert not outlook(slow).why_hopeless(plan("bf16", "compile"))


def test_of_equal_promises_the_cheaper_look_comes_first():
    slow, quick = shown(["compile"], 1.3, seconds=150.0), shown(["open_vino"], 2.4)
    assert outlook(slow, quick).next_of([INT8_COMPILED, INT8_OPENVINO]) == INT8_OPENVINO


def test_of_those_that_promise_to_be_slower_the_cheaper_look_comes_first():
    slow = outlook(shown(["compile"], 0.1, seconds=150.0), shown(["open_vino"], 0.1))
    assert slow.next_of([INT8_COMPILED, INT8_OPENVINO]) == INT8_OPENVINO
