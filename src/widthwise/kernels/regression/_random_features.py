"""Random features of dense networks' kernels, whose cost does not grow with the number of examples squared."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, check_random_state
from torch import Tensor

from widthwise.core import DataError, UnsupportedOperation, generator
from widthwise.kernels._fields import Field, Image, Inputs, Offset, Product, Shared, Sum
from widthwise.kernels._limit import Limit, Parametrization
from widthwise.kernels.regression._inputs import source_of
from widthwise.kernels.regression._nystrom import checked_inputs
from widthwise.kernels.store._source import LimitSource, as_tensor, numpy_type, torch_type

_ROWS = 4096
Features = Tensor
"""``[n, m]``: inner products of rows approximate a kernel."""


class RandomFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Random features of the NTK (or NNGP kernel) of a dense network: ``E F F' = K`` for every layer's new draw.

    Moments of an activation come from random directions (for ReLU: arc-cosine features); the NTK's products of slopes
    and tangents from TensorSketch (Pham and Pagh, KDD 2013) in place of the full tensor product, as in NTK random
    features by sketching (arXiv:2106.07880). The relative error falls like ``n_components^(-1/2)``; `error` measures
    it.

    Args:
        kernel: ``"mlp"``, a module or a `Limit` of dense layers and elementwise activations in sequence.
        n_components: about the number of features (half for the last layer's moments, half for its tangents).
        kind, parametrization, dtype: as in `KernelRegressor`.
        random_state: seed of directions and sketches.

    >>> import numpy as np, widthwise as ww
    >>> x = np.random.default_rng(0).standard_normal((100, 5))
    >>> features = ww.kernels.RandomFeatures("mlp", n_components=4000).fit(x)
    >>> features.error(x) < 0.15
    True
    """

    limit_: Limit

    def __init__(
        self,
        kernel: Any = "mlp",
        n_components: int = 2000,
        *,
        kind: str = "ntk",
        parametrization: Parametrization = "ntk",
        dtype: Any = "float64",
        random_state: int | None = 0,
    ) -> None:
        self.kernel = kernel
        self.n_components = n_components
        self.kind = kind
        self.parametrization = parametrization
        self.dtype = dtype
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "RandomFeatures":
        """Draw directions and sketches for inputs of this shape (their values do not matter).

        Raises:
            UnsupportedOperation: the network is not dense and sequential; `GradientFeatures` and `NystromFeatures`
                take any.
            DataError: an option is out of range.
        """
        X = checked_inputs(self, X, reset=True)
        if self.n_components < 1:
            raise DataError(f"n_components is {self.n_components}; give at least 1 feature.")
        source = source_of(self.kernel, X, self.kind, torch_type(self.dtype), self.parametrization)
        if not isinstance(source, LimitSource):
            raise DataError("random features need a network; give a module or a Limit, or use NystromFeatures.")
        self.limit_ = source.limit
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._n_features_out = self._features(X[:1]).shape[1]
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "n features"]:
        """Features of inputs, block by block."""
        check_is_fitted(self)
        X = checked_inputs(self, X, reset=False)
        return np.concatenate([self._features(X[i : i + _ROWS]).numpy() for i in range(0, len(X), _ROWS)])

    def error(self, X: Any, *, examples: int = 300) -> float:
        """``|F F' - K| / |K|`` (Frobenius) on the first examples, against the exact kernel."""
        part = X[:examples]
        exact = LimitSource(self.limit_, (self.kind,), torch.float64)(part, None)[self.kind]
        found = self.transform(part).astype(np.float64)
        return float(np.linalg.norm(found @ found.T - exact) / np.linalg.norm(exact))

    def _features(self, x: Any) -> Features:
        dtype = torch_type(self.dtype)
        count = max(1, self.n_components // 2) if self.kind == "ntk" else self.n_components
        run = _Recursion(self.limit_, self.limit_._data(as_tensor(x)), count, self.seed_, dtype)
        moment, tangent = run.of(self.limit_.output)
        found = moment if self.kind == "nngp" else tangent
        if found is None:
            found = moment.new_zeros(len(moment), 1)
        return found.to(torch.float32 if numpy_type(dtype).itemsize == 4 else torch.float64)


class _Recursion:
    """Features of moments and of tangents of each field; every draw has a stream of its own, by its place."""

    def __init__(self, limit: Limit, data: dict[str, Tensor], count: int, seed: int, dtype: torch.dtype) -> None:
        self.limit, self.data, self.count, self.seed, self.dtype = limit, data, count, seed, dtype
        self.draws = 0

    def of(self, field: Field) -> tuple[Features, Features | None]:
        """Moment and tangent features."""
        if field.positions:
            raise _refuse(f"it has positions {list(field.positions)}")
        if isinstance(field, Inputs):
            rows = field.read(self.data[field.node]).to(self.dtype)
            return rows.reshape(len(rows), -1) / rows[0].numel() ** 0.5, None
        if isinstance(field, Product):
            return self._product(field)
        if isinstance(field, Shared) or (isinstance(field, Offset) and field.weight is not None and field.gaussian):
            return self._shared(field)
        if isinstance(field, Sum):
            return self._sum(field)
        if isinstance(field, Image) and field.source.gaussian:
            return self._image(field)
        raise _refuse(f"a {type(field).__name__.lower()} is not dense and sequential")

    def _product(self, field: Product) -> tuple[Features, Features | None]:
        moment, tangent = self.of(field.source)
        own = float(self.limit._contribution(field.weight, field.variance, field.contracted)) ** 0.5
        sigma = float(field.variance) ** 0.5
        parts = ([own * moment] if own else []) + ([] if tangent is None else [sigma * tangent])
        return sigma * moment, torch.cat(parts, 1) if parts else None

    def _shared(self, field: Shared | Offset) -> tuple[Features, Features | None]:
        """One number for all inputs: a bias, which may start at zero."""
        assert field.weight is not None
        variance = field.variance if isinstance(field, Shared) else 0.0
        one = next(iter(self.data.values()))
        column = torch.ones(len(one), 1, dtype=self.dtype)
        own = float(self.limit._contribution(field.weight, variance, 1)) ** 0.5
        return float(variance) ** 0.5 * column, own * column if own else None

    def _sum(self, field: Sum) -> tuple[Features, Features | None]:
        """Terms with weights of their own are independent: their features stand side by side."""
        terms = [term for _, term in field.terms]
        names = [term.weight.name for term in terms if isinstance(term, (Product, Shared, Offset)) and term.weight]
        if len(names) != len(terms) or len(set(names)) != len(names):
            raise _refuse("its sums are of terms that share weights, or of activations (skips)")
        found = [(scale, *self.of(term)) for scale, term in field.terms]
        tangents = [scale * tangent for scale, _, tangent in found if tangent is not None]
        return torch.cat([scale * moment for scale, moment, _ in found], 1), torch.cat(
            tangents, 1
        ) if tangents else None

    def _image(self, field: Image) -> tuple[Features, Features | None]:
        moment, tangent = self.of(field.source)
        directions = torch.randn(moment.shape[1], self.count, generator=self._stream(), dtype=torch.float64)
        seen = moment @ directions.to(self.dtype)
        scale = self.count**-0.5
        after = scale * field.activation.function(seen)
        if tangent is None:
            return after, None
        return after, tensor_sketch(tangent, scale * field.activation.derivative(seen), self.count, self._stream())

    def _stream(self) -> torch.Generator:
        self.draws += 1
        return generator(self.seed, "random features", self.draws)


def _refuse(reason: str) -> UnsupportedOperation:
    return UnsupportedOperation(
        "random features",
        "",
        f"{reason}, so take ww.kernels.GradientFeatures or ww.kernels.NystromFeatures for this network",
    )


def tensor_sketch(
    a: Float[Tensor, "n p"], b: Float[Tensor, "n q"], count: int, stream: torch.Generator
) -> Float[Tensor, "n m"]:
    """Sketch of the products ``a_i b_j``: ``E <s(a, b), s(c, d)> = <a, c> <b, d>`` (TensorSketch: two count sketches,
    convolved by FFT).
    """
    first, second = (torch.fft.rfft(_count_sketch(x, count, stream)) for x in (a, b))
    return torch.fft.irfft(first * second, n=count)


def _count_sketch(x: Tensor, count: int, stream: torch.Generator) -> Tensor:
    bucket = torch.randint(count, (x.shape[1],), generator=stream)
    sign = torch.randint(2, (x.shape[1],), generator=stream).to(x.dtype) * 2 - 1
    return torch.zeros(len(x), count, dtype=x.dtype).index_add_(1, bucket, x * sign)
