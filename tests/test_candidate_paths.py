"""Files may be named in any way, and lie in any repo: what is known about them is found by whoever patches."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

from neural_coder import candidate, planner, registry
from neural_coder.analysis import Project, analyze, analyze_script
from neural_coder.patching import Patch
from neural_coder.source import Source

SCRIPT = "import torch\n\nmodel = torch.nn.Linear(3, 8)\nout = model(torch.zeros(1, 3))\n"


def test_a_file_that_is_named_relative_to_the_current_folder_is_patched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("script.py")
    path.write_text(SCRIPT)
    project = Project(Path())
    plan = planner.plan_for([registry.parse_feature("inference_mode")], "inference")
    outcome, _ = candidate.patch_one(plan, project, analyze(path, project))
    assert isinstance(outcome, Patch), outcome
    assert "with torch.inference_mode():" in outcome.after.text


def test_a_link_to_a_file_is_patched(tmp_path):
    (tmp_path / "real.py").write_text(SCRIPT)
    path = tmp_path / "link.py"
    path.symlink_to(tmp_path / "real.py")
    project = Project(tmp_path)
    plan = planner.plan_for([registry.parse_feature("inference_mode")], "inference")
    outcome, _ = candidate.patch_one(plan, project, analyze(path, project))
    assert isinstance(outcome, Patch), outcome


def test_a_script_in_our_own_repo_is_patched_though_the_patch_imports_the_repo(tmp_path):
    runtime = tmp_path / "neural_coder" / "runtime"
    runtime.mkdir(parents=True)
    for package in (runtime.parent, runtime):
        (package / "__init__.py").write_text(
            "import torch\n\nmodel = torch.nn.Linear(1, 1)\nmodel(torch.zeros(1, 1))\n"
        )
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    project = Project(tmp_path)
    plan = planner.plan_for([registry.parse_feature("bf16_weights")], "inference")
    outcome = candidate.build(plan, project, analyze_script(path, project))
    assert isinstance(outcome, candidate.Candidate), outcome
    assert list(outcome.patched) == [path]


def test_a_patched_text_is_forgotten_once_it_was_analysed(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    project = Project(tmp_path)
    analyze(path, project)
    patched = project.with_overlay({path: Source.from_text(f"{SCRIPT}\n", path)})
    analyze(path, patched)
    gone = weakref.ref(patched)
    del patched
    gc.collect()
    assert gone() is None
