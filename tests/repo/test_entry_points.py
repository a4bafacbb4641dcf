"""Where programs start, as far as that is written down somewhere."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from neural_coder.entry_points import entry_points, main_guard
from neural_coder.files import list_files


@pytest.fixture
def repo(tmp_path):
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text("import sys\n\n\ndef main():\n    sys.exit()\n\n\nrun = main\n")
    return tmp_path


def points(repo):
    found, problems = entry_points(list_files([repo]), {})
    assert problems == ()
    return [(point.kind, point.name, point.path and point.path.name, point.line) for point in found]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("if __name__ == '__main__':\n    pass\n", 1),
        ("import sys\nif '__main__' == __name__ and len(sys.argv) > 1:\n    pass\n", 2),
        ("def f():\n    if __name__ == '__main__':\n        pass\n", None),
        ("if __name__ != '__main__':\n    pass\n", None),
        ("name = '__main__'\n# if __name__ == '__main__':\n", None),
    ],
)
def test_a_main_guard_is_found_at_the_top_level(text, line):
    assert main_guard(ast.parse(text)) == line


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", "[project.scripts]\ngo = 'pkg.cli:main'\n[project.gui-scripts]\nwin = 'pkg.cli:run'\n"),
        (
            "pyproject.toml",
            "[tool.poetry.scripts]\ngo = {reference = 'pkg.cli:main', type = 'console'}\n"
            "[project.gui-scripts]\nwin = 'pkg.cli:run'\n",
        ),
        (
            "setup.cfg",
            "[options.entry_points]\nconsole_scripts =\n    go = pkg.cli:main\n"
            "gui_scripts =\n    win = pkg.cli:run [x]\n",
        ),
        (
            "setup.py",
            "from setuptools import setup\nGUI = ['win = pkg.cli:run']\n"
            "setup(name=NAME, entry_points={'console_scripts': ['go = pkg.cli:main', later()], 'gui_scripts': GUI})\n",
        ),
        (
            "setup.py",
            "import setuptools\nsetuptools.setup(entry_points='''\n    [console_scripts]\n    go = pkg.cli:main\n"
            "    [gui_scripts]\n    win=pkg.cli:run\n''')\n",
        ),
    ],
)
def test_declared_commands_lead_to_their_functions(repo, name, text):
    (repo / name).write_text(text)
    assert sorted(points(repo)) == [("console_script", "go", "cli.py", 4), ("gui_script", "win", "cli.py", 8)]


def test_a_setup_script_is_read_and_never_run(repo):
    trace = repo / "trace"
    (repo / "setup.py").write_text(
        f"open({str(trace)!r}, 'w')\nfrom setuptools import setup\n"
        "setup(entry_points={'console_scripts': ['a=pkg.cli:main']})\n"
    )
    assert points(repo) == [("console_script", "a", "cli.py", 4)]
    assert not trace.exists()


def test_a_command_declared_twice_is_listed_once(repo):
    (repo / "setup.cfg").write_text("[options.entry_points]\nconsole_scripts = \n  go = pkg.cli:main\n")
    (repo / "setup.py").write_text("setup(entry_points={'console_scripts': ['go=pkg.cli:main']})\n")
    assert points(repo) == [("console_script", "go", "cli.py", 4)]


def test_commands_are_found_below_src(repo):
    (repo / "src").mkdir()
    (repo / "pkg").rename(repo / "src" / "pkg")
    (repo / "pyproject.toml").write_text("[project.scripts]\ngo = 'pkg.cli:main'\n")
    assert points(repo) == [("console_script", "go", "cli.py", 4)]


def test_a_command_of_another_package_is_listed_with_a_note(repo):
    (repo / "pyproject.toml").write_text("[project.scripts]\ngo = 'elsewhere.cli:main'\n")
    (point,) = entry_points(list_files([repo]), {})[0]
    assert point.path is None
    assert "no file of this project" in point.note


def test_installed_scripts_packages_with_main_and_notebooks_are_listed(repo):
    (repo / "pkg" / "__main__.py").write_text("from pkg.cli import main\n\nmain()\n")
    (repo / "bin").mkdir()
    (repo / "bin" / "train").write_text("#!/usr/bin/env python\n")
    (repo / "setup.py").write_text("setup(scripts=['bin/train'])\n")
    (repo / "look.ipynb").write_text("{}")
    assert points(repo) == [
        ("script", "train", "train", None),
        ("main_module", "pkg", "__main__.py", None),
        ("notebook", "", "look.ipynb", None),
    ]


@pytest.mark.parametrize("name", ["pyproject.toml", "setup.cfg", "setup.py"])
def test_a_broken_declaration_is_reported_and_stops_nothing(repo, name):
    (repo / name).write_bytes(b"[project\n= (\xff")
    found, (problem,) = entry_points(list_files([repo]), {repo / "pkg" / "cli.py": 7})
    assert [point.kind for point in found] == ["main_guard"]
    assert name in problem
    assert "could not be read" in problem


def test_declarations_of_other_shapes_are_no_commands(repo):
    (repo / "pyproject.toml").write_text("[project]\nscripts = ['go']\n[tool]\npoetry = 3\n")
    (repo / "setup.py").write_text("setup(entry_points=make(), scripts=glob('bin/*'))\nsetup(entry_points=3, **more)\n")
    assert points(repo) == []


def test_listing_keeps_notebooks_and_declarations_apart(repo):
    (repo / "pyproject.toml").touch()
    (repo / "a.ipynb").touch()
    (repo / ".ipynb_checkpoints").mkdir()
    (repo / ".ipynb_checkpoints" / "a.ipynb").touch()
    listing = list_files([repo])
    assert [path.name for path in listing.python] == ["__init__.py", "cli.py"]
    assert [path.name for path in listing.notebooks] == ["a.ipynb"]
    assert [path.name for path in listing.manifests] == ["pyproject.toml"]
    assert isinstance(listing.python[0], Path)
