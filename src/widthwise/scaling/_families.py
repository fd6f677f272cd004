"""What the size of an optimiser's update depends on: all that a parametrisation has to know of it."""

from typing import Literal

from widthwise.core import DataError

UpdateFamily = Literal["gradient", "sign", "orthogonal"]

FAMILIES: dict[str, UpdateFamily] = {
    "sgd": "gradient",
    "momentum": "gradient",
    "nesterov": "gradient",
    **dict.fromkeys(
        ("adam", "adamw", "nadam", "radam", "rmsprop", "adagrad", "adafactor", "lion", "sophia", "soap"), "sign"
    ),
    **dict.fromkeys(("muon", "orthogonal", "shampoo", "spectral"), "orthogonal"),
}
"""Updates proportional to the gradient, with entries of size one, or with all singular values equal to one."""


def family_of(optimizer: str) -> UpdateFamily:
    """The family of an optimiser by its name.

    Raises:
        DataError: the name is not known.

    >>> family_of("adamw")
    'sign'
    """
    key = optimizer.lower()
    if key not in FAMILIES:
        raise DataError(f"optimizer {optimizer!r} is not known; give one of {', '.join(FAMILIES)}.")
    return FAMILIES[key]
