"""Training a linearised network on losses that have no closed form.

Outputs are ``f = f_0 + T a`` with ``da/dt = -rate dL/df``: only `a` is integrated, on training and test inputs alike.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.special import expit, softmax
from torch import Tensor

from widthwise.core import DataError, generator

Loss = str | Callable[[Tensor, Tensor], Tensor]
Gradient = Callable[[np.ndarray, np.ndarray], np.ndarray]

_NAMED: dict[str, Gradient] = {
    "cross-entropy": lambda f, y: softmax(f, axis=1) * y.sum(1, keepdims=True) - y,
    "logistic": lambda f, y: expit(f) - y,
    "squared": lambda f, y: f - y,
}


def gradient_of(loss: Loss, example_factor: float) -> Gradient:
    """``dL/df`` as a function of outputs and targets ``[n, k]``.

    Raises:
        DataError: no loss has that name.
    """
    if isinstance(loss, str):
        if loss not in _NAMED:
            raise DataError(f"loss={loss!r} is not known; give {', '.join(map(repr, _NAMED))} or a function.")
        named = _NAMED[loss]
        return lambda f, y: example_factor * named(f, y)

    def gradient(f: np.ndarray, y: np.ndarray) -> np.ndarray:
        outputs = torch.tensor(f, requires_grad=True)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(loss(outputs, torch.tensor(y)), outputs)
        return slope.numpy()

    return gradient


def evolve(
    gram: np.ndarray, targets: np.ndarray, initial: np.ndarray, loss: Loss, example_factor: float,
    times: np.ndarray, rate: float, tolerance: float,
) -> np.ndarray:  # fmt: skip
    """`a` at every time, ``[times, n, k]``."""
    gradient, shape = gradient_of(loss, example_factor), targets.shape

    def velocity(_: float, state: np.ndarray) -> np.ndarray:
        return -rate * gradient(initial + gram @ state.reshape(shape), targets).ravel()

    order = np.unique(times)
    end = float(order[-1])
    if end == 0.0:
        return np.zeros((len(times), *shape))
    solver = "LSODA" if targets.size <= 400 else "RK45"  # stiff only where its dense Jacobian is affordable
    found = solve_ivp(
        velocity, (0.0, end), np.zeros(targets.size), solver, t_eval=order, rtol=tolerance, atol=tolerance * 1e-3
    )
    if not found.success:
        raise DataError(f"the integrator stopped: {found.message}; ask for shorter times or a smaller rate.")
    return found.y.T.reshape(len(order), *shape)[np.searchsorted(order, times)]


def simulate(
    gram: np.ndarray, targets: np.ndarray, initial: np.ndarray, loss: Loss, example_factor: float,
    steps: np.ndarray, rate: float, momentum: float, batch_size: int | None, seed: int,
) -> np.ndarray:  # fmt: skip
    """`a` after every number of steps, ``[times, n, k]``."""
    count = len(targets)
    if batch_size is not None and not 1 <= batch_size <= count:
        raise DataError(f"batch_size={batch_size} does not fit {count} examples; give 1 to {count}.")
    if batch_size is not None and not isinstance(loss, str):
        raise DataError("minibatches need a named loss, which is a sum over examples; leave batch_size out.")
    gradient = gradient_of(loss, example_factor)
    amounts, velocity = np.zeros_like(targets), np.zeros_like(targets)
    batches = _batches(count, batch_size, seed)
    kept, wanted = {}, set(steps.tolist())
    for step in range(int(steps.max()) + 1):
        if step in wanted:
            kept[step] = amounts.copy()
        chosen = next(batches)
        outputs = initial[chosen] + gram[chosen] @ amounts
        velocity *= momentum
        velocity[chosen] += gradient(outputs, targets[chosen]) * (count / len(targets[chosen]))
        amounts = amounts - rate * velocity
    return np.stack([kept[int(step)] for step in steps])


def _batches(count: int, size: int | None, seed: int) -> Iterator[Any]:
    """Indices of one minibatch after another, each epoch shuffled anew; a remainder is left out."""
    source = generator(seed, "minibatches")
    while True:
        if size is None or size == count:
            yield slice(None)
            continue
        order = torch.randperm(count, generator=source).numpy()
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]
