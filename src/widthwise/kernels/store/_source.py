"""What computes tiles: a limit, or any function of two sets of inputs; with what tells it from others."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from widthwise.core import DataError
from widthwise.kernels._limit import KernelPair, Limit, Parametrization, infinite
from widthwise.kernels.engines import part_of
from widthwise.program import trace

KERNELS = ("ntk", "nngp")
Inputs = Any
"""Inputs of a kernel: a tensor or an array, examples along the first axis."""
Blocks = dict[str, np.ndarray]
"""Matrices by kernel name."""


@dataclass
class LimitSource:
    """The kernels of a `Limit`, in one precision.

    Raises:
        DataError: they depend on how the inputs are cut into tiles.
    """

    limit: Limit
    names: tuple[str, ...]
    dtype: torch.dtype
    exact_identity: bool = True
    pairs: int = 0  # that will be asked for in all

    def __post_init__(self) -> None:
        if self.limit.joins_examples:
            raise DataError(
                "the kernel joins the examples of a batch (batch norm in training mode), so that tiles of it depend on "
                "how the inputs are cut; put the module in evaluation mode."
            )

    @property
    def identity(self) -> str:
        """Hash of program, trained flags, scales, parametrisation and method."""
        return limit_identity(self.limit)

    def __call__(self, x1: Inputs, x2: Inputs | None) -> Blocks:
        first, second = as_tensor(x1), None if x2 is None else as_tensor(x2)
        with part_of(self.pairs):
            if self.names == ("nngp",):
                return {"nngp": self.limit.nngp(first, second, dtype=self.dtype).numpy()}
            pair = self.limit(first, second, dtype=self.dtype)
        return {name: getattr(pair, name).detach().numpy() for name in self.names}

    def diagonal(self, x: Inputs) -> Blocks:
        """Each input with itself, from the recursion on equal pairs alone."""
        if self.limit.method == "sampled":
            return self._sampled_diagonal(as_tensor(x))
        inputs, output = as_tensor(x), self.limit.output
        pieces: dict[str, list[np.ndarray]] = {name: [] for name in self.names}
        side = max(16, self.limit.tile_side() ** 2 // 4)
        for start in range(0, len(inputs), side):
            run = self.limit.evaluator(inputs[start : start + side], None, self.dtype)
            for name in self.names:
                ask = run.moment if name == "nngp" else run.tangent
                value = ask(output, output, "11", diagonal=True)
                count = len(inputs[start : start + side])
                value = torch.zeros(count, 1, dtype=self.dtype) if value is None else value.reshape(count, -1)
                pieces[name].append(value.mean(1).numpy())
        return {name: np.concatenate(parts) for name, parts in pieces.items()}

    def _sampled_diagonal(self, x: Tensor) -> Blocks:
        """From small square blocks: samples of one coordinate show all pairs of their inputs."""
        blocks = [self(part, None) for part in x.split(16)]
        return {name: np.concatenate([block[name].diagonal() for block in blocks]) for name in self.names}


@dataclass
class FunctionSource:
    """A function ``kernel(x1, x2)`` of two sets of inputs (arrays or tensors, as the user has them)."""

    function: Callable[[Any, Any], Any]
    names: tuple[str, ...]
    dtype: torch.dtype
    exact_identity: bool = False
    pairs: int = 0

    @property
    def identity(self) -> str:
        """Hash of the function's name."""
        kind = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        return _hash(f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}".encode())

    def __call__(self, x1: Inputs, x2: Inputs | None) -> Blocks:
        found = self.function(x1, x1 if x2 is None else x2)
        shape = (len(x1), len(x1 if x2 is None else x2))
        return {name: self._checked(found, name, shape) for name in self.names}

    def _checked(self, found: Any, name: str, shape: tuple[int, int]) -> np.ndarray:
        value = getattr(found, name) if isinstance(found, KernelPair) else found
        value = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        if value.shape != shape or value.dtype.kind not in "iuf":
            raise DataError(
                f"the kernel function gave {value.dtype} of shape {list(value.shape)} for {shape[0]} and {shape[1]} "
                f"inputs; return real numbers of shape [{shape[0]}, {shape[1]}]."
            )
        return value.astype(numpy_type(self.dtype), copy=False)

    def diagonal(self, x: Inputs) -> Blocks:
        """Each input with itself, one call each (a function says no more)."""
        rows = [self(x[i : i + 1], None) for i in range(len(x))]
        return {name: np.array([row[name][0, 0] for row in rows]) for name in self.names}


