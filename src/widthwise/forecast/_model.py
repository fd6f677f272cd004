"""What the user hands in as a model: a module, a factory, a built-in name, or a file with a factory."""

import copy
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from widthwise.core import ModelError, seeded
from widthwise.data import DataSet
from widthwise.nn import MODELS, build_model
from widthwise.probe import last_layer

DEFAULT_WIDTH = 256


@dataclass(frozen=True)
class ModelSource:
    """A model that can be built again.

    Attributes:
        name: for the report.
        factory: ``factory(width)`` makes a fresh network; `width` is ignored where `scales` is False.
        width: width of the network that is forecast; None where the model has no width argument.
        scales: whether the factory takes a width.
        fresh: whether each call gives new random weights (False for a module that was handed in as it is).
    """

    name: str
    factory: Callable[[int | None], nn.Module]
    width: int | None
    scales: bool
    fresh: bool

    def make(self, width: int | None = None) -> nn.Module:
        """A network with weights from PyTorch's global generator.

        Raises:
            ModelError: the factory raises or gives no module.
        """
        try:
            module = self.factory(width or self.width)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"the factory of model {self.name} raised {type(error).__name__}: {first_line(error)}; "
                "mend the factory."
            ) from error
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"the factory of model {self.name} returned a {type(module).__name__}; return a torch.nn.Module."
            )
        return module

    def build(self, width: int | None = None, *, seed: int = 0, draw: object = 0) -> nn.Module:
        """A network with the weights of this seed and draw.

        Raises:
            ModelError: see `make`.
        """
        with seeded(seed, "model", draw):
            return self.make(width)


def first_line(error: Exception) -> str:
    """The message of an error without the lines that follow the first."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else "no message"


def resolve_model(model: Any, data: DataSet, width: int | None) -> ModelSource:
    """Read a model from a name, ``file.py:function``, a module, or a factory ``build()`` or ``build(width)``.

    Raises:
        ModelError: unknown name (near matches are shown), missing file or function, or something else altogether.
    """
    if width is not None and width < 1:
        raise ModelError(f"width {width} is no width of a network; give at least 1.")
    source = _source(model, data, width)
    if width is not None and not source.scales:
        raise ModelError(
            f"model {source.name} takes no width; leave out width {width}, or give a factory build(width)."
        )
    return source


def _source(model: Any, data: DataSet, width: int | None) -> ModelSource:
    if isinstance(model, nn.Module):
        return _from_module(model, type(model).__name__)
    if isinstance(model, str) and model in MODELS:
        return _built_in(model, data, width)
    if isinstance(model, (str, Path)):
        return _from_file(str(model), width)
    if callable(model):
        return _from_callable(model, getattr(model, "__name__", type(model).__name__), width)
    raise ModelError(f"a model of type {type(model).__name__} cannot be used; give a torch.nn.Module or a factory.")


def _from_module(module: nn.Module, name: str) -> ModelSource:
    """Copies of one module: the user's own is never trained or moved."""
    try:
        original = copy.deepcopy(module).cpu()
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"model {name} cannot be copied ({first_line(error)}); give a factory that builds it instead."
        ) from error
    return ModelSource(name, lambda _: copy.deepcopy(original), None, scales=False, fresh=False)


def _built_in(name: str, data: DataSet, width: int | None) -> ModelSource:
    options = _vocabulary(data)

    def build(size: int | None) -> nn.Module:
        return build_model(name, data.input_shape, data.outputs, size, **options)

    default = inspect.signature(MODELS[name]).parameters["width"].default
    return ModelSource(name, build, width or default, scales=True, fresh=True)


def _vocabulary(data: DataSet) -> dict[str, int]:
    """Tokens of samples and held-out examples, for a model of token sequences."""
    if data.inputs.is_floating_point():
        return {}
    parts = [data.inputs] + ([] if data.test is None else [data.test.inputs])
    return {"vocab": int(max(part.max() for part in parts)) + 1}


def _from_file(reference: str, width: int | None) -> ModelSource:
    path, separator, function = reference.rpartition(":")
    if not separator or not path.endswith(".py"):
        is_file = reference.endswith(".py")
        near = [] if is_file else get_close_matches(reference, MODELS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        example = f"{reference}:build" if is_file else "file.py:function"
        raise ModelError(f"model '{reference}' is not known; {hint}give one of {', '.join(MODELS)}, or {example}.")
    members = _run_file(Path(path).expanduser())
    found = members.get(function)
    if isinstance(found, nn.Module):
        return _from_module(found, reference)
    if not callable(found):
        public = [key for key, value in members.items() if inspect.isfunction(value) and not key.startswith("_")]
        near = get_close_matches(function, public, n=3, cutoff=0.4) or public[:5]
        mend = f"give {path}:{near[0]}" if near else "write a function that returns a torch.nn.Module"
        raise ModelError(f"model file {path} has no function '{function}'; {mend}.")
    return _from_callable(found, reference, width)


def _run_file(path: Path) -> dict[str, Any]:
    """The names that a Python file defines; its folder is on the path while it runs, as for a script."""
    if not path.is_file():
        raise ModelError(f"model file {path} does not exist; give the path of a Python file with a factory.")
    name = f"widthwise_user_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelError(
            f"model file {path} raised {type(error).__name__}: {first_line(error)}; mend the file."
        ) from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return vars(module)


def _from_callable(build: Callable[..., Any], name: str, width: int | None) -> ModelSource:
    try:
        parameters = list(inspect.signature(build).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p for p in parameters if p.default is p.empty and p.kind not in variadic]
    named = next((p for p in parameters if p.name == "width" and p.kind not in variadic), None)
    taken = named or (required[0] if len(required) == 1 else None)
    if [p for p in required if p is not taken]:
        raise ModelError(
            f"the factory {name} needs the arguments {', '.join(p.name for p in required)}; "
            "give one that takes none, or a width alone."
        )
    if taken is None:
        return ModelSource(name, lambda _: build(), None, scales=False, fresh=True)
    by_position = taken.kind is taken.POSITIONAL_ONLY
    default = taken.default if isinstance(taken.default, int) else DEFAULT_WIDTH

    def make(size: int | None) -> Any:
        return build(size) if by_position else build(**{taken.name: size})

    return ModelSource(name, make, width or default, scales=True, fresh=True)


def settle(source: ModelSource) -> ModelSource:
    """The same source, but copies of one module where its factory gives the same object every time."""
    first = source.make()
    return _from_module(first, source.name) if first is source.make() else source


def check_accepts(module: nn.Module, data: DataSet, name: str) -> None:
    """Prove that the module takes the inputs, gives one output per class or target, and ends in a linear layer.

    Raises:
        ModelError: it does not.
    """
    example: Tensor = data.inputs[:2]
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            outputs = module(example)
    except Exception as error:
        raise ModelError(
            f"model {name} does not accept {example.dtype} inputs of shape {list(data.input_shape)} from data set "
            f"{data.name} ({type(error).__name__}: {first_line(error)}); give a model for such inputs."
        ) from error
    finally:
        module.train(training)
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or outputs.shape[1] != data.outputs:
        got = f"shape {list(outputs.shape[1:])}" if isinstance(outputs, Tensor) else f"type {type(outputs).__name__}"
        raise ModelError(
            f"model {name} gives outputs of {got} for data set {data.name}, which needs [{data.outputs}]; "
            f"end the model in {data.outputs} outputs."
        )
    try:
        last_layer(module, example)
    except ModelError as error:
        raise ModelError(
            f"no nn.Linear produces the output of model {name}, so that the features behind its last layer are not "
            "known; end the model in nn.Linear."
        ) from error
