"""The promises of `accelerate`, for every engine and precision that needs no compiler."""

import copy
import dataclasses
import inspect
import io
import pickle
import threading
from collections import namedtuple
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from neural_coder.runtime import AccelerationError, AccelerationWarning, accelerate, explain  # noqa: E402

pytestmark = pytest.mark.torch

EAGER = [("torch", "bf16"), ("torch", "int8_dynamic")]
VARIANTS = [*EAGER, ("torchscript", "fp32"), ("torchscript", "bf16")]
each_variant = pytest.mark.parametrize(("engine", "precision"), VARIANTS)
each_eager = pytest.mark.parametrize(("engine", "precision"), EAGER)

Pair = namedtuple("Pair", "first second")


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    note: str = "note"


class Small(nn.Module):
    """A linear network whose weights make bfloat16 and int8 visible."""

    def __init__(self, width=16, classes=5):
        super().__init__()
        self.hidden = nn.Linear(width, 32)
        self.norm = nn.LayerNorm(32)
        self.out = nn.Linear(32, classes)

    def forward(self, x, scale=None, *, shift=None):
        y = self.out(torch.relu(self.norm(self.hidden(x))))
        y = y if scale is None else y * scale
        return y if shift is None else y + shift


class Shaped(nn.Module):
    """Gives its answer in the form that it is asked for."""

    def __init__(self, form):
        super().__init__()
        self.form = form
        self.body = Small()

    def forward(self, x):
        y = self.body(x)
        return {
            "tuple": lambda: (y, y.argmax(-1), None),
            "list": lambda: [y, (y * 2, y.mean())],
            "dict": lambda: {"logits": y, "labels": y.argmax(-1)},
            "namedtuple": lambda: Pair(y, y + 1),
            "dataclass": lambda: Answer(y),
            "nested": lambda: {"a": (Pair(y, [y]), None), "b": {"c": y.sum()}},
        }[self.form]()


def small(seed=0, **settings):
    torch.manual_seed(seed)
    return Small(**settings).eval()


def original(model, *args, **kwargs):
    return type(model).forward(model, *args, **kwargs)


def is_close(actual, expected, tolerance=0.06):
    return torch.linalg.vector_norm(actual - expected) <= tolerance * torch.linalg.vector_norm(expected)


def ready(model, *args, **kwargs):
    """Call until an engine answers."""
    with torch.no_grad():
        for _ in range(2):
            model(*args, **kwargs)
    assert explain(model).running != "original", explain(model)
    return model


@each_variant
def test_the_same_object_comes_back(engine, precision):
    model = small()
    keys, kind = list(model.state_dict()), type(model)
    assert accelerate(model, engine=engine, precision=precision) is model
    assert isinstance(model, Small)
    assert type(model) is kind
    assert list(model.state_dict()) == keys
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@each_variant
def test_the_engine_answers_from_the_first_call_on(engine, precision):
    model = accelerate(small(), engine=engine, precision=precision, strict=True)
    x = torch.randn(4, 16)
    with torch.inference_mode():
        for _ in range(3):
            answer = model(x)
            assert is_close(answer, original(model, x))
            assert answer.dtype == torch.float32
    told = explain(model)
    assert told.running == f"{engine}/{precision}"
    assert told.reason == ""
    assert (told.calls_accelerated, told.calls_original) == (3, 0)
    assert told.conversion_seconds > 0
    assert f"{engine}/{precision}" in str(told)


def test_the_converted_copy_is_what_was_asked_for():
    x = torch.randn(4, 16)
    assert explain(ready(accelerate(small(), precision="bf16"), x)).dtypes == {"bfloat16"}
    quantized = explain(ready(accelerate(small(), precision="int8_dynamic"), x))
    assert quantized.quantized_modules == 2
    assert "qint8" in quantized.dtypes
    assert explain(ready(accelerate(small(), engine="torchscript"), x)).graphs == 1


@each_variant
def test_answers_are_really_those_of_the_engine(engine, precision):
    """At reduced precision they differ a little from the original's, which proves who gave them."""
    model, x = small(), torch.randn(64, 16)
    ready(accelerate(model, engine=engine, precision=precision), x)
    with torch.no_grad():
        assert precision == "fp32" or not torch.equal(model(x), original(model, x))


