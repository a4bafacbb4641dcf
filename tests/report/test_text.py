from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from neural_coder.records import (
    Accuracy,
    Analysis,
    Ending,
    Evidence,
    Feature,
    Figures,
    Interval,
    Plan,
    Run,
    SiteTiming,
    Span,
    Status,
    TrainingCall,
    Unclear,
    Verdict,
)
from neural_coder.report import as_json, text
from neural_coder.report.model import Report

KEPT = Accuracy(criterion="top-1 agreement", verified=True, kept=True, loss=0.002, allowed=0.01, reason="Fine.")


def run(kind: str = "inference") -> Run:
    timing = SiteTiming(site="a", kind=kind, calls=9, warmup=(), samples=(0.0123,) * 5)  # type: ignore[arg-type]
    return Run(
        ending=Ending(kind="ok"), timings=(timing,), loop_seconds=10.0, model_seconds=3.8, peak_memory_bytes=800_000_000
    )


def verdict(identifier: str, status: Status = "faster", reason: str = "It is so.", speedup: float = 2.0) -> Verdict:
    return Verdict(
        plan=Plan(features=tuple(Feature(name=name) for name in identifier.split("+")), backend="torch"),
        status=status,
        reason=reason,
        speedup=Interval(median=speedup, low=speedup - 0.1, high=speedup + 0.1),
        seconds_per_call=Interval(median=0.0067, low=0.0066, high=0.0068),
        accuracy=KEPT,
        startup_seconds=40.0,
        break_even_calls=20000,
        peak_memory_bytes=1_500_000_000,
        rounds=5,
    )


def report(
    *verdicts: Verdict, chosen: str | None = None, kind: str = "inference", pythons: Mapping[str, Path] | None = None
) -> dict[str, Any]:
    return as_json.to_dict(
        Report(
            script="train.py",
            args=("--data", "my photos"),
            root=Path("/project"),
            baseline=(run(kind),) * 5,
            verdicts=verdicts,
            chosen=chosen,
            confirmed=Interval(median=1.9, low=1.8, high=2.0) if chosen else None,
            reproduce={chosen: "neural-coder optimize train.py --features bf16"} if chosen else {},
            pythons=pythons or {},
        )
    )


def flat(shown: str) -> str:
    return " ".join(shown.split())


@pytest.mark.parametrize(
    ("ended", "evidence", "said"),
    [
        (
            "interrupted",
            "first look",
            "Interrupted: this is the best verified variant so far, seen in a first look only.",
        ),
        (
            "interrupted",
            "rounds",
            "so far, seen in rounds, not confirmed by fresh runs. --resume goes on with search 7.",
        ),
        ("interrupted", "confirmed", "the best verified variant so far, confirmed by fresh runs. --resume"),
        ("interrupted", None, "Interrupted: this is what is known so far. --resume"),
        ("budget", "confirmed", "The time budget ended before every variant had its turn"),
    ],
)
def test_an_answer_that_is_not_the_last_word_says_so(ended: str, evidence: str | None, said: str) -> None:
    data = report(verdict("bf16"), chosen="bf16" if evidence else None)
    assert said in flat(text.result_text({**data, "ended": ended, "evidence": evidence, "search": 7}))
    assert said not in flat(text.result_text(data))


def test_the_spread_of_calls_is_told_for_the_chosen_variant() -> None:
    figures = Figures(
        cpu_seconds=0.012,
        p50=0.0067,
        p90=0.007,
        p99=0.009,
        throughput=1194.0,
        first_call_seconds=1.0,
        loop_seconds=None,
    )
    chosen = replace(verdict("bf16"), figures=figures)
    shown = flat(text.result_text(report(chosen, chosen="bf16")))
    assert "90 % of calls within 7.00 ms (was 12.3 ms), 99 % 9.00 ms (was 12.3 ms)" in shown
    assert "CPU time per call 12.0 ms, 1,194 samples a second." in shown
    assert "90 % of calls" not in text.result_text(report(verdict("bf16"), chosen="bf16"))


def test_every_variant_is_shown_with_its_status_and_reason() -> None:
    statuses = get_args(Status)
    verdicts = [
        verdict(f"variant{i}", status, f"Reason {i} is rather long, so that it takes more than one line of text.")
        for i, status in enumerate(statuses)
    ]
    shown = flat(text.result_text(report(*verdicts), 80))
    for i, status in enumerate(statuses):
        assert f"variant{i} {status.replace('_', ' ')}" in shown
        assert f"Reason {i} is rather long, so that it takes more than one line of text." in shown


def test_a_row_holds_all_figures_with_units() -> None:
    shown = text.result_text(report(verdict("bf16"), chosen="bf16"), 80)
    row = next(line for line in shown.splitlines() if line.startswith("bf16"))
    for cell in ("faster", "×2.00 [1.90–2.10]", "6.70 ms", "-0.2 %", "40.0 s"):
        assert cell in row
    assert "20,000 calls" in shown


