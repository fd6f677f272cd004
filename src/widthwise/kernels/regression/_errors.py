"""What can be wrong with a Gram matrix, said with the numbers that matter."""

from widthwise.core import DataError


class NotPositiveDefinite(DataError):
    """The Gram matrix plus the ridge has an eigenvalue that is not positive; nothing is ever added silently.

    Attributes:
        eigenvalue: the offending one, ridge included.
        jitter: a ridge that would make the matrix positive definite in the precision at hand.
    """

    def __init__(self, eigenvalue: float, largest: float, ridge: float, jitter: float) -> None:
        self.eigenvalue = eigenvalue
        self.jitter = jitter
        super().__init__(
            f"the Gram matrix plus ridge {ridge:g} has eigenvalue {eigenvalue:.3g} (the largest is {largest:.3g}), so "
            f"it is not positive definite in this precision; give ridge={jitter:.1g} or more, or mend the kernel."
        )


class PrecisionWarning(UserWarning):
    """The condition number needs more digits than the kernel has."""


def jitter_for(eigenvalue: float, largest: float, ridge: float, eps: float, n: int) -> float:
    """A ridge that lifts the smallest eigenvalue above rounding."""
    return max(ridge, 0.0) + 2 * max(-eigenvalue, 0.0) + 10 * n**0.5 * eps * largest


def precision_sentence(condition: float, eps: float, dtype: str) -> str | None:
    """A warning where the condition number leaves fewer than two digits, else None."""
    if condition * eps <= 1e-2:
        return None
    mend = "use dtype='float64' or a larger ridge" if dtype == "float32" else "use a larger ridge"
    return (
        f"the condition number of the Gram matrix plus ridge is about {condition:.1g}, too large for {dtype}; {mend}."
    )
