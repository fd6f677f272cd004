"""The main job, as users call it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from widthwise.forecast import run_forecast
from widthwise.report import ForecastReport


def forecast(
    model: Any,
    data: Any,
    *,
    samples: int | None = None,
    held_out: int | None = None,
    width: int | None = None,
    sizes: Sequence[int] | None = None,
    draws: int = 10,
    kernel: str = "auto",
    parametrization: str = "ntk",
    training_seconds: float = 30.0,
    seed: int = 0,
    keep: str | Path | None = None,
    progress: bool = True,
) -> ForecastReport:
    """Forecast how a network will learn a task, next to measurements that show how far to trust it.

    Args:
        model: a ``torch.nn.Module``, a factory ``build()`` or ``build(width)``, a built-in name (``"mlp"``, ``"cnn"``,
            ``"resnet"``, ``"transformer"``) or ``"file.py:function"``.
        data: anything that `widthwise.data.load` reads: a name, a file, a folder, ``(inputs, targets)``, a data set.
        samples: examples that the prediction may use (P); by default 4000, or two thirds of a smaller set.
        held_out: examples on which errors are measured; by default up to 2000 of the rest. They come from the same pool
            as the samples where it is large enough, else from the data set's official test part.
        width: of a model that takes one; by default the factory's own default, or 256.
        sizes: numbers of examples at which the curve is measured; by default from 30 to half of the samples.
        draws: random training sets per size.
        kernel: ``"auto"``: infinite-width if that is fast enough, else of finite networks; ``"infinite"``: by exact
            rules where there are some, else by samples; ``"exact"`` or ``"sampled"``: by these; ``"monte-carlo"``: mean
            over finite networks; ``"empirical"``: of one.
        parametrization: of the tangent kernel, see `widthwise.infinite`.
        training_seconds: budget of the training check, counted in operations of one core so that it does not depend
            on how busy the machine is; 0 leaves it out.
        seed: of everything random; equal seeds give equal forecasts on one machine.
        keep: folder in which finished stages are kept, so that the same call goes on where an interrupted one stopped;
            the command line removes it once the report is written.
        progress: whether to show progress bars.

    Returns:
        A value with ``summary()``, ``to_dict()``, ``save(folder)`` and ``plot_*()``. Errors are means over test points
        of the squared error summed over outputs, one-hot targets centred by class frequencies; the ridge is added to
        the Gram matrix itself.

    Raises:
        DataError, ModelError, UnsupportedOperation, ResourceError, OutputError: one sentence with the mend.

    >>> import widthwise as ww
    >>> result = ww.forecast("mlp", "iris", training_seconds=0, progress=False)
    >>> result.overfitting.cost >= 1
    True
    """
    return ForecastReport.of(
        run_forecast(
            model,
            data,
            samples=samples,
            held_out=held_out,
            width=width,
            sizes=sizes,
            draws=draws,
            kernel=kernel,
            parametrization=parametrization,
            training_seconds=training_seconds,
            seed=seed,
            keep=keep,
            progress=progress,
        )
    )