def test_the_end_says_what_to_use_and_what_it_costs() -> None:
    shown = flat(text.result_text(report(verdict("bf16"), chosen="bf16"), 80))
    assert "Use bf16: It is so." in shown
    assert "Confirmed by fresh runs: ×1.90 [1.80–2.00]" in shown
    assert "Its start costs 40.0 s, earned back after 20,000 calls." in shown
    assert "Peak memory: 1.50 GB; the original needs 800 MB." in shown
    assert "Run it again: neural-coder optimize train.py --features bf16" in shown


def test_a_variant_that_needs_another_environment_says_so_and_how_it_is_run() -> None:
    data = report(verdict("bf16"), verdict("ipex"), chosen="ipex", pythons={"ipex": Path("/envs/my ipex/bin/python")})
    shown = flat(text.result_text(data, 80))
    assert shown.count("It runs in an environment of its own.") == 1
    assert "run the patched script with: '/envs/my ipex/bin/python' train.py --data 'my photos'" in shown
    assert [variant["python"] for variant in data["variants"]] == [None, "/envs/my ipex/bin/python"]


def test_without_a_winner_the_script_is_kept() -> None:
    assert "Keep your script: nothing is faster" in text.result_text(report(verdict("bf16", "same")), 80)


def test_the_share_of_the_model_and_its_limit_are_told() -> None:
    shown = flat(text.result_text(report(), 80))
    assert "12.3 ms per call" in shown
    assert "The model is 38 % of the loop: at most ×1.61 end to end." in shown


def test_training_speaks_of_steps() -> None:
    shown = flat(text.result_text(report(verdict("bf16"), chosen="bf16", kind="training"), 80))
    assert "12.3 ms per training step" in shown
    assert "earned back after 20,000 training steps" in shown
    assert "per step" in shown


def test_the_chosen_variant_stands_first_and_failures_last() -> None:
    data = report(
        verdict("failing", "failed"), verdict("quick", speedup=9.0), verdict("best", speedup=3.0), chosen="best"
    )
    shown = text.result_text(data, 80)
    assert shown.index("\nbest") < shown.index("\nquick") < shown.index("\nfailing")


def test_a_single_round_shows_no_interval() -> None:
    assert "about ×2.00" in text.result_text(report(replace(verdict("bf16"), rounds=1)), 80)


def test_a_negligible_start_is_not_counted_in_calls() -> None:
    shown = text.result_text(report(replace(verdict("bf16"), startup_seconds=0.004, break_even_calls=2)), 80)
    assert "none" in shown
    assert "2 calls" not in shown


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_asked_and_no_word_is_lost(width: int) -> None:
    long = verdict("bf16+channels_last+compile+fused_optimizer+inference_mode", reason="word " * 60 + "end.")
    shown = text.result_text(report(long, verdict("x" * 90), chosen=long.plan.id), width)
    assert max(map(len, shown.splitlines())) <= width
    assert flat(shown).count("word") == 120
    for feature in long.plan.features:
        assert feature.name in shown
    assert "".join(shown.split()).count("x") >= 90


def test_text_of_the_user_is_shown_as_it_is() -> None:
    odd = verdict("bf16", "failed", "[red]tensor[0][/red] :smile: \x1b[31mred\x1b[0m\a.")
    shown = text.result_text(report(odd), 120)
    assert "[red]tensor[0][/red] :smile: red." in shown
    assert "\x1b" not in shown


def test_colours_come_only_when_asked_for() -> None:
    data = report(verdict("bf16"))
    assert "\x1b[" not in text.result_text(data, 80)
    assert "\x1b[" in text.result_text(data, 80, color=True)


def test_a_report_without_figures_can_be_drawn() -> None:
    data = as_json.to_dict(
        Report(
            script="a.py",
            root=Path("/"),
            verdicts=(Verdict(plan=Plan(features=(), backend="torch"), status="skipped", reason="No."),),
        )
    )
    assert "The original gave no figures." in text.result_text(data, 80)


def test_lost_digits_of_small_losses_are_not_negative_nonsense() -> None:
    tiny = replace(verdict("bf16"), accuracy=replace(KEPT, loss=1e-9))
    assert "±0 %" in text.result_text(report(tiny), 80)


@pytest.mark.parametrize(("loss", "shown"), [(0.25, " -0.25 "), (12.0, " -12 "), (0.0, " ±0 ")])
def test_a_loss_in_a_metrics_own_unit_is_no_share(loss: float, shown: str) -> None:
    own = replace(verdict("bf16"), accuracy=replace(KEPT, loss=loss, allowed=20.0, absolute=True))
    row = next(line for line in text.result_text(report(own), 80).splitlines() if line.startswith("bf16"))
    assert shown in row
    assert "%" not in row


