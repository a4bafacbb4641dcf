"""Recurrent layers in OpenVINO: one operation for all steps, with the answers of PyTorch."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("nncf")

from torch import nn  # noqa: E402

from neural_coder.runtime import AccelerationError, accelerate, explain  # noqa: E402
from neural_coder.runtime.engine import CannotConvert  # noqa: E402
from neural_coder.runtime.exported import export  # noqa: E402
from neural_coder.runtime.openvino_graph import translate  # noqa: E402
from neural_coder.runtime.openvino_library import core  # noqa: E402
from neural_coder.runtime.openvino_session import CompiledSession, find_ports  # noqa: E402
from neural_coder.runtime.quiet import quiet  # noqa: E402
from neural_coder.runtime.structure import Call  # noqa: E402

pytestmark = pytest.mark.torch

STEPS, BATCH, FEATURES, HIDDEN = 5, 3, 6, 8
SEQUENCES = {"LSTMSequence", "GRUSequence", "RNNSequence"}


class Recurrent(nn.Module):
    """A recurrent layer that gives the sequence and all states."""

    def __init__(self, kind, **settings):
        super().__init__()
        torch.manual_seed(0)
        self.body = kind(FEATURES, HIDDEN, **settings)

    def forward(self, x, *states):
        steps, last = self.body(x, states if len(states) > 1 else states[0] if states else None)
        return (steps, *last) if isinstance(last, tuple) else (steps, last)


class Classifier(nn.Module):
    """A recurrent layer under a linear one, wide enough for integers."""

    def __init__(self, kind=nn.LSTM, **settings):
        super().__init__()
        torch.manual_seed(0)
        self.body = kind(32, 64, batch_first=True, **settings)
        self.head = nn.Linear(64 * (2 if self.body.bidirectional else 1), 32)

    def forward(self, x):
        return self.head(self.body(x)[0][:, -1])


def translated(model, *inputs, vary=()):
    dynamic = [frozenset(vary) if place == 0 else frozenset() for place in range(len(inputs))]
    with quiet():
        return translate(export(model.eval(), Call(inputs, {}), dynamic))


def sequences(found):
    return sum(operation.get_type_name() in SEQUENCES for operation in found.model.get_ops())


def assert_same_answers(found, model, *inputs):
    compiled = core().compile_model(found.model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = CompiledSession(compiled, find_ports(found.model, found.inputs, found.outputs))
    with torch.no_grad():
        expected = model(*inputs)
    for answer, wanted in zip(session(inputs), expected, strict=True):
        assert torch.allclose(answer, wanted, atol=1e-5)


def quantized(model, **settings):
    accelerate(model.eval(), engine="openvino", precision="int8", calibration=4, cache=False, strict=True, **settings)
    with torch.inference_mode():
        for _ in range(5):
            model(torch.randn(2, 12, 32))
    return explain(model)


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_states", [False, True], ids=["from zeros", "from states"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_first": True, "bias": False},
        {"num_layers": 3, "batch_first": True},
        {"num_layers": 2, "bidirectional": True, "dropout": 0.5},
        {"bidirectional": True, "bias": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_layer_is_one_operation_and_gives_what_pytorch_gives(kind, settings, has_states):
    model = Recurrent(kind, **settings)
    sizes = (BATCH, STEPS) if model.body.batch_first else (STEPS, BATCH)
    shape = (model.body.num_layers * (1 + model.body.bidirectional), BATCH, HIDDEN)
    states = [torch.randn(shape) for _ in range(1 + (kind is nn.LSTM))] if has_states else []
    inputs = (torch.randn(*sizes, FEATURES), *states)
    found = translated(model, *inputs)
    assert sequences(found) == model.body.num_layers
    assert_same_answers(found, model, *inputs)


def test_an_rnn_keeps_its_activation():
    model, x = Recurrent(nn.RNN, nonlinearity="relu"), torch.randn(STEPS, BATCH, FEATURES)
    found = translated(model, x)
    assert sequences(found) == 1
    assert_same_answers(found, model, x)


def test_any_batch_goes_through_a_graph_whose_batch_varies():
    model = Recurrent(nn.LSTM, num_layers=2, bidirectional=True, batch_first=True)
    found = translated(model, torch.randn(BATCH, STEPS, FEATURES), vary=(0,))
    assert sequences(found) == 2
    for size in (1, 2, 7):
        x = torch.randn(size, STEPS, FEATURES)
        assert found.exported.shapes.admit([x])
        assert_same_answers(found, model, x)


class Some(nn.Module):
    """Layers of which one output is taken twice and others never; one layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.body, self.unused = nn.LSTM(FEATURES, HIDDEN), nn.GRU(FEATURES, HIDDEN)

    def forward(self, x):
        self.unused(x)
        _, (_, cell) = self.body(x)
        return cell, cell + 1, self.body(x * 2)[0]


