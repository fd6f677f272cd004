"""The plan of one weight: role, factors of the rule, depth and richness, and the initial scale to have."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod
from statistics import median

from widthwise.core import DataError
from widthwise.program import Program, Role, Weight
from widthwise.scaling._families import UpdateFamily, family_of
from widthwise.scaling._place import Scaled, earlier_of, input_place
from widthwise.scaling._plan import ScorePlan, WeightPlan
from widthwise.scaling._schemes import Factors, Fans, Rule
from widthwise.scaling._structure import Branches, matrix_depth, queries

Override = Mapping[str, float | str]


REFERENCE_HEAD = 64


ROLES_WITH_ONE_HOT_INPUT = (Role.VECTOR, Role.EMBEDDING)


WIDE_INPUT = 4.0
"""From how many times the base's hidden fan-in on an input layer is said to set the best learning rate alone."""
COUPLED_DECAY = ("adam", "nadam", "radam", "rmsprop", "adagrad")


@dataclass
class Planner:
    """Makes the row of each weight."""

    rule: Rule
    relative: bool
    own_init: bool
    optimizer: str
    program: Program
    base: Program
    branches: Branches
    depth: tuple[float, float]
    gamma: float
    overrides: Mapping[str, Override]
    before: dict[str, Scaled]

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        if self.depth != (1.0, 1.0):
            self.notes += [
                f"the residual branch at {name} ends in nothing that a weight scales; multiply it by "
                f"{self.depth[0]:.4g} in the model's own code."
                for name in self.branches.open
            ]
        family_of(self.optimizer)
        readouts = [weight.name for weight in self.program.weights if weight.role is Role.OUTPUT]
        sums = [node for name in readouts for node in self.program.users(name) if node.name == self.program.output]
        read = [self.program.node(ref.name) for node in sums for ref in node.refs]
        self.readout_biases = {node.op for node in read if node.kind == "weight"} - set(readouts)
        for settings in self.overrides.values():
            unknown = [key for key in settings if key not in ("role", "lr", "init", "weight_decay")]
            if unknown:
                raise DataError(f"override {unknown[0]!r} is not one of role, lr, init, weight_decay.")

    def row(self, weight: Weight, lr: float, weight_decay: float, eps: float) -> WeightPlan:
        """The plan of one weight."""
        if weight_decay and self.optimizer in COUPLED_DECAY and not self.notes:
            self.notes.append(
                f"{self.optimizer} adds weight decay to the gradient, where no factor transfers; use adamw."
            )
        own = self._overridden(weight)
        role = Role(str(own["role"])) if "role" in own else weight.role
        reference = self.base.weight(weight.name)
        optimizer, family = self._family(weight, role)
        fans, base_fans = _fans(weight, role), _fans(reference, role)
        factors = self._tied(weight, fans, self.rule(fans, family))
        ratio = (
            _over(factors, self._tied(weight, base_fans, self.rule(base_fans, family))) if self.relative else factors
        )
        ratio = self._placed(weight, role, ratio, family)
        start = 1.0 if self.own_init else ratio.init
        init, step, reason = self._scaled(weight, role, ratio, family)
        step *= float(own.get("lr", 1.0))
        if self.optimizer in ("muon", "spectral") and family == "orthogonal":
            step *= _built_in(self.optimizer, reference if self.relative else None) / _built_in(self.optimizer, weight)
        if self.optimizer == "adafactor" and not self.own_init:
            step /= init
        std, change = self._init(weight, reference, init * float(own.get("init", 1.0)), init / start)
        decay = weight_decay / step * float(own.get("weight_decay", 1.0))
        return WeightPlan(
            weight.name, role, reason if not own else f"{reason}; overridden", weight.shape, int(fans.fan_in),
            int(fans.fan_out), std, change, ratio.multiplier, lr * step, decay,
            eps * ratio.epsilon if self.relative else eps, optimizer, weight.value.requires_grad, weight.value,  # type: ignore[arg-type]
        )  # fmt: skip

    def say_wide_inputs(self) -> None:
        """A sign update changes outputs by rate times fan-in; what is uneven at the base stays so at every width."""
        hidden = [weight.fan_in for weight in self.base.weights if weight.role is Role.HIDDEN]
        if not self.relative or self.own_init or not hidden or family_of(self.optimizer) != "sign":
            return
        for weight in self.base.weights:
            ratio = weight.fan_in / median(hidden)
            if weight.role is Role.INPUT and ratio >= WIDE_INPUT and "lr" not in self._overridden(weight):
                self.notes.append(
                    f"{weight.name} has {weight.fan_in} inputs, hidden weights of the base {median(hidden):.4g}: at "
                    f"one rate it changes {ratio:.3g} times as much per step and may set the best rate alone; "
                    f"overrides={{'{weight.name}': {{'lr': {1 / ratio:.3g}}}}} evens that out."
                )

    def _overridden(self, weight: Weight) -> dict[str, float | str]:
        found: dict[str, float | str] = {}
        for pattern, settings in self.overrides.items():
            if any(fnmatchcase(name, pattern) for name in (weight.name, *weight.aliases)):
                found |= settings
        return found

    def _family(self, weight: Weight, role: Role) -> tuple[str, UpdateFamily]:
        family = family_of(self.optimizer)
        matrix = len(weight.shape) > 1 and role not in ROLES_WITH_ONE_HOT_INPUT
        matrix = matrix and (self.optimizer != "muon" or len(weight.shape) == 2)
        if family != "orthogonal" or (matrix and (role is Role.HIDDEN or self.optimizer != "muon")):
            return self.optimizer, family
        return "adamw", "sign"

    def tied_to_readout(self, weight: Weight) -> str | None:
        """Path of the module where an embedding is used as readout, None if it is not."""
        if weight.role is not Role.EMBEDDING:
            return None
        users = [node for node in self.program.users(weight.name) if "embedding" not in node.op]
        users = [node for node in users if any(op in node.op for op in ("linear", "matmul", "mm", "addmm"))]
        return users[-1].module_path if users else None

    def _tied(self, weight: Weight, fans: Fans, factors: Factors) -> Factors:
        """An embedding that is also the readout needs the readout's multiplier."""
        if self.own_init or self.tied_to_readout(weight) is None:
            return factors
        return replace(factors, multiplier=1 / fans.fan_out)

    def _placed(self, weight: Weight, role: Role, ratio: Factors, family: UpdateFamily) -> Factors:
        """Multipliers need a module whose input is the product's; else they are folded in, or left to the user."""
        if self.tied_to_readout(weight) is not None:
            ratio = replace(ratio, multiplier=ratio.multiplier / self.gamma)
        if ratio.multiplier == 1.0 or input_place(self.program, weight, role) is not None:
            return ratio
        if role is not Role.OUTPUT:
            self.notes.append(
                f"{weight.name} is also the readout, where no module takes its input; multiply that input by "
                f"{ratio.multiplier:.4g} in the model's own code."
            )
            return replace(ratio, multiplier=1.0)
        self.notes.append(f"no module takes the input of {weight.name}, so its multiplier is folded into its entries.")
        m, cost = ratio.multiplier, 2 if family == "gradient" else 1
        return Factors(ratio.init * m, 1.0, ratio.step * m**cost, ratio.epsilon / m)

    def _scaled(self, weight: Weight, role: Role, ratio: Factors, family: UpdateFamily) -> tuple[float, float, str]:
        """Init and step factors with depth and richness, and why."""
        init, step = 1.0 if self.own_init else ratio.init, ratio.step
        reason = _REASONS[role]
        if self.tied_to_readout(weight) is not None and not self.own_init:
            reason = "embedding tied to the readout: trained as an embedding, the readout divides by its fan-in"
        if weight.uses == 0:
            reason = "not used in the forward pass of the example"
            self.notes.append(f"{weight.name} is used in no forward pass; leave it out or give it a place.")
        if self.depth != (1.0, 1.0) and weight.name in self.branches.inside:
            last = weight.name in self.branches.last
            init, step = self._deep(init, step, family, last)
            reason += f"; {'ends' if last else 'inside'} a residual branch, times {self.depth[0]:.3g}"
        if self.gamma != 1.0:
            init, step = self._rich(init, step, family, role is Role.OUTPUT or weight.name in self.readout_biases)
        return init, step, reason

    def _deep(self, init: float, step: float, family: UpdateFamily, last: bool) -> tuple[float, float]:
        """Branch multiplier m, folded into the branch's last matrix; q is base depth over depth.

        The branches' updates add up coherently and each moves the stream by m times its own step (m^2 where the update
        is the gradient, which carries an m already), so that the sum keeps its size with a step of q / m (q / m^2).
        """
        m, q = self.depth
        cost = 2 if family == "gradient" else 1
        step *= q / m**cost
        return (init * m, step * m**cost) if last else (init, step)

    def _rich(self, init: float, step: float, family: UpdateFamily, readout: bool) -> tuple[float, float]:
        """Output over gamma (folded into the readout and its bias) and the learning rate's law."""
        depth = max(1, matrix_depth(self.program))
        power = 2.0 if self.gamma < 1 else 2.0 / depth
        law = self.gamma ** (power if family == "gradient" else power / 2)
        if readout:
            return init / self.gamma, step * law / self.gamma ** (2 if family == "gradient" else 1)
        return init, step * law

    def _init(self, weight: Weight, reference: Weight, factor: float, folded: float) -> tuple[float, float]:
        """Standard deviation to have, and what the present entries are multiplied by (the earlier call's included).

        Constant entries stay, except for what is `folded` into them from outside (depth).
        """
        applied, own, source = earlier_of(self.before, weight)[:3]
        if weight.init_std == 0.0:
            return 0.0, folded / applied
        if self.own_init and factor == 1.0:
            return weight.init_std, 1.0
        if self.own_init:
            return own * factor, factor / applied
        change = factor * _likely(reference.init_std, own, source, weight, reference) if self.relative else factor / own
        if abs(change / applied - 1) < 1e-6:
            return own * applied, 1.0
        return own * change, change / applied

    def scores(self) -> list[ScorePlan]:
        """Attention scores whose scale times the head size does not depend on the width: 1/d instead of 1/sqrt(d)."""
        found: list[ScorePlan] = []
        base = queries(self.base) if self.relative else []
        for index, query in enumerate(queries(self.program)):
            own = query.scale * query.head_size
            wanted = base[index].scale * base[index].head_size if index < len(base) else REFERENCE_HEAD**0.5
            factor = wanted / own
            if abs(factor - 1) < 1e-6 or (not base and abs(own - 1) < 1e-6):
                continue
            if not query.outside:
                self.notes.append(
                    f"attention scores at {query.module_path or 'the root'}: no module puts the queries out, so their "
                    f"scale cannot be set from outside; multiply them by {factor:.4g} in the model's own code."
                )
                continue
            found.append(ScorePlan(query.node, query.module_path, query.head_size, query.scale, factor, query.block))
        return found


