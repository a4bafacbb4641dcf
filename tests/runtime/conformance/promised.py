"""What the conformance suite runs: every engine and precision that works here, and the models to run them on."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
from collections import namedtuple
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from neural_coder.runtime import accelerate, explain
from neural_coder.runtime.engine import Engine, engine_names

ALL_VARIANTS = "NEURAL_CODER_ALL_VARIANTS"
"""Environment variable: when it is set, promises that take several conversions are checked on every variant, too."""

Pair = namedtuple("Pair", "first second")

try:
    from transformers.utils import ModelOutput
except ImportError:  # an environment that was made for one engine
    ModelOutput = None


@dataclasses.dataclass(frozen=True)
class Variant:
    """An engine at a precision."""

    name: str
    precision: str
    engine: Engine = dataclasses.field(compare=False)
    unavailable: str = ""
    """Why it cannot run here."""

    def __str__(self) -> str:
        return f"{self.name}/{self.precision}"

    @property
    def tolerance(self) -> float:
        """What its answers may differ from the original's, on the models of this file."""
        return {"fp32": 1e-4, "bf16": 0.06}.get(self.precision, 0.2)

    def put_on(self, model, *calls, **more):
        """Accelerate a model; `calls` (tuples of positional arguments) are the data to calibrate on, if needed."""
        if "static" in self.precision:
            more = {"calibration": list(calls), **more}
        return accelerate(model, engine=self.name, precision=self.precision, **{"strict": True, **more})

    def runs(self, model) -> bool:
        """Whether it gave the last answer."""
        return explain(model).running == str(self)


def _variants() -> Iterator[Variant]:
    for name in engine_names():
        engine = importlib.import_module(f"neural_coder.runtime.engine_{name}").ENGINE
        for precision in engine.precisions:
            if not engine.original_suffices(precision):
                yield Variant(name, precision, engine, engine.missing() or engine.unavailable(precision))


def _marked(variant: Variant) -> pytest.ParameterSet:
    marks = [pytest.mark.skip(reason=variant.unavailable)] if variant.unavailable else []
    return pytest.param(variant, id=f"{variant.name}-{variant.precision}", marks=marks)


VARIANTS = list(_variants())
_KINDS = {(each.name, "static" in each.precision): each for each in reversed(VARIANTS)}
"""The first precision of each engine, and the first that it quantizes statically."""
_FEW = VARIANTS if os.environ.get(ALL_VARIANTS) else [each for each in VARIANTS if each in _KINDS.values()]

each_variant = pytest.mark.parametrize("variant", [_marked(each) for each in VARIANTS])
each_engine = pytest.mark.parametrize("variant", [_marked(each) for each in _FEW])
each_keeping = pytest.mark.parametrize("variant", [_marked(each) for each in _FEW if each.engine.keeps])
"""Engines that keep what they convert."""


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


@dataclasses.dataclass
class Record:
    """An answer as a dataclass."""

    hidden: torch.Tensor
    note: str = "note"


if ModelOutput is not None:

    @dataclasses.dataclass
    class Output(ModelOutput):
        """An answer as transformers gives it."""

        logits: torch.Tensor | None = None
        labels: torch.Tensor | None = None


class Everything(nn.Module):
    """Images, tokens, a mask, numbers and None in; nested answers of all kinds out; tied weights and buffers inside."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.normal = nn.BatchNorm2d(8)
        self.embed = nn.Embedding(32, 16)
        self.mix = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(16, 32, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("offset", torch.linspace(-1, 1, 16))

    def forward(self, image, tokens, mask, scale=1.0, nothing=None, *, shift=None):
        picture = torch.relu(self.normal(self.convolution(image))).mean((2, 3))
        words = self.embed(tokens).masked_fill(~mask.unsqueeze(-1), 0)
        hidden = self.drop(self.norm(words + self.mix(picture).unsqueeze(1) + self.offset)) * scale
        hidden = hidden if shift is None else hidden + shift
        logits = self.head(hidden)
        labels = logits.argmax(-1)
        return {
            "output": (logits, labels) if ModelOutput is None else Output(logits=logits, labels=labels),
            "pair": Pair(hidden, [logits.abs().mean(), {"picture": picture}]),
            "record": Record(hidden[:, 0]),
            "mask": mask,
            "nothing": nothing,
        }


def small(seed=0, **settings):
    torch.manual_seed(seed)
    return Small(**settings).eval()


def inputs(seed=1):
    """Positional arguments of `Everything`."""
    made = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 3, 8, 8, generator=made)
    tokens = torch.randint(0, 32, (2, 5), generator=made)
    return image, tokens, torch.tensor([[True] * 5, [True] * 3 + [False] * 2]), 2.0, None


@functools.cache
def everything(variant: Variant):
    """One accelerated model for all promises that leave it as it is: a conversion takes seconds."""
    torch.manual_seed(0)
    model = Everything().eval()
    variant.put_on(model, inputs(2), inputs(3))
    return ready(model, variant, *inputs())


def ready(model, variant, *args, **kwargs):
    """Call until the engine answers."""
    with torch.no_grad():
        for _ in range(1 + variant.engine.checks):
            model(*args, **kwargs)
    assert variant.runs(model), explain(model)
    return model


def original(model, *args, **kwargs):
    return type(model).forward(model, *args, **kwargs)


def is_close(actual, expected, tolerance=0.06):
    return torch.linalg.vector_norm(actual - expected) <= tolerance * torch.linalg.vector_norm(expected) + 1e-6


def assert_same_form(actual, expected, tolerance):
    """The same types all the way down, the same dtypes and shapes, and close numbers."""
    assert type(actual) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        if expected.is_floating_point():
            assert is_close(actual, expected, tolerance)
    elif isinstance(expected, dict):
        assert list(actual) == list(expected)
        assert_same_form(list(actual.values()), list(expected.values()), tolerance)
    elif dataclasses.is_dataclass(expected):
        assert_same_form(vars(actual), vars(expected), tolerance)
    elif isinstance(expected, (tuple, list)):
        assert len(actual) == len(expected)
        for mine, theirs in zip(actual, expected, strict=True):
            assert_same_form(mine, theirs, tolerance)
    else:
        assert actual == expected
