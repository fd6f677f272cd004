"""The Triton kernels against the roofline of the GPU that they run on: a Myrtle network with five layers, NTK.

    python benchmarks/bench_gpu.py [inputs]

The roofline of the convolutional kernel: every covariance passes `RELU_LAYER_FLOPS` operations per layer, in
registers; memory carries the features of the inputs and the planes between stages (both at least once). Whatever takes
longer bounds the time. Both rates are measured on the device, by a matrix product in float32 and by a copy. The matrix
product is bound by other instructions than the kernel, so that the fraction is a lower bound of what remains.
"""

import sys
import time
from collections.abc import Callable

import torch
from torch import nn

import widthwise as ww
from widthwise.kernels.engines import Plan, compile_plan

RELU_LAYER_FLOPS = 59
"""Additions and multiplications per covariance and layer; as in `bench_engines.py`."""


def myrtle(channels: int = 16) -> nn.Module:
    """Five layers on images of 32 x 32: four convolutions, three poolings, and an average over positions."""
    layers: list[nn.Module] = []
    for index, pools in enumerate((0, 1, 1, 1)):
        layers += [nn.Conv2d(channels if index else 3, channels, 3, padding=1), nn.ReLU()]
        layers += [nn.AvgPool2d(2)] * pools
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1))


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Smallest time of several calls, to the end of the device's work."""
    found = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found)


def rates() -> tuple[float, float]:
    """Floating-point operations and bytes per second."""
    a = torch.randn(8192, 8192, device="cuda")
    b = torch.empty_like(a)
    return 2 * 8192**3 / seconds(lambda: a @ a, 8), 2 * a.nbytes / seconds(lambda: b.copy_(a), 8)


def demand(plan: Plan, count: int) -> tuple[float, float]:
    """Operations and bytes of a symmetric matrix of `count` inputs."""
    pairs = count * (count + 1) / 2
    moved = 4 * plan.places * count + 2 * 2 * 4 * plan.buffer * pairs + 8 * count * count
    return plan.work * RELU_LAYER_FLOPS * pairs, moved


def main(count: int = 2000) -> None:
    """Measure and print."""
    if not torch.cuda.is_available():
        raise SystemExit("bench_gpu.py measures a GPU, and PyTorch finds no CUDA device here.")
    torch.backends.cuda.matmul.allow_tf32 = False
    x = torch.randn(count, 3, 32, 32, device="cuda")
    limit = ww.infinite(ww.trace(myrtle(), x[:2].cpu()), weight_std=2**0.5, bias_std=0.1, engine="triton")
    plan = compile_plan(limit.output, contribution=lambda _, variance, fan_in: variance)
    if plan is None:
        raise SystemExit("the network does not compile to a plan; the benchmark needs mending.")
    limit(x[:4], dtype=torch.float32)  # compiles
    taken = seconds(lambda: limit(x, dtype=torch.float32), 1)
    flops, moved = demand(plan, count)
    flop_rate, byte_rate = rates()
    bound = max(flops / flop_rate, moved / byte_rate)
    print(
        f"{torch.cuda.get_device_name()}: {count} inputs in {taken:.1f} s; {flops:.3g} operations at {flop_rate:.3g}/s "
        f"and {moved:.3g} bytes at {byte_rate:.3g}/s allow {bound:.1f} s; fraction of the roofline {bound / taken:.2f}"
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
