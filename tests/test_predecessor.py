"""Each way in which Intel's Neural Coder broke real scripts, on the whole path from a file to its patch.

What concerns running (a failed variant that vanished, an unmodified script announced as the best one, Ctrl-C, a batch
size that never changed) is tested in `test_optimize.py`, `test_verdict.py` and `test_every_transform.py` as well.
"""

from __future__ import annotations

import ast
import textwrap
import time
from pathlib import Path

import pytest

from neural_coder import diff, engine, registry, verdict
from neural_coder.analysis import Project, analyze
from neural_coder.bench import stats
from neural_coder.errors import UserError
from neural_coder.records import Ending, Plan, Run, SiteTiming


@pytest.fixture
def patched(tmp_path):
    """Patch a script with features and give its new text."""

    def patch(script: str, *features: str) -> str:
        path = tmp_path / "script.py"
        path.write_bytes(textwrap.dedent(script).encode())
        _, patches, _ = engine.build_patches(path, [registry.parse_feature(name) for name in features])
        return patches[0].after.text if patches else path.read_text()

    return patch


@pytest.fixture
def sites(tmp_path):
    """Analyse a script."""

    def look(script: str):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(script))
        return analyze(path, Project(tmp_path))

    return look


def test_no_import_is_put_into_a_function(patched):
    after = patched(
        """\
        def main():
            import torch
            x = torch.rand(1, 3, 8, 8)
            from torch import nn
            net = nn.Conv2d(3, 8, 3)
            net.eval()
            print(net(x))

        main()
        """,
        "bf16_weights",
    )
    main = next(node for node in ast.parse(after).body if isinstance(node, ast.FunctionDef))
    inside = [ast.unparse(node) for node in ast.walk(main) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert inside == ["import torch", "from torch import nn"]
    assert "accelerate(net" in after


def test_what_follows_a_statement_over_several_lines_has_the_indent_of_its_first_line(patched):
    after = patched(
        """\
        import torch

        def build():
            model = torch.nn.Sequential(
                    torch.nn.Conv2d(3, 8, 3),
                torch.nn.Flatten(),
                        )
            model.eval()
            return model(torch.rand(1, 3, 8, 8))

        build()
        """,
        "channels_last",
    )
    assert "\n    model = model.to(memory_format=torch.channels_last)\n" in after


def test_a_continuation_line_is_no_call(patched):
    before = """\
        import torch

        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.Adam(
            model.parameters(), lr=0.1,
            weight_decay=model.weight.new_tensor(0.0).item())
        loss = model(torch.ones(2, 3)).sum()
        loss.backward()
        optimizer.step()
        """
    after = patched(before, "bf16")
    assert "    model.parameters(), lr=0.1,\n" in after
    assert after.count("with torch.autocast") == 1


def test_a_forward_in_training_is_no_inference(sites):
    found = sites("""\
        import torch

        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            output = model(torch.ones(2, 3))
            loss = output.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        """)
    assert found.inference == ()
    assert [call.kind for call in found.training] == ["forward", "backward", "optimizer_step"]


def test_losses_transforms_and_downloads_are_no_models(sites):
    found = sites("""\
        import torch
        from torch import nn
        from torch.hub import load_state_dict_from_url
        from torchvision import transforms

        criterion = nn.CrossEntropyLoss()
        preprocess = transforms.Compose([transforms.ToTensor()])
        weights = load_state_dict_from_url("https://example.org/weights.pth")
        print(criterion(torch.rand(2, 3), torch.tensor([0, 1])), preprocess(None), weights)
        """)
    assert found.models == ()
    assert found.inference == ()


@pytest.mark.parametrize(
    "script",
    [
        "import torch\nnet: torch.nn.Module = torch.nn.Linear(3, 8)\nnet(torch.rand(1, 3))\n",
        "from torch.nn import Module, Linear\nclass Net(Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.fc = Linear(3, 8)\n    def forward(self, x):\n        return self.fc(x)\nnet = Net()\nnet(1)\n",
        "import torch\nclass App:\n\tdef __init__(self):\n\t\tself.model = torch.nn.Linear(3, 8)\n"
        "\tdef run(self, x):\n\t\treturn self.model(x)\nApp().run(torch.rand(1, 3))\n",
        "import torchvision.models as models\nnet = models.resnet50(weights=None)\nnet.eval()\nnet(1)\n",
        "import timm\nnet = timm.create_model('resnet50')\nnet.eval()\nnet(1)\n",
    ],
    ids=["annotated assignment", "from torch.nn import Module", "self.model and tabs", "torchvision", "timm"],
)
def test_models_that_it_missed_are_found(sites, script):
    found = sites(script)
    assert len(found.models) == 1
    assert len(found.inference) == 1


def test_a_name_that_begins_like_another_is_left_alone(patched):
    after = patched(
        """\
        import torch

        model = torch.nn.Conv2d(3, 8, 3)
        model_name = "first"
        models = [model_name]
        model.eval()
        print(model(torch.rand(1, 3, 8, 8)), model_name, models)
        """,
        "channels_last",
        "bf16_weights",
    )
    assert 'model_name = "first"\n' in after
    assert "models = [model_name]\n" in after
    assert "model_name)" not in after.replace("model_name, models)", "")


def test_moving_to_the_cpu_keeps_with_autocast_intact(patched):
    after = patched(
        """\
        import torch
        from torch.cuda.amp import autocast

        model = torch.nn.Linear(3, 8).cuda()
        x = torch.rand(1, 3).cuda()
        with autocast(enabled=True):
            print(model(x))
        """,
        "cuda_to_cpu",
    )
    tree = ast.parse(after)
    (block,) = [node for node in ast.walk(tree) if isinstance(node, ast.With)]
    assert "cpu" in ast.unparse(block.items[0])
    assert ".cuda()" not in after


def test_a_second_run_changes_nothing(patched):
    script = "import torch\n\nnet = torch.nn.Conv2d(3, 8, 3)\nnet.eval()\nnet(torch.rand(1, 3, 8, 8))\n"
    once = patched(script, "channels_last", "bf16")
    assert once != script
    with pytest.raises(UserError, match="net is already channels-last"):
        patched(once, "channels_last")


def test_a_diff_over_64_kib_does_not_hang():
    before = "".join(f"line {number}\n" for number in range(20_000)).encode()
    after = before.replace(b"7", b"seven")
    began = time.monotonic()
    assert len(diff.unified_diff("big.py", before, after)) > 64 * 1024
    assert time.monotonic() - began < 60  # It used to hang for ever; this is no timing.


def test_escapes_and_other_alphabets_survive(patched):
    script = (
        "import torch\n\ntitle = 'Größe\\n\\tÜbung \\N{SNOWMAN} 模型'\nmodel = torch.nn.Conv2d(3, 8, 3)\nmodel.eval()\n"
        "print(f'{title}\\n', model(torch.rand(1, 3, 8, 8)))\n"
    )
    after = patched(script, "channels_last")
    assert [line for line in after.split("\n") if "memory_format" not in line] == script.split("\n")


def run_of(seconds: float, items: int) -> Run:
    timing = SiteTiming(site="s", kind="inference", calls=9, warmup=(seconds,), samples=(seconds,) * 9, items=items)
    return Run(ending=Ending(kind="ok"), timings=(timing,))


def test_a_batch_size_that_did_not_change_is_not_multiplied_into_the_speed():
    one, other = run_of(0.1, items=8), run_of(0.1, items=8)
    speedup = stats.speedup([one] * 5, [other] * 5)
    assert speedup is not None
    assert speedup.median == pytest.approx(1.0)


def test_a_batch_size_that_did_change_counts_per_item():
    speedup = stats.speedup([run_of(0.1, items=8)] * 5, [run_of(0.2, items=32)] * 5)
    assert speedup is not None
    assert speedup.median == pytest.approx(2.0)


def test_the_unmodified_script_is_never_announced_as_the_best_variant():
    assert verdict.choose([]) is None
    assert verdict.conclusion(None, []).startswith("Keep your script")


def test_a_variant_that_failed_keeps_its_place_and_its_reason():
    plan = Plan(features=(registry.parse_feature("bf16"),), backend="torch")
    crashed = Run(ending=Ending(kind="crashed", code=1, stderr_tail="Traceback\nRuntimeError: no bfloat16 here"))
    found = engine_verdict(plan, crashed)
    assert found.status == "failed"
    assert "no bfloat16 here" in found.reason


def engine_verdict(plan: Plan, run: Run) -> verdict.Verdict:
    from neural_coder.records import Criterion

    return verdict.judge(
        plan,
        baseline=[run_of(0.1, items=1)],
        variant=[run],
        accuracy=None,
        no_effect="",
        criterion=Criterion(),
        final=False,
    )


def test_the_fixture_of_this_file_patches_nothing_on_disk(patched, tmp_path: Path):
    script = "import torch\n\nnet = torch.nn.Conv2d(3, 8, 3)\nnet.eval()\nnet(torch.rand(1, 3, 8, 8))\n"
    patched(script, "channels_last")
    assert (tmp_path / "script.py").read_text() == script
