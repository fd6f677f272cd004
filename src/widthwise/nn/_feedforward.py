"""Plain feed-forward models whose infinite-width kernel is cheap."""

from collections import OrderedDict
from collections.abc import Sequence
from math import prod

from torch import nn

from widthwise.nn._init import he_, lecun_
from widthwise.nn._shapes import as_signal, check_shape, check_sizes


def mlp(width: int = 256, *, input_shape: Sequence[int], outputs: int, depth: int = 2) -> nn.Sequential:
    """Multilayer perceptron: flatten, `depth` times (linear, ReLU), linear.

    Initial weights: He normal (variance 2 / fan-in) in the hidden layers, LeCun normal (1 / fan-in) in the readout,
    biases zero, so that inputs of unit mean square give hidden activations and outputs of unit mean square
    (arXiv:1502.01852). They are drawn from PyTorch's global generator.

    Args:
        width: units of each hidden layer.
        input_shape: shape of one example, any number of axes.
        outputs: number of outputs.
        depth: number of hidden layers.

    Returns:
        A module from ``[n, *input_shape]`` to ``[n, outputs]``.

    Raises:
        ModelError: a size is below 1.

    >>> import torch
    >>> mlp(8, input_shape=(3,), outputs=2)(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """
    check_sizes("mlp", width=width, outputs=outputs, depth=depth)
    shape = check_shape("mlp", input_shape, range(1, 9))
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    fan_in = prod(shape)
    for index in range(1, depth + 1):
        layers[f"hidden{index}"] = nn.Linear(fan_in, width)
        he_(layers[f"hidden{index}"])
        layers[f"relu{index}"] = nn.ReLU()
        fan_in = width
    layers["readout"] = nn.Linear(fan_in, outputs)
    lecun_(layers["readout"])
    return nn.Sequential(layers)


def cnn(width: int = 64, *, input_shape: Sequence[int], outputs: int) -> nn.Sequential:
    """Convolutional network without pooling: two 3-tap convolutions with ReLU, flatten, linear.

    The second convolution has stride 2; so has the first where a spatial side is longer than 16 (28x28 becomes 14x14,
    then 7x7; 8x8 stays, then becomes 4x4). Without pooling or weight sharing after the last convolution, the
    infinite-width kernel needs only equal pairs of positions, which keeps it cheap. Tables ``(features,)`` are read as
    one channel of a 1-D signal.

    Initial weights: He normal in the convolutions, LeCun normal in the readout, biases zero (as in `mlp`).

    Args:
        width: channels of both convolutions.
        input_shape: ``(features,)``, ``(channels, length)`` or ``(channels, height, width)``.
        outputs: number of outputs.

    Returns:
        A module from ``[n, *input_shape]`` to ``[n, outputs]``.

    Raises:
        ModelError: a size is below 1, or the shape is none of these.

    >>> import torch
    >>> cnn(4, input_shape=(1, 8, 8), outputs=3)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 3])
    """
    check_sizes("cnn", width=width, outputs=outputs)
    channels, *sides = as_signal("cnn", input_shape)
    conv = nn.Conv1d if len(sides) == 1 else nn.Conv2d
    strides = (2 if max(sides) > 16 else 1, 2)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(input_shape) == 1:
        layers["signal"] = nn.Unflatten(1, (1, sides[0]))
    for index, stride in enumerate(strides, start=1):
        layers[f"conv{index}"] = conv(channels, width, 3, stride=stride, padding=1)
        he_(layers[f"conv{index}"])
        layers[f"relu{index}"] = nn.ReLU()
        channels = width
        sides = [-(-side // stride) for side in sides]
    layers["flatten"] = nn.Flatten()
    layers["readout"] = nn.Linear(width * prod(sides), outputs)
    lecun_(layers["readout"])
    return nn.Sequential(layers)
