"""Processors that add 8-bit products in 16 bits cut off what does not fit: there, one side must have 7 bits."""

import pytest

torch = pytest.importorskip("torch")

from promised import VARIANTS, ready  # noqa: E402
from torch import nn  # noqa: E402

from neural_coder.runtime import engine_torchao, overflow, processor  # noqa: E402
from neural_coder.runtime.calibration import Calibration  # noqa: E402
from neural_coder.runtime.engine import Request, load_engine  # noqa: E402
from neural_coder.runtime.quiet import quiet  # noqa: E402
from neural_coder.runtime.settings import Settings  # noqa: E402

pytestmark = pytest.mark.torch

IN_INTEGERS = [each for each in VARIANTS if "int8" in each.precision and not each.unavailable]


def wide():
    """A network in which many products of large numbers are added."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 64)).eval()
    return model, [torch.randn(8, 256) for _ in range(8)]


@pytest.mark.parametrize("variant", IN_INTEGERS, ids=str)
def test_sums_of_many_large_products_are_right(variant):
    """Cut off, they are wrong by 20 % and more."""
    model, inputs = wide()
    ready(variant.put_on(model, *((x,) for x in inputs)), variant, inputs[0])
    with torch.no_grad():
        answer, expected = model(inputs[1]), type(model).forward(model, inputs[1])
    assert (answer - expected).norm() < 0.04 * expected.norm()


@pytest.mark.parametrize(("overflows", "largest"), [(True, 64), (False, 127)])
def test_weights_of_torchao_have_7_bits_where_sums_overflow(overflows, largest, monkeypatch):
    pytest.importorskip("torchao")
    monkeypatch.setattr(overflow, "sums_overflow", lambda: overflows)
    settings = Settings(engine="torchao", precision="int8_dynamic")
    request = Request(settings=settings, calibration=Calibration(settings.calibration))
    with quiet():  # of torchao's imports
        weight = engine_torchao.ENGINE.convert(wide()[0], request).module[0].weight
    assert weight.qdata.abs().max() == largest
    assert (weight.dequantize() - wide()[0][0].weight).abs().max() < 0.001


@pytest.mark.parametrize(
    ("capabilities", "overflows"),
    [({"avx2": True}, True), ({"avx2": True, "avx_vnni": True}, False), ({"avx512_vnni": True}, False)],
)
def test_vnni_adds_in_32_bits(capabilities, overflows, monkeypatch):
    monkeypatch.setattr(overflow, "is_arm", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert overflow.sums_overflow() == overflows


def test_arm_adds_in_32_bits(monkeypatch):
    monkeypatch.setattr(overflow.platform, "machine", lambda: "aarch64")
    assert not overflow.sums_overflow()


@pytest.mark.parametrize("engine", ["inductor", "onnxruntime", "openvino"])
def test_what_is_kept_for_one_processor_is_not_used_on_another(engine, tmp_path, monkeypatch):
    """Its weights may have a bit too many there."""
    told = []
    for flags in ("flags : avx2", "flags : avx2 avx512_vnni"):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
        monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
        told.append(load_engine(engine, "int8_static").surroundings())
    assert told[0] != told[1]
