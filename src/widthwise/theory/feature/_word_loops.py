"""The inner loops of word2vec, compiled: they are sequential by nature, each word sees the last one's update."""

from typing import no_type_check

import numba
import numpy as np

# Sums may be reordered; infinities and NaN keep their meaning, so that divergence shows.
compiled = numba.njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})


@compiled
@no_type_check
def _softplus(x):
    return np.log1p(np.exp(-abs(x))) + max(x, 0.0)


@compiled
@no_type_check
def _dot(a, b):
    total = np.float32(0.0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@compiled
@no_type_check
def _pair(hidden, outputs, target, label, rate, decay, back):
    """One logistic regression step on one output vector; adds what goes back to `back`. Returns the loss."""
    row = outputs[target]
    score = _dot(hidden, row)
    gain = np.float32(rate * (label - 1.0 / (1.0 + np.exp(-score))))
    shrink = np.float32(1.0 - rate * decay)
    for i in range(row.shape[0]):
        back[i] += gain * row[i]
        row[i] = shrink * row[i] + gain * hidden[i]
    return _softplus(-score) if label else _softplus(score)


@compiled
@no_type_check
def _predict(hidden, outputs, word, noise, negative, rate, decay, back):
    """The target and its negatives; those that equal it are skipped."""
    loss = _pair(hidden, outputs, word, 1.0, rate, decay, back)
    for _ in range(negative):
        other = np.searchsorted(noise, np.random.random(), side="right")
        if other != word:
            loss += _pair(hidden, outputs, other, 0.0, rate, decay, back)
    return loss


@compiled
@no_type_check
def _move(row, back, shrink):
    for i in range(row.shape[0]):
        row[i] = shrink * row[i] + back[i]


@compiled
@no_type_check
def _context(tokens, at, reach):
    """Positions of the context within the sentence: from `first` to `last`."""
    first, last = at, at
    while first > 0 and at - first < reach and tokens[first - 1] >= 0:
        first -= 1
    while last < len(tokens) - 1 and last - at < reach and tokens[last + 1] >= 0:
        last += 1
    return first, last


@compiled
@no_type_check
def _gather(tokens, first, last, at, embeddings, hidden):
    """Mean embedding of the context."""
    hidden[:] = 0
    share = np.float32(1.0 / (last - first))
    for other in range(first, last + 1):
        if other != at:
            row = embeddings[tokens[other]]
            for i in range(hidden.shape[0]):
                hidden[i] += share * row[i]


@compiled
@no_type_check
def training_loops(
    tokens, embeddings, outputs, keep, noise, window, negative, rate, decay, epochs, skip_gram, frozen, seed
):
    """Train in place; mean loss per prediction of each epoch."""
    np.random.seed(seed)
    size = embeddings.shape[1]
    hidden, back = np.zeros(size, np.float32), np.zeros(size, np.float32)
    kept, losses = np.empty_like(tokens), np.zeros(epochs)
    for epoch in range(epochs):
        count = 0
        for token in tokens:
            if token < 0 or np.random.random() < keep[token]:
                kept[count] = token
                count += 1
        text = kept[:count]
        made = 0
        for at in range(count):
            if text[at] < 0:
                continue
            step = rate * max(1e-4, 1 - (epoch + at / count) / epochs)
            shrink = np.float32(1.0 - step * decay)
            first, last = _context(text, at, np.random.randint(1, window + 1))
            if first == last:
                continue
            if skip_gram:
                for other in range(first, last + 1):
                    if other != at:
                        back[:] = 0
                        row = embeddings[text[other]]
                        losses[epoch] += _predict(row, outputs, text[at], noise, negative, step, decay, back)
                        made += 1
                        if not frozen:
                            _move(row, back, shrink)
                continue
            back[:] = 0
            _gather(text, first, last, at, embeddings, hidden)
            losses[epoch] += _predict(hidden, outputs, text[at], noise, negative, step, decay, back)
            made += 1
            if not frozen:
                for other in range(first, last + 1):
                    if other != at:
                        _move(embeddings[text[other]], back, shrink)
        losses[epoch] /= max(made, 1)
    return losses


@compiled
@no_type_check
def held_out_loops(tokens, embeddings, outputs, noise, window, negative, skip_gram, seed):
    """Loss of each word of a text given its full context, against seeded negatives."""
    np.random.seed(seed)
    hidden = np.zeros(embeddings.shape[1], np.float32)
    values, made = np.empty(len(tokens)), 0
    for at in range(len(tokens)):
        if tokens[at] < 0:
            continue
        first, last = _context(tokens, at, window)
        if first == last:
            continue
        total, parts = 0.0, 0
        _gather(tokens, first, last, at, embeddings, hidden)
        others = np.searchsorted(noise, np.random.random(negative), side="right")
        for other in range(first, last + 1):
            if skip_gram and other == at:
                continue
            vector = embeddings[tokens[other]] if skip_gram else hidden
            total += _softplus(-_dot(vector, outputs[tokens[at]]))
            for word in others:
                if word != tokens[at]:
                    total += _softplus(_dot(vector, outputs[word]))
            parts += 1
            if not skip_gram:
                break
        values[made] = total / parts
        made += 1
    return values[:made]
