"""Methods of bench_empirical_ntk.py in PyTorch; each runs in a process of its own."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap

OUTPUTS = 10
SMALL = 1  # width of the network on which every method is called first, so that what it loads is loaded


def network(case: str, width: int) -> tuple[nn.Module, tuple[int, ...]]:
    """Module in evaluation mode, and the shape of an input."""
    torch.manual_seed(0)
    if case == "mlp":
        hidden = 64 * width
        layers = [nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, OUTPUTS)]
        return nn.Sequential(*layers).eval(), (784,)
    from widthwise.nn import resnet

    return resnet(width, input_shape=(3, 32, 32), outputs=OUTPUTS, blocks=(2, 2, 2, 2)).eval(), (3, 32, 32)


def inputs(shape: tuple[int, ...], examples: int) -> Tensor:
    return torch.randn(examples, *shape, generator=torch.Generator().manual_seed(1))


def export(case: str, width: int, examples: int, path: str) -> int:
    """Write parameters and inputs for neural-tangents; returns the number of parameters."""
    import numpy as np

    module, shape = network(case, width)
    parameters = {f"p:{name}": tensor.detach().numpy() for name, tensor in module.named_parameters()}
    x = inputs(shape, examples)
    np.savez(path, x=x.numpy(), v=_vector(x).numpy(), **parameters)
    return sum(part.size for part in parameters.values())


def worker(case: str, method: str, chunk: int, examples: int, width: int, repeats: int, save: str) -> dict:
    """Seconds, processor seconds and MiB of one method."""
    module, shape = network(case, width)
    x = inputs(shape, examples)
    with torch.no_grad():
        if method == "widthwise" or method == "widthwise vector":
            import widthwise  # noqa: F401  (the libraries are loaded before the measurement)
        small, shape = network(case, SMALL)
        METHODS[method](small, inputs(shape, 2), min(chunk, 2))()
        compute = METHODS[method](module, x, chunk)
        found, result = measured(compute, repeats)
    if save:
        torch.save(result, save)
    return found


def measured(compute: Callable[[], Tensor], repeats: int) -> tuple[dict[str, float], Tensor]:
    """Seconds of the best call, by the clock and of the processor; MiB by which the peak of the first call, and of the
    later ones (0 if there is none), stands above the memory before it; and the result."""
    before = memory("VmRSS")
    times, busy, peaks = [], [], []
    for _ in range(1 + repeats):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
        start, cpu = time.perf_counter(), time.process_time()
        result = compute()
        times.append(time.perf_counter() - start)
        busy.append(time.process_time() - cpu)
        peaks.append(memory("VmHWM") - before)
        if sum(times) > 20:
            break
    return {"seconds": min(times), "cpu": min(busy), "mib": peaks[0], "later": max(peaks[1:], default=0.0)}, result


def memory(field: str) -> float:
    """MiB of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**10


# --- the methods: from module, inputs and chunk to what is timed -----------------------------------------------------


def widthwise_kernel(module: nn.Module, x: Tensor, chunk: int) -> Callable[[], Tensor]:
    import widthwise

    return lambda: widthwise.empirical_ntk(module, x)


def contraction(module: nn.Module, x: Tensor, chunk: int) -> Callable[[], Tensor]:
    """The tutorial's ``compute='trace'``, symmetric half, over pairs of chunks."""
    parameters, single = _functional(module)

    def jacobian(rows: Tensor) -> list[Tensor]:
        jacobians = vmap(jacrev(single), (None, 0))(parameters, rows)
        return [part.flatten(2) for part in jacobians.values()]

    def compute() -> Tensor:
        n = len(x)
        kernel = torch.empty(n, n)
        for i in range(0, n, chunk):
            left = jacobian(x[i : i + chunk])
            for j in range(i, n, chunk):
                right = left if i == j else jacobian(x[j : j + chunk])
                tile = sum(torch.einsum("Naf,Maf->NM", a, b) for a, b in zip(left, right, strict=True)) / OUTPUTS
                kernel[i : i + chunk, j : j + chunk] = tile
                kernel[j : j + chunk, i : i + chunk] = tile.T
        return kernel

    return compute


def by_output(module: nn.Module, x: Tensor, chunk: int) -> Callable[[], Tensor]:
    """Gradients of one output for all examples, one output after the other."""
    parameters, single = _functional(module)

    def compute() -> Tensor:
        kernel = torch.zeros(len(x), len(x))
        for output in range(OUTPUTS):
            gradient = grad(lambda p, example, output=output: single(p, example)[output])
            parts = vmap(gradient, (None, 0))(parameters, x)
            for name in list(parts):
                part = parts.pop(name).flatten(1)
                kernel += part @ part.T
        return kernel / OUTPUTS

    return compute


def products(module: nn.Module, x: Tensor, chunk: int) -> Callable[[], Tensor]:
    """The tutorial's NTK-vector products, traced over outputs; rows one by one, columns in chunks."""
    parameters, single = _functional(module)

    def one(x1: Tensor, x2: Tensor) -> Tensor:
        _, pull = vjp(lambda p: single(p, x1), parameters)

        def column(v: Tensor) -> Tensor:
            _, pushed = jvp(lambda p: single(p, x2), (parameters,), pull(v))
            return pushed

        return vmap(column)(torch.eye(OUTPUTS)).diagonal().mean()

    def compute() -> Tensor:
        rows = [torch.cat([vmap(lambda b, a=a: one(a, b))(part) for part in x.split(chunk)]) for a in x]
        return torch.stack(rows)

    return compute


def widthwise_vector(module: nn.Module, x: Tensor, chunk: int) -> Callable[[], Tensor]:
    from widthwise.probe import ntk_vector_product

    v = _vector(x)
    return lambda: ntk_vector_product(module, x, None, v)


def vector(module: nn.Module, x: Tensor, chunk: int) -> Callable[[], Tensor]:
    """``J (J^T v)`` of all examples at once."""
    parameters = {name: tensor.detach() for name, tensor in module.named_parameters()}
    v = _vector(x)

    def outputs(p: dict[str, Tensor]) -> Tensor:
        return functional_call(module, p, (x,))

    def compute() -> Tensor:
        _, pull = vjp(outputs, parameters)
        return jvp(outputs, (parameters,), pull(v))[1]

    return compute


def _vector(x: Tensor) -> Tensor:
    return torch.randn(len(x), OUTPUTS, generator=torch.Generator().manual_seed(2))


def _functional(module: nn.Module) -> tuple[dict[str, Tensor], Callable[[dict[str, Tensor], Tensor], Tensor]]:
    parameters = {name: tensor.detach() for name, tensor in module.named_parameters()}

    def single(parameters: dict[str, Tensor], example: Tensor) -> Tensor:
        return functional_call(module, parameters, (example.unsqueeze(0),)).squeeze(0)

    return parameters, single


METHODS: dict[str, Callable[[nn.Module, Tensor, int], Callable[[], Tensor]]] = {
    "widthwise": widthwise_kernel,
    "by output": by_output,
    "contraction": contraction,
    "products": products,
    "widthwise vector": widthwise_vector,
    "vector": vector,
}
