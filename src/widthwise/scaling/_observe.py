"""What one run shows: sizes of activations, of their changes, of weights and their updates, and of attention scores."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from widthwise.program import Program, Role, Weight
from widthwise.scaling._multipliers import ScaledBlock, ScaledInput
from widthwise.scaling._structure import Query, queries

Sizes = dict[tuple[str, str], float]
"""(observable, place) -> size."""


class Cancellation:
    """Biases whose gradient is a sum that cancels: the sum's norm over that of the terms' magnitudes.

    The bias of the keys moves all scores of a query alike, so that its gradient is zero but for rounding.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._magnitudes: dict[str, Tensor] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record during a forward pass inside the block, and the backward pass of its result inside it too."""
        handles = [
            part.register_forward_hook(self._keep(path, 1 if part.bias.dim() == 1 and _is_convolution(part) else -1))
            for path, part in self._module.named_modules()
            if isinstance(getattr(part, "bias", None), nn.Parameter) and not list(part.children())
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, path: str, axis: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and output.requires_grad:
                others = [i for i in range(output.dim()) if i != axis % output.dim()]
                output.register_hook(lambda gradient: self._add(path, gradient.detach().abs().sum(others)))

        return hook

    def _add(self, path: str, terms: Tensor) -> None:
        self._magnitudes[path] = self._magnitudes.get(path, torch.zeros_like(terms)) + terms

    def sizes(self, program: Program) -> Sizes:
        """Ratios by bias, after the backward pass."""
        found: Sizes = {}
        for weight in program.weights:
            terms, gradient = self._magnitudes.get(weight.module_path), weight.value.grad
            if gradient is None or terms is None or not weight.name.endswith("bias") or gradient.shape != terms.shape:
                continue
            found["cancelled", weight.name] = float(gradient.norm() / terms.norm()) if terms.norm() > 0 else 1.0
        return found


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def rms(value: Tensor) -> float:
    """Root mean square."""
    return float(value.square().mean().sqrt())


def spectral_norm(matrix: Tensor, iterations: int = 40) -> float:
    """Largest singular value by power iteration (from below; 1 % for well-separated values)."""
    flat = matrix.detach().reshape(matrix.shape[0], -1).float()
    start = torch.ones(flat.shape[1]) + torch.linspace(0, 1, flat.shape[1])
    vector = start.to(flat) / start.norm()
    for _ in range(iterations):
        image = flat.T @ (flat @ vector)
        norm = image.norm()
        if not norm > 0:
            return 0.0
        vector = image / norm
    return float((flat @ vector).norm())


def natural_size(weight: Weight, value: Tensor) -> float:
    """Spectral norm over sqrt(fan_out / fan_in); root mean square of the entries of vectors and tables.

    Source: arXiv:2310.17813, condition 1; both sizes are of order one, for weights and updates, where features learn.
    """
    if weight.role in (Role.VECTOR, Role.EMBEDDING) or value.dim() < 2:
        return rms(value.detach().float())
    matrix = value if value.dim() != 3 or weight.module_type.startswith("Conv") else value[0]
    return spectral_norm(matrix) * (weight.fan_in / weight.fan_out) ** 0.5


def initial_size(weight: Weight, value: Tensor) -> float:
    """Root mean square of the singular values over sqrt(fan_out / fan_in), for initial matrices.

    Of the order of the spectral norm for random and orthogonal matrices, but without that norm's factor
    ``1 + sqrt(fan_in / fan_out)``, which makes a finite fan-in look like an exponent. Input matrices have as many as
    inputs, also where the width is below that: their outputs then keep their size while the singular values grow.
    """
    if weight.role in (Role.VECTOR, Role.EMBEDDING) or value.dim() < 2:
        return natural_size(weight, value)
    matrix = value if value.dim() != 3 or weight.module_type.startswith("Conv") else value[0]
    flat = matrix.detach().reshape(matrix.shape[0], -1).float()
    count = weight.fan_in if weight.role is Role.INPUT else min(flat.shape)
    return float(flat.norm()) / count**0.5 * (weight.fan_in / weight.fan_out) ** 0.5


def stable_rank(weight: Weight, value: Tensor) -> float | None:
    """Squared Frobenius norm over squared spectral norm of the matrix that `natural_size` takes; None for vectors."""
    if weight.role in (Role.VECTOR, Role.EMBEDDING) or value.dim() < 2:
        return None
    matrix = value if value.dim() != 3 or weight.module_type.startswith("Conv") else value[0]
    norm = spectral_norm(matrix)
    return float(matrix.detach().float().norm() / norm) ** 2 if norm > 0 else None


def update_ranks(program: Program, updates: dict[str, Tensor]) -> Sizes:
    """Stable ranks of the updates of matrices."""
    ranks = {w.name: stable_rank(w, updates[w.name]) for w in program.weights if w.role is not Role.FINITE}
    return {("rank", name): rank for name, rank in ranks.items() if rank is not None}


def multiplier_at(module: nn.Module, path: str) -> float:
    """The input multiplier that stands at a submodule."""
    hooks = module.get_submodule(path)._forward_pre_hooks.values()
    return next((hook.factor for hook in hooks if isinstance(hook, ScaledInput)), 1.0)


def readout_of_tied(program: Program, weight: Weight) -> str | None:
    """Path of the module where an embedding table is used as the readout."""
    users = [node for node in program.users(weight.name) if "embedding" not in node.op]
    if weight.role is not Role.EMBEDDING:
        return None
    return next((node.module_path for node in users if any(op in node.op for op in ("linear", "mm", "matmul"))), None)


def weight_sizes(module: nn.Module, program: Program, values: dict[str, Tensor], observable: str) -> Sizes:
    """Natural sizes of weights or updates, multipliers counted in; tied readouts stand on their own."""
    found: Sizes = {}
    for weight in program.weights:
        if weight.role is Role.FINITE:
            continue
        value = values[weight.name]
        path = readout_of_tied(program, weight)
        factor = 1.0 if weight.role in (Role.VECTOR, Role.EMBEDDING) else multiplier_at(module, weight.module_path)
        size = initial_size if observable == "weight" else natural_size
        found[observable, weight.name] = size(weight, value) * factor
        if path is not None:
            scale = (weight.fan_out / value.shape[0]) ** 0.5
            found[f"tied {observable}", weight.name] = spectral_norm(value) * scale * multiplier_at(module, path)
    return found


def score_factor(module: nn.Module, query: Query) -> float:
    """What the scores of one attention are multiplied by, hooks counted in."""
    hooks = module.get_submodule(query.module_path)._forward_hooks.values() if query.outside else ()
    return query.scale * next((hook.factor for hook in hooks if isinstance(hook, ScaledBlock)), 1.0)


def score_scales(module: nn.Module, program: Program) -> Sizes:
    """Scale of each attention's scores times its head size: the size of the scores of aligned queries and keys."""
    found = queries(program)
    return {("score scale", query.module_path): score_factor(module, query) * query.head_size for query in found}


