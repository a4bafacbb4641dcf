"""What an analysis looked at must be known however much of it was known before from other files."""

from __future__ import annotations

import itertools

import pytest

from neural_coder.analysis import Project, analyze
from neural_coder.analysis.footprint import Footprint, Remembered, Watch

FILES = {
    "one.py": "import torch\nfrom nets.blocks import Block\nfrom helpers import build\n\nnet = build(Block)\nnet(1)\n",
    "two.py": "from helpers import build\nfrom nets import Net\n\nmodel = Net()\nmodel(1)\nother = build(Net)\n",
    "three.py": "import nets.blocks\nimport missing\n\nmodel = nets.blocks.Block()\nmodel(1)\n",
    "helpers.py": "from nets import Net\n\n\ndef build(kind=Net):\n    return kind()\n",
    "nets/__init__.py": "from nets.blocks import Block\nfrom .base import Base\n\n\nclass Net(Base):\n    b = Block\n",
    "nets/base.py": "import torch\nimport nets\n\n\nclass Base(torch.nn.Module):\n    kind = nets.Net\n",
    "nets/blocks.py": "from .base import Base\n\n\nclass Block(Base):\n    def forward(self, x):\n        return x\n",
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "setup.py").touch()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def looked_at(project, path):
    footprint = project.watched()
    analyze(path, project)
    return footprint.whole()


@pytest.mark.parametrize("order", list(itertools.permutations(FILES))[::700])
def test_what_was_known_before_counts_as_looked_at(root, order):
    shared = Project(root)
    for name in order:
        files, questions = looked_at(shared, root / name)
        alone_files, alone_questions = looked_at(Project(root), root / name)
        assert files >= alone_files, f"{name} after {order}"
        assert questions >= alone_questions, f"{name} after {order}"


def test_a_file_that_uses_nothing_of_others_depends_on_itself(root):
    (root / "alone.py").write_text("import torch\n\nprint(torch.nn.Linear(1, 1)(torch.ones(1)))\n")
    project = Project(root)
    for name in FILES:
        looked_at(project, root / name)
    files, _ = looked_at(project, root / "alone.py")
    assert files == {root / "alone.py"}


def test_a_folder_that_counts_as_an_empty_package_is_no_file_that_was_read(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "part.py").write_text("x = 1\n")
    (tmp_path / "script.py").write_text("import torch\nfrom pack import missing\n\nnet = missing(3)\nnet(1)\n")
    project = Project(tmp_path)
    files, _ = looked_at(project, tmp_path / "script.py")
    assert files == project.readings.keys()


def test_answers_that_need_each_other_share_what_they_looked_at(tmp_path):
    """`a` needs `b`, `b` needs `a`: whoever asks for one depends on the files of both."""
    watch = Watch()
    answers: Remembered[str, bool] = Remembered(watch)

    def find(name, other):
        watch.now.files.add(tmp_path / name)
        answers.get(other, lambda: find(other, name), meanwhile=False)
        return True

    assert answers.get("a", lambda: find("a", "b"), meanwhile=False)
    for name in ("a", "b"):
        watch.now = Footprint()
        answers.get(name, lambda: False)
        assert watch.now.whole()[0] == {tmp_path / "a", tmp_path / "b"}


def test_an_answer_that_could_not_be_found_is_looked_for_again(tmp_path):
    watch = Watch()
    answers: Remembered[str, int] = Remembered(watch)

    def fail():
        watch.now.files.add(tmp_path / "a")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        answers.get("a", fail, meanwhile=0)
    assert watch.now.whole()[0] == {tmp_path / "a"}
    assert answers.get("a", lambda: 3) == 3
