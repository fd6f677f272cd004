"""Empirical NTK of a finite network against the recipes of `torch.func` and neural-tangents 0.6.5.

    python benchmarks/bench_empirical_ntk.py [--examples 64] [--threads 2] [--width 16] [--peers torch,jax]

Same networks with the same numbers of parameters, same machine, one run; every method in a process of its own, which
reports seconds by the clock and of the processor (best of a few calls) and the rise of its peak memory over the memory
before the first call (libraries and network loaded). Peers: Jacobian contraction and NTK-vector products as in the
PyTorch tutorial "Neural Tangent Kernels", for some chunk sizes; and neural-tangents' three implementations. The kernels
of the methods in PyTorch, which share the weights, are compared. neural-tangents has no batch normalisation with
running statistics: its ResNet goes without.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
JAX_PYTHON = HERE / ".peers" / "neural-tangents" / "bin" / "python"
OUTPUTS = 10


def measured(compute: Callable[[], object], repeats: int) -> dict[str, float]:
    """Seconds of the best call, by the clock and of the processor, and MiB by which the peak rose."""
    before = _rss()
    times, busy = [], []
    for _ in range(1 + repeats):
        start, cpu = time.perf_counter(), time.process_time()
        compute()
        times.append(time.perf_counter() - start)
        busy.append(time.process_time() - cpu)
        if sum(times) > 20:
            break
    return {"seconds": min(times), "cpu": min(busy), "mib": max(0.0, _peak() - before)}


def _rss() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


# --- PyTorch ---------------------------------------------------------------------------------------------------------


def torch_worker(case: str, method: str, chunk: int, examples: int, width: int, repeats: int, save: str) -> dict:
    import torch
    from torch.func import functional_call, jacrev, jvp, vjp, vmap

    torch.manual_seed(0)
    module, shape = torch_network(case, width)
    module = module.eval()
    x = torch.randn(examples, *shape)
    parameters = {name: tensor.detach() for name, tensor in module.named_parameters()}

    def single(parameters, example):
        return functional_call(module, parameters, (example.unsqueeze(0),)).squeeze(0)

    def widthwise():
        import widthwise

        return widthwise.empirical_ntk(module, x)

    def jacobian(rows):
        jacobians = vmap(jacrev(single), (None, 0))(parameters, rows)
        return [part.flatten(2) for part in jacobians.values()]

    def contraction():
        """The tutorial's ``compute='trace'``, symmetric half, over pairs of chunks."""
        kernel = torch.empty(examples, examples)
        for i in range(0, examples, chunk):
            left = jacobian(x[i : i + chunk])
            for j in range(i, examples, chunk):
                right = left if i == j else jacobian(x[j : j + chunk])
                tile = sum(torch.einsum("Naf,Maf->NM", a, b) for a, b in zip(left, right, strict=True)) / OUTPUTS
                kernel[i : i + chunk, j : j + chunk] = tile
                kernel[j : j + chunk, i : i + chunk] = tile.T
        return kernel

    def products():
        """The tutorial's NTK-vector products, traced over outputs, over chunks of columns."""

        def one(x1, x2):
            _, pull = vjp(lambda p: single(p, x1), parameters)

            def column(v):
                _, pushed = jvp(lambda p: single(p, x2), (parameters,), pull(v))
                return pushed

            return vmap(column)(torch.eye(OUTPUTS)).diagonal().mean()

        rows = [
            torch.cat([vmap(lambda b, a=a: one(a, b))(part) for part in x.split(chunk)]) for a in x[: max(1, chunk)]
        ]
        return torch.stack(rows)

    compute = {"widthwise": widthwise, "contraction": contraction, "products": products}[method]
    if method == "widthwise":
        import widthwise  # the libraries are loaded before the measurement
    with torch.no_grad():
        found = measured(compute, repeats)
        if method == "products":  # only some rows are computed; the others would cost the same
            share = max(1, chunk) / examples
            found = {**found, "seconds": found["seconds"] / share, "cpu": found["cpu"] / share}
        if save and method != "products":
            torch.save(compute(), save)
    found["parameters"] = sum(tensor.numel() for tensor in parameters.values())
    return found


def torch_network(case: str, width: int):
    from torch import nn

    if case == "mlp":
        hidden = 64 * width
        return (
            nn.Sequential(
                nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, OUTPUTS)
            ),
            (784,),
        )
    from widthwise.nn import resnet

    return resnet(width, input_shape=(3, 32, 32), outputs=OUTPUTS, blocks=(2, 2, 2, 2)), (3, 32, 32)


# --- neural-tangents -------------------------------------------------------------------------------------------------


def jax_worker(case: str, method: str, chunk: int, examples: int, width: int, repeats: int) -> dict:
    import types

    sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")
    import jax
    import neural_tangents as nt
    from neural_tangents import stax

    init, apply, _ = stax_network(stax, case, width)
    shape = (784,) if case == "mlp" else (32, 32, 3)
    _, parameters = init(jax.random.PRNGKey(0), (1, *shape))
    x = jax.random.normal(jax.random.PRNGKey(1), (examples, *shape))
    kernel = nt.empirical_ntk_fn(apply, trace_axes=(-1,), vmap_axes=0, implementation=nt.NtkImplementation[method])
    batched = nt.batch(kernel, batch_size=chunk) if chunk < examples else jax.jit(kernel, static_argnums=())
    found = measured(lambda: batched(x, None, parameters).block_until_ready(), repeats)
    found["parameters"] = sum(leaf.size for leaf in jax.tree_util.tree_leaves(parameters))
    return found


