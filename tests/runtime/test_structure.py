"""Nested inputs and outputs: described, and built anew with other tensors."""

import dataclasses
from collections import OrderedDict, UserDict, namedtuple

import pytest

torch = pytest.importorskip("torch")

from neural_coder.runtime.structure import Call, Leaves, describe, mutable_containers, rebuild, tensors_inside  # noqa: E402

pytestmark = pytest.mark.torch

Pair = namedtuple("Pair", "first second")


@dataclasses.dataclass(frozen=True)
class Frozen:
    tensor: torch.Tensor
    name: str


class Holder:
    def __init__(self, inner):
        self.inner = inner


def key(value):
    return describe(value, Leaves())


def plus_one(value):
    return rebuild(value, lambda tensor: tensor + 1)


def test_containers_of_all_kinds_are_rebuilt_in_their_type():
    zero = torch.zeros(2)
    for value in (
        (zero, [zero]),
        Pair(zero, 3),
        {"a": zero, "b": (zero, None)},
        OrderedDict(a=zero),
        UserDict({"a": zero}),
        Frozen(zero, "name"),
    ):
        rebuilt, found = plus_one(value), Leaves()
        assert type(rebuilt) is type(value)
        describe(rebuilt, found)
        assert found.tensors
        assert all(bool((tensor == 1).all()) for tensor in found.tensors)
        assert key(rebuilt) == key(value)
    assert not zero.any()


def test_a_model_output_is_rebuilt_as_attributes_and_as_items():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    zero = torch.zeros(2)
    given = outputs.BaseModelOutput(last_hidden_state=zero, attentions=(zero, zero))
    given.note = "kept"
    rebuilt = plus_one(given)
    assert type(rebuilt) is type(given)
    assert [*rebuilt.keys()] == ["last_hidden_state", "attentions"]
    assert rebuilt.last_hidden_state is rebuilt["last_hidden_state"] is rebuilt[0] is rebuilt.to_tuple()[0]
    assert rebuilt.attentions is rebuilt["attentions"]
    assert bool((rebuilt.attentions[1] == 1).all())
    assert not zero.any()
    assert (rebuilt.hidden_states, rebuilt.note) == (None, "kept")
    rebuilt.hidden_states = (zero,)
    assert "hidden_states" in rebuilt
    assert "hidden_states" not in given


def test_packed_sequences_are_rebuilt():
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(3, 2), torch.zeros(1, 2)])
    rebuilt = rebuild(packed, lambda tensor: tensor.clone())
    assert type(rebuilt) is type(packed)
    assert torch.equal(rebuilt.batch_sizes, packed.batch_sizes)


def test_descriptions_tell_types_and_flags_apart_but_not_shapes_or_numbers():
    assert key((torch.zeros(2, 3), 1)) == key((torch.ones(5, 1), 2))
    assert key(torch.zeros(2)) != key(torch.zeros(2, 1))
    assert key(torch.zeros(2)) != key(torch.zeros(2, dtype=torch.float64))
    assert key(True) != key(False)
    assert key(None) != key(torch.zeros(1))
    assert key([1]) != key((1,))
    assert key({"a": 1}) != key({"b": 1})


def test_exact_keys_tell_shapes_and_values_apart():
    def exact(*args):
        return Call(args, {}).exact_key()

    assert exact(torch.zeros(2), 1) == exact(torch.ones(2), 1)
    assert exact(torch.zeros(2), 1) != exact(torch.zeros(3), 1)
    assert exact(torch.zeros(2), 1) != exact(torch.zeros(2), 2)
    assert exact(torch.zeros(2), "a") != exact(torch.zeros(2), "b")


def test_objects_are_leaves_and_handed_on():
    holder, found = Holder(torch.zeros(1)), Leaves()
    describe([holder, torch.zeros(1), 3], found)
    assert (len(found.objects), len(found.tensors), found.plain) == (1, 1, [3])
    assert plus_one([holder])[0] is holder


def test_tensors_inside_of_objects_are_found():
    inner = torch.zeros(1)
    assert [*tensors_inside(Holder([{"a": inner}, Holder(None)]))] == [inner]
    assert None in [*tensors_inside(Holder(object()))]


def test_lists_and_dictionaries_are_the_mutable_containers():
    inner = [1, 2]
    found = [container for container, _, _ in mutable_containers(((inner, 3), {"a": inner}))]
    assert found == [inner, {"a": inner}, inner]
