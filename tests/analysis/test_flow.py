"""How gradients, parts and preparation are followed, on small sources."""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import facts_of, text_at

PARTS = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(x)


def build():
    return Net()


net = build()
"""


def test_training_a_part_trains_the_whole(tmp_path: Path) -> None:
    facts, _ = facts_of(PARTS + "net.head(x).sum().backward()\nnet(x)\n", tmp_path)
    trained = {model.name: model.trained for model in facts.models}
    assert trained == {"model": False, "net": True}
    assert [step.forwards[0].model for step in facts.steps] == ["net"]


def test_a_part_has_the_traits_of_the_whole(tmp_path: Path) -> None:
    code = PARTS + "outer = nn.Sequential(net)\nouter.half()\nouter(x)\nnet(x)\nouter(x).sum().backward()\n"
    facts, _ = facts_of(code, tmp_path)
    part = next(model for model in facts.models if model.name == "net")
    assert "half" in part.traits
    assert part.trained


def test_a_model_that_is_differentiated_twice_says_so(tmp_path: Path) -> None:
    facts, _ = facts_of(
        """
        x.requires_grad_()
        slope = torch.autograd.grad(model(x).sum(), x, create_graph=True)[0]
        slope.square().sum().backward()
        """,
        tmp_path,
    )
    assert "double_backward" in facts.models[0].traits
    assert facts.models[0].trained
    assert not facts.inference


@pytest.mark.parametrize("package", ["numpy", "pandas", "scipy.stats", "matplotlib.pyplot"])
def test_packages_that_work_on_arrays_are_told(package: str, tmp_path: Path) -> None:
    facts, _ = facts_of(f"import {package} as other\nother.use({{'a': model(x)[0]}})\n", tmp_path)
    assert facts.inference[0].reaches_numpy


def test_a_method_that_gives_arrays_is_told(tmp_path: Path) -> None:
    code = """
        class Agent(nn.Module):
            def __init__(self):
                super().__init__()
                self.actor = nn.Linear(2, 2)

            def act(self, x):
                with torch.no_grad():
                    return self.actor(x).numpy(), self.actor(x).argmax().item()

        agent = Agent()
        array, number = agent.act(x)
        """
    facts, _ = facts_of(code, tmp_path)
    assert [(call.callee, call.reaches_numpy) for call in facts.inference] == [("agent.act", True)]


def test_autocast_on_the_way_to_this_backward_counts(tmp_path: Path) -> None:
    facts, _ = facts_of(
        """
        def loss_of(x):
            return model(x).sum()
        before = loss_of(x).item()
        for _ in range(3):
            with torch.autocast("cpu"):
                loss = loss_of(x)
            loss.backward()
        """,
        tmp_path,
    )
    assert facts.steps[0].autocast
    assert not facts.steps[0].forwards[0].autocast


def test_all_calls_that_lead_to_a_backward_are_in_its_run(tmp_path: Path) -> None:
    facts, text = facts_of(
        "def f(part):\n    return model(part).sum()\na = f(x)\nb = f(x)\nloss = a + b\nloss.backward()\n", tmp_path
    )
    assert text_at(text, facts.steps[0].forward_and_loss) == "a = f(x)\nb = f(x)\nloss = a + b"


def test_backwards_that_share_a_forward_share_its_run(tmp_path: Path) -> None:
    facts, text = facts_of(
        """
        out = model(x)
        one = out.sum()
        two = (out * out).sum()
        one.backward(retain_graph=True)
        print("between")
        two.backward()
        again = model(x).mean()
        again.backward()
        """,
        tmp_path,
    )
    shared = "out = model(x)\none = out.sum()\ntwo = (out * out).sum()"
    assert [text_at(text, step.forward_and_loss) for step in facts.steps] == [shared, shared, "again = model(x).mean()"]


def test_a_loss_behind_another_backward_has_no_run(tmp_path: Path) -> None:
    code = "out = model(x)\none = out.sum()\none.backward(retain_graph=True)\ntwo = out.mean()\ntwo.backward()\n"
    facts, text = facts_of(code, tmp_path)
    assert text_at(text, facts.steps[0].forward_and_loss) == "out = model(x)\none = out.sum()"
    assert facts.steps[1].forward_and_loss is None
    assert "behind another backward" in facts.steps[1].why_not


def test_a_backward_that_no_model_is_reached_by_is_no_step_of_one(tmp_path: Path) -> None:
    facts, _ = facts_of(
        """
        scale = torch.zeros(1, requires_grad=True)
        out = model(x)
        (scale * out.detach()).sum().backward()
        out.sum().backward()
        """,
        tmp_path,
    )
    assert [call.kind for call in facts.training] == ["forward", "backward", "backward"]
    assert [step.backward.line for step in facts.steps] == [9]


@pytest.mark.parametrize(
    "update",
    [
        "target.load_state_dict(model.state_dict())",
        "target.load_state_dict(copy.deepcopy(model.state_dict()))",
        "for a, b in zip(target.parameters(), model.parameters()):\n    a.data.copy_(0.9 * a.data + 0.1 * b.data)",
        "for a, b in zip(target.parameters(), model.parameters()):\n    a.data = 0.9 * a.data + 0.1 * b.data",
        "with torch.no_grad():\n    for a in target.parameters():\n        a -= 0.1 * a.grad",
    ],
)
def test_a_model_whose_weights_follow_counts_as_trained(update: str, tmp_path: Path) -> None:
    code = f"import copy\ntarget = nn.Sequential(nn.Linear(2, 2))\nmodel(x).sum().backward()\n{update}\ntarget(x)\n"
    facts, _ = facts_of(code, tmp_path)
    assert {model.name: model.trained for model in facts.models} == {"model": True, "target": True}
    facts, _ = facts_of(code.replace(update, "target.load_state_dict(torch.load('x'))"), tmp_path)
    assert {model.name: model.trained for model in facts.models} == {"model": True, "target": False}


def test_a_method_that_hands_on_to_the_module_gives_the_model(tmp_path: Path) -> None:
    code = """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(2, 2)

            def to(self, device):
                return super().to(device)

        net = Net().to("cuda")
        net(x)
        """
    facts, _ = facts_of(code, tmp_path)
    assert [model.layers for model in facts.models if model.name == "net"] == [{"Linear"}]


def test_a_model_is_ready_before_what_trains_it_as_a_whole(tmp_path: Path) -> None:
    code = """
        class Meta(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Linear(2, 2)

            def forward(self, x):
                self.net(x).sum().backward()

        meta = Meta()
        meta.to("cpu")
        for _ in range(3):
            meta(x)
            meta.eval()
        """
    facts, text = facts_of(code, tmp_path)
    (meta,) = (model for model in facts.models if model.name == "meta")
    assert text_at(text, meta.ready) == 'meta.to("cpu")'
    assert meta.trained


def test_a_loader_read_by_next_feeds_what_comes_after_it(tmp_path: Path) -> None:
    facts, _ = facts_of(
        """
        from torch.utils.data import DataLoader
        train, test = iter(DataLoader([1])), iter(DataLoader([2]))
        for _ in range(3):
            model(next(train)).sum().backward()
            with torch.no_grad():
                print(model(next(test)))
        """,
        tmp_path,
    )
    used = {loader.name: loader.used_for for loader in facts.dataloaders}
    assert "training" in used["train"]
    assert used["test"] == {"inference"}


def test_a_pipeline_runs_the_model_that_it_is_given(tmp_path: Path) -> None:
    facts, _ = facts_of(
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
        lm = AutoModelForCausalLM.from_pretrained("gpt2").half()
        chat = pipeline("text-generation", model=lm, tokenizer=AutoTokenizer.from_pretrained("gpt2"))
        chat("hello")
        alone = pipeline("text-generation", model="gpt2")
        alone("hello")
        """,
        tmp_path,
    )
    assert {model.name: model.inferred for model in facts.models} == {
        "model": False,
        "lm": True,
        "chat": True,
        "alone": True,
    }
    assert [call.callee for call in facts.inference] == ["chat", "alone"]


