"""Empirical NTK of a finite network against the recipes of `torch.func` and neural-tangents 0.6.5.

    python benchmarks/bench_empirical_ntk.py [--examples 64] [--threads 2] [--width 64] [--peers torch,jax]

Same network, same parameters, same inputs, same machine; every method in a process of its own, which reports seconds by
the clock and of the processor (best of a few calls) and how far the peak of its memory in the first call and in later
ones stands above the memory before them. Before that each is called on a network of the same form and the smallest
width with two inputs, so that the libraries that a first call loads are loaded; what it compiles for the network's own
shapes (neural-tangents) belongs to its first call. Methods that square with the examples are run on a few and scaled to
all, which is said in the line.

Peers: Jacobian contraction and NTK-vector products as in the PyTorch tutorial "Neural Tangent Kernels", for some chunk
sizes; gradients of one output after the other, which hold a tenth of the Jacobian and make none twice; and
neural-tangents' three implementations (benchmarks/peers/neural_tangents). The kernels are compared. The ResNet is in
evaluation mode, batch normalisation with running statistics; its gains and biases are parameters. Last, the product of
the kernel with a vector, against `torch.func.jvp` of `torch.func.vjp` and neural-tangents' `empirical_ntk_vp_fn`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
JAX_PYTHON = HERE / ".peers" / "neural-tangents" / "bin" / "python"
JAX_SCRIPT = HERE / "peers" / "neural_tangents" / "empirical_kernels.py"
METHODS = ("JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS", "STRUCTURED_DERIVATIVES")
Found = dict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=64, help="first channels of the ResNet; the MLP has 64 times that")
    parser.add_argument("--cases", default="mlp,resnet18")
    parser.add_argument("--peers", default="torch,jax,vector", help="output: one at a time only")
    parser.add_argument("--chunks", default="8", help="of the Jacobian contraction of torch.func, with commas")
    parser.add_argument("--few", type=int, default=4, help="examples of methods that square with them")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--limit", type=int, default=300, help="seconds for one method")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        from _empirical_ntk_methods import worker

        print(json.dumps(worker(**json.loads(options.worker))))
        return
    for case in options.cases.split(","):
        with tempfile.TemporaryDirectory() as folder:
            compare(case, options, folder)


def compare(case: str, options: argparse.Namespace, folder: str) -> None:
    from _empirical_ntk_methods import OUTPUTS, SMALL, export

    count = export(case, options.width, options.examples, f"{folder}/network.npz")
    export(case, SMALL, 2, f"{folder}/small.npz")
    print(f"\n{case}: {options.examples} inputs, {OUTPUTS} outputs, {count:,} parameters, {options.threads} threads")
    mine = in_torch(case, "widthwise", 0, options, save=f"{folder}/mine.pt")
    show("widthwise", mine, None)
    if "output" in options.peers or "torch" in options.peers:
        show(
            "torch.func, one output at a time", in_torch(case, "by output", 0, options, save=f"{folder}/peer.pt"), mine
        )
        report_difference(f"{folder}/mine.pt", f"{folder}/peer.pt")
    if "torch" in options.peers:
        for chunk in (int(part) for part in options.chunks.split(",")):
            show(f"torch.func Jacobian contraction, chunk {chunk}", in_torch(case, "contraction", chunk, options), mine)
        few = in_torch(case, "products", options.few, options, examples=options.few)
        show(f"torch.func NTK-vector products, from {options.few}", scaled(few, options), mine)
    if "jax" in options.peers and JAX_PYTHON.exists():
        for method in METHODS:
            save = f"{folder}/{method}.npy"
            few = in_jax(case, method, options, folder, save, options.few)
            show(f"neural-tangents {method}, from {options.few}", scaled(few, options), mine)
            report_difference(f"{folder}/mine.pt", save)
    if "vector" in options.peers:
        mine = in_torch(case, "widthwise vector", 0, options, save=f"{folder}/mine.pt")
        show("widthwise, kernel times vector", mine, None)
        show("torch.func jvp of vjp", in_torch(case, "vector", 0, options, save=f"{folder}/peer.pt"), mine)
        report_difference(f"{folder}/mine.pt", f"{folder}/peer.pt")
        if "jax" in options.peers and JAX_PYTHON.exists():
            save = f"{folder}/vector.npy"
            found = in_jax(case, "VECTOR", options, folder, save, options.examples)
            show("neural-tangents empirical_ntk_vp_fn", found, mine)
            report_difference(f"{folder}/mine.pt", save)


def in_torch(
    case: str, method: str, chunk: int, options: argparse.Namespace, *, examples: int | None = None, save: str = ""
) -> Found:
    arguments = {"case": case, "method": method, "chunk": chunk, "examples": examples or options.examples}
    arguments |= {"width": options.width, "repeats": options.repeats, "save": save}
    return run([sys.executable, str(Path(__file__).resolve()), "--worker", json.dumps(arguments)], options)


def in_jax(case: str, method: str, options: argparse.Namespace, folder: str, save: str, examples: int) -> Found:
    arguments = {"case": case, "method": method, "chunk": options.few, "examples": examples, "save": save}
    arguments |= {"repeats": options.repeats, "network": f"{folder}/network.npz", "small": f"{folder}/small.npz"}
    return run([str(JAX_PYTHON), str(JAX_SCRIPT), json.dumps(arguments)], options)


def run(command: list[str], options: argparse.Namespace) -> Found:
    """One method in its own process."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads))
    environment = {**os.environ, **threads, "JAX_PLATFORMS": "cpu"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=options.limit)
    except subprocess.TimeoutExpired:
        return {"error": f"longer than {options.limit} s"}
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        return {"error": lines[-1][:120] if lines else f"ended with {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def scaled(found: Found, options: argparse.Namespace) -> Found:
    """Times for all examples from those for a few: as many tiles as there are pairs of groups of a few."""
    if "error" in found:
        return found
    tiles = (options.examples / options.few) ** 2
    return {**found, "seconds": found["seconds"] * tiles, "cpu": found["cpu"] * tiles}


def show(name: str, found: Found, mine: Found | None) -> None:
    if "error" in found:
        print(f"  {name:58s} {found['error']}", flush=True)
        return
    line = f"  {name:58s} {found['seconds']:9.3f} s {found['cpu']:9.3f} cpu s"
    line += f" {found['mib']:6.0f}, {found['later']:.0f} MiB"
    if mine and "seconds" in mine:
        line += f"   time x{found['seconds'] / mine['seconds']:.1f}, cpu x{found['cpu'] / mine['cpu']:.1f}"
        line += f", memory x{found['mib'] / max(1.0, mine['mib']):.1f}"
    print(line, flush=True)


def report_difference(mine_at: str, peer_at: str) -> None:
    import torch

    if Path(mine_at).exists() and Path(peer_at).exists():
        mine = torch.load(mine_at, weights_only=True).numpy()
        peer = np.load(peer_at) if peer_at.endswith("npy") else torch.load(peer_at, weights_only=True).numpy()
        mine = mine[tuple(slice(0, side) for side in peer.shape)]
        print(f"    relative difference: {np.linalg.norm(mine - peer) / np.linalg.norm(peer):.1e}", flush=True)


if __name__ == "__main__":
    main()
