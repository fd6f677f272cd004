"""The infinite-width limit of one network, evaluated tile by tile."""

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.core import DataError, UnsupportedOperation, available_bytes, progress
from widthwise.kernels._batch import Batch, Given, batch_of, check_given, tensors_of
from widthwise.kernels._batch_limits import SamplesInstead, batch_norms
from widthwise.kernels._certificate import CertificateRow, Parametrization, contribution_of, parts_of, rule_mixes
from widthwise.kernels._checks import gradients_independent
from widthwise.kernels._concrete import check_examples_apart, run_concrete
from widthwise.kernels._coordinates import Estimate, SampledKernels, Sampler, sampled_grams, sampled_side
from widthwise.kernels._evaluator import Contribution, Evaluator, gram_of
from widthwise.kernels._fields import Field, Image, Local, Product, Sum
from widthwise.kernels._fields_batch import BatchNormed
from widthwise.kernels._fields_joint import Joint
from widthwise.kernels._lowering import Lowering
from widthwise.kernels._recursion import deep_recursion
from widthwise.kernels._walks import below
from widthwise.kernels.engines import Engine, fused_grams
from widthwise.program import Program

TILE_BYTES = 1 << 28


class KernelPair(NamedTuple):
    """Both kernels of a network: ``nngp`` is E f f' over initialisations, ``ntk`` the tangent kernel, ``[n1, n2]``."""

    nngp: Tensor
    ntk: Tensor