@each_variant
def test_training_mode_runs_the_original_with_gradients(engine, precision):
    model, x = small(), torch.randn(4, 16)
    ready(accelerate(model, engine=engine, precision=precision), x)
    model.train()
    model(x).sum().backward()
    assert model.hidden.weight.grad is not None
    assert explain(model).reason == "training mode"
    model.eval()
    with torch.no_grad():
        model(x)
    assert explain(model).running == f"{engine}/{precision}"


def test_a_submodule_in_training_mode_runs_the_original():
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 64)).eval()
    model[1].train()
    accelerate(model, precision="bf16")
    with torch.no_grad():
        assert not torch.equal(model(torch.ones(2, 4)), model(torch.ones(2, 4)))
    assert explain(model).reason == "a submodule is in training mode"


def test_dropout_that_is_switched_on_after_conversion_drops():
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 64)).eval()
    x = torch.ones(2, 4)
    ready(accelerate(model, precision="bf16"), x)
    model[1].train()
    with torch.no_grad():
        assert not torch.equal(model(x), model(x))


@each_variant
def test_gradients_for_weights_or_inputs_run_the_original(engine, precision):
    model, x = small(), torch.randn(4, 16)
    ready(accelerate(model, engine=engine, precision=precision), x)
    assert model(x).requires_grad
    assert "gradients are enabled" in explain(model).reason
    model.requires_grad_(False)
    x.requires_grad_(True)
    model(x).sum().backward()
    assert x.grad is not None
    x = x.detach()
    for _ in range(2):
        assert not model(x).requires_grad
    assert explain(model).running == f"{engine}/{precision}"


@each_variant
def test_changed_weights_are_used(engine, precision):
    model, x = small(), torch.randn(4, 16)
    ready(accelerate(model, engine=engine, precision=precision), x)
    model.load_state_dict(small(seed=1).state_dict())
    with torch.no_grad():
        for _ in range(3):
            assert is_close(model(x), small(seed=1)(x))
    assert explain(model).running == f"{engine}/{precision}"


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.out.weight.data.zero_(),
        lambda model: model.out.bias.detach().numpy().fill(3.0),
        lambda model: model.load_state_dict(small(seed=2).state_dict(), assign=True),
        lambda model: setattr(model, "out", nn.Linear(32, 5)),
        lambda model: setattr(model.out, "weight", nn.Parameter(torch.ones(5, 32))),
        lambda model: setattr(model.out.weight, "data", torch.ones(5, 32)),
        lambda model: setattr(model.norm, "eps", 10.0),
        lambda model: setattr(model.norm, "forward", torch.neg),
        lambda model: model.hidden.register_parameter("bias", None),
    ],
    ids=["data", "numpy", "assign", "submodule", "parameter", "data_replaced", "attribute", "forward", "removed"],
)
def test_every_way_to_change_a_model_is_noticed(change):
    model, x = small(), torch.randn(4, 16)
    ready(accelerate(model, precision="bf16"), x)
    change(model)
    with torch.no_grad():
        for _ in range(3):
            assert is_close(model(x), original(model, x))


def test_changed_buffers_are_used():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)).eval()
    x = torch.randn(3, 4)
    ready(accelerate(model, precision="bf16"), x)
    model[1].running_mean += 5
    with torch.no_grad():
        assert is_close(model(x), original(model, x))


def test_a_model_that_changes_all_the_time_is_left_to_the_original():
    model, x = small(), torch.randn(4, 16)
    accelerate(model, precision="bf16")

    def change_and_call():
        for _ in range(8):
            model.out.weight.mul_(0.9)
            assert is_close(model(x), original(model, x))

    with torch.no_grad(), pytest.warns(AccelerationWarning, match="changed after each of 4 conversions"):
        change_and_call()
    with torch.no_grad():
        assert torch.equal(model(x), original(model, x))


def test_settings_in_a_config_are_followed_after_conversion():
    class Configured(nn.Module):
        def __init__(self):
            super().__init__()
            self.config = SimpleNamespace(twice=False, scales=[1.0])
            self.body = nn.Linear(8, 8)

        def forward(self, x):
            y = self.body(x) * self.config.scales[0]
            return (y, y) if self.config.twice else y

    model, x = Configured().eval(), torch.randn(2, 8)
    ready(accelerate(model, engine="torchscript"), x)
    model.config.twice = True
    with torch.no_grad():
        assert len(model(x)) == 2
        assert isinstance(model(x), tuple)
        model.config.scales[0] = 3.0
        assert is_close(model(x)[0], original(model, x)[0])