def stax_network(stax, case: str, width: int):
    if case == "mlp":
        hidden = 64 * width
        return stax.serial(
            stax.Dense(hidden, b_std=0.1),
            stax.Relu(),
            stax.Dense(hidden, b_std=0.1),
            stax.Relu(),
            stax.Dense(OUTPUTS, b_std=0.1),
        )

    def block(channels: int, stride: int, project: bool):
        """Pre-activation, without normalisation: stax has none with running statistics."""
        sides = (stride, stride)
        branch = stax.serial(
            stax.Relu(),
            stax.Conv(channels, (3, 3), strides=sides, padding="SAME"),
            stax.Relu(),
            stax.Conv(channels, (3, 3), padding="SAME"),
        )
        shortcut = stax.Conv(channels, (1, 1), strides=sides, padding="SAME") if project else stax.Identity()
        return stax.serial(stax.FanOut(2), stax.parallel(branch, shortcut), stax.FanInSum())

    layers = [stax.Conv(width, (3, 3), padding="SAME")]
    for stage in range(4):
        for index in range(2):
            first = stage > 0 and index == 0
            layers.append(block(2**stage * width, 2 if first else 1, first))
    return stax.serial(*layers, stax.Relu(), stax.GlobalAvgPool(), stax.Dense(OUTPUTS))


# --- one run ---------------------------------------------------------------------------------------------------------


def run(python: str, arguments: dict, threads: int, limit: int) -> dict:
    """One method in its own process."""
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)),
        "JAX_PLATFORMS": "cpu",
    }
    command = [python, str(Path(__file__).resolve()), "--worker", json.dumps(arguments)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"error": f"longer than {limit} s"}
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        return {"error": lines[-1][:120] if lines else f"ended with {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=16, help="first channels of the ResNet; the MLP has 64 times that")
    parser.add_argument("--cases", default="mlp,resnet18")
    parser.add_argument("--peers", default="torch,jax")
    parser.add_argument("--chunks", default="8,16,64")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--limit", type=int, default=300, help="seconds for one method")
    parser.add_argument("--worker")
    options = parser.parse_args()
    if options.worker:
        arguments = json.loads(options.worker)
        worker = jax_worker if arguments.pop("library") == "jax" else torch_worker
        print(json.dumps(worker(**arguments)))
        return
    for case in options.cases.split(","):
        compare(case, options)


def compare(case: str, options: argparse.Namespace) -> None:
    common = {"case": case, "examples": options.examples, "width": options.width, "repeats": options.repeats}
    chunks = [int(part) for part in options.chunks.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        mine_at, peer_at = f"{folder}/mine.pt", f"{folder}/peer.pt"
        mine = run(
            sys.executable,
            {"library": "torch", "method": "widthwise", "chunk": 0, "save": mine_at, **common},
            options.threads,
            options.limit,
        )
        print(f"\n{case}: {options.examples} inputs, {OUTPUTS} outputs, {mine.get('parameters', 0):,} parameters")
        show("widthwise", mine, None)
        if "torch" in options.peers:
            for method, sizes in (("contraction", chunks), ("products", [4])):
                for chunk in sizes:
                    arguments = {"library": "torch", "method": method, "chunk": chunk, "save": peer_at, **common}
                    show(
                        f"torch.func {method}, chunk {chunk}",
                        run(sys.executable, arguments, options.threads, options.limit),
                        mine,
                    )
            report_difference(mine_at, peer_at)
        if "jax" in options.peers and JAX_PYTHON.exists():
            for method in ("JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS", "STRUCTURED_DERIVATIVES"):
                for chunk in (chunks[0], options.examples):
                    arguments = {"library": "jax", "method": method, "chunk": chunk, **common}
                    show(
                        f"neural-tangents {method}, chunk {chunk}",
                        run(str(JAX_PYTHON), arguments, options.threads, options.limit),
                        mine,
                    )


def show(name: str, found: dict, mine: dict | None) -> None:
    if "error" in found:
        print(f"  {name:58s} {found['error']}", flush=True)
        return
    line = f"  {name:58s} {found['seconds']:9.3f} s {found['cpu']:9.3f} cpu s {found['mib']:7.0f} MiB"
    if mine and "seconds" in mine:
        line += f"   time x{found['seconds'] / mine['seconds']:.1f}, cpu x{found['cpu'] / mine['cpu']:.1f}"
        line += f", memory x{found['mib'] / max(1.0, mine['mib']):.1f}"
    print(line, flush=True)


def report_difference(mine_at: str, peer_at: str) -> None:
    import torch

    if Path(mine_at).exists() and Path(peer_at).exists():
        mine, peer = torch.load(mine_at, weights_only=True), torch.load(peer_at, weights_only=True)
        print(f"  relative difference of the kernels: {float((mine - peer).norm() / peer.norm()):.1e}", flush=True)


if __name__ == "__main__":
    main()
