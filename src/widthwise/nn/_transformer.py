"""Transformer encoder for images, signals, tables and token sequences."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from widthwise.core import ModelError
from widthwise.nn._init import he_, lecun_
from widthwise.nn._shapes import check_shape, check_sizes


class Attention(nn.Module):
    """Multi-head self-attention over all positions (arXiv:1706.03762, section 3.2), scores divided by sqrt(head size).

    Args:
        width: size of each position's vector.
        heads: number of heads; divides `width`.

    >>> Attention(8, heads=2)(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "n positions width"]) -> Float[Tensor, "n positions width"]:
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)  # [n, heads, positions, head size]
        return self.out(mixed.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Pre-norm block: ``x + attention(norm(x))``, then ``x + mlp(norm(x))`` with a GELU and four times the width.

    >>> TransformerBlock(8, heads=2)(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads=heads)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "n positions width"]) -> Float[Tensor, "n positions width"]:
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.gelu(self.up(self.norm2(x))))

    def reset(self, depth: int) -> None:
        """Draw the weights for a stack of `depth` blocks."""
        for layer in (self.attention.query, self.attention.key, self.attention.value):
            lecun_(layer)
        he_(self.up)
        for layer in (self.attention.out, self.down):
            lecun_(layer, gain=1 / (2 * depth))


class Rows(nn.Module):
    """Inputs as a sequence of vectors: table entries, signal positions, or image rows.

    ``(features,)`` gives `features` vectors of size 1; ``(channels, length)`` gives `length` vectors of size
    `channels`; ``(channels, height, width)`` gives `height` vectors of size ``channels * width``.

    >>> Rows()(torch.zeros(2, 3, 4, 5)).shape
    torch.Size([2, 4, 15])
    """

    def forward(self, x: Float[Tensor, "n *input_shape"]) -> Float[Tensor, "n positions size"]:
        if x.ndim == 2:
            return x.unsqueeze(-1)
        return x.transpose(1, 2) if x.ndim == 3 else x.transpose(1, 2).flatten(2)


class Transformer(nn.Module):
    """Embedding plus learned positions, blocks, norm, mean over positions, linear. See `transformer`."""

    def __init__(self, embedding: nn.Module, positions: int, width: int, outputs: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.position = nn.Parameter(torch.empty(positions, width).normal_(std=0.5))
        blocks = [TransformerBlock(width, heads=heads) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, outputs)
        for block in blocks:
            block.reset(depth)
        lecun_(self.readout)

    def forward(self, x: Num[Tensor, "n *input_shape"]) -> Float[Tensor, "n outputs"]:
        x = self.embedding(x) + self.position
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x).mean(1))


def transformer(
    width: int = 128,
    *,
    input_shape: Sequence[int],
    outputs: int,
    depth: int = 2,
    heads: int | None = None,
    vocab: int | None = None,
) -> Transformer:
    """Pre-norm transformer encoder with a linear readout of the mean over positions.

    Table entries, signal positions or image rows are the tokens (see `Rows`); with `vocab`, the inputs are int64
    token indices of shape ``(length,)``.

    Initial weights: LeCun normal (variance 1 / fan-in) in the embedding, the query, key and value maps and the
    readout; He normal before the GELU; LeCun over ``2 * depth`` in the two maps of each block that add to the
    residual stream; token embeddings of variance 1, positions of variance 1/4; biases zero, norm gains one.

    Args:
        width: size of each position's vector.
        input_shape: ``(features,)``, ``(channels, length)``, ``(channels, height, width)``, or ``(length,)`` tokens.
        outputs: number of outputs.
        depth: number of blocks.
        heads: number of attention heads, a divisor of `width`; None: the largest of 4, 2, 1 that divides it.
        vocab: number of token indices; None: the inputs are real numbers.

    Returns:
        A module from ``[n, *input_shape]`` to ``[n, outputs]``.

    Raises:
        ModelError: a size is below 1, the shape is none of these, or `heads` does not divide `width`.

    >>> transformer(8, input_shape=(6,), outputs=3, vocab=11)(torch.zeros(2, 6, dtype=torch.int64)).shape
    torch.Size([2, 3])
    """
    check_sizes("transformer", width=width, outputs=outputs, depth=depth)
    shape = check_shape("transformer", input_shape, (1,) if vocab is not None else (1, 2, 3))
    heads = heads if heads is not None else next(count for count in (4, 2, 1) if width % count == 0)
    if heads < 1 or width % heads:
        raise ModelError(f"model transformer: heads={heads} does not divide width={width}; choose a divisor.")
    positions, size = _sequence_sizes(shape)
    embedding: nn.Module
    if vocab is not None:
        check_sizes("transformer", vocab=vocab)
        embedding = nn.Embedding(vocab, width)
    else:
        linear = nn.Linear(size, width)
        lecun_(linear)
        embedding = nn.Sequential(Rows(), linear)
    return Transformer(embedding, positions, width, outputs, depth, heads)


def _sequence_sizes(shape: tuple[int, ...]) -> tuple[int, int]:
    """Number of positions and size of each, as `Rows` makes them."""
    if len(shape) == 1:
        return shape[0], 1
    return (shape[1], shape[0]) if len(shape) == 2 else (shape[1], shape[0] * shape[2])
