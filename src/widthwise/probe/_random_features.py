"""Random-feature regression: only the last layer is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from widthwise.core import DataError, Value, generator, seeded
from widthwise.core import progress as progress_bar
from widthwise.probe._features import features


@dataclass(frozen=True)
class RandomFeatureTable(Value):
    """Measured test error of random-feature ridge regression.

    Attributes:
        widths: given to the factory.
        features: number of features at each width.
        sizes: numbers of training examples.
        ridges: ridge parameters delta.
        draws: independent draws of weights and training subsets.
        mse: mean over draws of the test mean squared error (summed over outputs).
        stderr: standard error of that mean; NaN for one draw.
    """

    widths: tuple[int, ...]
    features: tuple[int, ...]
    sizes: tuple[int, ...]
    ridges: tuple[float, ...]
    draws: int
    mse: Float[Tensor, "widths sizes ridges"]
    stderr: Float[Tensor, "widths sizes ridges"]


def random_feature_regression(
    build: Callable[[int], nn.Module],
    widths: Sequence[int],
    x_train: Num[Tensor, "pool *shape"],
    y_train: Float[Tensor, "pool outputs"],
    x_test: Num[Tensor, "test *shape"],
    y_test: Float[Tensor, "test outputs"],
    *,
    sizes: Sequence[int],
    ridges: Sequence[float],
    draws: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> RandomFeatureTable:
    """Freeze a random network, train its last layer by ridge regression, and measure the test error.

    With ``F`` the activations that enter the last layer and ``k`` their number, the kernel is ``Khat = F F^T / k`` and
    the prediction ``Khat(test, train) (Khat + delta I)^-1 y`` (arXiv:2311.14646, section 3): `delta` is added to
    ``Khat`` itself, not multiplied by the number of examples. No intercept is fitted. Each draw has its own weights
    and, for each size, its own random subset of the pool.

    Args:
        build: ``build(width)`` gives a module with a linear readout, initialised from PyTorch's global generator.
        widths: to try.
        x_train, y_train: the pool from which training subsets are drawn; targets as regression rows.
        x_test, y_test: held out.
        sizes: training-set sizes, each at most the pool's.
        ridges: values of delta; 0 is ridgeless (minimum-norm) regression.
        draws: repetitions.
        seed: of weights and subsets.
        progress: whether to show a bar.

    Raises:
        DataError: a size exceeds the pool, or a ridge is negative.
        ModelError: a module has no linear readout or does not take the inputs.

    >>> from widthwise.nn import mlp
    >>> x, y = torch.randn(20, 3), torch.randn(20, 1)
    >>> build = lambda width: mlp(width, input_shape=(3,), outputs=1)
    >>> random_feature_regression(build, [8], x, y, x, y, sizes=[5, 10], ridges=[0.1], draws=2).mse.shape
    torch.Size([1, 2, 1])
    """
    _check(len(x_train), sizes, ridges, draws)
    errors = torch.empty(draws, len(widths), len(sizes), len(ridges), dtype=torch.float64)
    counts = [0] * len(widths)
    with progress_bar("random features", float(draws * len(widths)), show=progress) as advance:
        for draw in range(draws):
            for w, width in enumerate(widths):
                with seeded(seed, "random features", draw, width):
                    module = build(width)
                train, test = (features(module, x).flatten(1).double().cpu() for x in (x_train, x_test))
                counts[w] = train.shape[1]
                for s, size in enumerate(sizes):
                    chosen = torch.randperm(len(train), generator=generator(seed, "subset", draw, size))[:size]
                    predicted = ridge_predictions(train[chosen], y_train[chosen].double().cpu(), test, ridges)
                    errors[draw, w, s] = (predicted - y_test.double().cpu()).square().sum(-1).mean(-1)
                advance(1)
    spread = errors.std(0) / draws**0.5 if draws > 1 else torch.full_like(errors[0], float("nan"))
    return RandomFeatureTable(
        tuple(widths), tuple(counts), tuple(sizes), tuple(float(r) for r in ridges), draws, errors.mean(0), spread
    )


def ridge_predictions(
    train: Float[Tensor, "n features"],
    targets: Float[Tensor, "n outputs"],
    test: Float[Tensor, "test features"],
    ridges: Sequence[float],
) -> Float[Tensor, "ridges test outputs"]:
    """Predictions of ridge regression with kernel ``F F^T / k``, for several ridges from one eigendecomposition.

    The smaller of the ``n x n`` and the ``k x k`` matrix is decomposed. At ridge 0, eigenvalues below
    ``max(n, k) * eps`` of the largest count as zero.

    >>> x = torch.eye(2, dtype=torch.float64)
    >>> ridge_predictions(x, x, x, [0.5])[0, 0, 0]  # (1/2) / (1/2 + 1/2)
    tensor(0.5000, dtype=torch.float64)
    """
    count = train.shape[1]
    dual = len(train) <= count
    gram = (train @ train.T if dual else train.T @ train) / count
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp(min=0.0)
    floor = float(values[-1]) * max(train.shape) * torch.finfo(values.dtype).eps
    left = test @ train.T if dual else test
    right = targets if dual else train.T @ targets
    left, right = left @ vectors / count, vectors.T @ right
    predictions = []
    for ridge in ridges:
        inverse = torch.where(values > floor, 1 / (values + ridge), 0.0) if ridge == 0 else 1 / (values + ridge)
        predictions.append((left * inverse) @ right)
    return torch.stack(predictions)


def _check(pool: int, sizes: Sequence[int], ridges: Sequence[float], draws: int) -> None:
    for size in sizes:
        if not 1 <= size <= pool:
            raise DataError(f"training size {size} does not fit a pool of {pool} examples; ask for 1 to {pool}.")
    for ridge in ridges:
        if not ridge >= 0:
            raise DataError(f"ridge {ridge} is not a number of at least 0; give 0 or a positive ridge.")
    if draws < 1:
        raise DataError(f"draws={draws} must be at least 1.")
