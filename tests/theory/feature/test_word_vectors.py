"""Word vectors: steps against automatic differentiation, exact equality in rotated dimensions, planted structure."""

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from widthwise.theory.feature import FeatureLimitError, vocabulary, word2vec
from widthwise.theory.feature._word_loops import training_loops
from widthwise.theory.feature._word_vectors import _keep

WORDS = 12


def one_pass(
    tokens, embeddings, outputs, *, noise=None, negative=1, rate=0.1, decay=0.0, skip_gram=False, frozen=False
):
    """One pass with every word kept and full control over the arrays, which change in place."""
    noise = np.ones(WORDS) if noise is None else noise  # every negative is word 0
    return training_loops(
        tokens, embeddings, outputs, np.ones(WORDS), noise, 1, negative, rate, decay, 1, skip_gram, frozen, 0
    )


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(WORDS, 7)).astype(np.float32) for _ in range(2)]


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_step_is_gradient_descent_on_the_logistic_loss(arrays, decay):
    """Sentence "3 5 4" at window 1 starts with word 3 given 5: one step, checked alone by a sentence of two words."""
    U, V = (torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays)
    (-logsigmoid(U[5] @ V[3]) - logsigmoid(-(U[5] @ V[0]))).backward()
    expected_v3 = (1 - 0.1 * decay) * V[3] - 0.1 * V.grad[3]
    expected_v0 = (1 - 0.1 * decay) * V[0] - 0.1 * V.grad[0]
    expected_u5 = (1 - 0.1 * decay) * U[5] - 0.1 * U.grad[5]
    embeddings, outputs = (array.copy() for array in arrays)
    one_pass(np.array([3, 5, -1]), embeddings, outputs, decay=decay)  # then word 5 given 3, at a lower rate
    np.testing.assert_allclose(outputs[3], expected_v3.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(embeddings[5], expected_u5.detach(), rtol=1e-5, atol=1e-6)
    assert not np.allclose(outputs[0], expected_v0.detach())  # the second step draws it again
    untouched = [word for word in range(WORDS) if word not in (0, 3, 5)]
    np.testing.assert_array_equal(outputs[untouched], arrays[1][untouched])


def test_the_bag_is_the_mean_of_the_context(arrays):
    embeddings, outputs = (array.copy() for array in arrays)
    U, V = (torch.tensor(array, dtype=torch.float64) for array in arrays)
    h = ((U[2] + U[6]) / 2).requires_grad_()
    (-logsigmoid(h @ V[4]) - logsigmoid(-(h @ V[0]))).backward()
    one_pass(np.array([2, 4, 6, -1]), embeddings, outputs, rate=1e-3, frozen=True)
    before = torch.sigmoid(-(h @ V[4])) * h  # the update of word 4 at its rate, two thirds of the first
    np.testing.assert_allclose(outputs[4] - arrays[1][4], 1e-3 * (1 - 1 / 4) * before.detach(), rtol=2e-2, atol=1e-6)
    np.testing.assert_array_equal(embeddings, arrays[0])


@pytest.mark.parametrize("skip_gram", [False, True])
def test_only_inner_products_matter(arrays, skip_gram):
    """Training commutes with rotations of the dimensions, so orthonormal embeddings stand for all random ones."""
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 20)))[0].astype(np.float32)
    tokens = np.random.default_rng(2).integers(0, WORDS, 200)
    noise = np.arange(1, WORDS + 1) / WORDS
    start = np.eye(WORDS, 20, dtype=np.float32)
    grams = []
    for embeddings in (start.copy(), start @ rotation):
        outputs = np.zeros((WORDS, 20), np.float32)
        one_pass(tokens, embeddings, outputs, noise=noise, negative=3, skip_gram=skip_gram, decay=0.01)
        grams.append((embeddings @ outputs.T, embeddings @ embeddings.T))
    for first, second in zip(*grams, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=2e-4)
    assert np.abs(grams[0][1] - np.eye(WORDS)).max() > 0.05


def planted(length: int = 6000) -> np.ndarray:
    """Sentences "a b c" over 4 topics of 3 words: the words of a topic share their company."""
    topics = np.random.default_rng(0).integers(0, 4, length)
    words = np.random.default_rng(1).integers(0, 3, (length, 4))
    rows = np.concatenate([3 * topics[:, None] + words, np.full((length, 1), -1)], 1)
    return rows.ravel()


