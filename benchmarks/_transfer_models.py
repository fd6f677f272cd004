"""Networks and data of the transfer benchmark: a small GPT on program text, a perceptron on images."""

import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from widthwise.data import load
from widthwise.nn import build_model

CHARACTERS, CONTEXT, WINDOWS = 128, 32, 4096


@dataclass(frozen=True)
class Case:
    """What is swept: builder, data, and the sizes of a run.

    Attributes:
        lrs: by form of the parametrisation: octaves of the learning rate, lowest and highest, and rates per octave.
    """

    what: str
    build: Callable[[int], nn.Module]
    data: Any
    batch_size: int
    steps: int
    lrs: dict[str, tuple[int, int, int]]


def gpt(width: int) -> nn.Module:
    """Two pre-norm blocks, four heads, untied readout; entries start at 1/sqrt(width), as in PyTorch's layers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    off = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(
        n_embd=width, n_layer=2, n_head=4, vocab_size=CHARACTERS, n_positions=CONTEXT,
        initializer_range=width**-0.5, tie_word_embeddings=False, use_cache=False, **off,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def text(folder: Path) -> torch.Tensor:
    """Seeded windows of ASCII characters of the Python files below a folder, ``[WINDOWS, CONTEXT + 1]``."""
    files = sorted(folder.glob("*.py")) + sorted(folder.glob("*/*.py"))
    joined = b"".join(file.read_bytes() for file in files if "site-packages" not in file.parts)
    codes = torch.frombuffer(bytearray(byte for byte in joined if byte < CHARACTERS), dtype=torch.uint8)
    starts = torch.randint(len(codes) - CONTEXT - 1, (WINDOWS,), generator=torch.Generator().manual_seed(0))
    return codes[starts[:, None] + torch.arange(CONTEXT + 1)].long()


def case(model: str) -> Case:
    """The setting of one model."""
    rates = {"standard": (-15, -3, 1), "spectral": (-7, 5, 2), "relative": (-15, -3, 1), "balanced": (-11, 1, 2)}
    if model == "gpt":
        rates |= {"standard": (-14, -2, 1), "relative": (-14, -2, 1)}
        tokens = text(Path(sysconfig.get_paths()["stdlib"]))
        data = {"input_ids": tokens[:, :-1].contiguous()}, tokens[:, 1:].contiguous()
        what = "GPT of 2 blocks on characters of Python's standard library, context 32"
        return Case(what, gpt, data, 8, 100, rates)
    images = load("fashion-mnist")
    data = images.inputs[:16384], images.targets[:16384]
    what = "perceptron of 3 layers on Fashion-MNIST"
    return Case(what, lambda width: build_model("mlp", (1, 28, 28), 10, width), data, 64, 300, rates)
