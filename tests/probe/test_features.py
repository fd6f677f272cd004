"""Features, activation moments, per-example gradients."""

import pytest
import torch
from torch import Tensor, nn

from widthwise.core import ModelError, seeded
from widthwise.nn import build_model, mlp
from widthwise.probe import activation_moments, features, last_layer, per_example_gradients

X = torch.randn(7, 2, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "transformer"])
def test_readout_of_the_features_is_the_output(name: str) -> None:
    module = build_model(name, (2, 6), 3, 4).eval()
    found, layer = last_layer(module, X)
    assert found == "readout" and layer is module.readout
    torch.testing.assert_close(layer(features(module, X, batch_size=3)), module(X))
    torch.testing.assert_close(features(module, X), features(module, X, layer="readout", batch_size=2))


class Reversed(nn.Module):
    """The output layer is registered first."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)
        self.body = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x.flatten(1))))


def test_last_layer_follows_execution_when_it_has_inputs() -> None:
    module = Reversed()
    assert last_layer(module, X)[0] == "head"
    assert features(module, X).shape == (7, 5)


def test_no_linear_readout() -> None:
    with pytest.raises(ModelError, match="layer="):
        features(nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.ReLU()), X)
    with pytest.raises(ModelError, match="'heda'"):
        features(Reversed(), X, layer="heda")


def test_moments_of_a_he_initialised_mlp_do_not_change_with_depth() -> None:
    """He: q = 2 |x|^2 / d before and q / 2 after each ReLU, and equal gradients at equal widths (arXiv:1502.01852).

    Mean over 20 draws at width 512; the relative standard deviation of one layer's ratio is about sqrt(5 / 512), and
    it adds up over layers, so ten layers and 20 draws leave about 7 %.
    """
    x = torch.randn(16, 32, generator=torch.Generator().manual_seed(1))
    forward, backward = [], []
    for draw in range(20):
        with seeded(draw):
            module = mlp(512, input_shape=(32,), outputs=512, depth=10)
        moments = activation_moments(module, x, seed=draw)
        linear = moments.of_kind("Linear")
        forward.append(linear.forward[:-1])
        backward.append(linear.backward[:-1])
        assert moments.names[0] == "flatten" and moments.kinds.count("ReLU") == 10
    mean_forward = torch.stack(forward).mean(0)
    expected = 2 * float(x.square().mean())
    assert (mean_forward / expected - 1).abs().max() < 0.25
    mean_backward = torch.stack(backward).mean(0)
    assert (mean_backward / mean_backward[-1] - 1).abs().max() < 0.25


def test_moments_against_autograd() -> None:
    """Two linear layers: the gradient at the hidden layer is W^T times the cotangent, the one at the output itself."""
    module = nn.Sequential(nn.Linear(4, 5), nn.Identity(), nn.Linear(5, 6)).double()
    x = torch.randn(200, 4, dtype=torch.float64)
    moments = activation_moments(module, x)
    torch.testing.assert_close(moments.forward[0].double(), module[0](x).square().mean().detach(), rtol=1e-5, atol=0)
    assert abs(float(moments.backward[-1]) - 1) < 0.2  # mean square of 1200 standard normals
    expected = float(module[2].weight.square().sum(0).mean())
    assert abs(float(moments.backward[0]) / expected - 1) < 0.4


def test_moments_survive_in_place_activations_and_leave_no_gradients() -> None:
    with seeded(0):
        plain = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6))
    in_place = nn.Sequential(plain[0], nn.ReLU(inplace=True), plain[2])
    x = torch.randn(8, 4)
    first, second = activation_moments(plain, x), activation_moments(in_place, x)
    torch.testing.assert_close(first.forward, second.forward)
    torch.testing.assert_close(first.backward, second.backward)
    assert all(parameter.grad is None for parameter in plain.parameters())


@pytest.mark.parametrize("chunk", [None, 2])
def test_mean_of_per_example_gradients_is_the_batch_gradient(chunk: int | None) -> None:
    module = build_model("cnn", (2, 6), 3, 4).double()
    x, y = X.double(), torch.randint(0, 3, (7,))
    gradients = per_example_gradients(module, x, y, nn.functional.cross_entropy, chunk=chunk)
    nn.functional.cross_entropy(module(x), y).backward()
    for name, parameter in module.named_parameters():
        assert gradients[name].shape == (7, *parameter.shape)
        torch.testing.assert_close(gradients[name].mean(0), parameter.grad)
