"""What can be wrong with a request for a feature-learning limit."""

from widthwise.core import WidthwiseError


class FeatureLimitError(WidthwiseError, ValueError):
    """A size, a rate, a parametrisation or data for which no feature-learning limit can be computed."""


def at_least(name: str, value: int, least: int, mend: str) -> int:
    """The whole number `value`, refused below `least`."""
    if value < least:
        raise FeatureLimitError(f"{name}={value} is too small; give at least {least}: {mend}.")
    return int(value)


def positive(name: str, value: float) -> float:
    """The number `value`, refused unless it is positive and finite."""
    if not 0 < value < float("inf"):
        raise FeatureLimitError(f"{name}={value} cannot be used; give a positive number.")
    return float(value)
