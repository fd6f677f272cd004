"""Kernels of finite networks, averaged over initialisations."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from widthwise.core import seeded
from widthwise.probe import empirical_ntk, features


@torch.no_grad()
def make_gaussian(module: nn.Module) -> nn.Module:
    """Draw the entries of linear and convolution layers from normals of the default's standard deviation.

    The default is uniform: with three inputs a sum of uniforms is no Gaussian, however wide the layer.
    """
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)):
            std = (3 * part.weight[0].numel()) ** -0.5
            for parameter in part.parameters(recurse=False):
                if bool((parameter != parameter.flatten()[0]).any()):
                    nn.init.normal_(parameter, std=std)
    return module


def finite_kernels(build: Callable[[int], nn.Module], x: Tensor, width: int, draws: int) -> tuple[Tensor, Tensor]:
    """Mean product of the last features, and empirical NTK (per output), of each draw: ``[draws, n, n]`` each."""
    products, tangents = [], []
    for draw in range(draws):
        with seeded(0, "finite", width, draw):
            module = make_gaussian(build(width).eval())
        if x.is_floating_point():
            module = module.double()
        h = features(module, x).double().flatten(1)
        products.append(h @ h.T / h.shape[1])
        tangents.append(empirical_ntk(module, x).double())
    return torch.stack(products), torch.stack(tangents)


def relative(got: Tensor, expected: Tensor) -> float:
    """Relative Frobenius distance."""
    return float((got - expected).norm() / expected.norm())
