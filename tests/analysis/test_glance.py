"""The cheap look says no only to files in which the interpretation finds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from neural_coder import analysis
from neural_coder.analysis import Project, analyze, project
from neural_coder.analysis.glance import Glance
from neural_coder.records import Analysis

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = sorted((ROOT / "fixtures" / "scripts" / "package_app").glob("*.py"))
LIBRARY = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x):
        \"\"\"Call it so: `model = Block(3).cuda(); loss.backward()`.\"\"\"
        return self.inner(x) + self.scaled(x)

    def scaled(self, x):
        return x * rotate(x, torch.ones(1))

def rotate(x, y):
    return torch.cat([x, y]).float()
"""


def may_hold_sites(folder: Path, text: str, **others: str) -> bool:
    for name, other in others.items():
        (folder / f"{name}.py").write_text(other)
    file = folder / "script.py"
    file.write_text(text)
    return Glance(Project(folder)).may_hold_sites(file)


def test_definitions_of_modules_hold_no_site(tmp_path: Path) -> None:
    assert not may_hold_sites(tmp_path, LIBRARY)


def test_a_file_that_holds_no_site_is_not_interpreted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "interpreted", None)
    (tmp_path / "library.py").write_text(LIBRARY)
    assert analyze(tmp_path / "library.py", Project(tmp_path)).empty


@pytest.mark.parametrize(
    "text",
    [
        "net = Block(3)\n",
        "nets = {'a': Block}\nthing = nets[name](3)\n",
        "def train(loss):\n    loss.backward()\n",
        "def test(model, x):\n    return model(x)\n",
        "def test(thing: Block, x):\n    return thing(x)\n",
        "def test(thing, x):\n    thing.parameters()\n    return thing(x)\n",
        "class Runner:\n    thing: Block\n    def run(self, x):\n        return self.thing(x)\n",
        "class A:\n    def __init__(self, net):\n        self.net = net\n    def run(self):\n        self.net(1)\n",
        "batches = torch.utils.data.DataLoader(data)\n",
        "x = torch.ones(1).cuda()\n",
        "scaler = torch.amp.GradScaler()\n",
        "class Better(Block):\n    def predict(self, x):\n        return self(x)\n",
        "class Better(Block):\n    @classmethod\n    def build(cls):\n        net = cls(3)\n        return net\n",
        "thing = getattr(models, name)()\n",
        "from helpers import make\nthing = make()\n",
        "import helpers\nthing = helpers.make()\n",
        "from helpers import *\nthing = make()\n",
        "from helpers import Holder\nholder = Holder()\nholder.part(1)\n",
        "from helpers import Holder\nclass Mine(Holder):\n    def run(self, x):\n        return self.part(x)\n",
        "from broken import something\nthing = something()\n",
    ],
)
def test_what_may_hold_a_site_is_looked_at(tmp_path: Path, text: str) -> None:
    imports = "import torch\nfrom torch import nn\nimport torchvision.models as models\nfrom library import Block\n"
    helpers = (
        "from library import Block\n\ndef make():\n    return inner()\n\ndef inner():\n    return Block(3)\n\n"
        "class Holder:\n    def __init__(self):\n        self.part = Block(3)\n"
    )
    assert may_hold_sites(tmp_path, imports + text, library=LIBRARY, helpers=helpers, broken="def (:\n")


def sites(facts: Analysis) -> dict[str, list[int]]:
    return {
        "models": [model.line for model in facts.models],
        "inference": [call.line for call in facts.inference],
        "training": [call.line for call in facts.training],
        "dataloaders": [loader.line for loader in facts.dataloaders],
    }


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.stem)
def test_files_that_are_run_only_by_need_tell_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = sites(analyze(path, Project.find(path)))
    monkeypatch.setattr(project, "EAGER_FILES", 0)
    assert sites(analyze(path, Project.find(path))) == at_once


def test_the_look_at_one_file_serves_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "library.py").write_text(LIBRARY)
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("import torch\nfrom library import rotate\nprint(rotate(1, 2))\n")
    glance = Glance(Project(tmp_path))
    assert not glance.may_hold_sites(tmp_path / "one.py")
    monkeypatch.setattr(project.Project, "_find_absolute", None)
    assert not glance.may_hold_sites(tmp_path / "one.py")
    (tmp_path / "library.py").unlink()
    monkeypatch.undo()
    assert not glance.may_hold_sites(tmp_path / "two.py")
