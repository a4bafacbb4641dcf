"""Answers are those of the original, in its form, whatever comes in and from wherever it is called."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch")

from promised import (  # noqa: E402
    assert_same_form,
    each_engine,
    each_variant,
    everything,
    inputs,
    is_close,
    original,
    ready,
    small,
)  # fmt: skip
from torch import nn  # noqa: E402

from neural_coder.runtime import explain  # noqa: E402

pytestmark = pytest.mark.torch


@each_variant
def test_answers_keep_their_form(model, variant):
    """Dictionaries, ModelOutput, named tuples, lists, dataclasses, None, strings, integers, masks, 0-d tensors."""
    with torch.no_grad():
        for seed in (1, 2):
            assert_same_form(model(*inputs(seed)), original(model, *inputs(seed)), variant.tolerance)
    assert variant.runs(model)


@each_variant
def test_answers_are_really_those_of_the_engine(model, variant):
    """They differ a little from the original's, which proves who gave them."""
    with torch.no_grad():
        mine, theirs = model(*inputs()), original(model, *inputs())
    assert variant.precision == "fp32" or not torch.equal(mine["pair"].first, theirs["pair"].first)
    assert explain(model).reason == ""
    assert explain(model).conversion_seconds > 0
    if "int8" in variant.precision:
        assert explain(model).quantized_modules > 0


@each_variant
def test_an_input_that_is_handed_through_is_the_same_tensor(model, variant):
    given = inputs()
    with torch.no_grad():
        assert model(*given)["mask"] is given[2]
    assert variant.runs(model)


@each_variant
def test_later_calls_leave_earlier_answers_alone(model, variant):
    with torch.no_grad():
        first = model(*inputs(1))["pair"].first
        then = first.clone()
        for seed in (2, 3, 4):
            model(*inputs(seed))
        assert torch.equal(first, then)
        first.zero_()
        assert_same_form(model(*inputs(1)), original(model, *inputs(1)), variant.tolerance)


@each_variant
def test_inputs_of_any_layout_in_memory(model, variant):
    """Compared with the engine itself: such inputs may lie outside of what scales were found on."""
    image, tokens, mask, *others = inputs()
    layouts = [
        (image.to(memory_format=torch.channels_last), tokens, mask),
        (image.transpose(2, 3).contiguous().transpose(2, 3), tokens.t().contiguous().t(), mask.t().contiguous().t()),
        (image[:, :, :1, :1].expand(2, 3, 8, 8), tokens[:, :1].expand(2, 5), mask),
        (torch.cat([image, image], 3)[..., 8:], torch.cat([tokens, tokens], 1)[:, ::2], mask),
    ]
    with torch.no_grad():
        for given in layouts:
            plain = [tensor.clone(memory_format=torch.contiguous_format) for tensor in given]
            assert_same_form(model(*given, *others), model(*plain, *others), variant.tolerance)
            assert variant.runs(model)


@each_variant
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, nullcontext])
def test_in_every_mode(model, variant, mode):
    model.requires_grad_(False)
    try:
        with mode():
            answer = model(*inputs())
            assert variant.runs(model)
            assert answer["pair"].first.is_inference() == (mode is torch.inference_mode)
            assert_same_form(answer, original(model, *inputs()), variant.tolerance)
    finally:
        model.requires_grad_(True)


@each_variant
def test_inputs_that_were_made_in_inference_mode(model, variant):
    with torch.inference_mode():
        given = inputs()
    with torch.no_grad():
        assert_same_form(model(*given), original(model, *given), variant.tolerance)
    assert variant.runs(model)


@each_variant
def test_an_empty_batch_runs_the_original(model, variant):
    image, tokens, mask, *others = inputs()
    with torch.no_grad():
        assert model(image[:0], tokens[:0], mask[:0], *others)["pair"].first.shape == (0, 5, 16)
    assert explain(model).reason == "an input is empty"


@each_variant
def test_mistakes_of_the_caller_look_as_before(model, variant):
    image, tokens, mask, *_ = inputs()
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="to have 3 channels, but got 4"):
            model(torch.randn(2, 4, 8, 8), tokens, mask)
        with pytest.raises(TypeError, match="unexpected keyword"):
            model(image, tokens, mask, nonsense=1)
        model(*inputs())
    assert variant.runs(model)


