"""Every loader gives the same typed value."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.core import DataError, Value, generator


@dataclass(frozen=True, eq=False)
class DataSet(Value):
    """Inputs with targets. Two data sets are equal when they are the same object.

    Attributes:
        name: what the user called it.
        inputs: ``[samples, *input_shape]``; float32, or int64 for token sequences.
        targets: ``[samples]`` int64 class indices, or ``[samples, outputs]`` float32 for regression.
        classes: class names in index order; None for regression.
        source: where it came from, in words (package and version, path, generator and seed).
        test: the official held-out part, where the source has one.
        input_mean: what was subtracted from the (scaled) inputs: a scalar, or one value per feature; None: not known.
        input_std: what they were divided by after that.

    >>> data = DataSet("xor", torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]), torch.tensor([0, 1, 1, 0]), ("0", "1"))
    >>> len(data), data.input_shape, data.outputs
    (4, (2,), 2)
    """

    name: str
    inputs: Tensor = field(repr=False, metadata={"plain": False})
    targets: Tensor = field(repr=False, metadata={"plain": False})
    classes: tuple[str, ...] | None = None
    source: str = ""
    test: "DataSet | None" = field(default=None, repr=False, metadata={"plain": False})
    input_mean: Tensor | None = field(default=None, repr=False, metadata={"plain": False})
    input_std: Tensor | None = field(default=None, repr=False, metadata={"plain": False})

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.inputs.shape[1:])

    @property
    def outputs(self) -> int:
        """Number of outputs that a network for this task has."""
        return len(self.classes) if self.classes is not None else self.targets.shape[1]

    @property
    def is_classification(self) -> bool:
        """Whether the targets are classes."""
        return self.classes is not None

    def subset(self, indices: Tensor) -> "DataSet":
        """The examples at `indices` (without the held-out part)."""
        return replace(self, inputs=self.inputs[indices], targets=self.targets[indices], test=None)

    def split(self, train: int, test: int, *, seed: int = 0) -> "tuple[DataSet, DataSet]":
        """Disjoint random parts of the given sizes; the test part comes from `self.test` where there is one.

        Raises:
            DataError: fewer examples than asked for.
        """
        if train < 1 or test < 1:
            raise DataError(
                f"{train} examples to train on and {test} held out were asked for; ask for at least 1 each."
            )
        together = train if self.test is not None else train + test
        if together > len(self):
            raise DataError(
                f"data set {self.name} has {len(self)} examples: {train} to train on and {test} held out do not fit; "
                "ask for fewer samples."
            )
        if self.test is not None and test > len(self.test):
            raise DataError(
                f"the test part of {self.name} has {len(self.test)} examples and {test} held out were asked for; "
                "ask for fewer."
            )
        order = torch.randperm(len(self), generator=generator(seed, "split", self.name))
        if self.test is None:
            return self.subset(order[:train]), self.subset(order[train : train + test])
        held_out = torch.randperm(len(self.test), generator=generator(seed, "held out", self.name))
        return self.subset(order[:train]), self.test.subset(held_out[:test])

    def encoded(self, frequencies: Tensor | None = None) -> Float[Tensor, "samples outputs"]:
        """Targets as float64 rows: one-hot minus the class frequencies, or the regression targets as they are.

        Args:
            frequencies: class frequencies to subtract; by default those of this data set. Give the training
                set's when encoding its held-out part.
        """
        if self.classes is None:
            return self.targets.double()
        onehot = torch.nn.functional.one_hot(self.targets, len(self.classes)).double()
        return onehot - (onehot.mean(0) if frequencies is None else frequencies.double())

    def class_frequencies(self) -> Tensor:
        """Share of each class, ``[outputs]`` (zeros for regression)."""
        if self.classes is None:
            return torch.zeros(self.outputs, dtype=torch.float64)
        return torch.bincount(self.targets, minlength=len(self.classes)).double() / len(self)

    def to_dict(self) -> dict[str, Any]:
        """Name, sizes and source."""
        return {
            "name": self.name,
            "samples": len(self),
            "input_shape": list(self.input_shape),
            "outputs": self.outputs,
            "classes": list(self.classes) if self.classes is not None else None,
            "source": self.source,
        }
