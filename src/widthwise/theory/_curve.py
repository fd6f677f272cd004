"""A learning curve as a value."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from widthwise.core import Axis, Band, Figure, Line, Series, Value, to_plain
from widthwise.theory._risk import Risk


@dataclass(frozen=True)
class LearningCurve(Value):
    """Predicted errors at a row of sample sizes.

    Attributes:
        tuning: ``"zero"``, ``"optimal"`` or ``"fixed"``.
        risk: the predictions; every array is ``[sizes]``.
    """

    tuning: str
    risk: Risk

    @property
    def sizes(self) -> Float[np.ndarray, "sizes"]:
        """Sample sizes."""
        return self.risk.n

    def to_dict(self) -> dict[str, Any]:
        """The tuning and one row per size."""
        names = tuple(self.risk.__dataclass_fields__)
        columns = [to_plain(getattr(self.risk, name)) for name in names]
        return {
            "tuning": self.tuning,
            "rows": [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)],
        }

    def plot(self) -> Figure:
        """Test error with its 95 % interval against n, both axes logarithmic."""
        risk = self.risk
        n, test, low, high = (tuple(float(v) for v in values) for values in (risk.n, risk.test, risk.low, risk.high))
        inside = tuple(bool(flag) for flag in ~risk.extrapolated)
        known = sum(inside)
        series: list[Series] = [Band(n, low, high), Line("predicted", n[:known], test[:known])]
        if known < len(n):
            series.append(Line("extrapolated", n[max(known - 1, 0) :], test[max(known - 1, 0) :], dashed=True))
        return Figure(
            f"Test error at {self.tuning} ridge",
            Axis("examples", "log"),
            Axis("test MSE, summed over outputs", "log"),
            tuple(series),
            "Predicted test error of kernel regression with its 95 % interval; dashed beyond the samples.",
        )
