"""The drifting Gaussian process against its equations and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from search.time_varying_gp import Points, TimeVaryingGP, Values


def process(
    seed: int = 0,
    *,
    count: int = 20,
    lengthscale: float = 0.4,
    forgetting: float = 0.2,
    noise: float = 0.05,
    variance: float = 1.7,
) -> TimeVaryingGP:
    rng = np.random.default_rng(seed)
    return TimeVaryingGP(
        points=rng.random((count, 3)),
        times=rng.integers(0, 5, count).astype(float),
        rewards=rng.standard_normal(count),
        lengthscale=lengthscale,
        forgetting=forgetting,
        noise=noise,
        variance=variance,
    )


def covariance(
    gp: TimeVaryingGP, left: Points, left_times: Values, right: Points, right_times: Values
) -> Points:
    """The kernel, written out pair by pair."""
    return np.array(
        [
            [
                gp.variance
                * math.exp(
                    -sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / 2 / gp.lengthscale**2
                )
                * (1 - gp.forgetting) ** (abs(t - u) / 2)
                for y, u in zip(right, right_times, strict=True)
            ]
            for x, t in zip(left, left_times, strict=True)
        ]
    )


def direct(
    gp: TimeVaryingGP, points: Points, time: float, pending: Points
) -> tuple[Values, Values]:
    """The posterior by inverting the covariance, with the pending imputed by their mean."""
    times = np.full(len(points), time)

    def posterior(seen: Points, when: Values, told: Values, at: Points) -> tuple[Values, Values]:
        inverse = np.linalg.inv(
            covariance(gp, seen, when, seen, when) + gp.variance * gp.noise * np.eye(len(seen))
        )
        across = covariance(gp, seen, when, at, np.full(len(at), time))
        prior = covariance(gp, at, times[: len(at)], at, times[: len(at)])
        return across.T @ inverse @ told, np.diag(prior - across.T @ inverse @ across)

    imputed = posterior(gp.points, gp.times, gp.rewards, pending)[0]
    mean, variances = posterior(
        np.concatenate([gp.points, pending]),
        np.concatenate([gp.times, np.full(len(pending), time)]),
        np.concatenate([gp.rewards, imputed]),
        points,
    )
    return mean, np.sqrt(variances)


@given(
    seed=st.integers(0, 10_000),
    lengthscale=st.floats(0.1, 3.0),
    forgetting=st.floats(0.0, 0.9),
    noise=st.floats(0.01, 1.0),
    count=st.integers(1, 20),
    awaited=st.integers(0, 6),
)
def test_the_posterior_is_that_of_the_equations(
    seed: int, lengthscale: float, forgetting: float, noise: float, count: int, awaited: int
) -> None:
    gp = process(seed, count=count, lengthscale=lengthscale, forgetting=forgetting, noise=noise)
    rng = np.random.default_rng(seed + 1)
    points, pending = rng.random((7, 3)), rng.random((awaited, 3))
    mean, deviation = gp.posterior(points, 5.0, pending)
    expected_mean, expected_deviation = direct(gp, points, 5.0, pending)
    assert_allclose(mean, expected_mean, atol=1e-8)
    assert_allclose(deviation, expected_deviation, atol=1e-7)
    assert_allclose(mean, gp.posterior(points, 5.0)[0], atol=1e-12)
    assert (deviation <= gp.posterior(points, 5.0)[1] + 1e-12).all()


def test_without_forgetting_it_is_that_of_scikit_learn() -> None:
    gp = process(forgetting=0.0)
    kernel = ConstantKernel(gp.variance) * RBF(gp.lengthscale)
    theirs = GaussianProcessRegressor(kernel, alpha=gp.variance * gp.noise, optimizer=None)
    theirs.fit(gp.points, gp.rewards)
    points = np.random.default_rng(1).random((50, 3))
    mean, deviation = theirs.predict(points, return_std=True)
    ours = gp.posterior(points, 7.0)
    assert_allclose(ours[0], mean, atol=1e-9)
    assert_allclose(ours[1], deviation, atol=1e-9)
    assert gp.log_likelihood == pytest.approx(theirs.log_marginal_likelihood_value_, abs=1e-9)


def test_the_likelihood_is_the_density_of_the_observations() -> None:
    gp = process()
    own = covariance(gp, gp.points, gp.times, gp.points, gp.times)
    normal = multivariate_normal(cov=own + gp.variance * gp.noise * np.eye(len(own)))
    assert gp.log_likelihood == pytest.approx(normal.logpdf(gp.rewards), abs=1e-9)


def test_what_was_seen_is_forgotten_at_the_rate_of_the_paper() -> None:
    gp = TimeVaryingGP(
        points=np.full((1, 1), 0.5),
        times=np.zeros(1),
        rewards=np.ones(1),
        lengthscale=0.3,
        forgetting=0.36,
        noise=1e-12,
        variance=1.0,
    )
    means = [gp.posterior(np.full((1, 1), 0.5), time)[0][0] for time in (0.0, 1.0, 2.0, 20.0)]
    assert_allclose(means, [1.0, 0.8, 0.64, 0.8**20], atol=1e-9)
    assert gp.posterior(np.full((1, 1), 0.5), 2.0)[1][0] == pytest.approx((1 - 0.64**2) ** 0.5)


def drawn(seed: int, forgetting: float) -> tuple[Points, Values, Values]:
    """Observations of a function that was drawn from the process itself."""
    rng = np.random.default_rng(seed)
    points, times = rng.random((96, 2)), np.repeat(np.arange(12.0), 8)
    one = process(lengthscale=0.4, forgetting=forgetting, noise=0.01, variance=1.0)
    own = covariance(one, points, times, points, times) + 0.01 * np.eye(96)
    return points, times, np.linalg.cholesky(own) @ rng.standard_normal(96)


def test_a_fit_finds_how_fast_it_drifts_and_is_the_likeliest() -> None:
    found = {eps: [TimeVaryingGP.fit(*drawn(s, eps)) for s in range(4)] for eps in (0.0, 0.5)}
    still, moving = ([gp.forgetting for gp in found[eps]] for eps in (0.0, 0.5))
    assert max(still) <= 0.02
    assert min(moving) >= 0.25
    assert {gp.lengthscale for gp in found[0.0]} <= {0.2, 0.4, 0.8}
    for seed, gp in enumerate(found[0.5]):
        points, times, rewards = drawn(seed, 0.5)
        other = TimeVaryingGP(
            points=points,
            times=times,
            rewards=rewards,
            lengthscale=0.8,
            forgetting=0.1,
            noise=0.1,
            variance=1.0,
        )
        assert gp.log_likelihood > other.log_likelihood


def test_rewards_that_are_all_alike_are_no_fault() -> None:
    gp = TimeVaryingGP.fit(np.full((3, 2), 0.5), np.zeros(3), np.zeros(3))
    mean, deviation = gp.posterior(np.array([[0.5, 0.5], [0.0, 1.0]]), 1.0)
    assert_allclose(mean, 0.0)
    assert 0 < deviation[0] <= deviation[1] < math.inf