KernelSource = LimitSource | FunctionSource
"""Computes blocks of one or both kernels: ``names`` says which; ``identity`` is a hash of all that the values depend on
besides the inputs; where ``exact_identity`` is False equal hashes do not prove equal kernels."""


def as_source(
    kernel: Any,
    x: Inputs,
    names: Sequence[str],
    dtype: torch.dtype,
    parametrization: Parametrization = "ntk",
) -> KernelSource:
    """A module, a limit or a function as a source of tiles.

    Raises:
        DataError: it is none of these, or a kernel name is not known, or its tiles depend on how they are cut.
        UnsupportedOperation, TraceError: the module has no infinite-width kernel.
    """
    for name in names:
        if name not in KERNELS:
            raise DataError(f"kernel {name!r} is not known; give one of {', '.join(KERNELS)}.")
    if isinstance(kernel, (Limit, nn.Module)):
        limit = kernel if isinstance(kernel, Limit) else limit_of(kernel, x, parametrization)
        return LimitSource(limit, tuple(names), dtype)
    if callable(kernel):
        if len(names) != 1:
            raise DataError("a kernel function gives one kernel and two were asked for; name one of ntk, nngp.")
        return FunctionSource(kernel, tuple(names), dtype)
    raise DataError(f"a {type(kernel).__name__} is no kernel; give a torch.nn.Module, a Limit or a function (x1, x2).")


def limit_of(module: nn.Module, x: Inputs, parametrization: Parametrization = "ntk") -> Limit:
    """The infinite-width limit of a module that takes such inputs."""
    example = as_tensor(x)[:2]
    weight = next(module.parameters(), None)
    if weight is not None and example.is_floating_point():
        example = example.to(weight.dtype)
    return infinite(trace(module, example), parametrization)


def limit_identity(limit: Limit) -> str:
    """Hash of what a limit's kernels depend on besides the inputs."""
    weights = limit.program.weights
    trained = tuple((weight.name, weight.value.requires_grad) for weight in weights)
    scales, sampler = limit._lowering.scales, limit._sampler
    method = () if sampler is None else (sampler.rtol, sampler.most, sampler.seed)
    return _hash(
        limit.program.fingerprint.encode(),
        repr((trained, limit.parametrization, _plain(scales.weight_std), _plain(scales.bias_std))).encode(),
        repr(method).encode() if method else b"",
    )


def _plain(override: Any) -> Any:
    if isinstance(override, dict):
        return {key: _plain(value) for key, value in override.items()}
    return None if override is None else float(override)


def data_identity(x: Inputs) -> str:
    """Hash of the inputs: type, shape and bytes."""
    array = as_array(x)
    digest = hashlib.blake2b(repr((str(array.dtype), array.shape)).encode(), digest_size=16)
    for start in range(0, len(array), 4096):
        digest.update(np.ascontiguousarray(array[start : start + 4096]).tobytes())
    return digest.hexdigest()


def as_tensor(x: Inputs) -> Tensor:
    """A tensor of the same numbers; floats as they are, whole numbers as int64."""
    tensor = x.detach().cpu() if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
    return tensor if tensor.is_floating_point() else tensor.long()


def as_array(x: Inputs) -> np.ndarray:
    """An array of the same numbers."""
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def numpy_type(dtype: torch.dtype) -> np.dtype:
    """The NumPy type of the same name."""
    return np.dtype(str(dtype).removeprefix("torch."))


def torch_type(dtype: Any) -> torch.dtype:
    """float32 or float64, from a name or a type of NumPy or PyTorch.

    Raises:
        DataError: another type.
    """
    name = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else _type_name(dtype)
    if name not in ("float32", "float64"):
        raise DataError(f"dtype {name} is no precision of a kernel; give float32 or float64.")
    return torch.float32 if name == "float32" else torch.float64


def _type_name(dtype: Any) -> str:
    try:
        return np.dtype(dtype).name
    except TypeError:
        return str(dtype)


def _hash(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
