"""The user's tree stays byte for byte what it was, and the script finds in its shadow what it would find there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from projects import Project

from neural_coder.bench import shadow as shadow_module
from neural_coder.bench.runner import run
from neural_coder.bench.shadow import Shadow, remove_leftovers
from neural_coder.errors import InternalError

BIG = 1001


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees in tests are small: file systems may be slow."""
    monkeypatch.setattr(shadow_module, "SMALL_FILE", BIG - 1)
    monkeypatch.setattr(shadow_module, "DATA_SET", 20)


def make_tree(root: Path) -> Project:
    """A project with all that can be in one."""
    outside = root.parent / "outside"
    outside.mkdir(parents=True)
    (outside / "data.txt").write_text("outside")
    project = Project(root, "print('hello')\n")
    project.add("pkg/__init__.py", "")
    project.add("pkg/small.txt", "small")
    project.add(".git/config", "x")
    project.add("venv/pyvenv.cfg", "x")
    project.add("node_modules/a.js", "x")
    project.add("pkg/__pycache__/x.pyc", "x")
    with (root / "weights.bin").open("wb") as file:
        file.truncate(BIG)
    (root / "images").mkdir()
    for number in range(30):
        (root / "images" / f"{number}.txt").touch()
    (root / "inner_link").symlink_to("pkg/small.txt")
    (root / "absolute_inner_link").symlink_to(root / "pkg")
    (root / "outer_link").symlink_to(outside / "data.txt")
    (root / "relative_outer_link").symlink_to("../outside/data.txt")
    (root / "dangling").symlink_to("nowhere")
    return project


def mirror(project: Project, cwd: Path | None = None) -> Shadow:
    return Shadow(project.root, project.script, {}, cwd or project.root)


def test_what_is_copied_linked_and_left_out(tmp_path: Path) -> None:
    project = make_tree(tmp_path / "proj")
    with mirror(project) as shadow:
        assert shadow.root.name == "proj"
        assert shadow.script == shadow.root / "main.py"
        assert not shadow.script.is_symlink()
        assert (shadow.root / "pkg" / "small.txt").read_text() == "small"
        assert (shadow.root / "pkg" / "small.txt").stat().st_mtime == (project.root / "pkg/small.txt").stat().st_mtime
        assert (shadow.root / "weights.bin").readlink() == project.root / "weights.bin"
        assert (shadow.root / "images").readlink() == project.root / "images"
        for name in (".git", "venv", "node_modules", "pkg/__pycache__"):
            assert not (shadow.root / name).exists()
        assert (shadow.root / "inner_link").resolve() == shadow.root / "pkg" / "small.txt"
        assert (shadow.root / "absolute_inner_link").resolve() == shadow.root / "pkg"
        assert (shadow.root / "outer_link").read_text() == "outside"
        assert (shadow.root / "relative_outer_link").read_text() == "outside"
        assert (shadow.root / "dangling").is_symlink()
    assert not shadow.folder.exists()


def test_patches_lie_on_top_even_where_folders_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_module, "MOST_ENTRIES", 0)
    project = make_tree(tmp_path / "proj")
    before = project.snapshot()
    files = {project.script: b"patched\r\n", project.root / "pkg" / "__init__.py": b"also\n"}
    with Shadow(project.root, project.script, files, project.root) as shadow:
        assert shadow.script.read_bytes() == b"patched\r\n"
        assert (shadow.root / "pkg" / "__init__.py").read_bytes() == b"also\n"
        assert (shadow.root / "images").is_symlink()
    assert project.snapshot() == before


def test_patch_outside_of_the_project_is_refused(tmp_path: Path) -> None:
    project = Project(tmp_path / "proj", "")
    files = {tmp_path / "other.py": b"x"}
    with pytest.raises(InternalError), Shadow(project.root, project.script, files, project.root):
        pass
    assert not (tmp_path / "other.py").exists()
    assert not list(Path(tempfile.gettempdir()).glob(f"neural-coder-{os.getpid()}-*"))


def test_working_directory_is_mirrored_inside_and_kept_outside(tmp_path: Path) -> None:
    project = make_tree(tmp_path / "proj")
    with mirror(project, project.root / "pkg") as shadow:
        assert shadow.cwd == shadow.root / "pkg"
    with mirror(project, tmp_path / "outside") as shadow:
        assert shadow.cwd == tmp_path / "outside"


