"""Weights of a program: role, fan-in and fan-out, initial scale, ties."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import prod

from torch import nn

from widthwise.program._axes import Labels, MatrixUse
from widthwise.program._factors import Ids
from widthwise.program._graph import canonical_names
from widthwise.program._init import recognise
from widthwise.program._types import AxisKind, Factor, Node, Role, Weight


def read_weights(
    module: nn.Module, nodes: Sequence[Node], labels: Labels, known: Mapping[int, Factor]
) -> tuple[Weight, ...]:
    """Every trained tensor of the module once, in the order of ``named_parameters``."""
    names = canonical_names(module)
    aliases: dict[str, list[str]] = defaultdict(list)
    for name, canonical in names.items():
        if name != canonical:
            aliases[canonical].append(name)
    uses = _count_uses(nodes)
    tensors = dict(module.named_parameters(remove_duplicate=False))
    modules = dict(module.named_modules())
    config = getattr(module, "config", None)
    found = []
    for name in dict.fromkeys(names.values()):
        value = tensors[name].detach()
        owner_path, _, own_name = name.rpartition(".")
        owner = modules[owner_path]
        role, fan_in, fan_out = _role_and_fans(name, labels, known, tuple(value.shape))
        init = recognise(value, owner, own_name, config)
        found.append(
            Weight(
                name=name,
                aliases=tuple(aliases[name]),
                module_path=owner_path,
                module_type=type(owner).__name__,
                shape=tuple(value.shape),
                role=role,
                fan_in=fan_in,
                fan_out=fan_out,
                init_mean=init.mean,
                init_std=init.std,
                init_source=init.source,
                uses=uses[name],
                value=tensors[name],
            )
        )
    return tuple(found)


def _count_uses(nodes: Sequence[Node]) -> dict[str, int]:
    weight_of = {node.name: node.op for node in nodes if node.kind == "weight"}
    uses: dict[str, int] = defaultdict(int)
    for node in nodes:
        for ref in {ref.name for ref in node.refs}:
            if ref in weight_of:
                uses[weight_of[ref]] += 1
    return uses


def _role_and_fans(
    name: str, labels: Labels, known: Mapping[int, Factor], shape: tuple[int, ...]
) -> tuple[Role, int, int]:
    """Role and fans; a look-up is of one row, a vector is a matrix with one input (or the taps of
    a depthwise kernel)."""
    if name in labels.looked_up:
        use = labels.looked_up[name]
        return Role.EMBEDDING, use.fan_in, use.fan_out
    matrices = labels.matrices.get(name)
    if matrices:
        use = matrices[0]
        return _matrix_role(use, labels, known), use.fan_in, use.fan_out
    axes = labels.weight_axes.get(name, ())
    taps = labels.taps.get(name, 1)
    growing = [labels.factors.size(axis) for axis in axes if _widths(axis, labels, known)]
    return (Role.VECTOR, taps, prod(growing)) if growing else (Role.FINITE, taps, prod(shape))


def _matrix_role(use: MatrixUse, labels: Labels, known: Mapping[int, Factor]) -> Role:
    grows = bool(_widths(use.inner, labels, known)), bool(_widths(use.outer, labels, known))
    return {
        (True, True): Role.HIDDEN,
        (False, True): Role.INPUT,
        (True, False): Role.OUTPUT,
        (False, False): Role.FINITE,
    }[grows]


def _widths(axis: Ids, labels: Labels, known: Mapping[int, Factor]) -> list[int]:
    factors = [known[leaf] for leaf in labels.factors.leaves(axis) if leaf in known]
    return [factor.size for factor in factors if factor.kind is AxisKind.WIDTH]
