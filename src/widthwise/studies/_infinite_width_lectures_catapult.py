"""Large learning rates: where networks are lazy, catapult or diverge."""

import numpy as np

from widthwise.core import seeded
from widthwise.probe import catapult_scan, two_layer_linear_map
from widthwise.studies._findings import Outcome, compare
from widthwise.studies._infinite_width_lectures_networks import SLUG
from widthwise.studies._infinite_width_lectures_training import TRAIN, network, task
from widthwise.studies._types import Scale

CODES = {"lazy": 0.0, "catapult": 1.0, "divergent": 2.0}


def catapult_map(scale: Scale) -> Outcome:
    """The two-layer linear network: regimes, height and time of the peak, flatness of the end."""
    rows: list[str] = []
    predicted: list[float] = []
    measured: list[float] = []
    for multiple, regime in ((1.0, 0), (1.9, 0), (2.1, 1), (2.5, 1), (3.5, 1), (3.9, 1), (4.1, 2), (5.0, 2)):
        path = two_layer_linear_map(1.0, 2.0, multiple / 2, 400, 4000)
        peak = float(np.abs(path[:, 0]).max())
        found = 2.0 if not np.isfinite(path[-1, 0]) else float(peak > 1 + 1e-9)
        settled = found == 2.0 or (abs(path[-1, 0]) < 1e-3 and path[-1, 1] * multiple / 2 < 2)
        rows.append(f"eta lambda_0 = {multiple}: 0 lazy, 1 catapult, 2 divergent")
        predicted.append(float(regime))
        measured.append(found if settled else -1.0)
    widths = np.array([1e3, 1e4, 1e5, 1e6, 1e7])
    peaks, times = [], []
    for width in widths:
        losses = two_layer_linear_map(1.0, 2.0, 1.25, int(width), 400)[:, 0] ** 2
        peaks.append(losses.max())
        times.append(int(losses.argmax()))
    rows += ["eta lambda_0 = 2.5: power of the width in the peak loss", "steps to the peak per factor e of width"]
    predicted += [1.0, 1 / (2 * np.log(1.5))]
    measured += [float(np.polyfit(np.log(widths), np.log(peaks), 1)[0]), float(np.polyfit(np.log(widths), times, 1)[0])]
    detail = "f_0 = 1, lambda_0 = 2, n = 400 for the regimes; peaks for n from 1e3 to 1e7 (whole steps)."
    return [compare("catapult-map", rows, predicted, measured, detail, absolute=0.06)], {}


def catapult_digits(scale: Scale) -> Outcome:
    """The same regimes in ReLU networks on digits."""
    width, draws, steps = (128, 2, 100) if scale == "quick" else (1024, 5, 400)
    x, y, *_ = task()
    multiples = (0.5, 1.5, 3.0, 3.5, 6.0, 100.0)
    scans = []
    for draw in range(draws):
        with seeded(0, SLUG, "catapult", width, draw):
            net = network(width)
        scans.append(catapult_scan(net, x[:TRAIN], y, multiples=multiples, steps=steps, progress=False))
    rows: list[str] = []
    predicted: list[float] = []
    measured: list[float] = []
    for column, (multiple, regime) in enumerate(zip(multiples, (0, 0, 1, 1, 1, 2), strict=True)):
        rows.append(f"eta lambda_0 = {multiple:g}: 0 lazy, 1 catapult, 2 divergent")
        predicted.append(float(regime))
        measured.append(float(np.mean([CODES[scan.regimes[column]] for scan in scans])))
    ends = max(scan.final_multiples[column] for scan in scans for column in (2, 3))
    detail = (
        f"{TRAIN} digits, {draws} ReLU networks of width {width}, {steps} steps; mean regime. Largest eta lambda after "
        f"a catapult at 3 or 3.5: {ends:.2f}; all tried up to {min(scan.edge[0] for scan in scans):g} train."
    )
    finding = compare("catapult-network", rows, predicted, measured, detail, also=ends < 2.05)
    return [finding], {"large learning rates": scans[0].plot()}