# --- the other tables

HERE = Span(line=1, column=0, end_line=1, end_column=1)
FACTS = Analysis(
    path=Path("/project/train.py"),
    training=(
        TrainingCall(
            kind="optimizer_step",
            callee="opt.step",
            line=12,
            call=HERE,
            scope="main",
            evidence=Evidence(known_by="import", confidence=1.0),
        ),
    ),
    unclear=(Unclear(line=3, text="net = build(cfg)", reason="build is not known"),),
)


def test_sites_are_listed_by_line() -> None:
    data = as_json.analysis_json([FACTS, Analysis(path=Path("/project/empty.py"))], Path("/project"))
    shown = text.analysis_text(data, 80)
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["train.py"]
    assert lines[2][:2] == ["3", "unclear"]
    assert lines[3][:4] == ["12", "optimizer", "step", "opt.step(...)"]
    assert "1 more file" in shown
    assert shown.endswith("\n")


def test_features_show_risk_hardware_and_values() -> None:
    feature = {
        "name": "int8_dynamic",
        "summary": "Quantize linear layers.",
        "tasks": ["inference"],
        "hardware": "CPUs with VNNI",
        "risk": "lossy",
        "values": ["torch", "torchao"],
        "automatic": False,
    }
    shown = flat(text.features_text({"features": [feature]}, 80))
    assert "int8_dynamic=torch|torchao for scripts that infer; risk: lossy; only when asked for" in shown
    assert "Quantize linear layers. On: CPUs with VNNI." in shown


def test_doctor_says_what_is_missing_and_how_to_install_it() -> None:
    data = {
        "schema": 1,
        "machine": {"memory_bytes": 16_500_000_000, "avx2": True, "gpus": []},
        "engines": [
            {"name": "torch", "title": "PyTorch", "version": "2.13.0", "usable": True, "reason": "", "install": ""},
            {
                "name": "ov",
                "title": "OpenVINO",
                "version": None,
                "usable": False,
                "reason": "absent",
                "install": "pip i",
            },
        ],
    }
    shown = flat(text.doctor_text(data, 80))
    assert "memory 16.5 GB avx2 yes gpus none" in shown
    assert "PyTorch 2.13.0 yes" in shown
    assert "OpenVINO – no absent Install: pip i" in shown


def test_doctor_shows_what_low_precision_reaches() -> None:
    both = {"bf16": 2.25, "int8": None, "reason": "int8: PyTorch cannot do it here"}
    shown = flat(text.doctor_text({"kernels": both}, 100))
    assert shown == "matrix products bf16 ×2.25 against float32, on one core; int8: PyTorch cannot do it here"


@pytest.mark.parametrize("draw", [text.analysis_text, text.features_text, text.doctor_text])
def test_empty_data_is_no_crash(draw: Callable[[dict[str, Any]], str]) -> None:
    assert draw({"files": [], "features": []}).strip() in ("", "files     none\nfeatures  none")


def test_making_json_does_not_load_rich() -> None:
    code = "import sys, neural_coder.report.as_json; print({'rich', 'torch', 'libcst'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "set()"


SEEN: dict[str, Any] = {
    "seconds": 20.0,
    "models": [
        {"name": "Net", "built": {"path": "main.py", "line": 3, "function": "main"}, "share": 0.62},
        {"name": "Head", "built": None, "share": 0.03},
        {"name": "Tiny", "built": None, "share": 0.00001},
    ],
    "added": [
        {
            "kind": "inference",
            "path": "plugin.py",
            "line": 7,
            "name": "Net",
            "through": ["<string>:1 <module>"],
            "frames": [{"path": "plugin.py", "line": 7}, {"path": "main.py", "line": 40}],
        }
    ],
    "conflicts": [
        {"path": "main.py", "line": line, "text": "net(...)", "message": "They differ."} for line in range(5)
    ],
}


def test_what_a_run_has_shown_is_told_in_a_few_lines() -> None:
    data = report(verdict("bf16"))
    shown = flat(text.result_text({**data, "sites": {**data["sites"], "observed": SEEN}}, width=100))
    assert "Models by time, of the run's 20.0 s: Net (main.py:3) 62 %, Head 3 %." in shown
    assert "Only the run shows plugin.py:7: inference, Net, through <string>:1 <module>, from main.py:40." in shown
    assert "Code and run disagree at main.py:0, net(...): They differ." in shown
    assert "main.py:3, net" not in shown
    assert "2 more conflicts; the JSON result has all." in shown


def test_without_observation_nothing_is_told_of_it() -> None:
    assert "by time" not in text.result_text(report(verdict("bf16")))
