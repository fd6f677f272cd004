"""The exact limit of linear networks with one hidden layer: an ordinary module of finite size.

Source: Yang & Hu 2021 (arXiv:2011.14522), section on linear networks. In the limit the coordinates of both weights stay
in the span of the inputs + outputs Gaussians that they start from: ``U = n^-1/2 Omega A`` and ``V = n^-1/2 B Omega'``.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from widthwise.core import generator
from widthwise.theory.feature._errors import at_least, positive


class LinearNetwork(nn.Module):
    """``f(x) = alpha (V (U x + beta b) + beta c)`` with biases b and c, which may be absent.

    Attributes:
        first: U, ``[width, inputs]``.
        readout: V, ``[outputs, width]``.
        first_bias, readout_bias: b and c, or None.
        multiplier, bias_multiplier: alpha and beta.
    """

    first_bias: nn.Parameter | None
    readout_bias: nn.Parameter | None

    def __init__(
        self,
        first: Float[Tensor, "width inputs"],
        readout: Float[Tensor, "outputs width"],
        first_bias: Float[Tensor, "width"] | None = None,
        readout_bias: Float[Tensor, "outputs"] | None = None,
        *,
        multiplier: float = 1.0,
        bias_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        self.first, self.readout = nn.Parameter(first), nn.Parameter(readout)
        self.register_parameter("first_bias", None if first_bias is None else nn.Parameter(first_bias))
        self.register_parameter("readout_bias", None if readout_bias is None else nn.Parameter(readout_bias))
        self.multiplier = positive("multiplier", multiplier)
        self.bias_multiplier = positive("bias_multiplier", bias_multiplier)

    @property
    def width(self) -> int:
        """Units of the hidden layer."""
        return self.first.shape[0]

    def features(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch width"]:
        """The hidden layer. Inner products between examples are those of the infinitely wide network."""
        hidden = x @ self.first.T
        return hidden if self.first_bias is None else hidden + self.bias_multiplier * self.first_bias

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """The outputs."""
        outputs = self.features(x) @ self.readout.T
        if self.readout_bias is not None:
            outputs = outputs + self.bias_multiplier * self.readout_bias
        return self.multiplier * outputs

    def imbalance(self) -> Float[Tensor, "width width"]:
        """``U U' + b b' - V' V``, which gradient flow conserves whatever the loss."""
        U = self.first if self.first_bias is None else torch.cat([self.first, self.first_bias[:, None]], 1)
        return U @ U.T - self.readout.T @ self.readout


class LinearLimit(LinearNetwork):
    """A linear network with one hidden layer of infinite width in the maximal update parametrisation, exactly.

    It is a module with ``inputs + outputs`` hidden units, to be trained like any other: gradient descent on it, with
    momentum, weight decay, any loss, any schedule, through inner loops of meta-learning, *is* the training of the
    infinitely wide network at the same rates. (Optimisers that act entry by entry, such as Adam, are not.)

    Args:
        inputs, outputs: sizes.
        sigma_u, sigma_v: at width n the initial weights have variance ``sigma_u^2 / n`` and ``sigma_v^2 / n``.
        multiplier: alpha, of the output.
        bias: whether there are biases, zero at first.
        bias_multiplier: beta, of both biases.

    Raises:
        FeatureLimitError: an empty size or a factor that is not positive.

    Source: arXiv:2011.14522, appendix on linear networks.

    >>> limit = LinearLimit(3, 2, dtype=torch.float64)
    >>> limit(torch.ones(1, 3, dtype=torch.float64)).tolist(), limit.width, limit.sample(64).width
    ([[0.0, 0.0]], 5, 64)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        sigma_u: float = 1.0,
        sigma_v: float = 1.0,
        multiplier: float = 1.0,
        bias: bool = False,
        bias_multiplier: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        at_least("inputs", inputs, 1, "a network needs inputs")
        at_least("outputs", outputs, 1, "a network needs outputs")
        size = inputs + outputs
        identity = torch.eye(size, dtype=dtype)
        super().__init__(
            positive("sigma_u", sigma_u) * identity[:, :inputs],
            positive("sigma_v", sigma_v) * identity[inputs:],
            torch.zeros(size, dtype=dtype) if bias else None,
            torch.zeros(outputs, dtype=dtype) if bias else None,
            multiplier=multiplier,
            bias_multiplier=bias_multiplier,
        )

    def sample(self, width: int, seed: int = 0) -> LinearNetwork:
        """A network of any width drawn from this limit as it stands, trained or not.

        Before training that is a muP initialisation. Its function differs from the limit's by order ``width^-1/2``.

        Raises:
            FeatureLimitError: a width below 1.
        """
        at_least("width", width, 1, "a network needs units")
        random = generator(seed, "linear network", width)
        kind = self.first.dtype
        Omega = torch.randn(width, self.width, generator=random, dtype=torch.float64).to(kind) / width**0.5
        with torch.no_grad():
            return LinearNetwork(
                Omega @ self.first,
                self.readout @ Omega.T,
                None if self.first_bias is None else Omega @ self.first_bias,
                None if self.readout_bias is None else self.readout_bias.clone(),
                multiplier=self.multiplier,
                bias_multiplier=self.bias_multiplier,
            )