@pytest.mark.parametrize(("engine", "precision"), [("torch", "bf16"), ("torchscript", "fp32"), ("torchscript", "bf16")])
def test_other_dtypes_and_back_keep_working(engine, precision):
    model, x = small(), torch.randn(4, 16)
    ready(accelerate(model, engine=engine, precision=precision), x)
    model.double()
    with torch.no_grad():
        for _ in range(2):
            assert model(x.double()).dtype == torch.float64
            assert is_close(model(x.double()), original(model, x.double()))
    model.to("cpu", torch.float32)
    with torch.no_grad():
        assert is_close(model(x), original(model, x))
    assert explain(model).running == f"{engine}/{precision}"


def test_a_dtype_that_the_engine_cannot_take_is_left_to_the_original():
    model, x = small(), torch.randn(4, 16)
    ready(accelerate(model, precision="int8_dynamic"), x)
    model.half()
    with torch.no_grad(), pytest.warns(AccelerationWarning, match="does not run Small"):
        assert model(x.half()).dtype == torch.float16
    with torch.no_grad():
        assert torch.equal(model(x.half()), original(model, x.half()))


@each_variant
def test_a_deep_copy_is_independent(engine, precision):
    model, x = small(), torch.randn(4, 16)
    ready(accelerate(model, engine=engine, precision=precision), x)
    clone = copy.deepcopy(model)
    with torch.no_grad():
        clone.out.weight.zero_()
        clone.out.bias.zero_()
        assert not clone(x).any()
        assert is_close(model(x), original(model, x))
    assert explain(model).running == f"{engine}/{precision}"


def test_a_shallow_copy_runs_its_own_forward():
    model, x = small(), torch.randn(4, 16)
    ready(accelerate(model, precision="bf16"), x)
    clone = copy.copy(model)
    clone.norm = None  # both share their submodules, as shallow copies do
    clone.__dict__["_modules"] = {**model._modules, "norm": nn.Identity()}
    model._modules["norm"] = nn.LayerNorm(32)
    with torch.no_grad():
        assert torch.equal(clone(x), original(clone, x))
        assert not is_close(clone(x), original(model, x))


def test_a_replica_for_data_parallel_runs_its_own_forward():
    model, x = small(), torch.randn(4, 16)
    ready(accelerate(model, precision="bf16"), x)
    replica = model._replicate_for_data_parallel()
    assert "forward" not in vars(replica)
    assert explain(replica).engine == ""


@each_variant
def test_pickles_are_plain_models(engine, precision):
    model, x = small(), torch.randn(4, 16)
    ready(accelerate(model, engine=engine, precision=precision), x)
    loaded = pickle.loads(pickle.dumps(model))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    saved = torch.load(file, weights_only=False)
    assert b"neural_coder" not in pickle.dumps(model)
    with torch.no_grad():
        assert torch.equal(loaded(x), original(model, x))
        assert torch.equal(saved(x), original(model, x))
    assert explain(loaded).engine == ""


def test_hooks_on_the_model_fire_once_per_call():
    model, x = small(), torch.randn(4, 16)
    seen = []
    model.register_forward_hook(lambda module, inputs, output: seen.append("hook"))
    model.register_forward_pre_hook(lambda module, inputs: seen.append("pre"))
    accelerate(model, precision="bf16")
    with torch.no_grad():
        for _ in range(3):
            model(x)
    assert seen == ["pre", "hook"] * 3
    assert explain(model).calls_accelerated == 3


@each_variant
def test_hooks_on_submodules_fire(engine, precision):
    model, x = small(), torch.randn(4, 16)
    ready(accelerate(model, engine=engine, precision=precision), x)
    seen = []
    handle = model.hidden.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        model(x)
        assert seen == [torch.float32]
        assert explain(model).reason == "a submodule has hooks"
        handle.remove()
        model(x)
    assert seen == [torch.float32]
    assert explain(model).running == f"{engine}/{precision}"


