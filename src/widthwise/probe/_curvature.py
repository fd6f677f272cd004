"""Largest curvature of the loss."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Num
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from widthwise.core import generator
from widthwise.probe._modules import placed, select_parameters


def largest_curvature(
    module: nn.Module,
    inputs: Num[Tensor, "n *shape"],
    targets: Num[Tensor, "n *outputs"],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    parameters: Iterable[str] | None = None,
    iterations: int = 100,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> float:
    """Largest eigenvalue of the Gauss-Newton matrix ``J^T H J`` of the loss, by power iteration.

    `J` is the Jacobian of the outputs, `H` the Hessian of the loss with respect to the outputs (arXiv:1412.1193,
    section 6). For ``mean of squared error summed over outputs`` it is ``2 / n`` times the largest eigenvalue of the
    empirical NTK matrix. It equals the Hessian's for a model that is linear in its parameters, and leaves out the
    residual term otherwise. Power iteration converges from below.

    The module is measured in the mode it is in, on one graph of all examples (memory grows with their number);
    buffers such as running means are restored.

    Args:
        module, inputs, targets: the network and the examples.
        loss: ``(outputs, targets) -> scalar``.
        parameters: names; None: all that require a gradient.
        iterations: at most.
        tolerance: stop when the estimate changes by less than this share twice in a row.
        seed: of the starting vector.

    Raises:
        DataError: an input is not finite.
        ModelError: a name is unknown.

    >>> x = torch.eye(2) * torch.tensor([3.0, 1.0])
    >>> half_mean_square = lambda outputs, targets: (outputs - targets).square().sum() / 2
    >>> model = nn.Linear(2, 1, bias=False)
    >>> round(largest_curvature(model, x, torch.zeros(2, 1), half_mean_square), 2)
    9.0
    """
    weights = list(select_parameters(module, parameters).values())
    inputs, targets = placed(module, inputs, "inputs"), placed(module, targets)
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            multiply = _gauss_newton(module(inputs), targets, loss, weights)
            return _power_iteration(multiply, weights, iterations, tolerance, seed)
    finally:
        with torch.no_grad():
            for name, value in module.named_buffers():
                value.copy_(buffers[name])


def _gauss_newton(
    outputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor], weights: list[Tensor]
) -> Callable[[list[Tensor]], list[Tensor]]:
    """Product with the Gauss-Newton matrix. ``J v`` is the derivative of ``J^T u`` by ``u``, in reverse mode."""
    u = torch.zeros_like(outputs, requires_grad=True)
    pulled = torch.autograd.grad(outputs, weights, u, create_graph=True, materialize_grads=True)
    detached = outputs.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss(detached, targets), detached, create_graph=True)

    def multiply(vector: list[Tensor]) -> list[Tensor]:
        (pushed,) = torch.autograd.grad(pulled, u, vector, retain_graph=True, materialize_grads=True)
        if slope.requires_grad:
            (pushed,) = torch.autograd.grad(slope, detached, pushed, retain_graph=True, materialize_grads=True)
        else:
            pushed = torch.zeros_like(pushed)
        return list(torch.autograd.grad(outputs, weights, pushed, retain_graph=True, materialize_grads=True))

    return multiply


def _power_iteration(
    multiply: Callable[[list[Tensor]], list[Tensor]], like: list[Tensor], iterations: int, tolerance: float, seed: int
) -> float:
    source = generator(seed, "power iteration")
    vector = [torch.randn(part.shape, generator=source).to(part) for part in like]
    estimate, calm = 0.0, 0
    for _ in range(iterations):
        norm = _norm(vector)
        if norm == 0.0 or norm != norm:
            return norm
        product = multiply([part / norm for part in vector])
        previous, estimate = estimate, _norm(product)
        vector = product
        calm = calm + 1 if abs(estimate - previous) <= tolerance * estimate else 0
        if calm == 2:
            break
    return estimate


def _norm(vector: list[Tensor]) -> float:
    return float(sum(part.double().square().sum() for part in vector)) ** 0.5
