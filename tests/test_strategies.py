"""What each strategy finds, in spaces whose answers are known by construction."""

from __future__ import annotations

import contextlib
import random

import pytest

from neural_coder import registry
from neural_coder.errors import UserError
from neural_coder.tuning import Limits, Point, Search, Space, Trial, outcome, pareto, tuner
from neural_coder.tuning.search import Enough
from neural_coder.tuning.strategies.basic import grouped

MODEL_BASED = ("bayesian", "sigopt")
NAMES = [name for name in registry.strategies() if name not in MODEL_BASED]


class Model:
    """A made-up model: what each operator costs quantized, and what its quantization loses (1 is allowed in all)."""

    def __init__(
        self,
        count,
        losses,
        *,
        knobs=None,
        helps=None,
        helped=0.5,
        bf16_loses=0.05,
        order=None,
        looked=False,
        seconds=0.0,
    ):
        names = [f"layer.{number}" for number in range(count)]
        self.loses = {name: losses.get(name, 0.2 / count) for name in names}
        self.helps, self.helped, self.bf16_loses = helps, helped, bf16_loses
        self.calls, self.seconds = [], seconds
        ranked = order or sorted(names, key=lambda name: -self.loses[name])
        self.space = Space(
            operators=tuple(ranked),
            errors=dict(self.loses),
            impacts={name: 1 / (1 + place) for place, name in enumerate(ranked)} if looked else {},
            fallbacks=("bf16", "fp32"),
            knobs=knobs or {},
        )

    def __call__(self, point):
        self.calls.append(point)
        left = set(point.exclude)
        slow = {"bf16": 2.0, "fp32": 4.0}[point.fallback]
        time = sum(slow if name in left else 1.0 for name in self.loses) / len(self.loses)
        loss = sum(lost for name, lost in self.loses.items() if name not in left)
        loss = loss * (self.helped if self.helps in point.settings else 1.0) + self.bf16_loses * (
            point.fallback == "bf16"
        )
        return Trial(
            point=point,
            kept=loss <= 1,
            speedup=6 / time,
            loss=loss,
            memory_bytes=10**8 + len(left),
            seconds=self.seconds,
        )


def searched(name, model, trials=25, seed=0):
    search = Search(model, Limits(trials=trials, seconds=60))
    with contextlib.suppress(Enough):
        for trial in registry.strategy(name)().trials(model.space, search, random.Random(seed)):
            assert trial in search.trials
    return search


@pytest.mark.parametrize("name", NAMES)
def test_a_single_sensitive_operator_is_left_out(name):
    best = searched(name, Model(5, {"layer.3": 5.0})).best
    assert best.kept
    assert "layer.3" in best.point.exclude
    assert best.speedup > 6 / 2  # everything in bf16


@pytest.mark.parametrize("name", ["basic", "mse"])
def test_one_sensitive_operator_among_many_costs_few_trials(name):
    search = searched(name, Model(48, {"layer.20": 4.0}))
    assert search.best.point.exclude == ("layer.20",)
    assert len(search.trials) <= 25


@pytest.mark.parametrize("name", ["basic", "mse"])
def test_several_operators_fall_back_together_and_no_more_than_needed(name):
    best = searched(name, Model(30, {"layer.4": 0.9, "layer.9": 0.8, "layer.17": 0.7}), trials=40).best
    assert {"layer.4", "layer.9"} <= set(best.point.exclude)
    assert len(best.point.exclude) <= 4


def test_basic_finds_culprits_that_the_look_beforehand_took_for_harmless():
    names = [f"layer.{number}" for number in range(20)]
    best = searched("basic", Model(20, {"layer.19": 4.0}, order=names), trials=30).best
    assert "layer.19" in best.point.exclude
    assert len(best.point.exclude) <= 4