def test_arguments_that_name_the_project_name_the_shadow(tmp_path: Path) -> None:
    project = Project(tmp_path / "proj", "")
    with mirror(project) as shadow:
        assert shadow.argument(f"{project.root}/out") == f"{shadow.root}/out"
        assert shadow.argument(f"--out={project.root}/out") == f"--out={shadow.root}/out"
        for same in ("out", f"{project.root}s", "--out=x", str(tmp_path)):
            assert shadow.argument(same) == same


def test_a_whole_home_folder_is_mirrored_only_near_its_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_module, "MOST_ENTRIES", 100)
    project = Project(tmp_path / "home", "")
    for number in range(60):
        (project.root / f"folder{number:02}" / "deep").mkdir(parents=True)
        for name in range(10):
            (project.root / f"folder{number:02}" / "deep" / f"file{name}").touch()
    with mirror(project) as shadow:
        assert (shadow.root / "folder59" / "deep" / "file9").exists()
        assert (shadow.root / "folder59" / "deep").is_symlink()
        made = sum(len(folders) + len(files) for _, folders, files in os.walk(shadow.root))
        assert made < 600


def test_leftovers_of_dead_processes_are_removed(tmp_path: Path) -> None:
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    of_dead = Path(tempfile.mkdtemp(prefix=f"neural-coder-{dead}-"))
    of_living = Path(tempfile.mkdtemp(prefix=f"neural-coder-{os.getpid()}-"))
    other = Path(tempfile.mkdtemp(prefix="neural-coder-notes-"))
    (of_dead / "locked").mkdir()
    (of_dead / "locked" / "file").touch()
    (of_dead / "locked").chmod(0o500)
    remove_leftovers()
    assert not of_dead.exists()
    assert of_living.exists()
    assert other.exists()
    of_living.rmdir()
    other.rmdir()


# --- scripts that try to change the project

VANDAL = """
import os, pathlib, shutil, sqlite3, sys, tempfile
REAL = {real!r}

def model(x):
    return x

def attempt(action):
    action()

def refused(action):
    try:
        action()
    except PermissionError as error:
        assert "keeps your project as it is" in str(error), error
        assert REAL in str(error), error
    else:
        raise SystemExit("not refused: line %d" % sys._getframe(1).f_lineno)

def write(path, mode="w", text="changed"):
    with open(path, mode) as file:
        file.write(text)

{body}
for x in range(100):
    model(x)
"""

