import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import scipy.sparse
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from structmask import Causal, Dense, Kronecker, LowRank, StructuredMatrix, Toeplitz, plotting
from structmask.plotting import show_mask, show_row, show_scaling, show_spectrum

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def agg():
    matplotlib.use("Agg")
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return Figure().subplots()


def grid_mask(shape=(6, 8), heads=()):
    widths = np.arange(1.0, 1 + np.prod(heads, dtype=int)).reshape(*heads, 1, 1)
    return Toeplitz.from_function(lambda dy, dx: np.exp(-np.hypot(dy, dx) / widths) * (1 + 0.1 * dy), shape)


def of_first_head(dense):
    dense = dense[(0,) * (dense.ndim - 2)]
    return np.abs(dense) if np.iscomplexobj(dense) else dense


@dataclass(frozen=True, eq=False, repr=False)
class Shift(StructuredMatrix):
    """The cyclic shift of n points by some steps; it has no entries and is never formed."""

    n: int
    steps: int = 1

    @property
    def shape(self):
        return (self.n, self.n)

    def _matmat(self, X):
        assert X.size <= 1 << 22
        return np.roll(X, self.steps, axis=-2)

    def transpose(self):
        return Shift(self.n, -self.steps)

    def _pullback(self, G, X):
        return {}

    def to_dense(self):
        raise AssertionError


@dataclass(frozen=True, eq=False, repr=False)
class Decay(Causal):
    """A mask that refuses to give away more than some entries."""

    def to_dense(self):
        raise AssertionError

    def _at(self, i, j):
        assert np.broadcast(i, j).size <= 1 << 18
        return super()._at(i, j)


# --- show_mask --------------------------------------------------------------------------------------------------------


def test_mask_and_its_last_row_are_drawn_as_they_are(case, host, ax):
    M, n = case.build(host.array), case.dense.shape[-1]
    if 0 in M.shape:
        with pytest.raises(ValueError, match="no entries to draw"):
            show_mask(M, ax=ax)
        return
    want = of_first_head(case.dense)
    tolerance = 1e-12 * max(1.0, np.abs(want).max())
    image = show_mask(M, ax=ax, colorbar=False).images[0]
    np.testing.assert_allclose(image.get_array(), want, rtol=0, atol=tolerance)
    line = show_row(M, -1, ax=Figure().subplots(), shape=(n,)).lines[0]
    np.testing.assert_allclose(line.get_ydata(), want[-1], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("n", "rows", "want"), [(7, 7, range(7)), (7, 100, range(7)), (9, 3, [1, 4, 7]), (4, 1, [2])])
def test_mask_samples_evenly_spread_rows(n, rows, want, ax):
    M = Dense(np.arange(n * n, dtype=float).reshape(n, n))
    image = show_mask(M, ax=ax, rows=rows).images[0]
    np.testing.assert_array_equal(image.get_array(), M.to_dense()[np.ix_(want, want)])


@pytest.mark.parametrize("make", [lambda n: Decay(n, decay=0.999), Shift])
def test_large_mask_is_not_formed(make, ax):
    n = 100_000
    image = show_mask(make(n), ax=ax, rows=16).images[0]
    sampled = n // 32 + n // 16 * np.arange(16)
    steps = sampled[:, None] - sampled
    want = np.where(steps >= 0, 0.999 ** np.abs(steps), 0) if make is not Shift else steps == 1
    np.testing.assert_allclose(image.get_array(), want, rtol=1e-9)


def test_pixels_lie_where_their_rows_are(ax):
    ax = show_mask(Decay(10_000, decay=0.5), ax=ax, rows=4)
    assert ax.images[0].get_extent() == [-0.5, 9999.5, 9999.5, -0.5]
    ax.figure.canvas.draw()
    assert {0, 2000, 8000} <= set(ax.get_xticks())
    assert {0, 2000, 8000} <= set(ax.get_yticks())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_ticks_of_small_masks_are_integers(n, ax):
    ticks = show_mask(Causal(n), ax=ax).get_xticks()
    assert set(range(n)) <= set(ticks)
    np.testing.assert_array_equal(ticks, np.round(ticks))


