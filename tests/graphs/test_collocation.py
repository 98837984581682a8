import mpmath
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from scipy.interpolate import pade
from scipy.special import factorial, roots_jacobi

from structmask import ConvergenceWarning, LowRank, MarkovProcess
from structmask.graphs import Occupation, collocation, uniformisation
from structmask.graphs.collocation import Integrator, integrated, radau
from structmask.graphs.occupation import Rates
from tests import naive
from tests.cases import real


def rates(n, decades, seed=0):
    """Rates over many decades, a cycle of slow ones among them."""
    rng = np.random.default_rng(seed)
    A = np.where(rng.random((n, n)) < 4 / n, 10.0 ** (decades * (rng.random((n, n)) - 0.5)), 0)
    A += np.roll(np.eye(n), 1, axis=1) * 10.0 ** (-decades / 2)
    np.fill_diagonal(A, 0)
    return scipy.sparse.csr_array(A)


def generator(A):
    return A.toarray() - np.diag(A.toarray().sum(axis=1))


def starts(n):
    p = np.full((n, 2), 1 / n)
    p[:, 0] = np.eye(n)[0]
    return p


def exponential(M, squarings=60):
    """Of a matrix, by squares in many digits."""
    with mpmath.workdps(60):
        small = mpmath.matrix(M.tolist()) / mpmath.mpf(2) ** squarings
        power = mpmath.eye(len(M)) + small + small**2 / 2
        for _ in range(squarings):
            power = power * power
        return np.array(power.tolist(), dtype=float)


@pytest.mark.parametrize("stages", [3, 5])
def test_scheme_is_the_pade_approximant(stages):
    """Radau's stability function has numerator and denominator of degrees s - 1 and s; its leading part is u's."""
    scheme, z = radau(stages), -0.7

    def at(c):
        return float((c / (1 - z * scheme.poles)).sum().real)

    numerator, denominator = pade(1 / factorial(np.arange(2 * stages)), stages, stages - 1)
    assert at(scheme.values) == pytest.approx(numerator(z) / denominator(z), rel=1e-12)
    points = np.append((roots_jacobi(stages - 1, 1, 0)[0] + 1) / 2, 1.0)
    k = np.arange(1, stages + 1)  # u = 1 + sum_k a_k theta^k with u' = z u at the points
    a = np.linalg.solve(k * points[:, None] ** (k - 1) - z * points[:, None] ** k, np.full(stages, z))
    assert scheme.start + at(scheme.leading) == pytest.approx(a[-1], rel=1e-9)
    grid = np.linspace(0, 1, 20_001)
    product = np.abs(np.prod(grid[:, None] - points, axis=1))
    assert scheme.integrals[0] == pytest.approx(np.trapezoid(product, grid), rel=1e-6)


@pytest.mark.parametrize("h", [0.05, 0.3, 1.0, 30.0])
def test_bound_of_a_step_holds_and_is_sharp_for_small_ones(h):
    A = rates(12, 2)
    integrator, p = Integrator(A), starts(12)
    h /= integrator.fastest
    step = integrator.step(integrator._changes(p, h), h)
    changes, bound = step.changes, step.bound
    error = np.abs(changes[0] - scipy.linalg.expm(h * generator(A)).T @ p).sum(axis=0).max()
    assert error <= bound + 1e-13
    assert bound <= 10 * error + 1e-13 or h * integrator.fastest > 1
    np.testing.assert_allclose(changes[1], h * generator(A).T @ changes[0], atol=1e-11)


def test_processes_over_eight_decades():
    """Distributions, functions and the integrals of both."""
    n, time, tol = 10, 300.0, 1e-10
    A = rates(n, 8)
    Q, values = generator(A), np.random.default_rng(0).uniform(-1, 1, (n, 2))
    both = exponential(np.block([[Q, np.eye(n)], [np.zeros((n, 2 * n))]]) * time)
    exact, occupied = both[:n, :n], both[:n, n:]
    for functions, x, E, integral in (
        (False, starts(n), exact.T, False),
        (True, values, exact, False),
        (False, starts(n), occupied.T, True),
        (True, values, occupied, True),
    ):
        reach = tol * time if integral else tol
        integrator = Integrator(A, functions=functions)
        got, bound = integrator.run(x, time, reach, integral=integral)
        assert integrator.size(got - E @ x) <= bound <= reach
    assert integrator.fastest * time > 1e5
    process = MarkovProcess(A)
    p = starts(n).T
    np.testing.assert_allclose(process.evolve(p, time), p @ exact, atol=1e-11)
    np.testing.assert_allclose(process.expect(values, time), exact @ values, atol=1e-11)
    np.testing.assert_allclose(process.expect(values + 1j, time), exact @ values + 1j, atol=1e-11)
    M = process.occupation(time)
    assert isinstance(M, Occupation)
    assert np.abs(M.to_dense() - occupied).sum(axis=1).max() <= M.error_bound <= tol * time
    assert np.abs(p @ M - p @ occupied).sum(axis=1).max() <= tol * time


