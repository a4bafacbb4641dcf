from __future__ import annotations

import base64
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neural_coder import observed
from neural_coder.records import (
    Accuracy,
    Analysis,
    Call,
    CodeFrame,
    Criterion,
    Ending,
    Evidence,
    Feature,
    Figures,
    Interval,
    Metric,
    Model,
    Observation,
    ObservedCall,
    ObservedMode,
    ObservedModel,
    Plan,
    Run,
    SiteTiming,
    Span,
    TrainingCall,
    Unclear,
    Verdict,
)
from neural_coder.report import as_json
from neural_coder.report.model import Report

HERE = Span(line=3, column=0, end_line=4, end_column=9)
KNOWN = Evidence(known_by="catalogue", confidence=0.95)
FACTS = Analysis(
    path=Path("/project/src/infer.py"),
    models=(
        Model(
            name="model",
            line=3,
            statement=HERE,
            scope="<module>",
            qualified_name="torchvision.models.resnet18",
            library="torchvision",
            kind="module",
            ready=HERE,
            layers=frozenset({"Conv2d", "BatchNorm2d"}),
            evidence=KNOWN,
        ),
    ),
    inference=(
        Call(
            kind="inference",
            callee="model",
            line=9,
            call=HERE,
            statement=HERE,
            scope="<module>",
            model="model",
            wrappable=True,
            evidence=KNOWN,
        ),
    ),
    training=(TrainingCall(kind="backward", callee="loss.backward", line=12, call=HERE, scope="main", evidence=KNOWN),),
    unclear=(Unclear(line=5, text="build()", reason="nobody knows"),),
)
WHERE = CodeFrame(
    path=Path("/project/src/infer.py"), line=7, function="main", call=Span(line=7, column=0, end_line=7, end_column=5)
)
OBSERVATION = Observation(
    seconds=8.0,
    calls=(
        ObservedCall(
            frames=(WHERE,),
            through=("<string>:1 <module>",),
            name="Net",
            home="__main__",
            built=(0,),
            modes=(ObservedMode(training=False, grad_mode="no_grad", calls=4, seconds=2.0),),
        ),
    ),
    models=(
        ObservedModel(
            number=0, frames=(WHERE,), name="Net", home="__main__", bases=("Net",), count=1, parameters=12, called=True
        ),
    ),
)
RUN = Run(
    ending=Ending(kind="ok"),
    timings=(SiteTiming(site="infer.py:inference:0", kind="inference", calls=7, warmup=(), samples=(0.5, 0.5)),),
    loop_seconds=10.0,
    model_seconds=5.0,
    peak_memory_bytes=1000,
    observed=OBSERVATION,
)
KEPT = Accuracy(criterion="equal outputs", verified=True, kept=True, loss=0.0, allowed=0.01, reason="All equal.")
FASTER = Verdict(
    plan=Plan(features=(Feature(name="int8", value="ao"), Feature(name="bf16")), backend="inductor"),
    status="faster",
    reason="×2.00 in 5 rounds.",
    speedup=Interval(median=2.0, low=1.9, high=2.1),
    seconds_per_call=Interval(median=0.25, low=0.24, high=0.26),
    accuracy=KEPT,
    startup_seconds=30.0,
    break_even_calls=120,
    peak_memory_bytes=2000,
    rounds=5,
    diff="--- a\n",
)
FAILED = Verdict(plan=Plan(features=(Feature(name="compile"),), backend="torch"), status="failed", reason="It crashed.")
REPORT = Report(
    script="src/infer.py",
    args=("--n", "3"),
    root=Path("/project"),
    machine={"cpu": "x", "features": {"avx2": True}},
    versions={"torch": "2.13.0"},
    analyses=(FACTS,),
    observed=observed.merge((FACTS,), OBSERVATION, Path("/project"), complete=True),
    baseline=(RUN, RUN, RUN),
    verdicts=(FASTER, FAILED),
    reproduce={"bf16+int8=ao": "neural-coder optimize src/infer.py --features bf16,int8=ao"},
    chosen="bf16+int8=ao",
    confirmed=Interval(median=2.0, low=1.8, high=2.2),
    diff="--- a\n",
)


FIGURES = Figures(
    cpu_seconds=0.4,
    p50=0.25,
    p90=0.3,
    p99=0.5,
    throughput=32.0,
    first_call_seconds=9.0,
    loop_seconds=None,
)


def parsed(report: Report) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    data: dict[str, Any] = json.loads(as_json.to_json(report), parse_constant=refuse)
    return data


