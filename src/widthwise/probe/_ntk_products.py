"""Products with the empirical NTK, its trace and its largest eigenvalue, without the matrix."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Num
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.func import functional_call, jvp

from widthwise.core import ModelError, generator
from widthwise.probe._examples import ExampleGradients
from widthwise.probe._layer_contraction_capture import only_these_require_gradients
from widthwise.probe._layer_contraction_plan import refuse_coupled_examples, survey
from widthwise.probe._modules import (
    call,
    measuring,
    placed,
    refuse_broken,
    refuse_infinite,
    rows_that_fit,
    select_parameters,
)
from widthwise.probe._ntk import Outputs, heads, refuse_low_precision, two_examples
from widthwise.probe._ntk_jacobian import pieces

_CHUNK = 64
_FAILURES = (RuntimeError, NotImplementedError)


def ntk_vector_product(
    module: nn.Module,
    x1: Num[Tensor, "n1 *shape"],
    x2: Num[Tensor, "n2 *shape"] | None,
    v: Float[Tensor, "n2 *outputs"],
    *,
    outputs: Outputs = "full",
    chunk: int = _CHUNK,
    parameters: Iterable[str] | None = None,
) -> Float[Tensor, "n1 *outputs"]:
    """Product of the empirical NTK with a vector: ``J(x1) (J(x2)^T v)``, by one reverse and one forward derivative.

    Memory does not grow with the numbers of examples; time grows with their sum, not their product.

    Args:
        module, x1, x2: as in `empirical_ntk`; x2 None: x1.
        v: ``[n2, outputs]`` for ``outputs="full"``, else ``[n2]``.
        outputs: which kernel, as in `empirical_ntk`. ``"trace"`` takes one pair of derivatives for each output.
        chunk: examples at once.
        parameters: names to differentiate by; None: all that require a gradient.

    Returns:
        ``[n1, outputs]`` or ``[n1]``.

    Raises:
        DataError: as in `empirical_ntk`.
        ModelError: as in `empirical_ntk`, or `v` has another shape.

    >>> linear = nn.Linear(3, 2, bias=False)
    >>> x, v = torch.randn(4, 3), torch.randn(4, 2)
    >>> torch.allclose(ntk_vector_product(linear, x, None, v), x @ x.T @ v, atol=1e-4)
    True
    """
    products = _Products(module, x1, x2, outputs, chunk, parameters)
    expected = (len(products.x2), products.width) if outputs == "full" else (len(products.x2),)
    if tuple(v.shape) != expected:
        raise ModelError(f"v has shape {tuple(v.shape)} and outputs={outputs!r} takes {expected}; give that shape.")
    refuse_infinite(v, "v")
    return products(v.to(products.cotangents))


def ntk_largest_eigenvalue(
    module: nn.Module,
    x: Num[Tensor, "n *shape"],
    *,
    outputs: Outputs = "full",
    tolerance: float = 1e-6,
    chunk: int = _CHUNK,
    parameters: Iterable[str] | None = None,
    seed: int = 0,
) -> float:
    """Largest eigenvalue of the empirical NTK by Lanczos iteration (ARPACK), from products alone.

    For ``"full"`` the matrix is of ``(example, output)`` pairs. Gradient descent on half the squared error summed over
    examples and outputs is stable for a learning rate below 2 over this number.

    Args:
        module, x, outputs, chunk, parameters: as in `ntk_vector_product`.
        tolerance: relative accuracy.
        seed: of the starting vector.

    Raises:
        DataError: as in `empirical_ntk`.
        ModelError: as in `empirical_ntk`.

    >>> linear = nn.Linear(2, 1, bias=False)
    >>> round(ntk_largest_eigenvalue(linear, torch.eye(2) * torch.tensor([3.0, 1.0])), 4)
    9.0
    """
    products = _Products(module, x, None, outputs, chunk, parameters)
    shape = (len(products.x1), products.width) if outputs == "full" else (len(products.x1),)
    size = int(np.prod(shape))

    def multiply(vector: np.ndarray) -> np.ndarray:
        return products(torch.from_numpy(vector.reshape(shape)).to(products.cotangents)).double().cpu().numpy().ravel()

    if size == 1:
        return float(multiply(np.ones(1))[0])
    start = torch.randn(size, generator=generator(seed, "lanczos"), dtype=torch.float64).numpy()
    operator = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
    return float(eigsh(operator, k=1, which="LA", v0=start, tol=tolerance, return_eigenvectors=False)[0])


def ntk_trace(
    module: nn.Module,
    x: Num[Tensor, "n *shape"],
    *,
    outputs: Outputs = "full",
    chunk: int | None = None,
    parameters: Iterable[str] | None = None,
) -> float:
    """Trace of the empirical NTK, exactly: the sum of squared norms of the gradients, example by example.

    For ``"full"`` it is over ``(example, output)`` pairs; for ``"trace"`` it is that divided by the number of outputs.

    Args:
        module, x, outputs, parameters: as in `empirical_ntk`.
        chunk: examples at once; None: what fits in a quarter of the free memory, at most 64.

    Raises:
        DataError: as in `empirical_ntk`.
        ModelError: as in `empirical_ntk`.
        ResourceError: the gradients of one example do not fit in memory.

    >>> linear = nn.Linear(3, 2, bias=False)
    >>> round(ntk_trace(linear, torch.ones(4, 3)), 3)
    24.0
    """
    chosen = select_parameters(module, parameters)
    refuse_low_precision(chosen)
    refuse_broken(chosen)
    x = placed(module, x, "x")
    with measuring(module), torch.no_grad(), only_these_require_gradients(module, chosen):
        cotangents = heads(call(module, x[:1]), outputs)
        pair = two_examples(x, None)
        if pair is not None:
            refuse_coupled_examples(module, pair)
        plan = survey(module, chosen, pair) if pair is not None else None
        others = {name: chosen[name] for name in (chosen if plan is None else plan.others)}
        gradients = ExampleGradients(module, others, lambda values: cotangents @ values.reshape(-1))
        largest = max(tensor.numel() for tensor in chosen.values()) * len(cotangents) * cotangents.element_size()
        chunk = chunk or min(_CHUNK, rows_that_fit(2 * largest, x.device, "the gradients"))
        total = 0.0
        for rows in pieces(0, len(x), chunk):
            if others:
                total += sum(float(part.square().sum()) for part in gradients(x[rows]).values())
            if plan is None or not plan.weights:
                continue
            block = plan.block(chosen, x[rows])
            for cotangent in cotangents:
                slopes = block.slopes(cotangent[None], list(range(len(block.calls))))
                used = [weight for weight in plan.weights if weight.places]
                total += sum(float(weight.gradient(block, slopes, plan.layouts).square().sum()) for weight in used)
    return total


class _Products:
    """``v -> sum over heads of J1 J2^T v``, chunked over examples."""

    def __init__(
        self,
        module: nn.Module,
        x1: Tensor,
        x2: Tensor | None,
        outputs: Outputs,
        chunk: int,
        parameters: Iterable[str] | None,
    ) -> None:
        self.module, self.chunk, self.full = module, chunk, outputs == "full"
        self.parameters = select_parameters(module, parameters)
        refuse_low_precision(self.parameters)
        refuse_broken(self.parameters)
        self.x1 = placed(module, x1, "x1")
        self.x2 = self.x1 if x2 is None else placed(module, x2, "x2")
        with measuring(module), torch.no_grad():
            example = call(module, self.x1[:1])
            pair = two_examples(self.x1, self.x2)
            if pair is not None:
                refuse_coupled_examples(module, pair)
        self.width = example.shape[1]
        self.cotangents = heads(example, outputs)

    def __call__(self, v: Tensor) -> Tensor:
        with measuring(self.module), only_these_require_gradients(self.module, self.parameters):
            if self.full:
                return self._forward(self._reverse(v))
            columns = [self._forward(self._reverse(v[:, None] * head)) @ head for head in self.cotangents]
            return torch.stack(columns).sum(0)

    def _reverse(self, v: Tensor) -> dict[str, Tensor]:
        """``J(x2)^T v``."""
        total: list[Tensor] = []
        for rows in pieces(0, len(self.x2), self.chunk):
            with torch.enable_grad():
                outputs = call(self.module, self.x2[rows])
                parts = torch.autograd.grad(outputs, list(self.parameters.values()), v[rows], materialize_grads=True)
            total = [sum_ + part for sum_, part in zip(total, parts, strict=True)] if total else list(parts)
        return dict(zip(self.parameters, total, strict=True))

    def _forward(self, direction: dict[str, Tensor]) -> Tensor:
        """``J(x1) direction``."""
        values = {name: tensor.detach() for name, tensor in self.parameters.items()}
        parts = []
        for rows in pieces(0, len(self.x1), self.chunk):
            x = self.x1[rows]

            def outputs_of(parameters: dict[str, Tensor], x: Tensor = x) -> Tensor:
                return functional_call(self.module, parameters, (x,)).reshape(len(x), -1)

            try:
                with torch.no_grad():
                    parts.append(jvp(outputs_of, (values,), (direction,))[1])
            except _FAILURES:
                parts.append(self._twice_reversed(x, direction))
        return torch.cat(parts)

    def _twice_reversed(self, x: Tensor, direction: dict[str, Tensor]) -> Tensor:
        """The same for operations without forward derivative: the derivative of ``J^T u`` by ``u``."""
        with torch.enable_grad():
            outputs = call(self.module, x)
            u = torch.zeros_like(outputs, requires_grad=True)
            weights = list(self.parameters.values())
            pulled = torch.autograd.grad(outputs, weights, u, create_graph=True, materialize_grads=True)
            (pushed,) = torch.autograd.grad(pulled, u, list(direction.values()), materialize_grads=True)
        return pushed.detach()
