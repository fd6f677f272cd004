"""What every part of a forecast works with."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.data import DataSet
from widthwise.forecast._model import ModelSource
from widthwise.forecast._settings import Settings
from widthwise.forecast._stages import Stages


class Targets:
    """Targets of samples and held-out examples as the kernel sees them: centred by the samples' mean.

    Attributes:
        mean: ``[outputs]`` what was subtracted: class frequencies, or the mean regression target.
        train, test: ``[n, outputs]`` float64.
        frequencies, train_labels, test_labels: of a classification task, else None.
    """

    def __init__(self, train: DataSet, test: DataSet) -> None:
        classes = train.is_classification
        self.mean: Float[Tensor, outputs] = train.class_frequencies() if classes else train.targets.double().mean(0)
        self.train = train.encoded(self.mean) if classes else train.targets.double() - self.mean
        self.test = test.encoded(self.mean) if classes else test.targets.double() - self.mean
        self.frequencies = self.mean if classes else None
        self.train_labels = train.targets if classes else None
        self.test_labels = test.targets if classes else None

    @property
    def power(self) -> float:
        """Mean squared target, summed over outputs: the error of predicting the mean."""
        return float(self.train.square().sum(1).mean())


@dataclass(frozen=True, eq=False)
class Run:
    """One forecast under way.

    Attributes:
        source: makes networks.
        train, test: samples and held-out examples.
        targets: of both, centred.
        settings: what was asked for.
        stages: finished work.
        show: whether to show progress bars.
    """

    source: ModelSource
    train: DataSet
    test: DataSet
    targets: Targets
    settings: Settings
    stages: Stages
    show: bool

    @property
    def inputs(self) -> Tensor:
        """Inputs of samples and held-out examples, in this order."""
        return torch.cat([self.train.inputs, self.test.inputs])