def test_basic_trusts_what_the_look_beforehand_has_measured_before_it_tries_operators_alone():
    losses = {"layer.4": 0.9, "layer.9": 0.8, "layer.17": 0.7, "layer.30": 0.6, "layer.31": 0.5}
    search = searched("basic", Model(50, losses, looked=True))
    assert [len(trial.point.exclude) for trial in search.trials[2:5]] == [1, 2, 4]
    assert {"layer.4", "layer.9", "layer.17"} <= set(search.best.point.exclude)
    assert len(search.trials) <= 6


def test_basic_asks_each_operator_where_that_look_was_wrong():
    names = [f"layer.{number}" for number in range(20)]
    best = searched("basic", Model(20, {"layer.19": 4.0}, order=names, looked=True), trials=30).best
    assert "layer.19" in best.point.exclude
    assert len(best.point.exclude) <= 4


def test_basic_leaves_time_for_operators_where_trials_take_long():
    knobs = {"preset": ("mixed",), "observer": ("percentile", "mse", "entropy"), "alpha": (0.3, 0.5, 0.7)}
    search = searched("basic", Model(30, {"layer.4": 3.0}, knobs=knobs, looked=True, seconds=6.0), trials=20)
    assert sum(bool(trial.point.settings) for trial in search.trials) == 2
    assert search.best.point.exclude == ("layer.4",)


@pytest.mark.parametrize(("share", "kept"), [(0.9, False), (0.5, True)])
def test_basic_keeps_a_setting_while_operators_fall_back_only_where_it_helps_much(share, kept):
    setting = ("observer", "percentile")
    model = Model(8, {"layer.1": 4.0}, knobs={"observer": ("percentile",)}, helps=setting, helped=share, looked=True)
    best = searched("basic", model).best
    assert best.point.exclude == ("layer.1",)
    assert (setting in best.point.settings) == kept


def test_basic_lets_no_operator_fall_back_where_a_setting_suffices():
    model = Model(6, {"layer.1": 1.2}, knobs={"observer": ("minmax", "percentile")}, helps=("observer", "percentile"))
    best = searched("basic", model).best
    assert best.point == Point(fallback="bf16", settings=(("observer", "percentile"),))


@pytest.mark.parametrize("name", ["basic", "mse"])
def test_fp32_is_the_last_resort(name):
    best = searched(name, Model(4, {"layer.2": 3.0}, bf16_loses=1.5), trials=40).best
    assert best.point.fallback == "fp32"
    assert best.point.exclude == ("layer.2",)


def test_mse_quantizes_again_what_need_not_fall_back():
    model = Model(8, {"layer.5": 2.0})
    model.space = Space(
        operators=model.space.operators,
        errors={name: 10.0**number for number, name in enumerate(sorted(model.loses))},  # 7, 6, 5: the third by error
        fallbacks=("bf16",),
    )
    search = searched("mse", model)
    assert [len(trial.point.exclude) for trial in search.trials[:4]] == [0, 1, 2, 4]
    assert search.best.point.exclude == ("layer.5",)


def test_mse_begins_with_what_does_most_to_the_outputs_where_errors_are_alike():
    model = Model(8, {"layer.5": 2.0})
    alike = {name: 0.014 for name in model.loses} | {"layer.5": 0.005}
    model.space = Space(operators=model.space.operators, errors=alike, fallbacks=("bf16",))
    search = searched("mse", model)
    assert [trial.point.exclude for trial in search.trials[:2]] == [(), ("layer.5",)]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_trials(name):
    knobs = {"preset": ("mixed",)}
    one, other = (Model(12, {"layer.3": 2.0, "layer.7": 1.0}, knobs=knobs) for _ in range(2))
    searched(name, one, trials=12, seed=7)
    searched(name, other, trials=12, seed=7)
    assert one.calls == other.calls


def test_another_seed_gives_other_random_trials():
    one, other = Model(12, {}), Model(12, {})
    searched("random", one, seed=1)
    searched("random", other, seed=2)
    assert one.calls != other.calls


