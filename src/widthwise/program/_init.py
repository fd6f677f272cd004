"""Which rule a weight was initialised with, told from its entries."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import torch
from scipy.special import ndtr
from torch import Tensor, nn

_ERRORS = 4.0  # standard errors allowed for mean and standard deviation
_KOLMOGOROV = 2.28  # sqrt(n) D that a true law exceeds as rarely as four standard errors
_SAMPLE = 100_000  # entries that the distribution test looks at
_ENOUGH = 1024  # entries from which a rule can be told without knowing the module's own: std within 9 %


@dataclass(frozen=True)
class Init:
    """Mean and standard deviation of the entries as drawn, and the name of the rule or "measured"."""

    mean: float
    std: float
    source: str


@dataclass(frozen=True)
class Law:
    """A distribution that a tensor may have been drawn from: ``"uniform"``, ``"normal"`` or ``"constant"``."""

    source: str
    family: str
    std: float = 0.0
    mean: float = 0.0

    def fits(self, entries: Tensor) -> bool:
        """Whether mean, standard deviation, bound and distribution agree within chance."""
        if self.family == "constant":
            return bool((entries == self.mean).all())
        count = entries.numel()
        excess = -1.2 if self.family == "uniform" else 0.0
        std_error = self.std * sqrt((2 + excess) / (4 * count))
        measured = entries.std(correction=0).item()
        if abs(entries.mean().item() - self.mean) > _ERRORS * self.std / sqrt(count):
            return False
        if abs(measured - self.std) > _ERRORS * std_error + self.std / count:
            return False
        if self.family == "uniform" and entries.abs().max().item() > self.std * sqrt(3) * (1 + 1e-6):
            return False
        return self._distance(entries) * sqrt(min(count, _SAMPLE)) < _KOLMOGOROV

    def _distance(self, entries: Tensor) -> float:
        """Kolmogorov's distance between the entries and the law."""
        ordered = entries[:: max(1, entries.numel() // _SAMPLE)].sort().values / self.std
        if self.family == "normal":
            level = torch.from_numpy(ndtr(ordered.numpy()))
        else:
            level = (ordered / sqrt(12) + 0.5).clamp(0, 1)
        steps = torch.arange(1, len(level) + 1, dtype=level.dtype) / len(level)
        return max((steps - level).max().item(), (level - steps).max().item() + 1 / len(level))


def recognise(value: Tensor, owner: nn.Module, name: str, config: Any = None) -> Init:
    """The rule that the entries of a parameter agree with, else what was measured on them.

    The default of the owning module's type is tried first, then the initial scale in a `transformers` config, then
    the common rules (LeCun, He, Glorot, normal 0.02 and 1). A common rule counts only where the tensor has at least
    1024 entries and all rules that agree have one standard deviation.

    Args:
        value: the parameter.
        owner: the module that holds it.
        name: its name in that module.
        config: the model's configuration, where it has one.
    """
    if value.numel() == 0 or value.device.type == "meta" or not (value.is_floating_point() or value.is_complex()):
        return Init(float("nan"), float("nan"), "not initialised" if value.device.type == "meta" else "not floating")
    entries = _entries(value.detach(), owner)
    if bool((entries == entries[0]).all()) and entries.numel() + _default_is_constant(owner, name) > 1:
        return Init(entries[0].item(), 0.0, "constant")
    for law in (*_defaults(value, owner, name), *_configured(config)):
        if law.fits(entries):
            return Init(law.mean, law.std, law.source)
    if entries.numel() >= _ENOUGH:
        fitting = [law for law in _common(value, owner) if law.fits(entries)]
        if fitting and max(law.std for law in fitting) <= (1 + 1e-9) * min(law.std for law in fitting):
            return Init(0.0, fitting[0].std, " = ".join(law.source for law in fitting))
    return Init(entries.mean().item(), entries.std(correction=0).item(), "measured")


def _entries(value: Tensor, owner: nn.Module) -> Tensor:
    """The drawn entries as a flat float64 vector; the zeroed padding row of an embedding is left out."""
    padding = getattr(owner, "padding_idx", None)
    if padding is not None and value.dim() == 2 and len(value) > 1 and not bool(value[padding].any()):
        value = torch.cat([value[:padding], value[padding + 1 :]])
    return (value.abs() if value.is_complex() else value).double().flatten().cpu()


def _default_is_constant(owner: nn.Module, name: str) -> bool:
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)
    return isinstance(owner, norms) or (name.endswith("bias") and isinstance(owner, nn.MultiheadAttention))


def _uniform(source: str, bound: float) -> Law:
    return Law(source, "uniform", bound / sqrt(3))


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Fans as `torch.nn.init` counts them."""
    taps = prod(shape[2:])
    return (shape[1] * taps, shape[0] * taps) if len(shape) > 1 else (shape[0] if shape else 1, 1)


def _defaults(value: Tensor, owner: nn.Module, name: str) -> Iterator[Law]:
    """What the constructor of the module's type draws from (see the `torch.nn` documentation)."""
    if isinstance(owner, (nn.Linear, nn.modules.conv._ConvNd)) and isinstance(owner.weight, Tensor):
        known = nn.Linear if isinstance(owner, nn.Linear) else type(owner)
        yield _uniform(_default(known), 1 / sqrt(_fans(tuple(owner.weight.shape))[0]))
    elif isinstance(owner, (nn.Embedding, nn.EmbeddingBag)):
        yield Law("nn.Embedding default", "normal", 1.0)
    elif isinstance(owner, (nn.RNNBase, nn.RNNCellBase)):
        yield _uniform(_default(type(owner)), 1 / sqrt(owner.hidden_size))
    elif isinstance(owner, nn.Bilinear):
        yield _uniform(_default(nn.Bilinear), 1 / sqrt(owner.in1_features))
    elif isinstance(owner, nn.MultiheadAttention) and value.dim() == 2:
        yield _uniform(_default(nn.MultiheadAttention), sqrt(6 / sum(value.shape)))
    elif isinstance(owner, nn.MultiheadAttention) and name.startswith("bias_"):
        yield Law(_default(nn.MultiheadAttention), "normal", sqrt(2 / sum(_fans(tuple(value.shape)))))


def _default(module_type: type[nn.Module]) -> str:
    return f"nn.{module_type.__name__} default"


def _configured(config: Any) -> Iterator[Law]:
    """The initial scale of a `transformers` configuration, with GPT-2's smaller one for residual projections."""
    scale = getattr(config, "initializer_range", None)
    if not isinstance(scale, (int, float)) or scale <= 0:
        return
    yield Law(f"normal, initializer_range {scale:g}", "normal", float(scale))
    layers = getattr(config, "num_hidden_layers", None) or getattr(config, "n_layer", None)
    if isinstance(layers, int) and layers > 0:
        yield Law(f"normal, initializer_range {scale:g}/sqrt(2 layers)", "normal", scale / sqrt(2 * layers))


def _common(value: Tensor, owner: nn.Module) -> list[Law]:
    """Rules of `torch.nn.init` and of widely used models that do not follow the module's default."""
    laws = [Law("normal, std 0.02", "normal", 0.02), Law("normal, std 1", "normal", 1.0)]
    if value.dim() < 2 or isinstance(owner, (nn.Embedding, nn.EmbeddingBag)):
        return laws
    fan_in, fan_out = _fans(tuple(value.shape))
    if type(owner).__name__ == "Conv1D":  # transformers' transposed linear layer
        fan_in, fan_out = fan_out, fan_in
    for family in ("normal", "uniform"):
        laws.append(Law(f"LeCun {family}", family, sqrt(1 / fan_in)))
        laws.append(Law(f"He fan-in {family}", family, sqrt(2 / fan_in)))
        laws.append(Law(f"He fan-out {family}", family, sqrt(2 / fan_out)))
        laws.append(Law(f"Glorot {family}", family, sqrt(2 / (fan_in + fan_out))))
    return [*laws, _uniform("uniform, bound 1/sqrt(fan-in)", 1 / sqrt(fan_in))]