@pytest.mark.parametrize(("shape", "aspect"), [((8, 8), 1), ((2, 8), 1), ((1, 8), "auto")])
def test_thin_masks_fill_the_axes(shape, aspect, ax):
    assert show_mask(Dense(np.ones(shape)), ax=ax).get_aspect() == aspect


def test_scale_is_centred_at_zero_if_an_entry_is_negative(ax):
    image = show_mask(Dense(np.array([[3.0, -1.0], [np.nan, 0.0]])), ax=ax).images[0]
    assert image.get_cmap().name == "coolwarm"
    assert image.get_clim() == (-3, 3)
    assert image.get_array().mask.tolist() == [[False, False], [True, False]]


def test_scale_is_that_of_the_entries_if_none_is_negative(ax):
    image = show_mask(Dense(np.array([[3.0, 1.0]])), ax=ax).images[0]
    assert image.get_cmap().name == "viridis"
    assert image.get_clim() == (1, 3)


def test_colour_map_and_colorbar_can_be_chosen(ax):
    ax = show_mask(Dense(np.array([[3.0, -1.0]])), ax=ax, cmap="magma", colorbar=False)
    assert ax.images[0].get_cmap().name == "magma"
    assert ax.images[0].get_clim() == (-1, 3)
    assert ax.figure.axes == [ax]
    show_mask(Causal(2), ax=ax)
    assert len(ax.figure.axes) == 2


@pytest.mark.parametrize(("head", "index"), [(None, (0, 0)), ((1, 2), (1, 2)), ((-1, 0), (1, 0))])
def test_head_picks_one_of_a_batch(head, index, ax):
    M = grid_mask(heads=(2, 3))
    image = show_mask(M, ax=ax, head=head).images[0]
    np.testing.assert_allclose(image.get_array(), M.to_dense()[index])


@pytest.mark.parametrize("show", [show_mask, show_spectrum, lambda M, **options: show_row(M, 0, **options)])
@pytest.mark.parametrize(("heads", "head"), [((), 0), ((3,), 3), ((3,), -4), ((3,), (0, 0)), ((2, 3), 1)])
def test_head_out_of_range_raises(show, heads, head, ax):
    with pytest.raises(IndexError, match="is not in Toeplitz"):
        show(grid_mask(heads=heads), ax=ax, head=head)


# --- show_spectrum ----------------------------------------------------------------------------------------------------


def magnitudes(ax):
    """What is drawn, by index."""
    pairs = sorted(pair for line in ax.lines for pair in zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert [x for x, _ in pairs] == list(range(1, 1 + len(pairs)))
    return np.array([y for _, y in pairs])


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (7, 3), (3, 7)])
@pytest.mark.parametrize("dtype", [float, complex, np.float32])
def test_spectrum_is_that_of_the_dense_matrix(shape, dtype, ax, rng):
    a = rng.standard_normal(shape).astype(dtype)
    a = a + 1j * rng.standard_normal(shape) if dtype is complex else a
    ax = show_spectrum(Dense(a), ax=ax)
    np.testing.assert_allclose(magnitudes(ax), np.linalg.svdvals(a.astype(np.complex128)), rtol=1e-12)
    assert ax.get_yscale() == "log"


def test_eigenvalues_of_a_hermitian_matrix_keep_their_sign(ax):
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)) + 1j)[0]
    a = turn @ np.diag([3.0, -2.0, 1.0, -0.5]) @ turn.conj().T
    ax = show_spectrum(Dense(a), ax=ax)
    positive, negative = ax.lines
    np.testing.assert_allclose(positive.get_ydata(), [3, 1])
    np.testing.assert_allclose(negative.get_ydata(), [2, 0.5])
    assert negative.get_xdata().tolist() == [2, 4]
    assert ax.get_ylabel() == "magnitude of eigenvalue"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["positive", "negative"]


def test_positive_definite_matrix_needs_no_legend(ax):
    ax = show_spectrum(Dense(np.diag([1.0, 4.0, 2.0])), ax=ax)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [4, 2, 1])
    assert (ax.get_ylabel(), ax.get_legend()) == ("eigenvalue", None)


