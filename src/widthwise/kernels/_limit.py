"""`infinite`: the exact kernels of a program whose widths go to infinity."""

from typing import Literal, get_args

from widthwise.core import DataError, UnsupportedOperation
from widthwise.kernels import _rules  # noqa: F401 (registers every rule)
from widthwise.kernels._certificate import CertificateRow, Parametrization, contribution_of
from widthwise.kernels._coordinates_draws import NotDrawable
from widthwise.kernels._evaluation import KernelPair, Limit
from widthwise.kernels._fields import Field
from widthwise.kernels._fields_joint import is_average
from widthwise.kernels._lowering import Lowering
from widthwise.kernels._registry import Concrete
from widthwise.kernels._scales import Override, Scales
from widthwise.kernels.engines import Engine
from widthwise.program import Program

__all__ = ["CertificateRow", "KernelPair", "Limit", "Parametrization", "infinite"]

Method = Literal["auto", "exact", "sampled"]


def infinite(
    program: Program,
    parametrization: Parametrization = "ntk",
    weight_std: Override = None,
    bias_std: Override = None,
    *,
    method: Method = "auto",
    rtol: float = 1e-2,
    engine: Engine = "auto",
) -> Limit:
    """The infinite-width limit of a traced network: its NNGP and NTK, exact wherever a rule is exact.

    Args:
        program: from `widthwise.trace`.
        parametrization: which tensor counts as trained: ``"ntk"`` (W = sigma w / sqrt(fan-in), w trained),
            ``"plain"`` (sigma w trained) or ``"standard"`` (W trained, with the module's own fan-ins).
        weight_std: sigma_w of the matrices (their entries have variance sigma_w^2 / fan-in); None reads it off the
            module's own tensors. A dict gives it by pattern of the weight's name (as in `fnmatch`). A scalar tensor
            gives kernels that are differentiable in it (build the limit anew in each step of an optimiser).
        bias_std: the same for biases, whose entries have variance sigma_b^2.
        method: ``"exact"``: by exact rules, or refused; ``"sampled"``: the whole program by samples of one coordinate;
            ``"auto"``: exact rules, and samples where a node has none.
        rtol: relative standard error that samples aim at.
        engine: what computes exact kernels: ``"torch"``: tensor operations, every network; ``"numba"``: all layers
            fused in cache, on the CPU, for dense, convolutional and attention networks with closed-form activations
            (refused for others); ``"triton"``: the same on a GPU, in float32, for inputs on it; ``"auto"``: the fused
            engine where it fits and the job is long enough to repay its start.

    Returns:
        `Limit`: call it with inputs; its ``certificate`` says which rule each node used.

    Raises:
        UnsupportedOperation: a node on the way to the output has no rule; it is named with its module path.

    The covariance recursion is that of Tensor Programs (arXiv:1902.04760; NTK: arXiv:2006.14548), for derivatives
    along random directions of the parameters, so that it needs no gradient independence. Matrices that are used
    transposed too, maxima over positions, instance norm and averages over coordinates are read by the sampler. Batch
    norm in training mode (x1 and x2 are then one batch each, normalised by itself) of a Gaussian field is exact, alone
    or before an activation of two straight lines (ReLU): integrals in one variable within a batch, in two between
    batches. It is sampled before other activations and, with ``method="auto"``, where a batch is too large for
    integrals (1536 numbers of one channel) or too small (4). Matrices that mix positions
    (token mixing) are small at any width: kernels are exact given these as the module has them, and their own part of
    the tangent kernel, which stays random, is left out (the certificate says so). The tangent kernel of an average
    over coordinates falls like 1/width: it is given at the traced width, to leading order. First layers with few
    inputs count as Gaussian, which they are not under PyTorch's default (uniform) initialisation: with three inputs a
    kernel can be some percent off that of a wide network whose first layer is uniform.

    >>> import torch, widthwise as ww
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    >>> limit = ww.infinite(ww.trace(net, torch.randn(2, 3)), weight_std=1.0, bias_std=0.0)
    >>> limit(torch.eye(3)).nngp.diagonal()  # sigma^2 |x|^2 / d / 2
    tensor([0.1667, 0.1667, 0.1667], dtype=torch.float64)
    """
    contribution_of(parametrization)
    if method not in get_args(Method):
        raise DataError(f"method {method!r} is not one of {', '.join(get_args(Method))}.")
    if not 0 < rtol < 1:
        raise DataError(f"rtol is {rtol}; it has to lie between 0 and 1.")
    if engine not in get_args(Engine):
        raise DataError(f"engine {engine!r} is not one of {', '.join(get_args(Engine))}.")
    scales = Scales(weight_std, bias_std)

    def lowered(sampling: bool) -> Limit:
        lowering = Lowering(program, scales, trains_constants=parametrization != "ntk", sampling=sampling)
        lowering.run()
        return Limit(program, lowering, _output(program, lowering), parametrization, rtol, engine)

    if method != "auto":
        return lowered(method == "sampled")
    try:
        return lowered(False).or_samples(lambda: lowered(True))
    except UnsupportedOperation as error:
        exact = error
    try:
        return lowered(True)
    except NotDrawable:
        raise exact from None  # it names the operation for which samples were wanted


def _output(program: Program, lowering: Lowering) -> Field:
    output = lowering.values[program.output]
    if isinstance(output, Concrete):
        raise UnsupportedOperation("output", "", "the output does not depend on any trained matrix")
    if not isinstance(output, Field):
        raise UnsupportedOperation("output", "", "the output is a parameter itself")
    is_average(output)
    return output
