"""What single fields mean to the fused engine: geometry of convolutions, activations, independence of terms."""

from dataclasses import dataclass

import torch

from widthwise.kernels._fields import Concat, Field, Gained, Image, Moved, Normalised, Offset, Product, Shared, Sum
from widthwise.kernels.engines import _codes as code
from widthwise.kernels.engines._maps import Grid, Unfit, grid_of
from widthwise.numerics import Activation


def convolution(u: Product) -> tuple[Grid, Grid, Grid, Grid, Grid, Grid]:
    """Source grid, result grid, kernel, stride, padding before and dilation of a convolution, two axes each."""
    key = u.contraction.key
    if len(key) > 6:
        raise Unfit("a convolution of moved positions")
    if key[0] == "patches":
        _, kernel, stride, padding, dilation, image = key
    else:
        _, image, kernel, stride, padding, dilation = key
    if len(image) > 2:
        raise Unfit("a convolution over three axes")
    missing = 2 - len(image)

    def whole(sizes: tuple[int, ...], fill: int) -> Grid:
        first, second = (fill,) * missing + tuple(sizes)
        return first, second

    before = tuple(pad[0] for pad in padding)
    if any(size < 2 for size in image) or any(first != last for first, last in padding):
        raise Unfit("an image axis of size one, or padding that differs between sides")
    result = grid_of(u.positions)
    if missing == 0 and len(u.positions) != 2:
        raise Unfit("an image axis of size one")
    return whole(image, 1), result, whole(kernel, 1), whole(stride, 1), whole(before, 0), whole(dilation, 1)


def variance_of(u: Product) -> float:
    if not isinstance(u.variance, float):
        raise Unfit("a variance that is differentiated")
    return u.variance


def resizes(arguments: dict[str, float]) -> bool:
    """Whether a convolution's result cannot overwrite its source."""
    if "KY" not in arguments:
        return False
    same = all(2 * arguments["P" + a] == (arguments["K" + a] - 1) * arguments["D" + a] for a in "YX")
    return not same or arguments["SY"] != 1 or arguments["SX"] != 1


def abrelu_slopes(phi: Activation) -> tuple[float, float] | None:
    """Slopes below and above zero of the piecewise linear activations with a kink at zero, None for others."""
    if phi.name != "identity" and not phi.name.startswith(("relu", "leaky_relu(", "abrelu(", "absolute")):
        return None
    if phi.name.startswith("relu6"):
        return None
    at = phi.function(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
    return (-float(at[0]), float(at[2])) if float(at[1]) == 0.0 else None


@dataclass(frozen=True)
class Transform:
    """A row function, the forms of the variance that it reads, and its two parameters."""

    phi: int
    features: tuple[str, ...]
    first: float = 0.0
    second: float = 0.0


def transform_of(phi: Activation) -> Transform:
    """The row function of an activation.

    Raises:
        Unfit: there is none.
    """
    slopes = abrelu_slopes(phi)
    if slopes is not None:
        return Transform(code.ABRELU, ("std", "inverse_std"), *slopes)
    if phi.name == "erf":
        return Transform(code.ERF, ("erf",))
    if phi.name == "gelu":
        return Transform(code.GELU, ("variance", "gelu"))
    if phi.name.startswith("sin("):
        return Transform(code.SIN, ("half",), *sine(phi))
    raise Unfit(f"activation {phi.name}")


def sine(phi: Activation) -> tuple[float, float]:
    """w^2 and cos(2 phase) of sin(w x + phase)."""
    zero = torch.zeros((), dtype=torch.float64)
    rate = 1.0 / phi.scale
    value, slope = float(phi.function(zero)), float(phi.derivative(zero)) / rate
    return rate * rate, slope * slope - value * value


def check_independent(u: Sum) -> None:
    """The terms of a sum have no cross moments: at most one is no Gaussian, and no two share a matrix.

    Raises:
        Unfit: they might.
    """
    seen: set[str] = set()
    images = 0
    for _, term in u.terms:
        if isinstance(term, Offset):
            if term.value:
                raise Unfit("a constant")
            continue
        images += not term.gaussian
        own = atoms(term)
        if own & seen:
            raise Unfit("terms of a sum that share a matrix")
        seen |= own
    if images > 1:
        raise Unfit("a sum of two activations")


def atoms(u: Field) -> set[str]:
    """Names of the matrices and vectors whose randomness a field carries, above the last matrix."""
    if isinstance(u, (Product, Shared)):
        return {u.weight.name}
    if isinstance(u, Offset):
        return {u.weight.name} if u.weight is not None else set()
    if isinstance(u, Sum):
        return {name for _, term in u.terms for name in atoms(term)}
    if isinstance(u, Concat):
        return {name for part in u.parts for name in atoms(part)}
    if isinstance(u, (Image, Moved, Gained, Normalised)):
        return atoms(u.source)
    raise Unfit(type(u).__name__)