BODIES = {
    "new files and folders": """
write("new.txt"); os.makedirs("out/deep"); pathlib.Path("out/deep/x.txt").write_text("x")
pathlib.Path(__file__).with_name("beside.txt").write_text("x")
""",
    "small files": """
write("pkg/small.txt"); write("pkg/small.txt", "a"); os.remove("pkg/small.txt"); shutil.rmtree("pkg")
os.rename("main.py", "other.py")
""",
    "a large file is copied before it is changed": """
before = os.path.getsize("weights.bin")
with open("weights.bin", "r+b") as file:
    file.write(b"new")
assert os.path.getsize("weights.bin") == before
with open("weights.bin", "rb") as file:
    assert file.read(4) == b"new\\0"
os.chmod("weights.bin", 0o600); os.utime("weights.bin", (1, 1)); os.truncate("weights.bin", 10)
write("weights.bin"); os.rename("weights.bin", "moved.bin"); os.remove("moved.bin")
""",
    "metadata of a large file": "os.chmod('weights.bin', 0o600)",
    "times of a large file": "os.utime('weights.bin', (1, 1))",
    "length of a large file": "os.truncate('weights.bin', 10)",
    "moved large file": "os.rename('weights.bin', 'w2.bin'); write('w2.bin', 'a')",
    "hard link to a large file": "os.link('weights.bin', 'hard.bin'); write('hard.bin', 'a')",
    "own link to a large file": "os.symlink(os.readlink('weights.bin'), 'soft.bin'); write('soft.bin', 'a')",
    "os.open": "handle = os.open('weights.bin', os.O_RDWR); os.write(handle, b'new'); os.close(handle)",
    "a linked folder": """
assert os.path.islink("images")
write("images/new.txt"); write("images/1.txt"); os.remove("images/2.txt"); os.mkdir("images/sub")
os.rename("images/3.txt", "images/4.txt"); os.symlink("x", "images/link")
assert os.path.exists("images/5.txt") and not os.path.exists("images/2.txt")
assert len(os.listdir("images")) == 31
""",
    "removal in a linked folder": "os.remove('images/2.txt')",
    "a folder made in a linked folder": "os.mkdir('images/sub')",
    "a linked folder is removed": "shutil.rmtree('images'); assert not os.path.exists('images')",
    "rename into a linked folder": "write('a.txt'); os.replace('a.txt', 'images/1.txt')",
    "descriptors of folders": """
here = os.open("images", os.O_RDONLY)
refused(lambda: os.remove("1.txt", dir_fd=here)); refused(lambda: os.mkdir("new", dir_fd=here))
""",
    "a database": """
base = sqlite3.connect("images/base.db"); base.execute("create table t (x)"); base.commit(); base.close()
""",
    "links inside": "write('inner_link'); write('absolute_inner_link/new.txt')",
    "the way back from another folder": """
os.chdir(tempfile.mkdtemp()); os.symlink(REAL, 'way'); refused(lambda: write('way/x.txt'))
""",
    "absolute paths": """
refused(lambda: write(REAL + "/new.txt")); refused(lambda: write(REAL + "/main.py", "a"))
refused(lambda: os.remove(REAL + "/pkg/small.txt")); refused(lambda: os.mkdir(REAL + "/new"))
refused(lambda: os.rename(REAL + "/pkg", REAL + "/pkg2")); refused(lambda: shutil.rmtree(REAL + "/pkg"))
refused(lambda: os.rename("pkg/small.txt", REAL + "/small.txt")); refused(lambda: os.utime(REAL + "/main.py", (1, 1)))
refused(lambda: pathlib.Path(REAL, "x.txt").touch()); refused(lambda: os.symlink("x", REAL + "/link"))
refused(lambda: os.link("main.py", REAL + "/hard.py")); refused(lambda: os.chmod(REAL + "/main.py", 0o600))
refused(lambda: sqlite3.connect(REAL + "/x.db")); refused(lambda: shutil.copy("main.py", REAL + "/copy.py"))
refused(lambda: os.rmdir(REAL + "/empty")); refused(lambda: os.truncate(REAL + "/main.py", 0))
assert os.path.exists(REAL + "/main.py") and open(REAL + "/main.py").read()
os.chdir(REAL); refused(lambda: write("new.txt"))
""",
    "dots in paths": "write('../../' + os.path.basename(os.path.dirname(os.getcwd())) + '/proj/new.txt')",
}


@pytest.mark.parametrize("name", sorted(BODIES))
def test_project_is_untouched_by(tmp_path: Path, name: str) -> None:
    project = make_tree(tmp_path / "proj")
    (project.root / "empty").mkdir()
    text = VANDAL.format(real=str(project.root), body=BODIES[name])
    project.add("main.py", text)
    before = project.snapshot()
    modes = {path: path.lstat().st_mode for path in project.root.rglob("*")}
    result = run(project.probe("inference", "model(x)").job())
    assert result.ok, result.ending
    assert project.snapshot() == before
    assert {path: path.lstat().st_mode for path in project.root.rglob("*")} == modes


@pytest.mark.torch
def test_torch_save_and_safetensors_go_to_the_shadow(tmp_path: Path) -> None:
    body = """
import torch
from safetensors.torch import save_file
torch.save({"a": torch.ones(2)}, "weights.bin"); assert torch.load("weights.bin")["a"].sum() == 2
assert not os.path.islink("weights.bin")
torch.save({}, "images/model.pt"); torch.save({}, f=pathlib.Path("images/1.txt"))
save_file({"a": torch.ones(2)}, "images/2.txt"); save_file({"a": torch.ones(2)}, "images/m.safetensors")
traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(2))
torch.jit.save(traced, "images/traced.pt"); traced.save("images/3.txt")
refused(lambda: torch.save({}, REAL + "/model.pt")); refused(lambda: save_file({"a": torch.ones(2)}, REAL + "/m"))
refused(lambda: torch.jit.save(traced, REAL + "/t.pt")); refused(lambda: traced.save(REAL + "/t.pt"))
import numpy
numpy.save("images/4.txt", numpy.ones(2)); refused(lambda: numpy.save(REAL + "/x.npy", numpy.ones(2)))
"""
    project = make_tree(tmp_path / "proj")
    project.add("main.py", VANDAL.format(real=str(project.root), body=body))
    before = project.snapshot()
    result = run(project.probe("inference", "model(x)").job())
    assert result.ok, result.ending
    assert project.snapshot() == before
