"""Optimisers whose learning rate is a change of features: spectral descent and Muon; and Lion."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from widthwise.core import ModelError
from widthwise.nn._optimizers_orthogonal import block_sizes, newton_schulz
from widthwise.nn._optimizers_shapes import Kind, Scale, from_matrices, to_matrices, update_scale

Direction = Literal["orthogonal", "spectral", "frobenius"]
Parameters = Iterable[Any]

_PRECISION = {"match": None, "float32": torch.float32, "bfloat16": torch.bfloat16}


class SpectralDescent(Optimizer):
    """Steepest descent in the natural spectral norm: every matrix moves by exactly `lr` in it, at every shape.

    ``W <- (1 - lr * weight_decay) W - lr * sqrt(fan_out / fan_in) * D(M)``, where M is the momentum of the gradients
    and D makes its spectral norm one. Inputs of root mean square one then change a layer's outputs by at most `lr` in
    root mean square, and by about that where the update is aligned with them: one learning rate for all widths.

    Vectors (biases, norm gains) are matrices of one column, with fan-in one: they move by `lr` in root mean square.
    Parameters without a gradient are skipped. Nothing is read back from the device, so the step can be captured in a
    CUDA graph (with `lr` a tensor where it changes).

    Args:
        params: parameters, or groups; every argument below can be set by group.
        lr: relative change of features per step.
        momentum: share of the old momentum that stays, in [0, 1).
        nesterov: whether the gradient is mixed in once more.
        weight_decay: decoupled, times `lr`.
        direction: ``"orthogonal"`` (all singular values one, by Newton-Schulz), ``"spectral"`` (divided by the
            spectral norm, by a singular value decomposition) or ``"frobenius"`` (divided by the Frobenius norm, an
            upper bound of the spectral one that is tight for gradients of low rank).
        scale: ``"spectral"``, ``"muon"``, ``"rms"`` or ``"none"``, see the source of `Muon`.
        steps, polish: of `newton_schulz`; with two polishing steps the norm is right to 0.1 %.
        precision: of `newton_schulz`: ``"float32"``, ``"bfloat16"``, or ``"match"`` the parameter.
        kind: how a tensor is a matrix: ``"linear"`` (first axis out, all others in: convolutions too),
            ``"transposed"`` (in, out), ``"embedding"`` (each row a vector, as its input is one-hot), ``"experts"`` (one
            matrix for each index of the first axis) or ``"taps"`` (one for each position of a convolution's filter).
        blocks: number (or sizes) of the blocks of rows that are matrices of their own, as in packed q, k and v.
        vectors: ``"column"`` or ``"refuse"`` tensors of fewer than two axes.
        eps: smallest norm that is divided by.

    Raises:
        ModelError: a setting out of range; a vector where they are refused; a sparse or complex gradient.

    Source: arXiv:2310.17813, condition 1 and section 5.

    >>> weight = torch.nn.Parameter(torch.zeros(8, 2))
    >>> optimizer = SpectralDescent([weight], lr=0.1)
    >>> (weight * torch.arange(16.0).reshape(8, 2)).sum().backward()
    >>> optimizer.step()
    >>> round((torch.linalg.matrix_norm(weight.detach(), ord=2) * (2 / 8) ** 0.5).item(), 3)  # natural norm of the step
    0.1
    """

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 0.1,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        direction: Direction = "orthogonal",
        scale: Scale = "spectral",
        steps: int = 5,
        polish: int = 2,
        precision: Literal["match", "float32", "bfloat16"] = "float32",
        kind: Kind = "linear",
        blocks: int | Sequence[int] = 1,
        vectors: Literal["column", "refuse"] = "column",
        eps: float = 1e-7,
    ) -> None:
        blocks = blocks if isinstance(blocks, int) else tuple(blocks)
        defaults = {
            "lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay,
            "direction": direction, "scale": scale, "steps": steps, "polish": polish, "precision": precision,
            "kind": kind, "blocks": blocks, "vectors": vectors, "eps": eps,
        }  # fmt: skip
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its settings and shapes are checked."""
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except ModelError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure` re-evaluates the model and returns the loss, which is returned."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.numel():
                    self._move(parameter, _dense(parameter), group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[parameter], group["momentum"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        mixed = gradient.lerp(buffer, momentum) if group["nesterov"] else buffer
        update = from_matrices(_unit_update(to_matrices(mixed, group["kind"]), group), parameter, group["kind"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_((update * group["lr"]).to(parameter.dtype))


class Muon(SpectralDescent):
    """Momentum orthogonalised by five quintic Newton-Schulz steps in bfloat16, for hidden matrices and convolutions.

    The same steps as `torch.optim.Muon`, which takes matrices only; here convolutions are flattened to
    ``(out, -1)``, packed matrices have `blocks`, experts their own matrices, and vectors are refused (train them, the
    embedding and the readout with AdamW). Singular values of the update are in about [0.68, 1.14]; `precision`,
    `polish` and the other arguments of `SpectralDescent` change that.

    Args:
        params: parameters or groups.
        lr: the update's spectral norm before `scale`.
        weight_decay: decoupled, times `lr`.
        scale: ``"muon"``: sqrt(max(1, fan_out / fan_in)); ``"rms"``: 0.2 sqrt(max(fan_out, fan_in)), for learning
            rates tuned with AdamW; ``"spectral"``: sqrt(fan_out / fan_in), smaller where fan-out is below fan-in.
        options: of `SpectralDescent`.

    Source: K. Jordan, "Muon" (2024); arXiv:2502.16982 for ``"rms"``.

    >>> convolution = torch.nn.Conv2d(3, 8, 3, bias=False)
    >>> Muon(convolution.parameters()).param_groups[0]["momentum"]
    0.95
    """

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 0.02,
        *,
        weight_decay: float = 0.0,
        scale: Scale = "muon",
        **options: Any,
    ) -> None:
        settings: dict[str, Any] = {"polish": 0, "precision": "bfloat16", "vectors": "refuse"} | options
        super().__init__(params, lr, weight_decay=weight_decay, scale=scale, **settings)


class Lion(Optimizer):
    """Sign of an interpolated momentum: ``W <- W - lr (sign(b1 m + (1 - b1) g) + weight_decay W)``, then
    ``m <- b2 m + (1 - b2) g``.

    Updates have entries of size one, so its learning rates scale as Adam's do (1 / fan-in for hidden matrices).

    Args:
        params: parameters or groups.
        lr: size of each entry's step.
        betas: (b1, b2).
        weight_decay: decoupled, times `lr`.

    Raises:
        ModelError: a setting out of range; a sparse or complex gradient.

    Source: arXiv:2302.06675, algorithm 2.

    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> optimizer = Lion([weight], lr=0.5)
    >>> (weight * torch.tensor([3.0, -0.1])).sum().backward()
    >>> optimizer.step()
    >>> weight.tolist()
    [-0.5, 0.5]
    """

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        for name, value in (("betas[0]", betas[0]), ("betas[1]", betas[1])):
            _require(0 <= value < 1, name, value, "give a number of 0 or more below 1")
        _require_rates(lr, weight_decay)
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure` re-evaluates the model and returns the loss, which is returned."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient, state = _dense(parameter), self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(gradient)
                buffer = state["momentum_buffer"]
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(buffer.lerp(gradient, 1 - first).sign_() * group["lr"])
                buffer.lerp_(gradient, 1 - second)
        return loss


def _unit_update(matrices: Tensor, group: dict[str, Any]) -> Tensor:
    """Every matrix and block in the group's direction with its scale, ``[..., fan_out, fan_in]``."""
    if group["blocks"] == 1:
        return _scaled_direction(matrices, group)
    parts = matrices.split(block_sizes(matrices.shape[-2], group["blocks"]), dim=-2)
    return torch.cat([_scaled_direction(part, group) for part in parts], dim=-2)


def _scaled_direction(matrices: Tensor, group: dict[str, Any]) -> Tensor:
    rows, cols = matrices.shape[-2:]
    scale = update_scale(rows, cols, group["scale"])
    if group["kind"] == "taps":
        scale /= matrices.shape[0]
    if group["direction"] == "orthogonal" and min(rows, cols) > 1:
        direction = newton_schulz(
            matrices, group["steps"], polish=group["polish"], dtype=_PRECISION[group["precision"]], eps=group["eps"]
        )
        return direction * scale
    wide = matrices.float() if matrices.dtype in (torch.bfloat16, torch.float16) else matrices
    if group["direction"] == "spectral" and min(rows, cols) > 1:
        norm = torch.linalg.matrix_norm(wide, ord=2, keepdim=True)
    else:  # exact for one row or column, in every direction
        norm = wide.norm(dim=(-2, -1), keepdim=True)
    return wide / norm.clamp(min=group["eps"]) * scale


def _check(group: dict[str, Any]) -> None:
    _require_rates(group["lr"], group["weight_decay"])
    _require(0 <= group["momentum"] < 1, "momentum", group["momentum"], "give a number of 0 or more below 1")
    _require(group["steps"] >= 1, "steps", group["steps"], "give 1 or more")
    _require(group["polish"] >= 0, "polish", group["polish"], "give 0 or more")
    choices = {
        "direction": get_args(Direction), "scale": get_args(Scale), "kind": get_args(Kind), "precision": _PRECISION,
        "vectors": ("column", "refuse"),
    }  # fmt: skip
    for name, known in choices.items():
        _require(group[name] in known, name, repr(group[name]), f"give one of {', '.join(known)}")
    for parameter in group["params"]:
        if parameter.ndim < 2 and group["vectors"] == "refuse":
            raise ModelError(
                f"a parameter of shape {tuple(parameter.shape)} is not a matrix; train it with AdamW, or give "
                "vectors='column'."
            )
        if parameter.numel() and parameter.ndim >= 2:
            block_sizes(to_matrices(parameter, group["kind"]).shape[-2], group["blocks"])


def _require_rates(lr: float | Tensor, weight_decay: float) -> None:
    if not isinstance(lr, Tensor):
        _require(0 <= lr < float("inf"), "lr", lr, "give a finite number of 0 or more")
    _require(0 <= weight_decay < float("inf"), "weight_decay", weight_decay, "give a finite number of 0 or more")


def _require(condition: bool, name: str, value: object, mend: str) -> None:
    if not condition:
        raise ModelError(f"{name} is {value}; {mend}.")


def _dense(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    assert gradient is not None
    if gradient.is_sparse or gradient.is_complex():
        raise ModelError(
            f"the gradient of a parameter of shape {tuple(parameter.shape)} is sparse or complex; use a dense real one "
            "(sparse=False in embeddings), or torch.optim.SparseAdam."
        )
    return gradient


def _evaluate(closure: Callable[[], Any] | None) -> Any:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
