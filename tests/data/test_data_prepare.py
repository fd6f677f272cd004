"""Standardisation, layouts, targets and draws: identities that hold for any source."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from widthwise.core import DataError
from widthwise.data import DataSet, load

LABELS = np.arange(40) % 2


def images(samples: int = 40, seed: int = 0, shape: tuple[int, ...] = (3, 5, 4)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (samples, *shape), dtype=np.uint8)


def test_global_standardisation_has_one_mean_and_one_deviation():
    data = load((images(), LABELS))
    assert data.inputs.dtype == torch.float32
    assert abs(float(data.inputs.double().mean())) < 1e-6
    assert abs(float(data.inputs.double().std(correction=0)) - 1) < 1e-6
    assert data.input_mean.ndim == data.input_std.ndim == 0


def test_recorded_constants_undo_the_standardisation():
    pixels = images()
    data = load((pixels, LABELS))
    back = data.inputs.double() * data.input_std + data.input_mean
    torch.testing.assert_close(back, torch.from_numpy(pixels / 255), atol=1e-6, rtol=0)
    assert "divided by 255" in data.source and f"{float(data.input_mean):.6g}" in data.source


def test_without_standardisation_pixels_are_in_the_unit_interval():
    data = load((images(), LABELS), standardise=None)
    torch.testing.assert_close(data.inputs, torch.from_numpy(images() / 255).float(), atol=1e-7, rtol=1e-6)
    assert "not standardised" in data.source


def test_tables_are_standardised_per_feature_and_agree_with_scikit_learn():
    from sklearn.preprocessing import StandardScaler

    table = np.random.default_rng(0).normal(5, [1e-3, 1, 1e4], (40, 3))
    data = load((table, LABELS))
    expected = StandardScaler().fit_transform(table)
    np.testing.assert_allclose(data.inputs.numpy(), expected, atol=1e-5)


def test_large_offsets_keep_their_small_differences():
    stamps = (1.7e9 + np.arange(40.0))[:, None]
    data = load((stamps, LABELS))
    expected = (np.arange(40.0) - 19.5) / np.arange(40.0).std()
    np.testing.assert_allclose(data.inputs[:, 0].numpy(), expected, atol=1e-5)


def test_constant_features_become_zero_and_are_counted():
    table = np.random.default_rng(0).normal(size=(40, 3))
    table[:, 1] = 0.1
    data = load((table, LABELS))
    assert (data.inputs[:, 1] == 0).all()
    assert "1 constant features set to zero" in data.source


def test_the_held_out_part_gets_the_training_constants(tmp_path):
    rng = np.random.default_rng(0)
    x, x_test = rng.normal(3, 2, (40, 4)), rng.normal(-1, 5, (20, 4))
    np.savez(tmp_path / "a.npz", x=x, y=LABELS, x_test=x_test, y_test=LABELS[:20])
    data = load(tmp_path / "a.npz")
    np.testing.assert_allclose(data.test.inputs.numpy(), (x_test - x.mean(0)) / x.std(0), atol=1e-5)
    torch.testing.assert_close(data.input_mean, torch.from_numpy(x.mean(0)))


def test_constants_do_not_depend_on_how_many_samples_are_drawn():
    pixels = images()
    whole, part = load((pixels, LABELS)), load((pixels, LABELS), samples=7)
    assert float(whole.input_mean) == float(part.input_mean)
    rows = {row.numpy().tobytes() for row in whole.inputs}
    assert all(row.numpy().tobytes() in rows for row in part.inputs)


def test_work_in_pieces_gives_what_one_piece_gives(monkeypatch):
    pixels, floats = images(), np.random.default_rng(1).normal(size=(40, 6))
    whole = [load((array, LABELS), samples=23).inputs for array in (pixels, floats)]
    monkeypatch.setattr("widthwise.data._prepare._CHUNK_ELEMENTS", 130)
    pieces = [load((array, LABELS), samples=23).inputs for array in (pixels, floats)]
    for one, many in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, many, atol=1e-6, rtol=1e-6)


def test_draws_have_no_repetition_are_nested_and_follow_the_seed():
    table, targets = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40.0)
    small, large = (load((table, targets), samples=n).targets[:, 0].tolist() for n in (10, 25))
    assert len(set(large)) == 25 and large[:10] == small
    assert load((table, targets), samples=10).targets[:, 0].tolist() == small
    assert load((table, targets), samples=10, seed=1).targets[:, 0].tolist() != small


@pytest.mark.parametrize(
    ("array", "shape", "dtype"),
    [
        (images(), (3, 5, 4), torch.float32),
        (images(shape=(5, 4)), (1, 5, 4), torch.float32),
        (images(shape=(6, 5, 3)), (3, 6, 5), torch.float32),
        (np.random.default_rng(0).normal(size=(40, 2, 7)), (2, 7), torch.float32),
        (np.random.default_rng(0).normal(size=40), (1,), torch.float32),
        (torch.randn(40, 3, 4, 5, dtype=torch.bfloat16), (3, 4, 5), torch.float32),
        (torch.randn(40, 3, requires_grad=True), (3,), torch.float32),
        (torch.arange(80).reshape(40, 2), (2,), torch.int64),
    ],
)
def test_layouts(array, shape, dtype):
    data = load((array, LABELS))
    assert data.input_shape == shape and data.inputs.dtype == dtype


def test_tensors_keep_their_order_of_axes():
    assert load((torch.randn(40, 6, 5, 3), LABELS)).input_shape == (6, 5, 3)
    assert load((torch.randn(40, 16, 8, 1), LABELS)).input_shape == (16, 8, 1)


def test_small_channels_last_images_are_seen_as_such():
    assert load((images(shape=(4, 4, 3)), LABELS)).input_shape == (3, 4, 4)
    assert load((images(shape=(3, 4, 4)), LABELS)).input_shape == (3, 4, 4)


def test_channels_last_images_keep_their_pixels():
    pixels = images(shape=(6, 5, 3))
    data = load((pixels, LABELS), standardise=None)
    np.testing.assert_allclose(data.inputs[7, 2].numpy(), pixels[7, :, :, 2] / 255, atol=1e-7)


TABLE = np.random.default_rng(0).normal(size=(40, 2))


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        (LABELS, ("0", "1")),
        (LABELS * 10 - 5, ("-5", "5")),
        (LABELS.astype(bool), ("False", "True")),
        (np.where(LABELS, "pear", "apple"), ("apple", "pear")),
        (np.array(["apple", "pear"] * 20, dtype=object), ("apple", "pear")),
        (LABELS[:, None], ("0", "1")),
        (np.eye(2, dtype=int)[LABELS], ("0", "1")),
        (torch.from_numpy(LABELS), ("0", "1")),
        (LABELS.tolist(), ("0", "1")),
    ],
)
def test_labels_become_class_indices(targets, classes):
    data = load((TABLE, targets))
    assert data.classes == classes and data.targets.dtype == torch.int64
    assert data.targets.tolist() == LABELS.tolist() and data.outputs == 2


def test_ten_sorts_after_nine():
    assert load((np.random.default_rng(0).normal(size=(48, 2)), np.arange(48) % 12)).classes[-3:] == ("9", "10", "11")


@pytest.mark.parametrize(
    "targets", [LABELS.astype(float), np.arange(40), np.random.default_rng(0).normal(size=(40, 3)), np.eye(2)[LABELS]]
)
def test_floats_and_many_valued_whole_numbers_are_regression(targets):
    data = load((TABLE, targets))
    assert data.classes is None and data.targets.dtype == torch.float32
    np.testing.assert_allclose(data.targets.numpy(), targets.reshape(40, -1), rtol=1e-6)


def test_task_overrides_the_guess():
    assert load((TABLE, LABELS), task="regression").targets[:, 0].tolist() == LABELS.tolist()
    assert load((TABLE, LABELS.astype(float)), task="classification").classes == ("0", "1")
    assert load((TABLE, np.arange(40)), task="classification").outputs == 40
    assert load("digits", task="regression").outputs == 1


def test_a_data_set_stays_as_it_is():
    data = load("iris")
    assert load(data) is data
    part = load(data, samples=20)
    assert len(part) == 20 and part.classes == data.classes
    assert load(part, standardise="global").inputs.mean().abs() < 1e-6
    with pytest.raises(DataError, match="task='regression'"):
        load(data, task="regression")


def test_a_drawn_data_set_keeps_its_held_out_part():
    data = load("teacher:samples=50,test=30")
    assert load(data, samples=10).test is data.test


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 30), st.integers(1, 4)),
        elements=st.floats(-1e6, 1e6).map(lambda x: round(x, 3)),
    )
)
def test_any_table_is_standardised_or_refused_as_constant(table):
    targets = np.arange(len(table)) * 1.5
    if table.min() == table.max():
        with pytest.raises(DataError, match="zero variance"):
            load((table, targets))
        return
    inputs = load((table, targets)).inputs.double().numpy()
    varying = table.min(0) != table.max(0)
    np.testing.assert_allclose(inputs.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(inputs.std(0)[varying], 1, atol=1e-5)
    assert (inputs[:, ~varying] == 0).all()


def test_the_result_shares_no_memory_with_what_was_given():
    tokens = torch.arange(80).reshape(40, 2)
    table = torch.randn(40, 3)
    for inputs, options in ((tokens, {}), (table, {"standardise": None})):
        data = load((inputs, LABELS), **options)
        before = data.inputs.clone()
        inputs.add_(1)
        assert isinstance(data, DataSet) and torch.equal(data.inputs, before)