_REASONS = {
    Role.INPUT: "finite fan-in, growing fan-out",
    Role.HIDDEN: "both fans grow",
    Role.OUTPUT: "growing fan-in, finite fan-out",
    Role.VECTOR: "one number per coordinate, as from a one-hot input",
    Role.EMBEDDING: "rows looked up: one-hot input",
    Role.FINITE: "no axis grows",
}


def _fans(weight: Weight, role: Role) -> Fans:
    one_hot = role in ROLES_WITH_ONE_HOT_INPUT
    return Fans(
        role,
        1.0 if one_hot else float(weight.fan_in),
        float(weight.fan_out),
        grows_in=role in (Role.HIDDEN, Role.OUTPUT),
        grows_out=role in (Role.HIDDEN, Role.INPUT, Role.VECTOR, Role.EMBEDDING),
    )


def _over(mine: Factors, base: Factors) -> Factors:
    return Factors(
        mine.init / base.init, mine.multiplier / base.multiplier, mine.step / base.step, mine.epsilon / base.epsilon
    )


def _built_in(optimizer: str, weight: Weight | None) -> float:
    """The scale that the optimiser itself puts on an orthogonalised update: by rows and columns, as the tensor lies."""
    if weight is None:
        return 1.0
    shape = (weight.shape[0] / prod(weight.shape[1:])) ** 0.5
    return max(1.0, shape) if optimizer == "muon" else (weight.fan_out / weight.fan_in) ** 0.5


def _likely(base: float, own: float, source: str, weight: Weight, reference: Weight) -> float:
    """Ratio of two initial scales, read as one of the usual laws (constant, fan-in) where the draws allow it."""
    measured = base / own
    if "measured" not in (source, reference.init_source):
        return measured
    spread = 4 * (1 / weight.value.numel() + 1 / reference.value.numel()) ** 0.5
    laws = (1.0, (weight.fan_in / reference.fan_in) ** 0.5)
    best = min(laws, key=lambda law: abs(measured / law - 1))
    return best if abs(measured / best - 1) < spread else measured