class Limit:
    """A network's infinite-width limit; call it on inputs to get its kernels. Made by `infinite`."""

    def __init__(
        self,
        program: Program,
        lowering: Lowering,
        output: Field,
        parametrization: Parametrization,
        rtol: float = 1e-2,
        engine: Engine = "auto",
    ) -> None:
        self.program = program
        self.parametrization = parametrization
        self.output = output
        self.engine: Engine = engine
        self._lowering = lowering
        self._contribution = contribution_of(parametrization)
        self._errors: dict[int, float] = {}
        self._beyond = SamplesInstead()
        self._sampler = Sampler(self._contribution, rtol) if lowering.sampling else None
        if self._sampler is not None:
            self._sampler.check(output)

    @property
    def method(self) -> str:
        """``"exact"``: the covariance recursion, node by node; ``"sampled"``: samples of one coordinate."""
        return "exact" if self._sampler is None else "sampled"

    @property
    def joins_examples(self) -> bool:
        """Whether kernels of two inputs depend on the others of their batch (batch norm in training mode)."""
        return any(
            isinstance(field, BatchNormed) or (isinstance(field, Joint) and field.over_batch)
            for field in below(self.output)
        )

    def or_samples(self, make: Callable[[], "Limit"]) -> "Limit":
        """Take samples for batches that the integrals of batch norm do not fit."""
        self._beyond.make = make if self.joins_examples else None
        return self

    @property
    def gradients_independent(self) -> bool:
        """Whether the output passes the simple gradient independence check: a linear readout by a matrix of its own.

        If it does not, textbook backward recursions are wrong for this network; these kernels are not.
        """
        return gradients_independent(self.output)

    @property
    def certificate(self) -> tuple[CertificateRow, ...]:
        """The rule that each node used, with the worst error met so far."""
        if self._beyond.used:
            return self._beyond.limit().certificate
        rows: list[CertificateRow] = []
        seen: set[int] = set()
        for node in self.program.nodes:
            rule = self._lowering.rules.get(node.name)
            if rule is not None:
                value = self._lowering.values[node.name]
                own = {id(part) for part in parts_of(value)} - seen
                error = max((self._errors.get(key, 0.0) for key in own), default=0.0)
                seen |= own
                if self._sampler is not None and rule != "concrete":
                    rule = rule if "transposes" in rule else "sampled"
                rule = "quadrature" if rule == "exact" and error else rule
                rows.append(CertificateRow(node.name, node.op, node.module_path, rule, error))
        return tuple(rows)

    def __call__(
        self,
        x1: Given,
        x2: Given | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        show_progress: bool = False,
    ) -> KernelPair:
        """Both kernels between two sets of inputs; gradients flow to inputs that require them.

        Args:
            x1: ``[n1, *input_shape]``; a tuple (or dict by name) of such tensors where there are several inputs.
            x2: ``[n2, *input_shape]``; None means x1 again, and only half of the matrix is computed.
            dtype: of the computation and the result.

        Returns:
            `KernelPair` of ``[n1, n2]`` matrices, per output; where the output has positions, their mean over equal
            positions.
        """
        wanted = (("moment", self.output), ("tangent", self.output))
        return KernelPair(*self._grams(x1, x2, wanted, dtype, show_progress))

    def nngp(self, x1: Given, x2: Given | None = None, *, dtype: torch.dtype = torch.float64) -> Float[Tensor, "n1 n2"]:
        """The NNGP kernel alone."""
        return self._grams(x1, x2, (("moment", self.output),), dtype, False)[0]

    @property
    def features(self) -> Field | None:
        """The field that the last matrix (the readout) contracts, None where the output is not a readout."""
        readout = self._readout()
        return readout.source if readout is not None else None

    def feature_kernel(
        self, x1: Given, x2: Given | None = None, *, dtype: torch.dtype = torch.float64, show_progress: bool = False
    ) -> Float[Tensor, "n1 n2"]:
        """Mean product of the features that enter the last linear layer: the limit of ``h h' / len(h)``.

        Raises:
            UnsupportedOperation: the output is not a linear readout.
        """
        return self._grams(x1, x2, (("moment", self._unit_readout()),), dtype, show_progress)[0]

    def ntk_and_features(
        self, x1: Given, x2: Given | None = None, *, dtype: torch.dtype = torch.float64, show_progress: bool = False
    ) -> tuple[Float[Tensor, "n1 n2"], Float[Tensor, "n1 n2"]]:
        """The NTK and the `feature_kernel`, from one pass."""
        wanted = (("tangent", self.output), ("moment", self._unit_readout()))
        ntk, features = self._grams(x1, x2, wanted, dtype, show_progress)
        return ntk, features

    def _unit_readout(self) -> Product:
        """The readout with sigma_w = 1: its moment is the mean product of the features."""
        readout = self._readout()
        if readout is None:
            raise UnsupportedOperation("output", "", "the network does not end in a linear readout")
        return Product(readout.weight, 1.0, readout.contracted, readout.source, readout.contraction)

    def _readout(self) -> Product | None:
        terms = self.output.terms if isinstance(self.output, Sum) else ((1.0, self.output),)
        products = [term for _, term in terms if isinstance(term, Product)]
        return products[0] if len(products) == 1 else None

    def evaluator(
        self, x1: Given, x2: Given | None, dtype: torch.dtype, contribution: Contribution | None = None
    ) -> Evaluator:
        """The recursion on one tile, for those who want the moments inside the network.

        Raises:
            DataError: the kernels of this limit are sampled; the recursion has no rule for all of its nodes.
        """
        if self._sampler is not None:
            raise DataError("the kernels of this limit are sampled, and no recursion shows the moments inside.")
        data1 = self._data(batch_of(self.program, x1))
        data2 = data1 if x2 is None else self._data(batch_of(self.program, x2))
        return Evaluator((data1, data2), contribution or self._contribution, dtype=dtype, same=x2 is None)

    def data_of(self, x: Given) -> dict[str, Tensor]:
        """The concrete value of every data node."""
        return self._data(batch_of(self.program, x))

    def _data(self, x: Tensor | Batch) -> dict[str, Tensor]:
        return run_concrete(self.program, self._lowering.concrete, tensors_of(self.program, x))

    def _checked(self, x1: Given, x2: Given | None) -> tuple[Tensor | Batch, Tensor | Batch | None]:
        """Both sides as they are cut into tiles, checked."""
        needed = [name for name in self.program.inputs if name in self._lowering.values]
        sides = batch_of(self.program, x1), None if x2 is None else batch_of(self.program, x2)
        for name, x in zip(("x1", "x2"), sides, strict=True):
            if x is not None:
                check_given(self.program, needed, x, name)
                check_examples_apart(self.program, self._lowering.concrete, tensors_of(self.program, x))
        return sides

    @deep_recursion()
    def _grams(
        self, x1: Given, x2: Given | None, wanted: Sequence[tuple[str, Field]], dtype: torch.dtype, show: bool
    ) -> list[Tensor]:
        """One matrix per wanted moment or tangent, tile by tile, sharing what they have in common."""
        if self._sampler is not None:
            return [estimate.mean for estimate in self._estimates(x1, x2, wanted, dtype, show)[0]]
        x1, x2 = self._checked(x1, x2)
        if self._beyond.needed(batch_norms(self.output), (x1, x2)):
            other = self._beyond.limit()
            named = [(w, other.output if u is self.output else other._unit_readout()) for w, u in wanted]
            return other._grams(x1, x2, named, dtype, show)
        fused = None
        if isinstance(x1, Tensor) and not isinstance(x2, Batch):
            fused = fused_grams(
                self, (x1, x2), wanted, contribution=self._contribution, dtype=dtype, engine=self.engine, show=show
            )
        if fused is not None:
            return fused
        n1, n2 = x1.shape[0], (x1 if x2 is None else x2).shape[0]
        side = max(n1, n2) if self.joins_examples else self.tile_side()
        results = [torch.empty(n1, n2, dtype=dtype) for _ in wanted]
        tiles = [(i, j) for i in range(0, n1, side) for j in range(0, n2, side) if x2 is not None or j >= i]
        with progress("kernel tiles", len(tiles), show=show and len(tiles) > 1) as advance:
            for i, j in tiles:
                rows, columns = slice(i, min(i + side, n1)), slice(j, min(j + side, n2))
                same = x2 is None and i == j
                run = self.evaluator(x1[rows], None if same else (x1 if x2 is None else x2)[columns], dtype)
                for (what, field), result in zip(wanted, results, strict=True):
                    tile = gram_of(run, what, field, rows.stop - i, columns.stop - j)
                    result[rows, columns] = tile
                    if x2 is None and not same:
                        result[columns, rows] = tile.T
                for key, error in run.errors.items():
                    self._errors[key] = max(self._errors.get(key, 0.0), error)
                advance(1)
        return results

    def sampled(
        self, x1: Given, x2: Given | None = None, *, dtype: torch.dtype = torch.float64, show_progress: bool = False
    ) -> SampledKernels:
        """Both kernels by samples of one coordinate, with their standard errors.

        Raises:
            DataError: the limit is exact (make it with ``method="sampled"``).
        """
        if self._beyond.make is not None:
            return self._beyond.limit().sampled(x1, x2, dtype=dtype, show_progress=show_progress)
        if self._sampler is None:
            raise DataError("the kernels of this limit are exact; make it with method='sampled' to have samples.")
        wanted = (("moment", self.output), ("tangent", self.output))
        (nngp, ntk), samples, relative = self._estimates(x1, x2, wanted, dtype, show_progress)
        return SampledKernels(samples, relative, nngp.mean, ntk.mean, nngp.error, ntk.error)

    def _estimates(
        self, x1: Given, x2: Given | None, wanted: Sequence[tuple[str, Field]], dtype: torch.dtype, show: bool
    ) -> tuple[list[Estimate], int, float]:
        """One estimate per wanted moment or tangent; most samples of a tile, and its largest relative error."""
        assert self._sampler is not None
        grams = sampled_grams(self._sampler, self._data, self._checked(x1, x2), wanted, dtype, show)
        for key, error in grams.errors.items():
            self._errors[key] = max(self._errors.get(key, 0.0), error)
        self._errors[id(self.output)] = max(self._errors.get(id(self.output), 0.0), grams.relative)
        return grams.estimates, grams.samples, grams.relative

    def tile_side(self) -> int:
        """Inputs on a side of a tile, so that its arrays take a bounded amount of memory."""
        numbers = self.numbers_per_pair()
        budget = min(TILE_BYTES, available_bytes() // 4)
        return int(max(1, min(1024, (budget / (8 * max(1, numbers))) ** 0.5)))

    def sampled_side(self) -> int:
        """The same for samples of one coordinate, which all inputs of a tile share."""
        return self.tile_side() if self.joins_examples else sampled_side([self.output])

    def fields(self) -> list[Field]:
        """The random fields of the program, in its order."""
        return [value for value in self._lowering.values.values() if isinstance(value, Field)]

    @property
    def lowering(self) -> Lowering:
        """What each node of the program was read as."""
        return self._lowering

    def numbers_per_pair(self) -> int:
        """Numbers that the recursion keeps for a pair of inputs."""
        return sum(self._numbers(node) for node in self.fields())

    def _numbers(self, field: Field) -> int:
        """Numbers per pair of inputs that the recursion keeps for a field (moment, transforms, tangent)."""
        sites = prod(field.positions)
        return (4 if isinstance(field, (Image, Local)) else 2) * sites * (sites if self.needs_all_positions else 1)

    @property
    def needs_all_positions(self) -> bool:
        """Whether some position map mixes positions, so that moments at all pairs of positions are needed."""
        return any(rule_mixes(value) for value in self._lowering.values.values())