def test_hooks_that_are_there_from_the_start_fire():
    model, x, seen = small(), torch.randn(4, 16), []
    model.hidden.register_forward_hook(lambda module, inputs, output: seen.append(output))
    accelerate(model, precision="bf16")
    with torch.no_grad():
        model(x)
        model(x)
    assert [output.dtype for output in seen] == [torch.float32] * 2


@each_variant
def test_positional_and_keyword_arguments_mix(engine, precision):
    model = accelerate(small(), engine=engine, precision=precision)
    x, shift = torch.randn(4, 16), torch.randn(5)
    with torch.no_grad():
        for _ in range(2):
            assert is_close(model(x), original(model, x))
            assert is_close(model(x=x), original(model, x))
            assert is_close(model(x, 2.0), original(model, x, 2.0))
            assert is_close(model(x, 3.0), original(model, x, 3.0))
            assert is_close(model(x, shift=shift), original(model, x, shift=shift))


@pytest.mark.parametrize("form", ["tuple", "list", "dict", "namedtuple", "dataclass", "nested"])
@each_variant
def test_outputs_keep_structure_and_dtype(engine, precision, form):
    torch.manual_seed(0)
    model = accelerate(Shaped(form).eval(), engine=engine, precision=precision, strict=True)
    x = torch.randn(4, 16)
    with torch.no_grad():
        for _ in range(3):
            assert_same_form(model(x), original(model, x))
    assert explain(model).running == f"{engine}/{precision}"


def assert_same_form(actual, expected):
    assert type(actual) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert actual.dtype == expected.dtype
        assert actual.shape == expected.shape
        if expected.is_floating_point():
            assert is_close(actual, expected)
    elif isinstance(expected, dict):
        assert list(actual) == list(expected)
        assert_same_form(list(actual.values()), list(expected.values()))
    elif dataclasses.is_dataclass(expected):
        assert_same_form(vars(actual), vars(expected))
    elif isinstance(expected, (tuple, list)):
        assert len(actual) == len(expected)
        for mine, theirs in zip(actual, expected, strict=True):
            assert_same_form(mine, theirs)
    else:
        assert actual == expected


@each_variant
def test_inputs_of_all_types_pass(engine, precision):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(10, 8)
            self.out = nn.Linear(8, 4)

        def forward(self, tokens, mask, weights, steps, options=None):
            y = self.embed(tokens) * weights.unsqueeze(-1) * steps
            y = y.masked_fill(~mask.unsqueeze(-1), 0)
            return self.out(y), mask, (options or {}).get("name")

    torch.manual_seed(0)
    model = accelerate(Mixed().eval(), engine=engine, precision=precision)
    inputs = torch.randint(0, 10, (2, 3)), torch.tensor([[True, True, False]] * 2), torch.rand(2, 3), 2
    with torch.no_grad():
        for options in (None, None, {"name": "a"}, {"name": "a"}, {"name": "b"}):
            answer, expected = model(*inputs, options), original(model, *inputs, options)
            assert is_close(answer[0], expected[0])
            assert answer[1].dtype == torch.bool
            assert answer[2] == expected[2]


@each_eager
def test_batches_of_any_size_are_accelerated(engine, precision):
    model = accelerate(small(), engine=engine, precision=precision, strict=True)
    with torch.inference_mode():
        for size in (8, 8, 3, 1, 17):
            x = torch.randn(size, 16)
            assert is_close(model(x), original(model, x))
    assert explain(model).calls_accelerated == 5


@each_variant
def test_an_empty_batch_runs_the_original(engine, precision):
    model = accelerate(small(), engine=engine, precision=precision)
    with torch.no_grad():
        model(torch.randn(4, 16))
        assert model(torch.randn(0, 16)).shape == (0, 5)
    assert explain(model).reason == "an input is empty"


def test_traces_are_made_for_a_few_shapes_and_the_original_answers_others():
    model = accelerate(small(), engine="torchscript")
    with torch.no_grad():
        for size in (1, 2, 3, 4, 5, 6, 1, 2):
            x = torch.randn(size, 16)
            assert is_close(model(x), original(model, x), 1e-5)
            assert explain(model).running == ("original" if size > 4 else "torchscript/fp32")
    assert explain(model).graphs == 4
    assert explain(model).reason == ""


