"""Example inputs for modules that come without any."""

from typing import Any

import torch
from torch import nn

from widthwise.core import ModelError, evaluating


def guess_examples(module: nn.Module) -> Any:
    """One example batch that the module accepts, from what it says of itself or from its first layer.

    Raises:
        ModelError: none of the guesses runs.
    """
    for guess in _guesses(module):
        if _runs(module, guess):
            return guess
    raise ModelError(
        f"no example input for {type(module).__name__} could be guessed; give example_inputs=, one batch as you would "
        "call the module with."
    )


def _guesses(module: nn.Module) -> list[Any]:
    config = getattr(module, "config", None)
    vocabulary = getattr(config, "vocab_size", None)
    length = 8
    guesses: list[Any] = []
    if isinstance(vocabulary, int):
        guesses.append({"input_ids": torch.arange(2 * length).reshape(2, length) % vocabulary})
    image = getattr(config, "image_size", None)
    if isinstance(image, int):
        channels = getattr(config, "num_channels", 3)
        guesses.append({"pixel_values": torch.linspace(-1, 1, 2 * channels * image**2).reshape(2, channels, image, -1)})
    for part in module.modules():
        guesses += _for_layer(part, length)
        if guesses:
            break
    return guesses


def _for_layer(part: nn.Module, length: int) -> list[Any]:
    if isinstance(part, nn.Embedding):
        return [(torch.arange(2 * length).reshape(2, length) % part.num_embeddings,)]
    if isinstance(part, nn.Linear):
        flat = torch.linspace(-1, 1, 2 * part.in_features)
        return [(flat.reshape(2, -1),), (flat.reshape(2, 1, -1).repeat(1, length, 1),)]
    if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        dims = len(part.kernel_size)
        sizes = [(side,) * dims for side in (32, 28, 8, 64, 224)]
        ramp = torch.linspace(-1, 1, 2 * part.in_channels).reshape(2, -1, *(1,) * dims)
        return [(ramp.repeat(1, 1, *size),) for size in sizes]
    if isinstance(part, (nn.RNN, nn.LSTM, nn.GRU)):
        return [(torch.linspace(-1, 1, 2 * length * part.input_size).reshape(2, length, -1),)]
    return []


def _runs(module: nn.Module, guess: Any) -> bool:
    try:
        with evaluating(module), torch.no_grad():
            module(**guess) if isinstance(guess, dict) else module(*guess)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return False
    return True
