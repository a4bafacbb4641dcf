"""What the code says and what a run has shown, brought together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from neural_coder.observed import Merged, marks, merge, probes_to_see
from neural_coder.records import (
    Analysis,
    Call,
    CodeFrame,
    Evidence,
    Model,
    Observation,
    ObservedCall,
    ObservedMode,
    ObservedModel,
    Span,
    TrainingCall,
)

ROOT = Path("/project")
MAIN = ROOT / "main.py"
KNOWN = Evidence(known_by="project", confidence=0.9)


def span(line: int, column: int = 4, end_column: int = 20) -> Span:
    return Span(line=line, column=column, end_line=line, end_column=end_column)


def frame(line: int, function: str = "main", *, end_column: int = 20, path: Path = MAIN) -> CodeFrame:
    return CodeFrame(path=path, line=line, function=function, call=span(line, end_column=end_column))


MODEL = Model(
    name="net",
    line=10,
    statement=span(10, 0, 30),
    scope="main",
    qualified_name="main.Net",
    library="project",
    kind="module",
    ready=None,
    inferred=True,
    evidence=KNOWN,
)
CALL = Call(
    kind="inference",
    callee="net",
    line=20,
    call=span(20),
    statement=span(20, 0, 20),
    scope="main",
    model="net",
    wrappable=True,
    evidence=KNOWN,
)
FORWARD = TrainingCall(kind="forward", callee="net", line=30, call=span(30), scope="main", evidence=KNOWN)
FACTS = Analysis(path=MAIN, models=(MODEL,), inference=(CALL,), training=(FORWARD,))
EVAL = ObservedMode(training=False, grad_mode="no_grad", calls=8, seconds=2.0, signatures=("float32[1, 3]",))
TRAIN = ObservedMode(training=True, grad_mode="enabled", calls=5, seconds=3.0, backward=True)
BUILT = ObservedModel(
    number=0,
    frames=(frame(10),),
    name="Net",
    home="__main__",
    bases=("Net",),
    count=1,
    parameters=100,
    called=True,
)
SEEN_EVAL = ObservedCall(frames=(frame(20),), name="Net", home="__main__", built=(0,), modes=(EVAL,))
SEEN_TRAIN = ObservedCall(frames=(frame(30),), name="Net", home="__main__", built=(0,), modes=(TRAIN,))
REACHED = {"main.py:inference:0": 8, "main.py:forward:0": 5, "main.py:model:0": 1}
SEEN = Observation(seconds=10.0, calls=(SEEN_EVAL, SEEN_TRAIN), models=(BUILT,), reached=REACHED)


def merged(facts: Analysis = FACTS, *, complete: bool = True, **changes: Any) -> Merged:
    return merge((facts,), replace(SEEN, **changes), ROOT, complete=complete)


def messages(result: Merged) -> list[tuple[int, str]]:
    return [(conflict.line, conflict.message) for conflict in result.conflicts]


def test_what_the_run_bears_out_is_confirmed_and_says_how_it_was_known() -> None:
    result = merged()
    (facts,) = result.analyses
    for evidence in (facts.models[0].evidence, facts.inference[0].evidence, facts.training[0].evidence):
        assert (evidence.known_by, evidence.confidence) == ("observed", 1.0)
        assert "project 90 %" in evidence.note
    assert "8 calls, in eval mode, under no_grad" in facts.inference[0].evidence.note
    assert "with a backward" in facts.training[0].evidence.note
    assert result.added == result.conflicts == ()


def test_a_site_that_was_not_reached_stays_as_it_is_and_says_so() -> None:
    result = merged(calls=(SEEN_TRAIN,), reached={**REACHED, "main.py:inference:0": 0})
    evidence = result.analyses[0].inference[0].evidence
    assert (evidence.known_by, evidence.confidence) == ("project", 0.9)
    assert evidence.note == "not reached in this run"
    assert result.conflicts == ()


def test_without_columns_the_line_decides() -> None:
    bare = replace(SEEN_EVAL, frames=(replace(frame(20), call=None),))
    assert merged(calls=(bare, SEEN_TRAIN)).added == ()


def test_another_call_on_the_line_of_a_site_is_another_site() -> None:
    other = replace(SEEN_EVAL, frames=(frame(20, end_column=40),))
    (added,) = merged(calls=(SEEN_EVAL, SEEN_TRAIN, other)).added
    assert (added.kind, added.line, added.name) == ("inference", 20, "Net")


def test_a_call_deep_in_other_functions_belongs_to_the_site_that_led_there() -> None:
    helper = ROOT / "helper.py"
    deep = replace(SEEN_EVAL, frames=(frame(3, "Net.encode", path=helper), frame(20)))
    assert merged(calls=(deep, SEEN_TRAIN)).added == ()


def test_what_a_trainer_calls_back_in_the_project_is_a_site_of_its_own() -> None:
    fit = replace(FORWARD, kind="fit", callee="trainer.fit")
    facts = replace(FACTS, training=(fit,))
    back = replace(SEEN_TRAIN, frames=(frame(50, "Net.training_step"), frame(30)))
    (added,) = merged(facts, calls=(SEEN_EVAL, back)).added
    assert (added.kind, added.line, added.scope) == ("forward", 50, "Net.training_step")
    assert merged(facts).added == ()


def test_a_call_that_no_site_covers_is_added_with_the_way_that_led_there() -> None:
    plugin = ROOT / "plugins" / "tagger.py"
    hidden = replace(
        SEEN_EVAL, frames=(frame(7, "run", path=plugin), frame(41)), through=("<string>:1 <module>",), built=()
    )
    result = merged(calls=(SEEN_EVAL, SEEN_TRAIN, hidden))
    (added,) = result.added
    assert (added.kind, added.path, added.line, added.scope) == ("inference", plugin, 7, "run")
    assert [item.line for item in added.frames] == [7, 41]
    facts = next(facts for facts in result.analyses if facts.path == plugin)
    (call,) = facts.inference
    assert (call.evidence.known_by, call.wrappable) == ("observed", False)
    assert "through <string>:1 <module>; from main.py:41 main" in call.evidence.note


def test_a_call_without_a_frame_of_the_project_is_ranked_and_not_placed() -> None:
    lost = replace(SEEN_EVAL, frames=(), built=())
    result = merged(calls=(SEEN_EVAL, SEEN_TRAIN, lost))
    assert result.added == ()
    assert [share.built is None for share in result.shares] == [False, True]


def test_a_model_that_no_statement_is_known_to_build_is_added() -> None:
    hidden = replace(BUILT, number=1, frames=(frame(60, "build"),), name="Other", bases=("Other",))
    result = merged(models=(BUILT, hidden))
    (added,) = result.added
    assert (added.kind, added.line, added.name) == ("model", 60, "Other")
    assert [model.qualified_name for model in result.analyses[0].models] == ["main.Net", "Other"]


def test_parts_and_models_that_were_never_called_are_not_added() -> None:
    part = replace(BUILT, number=1, frames=(frame(60),), part_of=0)
    idle = replace(BUILT, number=2, frames=(frame(61),), called=False)
    assert merged(models=(BUILT, part, idle)).added == ()


def test_models_are_ranked_by_their_share_of_the_time_parts_with_their_whole() -> None:
    part = replace(BUILT, number=1, frames=(frame(60),), name="Linear", part_of=0)
    other = replace(BUILT, number=2, frames=(frame(61),), name="Head", bases=("Head",), parameters=5)
    calls = (
        SEEN_EVAL,
        replace(SEEN_EVAL, frames=(frame(21),), name="Linear", built=(1,)),
        replace(SEEN_EVAL, frames=(frame(22),), name="Head", built=(2,), modes=(replace(EVAL, seconds=5.0),)),
    )
    shares = merged(calls=calls, models=(BUILT, part, other)).shares
    assert [(share.name, share.share, share.calls, share.parameters) for share in shares] == [
        ("Head", 0.5, 8, 5),
        ("Net", 0.4, 16, 100),
    ]
    assert [item.line for item in shares[1].called] == [20, 21]


def test_inference_that_was_trained_is_a_conflict() -> None:
    trained = replace(SEEN_EVAL, modes=(TRAIN,))
    assert messages(merged(calls=(trained, SEEN_TRAIN))) == [
        (20, "The code says inference; 5 calls in training mode fed a backward.")
    ]


def test_training_that_only_ran_without_gradients_or_in_eval_mode_is_a_conflict() -> None:
    frozen = replace(SEEN_TRAIN, modes=(EVAL,))
    assert messages(merged(calls=(SEEN_EVAL, frozen))) == [
        (30, "The code says training; all calls ran without gradients.")
    ]
    idle = replace(SEEN_TRAIN, modes=(replace(EVAL, grad_mode="enabled"),))
    assert messages(merged(calls=(SEEN_EVAL, idle))) == [
        (30, "The code says training; all calls ran in eval mode, and no backward followed.")
    ]


def test_fine_tuning_in_eval_mode_and_a_step_that_was_cut_off_are_no_conflicts() -> None:
    tuned = replace(SEEN_TRAIN, modes=(replace(EVAL, grad_mode="enabled", backward=True),))
    cut_off = replace(SEEN_TRAIN, modes=(replace(TRAIN, backward=False),))
    assert merged(calls=(SEEN_EVAL, tuned)).conflicts == ()
    assert merged(calls=(SEEN_EVAL, cut_off)).conflicts == ()


def test_another_class_than_the_code_says_is_a_conflict_where_it_is_built_and_called() -> None:
    other = replace(BUILT, name="Other", bases=("Other", "Base"))
    seen = replace(SEEN_EVAL, name="Other")
    assert messages(merged(models=(other,), calls=(seen, SEEN_TRAIN))) == [
        (10, "The code says Net; the run built Other."),
        (20, "The code says that this is a Net; in the run it was a Other."),
    ]
    subclass = replace(BUILT, name="Better", bases=("Better", "Net"))
    assert merged(models=(subclass,), calls=(replace(seen, name="Better"), SEEN_TRAIN)).conflicts == ()


def test_factories_may_build_what_they_like() -> None:
    facts = replace(
        FACTS, models=(replace(MODEL, qualified_name="torchvision.models.resnet18", library="torchvision"),)
    )
    assert merged(facts, models=(replace(BUILT, name="ResNet", bases=("ResNet",)),)).conflicts == ()


def test_a_site_that_was_reached_without_any_model_being_called_is_a_conflict() -> None:
    assert messages(merged(calls=(SEEN_TRAIN,))) == [(20, "The script came here 8 times, but no model was called.")]


def test_a_statement_that_ran_and_built_nothing_and_a_model_that_was_never_called_are_conflicts() -> None:
    assert messages(merged(models=())) == [(10, "This ran 1 time, but no module was built by it.")]
    idle = replace(BUILT, called=False)
    assert messages(merged(models=(idle,), calls=(SEEN_EVAL, SEEN_TRAIN))) == [
        (10, "It was built, but neither it nor a part of it was called in this run.")
    ]


def test_a_model_that_was_handed_over_is_no_conflict() -> None:
    elsewhere = replace(BUILT, frames=(frame(70),))
    assert merged(models=(elsewhere,)).conflicts == ()


def test_what_a_module_builds_for_itself_is_no_conflict() -> None:
    facts = replace(FACTS, models=(replace(MODEL, scope="System.__init__", qualified_name=""),))
    assert merged(facts, models=()).conflicts == ()


def test_statements_that_nobody_counted_are_left_as_they_are() -> None:
    assert merged(models=(), reached={}).analyses[0].models == FACTS.models


def test_the_call_of_a_teacher_in_a_training_step_is_no_conflict() -> None:
    teacher = replace(CALL, call=span(30), line=30, feeds_training=True, grad_mode="no_grad")
    facts = replace(FACTS, inference=(CALL, teacher))
    frozen = replace(SEEN_TRAIN, modes=(EVAL,))
    assert merged(facts, calls=(SEEN_EVAL, frozen)).conflicts == ()


def test_what_did_not_happen_proves_nothing_when_the_run_was_cut_short() -> None:
    idle = replace(BUILT, called=False)
    assert merged(complete=False, calls=(), models=(idle,)).conflicts == ()
    assert merged(complete=False, calls=(), models=()).conflicts == ()
    assert merged(truncated=True, calls=(), models=()).conflicts == ()


def test_calls_that_cannot_be_seen_in_compiled_code_are_no_conflicts() -> None:
    idle = replace(BUILT, called=False)
    assert merged(compiled_graphs=2, calls=(), models=(idle,)).conflicts == ()


def test_a_site_within_another_model_is_confirmed_by_being_reached() -> None:
    result = merged(
        calls=(SEEN_TRAIN,),
        reached={**REACHED, "main.py:inference:0": 0},
        reached_within=frozenset({"main.py:inference:0"}),
    )
    assert result.conflicts == ()
    assert "within the call of another model" in result.analyses[0].inference[0].evidence.note


def test_a_run_without_any_model_leaves_the_sites_as_they_are() -> None:
    result = merge((FACTS,), Observation(seconds=1.0), ROOT, complete=True)
    assert result.analyses[0].inference == FACTS.inference
    assert result.shares == result.added == result.conflicts == ()


def test_sites_to_count_are_named_as_in_the_result() -> None:
    (probes,) = probes_to_see((FACTS, Analysis(path=ROOT / "empty.py")), ROOT).values()
    assert [(probe.site, probe.kind) for probe in probes] == [
        ("main.py:inference:0", "seen"),
        ("main.py:forward:0", "seen"),
    ]
    (statements,) = marks((FACTS,), ROOT).values()
    assert [mark.site for mark in statements] == ["main.py:model:0"]
