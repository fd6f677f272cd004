"""Kernels of finite networks, averaged over initialisations."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from tests.kernels.networks import Network
from widthwise.core import seeded
from widthwise.kernels import Limit, infinite
from widthwise.probe import empirical_ntk, features
from widthwise.program import trace


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
        if isinstance(part, (nn.RNNBase, nn.RNNCellBase)):
            for parameter in part.parameters(recurse=False):
                nn.init.normal_(parameter, std=(3 * part.hidden_size) ** -0.5)
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


def slopes(network: Network, widths: tuple[int, ...], draws: int) -> list[tuple[float, float]]:
    """Slope of the root mean square error of NNGP and NTK against the width (logarithms), with standard errors.

    Only matrices between two widths are trained: in the standard parametrization their terms of the tangent kernel
    grow like the width and those of the others do not, so that only a part has one power law. Scales have to have a
    limit: where the module's own initialisation changes from width to width so does the size of the error.
    """
    hidden = Network(hidden_only(network.build), network.shape, network.tokens)
    errors = []
    for width in widths:
        limit, x = limit_at(hidden, width)
        expected = (limit.feature_kernel(x), limit(x).ntk)
        found = finite_kernels(hidden.build, x, width, draws)
        errors.append([[relative(one, e) ** 2 for one in f] for f, e in zip(found, expected, strict=True)])
    squares = np.array(errors)  # [widths, kinds, draws]
    logs = np.log(widths) - np.mean(np.log(widths))
    weights = logs / (logs**2).sum()
    fitted = []
    for kind in range(2):
        mean, scatter = squares[:, kind].mean(1), squares[:, kind].std(1, ddof=1)
        slope = float(weights @ np.log(mean)) / 2
        fitted.append((slope, math.sqrt(float((weights**2) @ (scatter / mean) ** 2 / draws)) / 2))
    return fitted


def hidden_only(build: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
    """The network with nothing trained but the matrices of which two axes grow with the width."""
    shapes = [[parameter.shape for parameter in build(width).parameters()] for width in (16, 32)]
    grown = [sum(a != b for a, b in zip(*pair, strict=True)) > 1 for pair in zip(*shapes, strict=True)]

    def made(width: int) -> nn.Module:
        net = build(width)
        for parameter, trained in zip(net.parameters(), grown, strict=True):
            parameter.requires_grad_(trained)
        return net

    return made


def limit_at(network: Network, width: int) -> tuple[Limit, Tensor]:
    """The limit of a network, scales as at this width, and four inputs."""
    with seeded(1, "limit"):
        module = network.build(width).eval()
    x = network.inputs(4)
    return infinite(trace(module, x[:2] if network.tokens else x[:2].float()), "standard"), x


def agrees(draws: Tensor, expected: Tensor, bias: float) -> None:
    """The mean over draws lies within four standard errors (Frobenius), plus a bias of order 1/width."""
    error = float((draws.std(0) / len(draws) ** 0.5).norm() / expected.norm())
    assert relative(draws.mean(0), expected) < 4 * error + bias
    assert error < 0.06
