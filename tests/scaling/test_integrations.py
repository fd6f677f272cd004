"""Parameter groups in other people's training loops: compile, checkpoints, DDP, FSDP, Hugging Face."""

import copy
import importlib.util
import os
import socket
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from widthwise.scaling import parametrize

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(4))
Y = torch.arange(16) % 3


def build(width: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))


def prepared(width: int = 64) -> tuple[nn.Sequential, Any]:
    module = build(width)
    return module, parametrize(module, "mup", lr=0.01, base=build(16), example_inputs=X, weight_decay=0.1)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3, share: slice = slice(None)) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(X[share]), Y[share]).backward()
        optimizer.step()


def trained(steps: int = 3) -> dict[str, Tensor]:
    module, groups = prepared()
    train(module, torch.optim.AdamW(groups), steps)
    return {name: value.detach().clone() for name, value in module.named_parameters()}


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop, torch.optim.NAdam])
def test_groups_are_what_optimisers_take(optimizer):
    module, groups = prepared()
    train(module, optimizer(groups))
    assert all(torch.isfinite(value).all() for value in module.parameters())


def test_a_compiled_module_keeps_multipliers_and_trains_alike():
    module, groups = prepared()
    compiled = torch.compile(module, backend="aot_eager")
    train(compiled, torch.optim.AdamW(groups))
    for name, value in trained().items():
        assert torch.allclose(module.get_parameter(name), value, atol=1e-6), name


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    """Module and optimiser saved after two steps, loaded without pickled objects, two more steps: as four in one go."""
    module, groups = prepared()
    optimizer = torch.optim.AdamW(groups)
    train(module, optimizer, 2)
    torch.save({"module": module.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    held = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = build(64)
    fresh.load_state_dict(held["module"])
    again = parametrize(fresh, "mup", lr=0.01, base=build(16), example_inputs=X, weight_decay=0.1, init=False)
    resumed = torch.optim.AdamW(again)
    resumed.load_state_dict(held["optimizer"])
    train(fresh, resumed, 2)
    for name, value in trained(4).items():
        assert torch.equal(fresh.get_parameter(name), value), name


def worker(rank: int, port: int, kind: str, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    module, groups = prepared()
    if kind == "ddp":
        wrapped: nn.Module = nn.parallel.DistributedDataParallel(module)
    else:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        names = {id(p): name for name, p in module.named_parameters()}
        by_name = [[names[id(p)] for p in group["params"]] for group in groups]
        wrapped = fully_shard(module, mesh=init_device_mesh("cpu", (2,)))
        for group, members in zip(groups, by_name, strict=True):
            group["params"] = [module.get_parameter(name) for name in members]
    train(wrapped, torch.optim.AdamW(groups), share=slice(8 * rank, 8 * rank + 8))
    full = {}
    for name, value in module.named_parameters():
        full[name] = value.full_tensor().detach() if hasattr(value, "full_tensor") else value.detach()
    if rank == 0:
        torch.save(full, f"{folder}/full.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_train_as_one(kind, tmp_path):
    """Each takes half of the batch; the result is that of one process with the whole batch."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(worker, (port, kind, str(tmp_path)), nprocs=2)
    found = torch.load(tmp_path / "full.pt", weights_only=True)
    for name, value in trained().items():
        assert torch.allclose(found[name], value, atol=1e-5), name


TEXT = "the width of a network is the number of its neurons per layer; its depth is the number of its layers. " * 6


def gpt2(width: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    off = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=width, n_layer=1, n_head=2, vocab_size=128, n_positions=16, **off))


def text_rows() -> list[dict[str, Tensor]]:
    codes = torch.tensor(list(TEXT.encode("ascii")))[: 32 * 16].reshape(32, 16)
    return [{"input_ids": row, "labels": row} for row in codes]


def groups_of(module: nn.Module) -> Any:
    return parametrize(module, lr=0.02, base=gpt2(16), example_inputs={"input_ids": text_rows()[0]["input_ids"][None]})


def loss_of(module: nn.Module) -> float:
    batch = {key: torch.stack([row[key] for row in text_rows()]) for key in ("input_ids", "labels")}
    with torch.no_grad():
        return float(module(**batch).loss)


def test_gpt2_learns_text_in_a_plain_loop():
    module = gpt2(32)
    optimizer = torch.optim.AdamW(groups_of(module))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 40)
    ratios = [group["lr"] for group in optimizer.param_groups]
    before, rows = loss_of(module), text_rows()
    for step in range(20):
        batch = {key: torch.stack([row[key] for row in rows[step % 4 :: 4]]) for key in ("input_ids", "labels")}
        optimizer.zero_grad()
        module(**batch).loss.backward()
        optimizer.step()
        schedule.step()
    assert loss_of(module) < before - 0.5
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([lr / 2 for lr in ratios])


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="transformers.Trainer needs accelerate")
def test_gpt2_learns_text_in_hugging_faces_trainer(tmp_path):
    from transformers import Trainer, TrainingArguments

    module = gpt2(32)
    optimizer = torch.optim.AdamW(groups_of(module))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    arguments = TrainingArguments(
        str(tmp_path), max_steps=20, per_device_train_batch_size=8, report_to=[], save_strategy="no", use_cpu=True
    )
    before = loss_of(module)
    Trainer(module, arguments, train_dataset=text_rows(), optimizers=(optimizer, schedule)).train()
    assert loss_of(module.eval()) < before - 0.5


def test_copies_keep_their_multipliers():
    module, _ = prepared()
    assert torch.equal(copy.deepcopy(module)(X), module(X))
