"""What is said of the machine and of interpreters, good ones and broken ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from neural_coder.bench import machine
from neural_coder.bench.machine import describe_machine, inspect_environment, usable_cores


def test_machine_is_described_as_plain_data() -> None:
    described = describe_machine().as_dict()
    assert json.loads(json.dumps(described)) == described
    assert described["cores"] == usable_cores() >= 1
    assert described["memory_bytes"] > 2**28
    assert described["cpu"]
    assert set(described["features"]) <= set(machine.FEATURES)


def test_flags_of_linux_become_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def features(flags: str) -> tuple[str, ...]:
        monkeypatch.setattr(machine, "_cpu_info", lambda: {"flags": flags})
        monkeypatch.setattr(machine.sys, "platform", "linux")
        return machine._cpu_features()

    assert features("sse avx2 avx512f avx512_vnni avx512_bf16 amx_tile") == ("AVX2", "AVX-512", "VNNI", "BF16", "AMX")
    assert features("sse avx2 avx_vnni") == ("AVX2", "VNNI")
    assert features("fp asimd bf16") == ("BF16", "NEON")
    assert features("sse") == ()


def test_quota_of_the_control_group_limits_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"/sys/fs/cgroup/cpu.max": "150000 100000\n"}
    monkeypatch.setattr(machine, "_text", lambda file: texts.get(str(file), ""))
    assert machine._quota(8) == 2
    texts["/sys/fs/cgroup/cpu.max"] = "max 100000\n"
    assert machine._quota(8) == 8


def test_this_python_has_click_and_lacks_a_made_up_module() -> None:
    found = inspect_environment(Path(sys.executable), ["click", "no_such_engine"])
    assert found.python_version == sys.version.split()[0]
    assert found.usable("click")
    assert found.version("click")
    assert found.why_unusable("no_such_engine") == "no_such_engine is not installed"
    assert found.version("no_such_engine") is None
    assert not found.usable("never_asked")


def test_nothing_is_imported_without_a_deep_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "loud.py").write_text("raise OSError('libgone.so: cannot open shared object file')")
    (tmp_path / "deadly.py").write_text("import os; os._exit(9)")
    (tmp_path / "chatty.py").write_text("print('{}' * 1000)")
    names = ["loud", "deadly", "chatty"]
    assert all(inspect_environment(Path(sys.executable), names).usable(name) for name in names)
    deep = inspect_environment(Path(sys.executable), names, deep=True)
    assert deep.why_unusable("loud") == ("importing loud fails: OSError: libgone.so: cannot open shared object file")
    assert "ends the process" in deep.why_unusable("deadly")
    assert deep.usable("chatty")


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/true"])
def test_what_is_no_python_is_said_so(python: str) -> None:
    found = inspect_environment(Path(python), ["torch"])
    assert found.problem
    assert found.why_unusable("torch") == found.problem
    assert found.python_version == ""


@pytest.mark.torch
def test_deep_look_imports_torch_in_a_child_only() -> None:
    code = (
        "import sys; from pathlib import Path; from neural_coder.bench.machine import inspect_environment\n"
        "found = inspect_environment(Path(sys.executable), ['torch'], deep=True)\n"
        "assert found.usable('torch'), found\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
