"""The fixture scripts run as they are, end as their table says, and have the bytes that they claim to have."""

from __future__ import annotations

import ast
import codecs
import os
import re
import subprocess
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

import black
import pytest

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
SCRIPTS = FIXTURES / "scripts"
TIME_LIMIT = 300.0
"""Seconds; far above what a script takes, so that a busy machine fails no test."""


@dataclass(frozen=True)
class Expected:
    """How a script is started, and how it ends."""

    script: str
    output: str
    """A pattern that the output must hold from the start of a line."""
    args: tuple[str, ...] = ()
    code: int = 0
    long: bool = False
    """Takes more than five seconds on two cores."""


RUNS = [
    Expected("bert_classifier.py", r"label counts: negative=1\d\d, neutral=\d\d, positive=\d\d$", long=True),
    Expected("classify_photos.py", r"   985 daisy +0\.\d{4}$"),
    Expected("cli_infer.py", r"class 4: +\d+\.\d\d%$", ("flower.jpg", "--classes", "5")),
    Expected("digits_train_eval.py", r"accuracy: 0\.9[6-9]\d\d$", long=True),
    Expected("distill.py", r"teacher 0\.9\d{3}, student 0\.[89]\d{3}$"),
    Expected("embed_sentences.py", r"paraphrases found: 20/20$", long=True),
    Expected("ensemble.py", r"ensemble accuracy: 0\.9\d\d$"),
    Expected("gan.py", r"Final Loss_D: \d\.\d{4} Loss_G: \d\.\d{4}$"),
    Expected("generate_text.py", r"generated 256 tokens$", long=True),
    Expected("lstm_forecast.py", r"Mittlere Abweichung auf den letzten Tagen: 0\.[01]\d+ \(größte: 0\.\d{4}\)$"),
    Expected("mostly_numpy.py", r"recognized 1[0-2] of 12$", ("12",)),
    Expected("no_model.py", r"k-means: inertia 78\.8\d, sizes \[38, 50, 62\]$"),
    Expected("onnx_score.py", r"usage: onnx_score\.py network\.onnx rows\.csv$", code=2),
    Expected("outlier_digits.py", r"accuracy: 0\.[89]\d\d\d$"),
    Expected("package_app/main.py", r"top1 \d\d\.\d\d%  top2 \d\d\.\d\d%$", long=True),
    Expected("package_app/main.py", r"\[1/1\] mlp: loss \d\.\d{4}$", ("--model", "mlp", "--epochs", "1")),
    Expected("pipeline_features.py", r"accuracy = (0\.[789]|1\.0)\d+$", long=True),
    Expected("registry_app.py", r"odd machines found: [89]\d\.\d%$", long=True),
    Expected("resnet_infer.py", r"Top-1 accuracy: [6-9]\d\.\d\d %$"),
    Expected("semantic_search.py", r"12 queries answered$", long=True),
    Expected("semantic_search.py", r"  0\.\d{3}  To change your password", ("forgot", "login")),
    Expected("sensor_service.py", r"scored 60 windows, the worst is$"),
    Expected("temperature_scaling.py", r"temperature \d\.\d{3}$"),
    Expected("tokenizer_stats.py", r"lines 4, tokens 87, mean 21\.75, limit 512$"),
    Expected("train_plain.py", r"final validation loss: 0\.[0-3]\d{3}$", long=True),
    Expected("trainer_class.py", r"val_accuracy=0\.\d{4} \(best 0\.\d{4}\)$", long=True),
    Expected("tuned_infer.py", r"retrieval: 0\.\d{3}$"),
    Expected("two_models.py", r"recall \d\.\d{4}  read correctly 0\.\d{4}$", ("-n", "10")),
    Expected("vit_notebook.py", r"mean entropy of attention: 0\.9\d{3}$", long=True),
]
NEEDS_A_GPU = "cuda_script.py"
FILES = sorted(SCRIPTS.rglob("*.py"))


