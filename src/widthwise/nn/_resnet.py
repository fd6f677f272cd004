"""Residual network with pre-activation blocks."""

from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from widthwise.nn._init import he_, lecun_
from widthwise.nn._shapes import as_signal, check_sizes

_CONV = {1: nn.Conv1d, 2: nn.Conv2d}
_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
_POOL = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d}


class PreActivationBlock(nn.Module):
    """``x + conv(relu(norm(conv(relu(norm(x))))))`` (arXiv:1603.05027, fig. 1b), batch normalisation as the norm.

    Where the stride or the number of channels changes, ``x`` passes through a 1-tap convolution first.

    Args:
        in_channels, out_channels: numbers of channels.
        stride: of the first convolution.
        dimensions: 1 or 2 spatial axes.

    >>> import torch
    >>> PreActivationBlock(4, 8, stride=2, dimensions=1)(torch.zeros(2, 4, 6)).shape
    torch.Size([2, 8, 3])
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, dimensions: int = 2) -> None:
        super().__init__()
        conv, norm = _CONV[dimensions], _NORM[dimensions]
        self.norm1 = norm(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = conv(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm2 = norm(out_channels)
        self.relu2 = nn.ReLU()
        self.conv2 = conv(out_channels, out_channels, 3, padding=1, bias=False)
        he_(self.conv1)
        he_(self.conv2)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv(in_channels, out_channels, 1, stride=stride, bias=False)
            lecun_(self.shortcut)

    def forward(self, x: Float[Tensor, "n in_channels *in_sides"]) -> Float[Tensor, "n out_channels *out_sides"]:
        y = self.conv1(self.relu1(self.norm1(x)))
        y = self.conv2(self.relu2(self.norm2(y)))
        return self.shortcut(x) + y


def resnet(
    width: int = 32, *, input_shape: Sequence[int], outputs: int, blocks: Sequence[int] = (1, 1, 1)
) -> nn.Sequential:
    """Pre-activation residual network: stem, stages of blocks, norm, ReLU, global average pooling, linear.

    Stage ``s`` has ``2**s * width`` channels; each stage after the first halves the sides. Tables ``(features,)`` are
    read as one channel of a 1-D signal. Batch normalisation: in training mode a batch needs more than one value per
    channel.

    Initial weights: He normal in the convolutions that follow a ReLU, LeCun normal in the stem, the shortcuts and the
    readout, biases zero, norm gains one.

    Args:
        width: channels of the first stage.
        input_shape: ``(features,)``, ``(channels, length)`` or ``(channels, height, width)``.
        outputs: number of outputs.
        blocks: number of blocks in each stage.

    Returns:
        A module from ``[n, *input_shape]`` to ``[n, outputs]``.

    Raises:
        ModelError: a size is below 1, or the shape is none of these.

    >>> import torch
    >>> resnet(4, input_shape=(3, 8, 8), outputs=5)(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 5])
    """
    check_sizes("resnet", width=width, outputs=outputs, stages=len(blocks), blocks=min(blocks, default=0))
    channels, *sides = as_signal("resnet", input_shape)
    dimensions = len(sides)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(input_shape) == 1:
        layers["signal"] = nn.Unflatten(1, (1, sides[0]))
    layers["stem"] = _CONV[dimensions](channels, width, 3, padding=1, bias=False)
    lecun_(layers["stem"])
    channels = width
    for stage, count in enumerate(blocks):
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            block = PreActivationBlock(channels, 2**stage * width, stride=stride, dimensions=dimensions)
            layers[f"stage{stage + 1}_block{index + 1}"] = block
            channels = 2**stage * width
    layers["norm"] = _NORM[dimensions](channels)
    layers["relu"] = nn.ReLU()
    layers["pool"] = _POOL[dimensions](1)
    layers["flatten"] = nn.Flatten()
    layers["readout"] = nn.Linear(channels, outputs)
    lecun_(layers["readout"])
    return nn.Sequential(layers)
