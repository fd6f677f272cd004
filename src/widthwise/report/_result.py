"""A forecast that can print, draw and save itself: what `widthwise.forecast` returns."""

from dataclasses import dataclass, fields
from pathlib import Path

from widthwise.core import DataError, Figure
from widthwise.forecast import Forecast
from widthwise.report._forecast_figures import figures
from widthwise.report._save import save
from widthwise.report._terminal import summary_text


@dataclass(frozen=True)
class ForecastReport(Forecast):
    """A `Forecast` with the report on top: ``summary()``, ``save(folder)``, and a ``plot_*()`` per figure."""

    @classmethod
    def of(cls, forecast: Forecast) -> "ForecastReport":
        """Wrap a forecast."""
        return cls(**{field.name: getattr(forecast, field.name) for field in fields(Forecast)})

    def summary(self, width: int = 100) -> str:
        """The forecast as plain text, `width` characters wide."""
        return summary_text(self, width)

    def save(self, folder: str | Path) -> Path:
        """Write ``index.html``, ``forecast.json`` and ``figures/*.png`` into `folder`; gives the path of the page.

        Raises:
            OutputError: the folder cannot be written.
        """
        return save(self, folder)

    def figures(self) -> dict[str, Figure]:
        """Every figure of the report by name."""
        return figures(self)

    def _figure(self, name: str) -> Figure:
        found = self.figures()
        if name not in found:
            raise DataError(f"this forecast has no figure '{name}'; it has {', '.join(found)}.")
        return found[name]

    def plot_learning_curve(self) -> Figure:
        """Test error against number of examples."""
        return self._figure("learning_curve")

    def plot_accuracy_curve(self) -> Figure:
        """Accuracy against number of examples (classification)."""
        return self._figure("accuracy_curve")

    def plot_spectrum(self) -> Figure:
        """Eigenvalues of the kernels."""
        return self._figure("spectrum")

    def plot_target_power(self) -> Figure:
        """Share of the target's power in the first modes."""
        return self._figure("target_power")

    def plot_depth_profile(self) -> Figure:
        """Activation and gradient variance by depth."""
        return self._figure("depth_profile")

    def plot_width_curve(self) -> Figure:
        """Test error against width, last layer trained."""
        return self._figure("width_curve")

    def plot_width_surface(self) -> Figure:
        """Test error over number of examples and width."""
        return self._figure("width_surface")

    def plot_finite_width(self) -> Figure:
        """Spread between initialisations against width, of a perceptron."""
        return self._figure("finite_width")

    def plot_dynamics(self) -> Figure:
        """Errors of the linearised network against training time."""
        return self._figure("dynamics")

    def plot_overfitting(self) -> Figure:
        """What interpolation costs."""
        return self._figure("overfitting")

    def plot_training(self) -> Figure:
        """The trained network beside the kernel."""
        return self._figure("training")
