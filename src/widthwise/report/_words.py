"""The plain words of the report: pure functions from numbers to sentences."""

import math
from collections import Counter

from widthwise.forecast._types import Forecast, LearningPoint
from widthwise.report._numbers import count, interval, number, percent, with_error
from widthwise.report._select import Agreement, agreement, curve, later, now, width_groups

KERNEL_WORDS = {
    "infinite": "the exact kernel of the infinitely wide network",
    "monte-carlo": "a kernel averaged over random wide copies of the network",
    "empirical": "the tangent kernel of the finite network itself, at its initialisation",
}


def title(forecast: Forecast) -> str:
    """The network and its data."""
    return f"{forecast.network.name} on {forecast.data.get('name', 'the data')}"


def size(forecast: Forecast) -> str:
    """How many examples of what size."""
    task = forecast.task
    return (
        f"{count(task.samples)} examples with {count(task.inputs)} inputs and "
        f"{count(task.outputs)} {'output' if task.outputs == 1 else 'outputs'}, tested on {count(task.held_out)} held "
        f"out."
    )


def network(forecast: Forecast) -> list[str]:
    """Size, state at initialisation, kernel."""
    found = forecast.network
    tensors = len(found.weights)
    size = (
        f"The network has {count(found.parameters)} trained parameters in {count(tensors)} "
        f"{'tensor' if tensors == 1 else 'tensors'}."
    )
    return [size, criticality(forecast), kernel(forecast)]


def criticality(forecast: Forecast) -> str:
    """Ordered, critical or chaotic, and what that means."""
    found = forecast.network.criticality
    if found.verdict == "unknown" or found.chi is None or not math.isfinite(found.chi):
        return f"Whether it is ordered or chaotic at initialisation is not known. {sentence(found.explanation)}".strip()
    if found.explanation:
        return sentence(found.explanation)
    means = {
        "ordered": "inputs look more and more alike with depth, and gradients shrink",
        "critical": "differences between inputs, and gradients, keep their size through the depth",
        "chaotic": "similar inputs are pushed apart with depth, and gradients grow",
    }.get(found.verdict, "")
    tail = f": {means}" if means else ""
    return f"At initialisation it is {found.verdict} (chi = {number(found.chi)}){tail}."


def kernel(forecast: Forecast) -> str:
    """Which kernel the forecast rests on, and how its nodes were computed."""
    found = forecast.network
    start = f"The forecast uses {KERNEL_WORDS.get(found.kernel, found.kernel + ' kernel')}."
    rules = Counter(row.rule for row in found.rules)
    parts = ", ".join(f"{count(many)} {rule}" for rule, many in rules.most_common())
    nodes = f" Rules used by its nodes: {parts}." if rules else ""
    return f"{start} {sentence(found.kernel_note)}".strip() + nodes


def task(forecast: Forecast) -> list[str]:
    """Exponents, where the power lies, noise."""
    found = forecast.task
    first = " ".join(
        (
            _exponent("The kernel's eigenvalues fall", "alpha", found.alpha, found.alpha_stderr),
            _exponent("The target's power falls", "beta", found.beta, found.beta_stderr),
        )
    )
    if math.isfinite(found.beta) and found.beta > 1:
        halving = 2 ** -(found.beta - 1)
        first += (
            f" While noise is small, twice the data then multiplies the error by about {number(halving, 2)} "
            f"(n^(1\N{MINUS SIGN}beta))."
        )
    return [first, *_power(forecast), noise(forecast), *_noise_check(forecast)]


def _exponent(what: str, name: str, value: float, error: float) -> str:
    if not math.isfinite(value):
        return f"{what} at a rate {name} that could not be estimated."
    return f"{what} like i^(\N{MINUS SIGN}{name}) with {name} = {with_error(value, error)}."


def _power(forecast: Forecast) -> list[str]:
    found = forecast.task
    pairs = zip(found.eigenvalue_index, found.cumulative_power, strict=False)
    half = next(((index, share) for index, share in pairs if share >= 0.5), None)
    if half is None:
        return []
    modes = "mode" if half[0] == 1 else f"{count(half[0])} modes"
    return [
        f"The first {modes} of {count(found.samples)} {'holds' if half[0] == 1 else 'hold'} {percent(half[1], 0)} of "
        f"the target's power."
    ]


def noise(forecast: Forecast) -> str:
    """How much of the targets no amount of data explains."""
    found = forecast.task
    if not math.isfinite(found.noise):
        return "The noise in the targets could not be estimated."
    share = f" ({percent(found.noise / found.target_power)} of their power)" if found.target_power > 0 else ""
    return (
        f"About {number(found.noise)}{share} of the targets' variance looks like noise that no amount of data explains."
    )


def _noise_check(forecast: Forecast) -> list[str]:
    found = forecast.task
    if found.noise_error is None or not math.isfinite(found.noise_error) or not math.isfinite(found.alpha):
        return []
    measured = with_error(found.noise_error, found.noise_error_stderr)
    return [
        f"Check: on labels of pure noise, regression at zero ridge has error {measured}; theory says that this equals "
        f"alpha, here {with_error(found.alpha, found.alpha_stderr)}."
    ]


