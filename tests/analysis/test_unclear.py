"""What could not be decided is listed with its reason, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from neural_coder.analysis import Project, analyze, machine
from neural_coder.records import Unclear


def unclear(folder: Path, text: str, **files: str) -> tuple[Unclear, ...]:
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content)
    script = folder / "script.py"
    script.write_text("import torch\n" + text)
    return analyze(script, Project(folder)).unclear


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (
            "from acme import build\nmodel = build(3)\nmodel(torch.ones(1))\n",
            3,
            "`model` is called like a model, but what `build` gives is not known",
        ),
        (
            "from acme import build\nmodel = build(**settings)\nmodel(torch.ones(1))\n",
            3,
            "`model` is called like a model, but what `build` gives is not known, "
            "and its arguments come from elsewhere (`**`)",
        ),
        (
            "import acme\nnet = getattr(acme, name)(3)\nnet(torch.ones(1))\n",
            3,
            "`net` is called like a model, but what `getattr(acme, name)` is shows only when the script runs "
            "(`getattr`)",
        ),
        (
            "import importlib\nnet = importlib.import_module(name).Net(3)\nnet(torch.ones(1))\n",
            3,
            "`net` is called like a model, but what `importlib.import_module(name).Net` is shows only when the script "
            "runs (`importlib.import_module`)",
        ),
        (
            "net = eval(name)(3)\nnet(torch.ones(1))\n",
            2,
            "`net` is called like a model, but what `eval(name)` is shows only when the script runs (`eval`)",
        ),
        (
            "from hydra.utils import instantiate\nnet = instantiate(cfg.thing)\nnet(torch.ones(1))\n",
            3,
            "`net` is called like a model, but what `instantiate` builds is not said in the code",
        ),
        (
            "from hydra.utils import instantiate\nnet = instantiate(cfg.net)\nnet(torch.ones(1))\n",
            3,
            "`net` is taken for a model only because of how it is named and called",
        ),
        (
            "from acme import session\nwith torch.no_grad():\n    out = session.open().model(torch.ones(1))\n"
            "    out = thing.model(torch.ones(1))\n    thing.model(out)\n",
            5,
            "`thing.model` is called like a model, but what `thing` is is not known",
        ),
        ("exec(open('net.py').read())\n", 2, "what is executed here shows only when the script runs"),
    ],
)
def test_each_kind_of_doubt_has_its_reason(tmp_path: Path, text: str, line: int, reason: str) -> None:
    assert [(item.line, item.reason) for item in unclear(tmp_path, text)] == [(line, reason)]


def test_a_file_that_cannot_be_parsed_is_named_where_it_is_imported(tmp_path: Path) -> None:
    (found,) = unclear(tmp_path, "from broken import build\nnumber = build()\n", broken="def build(:\n")
    assert found.line == 2
    assert found.text == "from broken import build"
    assert "`broken.py` was not looked into:" in found.reason
    assert "broken.py:1:" in found.reason


def test_a_script_that_is_too_large_to_follow_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MAX_STEPS", 4)
    (found,) = unclear(
        tmp_path, "def g(x):\n    return x\n\ndef f(x):\n    return g(x)\n\na = torch.nn.Linear(1, 1)\nb = 2\nf(a)\n"
    )
    assert (found.line, found.text) == (6, "g")
    assert "too large" in found.reason


@pytest.mark.parametrize(
    "text",
    [
        "model = torch.nn.Linear(1, 1)\nmodel(torch.ones(1))\n",
        "from acme import build\nmodel = build(3)\nmodel.save()\n",
        "from acme import build\nwidth = build(3)\nwidth(1)\n",
        "import tensorflow as tf\nmodel = tf.keras.models.load_model('a')\nmodel(torch.ones(1))\n",
        "from openvino import Core\nmodel = Core().compile_model('a')\nmodel(torch.ones(1))\n",
        "class Plain:\n    def __call__(self, x):\n        return x\n\nmodel = Plain()\nmodel(torch.ones(1))\n",
        "class Net(torch.nn.Module):\n    def forward(self, x):\n        return self.encoder(x)\n",
        "class Net(torch.nn.Module):\n    def loss(self, x):\n        return self.encoder(x)\n",
        "value = eval('1 + 1')\n",
        "tools.save_model(thing)\n",
        "thing.model_class(3)\n",
        "from acme import make\nloss_model = make()\nloss_model(torch.ones(1))\n",
        "def build():\n    return torch.nn.Linear(1, 1)\n\nmodel = build()\nmodel(torch.ones(1))\n",
    ],
)
def test_what_is_known_or_no_model_is_not_listed(tmp_path: Path, text: str) -> None:
    assert unclear(tmp_path, text) == ()


def test_a_name_is_listed_once(tmp_path: Path) -> None:
    text = "def run(a):\n    a.model(torch.ones(1))\n    a.model(torch.ones(2))\n\ndef again(a):\n    a.model(a)\n"
    assert [item.line for item in unclear(tmp_path, text)] == [3]


def test_the_list_stays_short(tmp_path: Path) -> None:
    text = "".join(f"thing{number}.model(torch.ones(1))\n" for number in range(20))
    found = unclear(tmp_path, text)
    assert len(found) == 8
    assert found[-1].reason.endswith("(and 12 more such places)")
