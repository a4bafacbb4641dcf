"""What only ONNX Runtime's engine does: quantizing, its options, its files, and what it says about operators."""

import json
import warnings

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402

from neural_coder.runtime import AccelerationError, AccelerationWarning, accelerate, explain  # noqa: E402
from neural_coder.runtime.onnx_quantization import MULTIPLYING, quantizable  # noqa: E402

pytestmark = pytest.mark.torch

FOUR = 4
"""Calls that calibration takes here."""


class Pictures(nn.Module):
    """Convolutions with a normalization, a residual and a linear layer behind them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        y = torch.relu(self.norm(self.stem(x)))
        y = y + torch.relu(self.body(y))
        return self.head(self.pool(y).flatten(1))


class Words(nn.Module):
    """A small transformer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.norm = nn.LayerNorm(32)
        self.hidden = nn.Linear(32, 64)
        self.out = nn.Linear(64, 3)

    def forward(self, tokens):
        x = self.norm(self.embedding(tokens))
        x = x + torch.softmax(x @ x.transpose(1, 2) / 6, -1) @ x
        return self.out(nn.functional.gelu(self.hidden(x)))


def picture():
    return torch.randn(2, 3, 8, 8)


def text():
    return torch.randint(0, 50, (2, 6))


def answered(model, make, *, calls=FOUR + 1, **settings):
    """Accelerate a model and call it; the last answer, and what the original says to the same input."""
    settings.setdefault("calibration", FOUR)
    accelerate(model.eval(), engine="onnxruntime", strict=True, **settings)
    with torch.inference_mode():
        for _ in range(calls):
            x = make()
            answer = model(x)
        return answer, type(model).forward(model, x)


def error(pair):
    answer, expected = pair
    return float(torch.linalg.vector_norm(answer - expected) / torch.linalg.vector_norm(expected))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def written(monkeypatch, tmp_path):
    """The graphs in the cache, which is empty at first."""
    monkeypatch.setenv("NEURAL_CODER_CACHE", str(tmp_path / "cache"))
    return lambda: sorted((tmp_path / "cache").rglob("model.onnx"))


def kinds(file):
    return [node.op_type for node in onnx.load(str(file), load_external_data=False).graph.node]


def test_static_int8_multiplies_integers_in_convolutions_and_linear_layers(written):
    model = Pictures()
    assert 0 < error(answered(model, picture, precision="int8_static")) < 0.1
    told = explain(model)
    assert (told.running, told.quantized_modules) == ("onnxruntime/int8_static", 3)
    assert told.dtypes >= {"int8"}
    (file,) = written()
    assert file.with_suffix(".data").stat().st_size >= 16 * 16 * 9  # one file holds at most 2 GB
    operators = kinds(file)
    assert operators.count("QLinearConv") == 2
    assert not {"Conv", "BatchNormalization", "Relu"} & {*operators}


def test_embeddings_normalizations_and_softmax_stay_in_floating_point(written):
    model = Words()
    assert error(answered(model, text, precision="int8_static")) < 0.2
    (file,) = written()
    graph = onnx.load(str(file), load_external_data=False).graph
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    in_float = [node for node in graph.node if node.op_type in ("Gather", "LayerNormalization", "Softmax")]
    assert {node.op_type for node in in_float} == {"Gather", "LayerNormalization", "Softmax"}
    assert not any({*node.input} & dequantized for node in in_float)


@pytest.mark.parametrize("observer", ["percentile", "entropy"])
def test_ranges_can_be_found_in_other_ways(observer, capsys):
    assert error(answered(Pictures(), picture, precision="int8_static", observer=observer)) < 0.3
    assert capsys.readouterr().out == ""


def test_dynamic_int8_leaves_convolutions_in_floating_point(written):
    model = Pictures()
    assert 0 < error(answered(model, picture, calls=1, precision="int8_dynamic")) < 0.05
    assert explain(model).quantized_modules == 1
    (file,) = written()
    assert "ConvInteger" not in kinds(file)


def test_an_lstm_is_quantized_dynamically():
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.LSTM(8, 16, batch_first=True)

        def forward(self, x):
            return self.body(x)[0]

    model = Sequence()
    assert 0 < error(answered(model, lambda: torch.randn(2, 5, 8), calls=1, precision="int8_dynamic")) < 0.05
    assert explain(model).quantized_modules == 1


def test_dynamic_int8_of_convolutions_alone_is_refused_with_the_reason():
    with pytest.raises(AccelerationError, match="convolutions would only become slower"):
        answered(nn.Conv2d(3, 4, 3), picture, calls=1, precision="int8_dynamic")


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"exclude": ["stem", "Linear"]}, 1),
        ({"keep_first_last": True}, 1),
    ],
)
def test_excluded_layers_are_not_quantized(settings, count):
    model = Pictures()
    answered(model, picture, precision="int8_static", **settings)
    assert explain(model).quantized_modules == count


def test_what_an_excluded_convolution_reads_is_not_rounded_either():
    def outliers():
        torch.manual_seed(0)
        made, read = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
        model = nn.Sequential(
            nn.Conv2d(3, 3, 3), made, nn.ReLU(), nn.MaxPool2d(2), read, nn.ReLU(), nn.Conv2d(16, 4, 1)
        )
        with torch.no_grad():  # two of the channels are much larger than those that say as much
            made.weight[:2] *= 300
            read.weight[:, :2] /= 300
        return model

    def pictures():
        return torch.randn(2, 3, 16, 16)

    assert error(answered(outliers(), pictures, precision="int8_static")) > 0.1
    model = outliers()
    assert error(answered(model, pictures, precision="int8_static", exclude=["4"])) < 0.05
    assert explain(model).quantized_modules == 2


