"""What the worker sees of a script's models, on real scripts with PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from projects import Project

from neural_coder.bench.protocol import Mark
from neural_coder.bench.runner import run
from neural_coder.records import Observation, ObservedCall, Run, Span

pytestmark = pytest.mark.torch

APP = r'''\
"""Models from a registry and from texts; called in threads, by a library, by scripted and compiled code."""
import copy
import functools
import importlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from somelib.training import Trainer
from torch import nn

REGISTRY = {}


def register(cls):
    REGISTRY[cls.__name__.lower()] = cls
    return cls


@register
class Tagger(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, width), nn.ReLU())
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.body(x))


def build(settings):
    module, _, name = settings["class"].rpartition(".")
    cls = REGISTRY[name] if module == "registry" else getattr(importlib.import_module(module), name)
    return cls(*settings["args"])


class Rows(torch.utils.data.Dataset):
    def __init__(self, model):
        self.model = model

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.model(torch.full((8,), float(index))).detach()


torch.manual_seed(0)
one = build(json.loads('{"class": "registry.tagger", "args": [16]}'))
two = build({"class": "torch.nn.Linear", "args": [4, 2]})
optimizer = torch.optim.SGD([*one.parameters(), *two.parameters()], lr=0.1)
loss_of = nn.MSELoss()
for step in range(7):
    loss = loss_of(two(one(torch.randn(3, 8))), torch.zeros(3, 2))  # train
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
one.eval()
total = 0.0
with torch.no_grad():
    exec("def score(model, x):\n    return model(x)\nanswer = score(one, torch.ones(1, 8))")  # exec
    total += float(answer.sum())
    total += float(one.forward(torch.ones(2, 8)).sum())  # direct
    total += float(functools.partial(one, torch.ones(5, 8))().sum())  # partial
    with ThreadPoolExecutor(2) as pool:
        total += sum(float(y.sum()) for y in pool.map(one, torch.ones(4, 1, 8)))  # pool
    thread = threading.Thread(target=lambda: one(torch.ones(1, 8)))  # thread
    thread.start()
    thread.join()
    traced = torch.jit.trace(one, torch.ones(1, 8))
    frozen = torch.jit.freeze(torch.jit.script(one))
    total += float(traced(torch.ones(1, 8)).sum())  # traced
    total += float(frozen(torch.ones(1, 8)).sum())  # frozen
    for batch in torch.utils.data.DataLoader(Rows(one), batch_size=2, num_workers=2):
        total += float(two(batch).sum())  # loader
    total += float(copy.deepcopy(two)(torch.ones(1, 4)).sum())  # copied


def main():
    net = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1))
    trainer = Trainer(net, steps=5)
    trainer.fit(torch.ones(6, 8))  # fit
    total = float(trainer.predict(torch.ones(2, 8)).sum())  # predict
    quick = torch.compile(net, backend="eager", fullgraph=True)
    for _ in range(3):
        total += float(quick(torch.ones(3, 8)).sum())  # compiled

    @torch.compile(backend="eager", fullgraph=True)
    def step(x):
        return net(x).sum()  # inner

    for _ in range(4):
        total += float(step(torch.ones(2, 8)))  # function
    return total


print("total:", total + main())
'''

LIBRARY = '''\
"""A trainer as libraries have them: the loop is here, the model and its step are the user's."""
import torch


class Trainer:
    def __init__(self, model, steps):
        self.model, self.steps = model, steps

    def fit(self, data):
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        for _ in range(self.steps):
            self._step(data, optimizer)

    def _step(self, data, optimizer):
        optimizer.zero_grad()
        self.model(data).sum().backward()
        optimizer.step()

    @torch.no_grad()
    def predict(self, data):
        return self.model(data)
