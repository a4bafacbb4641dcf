"""Every way to change a model is noticed, and nothing else is taken for a change."""

import dataclasses
import importlib.util
import random
import sys
from collections import deque
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from neural_coder.runtime import layout  # noqa: E402
from neural_coder.runtime.watch import CannotWatch, Watch  # noqa: E402

pytestmark = pytest.mark.torch


class Helper:
    """No settings: it holds a tensor."""

    def __init__(self):
        self.table = torch.ones(3)
        self.count = 0


class Watched(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 600))
        self.factor = 0.5
        self.config = SimpleNamespace(twice=False, scales=[1.0], inner=SimpleNamespace(depth=2))
        self.sizes = {"a": 1, "b": [2]}
        self.recent = deque([1])
        self.chosen = {1, 2}
        self.pair = (torch.zeros(2), [3])
        self.helper = Helper()
        self.loose = torch.ones(5)
        self.odd = torch.ones(3)
        self.square = torch.arange(16.0).reshape(4, 4)
        self.nothing = None


CHANGES = {
    "weight in place": lambda model: model.body[0].weight.mul_(2),
    "weight through data": lambda model: model.body[0].weight.data.mul_(2),
    "weight through numpy": lambda model: model.body[0].weight.detach().numpy().fill(3),
    "end of a weight": lambda model: model.body[2].weight.data[-1].fill_(7),
    "weight replaced": lambda model: setattr(model.body[0], "weight", nn.Parameter(torch.ones(8, 4))),
    "data replaced": lambda model: setattr(model.body[0].weight, "data", torch.ones(8, 4)),
    "data transposed": lambda model: setattr(model.square, "data", model.square.data.t()),
    "data narrowed": lambda model: setattr(model.square, "data", model.square.data[:2]),
    "data shifted": lambda model: setattr(model.loose, "data", model.loose.data[1:]),
    "storage replaced": lambda model: model.loose.set_(torch.ones(5)),
    "storage resized": lambda model: model.loose.untyped_storage().resize_(4000),
    "tensors swapped": lambda model: torch.utils.swap_tensors(model.body[0].weight, nn.Parameter(torch.ones(8, 4))),
    "one element": lambda model: model.odd.data[-1].fill_(7),
    "weight removed": lambda model: model.body[0].register_parameter("bias", None),
    "weight added": lambda model: model.body[0].register_parameter("more", nn.Parameter(torch.ones(1))),
    "buffer": lambda model: model.body[1].running_mean.add_(1),
    "loaded": lambda model: model.load_state_dict(Watched().state_dict()),
    "assigned": lambda model: model.load_state_dict(Watched().state_dict(), assign=True),
    "other type": lambda model: model.double(),
    "submodule": lambda model: model.body.__setitem__(0, nn.Linear(4, 8)),
    "submodule added": lambda model: model.body.append(nn.ReLU()),
    "submodule renamed": lambda model: model.body._modules.update(last=model.body._modules.pop("2")),
    "dictionary of submodules": lambda model: vars(model.body).update(_modules={}),
    "training flag": lambda model: model.body[1].train(),
    "attribute": lambda model: setattr(model, "factor", 0.75),
    "type of an attribute": lambda model: setattr(model, "factor", True),
    "attribute to tensor": lambda model: setattr(model, "nothing", torch.ones(2)),
    "attribute removed": lambda model: delattr(model, "factor"),
    "attribute added": lambda model: setattr(model, "more", 1),
    "attribute of a layer": lambda model: setattr(model.body[1], "eps", 1.0),
    "forward of a layer": lambda model: setattr(model.body[0], "forward", torch.neg),
    "config": lambda model: setattr(model.config, "twice", True),
    "list in a config": lambda model: model.config.scales.__setitem__(0, 2.0),
    "config in a config": lambda model: setattr(model.config.inner, "depth", 3),
    "config replaced": lambda model: setattr(model, "config", SimpleNamespace(**vars(model.config))),
    "key of a dictionary": lambda model: model.sizes.update(c=model.sizes.pop("b")),
    "list in a dictionary": lambda model: model.sizes["b"].append(1),
    "deque": lambda model: model.recent.append(2),
    "set": lambda model: model.chosen.add(5),
    "tensor in a tuple": lambda model: model.pair[0].add_(1),
    "list in a tuple": lambda model: model.pair[1].clear(),
    "tensor in an object": lambda model: model.helper.table.add_(1),
    "tensor in an object replaced": lambda model: setattr(model.helper, "table", torch.ones(3)),
    "plain tensor": lambda model: model.loose.add_(1),
    "plain tensor through data": lambda model: model.loose.data.add_(1),
}


@pytest.fixture(params=["memory", "versions", "values"])
def known(request, monkeypatch):
    """What can be found out about tensors and dictionaries; other versions of PyTorch and Python may tell less."""
    if request.param != "memory":
        monkeypatch.setattr(layout, "_tensor_layout", lambda: None)
        monkeypatch.setattr(layout, "_dict_layout", layout._DictLayout)
        monkeypatch.setattr(layout, "can_read", lambda: False)
    if request.param == "values":
        monkeypatch.setattr(layout, "dict_version", None)
    return request.param


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_noticed_and_named(change, known):
    model = Watched().eval()
    watch = Watch(model)
    assert watch.holds()
    assert watch.difference() == ""
    with torch.no_grad():
        change(model)
    assert not watch.holds()
    assert watch.difference()


