"""Parameter groups in other people's training loops: compile, checkpoints, DDP, FSDP, Hugging Face."""

import argparse
import copy
import os
import socket
from collections.abc import Callable
from pathlib import Path
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


CODE = torch.tensor([byte for byte in Path(argparse.__file__).read_bytes() if byte < 128][: 32 * 16]).reshape(32, 16)
"""Program text: 32 windows of 16 characters of the standard library."""


def gpt2(width: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    off = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=width, n_layer=1, n_head=2, vocab_size=128, n_positions=16, **off))


def llama(width: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=128, max_position_embeddings=16, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


LANGUAGE_MODELS = pytest.mark.parametrize("build", [gpt2, llama], ids=["gpt2", "llama"])


def text_rows() -> list[dict[str, Tensor]]:
    return [{"input_ids": row, "labels": row} for row in CODE]


def groups_of(build: Callable[[int], nn.Module], module: nn.Module) -> Any:
    return parametrize(module, lr=0.02, base=build(16), example_inputs={"input_ids": CODE[:1]})


def loss_of(module: nn.Module) -> float:
    with torch.no_grad():
        return float(module(input_ids=CODE, labels=CODE).loss)


@LANGUAGE_MODELS
def test_language_models_learn_text_in_a_plain_loop(build):
    module = build(32)
    optimizer = torch.optim.AdamW(groups_of(build, module))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 40)
    ratios = [group["lr"] for group in optimizer.param_groups]
    before = loss_of(module)
    for step in range(20):
        batch = CODE[step % 4 :: 4]
        optimizer.zero_grad()
        module(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        schedule.step()
    assert loss_of(module) < before - 0.5
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([lr / 2 for lr in ratios])


@LANGUAGE_MODELS
def test_language_models_learn_text_in_hugging_faces_trainer(build, tmp_path):
    """Plain groups go in as they are; the trainer's own schedule multiplies them."""
    pytest.importorskip("accelerate", reason="transformers.Trainer needs accelerate")
    from transformers import Trainer, TrainingArguments

    module = build(32)
    optimizer = torch.optim.AdamW(groups_of(build, module))
    rates = [group["lr"] for group in optimizer.param_groups]
    assert len(set(rates)) > 1
    arguments = TrainingArguments(
        str(tmp_path), max_steps=20, per_device_train_batch_size=8, report_to=[], save_strategy="no", use_cpu=True,
        lr_scheduler_type="constant_with_warmup", warmup_steps=2, disable_tqdm=True,
    )  # fmt: skip
    before = loss_of(module)
    Trainer(module, arguments, train_dataset=text_rows(), optimizers=(optimizer, None)).train()
    assert loss_of(module.eval()) < before - 0.5
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(rates)


def test_lightning_trains_as_a_plain_loop_does(tmp_path):
    lightning = pytest.importorskip("lightning", reason="Lightning is not installed")

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.groups = prepared()

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.groups)

    module = Classifier()
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=16)
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, batches)
    for name, value in trained(3).items():
        assert torch.allclose(module.model.get_parameter(name), value, atol=1e-6), name


def test_optimiser_state_is_found_by_the_parameters_names(tmp_path):
    """State saved by name goes into groups that list the same parameters in another order."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    module, groups = prepared()
    optimizer = torch.optim.AdamW(groups)
    train(module, optimizer, 2)
    held = {"module": module.state_dict(), "optimizer": get_optimizer_state_dict(module, optimizer)}
    assert set(held["optimizer"]["state"]) == {name for name, _ in module.named_parameters()}
    torch.save(held, tmp_path / "state.pt")
    held = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = build(64)
    fresh.load_state_dict(held["module"])
    again = parametrize(fresh, "mup", lr=0.01, base=build(16), example_inputs=X, weight_decay=0.1, init=False)
    resumed = torch.optim.AdamW(list(reversed(again)))
    set_optimizer_state_dict(fresh, resumed, held["optimizer"])
    train(fresh, resumed, 2)
    for name, value in trained(4).items():
        assert torch.equal(fresh.get_parameter(name), value), name


def test_copies_keep_their_multipliers():
    module, _ = prepared()
    assert torch.equal(copy.deepcopy(module)(X), module(X))
