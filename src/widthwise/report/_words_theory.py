"""The plain words on finite width, training time and scaling."""

from widthwise.forecast._types import Forecast
from widthwise.forecast._types_theory import DynamicsSection, FluctuationsSection
from widthwise.report._numbers import count, number, percent

VERDICTS = {
    "kernel-like": "so wide for its depth that it learns little beyond its kernel",
    "near the optimum": "near the best depth for its width: features can move, and seeds still agree",
    "too deep for its width": "deep for its width: seeds differ much, and training may depend on the luck of the draw",
}


def depth(forecast: Forecast) -> list[str]:
    """How far signals reach in a deeper network of this kind; nothing for networks without such a theory."""
    found = forecast.network.criticality.depth
    if found is None:
        return []
    if found.trainable_depth is None:
        reach = "Depth is no obstacle to signals at this initialisation: they do not fade exponentially"
    else:
        layers = "layer" if round(found.trainable_depth) == 1 else "layers"
        reach = (
            f"In a deeper network of this kind the likeness of two inputs forgets its start within about "
            f"{number(found.correlation_depth or 0.0, 2)} layers; networks up to some "
            f"{number(found.trainable_depth, 2)} {layers} deep can be trained"
        )
    gradient = f"squared gradients at the first hidden layer are {number(found.gradient_ratio)} of those at the last"
    return [" ".join(filter(None, (f"{reach}; {gradient}.", found.note)))]


def finite_width(forecast: Forecast) -> list[str]:
    """How much seeds differ, depth against width, and what width would suit."""
    found = forecast.fluctuations
    if found is None:
        return ["What the finite width does was not determined for this network."]
    return [*_spread(found), *_ratio(found), *_advised(found)]


def _spread(found: FluctuationsSection) -> list[str]:
    said = []
    if found.relative_ntk is not None:
        said.append(
            f"From one random initialisation to the next the tangent kernel differs by about "
            f"{percent(found.relative_ntk, 0)}, as the theory of finite width predicts"
        )
    if found.measured_ntk is not None:
        how = f"{count(found.measured_draws)} draws on {count(found.measured_examples)} examples"
        share = percent(found.measured_ntk, 0)
        said.append(
            f"the module itself, in {how}, shows {share}"
            if said
            else f"From one random initialisation to the next the module's tangent kernel differs by {share} ({how})"
        )
    return [f"{'; '.join(said)}."] if said else []


def _ratio(found: FluctuationsSection) -> list[str]:
    if not found.activation:
        return [found.sentence]
    if found.verdict not in VERDICTS:
        return [f"{found.activation} has no critical initialisation, so that no best depth over width is known."]
    start = "Depth over width" if found.exact else "If it were a perceptron of its widths, its depth over width"
    return [
        f"{start} is {number(found.ratio)}, {number(found.relative_to_optimum, 2)} times the value where theory sees "
        f"the best balance: the network is {VERDICTS[found.verdict]}."
    ]


def _advised(found: FluctuationsSection) -> list[str]:
    if found.advised_width is None:
        return []
    layers = len(found.widths) - 2
    hidden = "hidden layer" if layers == 1 else "hidden layers"
    return [f"For {count(layers)} {hidden} that balance lies at a width of about {count(round(found.advised_width))}."]


def finite_width_notes(forecast: Forecast) -> tuple[str, ...]:
    """What the theory assumed, as sentences."""
    found = forecast.fluctuations
    notes = () if found is None else found.notes
    return tuple(f"{note[0].upper()}{note[1:]}" for note in notes if note)


def dynamics(forecast: Forecast) -> list[str]:
    """When to stop, what stopping is worth, and how fast one may go."""
    found = forecast.dynamics
    if found is None:
        return ["Training in time was not computed."]
    return [_stopping(found), _against_ridge(found), _rates(found)]


def _stopping(found: DynamicsSection) -> str:
    where = f"on {count(found.n)} examples"
    if found.best_steps is None:
        return (
            f"Trained {where} near its kernel, the network's test error falls to {number(found.final_mse)} and stays "
            "there: stopping early gains nothing."
        )
    gain = percent(1 - found.best_mse / found.final_mse) if found.final_mse > 0 else ""
    return (
        f"Trained {where} near its kernel, the network's test error is lowest, {number(found.best_mse)}, after about "
        f"{number(found.best_steps, 2)} steps; training for ever ends at {number(found.final_mse)}"
        + (f", so that stopping saves {gain}." if gain else ".")
    )


def _against_ridge(found: DynamicsSection) -> str:
    ratio = found.best_mse / found.ridge_mse if found.ridge_mse > 0 else 1.0
    ridge = f"the best ridge ({number(found.ridge_value, 2)}) reaches {number(found.ridge_mse)} on the same examples"
    if abs(ratio - 1) < 0.01:
        return f"Stopping in time is as good as a ridge: {ridge}."
    better, worse = ("Stopping in time beats a ridge", "A ridge beats stopping in time")
    return f"{better if ratio < 1 else worse}: {ridge}."


def _rates(found: DynamicsSection) -> str:
    fast = (
        f"Steps are those of gradient descent at half the largest stable rate; the slowest direction needs about "
        f"{number(found.condition_number, 2)} times as many as the fastest."
    )
    if found.module_rate is None:
        return fast
    return (
        f"{fast} For the module as it stands, plain gradient descent on torch.nn.MSELoss leaves the stable range of "
        f"its linearisation above a learning rate of about {number(found.module_rate, 2)}."
    )


def scaling(forecast: Forecast) -> list[str]:
    """What to do when the width grows."""
    if not forecast.scaling:
        return list(forecast.scaling_notes) or ["How to scale this network was not determined."]
    slow = [row.role for row in forecast.scaling if row.adam_factor < 1]
    roles = " and ".join(dict.fromkeys(slow))
    first = (
        f"When the width doubles, halve the Adam learning rate of {roles} weights and keep the others"
        if slow and all(row.adam_factor in (0.5, 1.0) for row in forecast.scaling)
        else "When the width changes, scale each role as in the table"
    )
    return [
        f"{first}: then the learning rate that is best for a narrow network stays best for a wide one (spectral "
        "parametrization).",
        "Do it with ww.parametrize(module, 'spectral', lr=..., base=narrow_module), which returns parameter groups "
        "for the optimiser; check it with ww.coordinate_check(build, widths=[...]), tune the narrow network, and "
        "train the wide one.",
    ]
