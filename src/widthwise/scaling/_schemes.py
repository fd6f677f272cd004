"""Parametrisations as factors of one weight: initial scale, multiplier and step, by its role and fans.

Multiplier-free forms follow from the spectral condition |W| ~ |dW| ~ sqrt(fan_out / fan_in) (arXiv:2310.17813); the
"mup" form keeps the readout's multiplier as in Tensor Programs V (arXiv:2203.03466, table 8).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from widthwise.core import DataError, Value
from widthwise.program import Role
from widthwise.scaling._families import UpdateFamily

AbcByRole = Mapping[str, tuple[Fraction | float | int | str, ...]]
"""Exponents (a, b, c) by role name: weights ``n^-a w``, ``w ~ n^-b``, step ``n^-c``, n the fan that grows."""


@dataclass(frozen=True)
class Fans(Value):
    """A weight's fans, as a rule sees them.

    Attributes:
        role: of the weight.
        fan_in, fan_out: 1 for the fan-in of vectors and embeddings (their input is one-hot).
        grows_in, grows_out: whether that side grows with the width.
    """

    role: Role
    fan_in: float
    fan_out: float
    grows_in: bool
    grows_out: bool

    @property
    def width(self) -> float:
        """The fan that grows (fan-in if both do, 1 if none)."""
        return self.fan_in if self.grows_in else self.fan_out if self.grows_out else 1.0


@dataclass(frozen=True)
class Factors(Value):
    """Scales of one weight, up to a constant that does not depend on the width.

    Attributes:
        init: standard deviation of the entries.
        multiplier: of the layer's input in the forward pass.
        step: learning rate.
        epsilon: size of the gradient's entries, to which an optimiser's epsilon is compared.
    """

    init: float
    multiplier: float
    step: float
    epsilon: float


Rule = Callable[[Fans, UpdateFamily], Factors]


def spectral(fans: Fans, family: UpdateFamily) -> Factors:
    """|W| and |dW| of order sqrt(fan_out / fan_in), without multipliers."""
    i, o = fans.fan_in, fans.fan_out
    if fans.role is Role.OUTPUT:
        init = o**0.5 / i
    elif fans.role is Role.HIDDEN:
        init = i**-0.5 * min(1.0, (o / i) ** 0.5)
    else:
        init = i**-0.5
    step = {"gradient": o / i, "sign": 1 / i, "orthogonal": (o / i) ** 0.5}[family]
    return Factors(init, 1.0, step, 1 / o if fans.grows_out else 1.0)


def mup(fans: Fans, family: UpdateFamily) -> Factors:
    """Tensor Programs V: a multiplier 1 / fan_in at the readout, whose weights keep their scale.

    Hidden weights start at 1 / sqrt(fan_in) even where fan_in outgrows fan_out, as in microsoft/mup; the spectral
    condition wants them smaller there.
    """
    plain = spectral(fans, family)
    if fans.role is Role.HIDDEN:
        return Factors(fans.fan_in**-0.5, plain.multiplier, plain.step, plain.epsilon)
    if fans.role is not Role.OUTPUT:
        return plain
    i = fans.fan_in
    cost = 2 if family == "gradient" else 1
    return Factors(plain.init * i, 1 / i, plain.step * i**cost, 1 / i)


def standard(fans: Fans, family: UpdateFamily) -> Factors:
    """PyTorch's: fan-in initialisation and one learning rate for all."""
    return Factors(fans.fan_in**-0.5, 1.0, 1.0, 1.0)


def ntk(fans: Fans, family: UpdateFamily) -> Factors:
    """W = w / sqrt(fan_in) with w trained, written as a step for W."""
    i = fans.fan_in
    step = {"gradient": 1 / i, "sign": i**-0.5, "orthogonal": i**-0.5}[family]
    return Factors(i**-0.5, 1.0, step, 1.0)


SCHEMES: dict[str, Rule] = {"spectral": spectral, "mup": mup, "standard": standard, "ntk": ntk, "mean-field": spectral}
"""Rules by name; mean field (readout multiplier 1/n, step n) is the spectral rule once multipliers are folded in."""


def rule_of(scheme: str | AbcByRole) -> Rule:
    """The rule of a scheme by name, or of a table of exponents by role.

    Raises:
        DataError: the name or a role is not known.
    """
    if isinstance(scheme, str):
        if scheme not in SCHEMES:
            raise DataError(f"parametrisation {scheme!r} is not one of {', '.join(SCHEMES)}.")
        return SCHEMES[scheme]
    roles = {role.value for role in Role}
    unknown = [name for name in scheme if name not in roles]
    if unknown or not scheme:
        raise DataError(f"role {unknown[0] if unknown else 'none'!r} is not one of {', '.join(sorted(roles))}.")
    table = {name: tuple(Fraction(value) for value in exponents) for name, exponents in scheme.items()}
    short = [name for name, exponents in table.items() if len(exponents) != 3]
    if short:
        raise DataError(f"role {short[0]!r} has {len(table[short[0]])} exponents; give three: a, b and c.")

    def by_exponents(fans: Fans, family: UpdateFamily) -> Factors:
        if fans.role.value not in table:
            return Factors(fans.fan_in**-0.5 if not fans.grows_in else 1.0, 1.0, 1.0, 1.0)
        a, b, c = (float(value) for value in table[fans.role.value])
        cost = 2 if family == "gradient" else 1
        n = fans.width
        own = 1.0 if fans.grows_in else fans.fan_in**-0.5
        return Factors(own * n ** -(a + b), 1.0, n ** -(c + cost * a), 1.0)

    return by_exponents