@pytest.mark.parametrize("mode", ["cbow", "skip-gram"])
def test_words_of_a_topic_become_neighbours(mode):
    vectors = word2vec(planted(), WORDS, mode=mode, window=4, epochs=2, sample=0)
    for word in range(WORDS):
        topic = word // 3
        assert {other // 3 for other in vectors.neighbours(word, 2)} == {topic}
    frozen = word2vec(planted(600), WORDS, mode=mode, window=4, epochs=1, sample=0, kernel_regime=True)
    np.testing.assert_array_equal(frozen.embeddings, np.eye(WORDS, dtype=np.float32))


def test_finite_widths_and_drawn_vectors_approach_the_limit():
    """Inner products between embeddings and outputs, at the rate width^-1/2."""
    text = planted(300)
    limit = word2vec(text, WORDS, epochs=1, sample=0)
    target = limit.embeddings @ limit.outputs.T
    for find in (lambda n, s: word2vec(text, WORDS, width=n, epochs=1, sample=0, seed=s), limit.sample):
        errors = []
        for width in (32, 512):
            drawn = [find(width, seed) for seed in range(8)]
            errors.append(np.mean([np.square(v.embeddings @ v.outputs.T - target).mean() for v in drawn]) ** 0.5)
        slope = np.log(errors[1] / errors[0]) / np.log(16)
        # Seeds change the order of negatives too, which adds a floor for the trained ones.
        assert -0.75 < slope < (-0.35 if find == limit.sample else -0.05)


def test_held_out_loss_of_nothing_learned_is_that_of_coin_flips():
    vectors = word2vec(planted(300), WORDS, epochs=1, sample=0)
    blank = type(vectors)(None, vectors.embeddings, np.zeros_like(vectors.outputs), ())
    assert blank.held_out_loss(planted(100), negative=1)[0] == pytest.approx(2 * np.log(2), rel=0.1)
    loss, error = vectors.held_out_loss(planted(400)[1500:], window=4)
    assert loss < blank.held_out_loss(planted(400)[1500:], window=4)[0] - 5 * error


def test_analogies_by_hand():
    eye = np.eye(4, dtype=np.float32)
    shift = np.array([0, 0, 1, 0], np.float32)
    table = np.stack([eye[0], eye[0] + shift, eye[1], eye[1] + shift, eye[3]])
    vectors = word2vec(np.array([0, 1, 2, 3, 4]), 5, epochs=1, sample=0)
    made = type(vectors)(4, table, table, ())
    np.testing.assert_array_equal(made.analogies(np.array([[0, 1, 2, 3], [0, 1, 2, 4]])), [1.0, 0.0])
    one_hot = type(vectors)(None, np.eye(5, dtype=np.float32), table, ())
    np.testing.assert_allclose(one_hot.analogies(np.array([[0, 1, 2, 3]])), 0.5)  # a tie of the two others


def test_keeping_is_the_rule_of_the_c_tool():
    counts = np.array([990.0, 10.0])
    np.testing.assert_allclose(_keep(counts, 0.01), [(np.sqrt(99) + 1) / 99, 1.0])
    np.testing.assert_array_equal(_keep(counts, 0), 1.0)


def test_vocabulary_orders_by_frequency():
    names, tokens = vocabulary([["b", "a"], ["a", "c", "c", "c"]], 2)
    assert names == ["c", "a"]
    assert tokens.tolist() == [1, -1, 1, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("tokens", "settings", "words"),
    [
        ([], {}, "word numbers are none"),
        ([0, 9], {}, "from 0 to 9; give numbers from 0 to 3"),
        ([0, 1], {"width": 0}, "width=0"),
        ([0, 1], {"rate": -1.0}, "rate=-1"),
        ([0, 1], {"epochs": 0}, "epochs=0"),
        ([0, 1] * 400, {"rate": 1e30, "sample": 0}, "diverges with rate=1e"),
    ],
)
def test_requests_that_cannot_be_met(tokens, settings, words):
    with pytest.raises(FeatureLimitError, match=words):
        word2vec(np.array(tokens, dtype=np.int64), 4, **settings)