def run(script: str, args: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as its user would, in an empty folder, without a network to fall back on."""
    settings = {
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin take ten times as long when other tests run beside them
    }
    return subprocess.run(
        [sys.executable, str(SCRIPTS / script), *args],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIME_LIMIT,
        check=False,
    )


def marked(expected: Expected) -> object:
    """A test parameter, marked by what it costs."""
    marks = [pytest.mark.torch, *([pytest.mark.slow] if expected.long else [])]
    return pytest.param(expected, id=" ".join((expected.script, *expected.args)), marks=marks)


def name(path: Path) -> str:
    """A script's path as in the table."""
    return path.relative_to(SCRIPTS).as_posix()


@pytest.mark.parametrize("expected", [marked(each) for each in RUNS])
def test_the_script_runs_as_it_is(expected: Expected, tmp_path: Path) -> None:
    done = run(expected.script, expected.args, tmp_path)
    assert done.returncode == expected.code, done.stderr[-3000:]
    where = done.stderr if expected.code else done.stdout
    assert re.search("^" + expected.output, where, re.MULTILINE), where[-3000:]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "it left files behind"


@pytest.mark.torch
def test_the_cuda_script_fails_without_a_gpu(tmp_path: Path) -> None:
    done = run(NEEDS_A_GPU, (), tmp_path)
    assert done.returncode == 1
    assert "torch.cuda.set_device(GPU)" in done.stderr


@pytest.mark.torch
def test_an_argument_that_is_missing_is_asked_for(tmp_path: Path) -> None:
    done = run("cli_infer.py", (), tmp_path)
    assert done.returncode == 2
    assert "the following arguments are required: image, --classes" in done.stderr


@pytest.mark.parametrize("path", FILES, ids=name)
def test_the_script_compiles(path: Path) -> None:
    compile(path.read_bytes(), str(path), "exec", flags=ast.PyCF_ONLY_AST)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_the_script_does_not_mention_what_it_is_for(path: Path) -> None:
    with tokenize.open(path) as stream:
        assert not re.search(r"neural.?coder", stream.read().lower())


def test_every_script_is_run_and_described() -> None:
    described = set(re.findall(r"^\| `([\w/]+\.py)", (SCRIPTS / "README.md").read_text("utf-8"), re.MULTILINE))
    programs = {name(path) for path in FILES if path.parent == SCRIPTS or path.name == "main.py"}
    assert programs == described
    assert programs == {each.script for each in RUNS} | {NEEDS_A_GPU}


def test_git_hands_the_bytes_out_unchanged() -> None:
    assert "* -text" in (FIXTURES / ".gitattributes").read_text().splitlines()


def test_the_gan_has_windows_line_endings_only() -> None:
    data = (SCRIPTS / "gan.py").read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r") > 100


def test_the_forecast_is_latin_1() -> None:
    data = (SCRIPTS / "lstm_forecast.py").read_bytes()
    assert data.startswith(b"# -*- coding: latin-1 -*-\n")
    assert "künstliche Zeitreihe".encode("latin-1") in data
    with pytest.raises(UnicodeDecodeError):
        data.decode()


def test_the_notebook_has_a_byte_order_mark_and_no_final_newline() -> None:
    data = (SCRIPTS / "vit_notebook.py").read_bytes()
    assert data.startswith(codecs.BOM_UTF8)
    assert not data.endswith(b"\n")
    assert "×".encode() in data


def test_the_trainer_is_indented_with_tabs_only() -> None:
    lines = (SCRIPTS / "trainer_class.py").read_bytes().splitlines()
    assert not [line for line in lines if line.startswith(b" ")]
    assert len([line for line in lines if line.startswith(b"\t\t")]) > 30


def test_the_registry_has_form_feeds_between_its_parts() -> None:
    assert (SCRIPTS / "registry_app.py").read_bytes().count(b"\n\f\n") == 2


def test_all_other_scripts_have_unix_line_endings() -> None:
    assert [name(path) for path in FILES if b"\r" in path.read_bytes()] == ["gan.py"]


@pytest.mark.parametrize("script", ["classify_photos.py", "cli_infer.py", "distill.py"])
def test_a_black_script_is_as_black_formats_it(script: str) -> None:
    text = (SCRIPTS / script).read_text("utf-8")
    assert black.format_str(text, mode=black.Mode()) == text
