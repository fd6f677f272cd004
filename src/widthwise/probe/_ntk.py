"""The empirical neural tangent kernel of a finite network."""

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from widthwise.core import ModelError, OutputError, progress
from widthwise.probe._examples import ExampleGradients
from widthwise.probe._layer_contraction_capture import only_these_require_gradients
from widthwise.probe._layer_contraction_plan import Plan, refuse_coupled_examples, survey
from widthwise.probe._modules import call, measuring, placed, refuse_broken, select_parameters
from widthwise.probe._ntk_jacobian import JacobianTiles, Tile, transposed
from widthwise.probe._ntk_layers import LayerTiles

Outputs = Literal["trace", "full", "sum"] | int
Method = Literal["auto", "layers", "jacobian"]
_LOW = (torch.float16, torch.bfloat16)


def empirical_ntk(
    module: nn.Module,
    x1: Num[Tensor, "n1 *shape"],
    x2: Num[Tensor, "n2 *shape"] | None = None,
    *,
    outputs: Outputs = "trace",
    method: Method = "auto",
    chunk: int | None = None,
    parameters: Iterable[str] | None = None,
    out: Tensor | np.ndarray | None = None,
) -> Float[Tensor, "n1 n2"] | Float[Tensor, "n1 n2 out out"]:
    r"""Empirical neural tangent kernel of a network as it is.

    ``full[i, j, a, b] = sum_p  d f_a(x1[i]) / d theta_p  *  d f_b(x2[j]) / d theta_p`` (arXiv:1806.07572, section 4),
    over the parameters as they are, without any learning-rate factor. ``"trace"`` is the mean over ``a = b``: the
    trace divided by the number of outputs, so that it converges to the infinite-width kernel *per output*.

    Where the module applies its parameters by known operations (linear, convolution, embedding, normalisation,
    sums and products), the sum is taken layer by layer from activations and slopes, in the cheaper of two orders
    (arXiv:2206.08720, section 3), and no Jacobian exists at any time. Parameters used otherwise take Jacobians.
    Which is which is found out on two examples and checked there against autograd.

    The module is measured in evaluation mode and left as it was. With ``x2=None`` only half is computed.

    Args:
        module: gives one row of outputs per example (further axes are flattened).
        x1, x2: inputs; moved to the module's device and, if real, to its floating-point type.
        outputs: ``"trace"``; ``"full"``; a number ``a``: ``full[:, :, a, a]``; ``"sum"``: the kernel of
            ``sum_a f_a / sqrt(outputs)``, the pseudo-NTK of arXiv:2206.12543, which costs one backward pass.
        method: ``"layers"`` demands the sum layer by layer for all parameters, ``"jacobian"`` forms Jacobians.
        chunk: examples in a block of rows or columns; None: what a quarter of the free memory holds, at most 2 GiB.
            The result does not depend on it beyond rounding.
        parameters: names to differentiate by; None: all that require a gradient.
        out: where to write, for example a `numpy.memmap`; memory then does not grow with ``n1 * n2``.

    Returns:
        ``[n1, n2]``, or ``[n1, n2, outputs, outputs]``, on the module's device, in its floating-point type; with `out`
        a tensor on the memory of `out`.

    Raises:
        DataError: an input is not finite.
        ModelError: the module does not take the inputs, couples the examples of a batch, or is in half precision; a
            parameter is not finite; a name is unknown; ``method="layers"`` and a parameter is used in an unknown way.
        OutputError: `out` has another shape, or is not of a floating-point type.
        ResourceError: the gradients of one example do not fit in memory.

    >>> linear = nn.Linear(3, 2, bias=False)
    >>> x = torch.randn(4, 3)
    >>> torch.allclose(empirical_ntk(linear, x), x @ x.T, atol=1e-5)
    True
    """
    if method not in ("auto", "layers", "jacobian"):
        raise ModelError(f"method={method!r} is no way to compute the kernel; give 'auto', 'layers' or 'jacobian'.")
    chosen = select_parameters(module, parameters)
    refuse_low_precision(chosen)
    refuse_broken(chosen)
    x1 = placed(module, x1, "x1")
    x2 = None if x2 is None else placed(module, x2, "x2")
    with measuring(module), torch.no_grad():
        cotangents = heads(call(module, x1[:1]), outputs)
        pair = two_examples(x1, x2)
        if pair is not None:
            refuse_coupled_examples(module, pair)
        target = _target(out, len(x1), len(x1 if x2 is None else x2), cotangents, full=outputs == "full")
        with only_these_require_gradients(module, chosen):
            plan = survey(module, chosen, pair) if pair is not None and method != "jacobian" else None
            _check_method(method, plan)
            engines = _engines(module, chosen, plan, cotangents, chunk, full=outputs == "full")
            _fill(target, engines, x1, x2)
    return target


