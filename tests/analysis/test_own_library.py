"""A project may itself be a library of the catalogue, or a fork of one: then its files count beside the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest

from neural_coder.analysis import Project, analyze

THINGS = """\
import torch


class DataLoader(torch.utils.data.DataLoader):
    pass


class Net(torch.nn.Module):
    def forward(self, x):
        return x
"""
USES = """\
def run(data):
    net = Net()
    loader = DataLoader(data)
    for x in loader:
        net(x)
"""


def lay(root: Path, start: str, package: str = "__init__.py") -> Path:
    (root / "flair").mkdir(parents=True)
    (root / "flair" / package).touch()
    (root / "flair" / "things.py").write_text(THINGS)
    script = root / "script.py"
    script.write_text(f"import torch\n{start}\n\n\n{USES}")
    return script


@pytest.mark.parametrize(
    "start",
    [
        "from flair.things import DataLoader, Net",
        "import flair.things as t\n\nNet, DataLoader = t.Net, t.DataLoader",
        "from flair.things import *",
    ],
)
@pytest.mark.parametrize("folder", ["", "src"])
def test_what_the_library_itself_defines_is_known_in_its_own_repo(tmp_path: Path, start: str, folder: str) -> None:
    script = lay(tmp_path / folder, start)
    if folder:
        script = script.rename(tmp_path / script.name)
    facts = analyze(script, Project(tmp_path))
    assert [model.name for model in facts.models] == ["net"]
    assert [loader.name for loader in facts.dataloaders] == ["loader"]
    assert len(facts.inference) == 1


def test_the_catalogue_goes_before_the_librarys_own_code(tmp_path: Path) -> None:
    """`flair.nn.Model` is in the catalogue; how the library makes it a module need not be understood."""
    (tmp_path / "flair" / "nn").mkdir(parents=True)
    for folder in ("flair", "flair/nn"):
        (tmp_path / folder / "__init__.py").write_text("Model = magic()\n")
    script = tmp_path / "script.py"
    script.write_text("import flair.nn\n\n\nclass Tagger(flair.nn.Model):\n    pass\n\n\ntagger = Tagger()\n")
    assert [model.name for model in analyze(script, Project(tmp_path)).models] == ["tagger"]


def test_a_mere_folder_of_a_librarys_name_is_not_the_library(tmp_path: Path) -> None:
    script = lay(tmp_path, "from flair.things import DataLoader, Net", package="other.py")
    assert not analyze(script, Project(tmp_path)).models


def test_a_file_of_a_librarys_name_in_a_package_is_not_the_library(tmp_path: Path) -> None:
    """`transformers/integrations/peft.py`: inside of packages, imports start elsewhere."""
    script = lay(tmp_path, "from flair.things import DataLoader, Net")
    (tmp_path / "__init__.py").touch()
    assert not analyze(script, Project(tmp_path)).models
