"""Coordinate slopes by architecture: exponent of width of every layer's change after three steps.

    python benchmarks/bench_scaling.py            # small widths, a few minutes on one core
    python benchmarks/bench_scaling.py --full     # widths 64 to 1024, three seeds
    python benchmarks/bench_scaling.py --hooks    # only: what recording adds to a training step

Writes benchmarks/results/scaling.json and prints the table of docs/tutorial/scaling.md.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from widthwise.core import write_text
from widthwise.nn import build_model
from widthwise.scaling import CoordinateCheck, coordinate_check
from widthwise.scaling._recorder import Recorder
from widthwise.scaling._runs import batch_loss

RESULT = Path(__file__).parent / "results" / "scaling.json"
VOCABULARY, LENGTH = 32, 12


class TextLSTM(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, width)
        self.cell = nn.LSTM(width, width, batch_first=True)
        self.readout = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.readout(self.cell(self.table(tokens))[0])


def gpt2(width: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    off = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(n_embd=width, n_layer=2, n_head=4, vocab_size=VOCABULARY, n_positions=LENGTH, **off)
    return GPT2LMHeadModel(config)


def llama(width: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=LENGTH, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def vit(width: int) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=4, image_size=8,
        patch_size=4, num_channels=1, num_labels=10, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return ViTForImageClassification(config)


def cases(generator: torch.Generator) -> dict[str, tuple[Callable[[int], nn.Module], Any, int]]:
    """Builder, data, and by how much the widths are divided (channels of the ResNet's first stage)."""
    tokens = torch.randint(VOCABULARY, (16, LENGTH + 1), generator=generator)
    text = tokens[:, :-1], tokens[:, 1:].contiguous()
    images = torch.randn(32, 1, 8, 8, generator=generator), torch.randint(10, (32,), generator=generator)
    return {
        "MLP, 3 layers": (lambda n: build_model("mlp", (1, 8, 8), 10, n), images, 1),
        "ResNet, 3 stages": (lambda n: build_model("resnet", (1, 8, 8), 10, n), images, 4),
        "ViT, 2 blocks": (vit, ({"pixel_values": images[0]}, images[1]), 1),
        "GPT-2, 2 blocks": (gpt2, ({"input_ids": text[0]}, text[1]), 1),
        "Llama, 2 blocks": (llama, ({"input_ids": text[0]}, text[1]), 1),
        "LSTM": (TextLSTM, text, 1),
    }


def row(name: str, check: CoordinateCheck, scheme: str, seconds: float) -> dict[str, Any]:
    changes = {place: seen.slope for place, seen in check.of("change").items() if seen.slope is not None}
    updates = {place: seen.slope for place, seen in check.of("update").items() if seen.slope is not None}
    worst = max(changes, key=lambda place: abs(changes[place].value))
    widest = max(updates, key=lambda place: abs(updates[place].value))
    return {
        "network": name,
        "scheme": scheme,
        "widths": check.widths,
        "layers": len(changes),
        "within_0.1": sum(abs(slope.value) <= 0.1 for slope in changes.values()),
        "missed": {place: slope.to_dict() for place, slope in changes.items() if abs(slope.value) > 0.1},
        "too_narrow": [seen.place for seen in check.observations if seen.status == "too narrow"],
        "worst_change": {"place": worst, **changes[worst].to_dict()},
        "worst_update": {"place": widest, **updates[widest].to_dict()},
        "broken_rules": [(verdict.place, verdict.rule) for verdict in check.verdicts if not verdict.consequence],
        "seconds": round(seconds, 1),
    }


def run(widths: tuple[int, ...], seeds: int, only: str) -> None:
    """Every row is written as soon as it is there; rows of networks that are not run stay."""
    for name, (build, data, share) in cases(torch.Generator().manual_seed(0)).items():
        if only.lower() not in name.lower():
            continue
        for scheme in ("spectral", "standard"):
            started = time.perf_counter()
            sizes = [width // share for width in widths]
            check = coordinate_check(build, sizes, data, scheme=scheme, lr=2.0**-9, seeds=seeds, batch_size=32)
            found = row(name, check, scheme, time.perf_counter() - started)
            print(line(found), flush=True)
            keep({(name, scheme): found})


def keep(found: dict[tuple[str, str], dict[str, Any]], **more: Any) -> None:
    held = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"rows": []}
    rows = {(row["network"], row["scheme"]): row for row in held["rows"]} | found
    held |= {"optimizer": "adamw", "steps": 3, "lr_at_smallest_width": 2.0**-9, "rows": list(rows.values()), **more}
    write_text(RESULT, json.dumps(held, indent=1) + "\n")


HEAD = (
    "| network | widths | scheme | layers with abs(slope) at most 0.1 | worst change | worst update | broken rules |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


def line(row: dict[str, Any]) -> str:
    change, update = (row[key] for key in ("worst_change", "worst_update"))
    interval = f"[{change['low']:+.2f}, {change['high']:+.2f}]"
    rules = sorted({rule for _, rule in row["broken_rules"]})
    return (
        f"| {row['network']} | {row['widths'][0]} to {row['widths'][-1]} | {row['scheme']} | "
        f"{row['within_0.1']} of {row['layers']} | {change['value']:+.2f} {interval} "
        f"`{change['place']}` | {update['value']:+.2f} `{update['place']}` | {', '.join(rules) or 'none'} |"
    )


def step_seconds(module: nn.Module, optimizer: torch.optim.Optimizer, batch: Any, recorder: Recorder | None) -> float:
    """Processor seconds of one training step, with every module's output recorded or not."""
    started = time.process_time()
    optimizer.zero_grad()
    if recorder is None:
        loss = batch_loss(module, batch)
    else:
        with recorder.recording():
            loss = batch_loss(module, batch)
    loss.backward()
    optimizer.step()
    return time.process_time() - started


def hooks(rounds: int = 40, seconds: float = 4.0) -> dict[str, float]:
    """What recording adds to a training step, in percent: median over pairs of steps, one with and one without.

    At least `rounds` pairs, and as many as fit in so many `seconds`; the order within the pairs alternates.
    """
    found = {}
    for name, (build, data, share) in cases(torch.Generator().manual_seed(0)).items():
        module = build(256 // share)
        optimizer, recorder = torch.optim.AdamW(module.parameters(), 1e-4), Recorder(module)
        for _ in range(5):
            step_seconds(module, optimizer, data, recorder)
        ratios: list[float] = []
        ends = time.process_time() + seconds
        while len(ratios) < rounds or time.process_time() < ends:
            order = (recorder, None) if len(ratios) % 2 else (None, recorder)
            spent = {one is None: step_seconds(module, optimizer, data, one) for one in order}
            ratios.append(spent[False] / spent[True])
        found[name] = round(100 * (statistics.median(ratios) - 1), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="widths to 1024")
    parser.add_argument("--hooks", action="store_true", help="only the cost of recording")
    parser.add_argument("--only", default="", help="part of a network's name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.hooks:
        print(HEAD)
        widths = (64, 128, 256, 512, 1024) if options.full else (64, 128, 256, 512)
        run(widths, 3 if options.full else 2, options.only)
    if options.hooks or not options.only:
        cost = hooks()
        print(json.dumps(cost))
        keep({}, recording_adds_percent_per_step=cost)


if __name__ == "__main__":
    main()
