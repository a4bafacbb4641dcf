"""What guards all engines alike, shown on those that need no compiler; `conformance/` holds what each promises."""

import copy
import dataclasses
import inspect
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from promised import Pair, Small, assert_same_form, is_close, original, small  # noqa: E402
from torch import nn  # noqa: E402

from neural_coder.runtime import AccelerationError, AccelerationWarning, accelerate, explain  # noqa: E402

pytestmark = pytest.mark.torch

EAGER = [("torch", "bf16"), ("torch", "int8_dynamic")]
VARIANTS = [*EAGER, ("torchscript", "fp32"), ("torchscript", "bf16")]
each_variant = pytest.mark.parametrize(("engine", "precision"), VARIANTS)


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    note: str = "note"


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


def ready(model, *args, **kwargs):
    """Call until an engine answers."""
    with torch.no_grad():
        for _ in range(2):
            model(*args, **kwargs)
    assert explain(model).running != "original", explain(model)
    return model


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


def test_a_submodule_in_training_mode_runs_the_original():
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 64)).eval()
    model[1].train()
    accelerate(model, precision="bf16")
    with torch.no_grad():
        assert not torch.equal(model(torch.ones(2, 4)), model(torch.ones(2, 4)))
    assert explain(model).reason == "a submodule is in training mode"


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


def test_a_dtype_that_the_engine_cannot_take_is_left_to_the_original():
    model, x = small(), torch.randn(4, 16)
    ready(accelerate(model, precision="int8_dynamic"), x)
    model.half()
    with torch.no_grad(), pytest.warns(AccelerationWarning, match="does not run Small"):
        assert model(x.half()).dtype == torch.float16
    with torch.no_grad():
        assert torch.equal(model(x.half()), original(model, x.half()))


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


def test_hooks_that_are_there_from_the_start_fire():
    model, x, seen = small(), torch.randn(4, 16), []
    model.hidden.register_forward_hook(lambda module, inputs, output: seen.append(output))
    accelerate(model, precision="bf16")
    with torch.no_grad():
        model(x)
        model(x)
    assert [output.dtype for output in seen] == [torch.float32] * 2


@pytest.mark.parametrize("form", ["tuple", "list", "dict", "namedtuple", "dataclass", "nested"])
@each_variant
def test_outputs_keep_structure_and_dtype(engine, precision, form):
    torch.manual_seed(0)
    model = accelerate(Shaped(form).eval(), engine=engine, precision=precision, strict=True)
    x = torch.randn(4, 16)
    with torch.no_grad():
        for _ in range(3):
            assert_same_form(model(x), original(model, x), 0.06)
    assert explain(model).running == f"{engine}/{precision}"


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


def test_weights_made_in_inference_mode_are_left_to_the_original():
    with torch.inference_mode():
        model, x = small(), torch.randn(4, 16)
        with pytest.warns(AccelerationWarning, match="made inside torch.inference_mode"):
            accelerate(model, precision="bf16")(x)
        assert torch.equal(model(x), original(model, x))


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

    model = accelerate(nn.Sequential(nn.Linear(4, 4), Overflowing(), nn.ReLU()).eval(), precision="bf16")
    x = torch.ones(1, 4)
    with (
        torch.no_grad(),
        pytest.warns(AccelerationWarning, match=r"NaN or infinity .*, first behind 1 \(Overflowing\)"),
    ):
        assert torch.isfinite(model(x)).all()
    assert explain(model).is_inaccurate


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


@pytest.mark.parametrize("engine", ["torch", "torchscript"])
def test_a_new_head_on_a_model_in_evaluation_is_accelerated(engine):
    model = Small().eval()
    model.out = nn.Linear(32, 2)
    assert model.out.training
    accelerate(model, engine=engine, precision="bf16")
    with torch.no_grad():
        model(torch.randn(2, 16))
    assert explain(model).running == f"{engine}/bf16"