def test_memory_is_read_where_its_layout_is_as_expected(known):
    watch = Watch(Watched().eval())
    read = [
        words is not None for words in (watch._weights.objects, watch._versions.words, watch._empty_sizes, watch._first)
    ]
    # Newer versions of Python keep no version in their dictionaries.
    expected = (
        [True, sys.version_info < (3, 12), True, sys.version_info < (3, 12)]
        if known == "memory" and importlib.util.find_spec("numpy")
        else 4 * [False]
    )
    assert read == expected


def test_tensors_of_many_dimensions_are_asked():
    model = Watched().eval()
    model.deep = torch.arange(64.0).reshape(2, 2, 2, 2, 2, 2)
    watch = Watch(model)
    assert watch.holds()
    assert (watch._first is None) == (watch._versions.words is None)
    model.deep.data = model.deep.data.transpose(0, 5)
    assert not watch.holds()
    assert watch.difference() == "deep changed"


@pytest.mark.parametrize("field", ["storage", "offset", "dim", "sizes", "strides", "data", "version"])
def test_a_layout_by_which_pytorch_is_misread_is_not_used(field, monkeypatch):
    true = layout._tensor_layout()
    weights = [*nn.Linear(5, 3).parameters(), torch.ones(4)[1:]]
    assert layout.of_tensors(weights)
    wrong = dataclasses.replace(true, **{field: getattr(true, field) - layout.WORD})
    monkeypatch.setattr(layout, "_tensor_layout", lambda: wrong)
    assert layout.of_tensors(weights) is None


def test_the_layout_is_found_whatever_the_memory_held_before():
    chance = random.Random(0)
    with torch.no_grad():
        for _ in range(300):
            before = [
                torch.empty(chance.choice((2, 5, 17)), chance.randint(1, 40)) for _ in range(chance.randint(0, 30))
            ]
            del before
            assert layout._found_tensor_layout() == layout._tensor_layout()


def test_words_of_replaced_memory_are_not_read():
    tensor = torch.ones(1000)
    words = layout.of_tensors([tensor])
    assert all(each.hold() for each in words)
    tensor.data = torch.ones(1000)
    assert [each.hold() for each in words[:2]] == [True, False]


def test_what_is_equal_counts_as_unchanged():
    model = Watched().eval()
    watch = Watch(model)
    model.factor = float("0.5")
    model.config.scales[0] = float("1.0")
    model.helper.count += 1  # of an object that is no record of settings only the tensors are watched
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert watch.holds()
    assert not watch.needs_gradients()
    assert watch.holds()
    model.body[1].num_batches_tracked += 1  # counts for training only
    assert watch.holds()
    model.factor = 0.75
    assert not watch.holds()


def test_a_change_in_the_middle_of_a_weight_is_noticed_before_long():
    model = Watched().eval()
    watch = Watch(model)
    assert all(watch.holds() for _ in range(20))
    model.body[2].weight.data[280:320].fill_(7)
    assert not all(watch.holds() for _ in range(8))
    assert watch.difference() == "a weight changed"


def test_unchanged_dictionaries_are_not_looked_through(monkeypatch):
    watch = Watch(Watched().eval())
    monkeypatch.setattr(watch._contents, "hold", lambda: pytest.fail("looked through"))
    assert watch.holds()


def test_dictionaries_that_were_written_to_are_looked_through_once(monkeypatch):
    model = Watched().eval()
    watch = Watch(model)
    model.factor = float("0.5")
    looks = []
    hold = watch._contents.hold
    monkeypatch.setattr(watch._contents, "hold", lambda: looks.append(1) or hold())
    assert all(watch.holds() for _ in range(3))
    assert len(looks) == 1
    model.factor = 0.75
    assert not watch.holds()


def test_changes_are_named():
    model = Watched().eval()
    watches = [Watch(model) for _ in range(3)]
    model.body[1].eps = 1.0
    assert watches[0].difference() == "attribute body.1.eps changed"
    model.body[1].eps = 1e-5
    model.config.scales.append(1)
    assert watches[1].difference() == "attribute config.scales changed"
    model.config.scales.pop()
    with torch.no_grad():
        model.body[1].running_mean.add_(1)
    assert watches[2].difference() == "body.1.running_mean changed"


def test_hooks_are_seen_while_they_are_there():
    model = Watched().eval()
    watch = Watch(model)
    assert not watch.hooked()
    handle = model.body[0].register_forward_hook(lambda *_: None)
    assert watch.hooked()
    assert watch.hooked()
    handle.remove()
    assert not watch.hooked()
    assert watch.holds()
    with model.body[1].register_forward_pre_hook(lambda *_: None):
        assert watch.hooked()
    with torch.nn.modules.module.register_module_forward_hook(lambda *_: None):
        assert watch.hooked()
    assert not watch.hooked()


def test_shared_and_expanded_memory_is_read_within_its_bounds():
    @dataclasses.dataclass
    class Rows:
        rows: torch.Tensor

    model = nn.Linear(3, 3)
    model.register_buffer("wide", torch.zeros(1).expand(1000, 1000))
    model.register_buffer("part", torch.arange(100.0)[7:20:3])
    model.register_buffer("empty", torch.zeros(0, 3))
    model.register_buffer("byte", torch.zeros((), dtype=torch.bool))
    model.rows = Rows(torch.ones(2, dtype=torch.bfloat16))
    watch = Watch(model)
    assert watch.holds()
    model.byte.data.logical_not_()
    assert not watch.holds()


def test_weights_whose_changes_cannot_be_seen_are_refused():
    with torch.inference_mode():
        model = nn.Linear(2, 2)
    with pytest.raises(CannotWatch, match=r"made inside torch.inference_mode"):
        Watch(model)
    with pytest.raises(CannotWatch, match="without data"):
        Watch(nn.Linear(2, 2, device="meta"))
