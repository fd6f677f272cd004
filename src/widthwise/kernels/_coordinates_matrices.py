"""Random matrices as one coordinate sees them: jointly Gaussian products, and what a transpose adds to them.

Products of one matrix are drawn one after another, each given all earlier ones, so that no use is ever a fresh matrix.
Where the matrix was used transposed before, the product also holds a part along what it was multiplied with then
(dialect T of the tensor programs: sheet, section 2.3).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from widthwise.core import UnsupportedOperation
from widthwise.kernels._fields import Sizes

Normals = Callable[[int], Tensor]
"""``normals(k)``: fresh standard normal coordinates, ``[M, k]``."""

SMALLEST = 1e-10
"""Directions whose share of the largest variance is smaller count as determined by the others."""


class NoTranspose(Exception):
    """The transposed use of a matrix has no rule here; says why."""


@dataclass(frozen=True)
class Track:
    """A field at the samples of one coordinate.

    Attributes:
        value: ``[M, n, *P]``.
        tangent: its derivative along one random direction of the trained parameters, None for zero.
        features: for data, the numbers themselves, ``[n, prod(P), d]``, whose mean products are exact.
    """

    value: Tensor
    tangent: Tensor | None = None
    features: Tensor | None = None


@dataclass(frozen=True)
class Blocks:
    """Coordinates that fall into blocks of different law."""

    parts: tuple[Track, ...]
    fractions: tuple[float, ...]


def moments(u: Track | Blocks, v: Track | Blocks, *, tangent: bool = False, diagonal: bool = False) -> Tensor | None:
    """Mean products over the samples, ``[n * n, *P, *Q]`` (``[n * n, *P]`` at equal positions); None for zero."""
    if isinstance(u, Blocks) or isinstance(v, Blocks):
        return _blocked(u, v, tangent, diagonal)
    if not tangent and u.features is not None and v.features is not None:
        a, b = u.features.permute(2, 0, 1), v.features.permute(2, 0, 1)
    else:
        first, second = (x.tangent if tangent else x.value for x in (u, v))
        if first is None or second is None:
            return None
        a, b = first, second
    return _mean_products(a, b, u.value.shape[2:], v.value.shape[2:], diagonal) / a.shape[0]


def _mean_products(a: Tensor, b: Tensor, p: Sizes, q: Sizes, diagonal: bool) -> Tensor:
    m, n, k = a.shape[0], a.shape[1], b.shape[1]
    if diagonal and p:
        left, right = a.reshape(m, n, -1).permute(2, 1, 0), b.reshape(m, k, -1).permute(2, 0, 1)
        return torch.bmm(left, right).permute(1, 2, 0).reshape(n * k, *p)
    product = a.reshape(m, -1).T @ b.reshape(m, -1)
    if not p and not q:
        return product.reshape(n * k)
    return product.reshape(n, prod(p), k, prod(q)).transpose(1, 2).reshape(n * k, *p, *q)


def _blocked(u: Track | Blocks, v: Track | Blocks, tangent: bool, diagonal: bool) -> Tensor | None:
    if isinstance(u, Blocks) and isinstance(v, Blocks) and u.fractions != v.fractions:
        raise UnsupportedOperation("cat", "", "concatenations that are split at different places meet")
    shares = u.fractions if isinstance(u, Blocks) else v.fractions  # type: ignore[union-attr]
    left = u.parts if isinstance(u, Blocks) else (u,) * len(shares)
    right = v.parts if isinstance(v, Blocks) else (v,) * len(shares)
    total: Tensor | None = None
    for share, a, b in zip(shares, left, right, strict=True):
        term = moments(a, b, tangent=tangent, diagonal=diagonal)
        if term is not None:
            total = share * term if total is None else total + share * term
    return total


def _spectrum(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors, largest first, without those that are zero up to rounding."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    kept = values > SMALLEST * values[-1:].clamp_min(1e-300)
    return values[kept].flip(0), vectors[:, kept].flip(1)


def pseudo_inverse(matrix: Tensor) -> Tensor:
    """The inverse of a covariance on the directions that it has."""
    values, vectors = _spectrum(matrix)
    return (vectors / values) @ vectors.T


class Family:
    """Jointly Gaussian coordinates, drawn in portions."""

    def __init__(self, normals: Normals) -> None:
        self.normals = normals
        self.covariance: Tensor | None = None  # [D, D]
        self.draws: Tensor | None = None  # [M, D]

    def extend(self, cross: Tensor | None, own: Tensor) -> Tensor:
        """Draw ``k`` more coordinates.

        Args:
            cross: their covariance with all earlier ones, ``[D, k]``.
            own: their own, ``[k, k]``.
        """
        if self.draws is None or self.covariance is None or cross is None:
            self.covariance, self.draws = own, self._fresh(own)
            return self.draws
        gain = pseudo_inverse(self.covariance) @ cross
        rest = own - cross.T @ gain
        new = self.draws @ gain + self._fresh(rest, own.diagonal().max())
        self.covariance = torch.cat([torch.cat([self.covariance, cross], 1), torch.cat([cross.T, own], 1)])
        self.draws = torch.cat([self.draws, new], 1)
        return new

    def _fresh(self, covariance: Tensor, scale: Tensor | None = None) -> Tensor:
        values, vectors = _spectrum(covariance)
        if scale is not None:
            kept = values > SMALLEST * scale
            values, vectors = values[kept], vectors[:, kept]
        if not len(values):
            return self.normals(1) * torch.zeros(len(covariance), dtype=covariance.dtype, device=covariance.device)
        return self.normals(len(values)) @ (vectors * values.sqrt()).T


@dataclass
class Use:
    """One product of a matrix."""

    source: Track | Blocks
    hat: Tensor  # the part that is Gaussian, [M, n, *P']
    pointwise: bool


@dataclass
class Acting:
    """How a matrix acts in one product.

    Attributes:
        transposed: in which of the two directions.
        variance: of its entries, times the number contracted.
        trained: the same for the derivative of its entries along a random direction of the trained parameters.
        contract: maps mean products ``[N, *P, *P]`` to those of the result; at equal positions if `diagonal`.
        positions: of the result.
        pointwise: whether positions stay what they are.
        diagonal: whether mean products at equal positions are enough.
    """

    transposed: bool
    variance: float
    trained: float
    contract: Callable[[Tensor], Tensor]
    positions: Sizes
    pointwise: bool
    diagonal: bool


@dataclass
class RandomMatrix:
    """All products of one matrix in one set of samples.

    Attributes:
        mixing: whether the examples of a batch depend on each other.
    """

    normals: Normals
    mixing: bool
    uses: dict[bool, list[Use]] = field(default_factory=lambda: {False: [], True: []})
    families: dict[tuple[bool, bool], Family] = field(default_factory=dict)  # (transposed, tangent)

    def multiply(
        self, source: Track | Blocks, act: Acting, *, tangents: bool, keep: bool = True, dots: bool = True
    ) -> Track:
        """The product with a field: its Gaussian part, and what earlier transposed uses add to it.

        Args:
            keep: whether the matrix is used again later.
            dots: whether to add that part; without it the transposed matrix counts as a fresh one.
        """
        value = self._draw(source, act, tangent=False)
        assert value is not None
        hat = value
        tangent = self._draw(source, act, tangent=True) if tangents else None
        opposite = self.uses[not act.transposed]
        if dots and opposite:
            value, tangent = self._with_dot(source, act, opposite, value, tangent)
        if keep:
            self.uses[act.transposed].append(Use(source, hat, act.pointwise))
        return Track(value, tangent)

    def _draw(self, source: Track | Blocks, act: Acting, *, tangent: bool) -> Tensor | None:
        own = self._covariance(source, source, act, tangent)
        earlier = self.uses[act.transposed]
        family = self.families.setdefault((act.transposed, tangent), Family(self.normals))
        if own is None:
            if family.draws is None:
                return None
            own = torch.zeros((_sites(source, act),) * 2, dtype=_dtype(source))
        cross = None
        if earlier and family.draws is not None:
            blocks = [self._covariance(use.source, source, act, tangent) for use in earlier]
            present = [torch.zeros_like(own) if block is None else block for block in blocks]
            cross = torch.cat(present[len(present) - family.draws.shape[1] // len(own) :])
        draws = family.extend(cross, own)
        return draws.reshape(draws.shape[0], -1, *act.positions)

    def _covariance(self, u: Track | Blocks, v: Track | Blocks, act: Acting, tangent: bool) -> Tensor | None:
        """``[n P', n P']`` between two products."""
        primal = moments(u, v, diagonal=act.diagonal) if act.trained or not tangent else None
        terms = [(act.trained if tangent else act.variance, primal)]
        if tangent:
            terms.append((act.variance, moments(u, v, tangent=True, diagonal=act.diagonal)))
        found = [scale * act.contract(moment) for scale, moment in terms if moment is not None and scale]
        if not found:
            return None if tangent else torch.zeros((_sites(u, act),) * 2, dtype=_dtype(u))
        total = sum(found[1:], found[0])
        sites, n = prod(act.positions), int(total.shape[0] ** 0.5)
        return total.reshape(n, n, sites, sites).transpose(1, 2).reshape(n * sites, n * sites)

    def _with_dot(
        self, source: Track | Blocks, act: Acting, opposite: list[Use], value: Tensor, tangent: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Add ``variance * sum_j u_j E[d x / d hat_j]`` over the transposed uses j, slopes by Stein's lemma."""
        tracks = [source, *(use.source for use in opposite)]
        if any(isinstance(track, Blocks) for track in tracks):
            raise NoTranspose("a concatenation of coordinates meets the transpose of a matrix")
        if not act.pointwise or not all(use.pointwise for use in opposite):
            raise NoTranspose("the transpose of a matrix that mixes positions (a convolution) has no rule")
        hats = torch.cat([_sites_last(use.hat) for use in opposite], 2)  # [M, n, K]
        slopes = self._slopes(hats, _sites_last(source.value))  # type: ignore[union-attr]
        value = value + act.variance * self._along([u.source.value for u in opposite], slopes, value.shape)  # type: ignore[union-attr]
        parts = [use.source.tangent for use in opposite]  # type: ignore[union-attr]
        if tangent is not None and any(part is not None for part in parts):
            filled = [
                torch.zeros_like(use.source.value) if part is None else part  # type: ignore[union-attr]
                for use, part in zip(opposite, parts, strict=True)
            ]
            tangent = tangent + act.variance * self._along(filled, slopes, value.shape)
        return value, tangent

    def _slopes(self, hats: Tensor, values: Tensor) -> Tensor:
        """Regression of the values on the Gaussian parts, ``[n, K, P]``; across examples only if they mix."""
        if self.mixing:
            hats, values = hats.flatten(1).unsqueeze(1), values.flatten(1).unsqueeze(1)
        found = []
        for i in range(hats.shape[1]):
            own = hats[:, i].T @ hats[:, i]
            found.append(pseudo_inverse(own) @ (hats[:, i].T @ values[:, i]))
        return torch.stack(found)

    def _along(self, sources: list[Tensor], slopes: Tensor, shape: torch.Size) -> Tensor:
        stacked = torch.cat([_sites_last(source) for source in sources], 2)
        if self.mixing:
            stacked = stacked.flatten(1).unsqueeze(1)
        return torch.einsum("mik,ikp->mip", stacked, slopes).reshape(shape)


def _sites_last(array: Tensor) -> Tensor:
    """``[M, n, *P]`` as ``[M, n, prod(P)]``."""
    return array.reshape(*array.shape[:2], -1)


def _sites(u: Track | Blocks, act: Acting) -> int:
    first = u.parts[0] if isinstance(u, Blocks) else u
    return first.value.shape[1] * prod(act.positions)


def _dtype(u: Track | Blocks) -> torch.dtype:
    return (u.parts[0] if isinstance(u, Blocks) else u).value.dtype
