"""A learning curve as a value."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from widthwise.core import Value, to_plain
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

    def plot(self) -> go.Figure:
        """Test error with its 95 % interval against n, both axes logarithmic."""
        risk = self.risk
        band = go.Scatter(
            x=np.concatenate([risk.n, risk.n[::-1]]),
            y=np.concatenate([risk.high, risk.low[::-1]]),
            fill="toself",
            line={"width": 0},
            opacity=0.25,
            name="95 % interval",
        )
        figure = go.Figure([band, go.Scatter(x=risk.n, y=risk.test, mode="lines+markers", name="predicted test error")])
        figure.update_xaxes(type="log", title="training samples")
        figure.update_yaxes(type="log", title="mean squared error, summed over outputs")
        return figure