def test_outputs_that_nobody_takes_and_layers_that_are_called_twice_do_no_harm():
    model, x = Some(), torch.randn(STEPS, BATCH, FEATURES)
    assert_same_answers(translated(model, x), model, x)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_an_lstm_with_projected_states_is_taken_apart():
    model, x = Recurrent(nn.LSTM, proj_size=4), torch.randn(STEPS, BATCH, FEATURES)
    found = translated(model, x)
    assert sequences(found) == 0
    assert_same_answers(found, model, x)


def test_a_layer_that_openvino_does_not_take_is_named_with_its_place(monkeypatch):
    def refuse(layers, inputs):
        raise ValueError("no")

    monkeypatch.setattr("neural_coder.runtime.openvino_recurrent._Layers._build", refuse)
    with pytest.raises(CannotConvert, match=r"aten\.gru\.input \(.*test_openvino_recurrent\.py, line \d+: steps.*\)$"):
        translated(Recurrent(nn.GRU), torch.randn(STEPS, BATCH, FEATURES))


# --- integers ---------------------------------------------------------------------------------------------------------


def relative_error(model, x):
    with torch.inference_mode():
        answer, expected = model(x), type(model).forward(model, x)
    return float(torch.linalg.vector_norm(answer - expected) / torch.linalg.vector_norm(expected))


@pytest.mark.parametrize(("settings", "count"), [({}, 2), ({"num_layers": 2, "bidirectional": True}, 5)], ids=str)
def test_an_lstm_is_computed_in_integers(settings, count):
    model = Classifier(**settings)
    assert quantized(model).quantized_modules == count  # OpenVINO has an operation for each direction
    assert 0 < relative_error(model, torch.randn(2, 12, 32)) < 0.15


@pytest.mark.parametrize(("exclude", "count"), [(["body"], 1), (["LSTM"], 1), (["head"], 1), (["LSTM", "head"], 0)])
def test_an_lstm_can_be_excluded(exclude, count):
    if count:
        assert quantized(Classifier(), exclude=exclude).quantized_modules == count
    else:
        with pytest.raises(AccelerationError, match="no layer that OpenVINO computes in integers"):
            quantized(Classifier(), exclude=exclude)


def test_an_lstm_that_is_the_first_layer_can_stay_in_floating_point():
    model = nn.Sequential(Classifier(num_layers=2), nn.Linear(32, 32))
    assert quantized(model, keep_first_last=True).quantized_modules == 1


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_other_layers_stay_in_floating_point(kind):
    model = Classifier(kind)
    assert quantized(model).quantized_modules == 1
    assert 0 < relative_error(model, torch.randn(2, 12, 32)) < 0.05


class Full(nn.Module):
    """An LSTM whose sums of products are as large as they can be."""

    def __init__(self):
        super().__init__()
        self.body = nn.LSTM(64, 64, batch_first=True)
        for name, weight in self.named_parameters():
            nn.init.constant_(weight, 0.03 if "weight" in name else 0.0)

    def forward(self, x):
        return self.body(x)[0][:, -1]


def test_sums_of_an_lstm_do_not_overflow():
    model = Full()
    accelerate(model.eval(), engine="openvino", precision="int8", calibration=4, cache=False, strict=True)
    with torch.inference_mode():
        for _ in range(5):
            model(torch.rand(2, 12, 64))
    assert explain(model).quantized_modules == 1
    assert relative_error(model, torch.ones(2, 12, 64)) < 0.02


def test_given_states_do_not_keep_an_lstm_from_integers():
    class Continued(Classifier):
        def forward(self, x):
            start = torch.full((1, x.shape[0], 64), 0.5)
            return self.head(self.body(x, (start, start))[0][:, -1])

    model = Continued()
    assert quantized(model).quantized_modules == 2
    assert 0 < relative_error(model, torch.randn(2, 12, 32)) < 0.15


def test_dynamic_int8_quantizes_the_linear_layers_around():
    model = Classifier()
    accelerate(model.eval(), engine="openvino", precision="int8_dynamic", cache=False, strict=True)
    x = torch.randn(2, 12, 32)
    with torch.inference_mode():
        model(x)
    assert explain(model).quantized_modules == 1
    assert 0 < relative_error(model, x) < 0.05
