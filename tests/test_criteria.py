from __future__ import annotations

from pathlib import Path

import pytest

from neural_coder.criteria import AllowedLoss, as_option, criterion, parse_accuracy, parse_metric
from neural_coder.errors import UserError
from neural_coder.records import Criterion, Metric

HERE = Path("/project")


@pytest.mark.parametrize(
    ("text", "loss"), [("1%", 0.01), ("0.01", 0.01), ("0", 0.0), ("2.5 %", 0.025), (0.03, 0.03), ("50%", 0.5), (0, 0.0)]
)
def test_losses_are_read_as_people_write_them(text: str | float, loss: float) -> None:
    assert parse_accuracy(text) == AllowedLoss(amount=loss)


@pytest.mark.parametrize(("text", "loss"), [("0.5abs", 0.5), (" 12 abs ", 12.0), ("0abs", 0.0), ("1e-3abs", 0.001)])
def test_absolute_losses_say_so(text: str, loss: float) -> None:
    assert parse_accuracy(text) == AllowedLoss(amount=loss, absolute=True)


@pytest.mark.parametrize("text", ["1", 1, "100%", "-1%", "", "%", "good", "nan", True, 1.5])
def test_what_is_no_loss_is_refused(text: str | float) -> None:
    with pytest.raises(UserError, match=r"write 1% or 0\.01"):
        parse_accuracy(text)


@pytest.mark.parametrize("text", ["abs", "-1abs", "1%abs", "nanabs", "infabs", "some abs"])
def test_what_is_no_absolute_loss_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"such as 0\.5abs"):
        parse_accuracy(text)


def test_a_metric_has_a_name_and_a_pattern() -> None:
    found = parse_metric("acc=accuracy: ([0-9.]+)", HERE)
    assert found.metric == Metric(name="acc", pattern="accuracy: ([0-9.]+)")
    assert (found.lower_is_better, found.allowed) == (None, None)


def test_a_pattern_may_hold_equal_signs_and_colons() -> None:
    assert parse_metric("F1 score=f1:=([0-9.]+)", HERE).metric == Metric(name="F1 score", pattern="f1:=([0-9.]+)")


def test_a_direction_and_a_loss_stand_behind_colons_in_any_order() -> None:
    found = parse_metric("loss:lower:2%=loss ([0-9.]+)", HERE)
    assert (found.metric.name, found.lower_is_better, found.allowed) == ("loss", True, AllowedLoss(amount=0.02))
    other = parse_metric("bleu : 0.5abs : higher=bleu ([0-9.]+)", HERE)
    assert (other.lower_is_better, other.allowed) == (False, AllowedLoss(amount=0.5, absolute=True))


def test_a_function_is_named_by_its_file() -> None:
    assert parse_metric("top1=checks/metrics.py:top1", HERE).metric == Metric(
        name="top1", file=HERE / "checks" / "metrics.py", function="top1"
    )
    assert parse_metric("top1=/lib/m.py:top1", HERE).metric.file == Path("/lib/m.py")
    assert parse_metric("top1=~no_such_user/m.py:top1", HERE).metric.file == HERE / "~no_such_user" / "m.py"


def test_what_only_looks_like_a_function_is_a_pattern() -> None:
    assert parse_metric("n=main.py:(\\d+)", HERE).metric.pattern == "main.py:(\\d+)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy: ([0-9.]+)", "write NAME=REGEX"),
        ("=([0-9.]+)", "write NAME=REGEX"),
        ("acc=", "write NAME=REGEX"),
        ("acc=accuracy: ([0-9.]+", "no regular expression"),
        ("acc=accuracy: [0-9.]+", "put that into parentheses"),
        ("acc:low=accuracy: ([0-9.]+)", "neither lower, higher nor a loss"),
        ("acc:3=accuracy: ([0-9.]+)", "neither lower, higher nor a loss"),
        ("acc:lower:higher=accuracy: ([0-9.]+)", "a direction twice"),
        ("acc:1%:2%=accuracy: ([0-9.]+)", "an allowed loss twice"),
    ],
)
def test_a_wrong_metric_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_metric(text, HERE)


def test_what_is_said_for_all_metrics_holds_where_a_metric_says_nothing_else() -> None:
    given = [parse_metric(text, HERE) for text in ("a=a(.)", "b:higher:0.2abs=b(.)")]
    found = criterion(given, lower_is_better=True, allowed=AllowedLoss(amount=0.05))
    assert found == Criterion(
        relative_loss=0.05,
        metrics=(
            Metric(name="a", pattern="a(.)", lower_is_better=True, allowed=0.05),
            Metric(name="b", pattern="b(.)", allowed=0.2, absolute=True),
        ),
    )


def test_an_absolute_loss_needs_a_metric() -> None:
    absolute = AllowedLoss(amount=0.5, absolute=True)
    with pytest.raises(UserError, match="in the unit of a metric, and there is none"):
        criterion([], allowed=absolute)
    found = criterion([parse_metric("a=a(.)", HERE)], allowed=absolute)
    assert found.relative_loss == 0.01  # of outputs, where a batch size is forced upon the script


def test_two_metrics_have_two_names() -> None:
    with pytest.raises(UserError, match="Two metrics are called a"):
        criterion([parse_metric("a=a(.)", HERE), parse_metric("a=b(.)", HERE)])


@pytest.mark.parametrize("text", ["a:lower:0.02=a: (.)", "b:higher:0.5abs=b=(.)", "c:higher:1e-06={file}:c"])
def test_a_metric_is_written_as_it_is_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def c(names): ...\n")
    text = text.format(file=tmp_path / "m.py")
    (metric,) = criterion([parse_metric(text, HERE)]).metrics
    assert as_option(metric) == text


# --- the file of a function, which is read but never run

FILE = """\
raise SystemExit("this must never run")
import numpy as arrays
from elsewhere import borrowed as mine
def top1(names): return 1
if mine:
    half = whole = 1
class Score:
    def inner(self):
        local = 1
"""


@pytest.mark.parametrize("name", ["top1", "arrays", "mine", "half", "whole", "Score"])
def test_whatever_a_file_binds_may_be_its_function(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.py").write_text(FILE)
    criterion([parse_metric(f"a=m.py:{name}", tmp_path)])


@pytest.mark.parametrize("name", ["inner", "local", "numpy", "borrowed", "top2"])
def test_a_function_that_a_file_does_not_define_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.py").write_text(FILE)
    with pytest.raises(UserError, match="does not define"):
        criterion([parse_metric(f"a=m.py:{name}", tmp_path)])


def test_a_near_miss_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(FILE)
    with pytest.raises(UserError, match="did you mean 'top1'"):
        criterion([parse_metric("a=m.py:top_1", tmp_path)])


def test_what_comes_with_a_star_is_left_to_the_run(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("from elsewhere import *\n")
    criterion([parse_metric("a=m.py:anything", tmp_path)])


@pytest.mark.parametrize(("text", "message"), [(None, "no such file"), ("def f(:\n", r"not valid Python: .*m\.py:1")])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "m.py").write_text(text)
    with pytest.raises(UserError, match=message):
        criterion([parse_metric("a=m.py:f", tmp_path)])
