"""What the user hands in as a model: a module, a factory, a built-in name, or a file with a factory."""

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

DEFAULT_WIDTH = 256


@dataclass(frozen=True)
class ModelSource:
    """A model that can be built again.

    Attributes:
        name: for the report.
        factory: ``factory(width)`` makes a fresh network; `width` is ignored where `scales` is False.
        width: width of the network that is forecast; None where the user's model has no width argument.
        scales: whether the factory takes a width.
        fresh: whether each call gives new random weights (False for a module that was handed in as it is).
    """

    name: str
    factory: Callable[[int | None], nn.Module]
    width: int | None
    scales: bool
    fresh: bool

    def build(self, width: int | None = None, *, seed: int = 0, draw: object = 0) -> nn.Module:
        """A network with the weights of this seed and draw.

        Raises:
            ModelError: the factory raises or gives no module.
        """
        try:
            with seeded(seed, "model", draw):
                module = self.factory(width or self.width)
        except Exception as error:
            raise ModelError(
                f"the factory of model {self.name} raised {type(error).__name__}: {error}; mend the factory."
            ) from error
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"the factory of model {self.name} returned a {type(module).__name__}; return a torch.nn.Module."
            )
        return module


def resolve_model(model: Any, data: DataSet, width: int | None) -> ModelSource:
    """Read a model from a name, ``file.py:function``, a module, or a factory ``build()`` or ``build(width)``.

    Raises:
        ModelError: unknown name (near matches are shown), missing file or function, or something else altogether.
    """
    if isinstance(model, nn.Module):
        state = {key: value.detach().clone() for key, value in model.state_dict().items()}

        def same(_: int | None) -> nn.Module:
            model.load_state_dict(state)
            return model

        return ModelSource(type(model).__name__, same, None, scales=False, fresh=False)
    if isinstance(model, str) and model in MODELS:
        chosen = width or DEFAULT_WIDTH

        def built_in(size: int | None) -> nn.Module:
            return build_model(model, data.input_shape, data.outputs, size, **_vocabulary(model, data))

        return ModelSource(model, built_in, chosen, scales=True, fresh=True)
    if isinstance(model, (str, Path)):
        return _from_file(str(model), width)
    if callable(model):
        return _from_callable(model, getattr(model, "__name__", type(model).__name__), width)
    raise ModelError(f"a model of type {type(model).__name__} cannot be used; give a torch.nn.Module or a factory.")


def _vocabulary(model: str, data: DataSet) -> dict[str, int]:
    if data.inputs.is_floating_point():
        return {}
    return {"vocab": int(data.inputs.max()) + 1}


def _from_file(reference: str, width: int | None) -> ModelSource:
    path, separator, function = reference.rpartition(":")
    if not separator or not path.endswith(".py"):
        near = get_close_matches(reference, MODELS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ModelError(
            f"model '{reference}' is not known; {hint}give one of {', '.join(MODELS)}, or file.py:function."
        )
    if not Path(path).is_file():
        raise ModelError(f"model file {path} does not exist; give the path of a Python file with a factory.")
    name = f"widthwise_user_model_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelError(f"model file {path} raised {type(error).__name__}: {error}; mend the file.") from error
    build = getattr(module, function, None)
    if build is None:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = get_close_matches(function, public, n=3, cutoff=0.4) or public[:5]
        raise ModelError(f"model file {path} has no '{function}'; it has {', '.join(near) or 'no functions'}.")
    return _from_callable(build, reference, width)


def _from_callable(build: Callable[..., nn.Module], name: str, width: int | None) -> ModelSource:
    try:
        parameters = list(inspect.signature(build).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in positional if p.default is p.empty]
    takes_width = any(p.name == "width" for p in parameters) or len(required) == 1
    if [p for p in required if p != "width"] and len(required) > 1:
        raise ModelError(
            f"the factory {name} needs the arguments {', '.join(required)}; give one that takes none, or width alone."
        )
    if not takes_width:
        return ModelSource(name, lambda _: build(), None, scales=False, fresh=True)
    default = next((p.default for p in positional if isinstance(p.default, int)), DEFAULT_WIDTH)
    by_name = any(p.name == "width" for p in parameters)
    make = (lambda size: build(width=size)) if by_name else (lambda size: build(size))
    return ModelSource(name, make, width or default, scales=True, fresh=True)


def check_accepts(module: nn.Module, data: DataSet, name: str) -> None:
    """Prove that the module takes the inputs and gives one output per class or target.

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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"model {name} does not accept inputs of shape {list(data.input_shape)} from data set {data.name}: "
            f"{reason}; give a model for such inputs."
        ) from error
    finally:
        module.train(training)
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or outputs.shape[1] != data.outputs:
        got = list(outputs.shape[1:]) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ModelError(
            f"model {name} gives outputs of shape {got} for data set {data.name}, which needs [{data.outputs}]; "
            f"end the model in {data.outputs} outputs."
        )
