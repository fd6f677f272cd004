"""Which parameters can be contracted layer by layer, found out on two examples and checked against autograd."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from widthwise.core import ModelError
from widthwise.probe._layer_contraction import Place, Weight
from widthwise.probe._layer_contraction_block import Block
from widthwise.probe._layer_contraction_capture import Call, Watch, watched
from widthwise.probe._layer_contraction_shapes import Layout
from widthwise.probe._modules import call as outputs_of

_AGREEMENT = {torch.float32: 1e-3, torch.float64: 1e-8}
_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError, AttributeError)


@dataclass(frozen=True)
class Plan:
    """What can be done layer by layer.

    Attributes:
        weights: parameters whose uses are all understood.
        others: names of the parameters that need gradients of single examples.
        layouts: of the calls, in order.
        names: of the calls, in order; a later run must show the same.
        copies: calls whose operands must be copied.
        saved_bytes: kept by the graph for one example.
        call_numbers: numbers in the slopes of each call, for one example and one output.
        batched: backward passes of several heads can be vectorised.
    """

    module: nn.Module
    weights: list[Weight]
    others: list[str]
    layouts: tuple[Layout, ...]
    names: tuple[str, ...]
    copies: frozenset[int]
    saved_bytes: int
    call_numbers: tuple[int, ...]
    batched: bool

    @property
    def held_numbers(self) -> int:
        """Slopes held at once in a backward pass, for one example and one output: those of a few calls, and those that
        wait for another use of their parameter or for the end."""
        waiting = {
            call for weight in self.weights if len(weight.calls) > 1 or not weight.simple for call in weight.calls
        }
        return 4 * max(self.call_numbers, default=0) + sum(self.call_numbers[call] for call in waiting)

    def block(self, parameters: dict[str, Tensor], x: Tensor) -> Block:
        """The examples `x` run through the module."""
        outputs, watch = watched(self.module, parameters, x, outputs_of, copies=self.copies)
        if tuple(call.name for call in watch.calls) != self.names or watch.changed():
            raise ModelError(
                f"the module does other operations on {len(x)} examples than on 2; give method='jacobian' to "
                "empirical_ntk, which takes the examples one by one."
            )
        return Block(outputs, watch.calls)


def refuse_coupled_examples(module: nn.Module, pair: Tensor) -> None:
    """Refuse a module whose output for one example depends on the others.

    Raises:
        ModelError: it does, or its outputs are not finite.
    """
    both, alone = outputs_of(module, pair), outputs_of(module, pair[:1])
    if not bool(torch.isfinite(alone).all()):
        raise ModelError("the module gives outputs that are not finite for finite inputs; mend its weights or buffers.")
    if both.shape[1] != alone.shape[1] or not _close(both[0], alone[0]):
        raise ModelError(
            "the outputs for one example change with the other examples of the batch, so that no kernel of pairs of "
            "examples exists; replace the layer that couples them (batch normalisation without running statistics?)."
        )


def survey(module: nn.Module, parameters: dict[str, Tensor], pair: Tensor) -> Plan | None:
    """The plan for a module in evaluation mode, or None if it cannot be watched on batches.

    Args:
        pair: two different examples.
    """
    saved: dict[int, int] = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in module.parameters()}

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            _, first = watched(module, parameters, pair, outputs_of)
        copies = first.changed()
        outputs, both = watched(module, parameters, pair, outputs_of, keep=True, copies=copies)
        _, alone = watched(module, parameters, pair[:1], outputs_of, keep=True, copies=copies)
    except _FAILURES:
        return None
    names = tuple(call.name for call in both.calls)
    if both.reads_values or names != tuple(call.name for call in alone.calls) or both.changed():
        return None
    layouts = [_layout(*calls) for calls in zip(both.calls, alone.calls, strict=True)]
    block = Block(outputs, both.calls)
    weights = _weights(parameters, both, layouts, block)
    weights = _verified(weights, block, tuple(layout or Layout(0, 1) for layout in layouts), parameters)
    batched = _streams(block, batched=True)
    if weights and not batched and not _streams(block, batched=False):
        return None
    done = {weight.name for weight in weights}
    return Plan(
        module,
        weights,
        [name for name in parameters if name not in done],
        tuple(layout or Layout(0, 1) for layout in layouts),
        names,
        copies,
        sum(saved.values()) // 2,
        tuple(call.shape.numel() // 2 for call in both.calls),
        batched,
    )


def _streams(block: Block, *, batched: bool) -> bool:
    """Whether the slopes that a backward pass hands on are those of single passes."""
    if not block.calls or not block.outputs.requires_grad:
        return False
    rising = torch.linspace(0.5, 1.5, block.outputs.shape[1]).to(block.outputs)
    cotangents = torch.stack([rising, rising.square() - 1])
    got: dict[int, Tensor] = {}
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            block.stream(cotangents, got.__setitem__, batched=batched)
    except _FAILURES:
        return False
    if any("performance drop" in str(warning.message) for warning in seen):
        return False
    expected = block.slopes(cotangents, list(range(len(block.calls))))
    return all(_close(got[call] if call in got else torch.zeros_like(slope), slope) for call, slope in expected.items())


def _weights(parameters: dict[str, Tensor], watch: Watch, layouts: list[Layout | None], block: Block) -> list[Weight]:
    """The parameters used only in ways that are understood."""
    places: dict[str, list[Place]] = {name: [] for name in parameters}
    refused = set(watch.unsupported)
    for number, (call, layout) in enumerate(zip(watch.calls, layouts, strict=True)):
        for index, use in enumerate(call.uses):
            for name in use.source.names:
                places[name].append(Place(number, index))
                if layout is None:
                    refused.add(name)
    return [Weight(name, parameters[name], found, block) for name, found in places.items() if name not in refused]


def _layout(both: Call, alone: Call) -> Layout | None:
    """Where the examples stand, from the results for two examples and for the first of them."""
    assert both.result is not None and alone.result is not None
    if both.shape[:0] != alone.shape[:0] or len(both.shape) != len(alone.shape):
        return None
    for use, same in zip(both.uses, alone.uses, strict=True):
        if use.value.shape != same.value.shape:
            return None
    grown = [axis for axis, (two, one) in enumerate(zip(both.shape, alone.shape, strict=True)) if two != one]
    if len(grown) != 1 or both.shape[grown[0]] != 2 * alone.shape[grown[0]]:
        return None
    axis, inner = grown[0], alone.shape[grown[0]]
    choices = [Layout(axis, inner)] if inner == 1 else [Layout(axis, inner), Layout(axis, inner, minor=True)]
    fits = [choice for choice in choices if _stands(choice, both, alone)]
    return fits[0] if len(fits) == 1 else None


def _stands(layout: Layout, both: Call, alone: Call) -> bool:
    pairs = [(both.result, alone.result)]
    for use, same in zip(both.uses, alone.uses, strict=True):
        pairs += [
            (two, one)
            for two, one in zip(use.read(), same.read(), strict=True)
            if two.ndim > layout.axis and two.shape[layout.axis] == 2 * layout.inner
        ]
    known = [(two, one) for two, one in pairs if two is not None and one is not None]
    return all(_close(layout.split(two.detach(), 2)[0], one.detach()) for two, one in known)


def _verified(
    weights: list[Weight], block: Block, layouts: tuple[Layout, ...], parameters: dict[str, Tensor]
) -> list[Weight]:
    """Those whose gradient of the first example, put together from the layers, is the one of autograd."""
    if not block.calls or not block.outputs.requires_grad:
        return []
    cotangent = torch.linspace(0.5, 1.5, block.outputs.shape[1]).to(block.outputs)
    seed = torch.zeros_like(block.outputs)
    seed[0] = cotangent
    expected = torch.autograd.grad(block.outputs, list(parameters.values()), seed, retain_graph=True, allow_unused=True)
    truth = dict(zip(parameters, expected, strict=True))
    slopes = block.slopes(cotangent[None], list(range(len(block.calls))), slice(0, 1))
    total = sum(float(part.square().sum()) for part in expected if part is not None) ** 0.5
    return [weight for weight in weights if _agrees(weight, block, slopes, layouts, truth[weight.name], total)]


def _agrees(
    weight: Weight,
    block: Block,
    slopes: dict[int, Tensor],
    layouts: tuple[Layout, ...],
    truth: Tensor | None,
    total: float,
) -> bool:
    if not weight.places or truth is None:
        return truth is None
    try:
        got = weight.gradient(block, slopes, layouts)[0]
    except _FAILURES:
        return False
    rounding = 100 * torch.finfo(truth.dtype).eps * total
    bound = _AGREEMENT.get(truth.dtype, 1e-3) * float(truth.norm()) + rounding
    return float((got[0] - truth).norm()) <= bound and float(got[1].norm()) <= bound


def _close(x: Tensor, y: Tensor) -> bool:
    if x.shape != y.shape:
        return False
    if not x.is_floating_point():
        return bool(torch.equal(x, y))
    tolerance = _AGREEMENT.get(x.dtype, 1e-3)
    return float((x - y).norm()) <= tolerance * float(y.norm()) + 1e-30