def learning_curve(forecast: Forecast) -> list[str]:
    """What more data does, and how well the prediction agrees with what was measured."""
    return [more_data(forecast), *_accuracy(forecast), curve_agreement(forecast)]


def more_data(forecast: Forecast) -> str:
    """The effect of twice the data, with its interval."""
    here, there = now(forecast), later(forecast)
    if here is None:
        return "No learning curve was computed."
    if there is None:
        return f"With {count(here.n)} examples the test error should be {number(here.predicted_mse)}."
    verb = "fall" if there.predicted_mse < here.predicted_mse else "go"
    return (
        f"With {_times(there.n / here.n)} the data ({count(there.n)} examples) the test error should {verb} from "
        f"{number(here.predicted_mse)} to {number(there.predicted_mse)}{_between(there)}."
    )


def _between(point: LearningPoint) -> str:
    low, high = point.predicted_mse_low, point.predicted_mse_high
    return f" ({interval(low, high)})" if math.isfinite(low) and math.isfinite(high) else ""


def _accuracy(forecast: Forecast) -> list[str]:
    here, there = now(forecast), later(forecast)
    if here is None or here.predicted_accuracy is None:
        return []
    start = f"Test accuracy at {count(here.n)} examples should be {percent(here.predicted_accuracy)}"
    if there is None or there.predicted_accuracy is None:
        return [f"{start}."]
    return [f"{start}, at {count(there.n)} examples {percent(there.predicted_accuracy)}."]


def curve_agreement(forecast: Forecast) -> str:
    """Prediction against measurement over the learning curve."""
    found = agreement(forecast.learning_curve)
    if found is None:
        return "Nothing was measured to check this prediction against."
    return _agreement(found, "n")


def _agreement(found: Agreement, at: str) -> str:
    where = f"{at} = {count(found.worst_at)}"
    if found.points == 1:
        return f"At the one measured point ({where}) the prediction is off by {percent(found.worst)}."
    return (
        f"At {count(found.points)} measured points the prediction is off by {percent(found.median)} in the median and "
        f"by {percent(found.worst)} at worst ({where})."
    )


def width(forecast: Forecast) -> list[str]:
    """What more width does, and whether data or width helps more."""
    if not forecast.width_curve:
        surface = forecast.width_surface
        none = "The error was not measured against width (the network was given at one width only)."
        return [none] if surface is None else [sentence(surface.answer)]
    sentences = [sentence(forecast.width_surface.answer)] if forecast.width_surface is not None else []
    (_, ridge), points = list(width_groups(forecast).items())[-1]
    first, last = points[0], points[-1]
    if len(points) > 1:
        sentences.append(
            f"With only the last layer trained on {count(last.n)} examples, the predicted test error at {ridge} ridge "
            f"goes from {number(first.predicted_mse)} at width {count(first.width)} to {number(last.predicted_mse)} at "
            f"width {count(last.width)}."
        )
    found = agreement(forecast.width_curve)
    return [
        *sentences,
        _agreement(found, "width") if found else "Nothing was measured to check this prediction against.",
    ]


def width_caveat(forecast: Forecast) -> str:
    """Why measured points may lie off the prediction; nothing for a single hidden layer without convolutions."""
    weights = forecast.network.weights
    reasons = []
    if any(weight.role == "hidden" for weight in weights):
        reasons.append(
            "the earlier layers have the same finite width, and the theory counts only the last one as finite"
        )
    if any(len(weight.shape) > 2 for weight in weights):
        reasons.append("features at different positions share filters, and the theory takes features as independent")
    if not reasons:
        return ""
    return f"Where measured points lie off the lines, a reason is that {'; and that '.join(reasons)}."


def trust(forecast: Forecast) -> str:
    """What all of this is about: a kernel regression, not the trained network."""
    ridge = "optimal ridge" if curve(forecast, "optimal") else "zero ridge"
    return (
        "Predictions are for kernel regression with the network's kernel: the network in the limit where training "
        f"moves its features little ({ridge} unless it says otherwise). The training check shows how far the real "
        "network departs from this."
    )


CONVENTIONS = (
    "Test error (MSE) is the mean over test points of the squared error summed over outputs. One-hot targets are "
    "centred by the class frequencies of the training examples.",
    "A ridge is added to the kernel matrix itself: predictions use (K + ridge I)^-1.",
    "Within the sample, predictions are calibrated by leave-one-out errors of disjoint blocks of the sample; beyond "
    "it, they follow a fitted tail.",
    "Intervals of the prediction are its own error estimate; error bars of measurements are one standard error over "
    "draws.",
)


def _times(ratio: float) -> str:
    return "twice" if abs(ratio - 2) < 0.05 else f"{ratio:.2g} times"


def sentence(text: str) -> str:
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
