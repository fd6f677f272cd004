"""Rules of recurrent layers: unrolled over time, each step with the same matrices (sheet, section 2.10).

Simple recurrences are exact. The states of LSTM and GRU are functions of Gaussian gates at all earlier steps, whose
moments are sampled.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from widthwise.kernels._checks import coordinates
from widthwise.kernels._fields import Field, Inputs, Local, Product, combine
from widthwise.kernels._fields_stacked import elementwise, picked, stack
from widthwise.kernels._lowering import Lowering, position_sizes
from widthwise.kernels._positions import flattened, pointwise
from widthwise.kernels._registry import Concrete, Lowered, Several, rule
from widthwise.kernels._rules_pointwise import image
from widthwise.numerics import ACTIVATIONS
from widthwise.program import AxisKind, Node, Ref, Weight, axis_size

State = tuple[Field | None, ...]
"""What one step hands to the next: hidden state, and the cell of an LSTM; None for zero."""


@dataclass(frozen=True)
class Cell:
    """One layer in one direction.

    Attributes:
        params: references to W_ih, W_hh and the biases, if any.
        gates: how many blocks of rows the matrices have.
    """

    run: Lowering
    node: Node
    params: tuple[Ref, ...]
    gates: int

    def weight(self, place: int, gate: int) -> Weight:
        """The rows of a parameter that belong to a gate."""
        whole = self.run.value(self.params[place])
        if not isinstance(whole, Weight):
            raise self.run.refuse(self.node, "one of its matrices is computed, not a parameter")
        rows = whole.shape[0] // self.gates
        return whole.part(0, range(gate * rows, (gate + 1) * rows))

    def matmul(self, place: int, gate: int, source: Field, layout: tuple = ()) -> tuple[float, Field]:
        """A term of a gate: its rows of a matrix times a field, positions of which are contracted too."""
        weight = self.weight(place, gate)
        fan_in = weight.shape[1]
        gone = (True,) * len(source.positions)
        contraction = flattened(source.positions, gone, layout) if gone else pointwise(())
        self.run.used(self.run.value(self.params[place]), (True, contraction.key), self.node)
        return 1.0, Product(weight, self.run.matrix(weight, fan_in, self.node), fan_in, source, contraction)

    def biases(self, gate: int, places: tuple[int, ...] = (2, 3)) -> list[tuple[float, Field]]:
        """The biases of a gate as terms."""
        terms: list[tuple[float, Field]] = []
        for place in places:
            if place < len(self.params):
                axis = coordinates(self.run.axes(self.params[place]))
                terms.append((1.0, self.run.vector(self.weight(place, gate), (axis,), self.node)))
        return terms

    def gate(self, gate: int, x: Field, h: Field | None, layout: tuple) -> Field:
        """``W_ih x + b_ih + W_hh h + b_hh`` of one gate."""
        terms = [self.matmul(0, gate, x, layout), *self.biases(gate)]
        if h is not None:
            terms.append(self.matmul(1, gate, h))
        return combine(terms)

    def local(self, function: Callable[..., Tensor], sources: tuple[Field | None, ...], name: str) -> Field:
        """A function of fields, where absent ones are zero."""
        present = [source is not None for source in sources]

        def filled(*values: Tensor) -> Tensor:
            given = iter(values)
            zero = torch.zeros_like(values[0])
            return function(*(next(given) if here else zero for here in present))

        self.run.rules[self.node.name] = "sampled"
        return Local(filled, tuple(source for source in sources if source is not None), name)


Step = Callable[[Cell, Field, State, tuple], State]


def _simple(phi: str) -> Step:
    def step(cell: Cell, x: Field, state: State, layout: tuple) -> State:
        before = cell.gate(0, x, state[0], layout)
        return (elementwise(lambda part: image(cell.run, cell.node, ACTIVATIONS[phi](), part), before),)

    return step


def _lstm(cell: Cell, x: Field, state: State, layout: tuple) -> State:
    gate_in, forget, new, out = (cell.gate(k, x, state[0], layout) for k in range(4))
    memory = cell.local(
        lambda i, f, g, c: torch.sigmoid(i) * torch.tanh(g) + torch.sigmoid(f) * c,
        (gate_in, forget, new, state[1]),
        "LSTM cell",
    )
    hidden = cell.local(lambda o, c: torch.sigmoid(o) * torch.tanh(c), (out, memory), "LSTM state")
    return hidden, memory


def _gru(cell: Cell, x: Field, state: State, layout: tuple) -> State:
    reset, update = (cell.gate(k, x, state[0], layout) for k in range(2))
    given = combine([cell.matmul(0, 2, x, layout), *cell.biases(2, (2,))])
    kept = [*cell.biases(2, (3,)), *([cell.matmul(1, 2, state[0])] if state[0] is not None else [])]

    def function(r: Tensor, z: Tensor, a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        z = torch.sigmoid(z)
        return (1 - z) * torch.tanh(a + torch.sigmoid(r) * b) + z * h

    return (cell.local(function, (reset, update, given, combine(kept) if kept else None, state[0]), "GRU state"),)


STEPS: dict[str, tuple[Step, int]] = {
    "rnn_tanh": (_simple("tanh"), 1),
    "rnn_relu": (_simple("relu"), 1),
    "lstm": (_lstm, 4),
    "gru": (_gru, 3),
}


# -- data and initial states -------------------------------------------------------------------------------------------


def _steps_of(run: Lowering, node: Node, operand: Ref, time: int) -> tuple[list[Field], tuple]:
    """The operand at each time step, and the layout of its last axis."""
    axes = run.axes(operand)
    if len(axes) != 3:
        raise run.refuse(node, "its operand is not batch, time and features")
    length = axis_size(axes[time])
    layout = tuple((factor.kind, factor.size) for factor in axes[2])
    if isinstance(run.value(operand), Concrete):
        if axes[1 - time] and axes[1 - time][0].kind is not AxisKind.BATCH:
            raise run.refuse(node, "its data operand has no batch axis")
        return [Inputs(operand.name, _reader(time, t), ()) for t in range(length)], ()
    field = run.field(operand, node)
    if len(axes[time]) > 1:
        raise run.refuse(node, "its time axis consists of several axes")
    if length == 1:
        return [field], layout
    return [picked(field, 0, (t,)) for t in range(length)], layout


def _reader(time: int, t: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.select(time, t).unsqueeze(1)


def _initial(run: Lowering, node: Node, argument: Ref, place: int) -> Field | None:
    """The initial state of one layer and direction; None for zero."""
    if run.is_zero(argument):
        return None
    axes = run.axes(argument)
    if isinstance(run.value(argument), Concrete):
        raise run.refuse(node, "its initial state is data, not zero and not random")
    field = run.field(argument, node)
    if len(axes) < 3 or not field.positions:
        return field
    if len(axes[0]) != len(field.positions) or len(field.positions) > 1:
        raise run.refuse(node, "its initial state has positions beside layers")
    return picked(field, 0, (place,))


# -- rules -------------------------------------------------------------------------------------------------------------


@rule(*(f"aten.{name}.input" for name in STEPS))
def recurrent(run: Lowering, node: Node) -> Lowered:
    """Layers of recurrences, in one or both directions."""
    step, gates = STEPS[node.op.split(".")[1]]
    operand, given, params, _, layers, dropout, training, both, batch_first = node.args[:9]
    initial = given if isinstance(given, list) else [given]
    directions = 2 if both else 1
    per = len(params) // (layers * directions)
    if per not in (2, 4):
        raise run.refuse(node, "projected states have no rule")
    if dropout and training and layers > 1:
        raise run.refuse(node, "dropout between its layers has no rule; trace the module in eval mode")
    sequence, layout = _steps_of(run, node, operand, 1 if batch_first else 0)
    last: list[State] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            cell = Cell(run, node, tuple(params[place * per : (place + 1) * per]), gates)
            start = tuple(_initial(run, node, one, place) for one in initial)
            states = _unrolled(step, cell, sequence, start, layout, backwards=direction == 1)
            outputs.append([state[0] for state in states])
            last.append(states[0 if direction else -1])
        hidden = cell.run.value(params[1]).shape[1]
        layout = ((AxisKind.POSITION, 2), (AxisKind.WIDTH, hidden)) if both else ((AxisKind.WIDTH, hidden),)
        sequence = [stack([one for one in at if one is not None]) for at in zip(*outputs, strict=True)]
    finals = [stack([one for state in last if (one := state[k]) is not None]) for k in range(len(initial))]
    return Several((stack(sequence), *finals))


def _unrolled(
    step: Step, cell: Cell, sequence: list[Field], start: State, layout: tuple, *, backwards: bool
) -> list[State]:
    """The states after each step, in the order of the sequence."""
    states: list[State] = []
    state = start
    for x in reversed(sequence) if backwards else sequence:
        state = step(cell, x, state, layout)
        states.append(state)
    return states[::-1] if backwards else states


@rule(*(f"aten.{name}_cell.default" for name in STEPS))
def cell_step(run: Lowering, node: Node) -> Lowered:
    """One step of a hand-written loop."""
    step, gates = STEPS[node.op.split(".")[1].removesuffix("_cell")]
    operand, given, *params = node.args
    initial = given if isinstance(given, list) else [given]
    axes = run.axes(operand)
    if len(axes) != 2:
        raise run.refuse(node, "its operand is not batch and features")
    layout: tuple = ()
    if isinstance(run.value(operand), Concrete):
        x: Field = run.inputs(operand, (1,), node)
    else:
        x = run.field(operand, node)
        layout = tuple((factor.kind, factor.size) for factor in axes[1])
    if position_sizes(axes[:1]) or (x.positions and not layout):
        raise run.refuse(node, "its operand has positions")
    cell = Cell(run, node, tuple(one for one in params if one is not None), gates)
    state = step(cell, x, tuple(_initial(run, node, one, 0) for one in initial), layout)
    if len(state) == 1:
        assert state[0] is not None
        return state[0]
    return Several(state)
