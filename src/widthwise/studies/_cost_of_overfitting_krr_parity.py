"""Parities on the hypercube: when each degree is learned."""

from itertools import combinations, product

import numpy as np

from widthwise.core import Axis, Figure, Line, Points
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._types import Scale
from widthwise.theory import (
    EigenSpectrum,
    hypercube_eigensystem,
    solve_kappa,
)


def parity(scale: Scale) -> Outcome:
    """Parities on the hypercube: at which n are they half learned?"""
    dimensions = (8, 10) if scale == "quick" else (8, 10, 12)
    trials = 20 if scale == "quick" else 40
    rng, rows, predicted, measured, stderr = np.random.default_rng(0), [], [], [], []
    for dimension in dimensions:
        cube = np.array(list(product((-1.0, 1.0), repeat=dimension)))
        for degree in (1, 2) if dimension < 10 else (1, 2, 3):
            n = round(_half_learned(dimension, degree))
            if n > len(cube) / 3:
                continue
            found = [_learnability(cube, degree, n, rng) for _ in range(trials)]
            rows.append(f"d={dimension}, degree {degree}: learnability at n={n}")
            predicted.append(_learnability_theory(dimension, degree, n))
            measured.append(float(np.mean(found)))
            stderr.append(float(np.std(found, ddof=1) / np.sqrt(trials)))
    large = np.array([20, 30, 40])
    curves = {degree: np.array([_half_learned(int(d), degree) for d in large]) for degree in (1, 2, 3)}
    slopes = [float(np.polyfit(np.log(large), np.log(curve), 1)[0]) for curve in curves.values()]
    near = all(abs(slope - degree) <= 0.3 for slope, degree in zip(slopes, curves, strict=True))
    finding = compare(
        "parity-hardness", rows, predicted, measured,
        f"exponential kernel of x.x'/d, {trials} training sets each; from d = 20 to 40 the n at which degrees 1, 2, 3 "
        f"are half learned grows with exponents {', '.join(f'{slope:.2f}' for slope in slopes)}.",
        absolute=0.05, uncertainty=stderr, errors=0.0, also=near,
    )  # fmt: skip
    return [finding], {"parities": _parity_figure(dimensions[-1], trials, rng)}


def _kernel(cosine: np.ndarray) -> np.ndarray:
    return np.exp(cosine)


def _levels(dimension: int) -> tuple[EigenSpectrum, np.ndarray]:
    values, counts = hypercube_eigensystem(_kernel, dimension)
    return EigenSpectrum(values, np.zeros_like(values), counts), values


def _half_learned(dimension: int, degree: int) -> float:
    """n at which kappa equals the degree's eigenvalue."""
    spectrum, values = _levels(dimension)
    return float(spectrum.degrees(np.array([values[degree]]))[0])


def _learnability_theory(dimension: int, degree: int, n: float | int) -> float:
    spectrum, values = _levels(dimension)
    return float(values[degree] / (values[degree] + solve_kappa(spectrum, n)))


def _learnability(cube: np.ndarray, degree: int, n: int, rng: np.random.Generator) -> float:
    """Share of one random parity that ridgeless regression on n points of the cube learns."""
    axes = list(combinations(range(cube.shape[1]), degree))
    parity = cube[:, axes[rng.integers(len(axes))]].prod(1)
    train = rng.choice(len(cube), n, replace=False)
    block = _kernel(cube[train] @ cube[train].T / cube.shape[1])
    fitted = _kernel(cube @ cube[train].T / cube.shape[1]) @ np.linalg.solve(block, parity[train])
    return float(parity @ fitted / len(cube))


def _parity_figure(dimension: int, trials: int, rng: np.random.Generator) -> Figure:
    cube = np.array(list(product((-1.0, 1.0), repeat=dimension)))
    sizes, dense = np.geomspace(4, 320, 8).astype(int), np.geomspace(3, 400, 60)
    series: list[Line | Points] = []
    for slot, degree in enumerate((1, 2, 3)):
        line = [_learnability_theory(dimension, degree, n) for n in dense]
        found = np.array([[_learnability(cube, degree, n, rng) for _ in range(trials // 4)] for n in sizes.tolist()])
        error = found.std(1, ddof=1) / np.sqrt(found.shape[1])
        series.append(Line(f"degree {degree}: predicted", floats(dense), floats(line), slot))
        series.append(Points(f"degree {degree}: measured", floats(sizes), floats(found.mean(1)), floats(error), slot))
    return Figure(
        f"Parities on the hypercube of dimension {dimension}",
        Axis("training examples n", "log"),
        Axis("learnability"),
        tuple(series),
        "Each further degree takes about d times as many examples.",
    )