def test_excluding_what_does_not_exist_names_the_nearest():
    with pytest.raises(AccelerationError, match=r"names 'haed', .* did you mean 'head'"):
        answered(Pictures(), picture, precision="int8_static", exclude=["haed"])


def test_excluding_everything_leaves_nothing_to_quantize():
    with pytest.raises(AccelerationError, match="no convolution or matrix product to quantize"):
        answered(Pictures(), picture, precision="int8_static", exclude=["Conv2d", "head"])


@pytest.mark.parametrize("precision", ["fp32", "int8_static"])
def test_a_second_start_opens_what_the_first_has_kept(precision, written, monkeypatch):
    first, x = Pictures(), picture()
    answered(first, picture, precision=precision)
    second = Pictures()
    second.load_state_dict(first.state_dict())
    monkeypatch.setattr(torch.onnx, "export", None)
    answered(second, picture, calls=1, precision=precision)
    with torch.inference_mode():
        assert torch.equal(first(x), second(x))
    told, before = explain(second), explain(first)
    assert told.calls_accelerated == 2
    assert (told.quantized_modules, told.dtypes) == (before.quantized_modules, before.dtypes)
    assert len(written()) == 1


def test_inputs_may_lie_in_memory_in_any_order_or_have_no_use():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 4, 1)

        def forward(self, unused, x):
            return self.body(x).mean()

    model = Odd().eval()
    accelerate(model, engine="onnxruntime", strict=True)
    with torch.inference_mode():
        for form in (torch.contiguous_format, torch.channels_last):
            x = picture().contiguous(memory_format=form)
            assert torch.allclose(model(torch.ones(1), x), Odd.forward(model, torch.ones(1), x), atol=1e-6)
        x = picture().transpose(2, 3)
        first = model(torch.ones(1), x)
        kept = first.clone()
        assert torch.allclose(model(torch.ones(1), x), Odd.forward(model, torch.ones(1), x), atol=1e-6)
        assert torch.equal(first, kept)  # which a later answer must not overwrite
    assert explain(model).calls_accelerated == 4


def test_a_model_in_16_bits_runs_in_float32_and_answers_in_its_own_type():
    model = Words().to(torch.bfloat16)
    pair = answered(model, text, calls=2)
    assert pair[0].dtype == torch.bfloat16
    assert error([each.float() for each in pair]) < 0.02
    assert explain(model).dtypes == {"float32"}


class Unknown(nn.Module):
    """Asks for an operator that ONNX lacks."""

    def forward(self, x):
        return torch.special.i1e(x)


def test_an_operator_that_onnx_lacks_is_named_with_its_place():
    line = Unknown.forward.__code__.co_firstlineno + 1
    with pytest.raises(AccelerationError, match=rf"bessel_i1e.*{__file__}, line {line}: return torch.special"):
        answered(Unknown(), lambda: torch.rand(3), calls=1)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"threads": -1}, "threads is 0 or"),
        ({"optimization": "most"}, "optimization is one of all, extended, basic, disabled"),
        ({"observer": "kl"}, "observer is one of minmax, percentile, entropy"),
        ({"providers": "CPUExecutionProvider"}, "a tuple of names"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(option, words):
    with pytest.raises(ValueError, match=words):
        accelerate(nn.Linear(2, 2), engine="onnxruntime", **option)


def test_a_provider_that_is_not_installed_is_named_with_those_that_are():
    with pytest.raises(AccelerationError, match=r"no NobodysExecutionProvider here; it has: .*CPUExecutionProvider"):
        answered(Pictures(), picture, calls=1, providers=("NobodysExecutionProvider",))


def test_graphs_are_kept_unoptimized_where_that_is_asked_for(written):
    assert error(answered(Pictures(), picture, calls=2, optimization="disabled")) < 1e-5
    (file,) = written()
    assert "Relu" in kinds(file)  # which is a part of the convolution otherwise


def test_under_autocast_the_original_answers():
    model = accelerate(Pictures().eval(), engine="onnxruntime")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert model(picture()).dtype == torch.bfloat16
    assert explain(model).reason == "autocast is on"


def test_a_residual_is_quantized_between_convolutions_only(tmp_path):
    def node(kind, inputs, output):
        return onnx.helper.make_node(kind, inputs, [output], name=output)

    nodes = [
        node("Conv", ["x", "w"], "a"),
        node("Add", ["a", "x"], "b"),
        node("Reshape", ["b", "shape"], "c"),
        node("MatMul", ["c", "v"], "d"),
        node("Add", ["d", "mask"], "e"),
    ]
    graph = onnx.helper.make_graph(nodes, "graph", [], [])
    assert quantizable(graph) == ["a", "b", "d"]
    assert "Add" not in MULTIPLYING


def test_a_damaged_file_is_made_anew(written):
    first = Pictures()
    answered(first, picture, calls=1)
    (file,) = written()
    manifest = file.parent / "manifest.json"
    file.with_name("onnx.json").write_text("{}")
    digests = json.loads(manifest.read_text())
    del digests["onnx.json"]
    file.with_name("onnx.json").unlink()
    manifest.write_text(json.dumps(digests))
    second = Pictures()
    second.load_state_dict(first.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error", AccelerationWarning)
        assert error(answered(second, picture, calls=2)) < 1e-5
    assert explain(second).calls_accelerated == 2
