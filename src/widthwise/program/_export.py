"""From a module and example inputs to the nodes that `torch.export` sees."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr
from functools import partial
from io import StringIO
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from widthwise.core import ModelError, TraceError

Examples = tuple[tuple[Any, ...], dict[str, Any]]


def split_examples(example_inputs: Any) -> Examples:
    """Positional and keyword arguments from a tensor, a tuple or list, or a mapping of example inputs.

    Raises:
        ModelError: it is none of these, or holds no tensor.
    """
    if isinstance(example_inputs, Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        args, kwargs = (), dict(example_inputs)
    elif isinstance(example_inputs, (tuple, list)):
        args, kwargs = tuple(example_inputs), {}
    else:
        raise ModelError(
            f"example_inputs is a {type(example_inputs).__name__}; give a tensor, a tuple of arguments or a dict of "
            "keyword arguments."
        )
    if not any(isinstance(value, Tensor) for value in (*args, *kwargs.values())):
        raise ModelError("example_inputs holds no tensor; give one example batch of what the module takes.")
    return args, kwargs


def at_least_two(examples: Examples) -> Examples:
    """Repeat a batch of one, so that its axis can be told from an axis of size 1."""
    args, kwargs = examples
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    if any(tensor.dim() == 0 or len(tensor) != 1 for tensor in tensors):
        return examples

    def twice(value: Any) -> Any:
        return torch.cat([value, value]) if isinstance(value, Tensor) else value

    return tuple(map(twice, args)), {name: twice(value) for name, value in kwargs.items()}


def export(module: nn.Module, examples: Examples, training: bool) -> ExportedProgram:
    """Export the unmodified module; its training mode and its `config.use_cache` are put back afterwards.

    Raises:
        ModelError: the module itself raises on the examples.
        TraceError: the module works but cannot be exported.
    """
    args, kwargs = examples
    with ExitStack() as stack:
        stack.enter_context(catch_warnings())
        simplefilter("ignore")
        stack.enter_context(_quiet())
        stack.enter_context(_mode(module, training))
        stack.enter_context(_without_cache(module))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        failures: list[Exception] = []
        for strict in (False, True):
            try:
                return torch.export.export(module, args, kwargs, strict=strict)
            except Exception as error:
                failures.append(error)
                _check_forward(module, examples)
    reason = innermost(failures[0])
    raise TraceError(
        f"torch.export cannot trace {type(module).__name__}: {reason}; take data-dependent control flow and other "
        "non-tensor work out of forward."
    ) from failures[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what `torch.export` logs and prints when it fails off the screen: the error says it in one sentence."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(level)


def shapes_of(examples: Examples) -> str:
    """The shapes of example inputs, for messages."""
    args, kwargs = examples
    named = [_shown(value) for value in args] + [f"{name}={_shown(value)}" for name, value in kwargs.items()]
    return ", ".join(named)


def innermost(error: BaseException) -> str:
    """The first line of the error at the root of a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.;') if lines else 'no message'}"


def _shown(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}".replace("torch.", "") if isinstance(value, Tensor) else repr(value)


def _check_forward(module: nn.Module, examples: Examples) -> None:
    args, kwargs = examples
    saved = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        with torch.no_grad():
            module(*args, **kwargs)
    except Exception as error:
        raise ModelError(
            f"{type(module).__name__} raises {innermost(error)} on example inputs {shapes_of(examples)}; give inputs "
            "that the module accepts."
        ) from error
    finally:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                if name in saved:
                    buffer.copy_(saved[name])


@contextmanager
def _mode(module: nn.Module, training: bool) -> Iterator[None]:
    before = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, mode in before:
            part.training = mode


@contextmanager
def _without_cache(module: nn.Module) -> Iterator[None]:
    """Language models that return a key-value cache are asked not to: it is no tensor."""
    configs: dict[int, Any] = {id(part.config): part.config for part in module.modules() if hasattr(part, "config")}
    caching = [config for config in configs.values() if getattr(config, "use_cache", None) is True]
    put_back: list[Callable[[], None]] = []
    for config in caching:
        config.use_cache = False
        put_back.append(partial(setattr, config, "use_cache", True))
    try:
        yield
    finally:
        for undo in put_back:
            undo()