def test_a_trace_that_missed_a_branch_is_found_out():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)

        def forward(self, x):
            return self.out(x) if x.sum() > 0 else self.out(x) - 100

    torch.manual_seed(0)
    model = accelerate(Branching().eval(), engine="torchscript")
    x = torch.ones(2, 4)
    with torch.no_grad():
        model(x)
        with pytest.warns(AccelerationWarning, match="an output differs"):
            assert torch.equal(model(-x), original(model, -x))
        assert torch.equal(model(-x), original(model, -x))


@each_variant
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("later", [torch.no_grad, torch.inference_mode])
def test_a_copy_that_was_made_in_one_mode_works_in_the_other(engine, precision, mode, later):
    model = accelerate(small(), engine=engine, precision=precision, strict=True)
    x = torch.randn(4, 16)
    with mode():
        model(x)
    with later():
        assert is_close(model(x), original(model, x))
        assert model(x).is_inference() == (later is torch.inference_mode)
    assert explain(model).running == f"{engine}/{precision}"


def test_weights_made_in_inference_mode_are_left_to_the_original():
    with torch.inference_mode():
        model, x = small(), torch.randn(4, 16)
        with pytest.warns(AccelerationWarning, match="made inside torch.inference_mode"):
            accelerate(model, precision="bf16")(x)
        assert torch.equal(model(x), original(model, x))


def test_non_contiguous_and_channels_last_inputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        model(x)
        accelerate(model.to(memory_format=torch.channels_last), precision="bf16", strict=True)
        for given in (x, x.to(memory_format=torch.channels_last), x.transpose(2, 3), x):
            assert is_close(model(given), original(model, given))
    assert explain(model).calls_accelerated == 4


def test_tied_weights_stay_tied_in_the_copy():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 8)
            self.head = nn.Linear(8, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens):
            return self.head(self.embed(tokens))

    model, tokens = Tied().eval(), torch.arange(5)[None]
    ready(accelerate(model, precision="bf16"), tokens)
    with torch.no_grad():
        model.embed.weight.mul_(2)
        assert is_close(model(tokens), original(model, tokens))


@each_variant
def test_a_model_with_a_state_is_left_to_the_original(engine, precision):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.out(x) + self.calls

    model, x = accelerate(Counting().eval(), engine=engine, precision=precision), torch.zeros(1, 4)
    with torch.no_grad(), pytest.warns(AccelerationWarning, match="its forward changes the model: calls"):
        answers = [model(x) for _ in range(6)]
    assert [round(float((answer - model.out.bias).detach().mean())) for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert model.calls == 6


def test_a_state_in_plain_attributes_is_kept_too():
    class Remembering(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)
            self.last = None

        def forward(self, x):
            self.last = self.out(x)
            return self.last

    model, x = accelerate(Remembering().eval(), precision="bf16"), torch.randn(1, 4)
    with torch.no_grad(), pytest.warns(AccelerationWarning, match="its forward changes the model: attribute"):
        same = [model(x) is model.last for _ in range(5)]
    assert all(same)


def test_a_model_that_sets_itself_up_in_its_first_call_is_accelerated_later():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)
            self.table = None

        def forward(self, x):
            if self.table is None:
                self.table = torch.ones(4)
            return self.out(x) * self.table

    model = accelerate(Lazy().eval(), engine="torchscript", strict=True)
    with torch.no_grad():
        for _ in range(3):
            model(torch.ones(1, 4))
    assert explain(model).running == "torchscript/fp32"


def test_a_forward_that_writes_to_its_input_is_left_to_the_original():
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)

        def forward(self, x):
            return self.out(x.add_(1))

    model = accelerate(Writing().eval(), precision="bf16")
    x = torch.zeros(1, 4)
    with torch.inference_mode(), pytest.warns(AccelerationWarning, match="writes to its inputs"):
        model(x)
    with torch.no_grad():
        model(x)
    assert torch.equal(x, torch.full((1, 4), 2.0))


