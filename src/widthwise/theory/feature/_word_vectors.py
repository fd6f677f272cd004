"""word2vec at any width, infinite included: continuous bag of words and skip-gram with negative sampling.

Source: Mikolov et al. 2013 (arXiv:1310.4546) and its C tool; Yang & Hu 2021 (arXiv:2011.14522), section on word2vec: a
linear network with one hidden layer on one-hot words, whose muP limit is reached exactly by orthonormal embeddings, one
dimension per word, and zero output vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from widthwise.core import Value, derived_seed, require_memory
from widthwise.theory.feature._errors import FeatureLimitError, at_least, positive
from widthwise.theory.feature._word_loops import held_out_loops, training_loops

Mode = Literal["cbow", "skip-gram"]
Matrix = Float[np.ndarray, "_ _"]


@dataclass(frozen=True, eq=False)
class WordVectors(Value):
    """Trained word vectors.

    Attributes:
        width: of the hidden layer; None for the infinite-width limit, held in as many dimensions as there are words.
        embeddings, outputs: ``[words, dimensions]``, of words as inputs and as what is predicted.
        losses: mean loss per prediction in each epoch.
    """

    width: int | None
    embeddings: Matrix = field(repr=False, metadata={"plain": False})
    outputs: Matrix = field(repr=False, metadata={"plain": False})
    losses: tuple[float, ...]
    mode: Mode = "cbow"

    def sample(self, width: int, seed: int = 0) -> "WordVectors":
        """Vectors of a network of any width drawn from these; inner products deviate by order ``width^-1/2``."""
        at_least("width", width, 1, "vectors need dimensions")
        rng = np.random.default_rng(derived_seed(seed, "word vectors", width))
        Omega = rng.standard_normal((self.embeddings.shape[1], width), dtype=np.float32) / np.float32(width**0.5)
        return WordVectors(width, self.embeddings @ Omega, self.outputs @ Omega, (), self.mode)

    def unit(self) -> Matrix:
        """Embeddings of length one."""
        return self.embeddings / np.linalg.norm(self.embeddings, axis=1, keepdims=True).clip(1e-30)

    def analogies(self, questions: Int[np.ndarray, "questions four"]) -> Float[np.ndarray, "questions"]:
        """Which questions "a is to b as c is to d" are answered rightly (1, ties shared; 0 otherwise).

        The answer is the word other than a, b, c whose unit vector is nearest to ``b - a + c`` (3CosAdd).
        """
        vectors = self.unit()
        a, b, c, d = np.asarray(questions).T
        scores = (vectors[b] - vectors[a] + vectors[c]) @ vectors.T
        rows = np.arange(len(scores))
        for asked in (a, b, c):
            scores[rows, asked] = -np.inf
        best = scores.max(1)
        close = scores >= best[:, None] - 1e-5
        return np.where(close[rows, d], 1.0 / close.sum(1), 0.0)

    def neighbours(self, word: int, count: int = 5) -> list[int]:
        """The words nearest to one by the angle between embeddings, nearest first."""
        vectors = self.unit()
        order = np.argsort(-(vectors @ vectors[word]), kind="stable")
        return [int(other) for other in order if other != word][:count]

    def held_out_loss(
        self, tokens: Int[np.ndarray, "tokens"], *, window: int = 8, negative: int = 5, seed: int = 0
    ) -> tuple[float, float]:
        """Mean loss per word of a text that was not trained on, and its standard error over pieces of the text."""
        words = len(self.embeddings)
        noise = _noise(_counts(tokens, words) + 1.0)
        values = held_out_loops(
            np.asarray(tokens, np.int64), self.embeddings, self.outputs, noise, window, negative,
            self.mode == "skip-gram", derived_seed(seed, "held out") % 2**31,
        )  # fmt: skip
        pieces = np.array([piece.mean() for piece in np.array_split(values, 20)])
        return float(values.mean()), float(pieces.std(ddof=1) / len(pieces) ** 0.5)


def word2vec(
    tokens: Int[np.ndarray, "tokens"],
    words: int,
    *,
    width: int | None = None,
    mode: Mode = "cbow",
    window: int = 8,
    negative: int = 5,
    rate: float = 0.05,
    epochs: int = 5,
    sample: float = 1e-4,
    weight_decay: float = 0.0,
    kernel_regime: bool = False,
    seed: int = 0,
) -> WordVectors:
    """Train word vectors on a text by stochastic gradient descent, word by word as the C tool does.

    Embeddings start with variance ``1 / width`` (muP), outputs at zero; the rate falls linearly to a ten-thousandth.
    Contexts of random size up to `window` are averaged (``"cbow"``) or taken one by one (``"skip-gram"``); the gradient
    goes to each context word undivided, as in the tool; negatives come from the counts to the power 0.75 and are
    skipped where they equal the target; frequent words are dropped at random; weight decay shrinks touched rows.

    Args:
        tokens: word numbers below `words`; -1 ends a sentence.
        width: dimensions; None trains the infinite-width limit exactly.
        kernel_regime: leave the embeddings where they start, as in the NNGP and NTK limits (for one-hot words these
            differ in the rate alone).
        sample: threshold of dropping, a share of the text; 0 drops nothing.

    Raises:
        FeatureLimitError: an empty text, word numbers out of range, a size below 1, or divergence.
        ResourceError: words times dimensions do not fit in memory.

    >>> vectors = word2vec(np.arange(400) % 4, 4, window=1, epochs=2, sample=0)
    >>> vectors.embeddings.shape, vectors.losses[1] < vectors.losses[0]
    ((4, 4), True)
    """
    tokens = _checked(tokens, words)
    for name, value in (("window", window), ("negative", negative), ("epochs", epochs)):
        at_least(name, value, 1, "there is nothing to train on otherwise")
    size = words if width is None else at_least("width", width, 1, "vectors need dimensions")
    require_memory(8.0 * words * size, f"word vectors of {words} words", "keep fewer words or give a width.")
    rng = np.random.default_rng(derived_seed(seed, "word2vec", size))
    start = np.eye(words) if width is None else rng.standard_normal((words, size)) / size**0.5
    embeddings, outputs = start.astype(np.float32), np.zeros((words, size), np.float32)
    counts = _counts(tokens, words)
    losses = training_loops(
        tokens, embeddings, outputs, _keep(counts, sample), _noise(counts), window, negative, positive("rate", rate),
        weight_decay, epochs, mode == "skip-gram", kernel_regime, derived_seed(seed, "order") % 2**31,
    )  # fmt: skip
    if not np.isfinite(losses).all() or not np.isfinite(outputs).all():
        raise FeatureLimitError(f"training diverges with rate={rate}; give a smaller rate.")
    return WordVectors(width, embeddings, outputs, tuple(float(loss) for loss in losses), mode)


def vocabulary(texts: Sequence[Sequence[str]], size: int) -> tuple[list[str], Int[np.ndarray, "tokens"]]:
    """The most frequent words of sentences, and the text as numbers: rarer words left out, -1 after each sentence.

    >>> names, tokens = vocabulary([["a", "b", "a"], ["a", "c", "b"]], 2)
    >>> names, tokens.tolist()
    (['a', 'b'], [0, 1, 0, -1, 0, 1, -1])
    """
    flat = [word for sentence in texts for word in sentence]
    known, numbers = np.unique(np.array(flat, dtype=object).astype(str), return_inverse=True)
    order = np.argsort(-np.bincount(numbers, minlength=len(known)), kind="stable")[:size]
    index = {str(known[old]): new for new, old in enumerate(order)}
    rows = [[*(index[word] for word in sentence if word in index), -1] for sentence in texts]
    return list(index), np.array([token for row in rows for token in row], dtype=np.int64)


def _checked(tokens: np.ndarray, words: int) -> np.ndarray:
    tokens = np.ascontiguousarray(tokens, dtype=np.int64)
    at_least("words", words, 2, "a prediction needs a choice")
    if not len(tokens) or tokens.max() >= words or tokens.min() < -1:
        found = f"from {tokens.min()} to {tokens.max()}" if len(tokens) else "none"
        raise FeatureLimitError(f"word numbers are {found}; give numbers from 0 to {words - 1}, -1 between sentences.")
    return tokens


def _counts(tokens: np.ndarray, words: int) -> np.ndarray:
    return np.bincount(tokens[tokens >= 0], minlength=words).astype(np.float64)


def _noise(counts: np.ndarray) -> np.ndarray:
    """Cumulative distribution of negatives."""
    weights = np.cumsum(counts**0.75)
    return weights / weights[-1]


def _keep(counts: np.ndarray, sample: float) -> np.ndarray:
    """Chance of each word to be kept, as in the C tool: ``(sqrt(f / t) + 1) t / f``."""
    if sample <= 0:
        return np.ones_like(counts)
    share = np.maximum(counts, 1) / (sample * counts.sum())
    return np.minimum((np.sqrt(share) + 1) / share, 1.0)
