"""Factors of microsoft/mup 1.0.0 as JSON: run by make_oracle.sh, in an interpreter that has mup."""

import json
import sys
from pathlib import Path

import torch
from mup import MuAdam, MuAdamW, MuReadout, MuSGD, set_base_shapes
from tests.scaling.mup_cases import BASE, CASES, WIDTHS, example

LR, DECAY = 1.0, 1.0


def factors(model: torch.nn.Module, make: type) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = make(model.parameters(), lr=LR, weight_decay=DECAY).param_groups
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def one(name: str, width: int) -> dict:
    build = CASES[name]
    torch.manual_seed(0)
    model = build(width, MuReadout)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    set_base_shapes(model, build(BASE, MuReadout), delta=build(2 * BASE, MuReadout))
    ratios = {}
    for key, value in model.named_parameters():
        filled = before[key] != 0
        ratios[key] = float((value.detach()[filled] / before[key][filled]).median()) if filled.any() else 1.0
    readout = next(part for part in model.modules() if isinstance(part, MuReadout))
    rules = {"adam": MuAdam, "adamw": MuAdamW, "sgd": MuSGD}
    return {
        "case": name,
        "width": width,
        "init_ratio": ratios,
        "output_multiplier": 1 / readout.width_mult(),
        "factors": {rule: factors(model, make) for rule, make in rules.items()},
        "outputs": model.eval()(example(name)).detach().double().flatten().tolist(),
    }


def main() -> None:
    rows = [one(name, width) for name in CASES for width in WIDTHS]
    held = {"package": "mup 1.0.0", "base": BASE, "rows": rows}
    Path(sys.argv[1]).write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
