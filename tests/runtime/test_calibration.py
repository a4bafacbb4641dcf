"""Data for static quantization: the first calls, or what the script gives."""

import pytest

torch = pytest.importorskip("torch")

from neural_coder.runtime import calibration as calibrating  # noqa: E402
from neural_coder.runtime.calibration import Calibration, identity  # noqa: E402
from neural_coder.runtime.engine import CannotConvert  # noqa: E402
from neural_coder.runtime.structure import Call  # noqa: E402

pytestmark = pytest.mark.torch


def call(*args, **kwargs):
    return Call(args, kwargs)


def loader(items, **settings):
    return torch.utils.data.DataLoader(items, **settings)


def test_first_calls_are_kept_until_there_are_enough_samples():
    calibration = Calibration(10)
    for number in range(5):
        assert not calibration.is_complete
        calibration.see(call(torch.full((2, 3), float(number))))
    assert calibration.is_complete
    assert [float(each.args[0][0, 0]) for each in calibration.calls] == [0, 1, 2, 3, 4]


def test_one_big_batch_is_not_enough():
    calibration = Calibration(32)
    calibration.see(call(torch.zeros(64, 3)))
    assert not calibration.is_complete
    assert calibration.progress() == "it collects calibration data: 32 of 32 samples, and 1 of 4 calls"


def test_fewer_samples_than_four_need_fewer_calls():
    calibration = Calibration(1)
    calibration.see(call(torch.zeros(1, 3)))
    assert calibration.is_complete


def test_calls_of_another_kind_are_passed_over():
    calibration = Calibration(4)
    calibration.see(call(torch.zeros(1, 3)))
    calibration.see(call(torch.zeros(1, 3, dtype=torch.long)))
    calibration.see(call(x=torch.zeros(1, 3)))
    calibration.see(call(torch.zeros(7, 5)))
    assert [each.args[0].shape for each in calibration.calls] == [(1, 3), (7, 5)]


def test_what_is_kept_does_not_change_with_the_callers_tensors():
    calibration, x = Calibration(4), torch.zeros(1, 3)
    calibration.see(call(x, 0.5))
    x.fill_(9)
    assert not calibration.calls[0].args[0].any()
    assert calibration.calls[0].args[1] == 0.5


def test_memory_has_a_limit(monkeypatch):
    monkeypatch.setattr(calibrating, "MAX_BYTES", 100)
    calibration = Calibration(1000)
    calibration.see(call(torch.zeros(30)))
    assert calibration.is_complete


@pytest.mark.parametrize(
    ("data", "like", "expected"),
    [
        (lambda: loader(torch.arange(12.0).view(6, 2), batch_size=2), call(torch.zeros(1, 2)), 3),
        (
            lambda: loader(torch.utils.data.TensorDataset(torch.rand(6, 2), torch.arange(6)), batch_size=2),
            call(torch.zeros(1, 2)),
            3,
        ),
        (lambda: [{"ids": torch.ones(2, 4), "labels": torch.ones(2)}], call(ids=torch.zeros(1, 4)), 1),
        (lambda: [torch.ones(2, 4)], call(ids=torch.zeros(1, 4), scale=2.0), 1),
        (lambda: [(torch.ones(2, 4), torch.ones(2, 1))], call(torch.zeros(1, 4), torch.zeros(1, 1), 3), 1),
        (lambda: [(torch.ones(2, 4), torch.ones(2, 1))], call(a=torch.zeros(1, 4), b=torch.zeros(1, 1)), 1),
        (lambda: [{"x": torch.ones(2, 4)}], call({"x": torch.zeros(1, 4)}), 1),
        (lambda: (torch.ones(1, 2) for _ in range(5)), call(torch.zeros(1, 2)), 5),
        (lambda: [torch.ones(2, 2), "a heading", torch.ones(2)], call(torch.zeros(1, 2)), 1),
    ],
    ids=["loader", "labels", "dictionary", "keyword", "positional", "by_order", "one_dictionary", "generator", "mixed"],
)
def test_given_data_is_read_at_the_first_call(data, like, expected):
    calibration = Calibration(data())
    calibration.see(like)
    assert calibration.is_complete
    assert len(calibration.calls) == expected
    assert {each.key for each in calibration.calls} == {like.key}


def test_plain_inputs_that_the_data_lack_are_those_of_the_call():
    calibration = Calibration([{"ids": torch.ones(2, 4)}])
    calibration.see(call(ids=torch.zeros(1, 4), scale=2.0, deep=True))
    assert calibration.calls[0].kwargs["scale"] == 2.0
    assert calibration.calls[0].kwargs["deep"] is True


def test_data_of_which_nothing_fits_are_refused():
    with pytest.raises(CannotConvert, match="none of the 2 items of the calibration data can be an input"):
        Calibration(["a", torch.ones(3, 3, dtype=torch.long)]).see(call(torch.zeros(1, 2)))


def test_no_more_than_some_hundred_samples_are_read():
    read = []

    def endless():
        while True:
            read.append(1)
            yield torch.ones(50, 2)

    calibration = Calibration(endless())
    calibration.see(call(torch.zeros(1, 2)))
    assert len(read) == calibrating.MAX_SAMPLES // 50


def test_other_data_are_told_apart():
    data = torch.utils.data.TensorDataset(torch.zeros(6, 2))
    longer = torch.utils.data.TensorDataset(torch.zeros(7, 2))
    assert identity(32) == "32"
    assert identity([torch.zeros(2)]) == identity((torch.zeros(2),))
    assert identity([torch.zeros(2)]) != identity([torch.ones(2)])
    assert identity([torch.zeros(2)]) != identity([torch.zeros(2, dtype=torch.long)])
    assert identity(loader(data, batch_size=2)) == identity(loader(data, batch_size=2, shuffle=True))
    assert identity(loader(data, batch_size=2)) != identity(loader(longer, batch_size=2))
    assert identity(each for each in ()) != identity([])
