"""What is known about single calls, steps and ready places, on small sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from snippets import HEADER, facts_of, text_at

from neural_coder.analysis import Project, analyze, analyze_script
from neural_coder.errors import UserError
from neural_coder.records import Span
from neural_coder.source import Source


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("y = model(x)", ""),
        ("ys = [model(part) for part in x]", ""),
        ("if model(x).sum() > 0:\n    print(1)", ""),
        ("assert model(x) is not None", ""),
        ("for y in model(x):\n    print(y)", "header of a `for` loop"),
        ("while model(x).sum() > 0:\n    x = x - 1", "header of a `while` loop"),
        ("f = lambda x: model(x)\nf(x)", "inside a lambda"),
        ("def f():\n    yield model(x)\nnext(f())", "yields"),
        ("async def f():\n    return await g(model(x))", "awaits"),
        ("def f(y=model(x)):\n    return y", "default argument"),
        ("@g(model(x))\ndef f():\n    return 1", "decorator"),
        ("class A(g(model(x))):\n    pass", "base class"),
        ("y = 1; z = model(x)", "shares a line"),
        ("if x is not None: y = model(x)", "shares a line"),
    ],
)
def test_it_is_said_why_a_statement_cannot_be_wrapped(code: str, reason: str, tmp_path: Path) -> None:
    facts, _ = facts_of(code + "\n", tmp_path)
    (call,) = facts.inference
    assert call.wrappable == (not reason)
    assert reason in call.why_not_wrappable


def test_an_elif_header_belongs_to_the_whole_if(tmp_path: Path) -> None:
    facts, text = facts_of("if x is None:\n    pass\nelif model(x).sum() > 0:\n    print(1)\n", tmp_path)
    assert text_at(text, facts.inference[0].statement).startswith("if x is None")


def test_the_nearest_no_grad_counts_and_training_under_it_is_told(tmp_path: Path) -> None:
    facts, text = facts_of(
        """
        with torch.no_grad():
            y = model(x)
            with torch.enable_grad():
                loss = model(x).sum()
                loss.backward()
        @torch.no_grad()
        def f():
            return model(x)
        @torch.inference_mode
        def g():
            return model(x)
        f(), g()
        """,
        tmp_path,
    )
    first, second, third = facts.inference
    assert (first.grad_mode, text_at(text, first.grad_mode_at)) == ("no_grad", "torch.no_grad()")
    assert first.grad_mode_covers_training
    assert (second.grad_mode, second.grad_mode_covers_training) == ("no_grad", False)
    assert (third.grad_mode, text_at(text, third.grad_mode_at)) == ("inference_mode", "torch.inference_mode")


def test_an_output_that_reaches_numpy_is_told_unless_it_was_converted(tmp_path: Path) -> None:
    facts, _ = facts_of(
        "a = model(x).detach().numpy()\nb = model(x).float().numpy()\nc = model(x).argmax(1).numpy()\n", tmp_path
    )
    assert [call.reaches_numpy for call in facts.inference] == [True, False, False]


def test_autocast_around_a_call_is_seen(tmp_path: Path) -> None:
    facts, _ = facts_of("with torch.autocast('cpu'):\n    y = model(x)\nz = model(x)\n", tmp_path)
    assert [call.autocast for call in facts.inference] == [True, False]


def test_forward_and_loss_are_one_run_of_statements(tmp_path: Path) -> None:
    facts, text = facts_of(
        """
        opt = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            y = model(x)
            loss = y.sum()
            opt.zero_grad()
            loss.backward()
            opt.step()
        """,
        tmp_path,
    )
    (step,) = facts.steps
    assert text_at(text, step.forward_and_loss) == "y = model(x)\n    loss = y.sum()"
    assert step.optimizer_step is not None
    assert [call.line for call in step.forwards] == [8]


def test_a_forward_in_a_called_function_is_wrapped_at_the_call(tmp_path: Path) -> None:
    facts, text = facts_of("def f():\n    return model(x).sum()\nloss = f()\nloss.backward()\n", tmp_path)
    assert text_at(text, facts.steps[0].forward_and_loss) == "loss = f()"


def test_a_step_in_one_statement_has_no_range(tmp_path: Path) -> None:
    facts, _ = facts_of("model(x).sum().backward()\n", tmp_path)
    assert facts.steps[0].forward_and_loss is None
    assert "one statement" in facts.steps[0].why_not


def test_each_backward_has_its_own_run(tmp_path: Path) -> None:
    facts, text = facts_of("a = model(x).sum()\na.backward()\nb = model(x).sum()\nb.backward()\n", tmp_path)
    assert [text_at(text, step.forward_and_loss) for step in facts.steps] == [
        "a = model(x).sum()",
        "b = model(x).sum()",
    ]


def test_columns_count_characters(tmp_path: Path) -> None:
    facts, text = facts_of('größe = "ä"; print("→", model(x))\n', tmp_path)
    assert text_at(text, facts.inference[0].call) == "model(x)"


def test_positions_hold_with_windows_newlines_and_tabs(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_bytes((HEADER + "if 1:\n\ty = (\n\t\tmodel(x))\n").replace("\n", "\r\n").encode())
    facts = analyze(path, Project(tmp_path))
    assert facts.inference[0].call == Span(line=7, column=2, end_line=7, end_column=10)
    assert facts.inference[0].statement == Span(line=6, column=1, end_line=7, end_column=11)


def test_what_the_script_does_with_its_model_is_known(tmp_path: Path) -> None:
    facts, _ = facts_of("model = torch.compile(model.half().to(memory_format=torch.channels_last).eval())\n", tmp_path)
    assert facts.models[0].traits >= {"compile", "half", "channels_last", "eval"}
    assert facts.models[0].layers == {"Linear"}
    assert len(facts.models) == 1


def test_a_syntax_error_is_shown_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("x = 1\n\tif :\n")
    with pytest.raises(UserError, match=r"broken\.py:2:\d+: ") as caught:
        analyze(path, Project(tmp_path))
    assert str(caught.value).split("\n")[1:] != []
    assert str(caught.value).rstrip().endswith("^")


def test_the_overlay_is_analysed_in_the_place_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text("print(1)\n")
    project = Project(tmp_path).with_overlay({path: Source.from_text(HEADER + "model(x)\n", path)})
    assert len(analyze(path, project).inference) == 1
    assert path.read_text() == "print(1)\n"


def test_facts_of_several_files_are_joined(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("")
    (tmp_path / "lib" / "engine.py").write_text(
        "def fit(net, opt, data):\n    for x in data:\n        loss = net(x).sum()\n"
        "        loss.backward()\n        opt.step()\n"
        "def run(net, x):\n    return net(x)\n"
    )
    (tmp_path / "main.py").write_text(
        "import torch\nfrom lib import engine\nfrom lib.engine import run as go\n"
        "m = torch.nn.Linear(2, 2)\no = torch.optim.SGD(m.parameters(), 1.0)\n"
        "d = torch.utils.data.DataLoader([1])\nengine.fit(m, o, d)\ngo(m, 1)\n"
    )
    project = Project(tmp_path)
    main, package, engine = analyze_script(tmp_path / "main.py", project)
    assert package.models == ()
    assert main.models[0].trained
    assert main.models[0].inferred
    assert [(call.kind, call.line) for call in engine.training] == [
        ("forward", 3),
        ("backward", 4),
        ("optimizer_step", 5),
    ]
    assert [(call.line, call.model) for call in engine.inference] == [(7, "m")]
    assert main.dataloaders[0].used_for == {"training"}


def test_the_root_is_found_above_the_script(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    script = tmp_path / "a" / "b" / "script.py"
    script.parent.mkdir(parents=True)
    script.write_text("")
    assert Project.find(script).root == tmp_path.resolve()


def test_files_are_followed_through_relative_imports_and_circles(tmp_path: Path) -> None:
    package = tmp_path / "src" / "pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .b import y\n")
    (package / "a.py").write_text("from . import b\nimport os, torch\n")
    (package / "b.py").write_text("from .a import x\ny = 1\n")
    script = tmp_path / "script.py"
    script.write_text("import pkg.a\n")
    names = [path.name for path in Project(tmp_path).files_of(script)]
    assert names == ["script.py", "__init__.py", "a.py", "b.py"]


def test_every_span_of_this_file_is_that_of_its_node() -> None:
    source = Source.read(Path(__file__))
    from neural_coder.analysis.syntax import Parsed

    parsed = Parsed(source)
    for node in ast.walk(parsed.tree):
        if isinstance(node, ast.Call):
            assert parsed.text(node) == ast.get_source_segment(source.text, node)


def test_functions_are_read_even_when_the_budget_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("machine",):
        monkeypatch.setattr(f"neural_coder.analysis.{module}.MAX_STEPS", 8)
    code = "y = x + 1\n" * 20 + "def predict(x):\n    return model(x)\npredict(x)\n"
    facts, _ = facts_of(code, tmp_path)
    assert [call.callee for call in facts.inference] == ["model"]


def test_a_forward_of_the_step_before_does_not_widen_the_run(tmp_path: Path) -> None:
    facts, text = facts_of(
        """
        opt = torch.optim.SGD(model.parameters(), 0.1)
        scale = 0
        for i in range(3):
            real = model(x * scale)
            scale = scale + real
            real.sum().backward()
            if i > 1:
                again = model(x * scale)
                loss = again.sum()
                loss.backward()
        """,
        tmp_path,
    )
    assert text_at(text, facts.steps[1].forward_and_loss) == "again = model(x * scale)\n        loss = again.sum()"


def test_a_name_that_means_one_of_several_classes_has_no_qualified_name(tmp_path: Path) -> None:
    code = "class A(nn.Linear):\n    pass\nclass B(nn.Linear):\n    pass\nC = A if x.sum() > 1 else B\nnet = C(1, 1)\n"
    facts, _ = facts_of(code, tmp_path)
    assert [each.qualified_name for each in facts.models if each.name == "net"] == [""]


def test_the_parts_of_a_trained_model_are_trained(tmp_path: Path) -> None:
    code = """
        class Part(nn.Linear):
            pass
        class Whole(nn.Module):
            def __init__(self, part):
                super().__init__()
                self.part = part
            def forward(self, x):
                return self.part(x)
        part = Part(2, 2)
        whole = Whole(part)
        whole(x).sum().backward()
        """
    facts, _ = facts_of(code, tmp_path)
    assert {each.name: each.trained for each in facts.models} == {"model": False, "part": True, "whole": True}


def test_the_layers_of_a_model_that_is_built_from_parts_are_those_of_the_parts(tmp_path: Path) -> None:
    code = """
        from torchvision import models
        full = models.resnet18()
        body = nn.Sequential(*list(full.children())[:-1])
        rest = nn.Sequential(*missing)
        class Own(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.ones(3, 3, 3, 3))
            def forward(self, x):
                return nn.functional.conv2d(x, self.weight)
        own = Own()
        body(x), rest(x), own(x)
        """
    facts, _ = facts_of(code, tmp_path)
    layers = {each.name: each.layers for each in facts.models}
    assert "Conv2d" in (layers["body"] or ())
    assert layers["rest"] is None
    assert layers["own"] is None
    assert {each.name for each in facts.models if each.inferred} == {"full", "body", "rest", "own"}


def test_results_that_become_pictures_or_meet_a_binary_cross_entropy_are_told(tmp_path: Path) -> None:
    code = """
        import cv2
        from somewhere import tensor2img
        from torch.nn import functional as F
        criterion = nn.BCELoss()
        tensor2img(model(x))
        cv2.imwrite("a.png", model(x))
        criterion(model(x), x)
        F.binary_cross_entropy(model(x), x)
        nn.MSELoss()(model(x), x)
        with torch.autocast("cpu"):
            F.binary_cross_entropy(model(x), x)
        """
    facts, _ = facts_of(code, tmp_path)
    assert [call.reaches_numpy for call in facts.inference] == [True, True, False, False, False, False]
    assert [call.reaches_cross_entropy for call in facts.inference] == [False, False, True, True, False, False]


def test_a_model_that_is_exported_is_told(tmp_path: Path) -> None:
    facts, _ = facts_of("torch.onnx.export(model, (x,), 'model.onnx', opset_version=17)\n", tmp_path)
    assert "export" in facts.models[0].traits
    assert not facts.inference


def test_what_ran_before_the_loop_is_no_part_of_the_step(tmp_path: Path) -> None:
    facts, text = facts_of(
        """
        target = model(x)
        for i in range(3):
            y = model(x)
            loss = (y - target).sum()
            loss.backward()
        """,
        tmp_path,
    )
    assert text_at(text, facts.steps[0].forward_and_loss) == "y = model(x)\n    loss = (y - target).sum()"


def test_an_out_that_is_handed_on_with_other_options_ends_no_analysis(tmp_path: Path) -> None:
    code = "def add(y, **options):\n    return torch.add(y, 1, **options)\n\n\nprint(add(x, out=model(x)))\n"
    facts, _ = facts_of(code, tmp_path)
    assert len(facts.inference) == 1