@pytest.mark.parametrize("name", NAMES)
def test_no_strategy_makes_more_trials_than_allowed_or_one_twice(name):
    model = Model(40, {f"layer.{number}": 3.0 for number in range(40)}, knobs={"alpha": (0.5,)})
    search = searched(name, model, trials=7)
    assert len(search.trials) == len(model.calls) == len(set(model.calls)) <= 7


def test_exhaustive_and_random_try_a_small_space_whole():
    for name in ("exhaustive", "random"):
        model = Model(3, {}, knobs={"preset": ("mixed",)})
        searched(name, model, trials=1000)
        assert len(set(model.calls)) == 2**3 * 2 * 2


def test_a_search_ends_when_its_time_is_up():
    now = iter(range(0, 1000, 10))
    model = Model(5, {"layer.1": 2.0})
    search = Search(model, Limits(trials=50, seconds=45), now=lambda: next(now))
    points = [model.space.point([name]) for name in model.space.operators]
    with pytest.raises(Enough, match="time"):
        list(map(search.evaluate, points))
    assert 1 <= len(search.trials) < 5


def test_failed_trials_are_no_answer():
    def broken(point):
        return Trial(point=point, kept=False, speedup=0.0, loss=None)

    space = Model(4, {}).space
    for name in ("basic", "mse"):
        search = Search(broken, Limits(trials=30, seconds=60))
        list(registry.strategy(name)().trials(space, search, random.Random(0)))
        assert search.best is None


@pytest.mark.torch
@pytest.mark.parametrize("name", MODEL_BASED)
def test_a_gaussian_process_learns_what_must_be_left_out_and_repeats_itself(name):
    pytest.importorskip("optuna")
    knobs = {"preset": ("mixed",)}
    one, other = (Model(6, {"layer.3": 2.0, "layer.1": 0.5}, knobs=knobs) for _ in range(2))
    search = searched(name, one, trials=12, seed=7)
    searched(name, other, trials=6, seed=7)
    assert "layer.3" in search.best.point.exclude
    assert search.best.speedup > 6 / 2  # everything in bf16
    assert len(one.calls) == len(set(one.calls)) <= 12
    # The share of trials that are drawn at random follows from their number; the first three are in both.
    assert one.calls[:3] == other.calls[:3]


@pytest.mark.torch
@pytest.mark.parametrize("name", MODEL_BASED)
def test_a_gaussian_process_begins_with_the_most_suspicious_operators_and_nothing_else(name):
    pytest.importorskip("optuna")
    knobs = {"preset": ("mixed",)}
    model = Model(20, {"layer.3": 2.0, "layer.1": 1.9, "layer.7": 1.8}, knobs=knobs)
    search = searched(name, model, trials=4, seed=3)
    most = model.space.operators
    assert [trial.point for trial in search.trials] == [model.space.point(most[:number]) for number in (0, 1, 2, 4)]


def test_the_pareto_front_holds_what_nothing_else_beats_in_everything():
    def trial(speedup, memory, kept=True):
        return Trial(point=Point(fallback="bf16"), kept=kept, speedup=speedup, loss=0.0, memory_bytes=memory)

    fast, small, beaten, lost = trial(4, 400), trial(2, 100), trial(2, 300), trial(9, 50, kept=False)
    assert pareto([beaten, small, lost, fast]) == (small, fast)


def test_groups_double_behind_the_most_suspicious_operators():
    names = [str(number) for number in range(12)]
    assert [len(group) for group in grouped(names)] == [1, 1, 1, 2, 4, 3]
    assert [name for group in grouped(names) for name in group] == names


def test_a_strategy_that_does_not_exist_is_told_with_those_that_do():
    with pytest.raises(UserError, match="basic, bayesian, exhaustive, mse, random, sigopt"):
        tuner.check(outcome.Wish(strategy="bayes"))


def test_what_a_strategy_lacks_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(registry.strategy("bayesian"), "needs", ("surely_not_there",))
    with pytest.raises(UserError, match=r"surely_not_there: pip install 'neural-coder\[tuning\]'"):
        tuner.check(outcome.Wish(strategy="bayesian"))