def test_a_forward_that_extends_its_input_dictionary_keeps_doing_so():
    class Extending(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)

        def forward(self, features):
            features["embedding"] = self.out(features["x"])
            return features

    model, x = accelerate(Extending().eval(), precision="bf16", strict=True), torch.randn(2, 4)
    with torch.no_grad():
        for _ in range(3):
            features = {"x": x, "name": "a"}
            assert model(features) is features
            assert features["x"] is x
            assert features["name"] == "a"
            assert is_close(features["embedding"], model.out(x))
            assert features["embedding"].dtype == torch.float32
    assert explain(model).calls_accelerated == 3


def test_a_forward_that_changes_other_inputs_is_left_to_the_original():
    class Logging(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)

        def forward(self, x, log):
            log.append(x.shape)
            return self.out(x)

    model, log = accelerate(Logging().eval(), precision="bf16"), []
    with torch.no_grad(), pytest.warns(AccelerationWarning, match="changes lists or dictionaries"):
        model(torch.ones(1, 4), log)
    with torch.no_grad():
        model(torch.ones(1, 4), log)
    assert len(log) == 2


def test_random_numbers_are_drawn_as_without_acceleration():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)

        def forward(self, x):
            return self.out(x) + 100 * torch.rand(4)

    model, x, drawn = Noisy().eval(), torch.randn(2, 4), []
    for run in (lambda: original(model, x), lambda: model(x), lambda: model(x)):
        torch.manual_seed(5)
        with torch.no_grad():
            drawn.append((run(), torch.rand(3)))
        accelerate(model, precision="int8_dynamic", strict=True)
    for answer, following in drawn[1:]:
        assert is_close(answer, drawn[0][0])
        assert torch.equal(following, drawn[0][1])
    assert explain(model).engine == "torch"


def test_answers_with_new_nan_are_refused():
    class Overflowing(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)

        def forward(self, x):
            y = self.out(x)
            return y / (0.0 if y.dtype == torch.bfloat16 else 1.0)

    model = accelerate(Overflowing().eval(), precision="bf16")
    x = torch.ones(1, 4)
    with torch.no_grad(), pytest.warns(AccelerationWarning, match="NaN or infinity"):
        assert torch.isfinite(model(x)).all()


def test_a_failing_conversion_warns_once_and_the_original_runs():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)
            self.table = torch.ones(4, 4)  # no buffer: stays in float32

        def forward(self, x):
            return self.out(x) @ self.table

    model, x = accelerate(Fixed().eval(), precision="bf16"), torch.ones(1, 4)
    with torch.no_grad():
        with pytest.warns(AccelerationWarning, match="torch/bf16 does not run Fixed: RuntimeError") as caught:
            model(x)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert torch.equal(model(x), original(model, x))
    assert explain(model).running == "original"
    strict = accelerate(Fixed().eval(), precision="bf16", strict=True)
    with torch.no_grad(), pytest.raises(AccelerationError, match="does not run Fixed"):
        strict(x)


def test_nothing_to_quantize_is_said():
    model = accelerate(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), precision="int8_dynamic")
    with torch.no_grad(), pytest.warns(AccelerationWarning, match="no Linear, LSTM or GRU"):
        model(torch.randn(1, 3, 8, 8))


def test_an_engine_that_fails_later_warns_once_and_the_original_runs():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)

        def forward(self, x):
            if x.shape[0] == 3 and x.dtype == torch.bfloat16:
                raise RuntimeError("not with three")
            return self.out(x)

    model, x = accelerate(Picky().eval(), precision="bf16"), torch.randn(3, 4)
    with torch.no_grad():
        model(x[:2])
        with pytest.warns(AccelerationWarning, match=r"the engine failed \(RuntimeError: not with three\)"):
            assert torch.equal(model(x), original(model, x))
        assert torch.equal(model(x), original(model, x))
    assert "not with three" in explain(model).reason


def test_an_answer_of_another_structure_than_the_one_compared_is_not_handed_on():
    class Deciding(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)

        def forward(self, x):
            y = self.out(x)
            return y if x[0, 0] > 0 else (y, y)

    model, x = accelerate(Deciding().eval(), precision="bf16"), torch.ones(2, 4)
    with torch.no_grad():
        model(x)
        with pytest.warns(AccelerationWarning, match="another structure"):
            answer = model(-x)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(answer, original(model, -x), strict=True))


class Store:
    """A cache, as a language model has."""

    def __init__(self):
        self.held = []