def test_a_variants_figures_and_what_did_nothing_in_it_are_told() -> None:
    report = replace(REPORT, verdicts=(replace(FASTER, figures=FIGURES, idle="compile: no graph"), FAILED))
    detailed, failed = parsed(report)["variants"]
    assert detailed["figures"] == {
        "cpu_seconds": 0.4,
        "p50": 0.25,
        "p90": 0.3,
        "p99": 0.5,
        "throughput": 32.0,
        "first_call_seconds": 9.0,
        "loop_seconds": None,
    }
    assert detailed["idle"] == "compile: no graph"
    assert (failed["figures"], failed["idle"]) == (None, None)


def test_the_original_has_figures_and_is_compared_with_itself() -> None:
    slow = replace(RUN, timings=(replace(RUN.timings[0], samples=(1.0, 1.0)),))
    baseline = parsed(replace(REPORT, baseline=(slow, RUN, slow, RUN, slow, RUN)))["baseline"]
    assert baseline["against_itself"]["median"] == 2.0
    assert baseline["pace_difference"] == 0.0
    shared = replace(RUN, timings=(replace(RUN.timings[0], pace=(1.6e-4, 1.6e-4)),))
    alone = replace(RUN, timings=(replace(RUN.timings[0], pace=(1e-4, 1e-4)),))
    assert parsed(replace(REPORT, baseline=(shared, alone)))["baseline"]["pace_difference"] == pytest.approx(0.6)
    assert baseline["figures"]["p50"] == 0.75
    assert parsed(replace(REPORT, baseline=(RUN,)))["baseline"]["against_itself"] is None


def test_the_documented_keys_are_there() -> None:
    data = parsed(REPORT)
    assert data["schema"] == 1
    documented = "script args machine versions sites baseline variants chosen confirmed diff"
    assert set(documented.split()) <= set(data)
    assert (data["script"], data["args"], data["chosen"]) == ("src/infer.py", ["--n", "3"], "bf16+int8=ao")
    assert data["machine"]["features"] == {"avx2": True}
    assert data["confirmed"]["speedup"] == {"median": 2.0, "low": 1.8, "high": 2.2}


def test_a_variant_has_all_its_figures() -> None:
    variant = parsed(REPORT)["variants"][0]
    assert variant["id"] == "bf16+int8=ao"
    assert variant["features"] == ["int8=ao", "bf16"]
    assert variant["speedup"] == {"median": 2.0, "low": 1.9, "high": 2.1}
    assert variant["reproduce"].startswith("neural-coder optimize")
    assert variant["accuracy"]["kept"] is True
    assert (variant["startup_seconds"], variant["break_even_calls"], variant["peak_memory_bytes"]) == (30.0, 120, 2000)
    assert variant["end_to_end_speedup"] == 4 / 3


def test_several_metrics_are_listed_and_the_deciding_one_stands_for_them() -> None:
    metrics = (
        Metric(name="acc", file=Path("/project/m.py"), function="acc", allowed=0.5, absolute=True),
        Metric(name="loss", pattern="loss (.)", lower_is_better=True),
    )
    acc = replace(KEPT, criterion="metric acc", loss=0.2, loss_low=-0.1, loss_high=0.4, allowed=0.5, absolute=True)
    found = replace(acc, metrics=(acc, replace(KEPT, criterion="metric loss")))
    report = replace(REPORT, criterion=Criterion(metrics=metrics), verdicts=(replace(FASTER, accuracy=found),))
    data = parsed(report)
    accuracy = data["variants"][0]["accuracy"]
    names = ("criterion", "loss", "loss_low", "loss_high", "allowed", "absolute")
    assert [accuracy[name] for name in names] == ["metric acc", 0.2, -0.1, 0.4, 0.5, True]
    assert accuracy["metrics"][0] == {name: value for name, value in accuracy.items() if name != "metrics"}
    assert accuracy["metrics"][1]["criterion"] == "metric loss"
    criterion = data["criterion"]
    assert (criterion["metric"], criterion["pattern"], criterion["lower_is_better"]) == ("acc", None, False)
    assert criterion["metrics"][0]["file"] == "/project/m.py"
    assert criterion["metrics"][1] == {
        "name": "loss",
        "pattern": "loss (.)",
        "file": None,
        "function": None,
        "lower_is_better": True,
        "allowed": 0.01,
        "absolute": False,
    }
    assert parsed(REPORT)["criterion"]["metrics"] == parsed(REPORT)["variants"][0]["accuracy"]["metrics"] == []


def test_a_failed_variant_has_the_same_keys_without_figures() -> None:
    good, failed = parsed(REPORT)["variants"]
    assert set(failed) == set(good)
    assert failed["status"] == "failed"
    assert failed["speedup"] is None
    assert failed["accuracy"] is None


