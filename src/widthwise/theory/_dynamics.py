"""Training in time: networks near their linearisation, in closed form."""

from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np
from jaxtyping import Float

from widthwise.core import DataError
from widthwise.theory._arrays import as_array, check_inputs
from widthwise.theory._dynamics_checks import Times, checked_kernel, checked_outputs, checked_times, precision_of
from widthwise.theory._dynamics_filters import Descent, Filter, Flow, check_rate, convergence
from widthwise.theory._dynamics_modes import EigenModes, LanczosModes, Modes
from widthwise.theory._dynamics_values import Ensemble, Trajectory, columns
from widthwise.theory._losses_in_time import Loss, evolve, simulate


@dataclass(frozen=True, eq=False)
class KernelDynamics:
    """Gradient training of a linearised network, from its tangent kernel (arXiv:1902.06720). Make it with `fit`.

    Outputs obey ``df/dt = -rate T dL/df``. The loss convention says what a learning rate multiplies, with sums over n
    examples and k outputs: ``"sum"`` ``1/2 sum (f - y)^2``, ``"mean"`` the same divided by n, ``"mse"``
    ``sum (f - y)^2 / (n k)`` as in `torch.nn.MSELoss`. Rates are those of the trained tensors: for a network in the
    standard parametrisation take its standard tangent kernel.

    Attributes:
        gram: ``[n, n]`` tangent kernel per output, None where only products with it are known.
        targets: ``[n, k]``.
        initial, test_initial: outputs before training, ``[n, k]`` and ``[m, k]``; zeros: centred, or the ensemble mean.
        test_gram: ``[m, n]`` between test and training inputs.
        convention: see above.
        modes: the decomposition that every prediction shares.

    >>> gram = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> dynamics = KernelDynamics.fit(gram, [1.0, 0.0], [[1.0, 1.0]])
    >>> path = dynamics.flow([0.0, 1.0, np.inf])
    >>> path.train[:, :, 0].round(4).tolist()
    [[0.0, 0.0], [0.7912, 0.159], [1.0, 0.0]]
    >>> round(dynamics.largest_rate(), 4)
    0.6667
    """

    gram: Float[np.ndarray, "n n"] | None = field(repr=False)
    targets: Float[np.ndarray, "n k"] = field(repr=False)
    initial: Float[np.ndarray, "n k"] = field(repr=False)
    test_gram: Float[np.ndarray, "m n"] | None = field(repr=False)
    test_initial: Float[np.ndarray, "m k"] | None = field(repr=False)
    convention: str
    modes: Modes = field(repr=False)

    @classmethod
    def fit(
        cls,
        gram: Any,
        targets: Any,
        test_gram: Any = None,
        *,
        initial: Any = None,
        test_initial: Any = None,
        convention: str = "sum",
        cutoff: float = 1e-13,
        lanczos: int | None = None,
        jitter: float | int = 0.0,
    ) -> "KernelDynamics":
        """Decompose the tangent kernel once.

        Args:
            gram: ``[n, n]`` tangent kernel of the training inputs, per output. With `lanczos` also anything with
                ``shape`` and ``@`` on vectors, such as a `scipy.sparse.linalg.LinearOperator`.
            targets: ``[n]`` or ``[n, k]``.
            test_gram: ``[m, n]`` tangent kernel between test and training inputs.
            initial, test_initial: the network's own outputs before training; None: zeros.
            convention: ``"sum"``, ``"mean"`` or ``"mse"``.
            cutoff: eigenvalues below this share of the largest count as zero: nothing is learned there at t = inf.
            lanczos: products with `gram` per output to spend instead of an eigendecomposition; for large n.
            jitter: added to the diagonal of `gram`; nothing is ever added that is not given here.

        Raises:
            DataError: shapes do not match, a value is not finite, the matrix is not symmetric, or it has an eigenvalue
                below zero by more than rounding in its type explains (``100 sqrt(n) eps`` of the largest).
        """
        if convention not in ("sum", "mean", "mse"):
            raise DataError(f"convention={convention!r} is no loss; give 'sum', 'mean' or 'mse'.")
        if not 0 <= jitter < inf:
            raise DataError(f"jitter={jitter} is no number to add to the diagonal; give 0 or more.")
        eps = precision_of(gram)
        if lanczos is None:
            gram, targets, *_ = check_inputs(gram, targets, None, None)
            gram = gram + float(jitter) * np.eye(len(gram)) if jitter else gram
        else:
            targets = columns(targets)
        initial = checked_outputs(initial, targets.shape, "initial")
        if test_gram is not None:
            test_gram = as_array(test_gram)
            if test_gram.ndim != 2 or test_gram.shape[1] != len(targets) or not np.isfinite(test_gram).all():
                raise DataError(
                    f"the test-train kernel has shape {list(test_gram.shape)}; "
                    f"give rows of {len(targets)} finite values."
                )
            test_initial = checked_outputs(test_initial, (len(test_gram), targets.shape[1]), "test_initial")
        modes: Modes
        if lanczos is None:
            modes = EigenModes.of(gram, targets - initial, cutoff, eps)
        else:
            multiply = lambda vector: gram @ vector + float(jitter) * vector  # noqa: E731
            modes = LanczosModes.of(multiply, targets - initial, lanczos, cutoff, eps)
        dense = gram if isinstance(gram, np.ndarray) else None
        return cls(dense, targets, initial, test_gram, test_initial, convention, modes)

    def flow(self, times: Times, rate: float | int = 1.0) -> Trajectory:
        """Gradient flow on squared error at `times` (infinity allowed): ``f - y = exp(-rate T t) (f_0 - y)``.

        Raises:
            DataError: a time is negative, or the rate not positive.
        """
        check_rate(rate)
        return self._trajectory(Flow(rate * self.factor), checked_times(times), "time")

    def descent(self, steps: Times, rate: float | int, momentum: float | int = 0.0) -> Trajectory:
        """Gradient descent on squared error after `steps` (whole numbers, or infinity), with heavy-ball momentum.

        A rate above `largest_rate` diverges; the outputs then grow without bound.

        Raises:
            DataError: a number of steps is negative, the rate not positive, or the momentum not in [0, 1).
        """
        check_rate(rate, momentum)
        return self._trajectory(Descent(rate * self.factor, float(momentum)), checked_times(steps, whole=True), "step")

    def ensemble(
        self,
        nngp: Any,
        times: Times,
        rate: float | int = 1.0,
        *,
        test_nngp: Any = None,
        test_train_nngp: Any = None,
        momentum: float | int | None = None,
    ) -> Ensemble:
        """Mean and covariance over random initialisations of the outputs on the test inputs (training inputs if none).

        With ``P_t = T_xX T^-1 (1 - exp(-rate T t))``: mean ``P_t Y`` and covariance
        ``K_xx' + P_t K_XX P_t'^T - P_t K_Xx' - K_xX P_t'^T`` for NNGP K.

        Args:
            nngp: ``[n, n]`` NNGP kernel of the training inputs.
            times: of gradient flow; with `momentum` (0 included) steps of gradient descent.
            test_nngp, test_train_nngp: ``[m, m]`` and ``[m, n]``; needed where there are test inputs.

        Raises:
            DataError: a kernel is missing or does not fit, or the eigenvectors are not known (Lanczos).
        """
        check_rate(rate, momentum or 0.0)
        if not isinstance(self.modes, EigenModes):
            raise DataError("the ensemble's covariance needs all eigenvectors; make the dynamics without lanczos=.")
        filter_ = Flow(rate * self.factor) if momentum is None else Descent(rate * self.factor, float(momentum))
        times = checked_times(times, whole=momentum is not None)
        clock = "time" if momentum is None else "step"
        nngp = checked_kernel(nngp, (len(self.targets),) * 2, "nngp")
        if self.test_gram is None:
            left = self.modes.matrices(lambda values: filter_.left(values, times))
            return Ensemble(clock, times, self.targets - left @ self.targets, left @ nngp @ left.transpose(0, 2, 1))
        m, n = self.test_gram.shape
        prior = checked_kernel(test_nngp, (m, m), "test_nngp")
        cross = checked_kernel(test_train_nngp, (m, n), "test_train_nngp")
        maps = self.test_gram @ self.modes.matrices(lambda values: filter_.learned(values, times))
        turned = maps.transpose(0, 2, 1)
        mixed = maps @ cross.T
        covariance = prior + maps @ nngp @ turned - mixed - mixed.transpose(0, 2, 1)
        return Ensemble(clock, times, maps @ self.targets, covariance)

    def evolve(self, loss: Loss, times: Times, rate: float | int = 1.0, *, tolerance: float = 1e-8) -> Trajectory:
        """Gradient flow on any loss, by integrating ``df/dt = -rate T dL/df`` (no closed form; softmax for example).

        Args:
            loss: ``"cross-entropy"`` (softmax; targets are probabilities), ``"logistic"`` (targets 0 to 1),
                ``"squared"``, each summed over examples or averaged as the convention says; or a differentiable
                function of tensors ``(outputs, targets) -> scalar``, taken as it is.
            times: finite.
            tolerance: relative error per step of the integrator.

        Raises:
            DataError: the Gram matrix is not known, a time is not finite, or the integrator fails.
        """
        check_rate(rate)
        parts = self._dense(), self.targets, self.initial, loss, self.example_factor
        amounts = evolve(*parts, checked_times(times, finite=True), float(rate), tolerance)
        return self._from_amounts(amounts, checked_times(times), "time")

    def simulate(
        self,
        loss: Loss,
        steps: Times,
        rate: float | int,
        momentum: float | int = 0.0,
        *,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> Trajectory:
        """Gradient descent on any loss of the linearised network, step by step, full batch or random minibatches.

        Args:
            loss: as for `evolve`.
            steps: whole numbers, finite.
            batch_size: examples per step, drawn without replacement within an epoch; None: all. The gradient of a sum
                over examples is scaled by n / batch_size, so that its mean is that of the full batch.

        Raises:
            DataError: as for `evolve`, or the batch size does not fit.
        """
        check_rate(rate, momentum)
        parts = self._dense(), self.targets, self.initial, loss, self.example_factor
        at = checked_times(steps, whole=True, finite=True)
        amounts = simulate(*parts, at.astype(int), float(rate), float(momentum), batch_size, seed)
        return self._from_amounts(amounts, at, "step")

    def largest_rate(self, momentum: float | int = 0.0) -> float:
        """Learning rate above which gradient descent on squared error diverges: ``2 (1 + m) / lambda_max``."""
        check_rate(1.0, momentum)
        return 2 * (1 + momentum) / (self.modes.largest * self.factor) if self.modes.largest > 0 else inf

    def slowest(self, rate: float | int, momentum: float | int = 0.0) -> float:
        """Factor by which the slowest mode that is learned shrinks per step in the long run."""
        check_rate(rate, momentum)
        ends = np.array([self.modes.smallest, self.modes.largest])
        return float(convergence(ends, rate * self.factor, momentum).max())

    @property
    def condition_number(self) -> float:
        """Largest over smallest eigenvalue that counts."""
        return self.modes.largest / self.modes.smallest

    def effective_ridge(self, times: Times, rate: float | int = 1.0) -> Float[np.ndarray, "times"]:
        """Ridge whose regression stops learning at the eigenvalue where training up to `times` has: ``1 / (rate t)``.

        Early stopping keeps ``1 - exp(-rate lambda t)`` of each mode, ridge regression ``lambda / (lambda + ridge)``.
        """
        check_rate(rate)
        with np.errstate(divide="ignore"):
            return 1 / (rate * self.factor * checked_times(times))

    @property
    def factor(self) -> float:
        """What the gradient of the loss convention is, over ``f - y``."""
        n, k = self.targets.shape
        return {"sum": 1.0, "mean": 1 / n, "mse": 2 / (n * k)}[self.convention]

    @property
    def example_factor(self) -> float:
        """Weight of an example in a named loss of `evolve`: 1 where examples are summed, 1 / n where averaged."""
        return 1.0 if self.convention == "sum" else 1 / len(self.targets)

    def starting_at(self, initial: Any, test_initial: Any = None) -> "KernelDynamics":
        """The same kernel with other outputs before training, without a new decomposition.

        Raises:
            DataError: shapes do not match, or the decomposition was made for its own start (Lanczos).
        """
        if not isinstance(self.modes, EigenModes):
            raise DataError("a Lanczos decomposition holds for one start; make new dynamics for another.")
        initial = checked_outputs(initial, self.targets.shape, "initial")
        if self.test_gram is not None:
            test_initial = checked_outputs(test_initial, (len(self.test_gram), self.targets.shape[1]), "test_initial")
        modes = replace(self.modes, columns=self.targets - initial)
        return replace(self, initial=initial, test_initial=test_initial, modes=modes)

    def _trajectory(self, filter_: Filter, times: np.ndarray, clock: str) -> Trajectory:
        missing = self.modes.apply(lambda values: filter_.left(values, times))
        test = None
        if self.test_gram is not None:
            amounts = self.modes.apply(lambda values: filter_.learned(values, times))
            test = self.test_initial + self.test_gram @ amounts
        return Trajectory(clock, times, self.targets - missing, test, self.targets)

    def _from_amounts(self, amounts: np.ndarray, times: np.ndarray, clock: str) -> Trajectory:
        train = self.initial + self._dense() @ amounts
        test = None if self.test_gram is None else self.test_initial + self.test_gram @ amounts
        return Trajectory(clock, times, train, test, self.targets)

    def _dense(self) -> Float[np.ndarray, "n n"]:
        if self.gram is None:
            raise DataError("other losses need the Gram matrix itself; give it as an array.")
        return self.gram