class Storing(nn.Module):
    """Adds to a store, and then may fail where it computes in bfloat16."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 4)

    def forward(self, x, store):
        y = self.out(x)
        if x.shape[0] == 2 and x.dtype == torch.bfloat16:
            raise RuntimeError("before")
        store.held = [*store.held, y]
        if x.shape[0] == 3 and x.dtype == torch.bfloat16:
            raise RuntimeError("after")
        return y


def test_a_store_among_the_inputs_is_never_filled_twice():
    model, store = accelerate(Storing().eval(), precision="bf16", strict=True), Store()
    with torch.no_grad():
        for _ in range(3):
            model(torch.ones(1, 4), store)
        assert len(store.held) == 3
        assert explain(model).calls_accelerated == 3
        with pytest.raises(RuntimeError, match="after"):
            model(torch.ones(3, 4), store)
    assert len(store.held) == 4


def test_a_failure_before_the_store_is_filled_is_answered_by_the_original():
    model, store = accelerate(Storing().eval(), precision="bf16"), Store()
    with torch.no_grad():
        model(torch.ones(1, 4), Store())
        with pytest.warns(AccelerationWarning, match="before"):
            model(torch.ones(2, 4), store)
    assert [held.dtype for held in store.held] == [torch.float32]


def test_objects_that_cannot_be_looked_into_are_left_to_the_original():
    class Opaque:
        __slots__ = ("tensor",)

    class Adding(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)

        def forward(self, x, other):
            return self.out(x) + other.tensor

    other = Opaque()
    other.tensor = torch.ones(4)
    model, x = accelerate(Adding().eval(), precision="bf16"), torch.ones(1, 4)
    with torch.no_grad():
        assert torch.equal(model(x, other), original(model, x, other))
    assert "cannot be looked into" in explain(model).reason


def test_traces_are_not_used_under_autocast():
    model, x = small(), torch.randn(4, 16)
    accelerate(model, engine="torchscript")
    with torch.no_grad():
        model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model(x).dtype == torch.bfloat16
        assert explain(model).reason == "autocast is on"
        assert model(x).dtype == torch.float32
    assert explain(model).running == "torchscript/fp32"


def test_a_dispatch_mode_sees_the_operations_of_the_original():
    from torch.utils.flop_counter import FlopCounterMode

    def flops():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x)
        return counter.get_total_flops()

    model, x = small(), torch.randn(4, 16)
    expected = flops()
    ready(accelerate(model, precision="int8_dynamic"), x)
    assert flops() == expected > 0


@each_variant
def test_mistakes_of_the_caller_look_as_before(engine, precision):
    model = accelerate(small(), engine=engine, precision=precision)
    with torch.no_grad():
        model(torch.randn(4, 16))
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            model(torch.randn(4, 3))
        with pytest.raises(TypeError, match="unexpected keyword"):
            model(torch.randn(4, 16), nonsense=1)
        model(torch.randn(4, 16))
    assert explain(model).running == f"{engine}/{precision}"


def test_two_threads_may_call_at_once():
    model, x = accelerate(small(), engine="torchscript"), torch.randn(4, 16)
    expected, wrong, start = original(model, x).detach(), [], threading.Barrier(4)

    def call():
        start.wait()
        with torch.no_grad():
            wrong.extend("wrong" for _ in range(20) if not is_close(model(x), expected, 1e-5))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = explain(model)
    assert not wrong
    assert told.calls_accelerated > 0
    assert told.graphs == 1


def test_several_models_are_accelerated_side_by_side():
    x = torch.randn(4, 16)
    first = accelerate(small(1), precision="bf16")
    second = accelerate(small(2), precision="int8_dynamic")
    with torch.no_grad():
        for _ in range(2):
            assert is_close(first(x), original(first, x))
            assert is_close(second(x), original(second, x))
    assert (explain(first).running, explain(second).running) == ("torch/bf16", "torch/int8_dynamic")


def test_an_accelerated_part_of_an_accelerated_model():
    model, x = Shaped("dict").eval(), torch.randn(4, 16)
    accelerate(model.body, precision="bf16")
    accelerate(model, precision="int8_dynamic", strict=True)
    with torch.no_grad():
        for _ in range(3):
            assert is_close(model(x)["logits"], original(model, x)["logits"])
    assert explain(model).running == "torch/int8_dynamic"


def test_asking_again_replaces_the_engine():
    model, x = small(), torch.randn(4, 16)
    ready(accelerate(model, precision="bf16"), x)
    ready(accelerate(model, engine="torchscript"), x)
    assert explain(model).engine == "torchscript"
    accelerate(model)
    with torch.no_grad():
        assert torch.equal(model(x), original(model, x))
    assert explain(model).reason == "torch/fp32 is how the original runs"


def test_the_models_of_another_object_are_accelerated():
    pipeline = SimpleNamespace(model=small(), name="pipeline")
    assert accelerate(pipeline, precision="bf16") is pipeline
    with torch.no_grad():
        pipeline.model(torch.randn(4, 16))
    assert explain(pipeline).running == "torch/bf16"


def test_an_object_without_a_model_is_handed_back_with_a_warning():
    thing = SimpleNamespace(name="nothing")
    with pytest.warns(AccelerationWarning, match="holds none in its attributes"):
        assert accelerate(thing, precision="bf16") is thing
    with pytest.raises(AccelerationError):
        accelerate(thing, precision="bf16", strict=True)
    assert "not given to accelerate" in explain(thing).reason


def test_unknown_engines_and_precisions_are_refused_with_what_exists():
    with pytest.raises(ValueError, match=r"did you mean 'inductor'\?.*engines: inductor, .*torchscript"):
        accelerate(small(), engine="induktor")
    with pytest.raises(ValueError, match="it has: fp32, bf16, int8_dynamic"):
        accelerate(small(), engine="torch", precision="fp8")


def test_a_missing_library_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    model = small()
    with pytest.warns(AccelerationWarning, match=r"torchao is not installed: pip install 'neural-coder\[torchao\]'"):
        accelerate(model, engine="torchao", precision="int8_dynamic")
    with torch.no_grad():
        assert torch.equal(model(torch.ones(1, 16)), original(model, torch.ones(1, 16)))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_compiled_or_scripted_model_is_left_as_it_is():
    scripted = torch.jit.script(nn.Linear(4, 4))
    with pytest.warns(AccelerationWarning, match="TorchScript module already"):
        accelerate(scripted, precision="bf16")
    assert "TorchScript" in explain(scripted).reason
    wrapped = small()
    wrapped.forward = lambda x: x
    with pytest.warns(AccelerationWarning, match="replaced already"):
        accelerate(wrapped, precision="bf16")
    assert wrapped(3) == 3


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_tools_see_the_original_forward():
    model, x = small(), torch.randn(4, 16)
    signature = inspect.signature(model.forward)
    ready(accelerate(model, precision="bf16"), x)
    assert inspect.signature(model.forward) == signature
    with torch.no_grad():
        expected = original(model, x)
        assert torch.equal(torch.jit.trace(model, x, check_trace=False)(x), expected)
        assert torch.equal(torch.fx.symbolic_trace(model, concrete_args={"scale": None, "shift": None})(x), expected)
        assert torch.allclose(torch.func.vmap(model)(x), expected, atol=1e-6)
        assert torch.equal(torch.func.functional_call(model, dict(model.named_parameters()), x), model(x))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_an_accelerated_model_can_be_scripted():
    model, x = nn.Linear(16, 5).eval(), torch.randn(4, 16)
    ready(accelerate(model, precision="bf16"), x)
    with torch.no_grad():
        assert torch.equal(torch.jit.script(model)(x), original(model, x))


def test_memory_that_does_not_suffice_is_refused_before_converting(monkeypatch):
    monkeypatch.setattr("neural_coder.runtime.memory.available_bytes", lambda: 100)
    model = accelerate(small(), precision="bf16")
    with torch.no_grad(), pytest.warns(AccelerationWarning, match=r"converting needs about .* GB"):
        model(torch.ones(1, 16))
    assert explain(model).conversion_seconds == 0


@pytest.mark.parametrize("engine", ["torch", "torchscript"])
def test_a_new_head_on_a_model_in_evaluation_is_accelerated(engine):
    model = Small().eval()
    model.out = nn.Linear(32, 2)
    assert model.out.training
    accelerate(model, engine=engine, precision="bf16")
    with torch.no_grad():
        model(torch.randn(2, 16))
    assert explain(model).running == f"{engine}/bf16"