def test_an_attribute_that_is_built_anew_is_trained_with_the_other(tmp_path: Path) -> None:
    facts, _ = facts_of(
        """
        import copy
        class Agent:
            def __init__(self):
                self.net = nn.Sequential(nn.Linear(2, 2))
                self.target = copy.deepcopy(self.net)

            def update(self):
                self.net(x).sum().backward()
                for a, b in zip(self.target.parameters(), self.net.parameters()):
                    a.data.copy_(b.data)

            def load(self):
                self.target = copy.deepcopy(self.net)
        """,
        tmp_path,
    )
    assert [(model.name, model.trained) for model in facts.models[1:]] == [
        ("self.net", True),
        ("self.target", True),
        ("self.target", True),
    ]


@pytest.mark.parametrize("use", ["net.train(x, x)", "net.predict(x)", "net.fit(x)", "print(net.generate(x))"])
def test_what_seems_to_run_a_model_ends_its_preparation(use: str, tmp_path: Path) -> None:
    code = f"net = nn.Sequential(nn.Linear(2, 2))\nnet.train(False)\n{use}\nnet.eval()\n"
    facts, text = facts_of(code, tmp_path)
    ready = next(model.ready for model in facts.models if model.name == "net")
    assert text_at(text, ready) == "net.train(False)"


def test_a_backward_over_several_machines_is_one(tmp_path: Path) -> None:
    facts, _ = facts_of(
        "import torch.distributed.autograd as dist_autograd\nwith dist_autograd.context() as context:\n"
        "    dist_autograd.backward(context, [model(x).sum()])\n",
        tmp_path,
    )
    assert {call.kind for call in facts.training} == {"forward", "backward"}
    assert not facts.inference


def test_an_underscore_is_no_name(tmp_path: Path) -> None:
    facts, _ = facts_of("_, other = nn.Linear(1, 1), nn.Linear(2, 2)\nother(x)\n", tmp_path)
    assert [model.name for model in facts.models] == ["model", "other"]
