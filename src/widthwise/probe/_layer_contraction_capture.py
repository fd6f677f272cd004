"""Watching a module run: which operation uses which parameter, what it reads, and where its result stands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from widthwise.probe._layer_contraction_rules import RULES, Unsupported
from widthwise.probe._layer_contraction_uses import Source, Use

_READS = {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "nonzero", "numpy", "unique"}
_SOURCE, _OF_INPUT = "_widthwise_source", "_widthwise_of_input"


class Tap:
    """Hears the gradient of one result when a backward pass comes to it.

    It knows nothing of the graph that holds it, so that no cycle keeps the graph alive.

    Attributes:
        sink: what to call with ``[heads, *shape]``: all heads under `torch.func.vmap`, else one.
    """

    def __init__(self) -> None:
        self.sink: Callable[[Tensor], None] | None = None

    def __call__(self, slope: Tensor) -> None:
        if self.sink is not None:
            _AllHeads.apply(slope, self.sink)


class _AllHeads(torch.autograd.Function):
    """Shows a function the whole tensor behind one that `torch.func.vmap` maps over."""

    generate_vmap_rule = False

    @staticmethod
    def forward(slope: Tensor, sink: Callable[[Tensor], None]) -> Tensor:
        sink(slope.unsqueeze(0))
        return slope.new_empty(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is differentiated."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, slope: Tensor, sink: Callable[[Tensor], None]) -> tuple[Tensor, None]:
        """All heads at once."""
        sink(slope.movedim(in_dims[0], 0))
        return slope.new_empty(0), None


@dataclass
class Call:
    """One operation at which parameters meet what depends on the inputs.

    Attributes:
        edge: where its result enters the graph of gradients.
        shape: of the result.
        uses: of parameters.
        tap: hears the gradient of the result.
        result: kept in the survey only, to find out where the examples stand.
    """

    name: str
    edge: GradientEdge
    shape: torch.Size
    uses: list[Use]
    tap: Tap
    versions: list[int] = field(default_factory=list)
    result: Tensor | None = None


class Watch(TorchFunctionMode):
    """Records the calls while a module runs inside it.

    Args:
        parameters: by name, those to watch.
        keep: keep the results of the calls.
        copies: numbers of the calls whose operands are changed in place afterwards, so that a copy is needed.

    Attributes:
        calls: in order.
        unsupported: names of parameters used in a way that has no rule.
        reads_values: the module looks at a number that depends on the inputs.
    """

    def __init__(self, parameters: dict[str, Tensor], *, keep: bool = False, copies: frozenset[int] = frozenset()):
        super().__init__()
        self.names = {id(tensor): name for name, tensor in parameters.items()}
        self.keep = keep
        self.copies = copies
        self.calls: list[Call] = []
        self.unsupported: set[str] = set()
        self.reads_values = False

    def source(self, tensor: Tensor) -> Source | None:
        """What `tensor` is made of, if of parameters alone."""
        name = self.names.get(id(tensor))
        return Source((name,)) if name is not None else tensor.__dict__.get(_SOURCE)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        of_input = any(_OF_INPUT in tensor.__dict__ for tensor in tensors)
        sources = [tensor for tensor in tensors if self.source(tensor) is not None]
        name = getattr(func, "__name__", "")
        if not sources:
            self.reads_values |= of_input and name in _READS
            return _mark(func(*args, **kwargs), _OF_INPUT, True) if of_input else func(*args, **kwargs)
        if not of_input:
            return self._derive(func, name, args, kwargs, sources)
        return _mark(self._meet(func, name, args, kwargs, sources), _OF_INPUT, True)

    def _derive(self, func: Any, name: str, args: Any, kwargs: Any, sources: list[Tensor]) -> Any:
        """An operation on parameters and constants alone."""
        result = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.requires_grad]
        if made:
            source = self._simple(func, name, args, kwargs, result)
            if source is None:
                names = [name for tensor in sources for name in self.source(tensor).names]  # type: ignore[union-attr]
                source = Source(tuple(dict.fromkeys(names)), simple=False)
            for tensor in made:
                if id(tensor) not in self.names:
                    setattr(tensor, _SOURCE, source)
        return result

    def _simple(self, func: Any, name: str, args: Any, kwargs: Any, result: Any) -> Source | None:
        """Transposition and multiplication by a number keep the form."""
        tensor = args[0] if args else None
        if kwargs or not isinstance(tensor, Tensor) or not isinstance(result, Tensor) or result is tensor:
            return None
        source = self.source(tensor)
        if source is None or not source.simple:
            return None
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        swaps = name in ("t", "T", "mT") or (name == "transpose" and args[1] % tensor.ndim != args[2] % tensor.ndim)
        if swaps and tensor.ndim == 2:
            return Source(source.names, True, not source.transposed, source.scale)
        if name in ("mul", "div") and len(args) == 2 and isinstance(args[1], (int, float)):
            factor = float(args[1]) if name == "mul" else 1 / float(args[1])
            return Source(source.names, True, source.transposed, source.scale * factor)
        return None

    def _meet(self, func: Any, name: str, args: Any, kwargs: Any, sources: list[Tensor]) -> Any:
        """An operation that joins parameters and inputs."""
        rule = RULES.get(name)
        composite = isinstance(func, FunctionType)
        if rule is not None and (not composite or func.__module__ == "torch.nn.functional"):
            try:
                operands = rule(self, *args, **kwargs)
            except (Unsupported, TypeError):
                operands = None
            if operands is not None:
                return self._record(func, name, args, kwargs, operands)
        if composite and func.__module__ == "torch.nn.functional":
            with self:
                return _opened(func)(*args, **kwargs)
        for tensor in sources:
            self.unsupported.update(self.source(tensor).names)  # type: ignore[union-attr]
        return func(*args, **kwargs)

    def _record(self, func: Any, name: str, args: Any, kwargs: Any, uses: list[Use]) -> Tensor:
        number = len(self.calls)
        if number in self.copies:
            for use in uses:
                if hasattr(use, "tensor"):
                    use.tensor = use.tensor.clone()
        versions = [tensor._version for use in uses for tensor in use.read()]
        result = func(*args, **kwargs)
        if not result.requires_grad:
            result.requires_grad_()
        kept = result.detach().clone() if self.keep else None
        tap = Tap()
        result.register_hook(tap)
        self.calls.append(Call(name, get_gradient_edge(result), result.shape, uses, tap, versions, kept))
        return result

    def changed(self) -> frozenset[int]:
        """Numbers of the calls whose operands were changed in place after they were read."""
        return frozenset(
            number
            for number, call in enumerate(self.calls)
            if call.versions != [tensor._version for use in call.uses for tensor in use.read()]
        )


def _mark(result: Any, name: str, value: Any) -> Any:
    for leaf in (result,) if isinstance(result, Tensor) else tree_leaves(result):
        if isinstance(leaf, Tensor):
            setattr(leaf, name, value)
    return result


def _opened(function: FunctionType) -> FunctionType:
    """`function` of `torch.nn.functional` without its question whether someone overrides it, so that we see inside."""
    blind = {name: lambda *_: False for name in ("has_torch_function", "has_torch_function_unary")}
    blind["has_torch_function_variadic"] = lambda *_: False
    opened = FunctionType(
        function.__code__,
        {**function.__globals__, **blind},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened


@contextmanager
def only_these_require_gradients(module: nn.Module, parameters: dict[str, Tensor]) -> Iterator[None]:
    """Inside the block exactly `parameters` require gradients."""
    before = [(tensor, tensor.requires_grad) for tensor in module.parameters()]
    chosen = {id(tensor) for tensor in parameters.values()}
    try:
        for tensor, _ in before:
            tensor.requires_grad_(id(tensor) in chosen)
        yield
    finally:
        for tensor, required in before:
            tensor.requires_grad_(required)


def watched(
    module: nn.Module,
    parameters: dict[str, Tensor],
    x: Tensor,
    call: Callable[[nn.Module, Tensor], Tensor],
    *,
    keep: bool = False,
    copies: frozenset[int] = frozenset(),
) -> tuple[Tensor, Watch]:
    """Outputs ``[n, outputs]`` with their graph, and what was seen."""
    watch = Watch(parameters, keep=keep, copies=copies)
    x = x.detach().clone()
    setattr(x, _OF_INPUT, True)
    with torch.enable_grad(), watch:
        outputs = call(module, x)
    return outputs, watch