def test_only_the_largest_values_are_drawn(ax):
    np.testing.assert_allclose(magnitudes(show_spectrum(Dense(np.diag(np.arange(9.0))), ax=ax, values=2)), [8, 7])


def test_large_spectrum_is_not_formed(ax):
    n = 3000  # the inverse of M M^T is a second difference, whose eigenvalues are known
    ax = show_spectrum(Decay(n), ax=ax, values=3)
    want = 1 / (2 * np.sin((2 * np.arange(1, 4) - 1) * np.pi / (4 * n + 2)))
    np.testing.assert_allclose(magnitudes(ax), want, rtol=1e-9)
    assert ax.get_ylabel() == "singular value"


def test_large_hermitian_spectrum_of_one_head(ax, rng):
    signs, factor = np.array([[[1.0, 1.0]], [[1.0, -1.0]]]), rng.standard_normal((1500, 2))
    ax = show_spectrum(LowRank(factor * signs, factor), ax=ax, head=1, values=2)
    want = np.linalg.eigvals(factor.T @ factor * signs[1])  # of G^T F, as F G^T has them beside zeros
    np.testing.assert_allclose(magnitudes(ax), np.sort(np.abs(want))[::-1], rtol=1e-9)
    assert ax.get_ylabel() == "magnitude of eigenvalue"


def test_thin_matrix_without_entries_is_formed_in_blocks(ax):
    wide = Dense(np.eye(2, 100_000)) @ Shift(100_000)
    np.testing.assert_allclose(magnitudes(show_spectrum(wide, ax=ax)), [1, 1])


@pytest.mark.parametrize("n", [3, 1100])
def test_zero_matrix_has_a_linear_scale(n, ax):
    ax = show_spectrum(LowRank(np.zeros((n, 1)), np.zeros((n, 1))), ax=ax, values=3)
    np.testing.assert_array_equal(magnitudes(ax), np.zeros(3))
    assert ax.get_yscale() == "linear"
    ax.figure.canvas.draw()


# --- show_row ---------------------------------------------------------------------------------------------------------


def test_row_on_a_line_marks_its_place(ax):
    ax = show_row(Decay(200_000, decay=0.99), 70_000, ax=ax)
    kernel, place = ax.lines
    assert kernel.get_xdata().tolist() == list(range(200_000))
    np.testing.assert_allclose(kernel.get_ydata()[69_990:70_002], [*0.99 ** np.arange(10.0, -1, -1), 0])
    assert place.get_xdata() == [70_000, 70_000]
    assert ax.get_ylabel() == "$M_{ij}$ for $i = 70000$"


def test_row_without_entries_costs_one_product(ax):
    kernel = show_row(Shift(200_000), 5, ax=ax).lines[0]
    assert np.flatnonzero(kernel.get_ydata()).tolist() == [4]


def test_row_of_a_rectangular_mask_has_no_place(ax):
    assert len(show_row(Dense(np.eye(2, 3)), 1, ax=ax).lines) == 1


