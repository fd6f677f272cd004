"""The feature-learning limit of multilayer perceptrons, trained: any depth, any activation, by sampling.

Source: Yang & Hu 2021 (arXiv:2011.14522), sections on the mean-field and maximal-update limits; the expectations over
coordinates are taken over samples. For linear networks the samples are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from widthwise.core import Value, all_finite, derived_seed, progress
from widthwise.numerics import Activation
from widthwise.scaling import AbcTable, classify, named_abc
from widthwise.theory.feature._abc_network import AbcNetwork, activation_of
from widthwise.theory.feature._errors import FeatureLimitError, at_least, positive
from widthwise.theory.feature._losses import Loss, loss_of, require_finite, value_and_errors
from widthwise.theory.feature._particles import Particles

When = Literal["trained", "initial"]


@dataclass(frozen=True)
class Estimate(Value):
    """Means over independent samples of the limit, and their standard errors (NaN from a single sample)."""

    mean: Float[Tensor, "..."]
    error: Float[Tensor, "..."]


@dataclass(frozen=True)
class Schedule:
    """What training did: the batch, the errors fed back and the rates of each step."""

    batches: tuple[Tensor, ...]  # [batch, inputs] each; batches may differ in size
    errors: tuple[Tensor, ...]  # [batch, outputs] each
    rates: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class FeatureLimit(Value):
    """A trained infinite-width network in the maximal update parametrisation. Call it for its outputs.

    Attributes:
        depth: hidden layers.
        activation: its name.
        sigma: standard deviation factors of the initial weights, one per layer.
        samples: coordinates per layer in each of the `replicates` independent copies.
        losses, loss_errors: ``[steps + 1]``, on the batch of each step and on the whole set at the end; means over
            copies and standard errors.
        movement: root mean square change of a coordinate of each hidden layer over the training inputs.
    """

    depth: int
    activation: str
    sigma: tuple[float, ...]
    samples: int
    replicates: int
    losses: Float[Tensor, "times"]
    loss_errors: Float[Tensor, "times"]
    movement: Float[Tensor, "layers"]
    schedule: Schedule = field(repr=False, metadata={"plain": False})
    _function: Activation = field(repr=False, metadata={"plain": False})
    _states: dict[str, list[Particles]] = field(repr=False, metadata={"plain": False})

    def __call__(self, x: Float[Tensor, "points inputs"], when: When = "trained") -> Estimate:
        """Outputs ``[points, outputs]`` at new inputs."""
        return _estimate([state.forward(x.double()).outputs for state in self._fresh(x, when)])

    def feature_kernel(self, x: Float[Tensor, "points inputs"], layer: int = -1, when: When = "trained") -> Estimate:
        """Mean over coordinates of ``x_l(x) x_l(x')``, ``[points, points]``, of hidden layer `layer`."""
        found = [state.forward(x.double()).after[layer] for state in self._fresh(x, when)]
        return _estimate([one.T @ one / self.samples for one in found])

    def network(self, width: int, seed: int = 0) -> AbcNetwork:
        """A finite network of the same kind before training, in double precision like the limit (muP: train it with
        ``torch.optim.SGD(net.parameter_groups(rate))``)."""
        first = self.schedule.batches[0].shape[1]
        table = named_abc("mup", self.depth)
        outputs = self.schedule.errors[0].shape[1]
        return AbcNetwork(
            first, width, outputs, table, self._function, sigma=self.sigma, seed=seed, dtype=torch.float64
        )

    def sample(self, width: int, seed: int = 0) -> AbcNetwork:
        """A finite network of any width drawn from the trained limit.

        Its initial weights are drawn and then moved by the limit's own errors rather than its own, so that each
        coordinate follows the law of the limit; its function differs from the limit by order ``width^-1/2``.

        Raises:
            FeatureLimitError: a width below 1.
        """
        net = self.network(width, seed)
        optimizer = torch.optim.SGD(net.parameter_groups(self.schedule.rates))
        for batch, errors in zip(self.schedule.batches, self.schedule.errors, strict=True):
            optimizer.zero_grad()
            (net(batch) * errors).sum().backward()
            optimizer.step()
        return net

    def _fresh(self, x: Tensor, when: When) -> list[Particles]:
        if when not in self._states:
            raise FeatureLimitError(f"when={when!r} is not known; give 'trained' or 'initial'.")
        inputs = self.schedule.batches[0].shape[1]
        if x.ndim != 2 or x.shape[1] != inputs or not all_finite(x):
            raise FeatureLimitError(
                f"the inputs have shape {list(x.shape)} or hold values that are not finite; give [points, {inputs}]."
            )
        return [state.frozen(index) for index, state in enumerate(self._states[when])]


def feature_limit(
    x: Float[Tensor, "samples inputs"],
    y: Tensor,
    *,
    depth: int = 1,
    activation: str | Activation = "tanh",
    steps: int = 10,
    rate: float | Sequence[float] = 0.1,
    loss: str | Loss = "square",
    batches: Sequence[Int[Tensor, "_"]] | None = None,
    outputs: int | None = None,
    sigma: Sequence[float] | None = None,
    parametrization: AbcTable | None = None,
    samples: int = 8192,
    replicates: int = 4,
    seed: int = 0,
) -> FeatureLimit:
    """Train a multilayer perceptron of infinite width in the maximal update parametrisation by gradient descent.

    Hidden layers ``h_1 = U x, h_l = W_l phi(h_(l-1))``, output ``E V phi(h_L)``, with U and V of variance sigma^2 and
    W_l of variance sigma^2 / width. Coordinates of a layer are independent in the limit; `samples` of them are
    followed, in `replicates` independent copies that give the standard errors. One hidden layer is the mean-field
    limit; hidden matrices act through the Z-calculus, Gaussian in what they have not met, exact in what they have.
    Linear networks of any depth come out exactly. Work grows like samples times (training points times steps)^2.

    Args:
        x, y: training set; y is ``[samples, outputs]`` for ``"square"`` and class indices for ``"cross-entropy"``.
        depth: hidden layers.
        rate: learning rate, one for all or one per layer (``depth + 1``), as for a muP network of any width.
        loss: ``"square"`` (``sum |f - y|^2 / 2N``), ``"cross-entropy"`` or a function of outputs and targets.
        batches: row indices of the batch of each step; by default the whole set at every step.
        outputs: number of outputs; by default y's columns, or its number of classes.
        sigma: one factor per layer; 1 by default, so scale inputs to order one.
        parametrization: checked: only muP and what is equivalent to it has this limit.

    Raises:
        FeatureLimitError: data that is not finite or of the wrong shape, a parametrisation without this limit, a
            rate at which training diverges, or too few samples for the number of steps.

    Source: arXiv:2011.14522; the recursion is equations Z^h = Zhat + Zdot + update of its training program.

    >>> x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> limit = feature_limit(x, x[:, :1], steps=3, rate=0.5, samples=256, replicates=2)
    >>> limit(x).mean.shape, bool(limit.losses[-1] < limit.losses[0]), limit.sample(32).width
    (torch.Size([4, 1]), True, 32)
    """
    at_least("depth", depth, 1, "the limit is about hidden layers")
    at_least("steps", steps, 1, "the untrained limit is zero")
    at_least("samples", samples, 16, "expectations are taken over them")
    at_least("replicates", replicates, 1, "two or more give standard errors")
    _require_maximal(parametrization, depth)
    x, y = _checked(x, y)
    function, criterion = activation_of(activation), loss_of(loss)
    factors = _per_layer("sigma", 1.0 if sigma is None else sigma, depth)
    rates = _per_layer("rate", rate, depth)
    size = outputs or (y.shape[1] if y.is_floating_point() else int(y.max()) + 1)
    rows = [torch.arange(len(x))] * steps if batches is None else list(batches)
    copies = [
        Particles((x.shape[1], size), factors, function, samples, derived_seed(seed, "copy", index))
        for index in range(replicates)
    ]
    first = [copy.forward(x) for copy in copies]
    start = [copy.frozen(index) for index, copy in enumerate(copies)]
    histories: list[list[float]] = [[] for _ in copies]
    fed: list[Tensor] = []
    with progress("steps of the feature-learning limit", float(len(rows))) as advance:
        for chosen in rows:
            errors = [
                _train_step(copy, x[chosen], y[chosen], criterion, rates, history)
                for copy, history in zip(copies, histories, strict=True)
            ]
            fed.append(torch.stack(errors).mean(0))
            advance(1)
    last = [copy.frozen(index).forward(x) for index, copy in enumerate(copies)]
    for done, history in zip(last, histories, strict=True):
        history.append(value_and_errors(criterion, done.outputs, y)[0])
        require_finite(history, rate)
    movement = torch.tensor(
        [
            [float((b - a).square().mean().sqrt()) for a, b in zip(one.after, other.after, strict=True)]
            for one, other in zip(first, last, strict=True)
        ],
        dtype=torch.float64,
    ).mean(0)
    losses = _estimate([torch.tensor(history, dtype=torch.float64) for history in histories])
    schedule = Schedule(tuple(x[chosen] for chosen in rows), tuple(fed), rates)
    return FeatureLimit(
        depth, function.name, factors, samples, replicates, losses.mean, losses.error, movement, schedule, function,
        {"trained": copies, "initial": start},
    )  # fmt: skip


def _train_step(
    copy: Particles, x: Tensor, y: Tensor, loss: Loss, rates: Sequence[float], history: list[float]
) -> Tensor:
    done = copy.forward(x)
    value, errors = value_and_errors(loss, done.outputs, y)
    history.append(value)
    require_finite(history, rates[0] if len(set(rates)) == 1 else rates)
    copy.step(done, errors, rates)
    return errors


def _estimate(found: Sequence[Tensor]) -> Estimate:
    table = torch.stack(list(found))
    error = table.std(0) / len(table) ** 0.5 if len(table) > 1 else torch.full_like(table[0], float("nan"))
    return Estimate(table.mean(0), error)


def _per_layer(name: str, value: float | Sequence[float], depth: int) -> tuple[float, ...]:
    values = (value,) * (depth + 1) if isinstance(value, (int, float)) else tuple(value)
    if len(values) != depth + 1:
        raise FeatureLimitError(f"{name} has {len(values)} entries and the network {depth + 1} layers; give one each.")
    if name == "rate":
        values = tuple(0.0 if one == 0 else positive(name, one) for one in values)
    return tuple(float(one) for one in values)


def _checked(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 2 or len(x) < 1 or len(y) != len(x) or (y.is_floating_point() and y.ndim != 2):
        raise FeatureLimitError(
            f"inputs {list(x.shape)} and targets {list(y.shape)} do not fit; give [samples, inputs] and [samples, "
            "outputs] (or one class index per sample)."
        )
    for name, values in (("inputs", x), ("targets", y)):
        if not all_finite(values):
            raise FeatureLimitError(f"the {name} hold values that are not finite; clean the data first.")
    return x.double(), y.double() if y.is_floating_point() else y


def _require_maximal(table: AbcTable | None, depth: int) -> None:
    """Only tables equivalent to muP have this limit; the classifier says what the others have."""
    if table is None:
        return
    if len(table.a) != depth + 1:
        raise FeatureLimitError(f"the parametrisation has {len(table.a)} layers and depth={depth} needs {depth + 1}.")
    report = classify(table)
    if report.folded == named_abc("mup", depth, table.family).folded and table.family == "gradient":
        return
    mend = {
        "unstable": f"its width limit does not exist ({'; '.join(report.reasons)})",
        "trivial": "its function does not move",
        "kernel": "its limit is kernel regression: use ww.infinite",
        "feature learning": "only some of its layers learn maximally",
    }[report.regime]
    raise FeatureLimitError(f"this parametrisation is of the regime {report.regime!r}: {mend}; give named_abc('mup').")
