"""Axes of recurrent layers and cells."""

from typing import Any

from widthwise.program._axes import Axes, AxesUnknown, Call, axis_rule, broadcast
from widthwise.program._axes_weights import apply_weight
from widthwise.program._factors import Ids

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@axis_rule("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")
def _recurrent(call: Call) -> list[Axes | None]:
    gates = _GATES[call.node.op.split(".")[1]]
    data = call.axes("input")
    features, hidden = data[-1], ()
    directions = 2 if call["bidirectional"] else 1
    per = len(call["params"]) // (call["num_layers"] * directions)
    if per not in (2, 4):
        raise AxesUnknown
    for layer in range(call["num_layers"]):
        direction = call.fresh((directions,), "spatial")[0]
        hidden = _recurrent_layer(call, features, call["params"][layer * directions * per :], per, directions, gates)
        features = (*direction, *hidden)
    initial = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
    state = (call.fresh(call.shape[1][:1], "spatial")[0], data[0 if call["batch_first"] else 1], hidden)
    for given in initial:
        broadcast(call.factors, [state, call.axes_of(given)])
    return [(*data[:-1], features), state, *([state] if gates == 4 else [])]


@axis_rule("aten.lstm_cell", "aten.gru_cell", "aten.rnn_tanh_cell", "aten.rnn_relu_cell")
def _recurrent_cell(call: Call) -> Any:
    gates = _GATES[call.node.op.split(".")[1].removesuffix("_cell")]
    data = call.axes("input")
    params = [call[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh") if call.has(name)]
    hidden = _recurrent_layer(call, data[-1], params, len(params), 1, gates)
    state = (*data[:-1], hidden)
    for given in call["hx"] if isinstance(call["hx"], list) else [call["hx"]]:
        broadcast(call.factors, [state, call.axes_of(given)])
    return [state, state] if gates == 4 else state


def _recurrent_layer(call: Call, features: Ids, params: Any, per: int, directions: int, gates: int) -> Ids:
    hidden: Ids | None = None
    for one in range(directions):
        given, recurrent, *biases = params[one * per : (one + 1) * per]
        weight, square = call.axes_of(given), call.axes_of(recurrent)
        size = call.factors.size(square[1])
        for axes, ref, inner in ((weight, given, features), (square, recurrent, square[1])):
            gate, own = call.factors.regroup(axes[0], (gates, size))
            call.factors.flag(gate, "spatial")
            call.factors.flag(own, "made")
            hidden = own if hidden is None else hidden
            call.factors.unify(hidden, own)
            apply_weight(call, ref, [(inner, axes[1])], [call.factors.leaves(axes[0])], 1)
        call.factors.unify(hidden or (), square[1])
        for bias in biases:
            call.factors.unify(weight[0], call.axes_of(bias)[0])
    return call.factors.leaves(hidden or ())
