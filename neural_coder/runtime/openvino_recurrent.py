"""LSTM, GRU and RNN layers as OpenVINO's operations on whole sequences.

OpenVINO makes these of TorchScript only. Of a graph of `torch.export` it takes what the operators are made of: for a
sequence of some length thousands of operations, slow to convert and slow to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

_ATEN = torch.ops.aten
_GATES = {
    _ATEN.lstm.input: (1, 0, 2, 3), _ATEN.gru.input: (1, 0, 2), _ATEN.rnn_tanh.input: (0,), _ATEN.rnn_relu.input: (0,),
}  # fmt: skip
"""Operators on tensors (those on packed sequences are others), and where they have the gates that OpenVINO wants.

PyTorch's LSTM has i, f, g, o where OpenVINO's has f, i, c, o; GRU has r, z, n for z, r, h. See for PyTorch's
<https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers>, and for OpenVINO's `LSTMCell` and `GRUCell` in
<https://docs.openvino.ai/2025/documentation/openvino-ir-format/operation-sets/operation-specs.html>.
"""

_INITIAL, _WEIGHTS = (1, 2), (4, 5)
"""Inputs of `LSTMSequence`."""


def kept_whole(graph: torch.fx.Graph) -> frozenset[Any]:
    """The recurrent operators of which OpenVINO has all that a graph does with them; others are to be taken apart."""
    return frozenset(_GATES) - {node.target for node in _recurrent(graph) if not _has_counterpart(node)}


def extensions(graph: torch.fx.Graph) -> list[Any]:
    """Change a graph so that OpenVINO can read its recurrent operators by means of what is returned.

    OpenVINO's extensions know neither which node they convert nor nodes with several outputs. So each node that takes
    one output of an operator gets a target of its own, and the operator's inputs.

    Args:
        graph: Its recurrent operators are ones that `kept_whole` names.

    Returns:
        A `ConversionExtension` for each of these nodes.
    """
    from openvino.frontend.pytorch import ConversionExtension

    found = []
    for node in _recurrent(graph):
        layers = _Layers(node)
        for taker in list(node.users):
            output = _Output(layers, taker.name)
            taker.target, taker.args = output, tuple(layers.tensors)
            found.append(ConversionExtension(str(output), output.convert))
        graph.erase_node(node)
    return found


def mend(quantized: Any, original: Any, *, narrow: bool) -> None:
    """Correct what NNCF does to LSTMs.

    It takes the constants that they start with for weights; OpenVINO computes nothing in integers for an LSTM that
    starts with quantized ones. And of the processors whose sums of products overflow it only thinks for other layers.

    Args:
        quantized: An `openvino.Model` that NNCF made; is changed.
        original: What it was made of.
        narrow: Whether quantized weights are to have 7 bits, so that nothing overflows.
    """
    from openvino.op import Constant

    known = {operation.get_friendly_name(): operation for operation in original.get_ops()}
    for sequence in quantized.get_ops():
        if sequence.get_type_name() != "LSTMSequence":
            continue
        for place in _INITIAL:
            before = known[sequence.get_friendly_name()].input_value(place).get_node()
            if before.get_type_name() == "Constant":
                sequence.input(place).replace_source_output(Constant(before.get_tensor_view()).output(0))
        for place in _WEIGHTS if narrow else ():
            weight = sequence.input_value(place).get_node()
            if weight.get_type_name() == "Multiply":  # by a scale; one that is excluded is as it was
                sequence.input(place).replace_source_output(_narrowed(weight))


def _narrowed(weight: Any) -> Any:
    """Half the integers of a quantized weight, and twice their scale."""
    from openvino import opset13 as ops

    integers, scale = (operand.get_node() for operand in weight.input_values())
    halves = (integers.input_value(0).get_node().data / 2).round().astype("int8")
    converted = ops.convert(ops.constant(halves), integers.get_element_type())
    return ops.multiply(converted, ops.multiply(scale, ops.convert_like(2.0, scale))).output(0)


def _recurrent(graph: torch.fx.Graph) -> list[torch.fx.Node]:
    return [node for node in graph.nodes if node.target in _GATES]


def _has_counterpart(node: torch.fx.Node) -> bool:
    """Whether it drops nothing and projects no state, which would make one of an LSTM's states narrower."""
    given = _arguments(node)
    return len(set(map(_width, _states(given)))) == 1 and not (given["train"] and given["dropout"])


def _arguments(node: torch.fx.Node) -> dict[str, Any]:
    names = [argument.name for argument in node.target._schema.arguments]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _states(given: dict[str, Any]) -> list[torch.fx.Node]:
    return [given["hx"]] if isinstance(given["hx"], torch.fx.Node) else list(given["hx"])


def _width(node: torch.fx.Node) -> int:
    return int(node.meta["val"].shape[-1])


@dataclass(frozen=True, slots=True)
class _Output:
    """Target of a node that stands for one output of an operator."""

    layers: _Layers
    __name__: str

    def __str__(self) -> str:
        """What OpenVINO finds the extension by; its messages repeat it, and are searched for names of operators."""
        return f"{self.layers.operator}/{self.__name__}"

    def __call__(self, *tensors: object) -> None:
        """Targets are functions; nobody calls this one."""

    def convert(self, context: Any) -> list[Any]:
        """Answer OpenVINO's `NodeContext`."""
        return [self.layers.output(self.__name__, context)]