'''

TOTAL = r"total: (\S+)"


def line_of(text: str, tag: str) -> int:
    """The line with a comment."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.endswith(f"# {tag}"))


def observe(project: Project, **settings: Any) -> tuple[Run, Observation]:
    """Run a project to its end, only to look at it."""
    result = run(project.job(observe=True, to_the_end=True, stop_after=90.0, timeout=100.0, **settings))
    assert result.ok, result.ending
    assert result.observed is not None
    assert result.observed.problems == ()
    return result, result.observed


def at(seen: Observation, text: str, tag: str) -> ObservedCall:
    """The one kind of call that was seen at a line."""
    (call,) = [call for call in seen.calls if call.frames[0].line == line_of(text, tag)]
    return call


def app(folder: Path) -> tuple[Project, dict[str, str]]:
    """The program, and the library that it uses."""
    library = folder / "site" / "somelib" / "training.py"
    library.parent.mkdir(parents=True)
    library.write_text(LIBRARY)
    return Project(folder / "app", APP), {"PYTHONPATH": str(folder / "site")}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Observation]:
    project, environment = app(tmp_path_factory.mktemp("observed"))
    return observe(project, pattern=TOTAL, environment=environment)


@pytest.fixture(scope="module")
def seen(done: tuple[Run, Observation]) -> Observation:
    return done[1]


def test_calls_in_training_are_seen_with_mode_gradients_and_shapes(seen: Observation) -> None:
    calls = [call for call in seen.calls if call.frames[0].line == line_of(APP, "train")]
    assert {call.name: call.calls for call in calls} == {"Tagger": 7, "Linear": 7}
    for call in calls:
        (mode,) = call.modes
        assert (mode.training, mode.grad_mode, mode.backward) == (True, "enabled", True)
        assert mode.signatures == ("float32[3, 8]" if call.name == "Tagger" else "float32[3, 4]",)
        assert 0 < mode.seconds < seen.seconds


def test_models_from_a_registry_and_from_a_text_are_seen_where_they_are_built(seen: Observation) -> None:
    built = {model.name: model for model in seen.models if model.frames[0].function == "build"}
    assert built["Tagger"].parameters == 8 * 16 + 16 + 16 * 4 + 4
    assert built["Linear"].parameters == 10
    for name in ("Tagger", "Linear"):
        assert [frame.function for frame in built[name].frames] == ["build", "<module>"]
        assert built[name].called
    assert not any("__init__" in frame.function for model in seen.models for frame in model.frames)


def test_executed_text_is_attributed_to_the_line_that_led_there(seen: Observation) -> None:
    call = at(seen, APP, "exec")
    assert call.through == ("<string>:3 <module>", "<string>:2 score")
    (mode,) = call.modes
    assert (mode.training, mode.grad_mode, mode.backward, call.calls) == (False, "no_grad", False, 1)


def test_forward_and_partial_are_calls_of_the_whole_model(seen: Observation) -> None:
    direct, partial = at(seen, APP, "direct"), at(seen, APP, "partial")
    assert (direct.name, direct.direct, direct.calls) == ("Tagger", True, 1)
    assert (partial.name, partial.direct, partial.calls) == ("Tagger", False, 1)


def test_calls_in_threads_are_attributed_to_where_the_thread_was_started(seen: Observation) -> None:
    pool, thread = at(seen, APP, "pool"), at(seen, APP, "thread")
    assert (pool.calls, thread.calls) == (4, 1)
    assert any(step.startswith("concurrent/futures/thread.py") for step in pool.through)
    assert [frame.line - line_of(APP, "thread") for frame in thread.frames] == [0, 1]


def test_scripted_modules_are_called_by_the_name_of_their_class(seen: Observation) -> None:
    for tag in ("traced", "frozen"):
        call = at(seen, APP, tag)
        assert (call.name, call.form, call.calls) == ("Tagger", "scripted", 1)


def test_worker_processes_add_nothing_and_copies_are_models(seen: Observation) -> None:
    inside = APP.splitlines().index("        return self.model(torch.full((8,), float(index))).detach()") + 1
    assert not [call for call in seen.calls if any(frame.line == inside for frame in call.frames)]
    assert at(seen, APP, "loader").calls == 3
    copied = at(seen, APP, "copied")
    (number,) = copied.built
    assert next(model.how for model in seen.models if model.number == number) == "restored"


def test_calls_in_a_library_are_attributed_to_the_project(seen: Observation) -> None:
    fit, predict = at(seen, APP, "fit"), at(seen, APP, "predict")
    assert (fit.name, fit.calls, fit.modes[0].backward) == ("Sequential", 5, True)
    assert fit.through == ("somelib/training.py:12 Trainer.fit", "somelib/training.py:16 Trainer._step")
    assert [frame.function for frame in fit.frames] == ["main", "<module>"]
    assert (predict.calls, predict.modes[0].grad_mode, predict.modes[0].backward) == (1, "no_grad", False)
    assert fit.built == predict.built


def test_compiled_modules_and_functions_are_seen_and_still_compile_to_one_graph(
    seen: Observation,
) -> None:
    compiled, function = at(seen, APP, "compiled"), at(seen, APP, "function")
    assert (compiled.name, compiled.form, compiled.calls) == ("Sequential", "compiled", 3)
    assert (function.name, function.form, function.calls) == ("Sequential", "compiled", 4)
    assert compiled.built == function.built == at(seen, APP, "fit").built
    assert seen.compiled_graphs == 2


def test_results_are_the_same_as_without_observation(done: tuple[Run, Observation], tmp_path: Path) -> None:
    project, environment = app(tmp_path)
    plain = run(project.job(to_the_end=True, stop_after=90.0, pattern=TOTAL, environment=environment))
    assert plain.ok, plain.ending
    assert plain.observed is None
    assert plain.metric == done[0].metric


def test_a_script_that_goes_on_for_ever_is_stopped_and_reported(tmp_path: Path) -> None:
    """The script itself brings the end of its time nearer, so that a busy machine changes nothing."""
    text = (
        "import signal, time, torch\nnet = torch.nn.Linear(3, 3)\nnet(torch.ones(1, 3))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.1)\nwhile True:\n    time.sleep(60)\n"
    )
    result = run(Project(tmp_path, text).job(observe=True, to_the_end=True, stop_after=90.0, timeout=100.0))
    assert result.ok, result.ending
    assert not result.ended_by_itself
    assert result.observed is not None
    assert [call.calls for call in result.observed.calls] == [1]
    assert result.observed.seconds < 80


def test_what_ran_is_counted_and_a_module_that_cannot_be_looked_at_fails_nothing(tmp_path: Path) -> None:
    text = (
        "import torch\nnet = torch.nn.Linear(3, 3)\nif not net:\n    other = torch.nn.Linear(3, 3)\n"
        "for _ in range(3):\n    y = net(torch.ones(1, 3))\nask = lambda x: net(x)\n"
        "class Odd(torch.nn.Linear):\n    def parameters(self, recurse=True):\n"
        "        raise RuntimeError('not now')\n\nodd = Odd(3, 3)\nodd(torch.ones(1, 3))\nprint('total: 1')\n"
    )
    project = Project(tmp_path, text).probe("seen", "net(torch.ones(1, 3))").probe("seen", "net(x)")
    marks = {
        project.script: (
            Mark(site="net", statement=Span(line=2, column=0, end_line=2, end_column=27)),
            Mark(site="other", statement=Span(line=4, column=4, end_line=4, end_column=33)),
        )
    }
    result = run(project.job(observe=True, to_the_end=True, stop_after=60.0, pattern=TOTAL, marks=marks))
    assert result.ok, result.ending
    assert result.metric == 1.0
    assert result.observed is not None
    assert result.observed.reached == {"main.py:seen:0": 3, "main.py:seen:1": 0, "net": 1, "other": 0}
    assert [call.calls for call in result.observed.calls] == [3]
    assert any("Odd" in problem and "not now" in problem for problem in result.observed.problems)
