"""Solvers against dense linear algebra; budgets, interruptions, preconditioners."""

import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import rbf_kernel

import widthwise as ww
from widthwise.core import ResourceError
from widthwise.kernels import GramStore, NotPositiveDefinite
from widthwise.kernels.regression import _cholesky
from widthwise.kernels.regression._cholesky import factorise
from widthwise.kernels.regression._conjugate import Checkpoint, conjugate_gradients
from widthwise.kernels.regression._gram import ArrayGram, KernelGram, StoreGram, exact_product
from widthwise.kernels.regression._preconditioner import LowRank, Preconditioner, pivoted_cholesky

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 3))
Y = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], 1) + 0.1 * RNG.standard_normal((300, 2))
RIDGE = 1e-2


def rbf(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return rbf_kernel(a, b, gamma=0.2)


K = rbf(X, X)
K = (K + K.T) / 2
WANT = np.linalg.solve(K + RIDGE * np.eye(300), Y)


def in_store(folder: Path, dtype: str = "float64") -> GramStore:
    store = GramStore.create(folder / "gram.zarr", rbf, X, dtype=dtype, tile=70)
    store.fill()
    return store


@pytest.mark.parametrize("place", ["array", "store"])
@pytest.mark.parametrize("memory", [None, 3 * 8 * 300 * 50, 0])
def test_cholesky_in_memory_and_on_disk(place: str, memory: float | None, tmp_path: Path) -> None:
    gram = ArrayGram(K) if place == "array" else StoreGram(in_store(tmp_path))
    factor = factorise(gram, RIDGE, memory=memory, workdir=tmp_path)
    panels = {None: 1, 3 * 8 * 300 * 50: 6, 0: 19}[memory]
    assert len(factor.panels) == panels and factor.on_disk == (panels > 1)
    assert np.allclose(factor.solve(Y), WANT, rtol=1e-9, atol=1e-9)
    low = np.linalg.cholesky(K + RIDGE * np.eye(300))
    assert np.allclose(factor.solve_lower(Y), np.linalg.solve(low, Y), atol=1e-9)
    assert factor.log_determinant == pytest.approx(np.linalg.slogdet(K + RIDGE * np.eye(300))[1], rel=1e-10)
    assert factor.condition <= np.linalg.cond(K + RIDGE * np.eye(300))


def test_cholesky_on_disk_stays_within_its_budget(tmp_path: Path) -> None:
    n, budget = 2000, 6e6
    x = np.random.default_rng(1).standard_normal((n, 3)).astype(np.float32)
    store = GramStore.create(tmp_path / "gram.zarr", rbf, x, dtype="float32", tile=128)
    store.fill()
    tracemalloc.start()
    factor = factorise(StoreGram(store), 1.0, memory=budget, workdir=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert factor.on_disk and n * n * 4 > 2 * budget
    assert peak < budget
    y = np.random.default_rng(2).standard_normal((n, 1))
    found = factor.solve(y)
    assert np.linalg.norm(store @ found + found - y) < 1e-4 * np.linalg.norm(y)


def test_estimator_with_a_tiny_budget_gives_the_same(tmp_path: Path) -> None:
    store = in_store(tmp_path)
    for options in ({"solver": "cholesky"}, {"solver": "cg", "tol": 1e-10}):
        model = ww.KernelRegressor(store, ridge=RIDGE, memory=1e4, workdir=tmp_path, **options).fit(None, Y)
        assert np.allclose(model.dual_coef_, WANT, atol=1e-6)
        again = ww.KernelRegressor(rbf, ridge=RIDGE, memory=1e4, workdir=tmp_path, **options).fit(X, Y)
        assert np.allclose(again.dual_coef_, WANT, atol=1e-6)
        assert np.allclose(again.predict(X[:5], return_std=True)[1] ** 2, posterior(X[:5]), atol=1e-7)


def posterior(x: np.ndarray) -> np.ndarray:
    cross = rbf(x, X)
    inner = np.linalg.solve(K + RIDGE * np.eye(300), cross.T)
    return (1 - (cross * inner.T).sum(1))[:, None] * np.ones(2)


def test_the_folder_of_panels_goes_with_the_factor(tmp_path: Path) -> None:
    factor = factorise(ArrayGram(K), RIDGE, memory=0, workdir=tmp_path)
    assert any(tmp_path.iterdir())
    del factor
    assert not any(tmp_path.iterdir())


def test_cholesky_without_room_on_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(_cholesky.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match="give a workdir"):
        factorise(ArrayGram(K), RIDGE, memory=0, workdir=tmp_path)
    assert not any(tmp_path.iterdir())


def test_indefinite_in_panels_names_the_smallest_eigenvalue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = K - 0.3 * np.eye(300)
    with pytest.raises(NotPositiveDefinite) as caught:
        factorise(ArrayGram(matrix), 0.0, memory=0, workdir=tmp_path)
    assert caught.value.eigenvalue == pytest.approx(np.linalg.eigvalsh(matrix)[0], rel=1e-9)
    by_lanczos = _cholesky._extremes(ArrayGram(matrix))
    assert by_lanczos == pytest.approx((caught.value.eigenvalue, np.linalg.eigvalsh(matrix)[-1]), rel=2e-2)


def test_float32_is_refined_to_the_solution_of_its_matrix(tmp_path: Path) -> None:
    store = in_store(tmp_path, "float32")
    exact = np.linalg.solve(np.asarray(store).astype(float) + 0.1 * np.eye(300), Y)
    for solver in ("exact", "cholesky", "cg"):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)  # residuals in float64 reach any tolerance
            model = ww.KernelRegressor(store, ridge=0.1, solver=solver, dtype="float32", tol=1e-9).fit(None, Y)
        assert model.residual_ < 1e-9
        assert np.allclose(model.dual_coef_, exact, rtol=0.0, atol=1e-6 * np.abs(exact).max())


def test_products_in_double_precision(tmp_path: Path) -> None:
    """Of entries in single precision: exact where products in single precision are not."""
    store = in_store(tmp_path, "float32")
    want = np.asarray(store).astype(float) @ Y
    for gram in (StoreGram(store), ArrayGram(np.asarray(store)), ArrayGram(np.asarray(store).astype(float))):
        np.testing.assert_allclose(exact_product(gram, Y), want, rtol=1e-12, atol=1e-13 * np.abs(want).max())
    assert np.abs(StoreGram(store).matmat(Y) - want).max() > 1e-9 * np.abs(want).max()


def test_low_rank_of_full_rank_is_the_matrix_and_its_residual_is_the_diagonal_left() -> None:
    full = pivoted_cholesky(ArrayGram(K), 300, np.random.default_rng(0), block=32)
    assert np.allclose(full.factor @ full.factor.T, K, atol=1e-8)
    low = pivoted_cholesky(ArrayGram(K), 40, np.random.default_rng(0), block=8)
    assert low.factor.shape == (300, 40) and len(set(low.pivots)) == 40
    assert np.allclose(np.diagonal(K - low.factor @ low.factor.T), low.residual, atol=1e-10)


def test_pivots_meet_the_bound_of_their_paper() -> None:
    # arXiv:2207.06503, theorem 2.3: rank r / e + r log(1 / (e eta)) leaves a trace error
    # of at most 1 + e times the best of rank r
    r, e = 10, 1.0
    best = np.linalg.eigvalsh(K)[:-r].sum()
    rank = int(np.ceil(r / e + r * np.log(np.trace(K) / (e * best))))
    draws = [pivoted_cholesky(ArrayGram(K), rank, np.random.default_rng(s), block=1).residual.sum() for s in range(10)]
    assert np.mean(draws) <= (1 + e) * best


def test_preconditioner_is_the_inverse_of_the_low_rank_matrix_plus_shift() -> None:
    low = pivoted_cholesky(ArrayGram(K), 40, np.random.default_rng(0), block=8)
    apply = Preconditioner(low, RIDGE)
    dense = low.factor @ low.factor.T + apply.shift * np.eye(300)
    assert np.allclose(apply(Y), np.linalg.solve(dense, Y), atol=1e-8)
    nothing = Preconditioner(LowRank(np.zeros((300, 0)), np.empty(0, int), np.ones(300)), 2.0)
    assert np.allclose(nothing(Y), Y / 2)


def test_preconditioning_saves_products() -> None:
    used = {}
    for rank in (0, 60):
        model = ww.KernelRegressor(rbf, ridge=1e-3, solver="cg", rank=rank, tol=1e-8).fit(X, Y)
        used[rank] = model.n_iter_
        assert np.allclose(model.dual_coef_, np.linalg.solve(K + 1e-3 * np.eye(300), Y), atol=1e-3)
    assert used[60] < used[0] / 4


def test_the_stated_residual_is_the_true_one() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        models = [ww.KernelRegressor(rbf, ridge=RIDGE, solver="cg", rank=0, max_iter=m).fit(X, Y) for m in (3, 10, 60)]
    for model in models:
        a = model.dual_coef_
        true = np.linalg.norm(Y - K @ a - RIDGE * a, axis=0) / np.linalg.norm(Y, axis=0)
        assert model.residual_ == pytest.approx(true.max(), rel=1e-6)
    assert [model.n_iter_ for model in models] == [3, 10, 60]
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        ww.KernelRegressor(rbf, ridge=RIDGE, solver="cg", rank=0, max_iter=3).fit(X, Y)


class Interrupted(ArrayGram):
    """Raises on one of the products."""

    def __init__(self, array: np.ndarray, at: int) -> None:
        super().__init__(array)
        self.at, self.count = at, 0

    def matmat(self, vectors: np.ndarray) -> np.ndarray:
        self.count += 1
        if self.count == self.at:
            raise KeyboardInterrupt
        return super().matmat(vectors)


def test_an_interrupted_iteration_goes_on_where_it_stopped(tmp_path: Path) -> None:
    apply = Preconditioner(pivoted_cholesky(ArrayGram(K), 10, np.random.default_rng(0)), RIDGE)
    options = {"tol": 1e-8, "max_iter": 500}
    whole = conjugate_gradients(ArrayGram(K), Y, RIDGE, apply, **options)
    assert whole.iterations > 20
    file = tmp_path / "state.npz"
    with pytest.raises(KeyboardInterrupt):
        conjugate_gradients(Interrupted(K, 16), Y, RIDGE, apply, checkpoint=Checkpoint(file, "a"), **options)
    rest = Interrupted(K, -1)
    resumed = conjugate_gradients(rest, Y, RIDGE, apply, checkpoint=Checkpoint(file, "a"), **options)
    assert np.array_equal(resumed.solution, whole.solution)
    assert resumed.iterations == whole.iterations
    assert rest.count <= whole.iterations - 15 + 2
    assert not file.exists()


def test_a_state_of_another_problem_or_a_torn_one_is_not_used(tmp_path: Path) -> None:
    file = tmp_path / "state.npz"
    with pytest.raises(KeyboardInterrupt):
        conjugate_gradients(
            Interrupted(K, 8), Y, RIDGE, lambda v: v, tol=1e-8, max_iter=500, checkpoint=Checkpoint(file, "a")
        )
    assert Checkpoint(file, "a").load().iterations == 7
    assert Checkpoint(file, "b").load() is None
    file.write_bytes(file.read_bytes()[:100])
    assert Checkpoint(file, "a").load() is None
    model = ww.KernelRegressor(rbf, ridge=RIDGE, solver="cg", checkpoint=file, tol=1e-9).fit(X, Y)
    assert np.allclose(model.dual_coef_, WANT, atol=1e-5) and not file.exists()


def test_tiles_computed_again_give_the_same_products() -> None:
    from widthwise.kernels.store import as_source
    from widthwise.kernels.store._source import torch_type

    gram = KernelGram(as_source(rbf, X, ("ntk",), torch_type("float64")), X, side=64)
    assert np.allclose(gram.matmat(Y), K @ Y)
    assert np.allclose(gram.rows(np.array([3, 299])), K[[3, 299]])
    assert np.allclose(gram.diagonal(), 1.0)


def test_rows_of_a_store_are_computed_where_it_knows_its_kernel(tmp_path: Path) -> None:
    """The same rows as read from its tiles, half of which lie in columns."""
    store, picked = in_store(tmp_path), np.array([3, 69, 70, 299])
    known, read = StoreGram(store).rows(picked), StoreGram(GramStore.open(store.path)).rows(picked)
    np.testing.assert_allclose(known, K[picked], rtol=1e-14)
    np.testing.assert_allclose(read, K[picked], rtol=1e-14)


def test_the_engine_is_chosen_for_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of a large matrix go to the engine that is worth its start for all of them."""
    asked = []
    monkeypatch.setattr("widthwise.kernels.engines._dispatch.worthwhile", lambda _, pairs: asked.append(pairs))
    x = RNG.standard_normal((50, 3))
    model = ww.KernelRegressor("mlp", ridge=1.0, solver="cg").fit(x, x[:, 0])
    model.predict(x[:2])
    assert asked and set(asked) == {50 * 50}