class _Layers:
    """All layers of one operator."""

    def __init__(self, node: torch.fx.Node) -> None:
        given = _arguments(node)
        states = _states(given)
        self.operator = node.target
        self.tensors: list[torch.fx.Node] = [given["input"], *states, *given["params"]]
        self._name = node.name
        self._taken = {taker.name: int(taker.args[1]) for taker in node.users}
        self._built: dict[str, Any] = {}
        self._gates = _GATES[node.target]
        self._states, self._width = len(states), _width(states[0])
        self._layers, self._directions = int(given["num_layers"]), 2 if given["bidirectional"] else 1
        self._has_biases, self._batch_first = bool(given["has_biases"]), bool(given["batch_first"])

    def output(self, taker: str, context: Any) -> Any:
        """The output that a node takes, of operations that are built when the first of them is asked for.

        Nothing is kept that was handed on: NNCF follows operations that only we would know into nowhere.
        """
        if not self._built:
            outputs = self._build([context.get_input(place) for place in range(len(self.tensors))])
            self._built = {name: outputs[place] for name, place in self._taken.items()}
        return self._built.pop(taker)

    def _build(self, inputs: Sequence[Any]) -> list[Any]:
        """The operator's outputs, of its inputs."""
        from openvino import opset13 as ops

        data, initial, weights = inputs[0], inputs[1 : self._states + 1], inputs[self._states + 1 :]
        last: list[list[Any]] = []
        data = data if self._batch_first else _swapped(data)
        for layer, of_layer in enumerate(_shared(weights, self._layers)):
            places = list(range(layer * self._directions, (layer + 1) * self._directions))
            states = [_swapped(ops.gather(state, places, 0)) for state in initial]
            sequence = self._sequence(data, states, of_layer)
            sequence.set_friendly_name(f"{self._name}/layer_{layer}")  # by which it can be excluded from quantization
            steps, *after = sequence.outputs()
            # From batch, direction, step, width: what two directions give stands side by side.
            data = ops.reshape(ops.transpose(steps, [0, 2, 1, 3]), [0, 0, self._directions * self._width], True)
            last.append([_swapped(state) for state in after])
        data = data if self._batch_first else _swapped(data)
        states = [ops.concat(list(of_layers), 0) for of_layers in zip(*last, strict=True)]
        return [node.output(0) for node in (data, *states)]

    def _sequence(self, data: Any, states: Sequence[Any], weights: Sequence[Any]) -> Any:
        """OpenVINO's operation for one layer, with both directions where it has two."""
        from openvino import opset13 as ops

        shape = ops.shape_of(data)
        lengths = ops.broadcast(ops.gather(shape, [1], 0), ops.gather(shape, [0], 0))
        directions = _shared(weights, self._directions)
        matrices = [_stacked([self._reordered(each[place]) for each in directions]) for place in (0, 1)]
        bias = _stacked([self._bias(each) for each in directions])
        inputs = (data, *states, lengths, *matrices, bias, self._width)
        direction = "bidirectional" if self._directions == 2 else "forward"
        if self.operator == _ATEN.lstm.input:
            return ops.lstm_sequence(*inputs, direction)
        if self.operator == _ATEN.gru.input:
            return ops.gru_sequence(*inputs, direction, linear_before_reset=True)
        activation = "tanh" if self.operator == _ATEN.rnn_tanh.input else "relu"
        return ops.rnn_sequence(*inputs, direction, activations=[activation])

    def _reordered(self, weight: Any) -> Any:
        from openvino import opset13 as ops

        gates = ops.split(weight, 0, len(self._gates)).outputs()
        return ops.concat([gates[place] for place in self._gates], 0)

    def _bias(self, weights: Sequence[Any]) -> Any:
        """One bias for inputs and state together, but two for the last gate of a GRU, which resets only the state's."""
        from openvino import opset13 as ops

        is_gru = self.operator == _ATEN.gru.input
        if not self._has_biases:
            zero = ops.convert_like(0.0, weights[0])
            return ops.broadcast(zero, [(len(self._gates) + is_gru) * self._width])
        of_input, of_state = map(self._reordered, weights[2:])
        if not is_gru:
            return ops.add(of_input, of_state)
        lengths = [2 * self._width, self._width]
        (first, second), (third, fourth) = (
            ops.variadic_split(bias, 0, lengths).outputs() for bias in (of_input, of_state)
        )
        return ops.concat([ops.add(first, third), second, fourth], 0)


def _shared(weights: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """The weights of each layer, or of each direction."""
    size = len(weights) // count
    return [weights[start : start + size] for start in range(0, len(weights), size)]


def _swapped(tensor: Any) -> Any:
    """Exchange the first two dimensions."""
    from openvino import opset13 as ops

    return ops.transpose(tensor, [1, 0, 2])


def _stacked(tensors: Sequence[Any]) -> Any:
    from openvino import opset13 as ops

    return ops.concat([ops.unsqueeze(each, 0) for each in tensors], 0)