def heads(example: Tensor, outputs: Outputs) -> Tensor:
    """``[heads, outputs]``: combinations of outputs whose kernels are summed, or paired.

    Raises:
        ModelError: `outputs` is none of the choices.
    """
    width = example.shape[1]
    eye = torch.eye(width, dtype=example.dtype, device=example.device)
    if outputs == "trace":
        return eye / width**0.5
    if outputs == "full":
        return eye
    if outputs == "sum":
        return torch.full_like(example[:1], width**-0.5)
    if isinstance(outputs, int) and not isinstance(outputs, bool) and 0 <= outputs < width:
        return eye[outputs : outputs + 1]
    raise ModelError(
        f"outputs={outputs!r} is no kind of empirical kernel; give 'trace', 'full', 'sum' or a number below {width}."
    )


def refuse_low_precision(parameters: dict[str, Tensor]) -> None:
    """Raises:
    ModelError: a parameter is in half precision.
    """
    for name, tensor in parameters.items():
        if tensor.dtype in _LOW:
            raise ModelError(
                f"parameter '{name}' is {str(tensor.dtype).removeprefix('torch.')}, too coarse for sums of products of "
                "gradients; give module.float()."
            )


def two_examples(x1: Tensor, x2: Tensor | None) -> Tensor | None:
    """The first example and, of the first few, the one most unlike it; None if there is no second one."""
    few = x1[:32] if x2 is None else torch.cat([x1[:32], x2[:32]])
    if len(few) < 2:
        return None
    distance = (few[1:] != few[:1]).flatten(1).sum(1) if few[0].numel() else torch.zeros(len(few) - 1)
    other = 1 + int(distance.argmax())
    return few[[0, other]]


def _check_method(method: Method, plan: Plan | None) -> None:
    if method != "layers":
        return
    if plan is None:
        raise ModelError(
            "method='layers' needs two examples and a module that runs on batches without looking at values; "
            "give method='auto'."
        )
    if plan.others:
        raise ModelError(
            f"method='layers' has no rule for the use of parameter '{plan.others[0]}'; give method='auto', which forms "
            "Jacobians for such parameters."
        )


def _engines(
    module: nn.Module,
    chosen: dict[str, Tensor],
    plan: Plan | None,
    cotangents: Tensor,
    chunk: int | None,
    *,
    full: bool,
) -> list[LayerTiles | JacobianTiles]:
    engines: list[LayerTiles | JacobianTiles] = []
    others = list(chosen) if plan is None else plan.others
    if plan is not None and plan.weights:
        engines.append(LayerTiles(plan, chosen, cotangents, chunk, full=full))
    if others:
        rest = {name: chosen[name] for name in others}
        gradients = ExampleGradients(module, rest, lambda values: cotangents @ values.reshape(-1))
        engines.append(JacobianTiles(gradients, len(cotangents), chunk, full=full))
    return engines


def _target(out: Tensor | np.ndarray | None, rows: int, columns: int, cotangents: Tensor, *, full: bool) -> Tensor:
    shape = (rows, columns, len(cotangents), len(cotangents)) if full else (rows, columns)
    if out is None:
        return cotangents.new_empty(shape)
    if tuple(out.shape) != shape:
        raise OutputError(f"out has shape {tuple(out.shape)} and the kernel {shape}; give an array of that shape.")
    target = out if isinstance(out, Tensor) else torch.from_numpy(out)
    if not target.is_floating_point():
        raise OutputError(f"out is of type {target.dtype}; give an array of a floating-point type.")
    return target


def _fill(target: Tensor, engines: list[LayerTiles | JacobianTiles], x1: Tensor, x2: Tensor | None) -> None:
    pairs = len(x1) * (len(x1) + 1) / 2 if x2 is None else len(x1) * len(x2)
    with progress("empirical NTK", pairs * len(engines)) as advance:
        for number, engine in enumerate(engines):
            for rows, columns, tile in _as(target, engine(x1, x2)):
                _put(target, rows, columns, tile, add=number > 0)
                if x2 is None and rows != columns:
                    _put(target, columns, rows, transposed(tile), add=number > 0)
                advance(_pairs(rows, columns, half=x2 is None and rows == columns))


def _as(target: Tensor, tiles: Iterator[Tile]) -> Iterator[Tile]:
    return ((rows, columns, tile.to(target)) for rows, columns, tile in tiles)


def _put(target: Tensor, rows: slice, columns: slice, tile: Tensor, *, add: bool) -> None:
    if add:
        target[rows, columns] += tile
    else:
        target[rows, columns] = tile


def _pairs(rows: slice, columns: slice, *, half: bool) -> float:
    n, m = rows.stop - rows.start, columns.stop - columns.start
    return n * (n + 1) / 2 if half else n * m
