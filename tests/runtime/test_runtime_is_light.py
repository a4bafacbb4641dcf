"""What importing the runtime costs, and what it says about itself."""

import importlib
import subprocess
import sys
import textwrap

import pytest

import neural_coder.runtime as runtime
from neural_coder.runtime import Explanation
from neural_coder.runtime import memory as memory_module
from neural_coder.runtime.engine import engine_names


def run(code, *options):
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_importing_loads_no_torch_and_none_of_our_tools():
    heavy = {"torch", "libcst", "jedi", "rich", "click", "black", "numpy", "torchao"}
    done = run(f"import sys, neural_coder.runtime; print(sorted({heavy} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr


def test_public_names_are_listed():
    listed = set(runtime.__all__)
    assert listed == {"AccelerationError", "AccelerationWarning", "Explanation", "accelerate", "explain"}
    assert all(getattr(runtime, name).__doc__ for name in listed)


def test_engines_are_found_by_their_files():
    assert {"inductor", "ipex", "onnxruntime", "torch", "torchao", "torchscript"} <= set(engine_names())
    for name in engine_names():
        engine = importlib.import_module(f"neural_coder.runtime.engine_{name}").ENGINE
        assert all(0 < engine.tolerance(precision) < 1 for precision in engine.precisions)
        assert all(engine.memory(precision) > 0 for precision in engine.precisions)


def test_explanations_read_well():
    original = Explanation(
        running="original", reason="training mode", engine="torch", precision="bf16", calls_original=2
    )
    assert str(original) == "original instead of torch/bf16: training mode (0 calls accelerated, 2 by the original)"
    running = Explanation(
        running="torch/int8_dynamic",
        reason="",
        engine="torch",
        precision="int8_dynamic",
        calls_accelerated=3,
        quantized_modules=2,
        dtypes=frozenset({"qint8", "float32"}),
        conversion_seconds=0.25,
    )
    assert str(running) == (
        "torch/int8_dynamic: weights in float32, qint8, 2 quantized modules, converted in 0.2 s, "
        "3 calls accelerated, 0 by the original"
    )


def test_free_memory_is_known_on_linux():
    if sys.platform == "linux":
        available = memory_module.available_bytes()
        assert available is not None
        assert available > 0


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.stat").write_text("anon 1000\ninactive_file 2500\n")
    monkeypatch.setattr(memory_module, "_CGROUP", tmp_path)
    assert memory_module.available_bytes() == 3500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_module.available_bytes() != 3500


@pytest.mark.torch
@pytest.mark.parametrize(
    ("engine", "precision"), [("torch", "int8_dynamic"), ("torchscript", "fp32"), ("inductor", "fp32")]
)
def test_no_warning_of_an_engine_reaches_a_script_where_warnings_are_errors(engine, precision):
    pytest.importorskip("torch")
    done = run(
        f"""
        import torch
        import neural_coder.runtime
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()
        model = neural_coder.runtime.accelerate(model, engine={engine!r}, precision={precision!r})
        with torch.inference_mode():
            for size in (2, 2, 3):
                model(torch.ones(size, 4))
        print(neural_coder.runtime.explain(model).running)
        """,
        "-W",
        "error",
    )
    assert done.stdout.strip().startswith(f"{engine}/"), done.stderr
