"""abc-parametrisations: what survives of training when the width goes to infinity, by exact fractions.

Source: Yang & Hu 2021, Feature Learning in Infinite-Width Neural Networks (arXiv:2011.14522), section 3 and its
theorem on the classification; the sign-descent case is derived the same way (an aligned update of entries of size one).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from widthwise.core import DataError, Value

Family = Literal["gradient", "sign"]
Regime = Literal["unstable", "trivial", "kernel", "feature learning"]
Number = int | float | str | Fraction

HALF = Fraction(1, 2)


@dataclass(frozen=True)
class AbcTable(Value):
    """Exponents of one parametrisation: layer l has weights ``n^-a w`` with ``w ~ N(0, n^-2b)`` and step ``lr n^-c``.

    Attributes:
        a, b, c: one exponent per layer, input first, readout last.
        family: ``"gradient"`` (SGD) or ``"sign"`` (Adam and the like: updates have entries of size one).
    """

    a: tuple[Fraction, ...]
    b: tuple[Fraction, ...]
    c: tuple[Fraction, ...]
    family: Family = "gradient"

    def shifted(self, theta: Sequence[Number]) -> "AbcTable":
        """The same training with weights regrouped: a + theta, b - theta, c - 2 theta (c - theta for sign descent)."""
        moves = [Fraction(value) for value in theta]
        cost = 2 if self.family == "gradient" else 1
        return AbcTable(
            tuple(a + t for a, t in zip(self.a, moves, strict=True)),
            tuple(b - t for b, t in zip(self.b, moves, strict=True)),
            tuple(c - cost * t for c, t in zip(self.c, moves, strict=True)),
            self.family,
        )

    @property
    def folded(self) -> "AbcTable":
        """The equivalent table without multipliers (all a = 0): its b and c are exponents of plain init and step."""
        return self.shifted([-a for a in self.a])


@dataclass(frozen=True)
class AbcReport(Value):
    """What becomes of a parametrisation at infinite width.

    Attributes:
        regime: ``"unstable"``, ``"trivial"`` (the function does not move), ``"kernel"`` or ``"feature learning"``.
        stable_at_init: preactivations stay of order one, the output bounded, at initialisation.
        r: features move by ``n^-r`` per step.
        layer_r: the part of each hidden layer's update in that (a layer learns features if it is 0).
        reasons: the broken conditions, one sentence each.
        folded: the table without multipliers.
        suggestion: the nearest table in which every layer learns features (same multipliers).
    """

    regime: Regime
    stable_at_init: bool
    r: Fraction
    layer_r: tuple[Fraction, ...]
    reasons: tuple[str, ...]
    folded: AbcTable
    suggestion: AbcTable


def abc(
    a: Sequence[Number], b: Sequence[Number], c: Number | Sequence[Number], family: Family = "gradient"
) -> AbcTable:
    """An abc-parametrisation from numbers, fractions or strings such as ``"1/2"``.

    Raises:
        DataError: fewer than two layers, or lists of different lengths.
    """
    steps = [c] * len(a) if isinstance(c, (int, float, str, Fraction)) else list(c)
    if len(a) < 2 or len({len(a), len(b), len(steps)}) > 1:
        raise DataError(
            f"a, b and c have {len(a)}, {len(b)} and {len(steps)} entries; give one each for the input layer, every "
            "hidden matrix and the readout, at least two."
        )
    exact = [tuple(_exact(x) for x in values) for values in (a, b, steps)]
    return AbcTable(exact[0], exact[1], exact[2], family)


def _exact(value: Number) -> Fraction:
    return Fraction(value).limit_denominator(10**6) if isinstance(value, float) else Fraction(value)


def named_abc(name: str, hidden_layers: int, family: Family = "gradient") -> AbcTable:
    """The table of a parametrisation by name, for a network with that many hidden layers.

    Args:
        name: ``"standard"``, ``"ntk"``, ``"mean-field"``, ``"mup"`` or ``"spectral"`` (muP without multipliers).

    >>> classify(named_abc("mup", 3)).regime
    'feature learning'
    """
    middle = hidden_layers - 1
    tables: Mapping[str, tuple[list[Number], list[Number]]] = {
        "standard": ([0] * (middle + 2), [0, *[HALF] * middle, HALF]),
        "ntk": ([0, *[HALF] * (middle + 1)], [0] * (middle + 2)),
        "mean-field": ([0, *[HALF] * middle, 1], [0] * (middle + 2)),
        "mup": ([-HALF, *[0] * middle, HALF], [HALF] * (middle + 2)),
        "spectral": ([0] * (middle + 2), [0, *[HALF] * middle, 1]),
    }
    if name not in tables:
        raise DataError(f"parametrisation {name!r} is not one of {', '.join(tables)}.")
    a, b = tables[name]
    c: Sequence[Number]
    if name in ("standard", "ntk"):
        c = [0] * (middle + 2)
    elif family == "gradient":
        c = {"mean-field": [-1] * (middle + 2), "mup": [0] * (middle + 2), "spectral": [-1, *[0] * middle, 1]}[name]
    else:
        table = abc([0] * (middle + 2), [0] * (middle + 2), [0, *[1] * middle, 1], "sign")
        c = [step - shift for step, shift in zip(table.c, [Fraction(x) for x in a], strict=True)]
    return abc(a, b, c, family)


def classify(table: AbcTable) -> AbcReport:
    """Which regime a parametrisation has at infinite width, and why.

    >>> classify(abc([0, "1/2", "1/2"], [0, 0, 0], 0)).regime  # NTK parametrisation, two hidden layers
    'kernel'
    """
    layers = len(table.a) - 1
    total = [a + b for a, b in zip(table.a, table.b, strict=True)]
    wanted = [Fraction(0), *[HALF] * (layers - 1)]
    reasons = [
        f"layer {index + 1}: init scale n^-({value}) where n^-({want}) keeps preactivations of order one"
        for index, (value, want) in enumerate(zip(total[:-1], wanted, strict=True))
        if value != want
    ]
    if total[-1] < HALF:
        reasons.append(f"readout: init scale n^-({total[-1]}) makes the output grow; at least 1/2 is needed")
    stable_at_init = not reasons
    layer_r = _layer_r(table)
    r = min(layer_r)
    moves = _readout_move(table)
    reasons += [f"layer {i + 1}: its update moves the features by n^({-x})" for i, x in enumerate(layer_r) if x < 0]
    if moves < 0:
        reasons.append(f"readout: its update moves the output by n^({-moves})")
    through = total[-1] + r - 1
    if through < 0:
        reasons.append(f"readout: moving features move the output by n^({-through})")
    regime: Regime = "kernel" if r > 0 else "feature learning"
    if reasons:
        regime = "unstable"
    elif moves > 0 and through > 0:
        regime = "trivial"
        reasons.append("the output moves by a vanishing amount per step")
    return AbcReport(regime, stable_at_init, r, layer_r, tuple(reasons), table.folded, _suggestion(table))


def _layer_r(table: AbcTable) -> tuple[Fraction, ...]:
    """Exponent of the change of the last features by each hidden layer's update, per step."""
    back = min(table.a[-1] + table.b[-1], 2 * table.a[-1] + table.c[-1])
    result = []
    for index, (a, c) in enumerate(zip(table.a[:-1], table.c[:-1], strict=True)):
        first = Fraction(int(index == 0))
        result.append(back + c - 1 + 2 * a + first if table.family == "gradient" else a + c - 1 + first)
    return tuple(result)


def _readout_move(table: AbcTable) -> Fraction:
    """Exponent of the change of the output by the readout's own update."""
    return (2 if table.family == "gradient" else 1) * table.a[-1] + table.c[-1] - 1


def _suggestion(table: AbcTable) -> AbcTable:
    """muP with the multipliers of the given table."""
    layers = len(table.a) - 1
    base = named_abc("spectral", layers, table.family)
    return base.shifted(table.a)
