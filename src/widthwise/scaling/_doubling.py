"""What becomes of a weight's scales when every width of its network doubles."""

from dataclasses import dataclass

from widthwise.core import Value
from widthwise.program import Role
from widthwise.scaling._families import UpdateFamily
from widthwise.scaling._plan import WeightPlan
from widthwise.scaling._planner import ROLES_WITH_ONE_HOT_INPUT
from widthwise.scaling._schemes import Factors, Fans, rule_of

TIED = "tied to the readout"
"""Said in the reason of a weight that is embedding and readout at once."""


@dataclass(frozen=True)
class Doubling(Value):
    """Factors of a doubling of the width.

    Attributes:
        init: of the standard deviation of the entries.
        multiplier: of the layer's input in the forward pass.
        adam, sgd: of the learning rate, for sign-like optimisers and for gradient descent.
    """

    init: float
    multiplier: float
    adam: float
    sgd: float


def doubling(row: WeightPlan, scheme: str = "spectral") -> Doubling:
    """The ratio of a scheme's rule at twice the growing fans of a weight to the rule at the present ones.

    Args:
        row: of a `ScalingPlan` (``parametrize(..., dry_run=True).plan.rows``).
        scheme: a name that `parametrize` takes.

    Raises:
        DataError: a scheme that is not known.

    Example:
        >>> import torch
        >>> import widthwise as ww
        >>> plan = ww.parametrize(torch.nn.Linear(3, 8), "spectral", lr=0.1, optimizer="adam", dry_run=True).plan
        >>> ww.scaling.doubling(plan["weight"]).adam
        1.0
    """
    fans, twice = _fans(row, 1), _fans(row, 2)
    rule = rule_of(scheme)

    def ratio(family: UpdateFamily) -> Factors:
        now, then = rule(fans, family), rule(twice, family)
        return Factors(then.init / now.init, then.multiplier / now.multiplier, then.step / now.step, 1.0)

    adam, sgd = ratio("sign"), ratio("gradient")
    multiplier = fans.fan_out / twice.fan_out if TIED in row.reason else adam.multiplier
    init = adam.init if row.init_std else 1.0
    return Doubling(init, multiplier, adam.step, sgd.step)


def _fans(row: WeightPlan, factor: int) -> Fans:
    """The fans of a weight with every growing side multiplied."""
    grows_in = row.role in (Role.HIDDEN, Role.OUTPUT)
    grows_out = row.role in (Role.HIDDEN, Role.INPUT, Role.VECTOR, Role.EMBEDDING)
    fan_in = 1.0 if row.role in ROLES_WITH_ONE_HOT_INPUT else float(row.fan_in * (factor if grows_in else 1))
    return Fans(row.role, fan_in, float(row.fan_out * (factor if grows_out else 1)), grows_in, grows_out)