@pytest.mark.parametrize(
    "M", [grid_mask(), Kronecker([Dense(np.triu(np.ones((6, 6)))), Causal(8, decay=0.5)])], ids=["toeplitz", "kron"]
)
def test_row_on_a_grid_is_an_image(M, ax):
    ax = show_row(M, 19, ax=ax)
    np.testing.assert_allclose(ax.images[0].get_array(), M.to_dense()[19].reshape(6, 8))
    (ring,) = ax.lines
    assert (ring.get_xdata().item(), ring.get_ydata().item()) == (19 % 8, 19 // 8)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 7.5), (5.5, -0.5))


def test_grid_of_columns_counts_for_a_rectangular_mask(ax):
    M = Toeplitz.from_function(np.hypot, (2, 3), columns=(4, 5))
    ax = show_row(M, 4, ax=ax)
    np.testing.assert_allclose(ax.images[0].get_array(), M.to_dense()[4].reshape(4, 5))
    assert not ax.lines


def test_shape_overrides_the_own_grid(ax):
    assert show_row(grid_mask(), 0, shape=(4, 12), ax=ax).images[0].get_array().shape == (4, 12)
    assert len(show_row(grid_mask(), 0, shape=(48,), ax=Figure().subplots()).images) == 0


@pytest.mark.parametrize("shape", [(), (5, 9), (2, 4, 6), (0, 48), (-6, -8)])
def test_shape_that_does_not_fit_raises(shape, ax):
    with pytest.raises(ValueError, match="of 48 points, got"):
        show_row(grid_mask(), 0, shape=shape, ax=ax)


def test_row_out_of_range_raises(ax):
    with pytest.raises(IndexError, match="48"):
        show_row(grid_mask(), 48, ax=ax)


EDGES = np.array([[0, 1, 2, 3, 1], [1, 2, 3, 3, 0]])  # a path of four nodes, a loop, an edge named twice
PLACES = np.array([[0.0, 0.0], [1.0, 0.5], [2.0, 0.0], [3.0, 2.0]])


@pytest.mark.parametrize("graph", [EDGES, scipy.sparse.coo_array((np.ones(5), tuple(EDGES)), shape=(4, 4))])
def test_row_on_a_graph_colours_nodes_above_edges(graph, ax):
    M = Causal(4, decay=0.5)
    ax = show_row(M, 2, graph=graph, positions=PLACES, ax=ax)
    lines, nodes = ax.collections
    np.testing.assert_array_equal(lines.get_segments(), PLACES[[[0, 1], [1, 2], [2, 3]]])
    assert to_hex(lines.get_color()[0]) == "#808080"
    np.testing.assert_array_equal(nodes.get_offsets(), PLACES)
    np.testing.assert_allclose(nodes.get_array(), [0.25, 0.5, 1, 0])
    assert lines.get_zorder() < nodes.get_zorder()
    (ring,) = ax.lines
    assert (ring.get_xdata().item(), ring.get_ydata().item()) == (2, 0)
    assert len(ax.figure.axes) == 2
    ax.figure.canvas.draw()


@pytest.mark.parametrize("graph", [None, np.empty((2, 0), dtype=int), scipy.sparse.csr_array((4, 4))])
def test_graph_without_edges_is_its_nodes(graph, ax):
    ax = show_row(Causal(4), 3, graph=graph, positions=PLACES, ax=ax, colorbar=False)
    lines, nodes = ax.collections
    assert len(lines.get_segments()) == 0
    assert nodes.get_array().tolist() == [1, 1, 1, 1]
    assert ax.figure.axes == [ax]
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    "graph", [EDGES + 1, EDGES - 1, EDGES.T, EDGES[0], EDGES * 1.0, np.eye(4), scipy.sparse.eye_array(5)]
)
def test_edges_that_do_not_fit_raise(graph, ax):
    with pytest.raises(ValueError, match="graph of 4 nodes"):
        show_row(Causal(4), 0, graph=graph, positions=PLACES, ax=ax)


@pytest.mark.parametrize("positions", [None, PLACES[:3], PLACES.T])
def test_positions_that_do_not_fit_raise(positions, ax):
    with pytest.raises(ValueError, match=r"positions \(4, 2\)"):
        show_row(Causal(4), 0, graph=EDGES, positions=positions, ax=ax)


# --- show_scaling -----------------------------------------------------------------------------------------------------


def test_curves_and_their_slopes(ax):
    sizes = [16, 64, 256]
    times = {"dense": [1.0, 16.0, np.nan], "fast": np.array([2.0, 8.0, 32.0])}
    ax = show_scaling(sizes, times, ax=ax, labels=["squares", "lines"])
    dense, fast, linear, quadratic = ax.lines
    assert dense.get_xydata().tolist() == [[16, 1], [64, 16]]
    assert fast.get_xydata().tolist() == [[16, 2], [64, 8], [256, 32]]
    np.testing.assert_allclose(linear.get_xydata(), [[16, 1], [256, 16]])
    np.testing.assert_allclose(quadratic.get_xydata(), [[16, 1], [256, 256]])
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["squares, slope 2.00", "lines, slope 1.00", "slope 1", "slope 2"]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_ylim()[1] < 256  # guides do not widen the picture