def test_the_baseline_has_its_interval_and_the_share_of_the_model() -> None:
    baseline = parsed(REPORT)["baseline"]
    assert baseline["task"] == "inference"
    assert baseline["rounds"] == 3
    assert baseline["seconds_per_call"]["median"] == 0.5
    assert (baseline["model_share"], baseline["end_to_end_limit"]) == (0.5, 2.0)


def test_sites_say_what_was_measured_and_what_was_only_observed() -> None:
    sites = parsed(REPORT)["sites"]
    assert sites["files"][0]["path"] == "src/infer.py"
    assert sites["measured"][0] == {
        "site": "infer.py:inference:0",
        "kind": "inference",
        "calls": 7,
        "items": None,
        "seconds": 0.5,
    }
    seen = sites["observed"]
    assert seen["seconds"] == 8.0
    (call,) = seen["calls"]
    assert (call["name"], call["calls"], call["share"]) == ("Net", 4, 0.25)
    assert call["frames"] == [{"path": "src/infer.py", "line": 7, "function": "main"}]
    assert seen["models"][0]["built"] == {"path": "src/infer.py", "line": 7, "function": "main"}
    assert [(item["kind"], item["path"], item["line"]) for item in seen["added"]] == [
        ("model", "src/infer.py", 7),
        ("inference", "src/infer.py", 7),
    ]


def test_without_observation_the_block_is_empty() -> None:
    assert parsed(replace(REPORT, observed=None))["sites"]["observed"] is None


def test_an_analysis_with_a_run_has_both_parts() -> None:
    assert REPORT.observed is not None
    data = as_json.observed_analysis_json(REPORT.observed, Path("/project"))
    assert [site["known_by"] for site in data["files"][0]["inference"]] == ["catalogue", "observed"]
    assert data["observed"]["calls"][0]["through"] == ["<string>:1 <module>"]


def test_the_conclusion_is_there_with_and_without_a_winner() -> None:
    assert parsed(REPORT)["conclusion"].startswith("Use bf16+int8=ao")
    nothing = parsed(replace(REPORT, verdicts=(FAILED,), chosen=None, confirmed=None, diff=""))
    assert nothing["chosen"] is None
    assert nothing["confirmed"] is None
    assert nothing["conclusion"].startswith("Keep your script")


def test_a_report_without_any_run_is_still_json() -> None:
    data = parsed(Report(script="a.py", root=Path("/")))
    assert data["baseline"]["seconds_per_call"] is None
    assert data["variants"] == []


def test_figures_that_are_no_numbers_become_null() -> None:
    odd = replace(FASTER, startup_seconds=math.nan, speedup=Interval(median=math.inf, low=1.0, high=math.inf))
    variant = parsed(replace(REPORT, verdicts=(odd,)))["variants"][0]
    assert variant["startup_seconds"] is None
    assert variant["speedup"] == {"median": None, "low": 1.0, "high": None}


def test_a_diff_that_is_not_utf_8_survives_byte_for_byte() -> None:
    raw = "# caf\xe9\n".encode("latin-1")
    data = parsed(replace(REPORT, diff=raw.decode("utf-8", "surrogateescape")))
    assert data["diff"] == "# caf\N{REPLACEMENT CHARACTER}\n"
    assert base64.b64decode(data["diff_base64"]) == raw


def test_a_diff_that_is_utf_8_is_given_once() -> None:
    data = parsed(replace(REPORT, diff="# café\r\n"))
    assert data["diff"] == "# café\r\n"
    assert "diff_base64" not in data


def test_odd_names_do_not_break_the_text() -> None:
    text = as_json.to_json(replace(REPORT, script="caf\udce9.py", notes=("\ud800",)))
    assert json.loads(text.encode())["script"] == "caf\N{REPLACEMENT CHARACTER}.py"


def test_analysis_has_the_documented_shape() -> None:
    data = as_json.analysis_json([FACTS], Path("/project"))
    assert data["schema"] == 1
    file = data["files"][0]
    assert file["path"] == "src/infer.py"
    assert [(model["line"], model["name"]) for model in file["models"]] == [(3, "model")]
    assert file["models"][0]["layers"] == ["BatchNorm2d", "Conv2d"]
    assert file["models"][0]["ready_line"] == 4
    assert [call["line"] for call in file["inference"]] == [9]
    assert [(call["line"], call["kind"]) for call in file["training"]] == [(12, "backward")]
    assert file["dataloaders"] == file["optimizers"] == file["devices"] == []
    assert file["unclear"] == [{"line": 5, "text": "build()", "reason": "nobody knows"}]
    json.loads(as_json.dumps(data))


def test_paths_outside_the_folder_stay_as_they_are() -> None:
    data = as_json.analysis_json([replace(FACTS, path=Path("/elsewhere/a.py"))], Path("/project"))
    assert data["files"][0]["path"] == "/elsewhere/a.py"