def score_tensors(module: nn.Module, program: Program, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Attention scores ``scale q k'`` per attention from recorded queries and keys (rotations by position left out)."""
    found = {}
    for query in queries(program):
        if not query.outside:
            continue
        q, k = _heads(outputs, query.module_path, query.block, query), None
        if query.key_path is not None:
            k = _heads(outputs, query.key_path, query.key_block, query)
        if q is not None and k is not None and q.shape[2] % k.shape[2] == 0:
            k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
            found[query.module_path] = torch.einsum("bphd,bqhd->bhpq", q, k) * score_factor(module, query)
    return found


def _heads(outputs: dict[str, Tensor], path: str, block: tuple[float, float], query: Query) -> Tensor | None:
    value = outputs.get(path)
    if value is None or value.dim() < 2:
        return None
    size = value.shape[-1]
    value = value[..., round(block[0] * size) : round(block[1] * size)]
    if value.dim() == 4:
        return value if value.shape[-1] == query.head_size else None
    if value.dim() != 3 or value.shape[-1] % query.head_size:
        return None
    return value.reshape(*value.shape[:2], -1, query.head_size)


def alignments(program: Program, inputs: dict[str, Tensor], updates: dict[str, Tensor]) -> Sizes:
    """``|dW x| / (|dW| |x|)`` of plain linear layers: 1 where the update acts on its inputs with its full norm."""
    found: Sizes = {}
    for weight in program.weights:
        x, update = inputs.get(weight.module_path), updates[weight.name]
        if x is None or update.dim() != 2 or weight.role in (Role.VECTOR, Role.EMBEDDING):
            continue
        matrix = update.T if x.shape[-1] == update.shape[1] and weight.module_type != "Conv1D" else update
        norm = spectral_norm(update)
        if x.shape[-1] == matrix.shape[0] and norm > 0:
            found["alignment", weight.name] = float((x @ matrix.float()).norm() / (norm * x.norm()))
    return found