def test_guides_can_be_left_out(ax):
    assert len(show_scaling([1, 2], {"a": [1, 2]}, ax=ax, reference=False).lines) == 1


@pytest.mark.parametrize(("sizes", "times"), [([8], [1.0]), ([8, 16], [np.nan, 1.0]), ([8, 16], [np.nan, np.nan])])
def test_no_slope_is_fitted_to_less_than_two_points(sizes, times, ax):
    ax = show_scaling(sizes, {"a": times}, ax=ax)
    assert ax.lines[0].get_label() == "a"
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("sizes", "times"),
    [
        ([], {"a": []}),
        ([1, 2], {}),
        ([0, 1], {"a": [1, 1]}),
        ([[1, 2]], {"a": [[1, 2]]}),
        ([1, 2], {"a": [1]}),
        ([1, 2], {"a": [0, 1]}),
        ([1, 2], {"a": [-1, 1]}),
    ],
)
def test_scaling_of_what_has_no_logarithm_raises(sizes, times, ax):
    with pytest.raises(ValueError, match="show_scaling needs"):
        show_scaling(sizes, times, ax=ax)


def test_labels_are_one_a_curve(ax):
    with pytest.raises(ValueError, match="a label for each"):
        show_scaling([1, 2], {"a": [1, 2]}, ax=ax, labels=["a", "b"])


# --- all of them ------------------------------------------------------------------------------------------------------

CALLS = {
    "show_mask": lambda **options: show_mask(grid_mask(), **options),
    "show_spectrum": lambda **options: show_spectrum(grid_mask(), **options),
    "line": lambda **options: show_row(Causal(4), 2, **options),
    "grid": lambda **options: show_row(grid_mask(), 2, **options),
    "graph": lambda **options: show_row(Causal(4), 2, graph=EDGES, positions=PLACES, **options),
    "show_scaling": lambda **options: show_scaling([1, 2, 4], {"a": [1, 2, 3]}, **options),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_axes_given_come_back_and_others_are_new(call, ax):
    assert call(ax=ax) is ax
    assert plt.get_fignums() == []
    first, second = call(), call()
    assert first.figure is not second.figure
    assert plt.get_fignums() == [1, 2]
    for drawn in (ax, first):
        drawn.figure.canvas.draw()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_missing_matplotlib_is_said(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install '\.\[plot\]'"):
        call()


@pytest.mark.parametrize("call", [show_mask, show_spectrum, lambda x: show_row(x, 0)])
def test_arrays_are_refused(call):
    with pytest.raises(TypeError, match=r"structmask\.Dense"):
        call(np.eye(2))


@pytest.mark.parametrize("options", [{"rows": 0}, {"rows": -1}])
def test_rows_are_positive(options, ax):
    with pytest.raises(ValueError, match="rows must be"):
        show_mask(Causal(3), ax=ax, **options)


def test_values_are_positive(ax):
    with pytest.raises(ValueError, match="values must be"):
        show_spectrum(Causal(3), ax=ax, values=0)


def test_arrays_of_any_library_are_drawn(library, rng):
    a, places = rng.standard_normal((2, 4, 4)), library.array(PLACES)
    M = Dense(library.array(a))
    np.testing.assert_allclose(show_mask(M, head=1).images[0].get_array(), a[1])
    np.testing.assert_allclose(magnitudes(show_spectrum(M, head=1)), np.linalg.svdvals(a[1]), rtol=1e-12)
    np.testing.assert_allclose(show_row(M, 1, positions=places).collections[1].get_array(), a[0, 1])
    sizes, times = library.array(np.array([1.0, 2.0])), library.array(np.array([3.0, 4.0]))
    assert show_scaling(sizes, {"a": times}).lines[0].get_ydata().tolist() == [3, 4]


def test_module_loads_with_itself_only_and_no_matplotlib():
    code = (
        "import json, sys, structmask; before = 'structmask.plotting' in sys.modules; "
        "from structmask import plotting; print(json.dumps([before, 'matplotlib' in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(result.stdout) == [False, False]


def test_every_public_function_has_an_example():
    for name in ("show_mask", "show_spectrum", "show_row", "show_scaling"):
        assert ">>>" in getattr(plotting, name).__doc__
