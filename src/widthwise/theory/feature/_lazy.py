"""Random matrices that are drawn as far as they are used: the Z-calculus on samples of coordinates.

A hidden matrix W with entries N(0, 1/n) acts on the coordinates of a layer, of which M samples are kept. What W has
done so far is ``W q = g`` and ``W' p = h`` for orthonormal q and p, so that

    W x = sum g <q, x> + sum p <h, x> + fresh Gaussian * |rest of x|,

the first sum being Z-hat of x and the second, which the transpose's use has caused, Z-dot (arXiv:2011.14522,
section on the tensor program of training; by Stein's lemma ``E dx/dZ = E h x`` no derivative is needed).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.theory.feature._errors import FeatureLimitError

ZERO = 1e-9  # relative size below which a direction counts as known


class Coordinates:
    """M samples of the coordinates of one layer, with inner product ``<x, y> = mean(x y)``.

    Attributes:
        known: orthonormal columns ``[M, k]`` that span what has been drawn and used so far.
    """

    def __init__(self, samples: int, name: str, random: torch.Generator) -> None:
        self.samples, self.name, self.random = samples, name, random
        self.known = torch.ones(samples, 1, dtype=torch.float64)

    def inner(self, x: Float[Tensor, "m i"], y: Float[Tensor, "m j"]) -> Float[Tensor, "i j"]:
        """Sample means of products."""
        return x.T @ y / self.samples

    def rest(self, x: Float[Tensor, "m i"], known: Float[Tensor, "m k"]) -> Float[Tensor, "m i"]:
        """What is left of x beside orthonormal columns; done twice against rounding."""
        for _ in range(2):
            x = x - known @ self.inner(known, x)
        return x

    def directions(
        self, x: Float[Tensor, "m i"], known: Float[Tensor, "m k"]
    ) -> tuple[Float[Tensor, "m j"], Float[Tensor, "m i"]]:
        """Orthonormal columns for what x adds to `known`, and that rest."""
        size = x.square().mean(0).max()
        rest = self.rest(x, known)
        values, vectors = torch.linalg.eigh(self.inner(rest, rest))
        keep = values > ZERO**2 * size
        # The largest first: rounding in small directions must not touch the large ones.
        found = (rest @ vectors[:, keep] / values[keep].sqrt()).flip(1)
        return self.orthonormal(self.rest(found, known)), rest

    def orthonormal(self, x: Float[Tensor, "m i"]) -> Float[Tensor, "m i"]:
        """Gram-Schmidt through the Cholesky factor of well-conditioned columns: each stays close to what it was."""
        if not x.shape[1]:
            return x
        factor = torch.linalg.cholesky(self.inner(x, x))
        return torch.linalg.solve_triangular(factor.T, x, upper=True, left=False)

    def include(self, x: Float[Tensor, "m i"]) -> None:
        """Take x into what is known: later draws are orthogonal to it."""
        if x.shape[1]:
            self.known = torch.cat([self.known, self.directions(x, self.known)[0]], 1)

    def draw(self, count: int, start: Float[Tensor, "m i"] | None = None) -> Float[Tensor, "m i"]:
        """`count` independent standard Gaussians per coordinate, exactly orthonormal and new to the layer.

        Args:
            start: draws to use in place of pseudo-random ones.
        """
        if self.known.shape[1] + count > self.samples // 2:
            raise FeatureLimitError(
                f"samples={self.samples} are too few for {self.name}: {self.known.shape[1] + count} Gaussians per "
                "coordinate are needed and at most half as many as samples can be told apart; give more samples or "
                "fewer steps."
            )
        if start is None:
            start = torch.randn(self.samples, count, generator=self.random, dtype=torch.float64)
        drawn = self.orthonormal(self.rest(start, self.known))
        self.known = torch.cat([self.known, drawn], 1)
        return drawn


class LazyMatrix:
    """A Gaussian matrix with entries of variance ``sigma^2 / n`` from one layer's coordinates to the next's.

    >>> left, right = (Coordinates(64, name, torch.Generator().manual_seed(0)) for name in ("first", "second"))
    >>> W, x = LazyMatrix(left, right), left.draw(2)
    >>> torch.allclose(W.apply(x), W.apply(x)), W.apply(x).square().mean(0).round(decimals=6).tolist()
    (True, [1.0, 1.0])
    """

    def __init__(self, source: Coordinates, target: Coordinates, sigma: float = 1.0) -> None:
        self.source, self.target, self.sigma = source, target, sigma
        self.used = torch.zeros(source.samples, 0, dtype=torch.float64)  # q
        self.images = torch.zeros(target.samples, 0, dtype=torch.float64)  # g = W q
        self.used_back = torch.zeros(target.samples, 0, dtype=torch.float64)  # p
        self.images_back = torch.zeros(source.samples, 0, dtype=torch.float64)  # h = W' p

    def apply(self, x: Float[Tensor, "m i"]) -> Float[Tensor, "k i"]:
        """W x; what x adds to the known is drawn and remembered."""
        new, _ = self.source.directions(x, self.used)
        if new.shape[1]:
            self.images = torch.cat([self.images, self.target.draw(new.shape[1])], 1)
            self.used = torch.cat([self.used, new], 1)
            self.source.include(new)
        hat = self.images @ self.source.inner(self.used, x)
        dot = self.used_back @ self.source.inner(self.images_back, x)
        return self.sigma * (hat + dot)

    def transposed(self, d: Float[Tensor, "k i"]) -> Float[Tensor, "m i"]:
        """W' d; the mirror image of `apply`."""
        back = LazyMatrix(self.target, self.source, self.sigma)
        back.used, back.images, back.used_back, back.images_back = (
            self.used_back, self.images_back, self.used, self.images,
        )  # fmt: skip
        result = back.apply(d)
        self.used_back, self.images_back = back.used, back.images
        return result