@each_variant
def test_threads_may_call_at_once(model, variant):
    expected, wrong, start = original(model, *inputs()), [], threading.Barrier(4)

    def call():
        start.wait()
        with torch.no_grad():
            for _ in range(10):
                if not is_close(model(*inputs())["pair"].first, expected["pair"].first, variant.tolerance):
                    wrong.append("wrong")

    _together(call)
    assert not wrong
    assert variant.runs(model)


def _together(call):
    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Calling(torch.utils.data.Dataset):
    """A data set that asks the model for its items."""

    def __init__(self, model):
        self.model = model

    def __len__(self):
        return 4

    def __getitem__(self, index):
        with torch.no_grad():
            return self.model(*inputs(index))["pair"].first, explain(self.model).reason


@each_variant
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_of_a_data_loader_run_the_original(model, variant):
    loader = torch.utils.data.DataLoader(
        Calling(model), batch_size=2, num_workers=1, multiprocessing_context="fork", timeout=60
    )
    with torch.no_grad():
        for batch, (answers, reasons) in enumerate(loader):
            assert list(reasons) == ["this is a forked child process"] * 2
            for place, answer in enumerate(answers):
                assert torch.allclose(answer, original(model, *inputs(2 * batch + place))["pair"].first, atol=1e-6)
        model(*inputs())
    assert variant.runs(model)


@each_variant
def test_models_are_accelerated_side_by_side(model, variant):
    other, x = small(3), torch.randn(4, 16)
    variant.put_on(other, (x,))
    with torch.no_grad():
        for _ in range(2):
            assert is_close(other(x), original(other, x), variant.tolerance)
            assert_same_form(model(*inputs()), original(model, *inputs()), variant.tolerance)
    assert variant.runs(other)
    assert variant.runs(everything(variant))


@each_engine
def test_positional_and_keyword_arguments_and_numbers_mix(variant):
    x = torch.randn(4, 16)
    model = variant.put_on(small(), (x, 2.0), strict=False)
    with torch.no_grad():
        for _ in range(2):
            for args, kwargs in (((x, 2.0), {}), ((x, 3.0), {}), ((x,), {"scale": 3.0})):
                expected = original(model, *args, **kwargs)
                assert is_close(model(*args, **kwargs), expected, variant.tolerance)


class Words(nn.Module):
    """Tokens in, of any number and length."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.hidden = nn.Linear(16, 32)
        self.out = nn.Linear(32, 5)

    def forward(self, tokens):
        return self.out(torch.relu(self.hidden(self.embed(tokens))).mean(1))


@each_engine
def test_batches_and_sequences_of_changing_size(variant):
    torch.manual_seed(0)
    sizes = [(4, 6), (4, 6), (4, 9), (3, 6), (1, 7), (4, 6)]
    batches = [torch.randint(0, 50, size) for size in sizes]
    model = variant.put_on(Words().eval(), *[(batch,) for batch in batches[:2]])
    with torch.no_grad():
        for batch in batches:
            assert is_close(model(batch), original(model, batch), variant.tolerance)
    assert explain(model).calls_accelerated >= 4, explain(model)


@each_engine
def test_threads_may_make_the_first_call_at_once(variant):
    x, wrong, start = torch.randn(4, 16), [], threading.Barrier(4)
    model = variant.put_on(small(), (x,))
    expected = original(model, x).detach()

    def call():
        start.wait()
        with torch.no_grad():
            for _ in range(5):
                wrong.extend(["wrong"] if not is_close(model(x), expected, variant.tolerance) else [])

    _together(call)
    assert not wrong
    ready(model, variant, x)
    assert explain(model).graphs in (0, 1)


@each_variant
def test_generate_gives_the_right_tokens_with_its_cache(variant):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=64,
        vocab_size=99, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.randint(3, 99, (2, 7))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": 6, "do_sample": False}
    expected = model.generate(**given)
    variant.put_on(model, (ids,))
    answer = model.generate(**given)
    told = explain(model)
    if variant.engine.takes_objects:
        assert (told.calls_accelerated, told.calls_original) == (6, 0)
        assert (answer == expected).float().mean() > 0.8
    else:
        assert torch.equal(answer, expected)
        assert "DynamicCache, which this engine does not take" in told.reason