def test_dynamics_on_every_scale_are_followed():
    """Many states with rates of their own: something happens in each decade of the time, and tolerances are met."""
    rng, n, time = np.random.default_rng(0), 150, 1e3
    steps = [10.0 ** rng.uniform(-4, 4, n - abs(k)) for k in (1, -1, 2)]
    A = scipy.sparse.csr_array(scipy.sparse.diags_array(steps, offsets=[1, -1, 2]))
    p, f = np.full((n, 1), 1 / n), rng.uniform(-1, 1, (n, 1))
    results = []
    for functions, x in ((False, p), (True, f)):
        got, bound = Integrator(A, functions=functions).run(x, time, 1e-10)
        assert bound <= 1e-10
        results.append(got)
    assert abs(results[0].T @ f - p.T @ results[1]).max() < 2e-10


@pytest.mark.parametrize("transposed", [False, True])
def test_occupation_is_a_structured_matrix(transposed, close):
    n, time = 6, 3.0
    A = rates(n, 2)
    M = Occupation(time, rates=Rates(A, 1e-13))
    want = naive.occupation(generator(A), time)
    if transposed:
        M, want = M.T, want.T
    for x in (real(n), real(2, n, 3), real(n, 1) + 1j * real(n, 1, seed=1), real(n, 2).astype(np.float32)):
        close(M @ x, (want @ x).astype(x.dtype))
    close(
        (M * LowRank(real(n, 2), real(n, 2, seed=1))) @ real(n), (want * (real(n, 2) @ real(n, 2, seed=1).T)) @ real(n)
    )
    G, X, step = real(n, 2, seed=2), real(n, 2), 1e-5
    lower, upper = (np.sum(G * (M.with_parameters(time=time + s) @ X)) for s in (-step, step))
    assert M.pullback(G, X)["time"] == pytest.approx((upper - lower) / (2 * step), rel=1e-7)
    close(M.astype("complex128") @ X, want @ X)
    with pytest.raises(TypeError, match="real number"):
        M.with_parameters(time=1j)


def test_tolerances_out_of_reach_say_what_was_reached():
    """Beside a distribution within it: what rounding spoils is accepted, not repeated."""
    A, n, time = rates(10, 6), 10, 1e4
    p, bound = Integrator(A).run(starts(n), time, 1e-16)
    assert 1e-16 < bound < 1e-9
    assert np.abs(p - exponential(generator(A).T * time) @ starts(n)).sum(axis=0).max() < bound


def test_stiff_processes_come_to_rest_where_they_should(monkeypatch):
    monkeypatch.setattr(uniformisation, "TRIAL", 100)
    process, calls = MarkovProcess(rates(20, 7)), []
    monkeypatch.setattr(uniformisation, "integrated", lambda *a, **k: calls.append(1) or integrated(*a, **k))
    p = process.evolve(starts(20).T, 1e9, tol=1e-6)
    assert calls
    np.testing.assert_allclose(p, np.stack([process.stationary()] * 2), atol=1e-10)
    with pytest.warns(ConvergenceWarning, match="too stiff for double precision"):
        process.evolve(starts(20).T, 1e9)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)


def test_what_does_not_pay_is_left_to_uniformisation(monkeypatch):
    A = rates(20, 3)
    monkeypatch.setattr(collocation, "fills_little", lambda _: False)
    assert integrated(A, starts(20), 1.0, 1e-10) is None
    monkeypatch.setattr(uniformisation, "TRIAL", 10)
    got = MarkovProcess(A).evolve(starts(20).T, 3.0)
    np.testing.assert_allclose(got, starts(20).T @ scipy.linalg.expm(3.0 * generator(A)), atol=1e-10)
