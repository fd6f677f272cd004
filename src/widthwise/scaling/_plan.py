"""The plan of a parametrisation: one row per weight, before anything is changed."""

from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from widthwise.core import Value
from widthwise.program import Role


@dataclass(frozen=True)
class WeightPlan(Value):
    """What a parametrisation does to one weight.

    Attributes:
        name: of the parameter.
        role: what it does for the width axes.
        reason: why it is treated so, in words.
        shape, fan_in, fan_out: of the tensor; fans are 1 on the one-hot side of vectors and embeddings.
        init_std: standard deviation that its entries get; 0 where they are constant and stay so.
        init_ratio: what its present entries are multiplied by.
        multiplier: of the input of the layer it belongs to.
        lr, weight_decay, eps: of its parameter group.
        optimizer: which optimiser is meant to train it.
        trained: whether it requires gradients; frozen weights are in no group.
    """

    name: str
    role: Role
    reason: str
    shape: tuple[int, ...]
    fan_in: int
    fan_out: int
    init_std: float
    init_ratio: float
    multiplier: float
    lr: float
    weight_decay: float
    eps: float
    optimizer: str
    trained: bool
    parameter: nn.Parameter = field(repr=False, compare=False, metadata={"plain": False})


@dataclass(frozen=True)
class ScorePlan(Value):
    """The scale of one attention's scores: its queries are multiplied where `module_path` puts them out."""

    node: str
    module_path: str
    head_size: int
    scale: float
    multiplier: float
    block: tuple[float, float]


@dataclass(frozen=True)
class ScalingPlan(Value):
    """A parametrisation of a module, weight by weight.

    Attributes:
        scheme, optimizer: as asked for.
        rows: one per weight.
        scores: one per attention whose scores are rescaled.
        notes: what the user should know, one sentence each.
    """

    scheme: str
    optimizer: str
    rows: tuple[WeightPlan, ...]
    scores: tuple[ScorePlan, ...]
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> WeightPlan:
        """The row of a weight by its name."""
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        table = Table(title=f"{self.scheme} parametrisation for {self.optimizer}")
        for title in ("weight", "role", "shape", "init std", "multiplier", "lr", "weight decay", "eps", "why"):
            table.add_column(title, overflow="fold")
        for row in self.rows:
            numbers = (row.init_std, row.multiplier, row.lr, row.weight_decay, row.eps)
            shown = [f"{number:.4g}" for number in numbers]
            lr = shown[2] if row.trained else "frozen"
            table.add_row(
                row.name, row.role.value, "x".join(map(str, row.shape)), *shown[:2], lr, *shown[3:], row.reason
            )
        stream = StringIO()
        console = Console(width=160, file=stream)
        console.print(table)
        for score in self.scores:
            console.print(
                f"attention scores at {score.module_path or 'the root'}: queries times {score.multiplier:.4g}"
            )
        for note in self.notes:
            console.print(f"note: {note}")
        return stream.getvalue()


class ParameterGroups(list[dict[str, Any]]):
    """Plain parameter groups for an optimiser of `torch.optim`, with the plan that they come from.

    Each group has ``params``, ``lr``, ``weight_decay`` (``eps`` for optimisers that have one), and for the reader
    ``weights`` (names) and ``optimizer``.

    Attributes:
        plan: the table, printable and ``to_dict``-able.
    """

    def __init__(self, plan: ScalingPlan) -> None:
        self.plan = plan
        groups: dict[tuple[str, float, float, float], dict[str, Any]] = {}
        for row in plan.rows:
            if row.trained:
                key = row.optimizer, row.lr, row.weight_decay, row.eps
                group = groups.setdefault(key, _group(row))
                group["params"].append(row.parameter)
                group["weights"].append(row.name)
        super().__init__(groups.values())

    def of(self, optimizer: str) -> list[dict[str, Any]]:
        """The groups that one optimiser trains (where a scheme needs two)."""
        return [group for group in self if group["optimizer"] == optimizer]

    def __str__(self) -> str:
        return str(self.plan)


def _group(row: WeightPlan) -> dict[str, Any]:
    group = {"params": [], "lr": row.lr, "weight_decay": row.weight_decay}
    if row.optimizer in ("adam", "adamw", "nadam", "radam", "rmsprop"):
        group["eps"] = row.eps
    return group | {"weights": [], "optimizer": row.optimizer}
