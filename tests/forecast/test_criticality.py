"""Signal propagation in the forecast of a network that is no plain chain."""

import pytest
import torch
from torch import nn

import widthwise as ww
from widthwise.forecast._grams import KernelChoice
from widthwise.forecast._network import _criticality
from widthwise.kernels import init_report


class Residual(nn.Module):
    def __init__(self, after: bool, n: int = 12) -> None:
        super().__init__()
        self.stem, self.last, self.after = nn.Conv1d(1, n, 3, padding=1), nn.Linear(n, 3), after
        self.inner = nn.ModuleList(nn.Conv1d(n, n, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for conv, norm in zip(self.inner, self.norms, strict=True):
            x = torch.relu(x + norm(conv(torch.relu(x)))) if self.after else x + conv(torch.relu(norm(x)))
        return self.last(torch.relu(x).mean(2))


@pytest.mark.parametrize("after", [False, True])
def test_residual_networks_have_a_section(after: bool) -> None:
    """Exact where the stream is Gaussian, by samples of one coordinate where it passes activations."""
    torch.manual_seed(0)
    module, x = Residual(after).eval(), torch.randn(6, 1, 9)
    program = ww.trace(module, x)
    limit = ww.infinite(program)
    found = _criticality(module, x, KernelChoice("infinite", "", program, limit))
    report = init_report(limit, x[:2])
    assert found.verdict == report.verdict != "unknown" and found.depth is None
    assert found.chi == pytest.approx(report.gradient_ratio ** (1 / len(report.chi)))
    assert "per block" in found.explanation and f"of the {len(report.chi) + 1} places" in found.explanation
    assert report.mend in found.explanation
