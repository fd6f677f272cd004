"""Random features of the NTK of any network: gradients of finite networks, sketched."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, check_random_state
from torch import Tensor, nn

from widthwise.core import DataError, Value, evaluating, generator, progress, seeded
from widthwise.kernels.regression._nystrom import checked_inputs
from widthwise.kernels.store._source import as_tensor, numpy_type, torch_type
from widthwise.nn import build_model
from widthwise.probe import empirical_ntk, per_example_gradients
from widthwise.program import trace

_BYTES = 2**28  # of gradients held at once
_MEASURED = 16  # draws to measure an initial scale on that is no known rule's
Scale = Literal["ntk", "standard"]


@dataclass(frozen=True)
class FeatureError(Value):
    """Relative errors (Frobenius norm) of the inner products of features.

    Attributes:
        total: against the kernel that was asked about.
        sketch: against the mean of the empirical kernels of the drawn networks: what the sketch alone does.
        sketch_bound: root mean square over sketches of `sketch`, at most: ``sqrt((tr(K)^2 + |K|^2) / m) / |K|``.
        networks: standard error over draws of the mean of the empirical kernels; NaN for one draw.
    """

    total: float
    sketch: float
    sketch_bound: float
    networks: float


class GradientFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Random features of the NTK of any network that autograd differentiates: ``E F F' = K``, linear in the examples.

    Each draw initialises a network of finite width, takes the gradient of a random direction of its outputs for each
    example and adds its entries with random signs into ``n_components / draws`` random places (count sketch, Weinberger
    et al., arXiv:0902.2206). Over sketches and directions the mean of ``F F'`` is the mean of the draws' empirical
    kernels, without bias; the mean square of an entry's error is at most ``(k(x,x) k(x',x') + k(x,x')^2) / m`` for m
    features in all. Over initialisations the empirical kernels scatter like ``1 / sqrt(width * draws)`` around their
    mean, which differs from the infinite-width kernel by ``O(1 / width)``. `errors` measures all parts.

    Args:
        network: name of a built-in model, a function ``width -> module`` that initialises from PyTorch's global
            generator, or a module: then every draw is this very network and the kernel its own empirical NTK.
        n_components: number of features m.
        width: of the networks.
        draws: networks (for a module: sketches and directions of outputs).
        parametrization: ``"ntk"``: the kernel of ``W = sigma w / sqrt(fan-in)`` with w trained, each gradient times
            the standard deviation that its entries start with (where that is no known rule's, measured on some
            draws); ``"standard"``: the parameters as they are.
        dtype: float32 or float64.
        random_state: seed of networks, directions and sketches.

    >>> import numpy as np, widthwise as ww
    >>> x = np.random.default_rng(0).standard_normal((20, 5))
    >>> features = ww.kernels.GradientFeatures("mlp", n_components=3000, width=64, draws=3).fit(x)
    >>> features.transform(x).shape
    (20, 3000)
    """

    def __init__(
        self,
        network: Any = "mlp",
        n_components: int = 2000,
        *,
        width: int = 128,
        draws: int = 1,
        parametrization: str = "ntk",
        dtype: Any = "float64",
        random_state: int | None = 0,
    ) -> None:
        self.network = network
        self.n_components = n_components
        self.width = width
        self.draws = draws
        self.parametrization = parametrization
        self.dtype = dtype
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "GradientFeatures":
        """Draw networks and sketches for inputs of this shape (their values do not matter).

        Raises:
            DataError: an option is out of range.
            TraceError: ``parametrization="ntk"`` and the network cannot be traced.
        """
        X = checked_inputs(self, X, reset=True)
        for name in ("n_components", "width", "draws"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; give at least 1.")
        if self.draws > self.n_components:
            raise DataError(f"{self.draws} draws do not fit {self.n_components} features; give at least one each.")
        if self.parametrization not in get_args(Scale):
            raise DataError(f"parametrization {self.parametrization!r} is not known here; give ntk or standard.")
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.shape_ = tuple(X.shape[1:])
        module, example = self._draw(0), as_tensor(X)[:1]
        self.real_ = not example.is_floating_point() and not _takes_integers(module, example)
        example = self._read(X[:1])
        _Directed(module, generator(self.seed_, "check"), example)
        trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        ntk = self.parametrization == "ntk"
        self.scales_ = self._scales(module, trained, example) if ntk else dict.fromkeys(trained, 1.0)
        if not any(self.scales_.values()):
            raise DataError("no trained weight starts at random values; give parametrization='standard'.")
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "n features"]:
        """Features of inputs, block by block."""
        check_is_fitted(self)
        x = self._read(checked_inputs(self, X, reset=False))
        parts = []
        with progress("gradient features", float(self.draws), show=False) as advance:
            for draw in range(self.draws):
                parts.append(self._sketched(draw, x) / self.draws**0.5)
                advance(1)
        return torch.cat(parts, 1).numpy().astype(numpy_type(torch_type(self.dtype)), copy=False)

    def errors(self, X: Any, kernel: Callable[[Tensor], Tensor] | None = None, *, examples: int = 100) -> FeatureError:
        """What the features of the first examples are worth.

        Args:
            kernel: from inputs to the exact kernel ``[n, n]``, for example ``lambda x: limit(x).ntk``; None: the mean
                of the draws' empirical kernels.
        """
        part = X[:examples]
        found = self.transform(part).astype(np.float64)
        x = self._read(part)
        kernels = torch.stack([self._empirical(draw, x) for draw in range(self.draws)]).double().numpy()
        mean = kernels.mean(0)
        exact = mean if kernel is None else kernel(x).detach().double().numpy()
        size = float(np.linalg.norm(mean))
        spread = float(np.sqrt(kernels.var(0, ddof=1).sum() / self.draws)) if self.draws > 1 else float("nan")
        return FeatureError(
            total=float(np.linalg.norm(found @ found.T - exact) / np.linalg.norm(exact)),
            sketch=float(np.linalg.norm(found @ found.T - mean)) / size,
            sketch_bound=float(((np.trace(mean) ** 2 + size**2) / self.n_components) ** 0.5) / size,
            networks=spread / size,
        )

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def _read(self, x: Any) -> Tensor:
        """Inputs as the networks take them."""
        return as_tensor(x).to(torch_type(self.dtype)) if self.real_ else as_tensor(x)

    def _draw(self, draw: int) -> nn.Module:
        if isinstance(self.network, nn.Module):
            return self.network
        with seeded(self.seed_, "gradient features", draw, self.width):
            if isinstance(self.network, str):
                module = build_model(self.network, self.shape_, 1, self.width)
            elif callable(self.network):
                module = self.network(self.width)
            else:
                raise DataError(
                    f"a {type(self.network).__name__} is no network; give a module, a function of the width, or a name."
                )
        return module.to(torch_type(self.dtype))

    def _scales(self, module: nn.Module, trained: list[str], example: Tensor) -> dict[str, float]:
        """By trained parameter, the standard deviation that its entries start with."""
        example = _as(module, torch.cat([example, example]))
        weights = [weight for weight in trace(module, example).weights if weight.name in trained]
        found = {weight.name: float(weight.init_std) for weight in weights}
        measured = [weight.name for weight in weights if weight.init_source == "measured"]
        if measured and not isinstance(self.network, nn.Module):
            others = [dict(self._draw(draw).named_parameters()) for draw in range(max(_MEASURED, self.draws))]
            for name in measured:
                found[name] = float(torch.stack([other[name].detach() for other in others]).std(correction=0))
        return found

    def _directed(self, draw: int, x: Tensor) -> "_Directed":
        module = self._draw(draw)
        return _Directed(module, generator(self.seed_, "gradient features", "direction", draw), x)

    def _empirical(self, draw: int, x: Tensor) -> Tensor:
        """Kernel of one draw and direction."""
        module = self._directed(draw, x)
        return sum(
            (empirical_ntk(module, x, parameters=names) * scale**2 for scale, names in self._groups().items()),
            torch.zeros(()),
        )

    def _groups(self) -> dict[float, list[str]]:
        """Names of the parameters of each scale."""
        groups: dict[float, list[str]] = {}
        for name, scale in self.scales_.items():
            if scale:
                groups.setdefault(scale, []).append(f"inner.{name}")
        return groups

    def _sketched(self, draw: int, x: Tensor) -> Float[Tensor, "n features"]:
        """Sketched gradients of one draw."""
        module = self._directed(draw, x)
        count = self.n_components // self.draws + (draw < self.n_components % self.draws)
        weights = dict(module.named_parameters())
        tables = {}
        for name, scale in self.scales_.items():
            size = weights[f"inner.{name}"].numel()
            stream = generator(self.seed_, "gradient features", "sketch", draw, name)
            bucket = torch.randint(count, (size,), generator=stream)
            sign = torch.randint(2, (size,), generator=stream).to(torch_type(self.dtype)) * 2 - 1
            if scale:
                tables[f"inner.{name}"] = bucket, sign * scale
        numbers = sum(weights[name].numel() * weights[name].element_size() for name in tables)
        rows = []
        for part in x.split(max(1, _BYTES // (2 * numbers))):
            gradients = per_example_gradients(module, part, torch.zeros(len(part)), _value, parameters=tables)
            row = torch.zeros(len(part), count, dtype=torch_type(self.dtype))
            for name, (bucket, factors) in tables.items():
                values = gradients.pop(name).flatten(1).to(row) * factors
                row.scatter_add_(1, bucket.expand(len(part), -1), values)
            rows.append(row)
        return torch.cat(rows)


class _Directed(nn.Module):
    """One random direction ``u`` of a network's outputs, ``E u u^T = I / outputs``: the kernel's mean over outputs."""

    def __init__(self, inner: nn.Module, stream: torch.Generator, x: Tensor) -> None:
        super().__init__()
        self.inner = inner
        with torch.no_grad(), evaluating(inner):
            outputs = inner(_as(inner, x[:1])).flatten(1).shape[1]
        signs = torch.randint(2, (outputs,), generator=stream).to(next(inner.parameters()).dtype) * 2 - 1
        self.register_buffer("direction", signs / outputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x).flatten(1) @ self.direction).unsqueeze(1)


def _value(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs.sum()


def _as(module: nn.Module, x: Tensor) -> Tensor:
    """`x` in the module's floating-point type, if real."""
    return x.to(next(module.parameters()).dtype) if x.is_floating_point() else x


def _takes_integers(module: nn.Module, x: Tensor) -> bool:
    """Whether the module runs on whole numbers as they are: it looks them up."""
    try:
        with torch.no_grad(), evaluating(module):
            module(x)
    except (RuntimeError, TypeError, ValueError):
        return False
    return True


__all__ = ["FeatureError", "GradientFeatures"]
