"""What a hyperparameter law is, what it says of a run, and the bowl that prices a miss."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from widthwise.core import DataError, Value, WidthwiseError

Interval = tuple[float, float]


@dataclass(frozen=True)
class Run(Value):
    """The size of a training run, in raw units (no millions).

    Attributes:
        params: parameters without embeddings and output vocabulary matrix (of a mixture of experts: all of them).
        tokens: training tokens.
        loss: target loss in nats per token, for the laws that take it.
        compute: training FLOPs without embeddings; 6 params tokens where it is not given.
    """

    params: float
    tokens: float
    loss: float | None = None
    compute: float | None = None

    def __post_init__(self) -> None:
        for name, least, example in (("params", 1e3, "7e9"), ("tokens", 1e3, "1.4e12")):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise DataError(
                    f"{name}={value!r} is no raw count; give it without millions or billions, as {example}."
                )
        for name in ("loss", "compute"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise DataError(f"{name}={value!r} must be a positive number.")

    @property
    def flops(self) -> float:
        """Training FLOPs: `compute`, or 6 params tokens."""
        return 6 * self.params * self.tokens if self.compute is None else self.compute


@dataclass(frozen=True)
class Bowl(Value):
    """Curvature of the log loss around its optimum: ln L - ln L* = (lr x^2 + 2 cross x y + batch y^2) / 2, where x and
    y are the logarithms of learning rate and batch over their optima.

    >>> bowl = Bowl(lr=0.02, batch=0.01, cross=-0.008)
    >>> round(bowl.excess(2.0, 1.0), 5), round(bowl.ridge, 3)
    (0.00482, 0.4)
    """

    lr: float
    batch: float
    cross: float

    @property
    def convex(self) -> bool:
        """Whether both eigenvalues are positive."""
        return self.lr > 0 and self.lr * self.batch > self.cross**2

    @property
    def ridge(self) -> float:
        """How the best learning rate moves when the batch is held elsewhere: d ln lr / d ln batch."""
        return -self.cross / self.lr

    def excess(self, lr_ratio: float, batch_ratio: float) -> float:
        """Relative loss above the optimum at multiples of the best learning rate and batch."""
        x, y = math.log(lr_ratio), math.log(batch_ratio)
        return math.expm1((self.lr * x * x + 2 * self.cross * x * y + self.batch * y * y) / 2)

    def factors(self, excess: float) -> tuple[float, float]:
        """By which factor the learning rate alone, and the batch alone, may be off while the loss rises by `excess`."""
        reach = 2 * math.log1p(excess)
        return math.exp((reach / self.lr) ** 0.5), math.exp((reach / self.batch) ** 0.5)


@dataclass(frozen=True)
class Domain(Value):
    """What a law was fitted on: ranges of params, tokens, tokens per parameter. None: not a quantity of this law."""

    params: Interval | None = None
    tokens: Interval | None = None
    ratio: Interval | None = None

    def outside(self, run: Run) -> dict[str, float]:
        """By which factor each quantity lies outside its range; quantities inside are left out.

        >>> Domain(params=(1e8, 1e9)).outside(Run(7e9, 1e11))
        {'params': 7.0}
        """
        values = {"params": run.params, "tokens": run.tokens, "tokens per parameter": run.tokens / run.params}
        ranges = dict(zip(values, (self.params, self.tokens, self.ratio), strict=True))
        factors = {name: max(r[0] / values[name], values[name] / r[1]) for name, r in ranges.items() if r is not None}
        return {name: factor for name, factor in factors.items() if factor > 1 + 1e-9}


@dataclass(frozen=True)
class Advice(Value):
    """What a law says of one run.

    Attributes:
        lr: peak learning rate; None where the law has none.
        batch_tokens, batch_sequences, steps: batch per step and number of steps; None where the law has no batch.
        lr_interval, batch_interval: 95 %, the batch in tokens; None where no cloud of fits is known.
        lr_plateau, batch_plateau: what each alone may be (batch in tokens) before the loss rises by `plateau`; None
            where the curvature is not known.
        plateau: relative rise of the loss that defines them.
        warnings: why the numbers may not hold.
    """

    law: str
    run: Run
    sequence_length: int
    lr: float | None
    batch_tokens: float | None
    batch_sequences: float | None
    steps: float | None
    lr_interval: Interval | None
    batch_interval: Interval | None
    lr_plateau: Interval | None
    batch_plateau: Interval | None
    plateau: float
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.law}: {self.run.params:.4g} parameters, {self.run.tokens:.4g} tokens"]
        if self.lr is not None:
            lines.append(f"  learning rate {self.lr:.4g}{_ranges(self.lr_interval, self.lr_plateau, self.plateau)}")
        if self.batch_tokens is not None:
            ranges = _ranges(self.batch_interval, self.batch_plateau, self.plateau)
            lines.append(f"  batch {self.batch_tokens:.4g} tokens{ranges}")
            lines.append(f"  = {self.batch_sequences:.4g} sequences of {self.sequence_length}; {self.steps:.4g} steps")
        return "\n".join([*lines, *(f"  warning: {warning}" for warning in self.warnings)])


def _ranges(interval: Interval | None, plateau: Interval | None, excess: float) -> str:
    text = f", 95 % {interval[0]:.4g} to {interval[1]:.4g}" if interval else ""
    return text + (f", within {excess:.2%} of the loss {plateau[0]:.3g} to {plateau[1]:.3g}" if plateau else "")


@dataclass(frozen=True)
class Law(Value):
    """A rule for the peak learning rate and the batch (in tokens per step) of a training run.

    Attributes:
        name: key in `LAWS`.
        source: paper.
        formula: both rules, in words and symbols.
        provenance: how far the constants are known, and which misprints were mended.
        domain: what it was fitted on.
        lr_rule, batch_rule: of a `Run`; None where the law has none. They may return None for lack of an argument.
        interval_rule: 95 % intervals of learning rate and batch.
        bowl: curvature of the loss, where it is known.
        caution: warnings that always apply.
        needs_loss: whether the batch is a function of the target loss.
    """

    name: str
    source: str
    formula: str
    provenance: str
    domain: Domain
    lr_rule: Callable[[Run], float | None] | None = field(metadata={"plain": False}, repr=False)
    batch_rule: Callable[[Run], float | None] | None = field(metadata={"plain": False}, repr=False)
    interval_rule: Callable[[Run], tuple[Interval, Interval]] | None = field(
        default=None, metadata={"plain": False}, repr=False
    )
    bowl: Bowl | None = None
    caution: tuple[str, ...] = ()
    needs_loss: bool = False

    def predict(
        self,
        params: float,
        tokens: float,
        sequence_length: int = 2048,
        *,
        loss: float | None = None,
        compute: float | None = None,
        plateau: float = 0.0025,
    ) -> Advice:
        """Learning rate, batch and steps for a run, with intervals and warnings.

        Args:
            params: parameters without embeddings, raw count.
            tokens: training tokens, raw count.
            sequence_length: tokens per sequence.
            loss: target loss in nats per token (OpenAI, MiniCPM).
            compute: FLOPs without embeddings (DeepSeek); 6 params tokens where it is not given.
            plateau: relative rise of the loss that bounds the plateaus.

        Raises:
            DataError: an argument is no raw count, or not positive.
        """
        run = Run(float(params), float(tokens), loss, compute)
        if sequence_length < 1:
            raise DataError(f"sequence_length={sequence_length} must be at least 1.")
        if not 0 < plateau < 1:
            raise DataError(f"plateau={plateau} is a relative rise of the loss; give a number between 0 and 1.")
        lr = None if self.lr_rule is None else self.lr_rule(run)
        batch = None if self.batch_rule is None else self.batch_rule(run)
        lr_interval, batch_interval = self.interval_rule(run) if self.interval_rule else (None, None)
        lr_plateau, batch_plateau = self._plateaus(lr, batch, plateau)
        return Advice(
            self.name,
            run,
            sequence_length,
            lr,
            batch,
            None if batch is None else batch / sequence_length,
            None if batch is None else tokens / batch,
            lr_interval,
            batch_interval,
            lr_plateau,
            batch_plateau,
            plateau,
            self._warnings(run, lr, batch, sequence_length),
        )

    def _plateaus(
        self, lr: float | None, batch: float | None, excess: float
    ) -> tuple[Interval | None, Interval | None]:
        if self.bowl is None or not self.bowl.convex:
            return None, None
        by_lr, by_batch = self.bowl.factors(excess)
        return (
            None if lr is None else (lr / by_lr, lr * by_lr),
            None if batch is None else (batch / by_batch, batch * by_batch),
        )

    def _warnings(self, run: Run, lr: float | None, batch: float | None, sequence_length: int) -> tuple[str, ...]:
        found = [
            f"{name} lies a factor {factor:.3g} outside what {self.name} was fitted on"
            for name, factor in self.domain.outside(run).items()
        ]
        if self.needs_loss and run.loss is None:
            found.append(f"the batch of {self.name} is a function of the target loss; give loss=")
        if self.lr_rule is not None and lr is None:
            found.append(f"the learning rate of {self.name} is not positive at this size")
        if batch is not None and batch < sequence_length:
            found.append("the batch is less than one sequence")
        if batch is not None and batch > run.tokens:
            found.append("the batch is more than all the tokens")
        return (*found, *self.caution)


def require_number(name: str, value: float | None, law: str) -> float:
    """A number that a law must have given.

    Raises:
        WidthwiseError: it gave none.
    """
    if value is None:
        raise WidthwiseError(f"{law} gives no {name} for this run; name another law or give what it needs (loss=).")
    return value
