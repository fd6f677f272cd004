"""The scales of random parameters: read off the module, or given."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from widthwise.program import Weight

Override = float | Tensor | Mapping[str, float | Tensor] | None


@dataclass
class Scales:
    """Overrides of what is read off the module's tensors; None keeps the module's own.

    Scalar tensors may require gradients. A dict maps name patterns (as in `fnmatch`) to values: the first that fits
    wins.
    """

    weight_std: Override = None
    bias_std: Override = None

    @staticmethod
    def pick(override: Override, name: str) -> float | Tensor | None:
        """The override for a weight name, if any."""
        if isinstance(override, Mapping):
            return next((value for pattern, value in override.items() if fnmatchcase(name, pattern)), None)
        return override


def constant_value(weight: Weight) -> float | None:
    """The one value that all entries of a weight have at initialisation, None where they are random."""
    return weight.init_mean if weight.init_std == 0.0 else None
