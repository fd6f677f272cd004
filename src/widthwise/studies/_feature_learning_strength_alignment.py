"""Silent alignment: the tangent kernel turns to the task while the loss is still on its plateau."""

from collections.abc import Callable

from torch import nn

from widthwise.core import Figure, Line
from widthwise.scaling import diagnose_regime, richness_law
from widthwise.studies._feature_learning_strength_task import WIDTH, perceptron, whitened_pair
from widthwise.studies._findings import Outcome, compare
from widthwise.studies._types import Finding, Scale

GAMMA, DEPTH = 2.0**12, 3
RATE = 0.5  # over the law: a quarter of the best one on this task
COMPONENTS, WATCHED = 30, 64
ROWS = ("share of the kernel's way to its last direction", "share of the alignment's rise")


def linear() -> nn.Module:
    """The network of the theory: three matrices and nothing between them."""
    return nn.Sequential(
        nn.Linear(COMPONENTS, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, 1, bias=False)
    )  # fmt: skip


def alignment(scale: Scale) -> Outcome:
    """Small start, whitened inputs, one target: a linear network, then one with ReLU."""
    first, figure = _watched("silent-alignment", linear, scale)
    second, _ = _watched("silent-alignment-relu", perceptron(COMPONENTS, DEPTH, outputs=1), scale)
    return [first, second], {"silent-alignment": figure}


def _watched(claim: str, build: Callable[[], nn.Module], scale: Scale) -> tuple[Finding, Figure]:
    quick = scale == "quick"
    x, y = whitened_pair(2000 if quick else 10000, COMPONENTS)
    rate = RATE * richness_law(GAMMA, DEPTH)
    found = diagnose_regime(build, x, y, gamma=GAMMA, rate=rate, steps=1500 if quick else 4000, examples=WATCHED)
    detail = (
        f"Two classes on {COMPONENTS} whitened components of {len(x)} images, gamma = {GAMMA:g}: {found.reasons[0]}; "
        f"{found.reasons[2]}. Shares when a tenth of the fall was over."
    )
    drawn = found.plot()
    trace = found.trace
    x_axis = tuple(float(max(step, 0.5)) for step in trace.at)
    left = Line("kernel distance from the last", x_axis, tuple(trace.remaining.tolist()), 4)
    keep = [part for part in drawn.series if not getattr(part, "name", "").startswith("movement")]
    figure = Figure(
        "Silent alignment of a deep linear network", drawn.x, drawn.y, (*keep, left),
        "The tangent kernel gets its last direction, and its alignment with the target, on the plateau; from there on "
        "only its size grows and the loss falls.",
    )  # fmt: skip
    shares = [found.settled, min(found.aligned, 1.0)]
    return compare(claim, ROWS, [1.0, 1.0], shares, detail, absolute=0.5), figure


EXPERIMENTS = (alignment,)
