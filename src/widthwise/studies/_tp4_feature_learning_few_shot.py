"""Few-shot learning of characters: the linear feature-learning limit, finite widths, and the kernel limits."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from widthwise.core import Axis, Figure, Line, Points
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._tp4_feature_learning_glyphs import FACES, glyph_pool
from widthwise.studies._types import Finding, Scale
from widthwise.theory import GradientLearner, KernelLearner, LinearLimit, draw_episodes, linear_kernel, meta_train
from widthwise.theory import relu_kernels as relu
from widthwise.theory.feature import Episodes, MetaLearner

WAYS, INNER = 5, 0.4  # the paper's; 1 inner step in training and 20 in the test, gradients clipped at 0.5
# Input scale and meta rate of each kind were chosen on 123 validation classes: (4, 8, 16) x (0.1, 0.4, 1, 1.6).
FEATURE, KERNEL = (8.0, 0.4), (4.0, 0.1)


def split() -> tuple[Tensor, Tensor]:
    """Classes to train on (60 %) and to test on (20 %); the rest chose the settings."""
    pool, _ = glyph_pool()
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))
    return pool[order[: int(0.6 * len(pool))]], pool[order[int(0.8 * len(pool)) :]]


def few_shot(scale: Scale) -> Outcome:
    """Meta-train every learner on the same tasks and test it on the same new ones."""
    full = scale == "full"
    steps, tasks, asked = (1000, 32, 1000) if full else (80, 12, 300)
    widths = (2, 8, 32, 128, 512) if full else (2, 16, 128)
    train, test = split()
    inputs = train.shape[2]
    gp, ntk = relu()

    def scores(learner: MetaLearner, setting: tuple[float, float]) -> np.ndarray:
        size, rate = setting
        meta_train(
            learner, lambda step: draw_episodes(size * train, tasks=tasks, seed=step), steps=steps, rate=rate,
            inner_rate=INNER,
        )  # fmt: skip
        return _right(learner, draw_episodes(size * test, tasks=asked, seed=10**6))

    def linear() -> LinearLimit:
        return LinearLimit(inputs, WAYS, sigma_v=1 / 32, bias=True)

    limit = scores(GradientLearner(linear()), FEATURE)
    kernels = {
        "ReLU NTK": scores(KernelLearner(ntk, WAYS), KERNEL),
        "ReLU NNGP": scores(KernelLearner(gp, WAYS), KERNEL),
        "linear kernel": scores(KernelLearner(linear_kernel, WAYS), KERNEL),
    }
    finite = {width: scores(GradientLearner(linear().sample(width)), FEATURE) for width in widths}
    detail = (
        f"{WAYS}-way 1-shot first-order MAML on {len(train)} characters in {len(FACES)} typefaces, {steps} steps of "
        f"{tasks} tasks; accuracy in % on {asked} tasks of {len(test)} other characters after 20 inner steps."
    )
    return [_against_kernels(limit, kernels, detail), _against_widths(limit, finite, detail)], {
        "few-shot": _figure(limit, kernels, finite)
    }


def _right(learner: MetaLearner, tasks: Episodes) -> np.ndarray:
    """Share of right answers in %, ``[tasks]``."""
    answers = learner.adapt(tasks, 20, INNER).argmax(-1)
    return 100 * (answers == tasks.query_labels).double().mean(1).numpy()


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5)


def _against_kernels(limit: np.ndarray, kernels: dict[str, np.ndarray], detail: str) -> Finding:
    """Holds where the limit beats each kernel by three standard errors of the paired difference."""
    gaps = [limit - values for values in kernels.values()]
    wins = all(gap.mean() > 3 * _error(gap) for gap in gaps)
    rows = [f"limit minus {name}" for name in kernels]
    found = f"Limit {limit.mean():.1f} %; paper on Omniglot: 66.4 % against 47.8, 47.6 and 41.7. "
    return compare(
        "few-shot-kernels", rows, [66.4 - 47.8, 66.4 - 47.6, 66.4 - 41.7], [gap.mean() for gap in gaps],
        found + detail, absolute=np.inf, uncertainty=[_error(gap) for gap in gaps], also=wins,
    )  # fmt: skip


def _against_widths(limit: np.ndarray, finite: dict[int, np.ndarray], detail: str) -> Finding:
    """Holds where wider is never worse by two standard errors, the narrowest is, and the widest reaches the limit."""
    runs: Sequence[np.ndarray] = [*finite.values(), limit]
    steps = [after - before for before, after in pairwise(runs)]
    rising = all(step.mean() > -2 * _error(step) for step in steps)
    whole, last = limit - runs[0], limit - runs[-2]
    ends = whole.mean() > 3 * _error(whole) and abs(last.mean()) < 1 + 2 * _error(last)
    rows = [*(f"width {width}" for width in finite), "infinite"]
    return compare(
        "few-shot-width", rows, [float(limit.mean())] * len(rows), [float(run.mean()) for run in runs],
        "Accuracy against the limit's. " + detail, absolute=np.inf, uncertainty=[_error(run) for run in runs],
        also=bool(rising and ends),
    )  # fmt: skip


def _figure(limit: np.ndarray, kernels: dict[str, np.ndarray], finite: dict[int, np.ndarray]) -> Figure:
    widths = floats(list(finite))
    ends = (widths[0], widths[-1])
    means, errors = ([f(v) for v in finite.values()] for f in (np.mean, _error))
    series: list[Points | Line] = [
        Points("linear muP network", widths, floats(means), floats(errors)),
        Line("its infinite width", ends, (float(limit.mean()),) * 2, slot=0),
    ]
    for slot, (name, values) in enumerate(kernels.items(), 1):
        series.append(Line(name, ends, (float(values.mean()),) * 2, slot=slot, dashed=True))
    caption = "Accuracy on characters never seen, one example of each of five; bars are standard errors over tasks."
    return Figure(
        "Few-shot learning needs features that move", Axis("width (units)", "log"),
        Axis("5-way 1-shot accuracy (%)"), tuple(series), caption,
    )  # fmt: skip


EXPERIMENTS = (few_shot,)
