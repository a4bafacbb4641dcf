from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neural_coder import config
from neural_coder.config import Config
from neural_coder.configurations import Wanted
from neural_coder.criteria import AllowedLoss, GivenMetric, parse_accuracy, parse_metric
from neural_coder.errors import UserError
from neural_coder.records import Metric


def project(folder: Path, table: str) -> Path:
    (folder / "pyproject.toml").write_text(table, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("90s", 90),
        ("1h30m", 5400),
        ("600", 600),
        ("1.5h", 5400),
        ("2h5s", 7205),
        (" 10 M ", 600),
        ("5min", 300),
        (45, 45),
        (0.5, 0.5),
    ],
)
def test_durations_are_read_as_people_write_them(text: str | float, seconds: float) -> None:
    assert config.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "ten", "10x", "-5s", "0", "0s", "m", "1m2h", "nan", "inf", True, -3, float("nan")]
)
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(UserError, match="write 90s, 10m"):
        config.parse_duration(text)


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    for parse in (config.parse_duration, parse_accuracy, partial(parse_metric, folder=Path("/"))):
        with contextlib.suppress(UserError):
            parse(text)


def test_without_a_table_the_defaults_hold(tmp_path: Path) -> None:
    assert config.load(project(tmp_path, "[tool.black]\nline-length = 100\n")) == Config()
    assert Config().features == "auto"


def test_all_settings_are_read(tmp_path: Path) -> None:
    table = """
        [tool.neural_coder]
        features = ["bf16", "channels_last"]
        accuracy = "2%"
        metric = ['loss=loss: ([0-9.]+)', "top1:higher:0.5abs=metrics.py:top1"]
        lower_is_better = true
        budget = "1h"
        timeout = 90
        exclude = ["vendored/**"]
        python = ".venv/bin/python"
    """
    assert config.load(project(tmp_path, table)) == Config(
        features=("bf16", "channels_last"),
        accuracy=AllowedLoss(amount=0.02),
        metrics=(
            GivenMetric(metric=Metric(name="loss", pattern="loss: ([0-9.]+)")),
            GivenMetric(
                metric=Metric(name="top1", file=tmp_path.resolve() / "metrics.py", function="top1"),
                lower_is_better=False,
                allowed=AllowedLoss(amount=0.5, absolute=True),
            ),
        ),
        lower_is_better=True,
        budget=3600.0,
        timeout=90.0,
        exclude=("vendored/**",),
        python=tmp_path.resolve() / ".venv/bin/python",
        path=tmp_path.resolve() / "pyproject.toml",
    )


def test_features_may_be_one_string_or_auto(tmp_path: Path) -> None:
    assert config.load(project(tmp_path, "[tool.neural_coder]\nfeatures = 'auto'")).features == "auto"
    assert config.load(project(tmp_path, "[tool.neural_coder]\nfeatures = 'a, b'")).features == ("a", "b")


def test_run_configurations_are_read_from_the_table(tmp_path: Path) -> None:
    table = '[tool.neural_coder]\nmode = "multi_instance"\ninstances = 2\nthreads = [1, 2]\nbatch_size = "1,8,8"\n'
    assert config.load(project(tmp_path, table)).configurations == Wanted(
        mode="multi-instance", instances=2, threads=(1, 2), batch_sizes=(1, 8)
    )
    assert not config.load(project(tmp_path, "[tool.neural_coder]\n")).configurations.anything


@pytest.mark.parametrize("given", ["", "0", "1,0", "1,,2", "eight", "-1", [1.5], [True], [], [None], 0, True])
def test_what_is_no_list_of_numbers_is_refused(given: object) -> None:
    with pytest.raises(UserError, match="such as 1,8,32"):
        config.parse_numbers(given)  # type: ignore[arg-type]


def test_an_unknown_mode_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match="there are latency, throughput, multi-instance"):
        config.parse_mode("fast")


def test_the_nearest_file_counts_for_files_and_folders_below(tmp_path: Path) -> None:
    project(tmp_path, "[tool.neural_coder]\naccuracy = 0.05\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    script = tmp_path / "a" / "b" / "train.py"
    script.touch()
    assert config.load(script).accuracy.amount == 0.05
    project(tmp_path / "a", "[tool.neural_coder]\naccuracy = 0.02\n")
    assert config.load(script).accuracy.amount == 0.02


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[tool.neural_coder]\nacuracy = 0.01", "did you mean 'accuracy'"),
        ("[tool.neural_coder]\nlower-is-better = true", "did you mean 'lower_is_better'"),
        ("[tool.neural_coder]\nxyzzy = 1", "there are accuracy, batch_size, budget"),
        ("[tool.neural-coder]\naccuracy = 0.01", "with an underscore"),
        ("[tool]\nneural_coder = 3", "must be a table"),
        ("[tool.neural_coder", "not valid TOML"),
        ("[tool.neural_coder]\naccuracy = [1]", "accuracy of .* neither a text nor a number"),
        ("[tool.neural_coder]\naccuracy = 3", "accuracy of .* write 1%"),
        ("[tool.neural_coder]\nbudget = 'soon'", "budget of .* write 90s"),
        ("[tool.neural_coder]\nlower_is_better = 'yes'", "neither true nor false"),
        ("[tool.neural_coder]\nexclude = 'a'", "list of patterns"),
        ("[tool.neural_coder]\nfeatures = [1]", "list of names"),
        ("[tool.neural_coder]\nmetric = 3", "NAME=REGEX"),
        ("[tool.neural_coder]\nmetric = ['a=(b)', 3]", "NAME=REGEX"),
        ("[tool.neural_coder]\npython = 3", "path of an interpreter"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_file(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        config.load(project(tmp_path, table))
    assert "pyproject.toml" in str(caught.value)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe[tool")
    with pytest.raises(UserError, match="not valid TOML"):
        config.load(tmp_path)


def test_interpreters_may_be_a_table(tmp_path: Path) -> None:
    table = '[tool.neural_coder.python]\nscript = ".venv/bin/python"\nipex = "/envs/ipex/bin/python"\n'
    settings = config.load(project(tmp_path, table))
    assert settings.python == tmp_path.resolve() / ".venv/bin/python"
    assert settings.pythons == {"ipex": Path("/envs/ipex/bin/python")}
    assert config.interpreter(tmp_path) == tmp_path.resolve() / ".venv/bin/python"


def test_a_table_of_interpreters_names_engines_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'ipx' is no engine"):
        config.load(project(tmp_path, '[tool.neural_coder]\npython = { ipx = "python3" }\n'))
