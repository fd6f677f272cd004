"""Unmodified models of `transformers`, `torch.nn` and this package, small and built offline."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from widthwise.core import generator, seeded
from widthwise.nn import transformer
from widthwise.probe import empirical_ntk

OUTPUTS, TOKENS, VOCABULARY, LENGTH = 32, 10, 40, 5


@dataclass(frozen=True)
class Model:
    """`build(width, heads)` makes a model; `given` holds two examples of its inputs, by name.

    Attributes:
        first_output: from which output on there is a limit (tokens that the inputs do not hold, for tied readouts).
    """

    build: Callable[[int, int], nn.Module]
    given: dict[str, Tensor]
    first_output: int = 0


def _ids(count: int = 3) -> Tensor:
    return torch.randint(0, TOKENS, (count, LENGTH), generator=torch.Generator().manual_seed(1))


def _sizes(width: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": heads, "intermediate_size": 2 * width,
        "initializer_range": width**-0.5, "num_labels": OUTPUTS,
    }  # fmt: skip


def vit(width: int, heads: int) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**_sizes(width, heads), image_size=4, patch_size=2))


def bert(width: int, heads: int) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(**_sizes(width, heads), vocab_size=VOCABULARY, max_position_embeddings=8)
    return BertForSequenceClassification(config)


def gpt2(width: int, heads: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=8, n_embd=width, n_layer=1, n_head=heads, n_inner=2 * width,
        initializer_range=width**-0.5, **ends,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def llama(width: int, heads: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **_sizes(width, heads), vocab_size=VOCABULARY, num_key_value_heads=heads // 2, max_position_embeddings=8
    )
    return LlamaForCausalLM(config)


class Pooled(nn.Module):
    """A linear layer, an encoder, the mean over positions, a linear readout."""

    def __init__(self, width: int, inner: nn.Module) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(4, width), inner, nn.Linear(width, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(self.first(x)).mean(1))


def encoder(width: int, heads: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, heads, 2 * width, batch_first=True, activation="gelu")
    model = Pooled(width, nn.TransformerEncoder(layer, 1, enable_nested_tensor=False))
    nn.init.normal_(model.first.weight, std=0.5)
    return model


def own(width: int, heads: int) -> nn.Module:
    return transformer(width, input_shape=(LENGTH,), outputs=OUTPUTS, depth=1, heads=heads, vocab=VOCABULARY)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
MODELS = {
    "vit": Model(vit, {"pixel_values": _normal(3, 3, 4, 4)}),
    "bert": Model(bert, {"input_ids": _ids()}),
    "bert with a mask": Model(bert, {"input_ids": _ids(), "attention_mask": MASK}),
    "gpt2": Model(gpt2, {"input_ids": _ids()}, TOKENS),
    "llama": Model(llama, {"input_ids": _ids()}),
    "torch encoder": Model(encoder, {"x": _normal(3, LENGTH, 4)}),
    "own transformer": Model(own, {"x": _ids()}),
}


class Projected(nn.Module):
    """One random combination of the outputs that have a limit; several inputs come as one stacked tensor."""

    def __init__(self, inner: nn.Module, model: Model, seed: int) -> None:
        super().__init__()
        self.inner, self.model, self.seed = inner, model, seed

    def outputs(self, x: Tensor) -> Tensor:
        given = dict(zip(self.model.given, x.unbind(1) if len(self.model.given) > 1 else (x,), strict=True))
        found = self.inner(**given)
        found = found if isinstance(found, Tensor) else found.logits
        return found[..., self.model.first_output :].flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        values = self.outputs(x)
        direction = torch.randn(values.shape[1], generator=generator(self.seed, "direction"))
        return (values @ (direction / direction.norm()).to(values.dtype)).unsqueeze(1)


def finite_kernels(model: Model, width: int, heads: int, draws: int) -> tuple[Tensor, Tensor]:
    """Mean product of the outputs, and tangent kernel per output, of each draw: ``[draws, n, n]`` each."""
    x = torch.stack(list(model.given.values()), 1) if len(model.given) > 1 else next(iter(model.given.values()))
    products, tangents = [], []
    for draw in range(draws):
        with seeded(0, "transformers", width, draw):
            inner = model.build(width, heads).eval()
        projected = Projected(inner, model, draw)
        with torch.no_grad():
            values = projected.outputs(x).double()
        products.append(values @ values.T / values.shape[1])
        tangents.append(empirical_ntk(projected, x).double())
    return torch.stack(products), torch.stack(tangents)
