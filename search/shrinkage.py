"""How probable it is that each configuration is the best: a hierarchical model of their means."""

import functools
import math

import numpy as np
from jaxtyping import Float
from scipy import stats
from scipy.stats import qmc

from search.seed_effects import SeedEffects

_DRAWS = 2**13  # quasi-random: probabilities to about 0.003
_LOGITS = np.linspace(-30.0, 30.0, 1201)


def probabilities_best(effects: SeedEffects) -> Float[np.ndarray, " configurations"]:
    """The posterior probability of each configuration that its mean is the highest.

    Those that are compared won the same search, so their means are thought alike as far as the
    scores allow: mu_c ~ N(m, tau^2), y_cj = mu_c + b_j + e_cj, e_cj ~ N(0, sigma^2), with flat
    priors on m and b_j, 1/sigma^2 on sigma^2, and the shrinkage factor

        B = sigma^2 / (sigma^2 + w tau^2),

    with w the mean number of seeds behind a difference, uniform on (0, 1): the uniform shrinkage
    prior (Strawderman, 1971; Daniels, 1999, "A prior for the variance in hierarchical models"),
    proper and without a scale of its own. On the axes of the fit, where A has eigenvalues l_i and
    h the components h_i, with g(B) = w B / (1 - B), d configurations less one and f degrees of
    freedom,

        p(B | y) ~ g^(d/2) prod_i (l_i + g)^(-1/2) Q^(-(f + d)/2),
        Q = y'Py - sum_i h_i^2 / (l_i + g),

    sigma^2 | B, y is Q over a chi-squared of f + d, and mu_i | sigma, B, y is normal with mean
    h_i/(l_i + g) and variance sigma^2/(l_i + g): so the means are t-distributed about shrunken
    estimates. A given sigma has exp(-Q / 2 sigma^2) in place of the power. Without the prior on
    the means (B = 0) the best of equals would be claimed too surely.

    Integrated over quasi-random draws of (B, sigma, mu), the same for all calls.
    """
    count = len(effects.means)
    if effects.residual == 0.0 and math.isfinite(effects.degrees_of_freedom):
        return _certain(effects)
    shrinkage = _shrinkage(effects, _uniform(count)[:, 0])
    precision = effects.weights + _prior_precision(effects, shrinkage)[:, None]
    centre = effects.along / precision
    if math.isfinite(effects.degrees_of_freedom):
        squares = effects.total - (effects.along**2 / precision).sum(1)
        freedom = effects.degrees_of_freedom + count - 1
        noise = np.sqrt(squares / _chi_squared(count, freedom))
    else:
        noise = np.full(_DRAWS, effects.noise)
    draws = (centre + noise[:, None] * _normals(count) / np.sqrt(precision)) @ effects.axes.T
    return np.bincount(draws.argmax(1), minlength=count) / _DRAWS


def _shrinkage(
    effects: SeedEffects, uniform: Float[np.ndarray, " draws"]
) -> Float[np.ndarray, " draws"]:
    """Draws of B from its posterior, by the inverse of its distribution over a grid of logits."""
    grid = stats.logistic.cdf(_LOGITS)
    prior = _prior_precision(effects, grid)[:, None]
    dimension = len(effects.weights)
    squares = effects.total - (effects.along**2 / (effects.weights + prior)).sum(1)
    log_density = dimension / 2 * np.log(prior[:, 0])
    log_density -= np.log(effects.weights + prior).sum(1) / 2
    if math.isfinite(effects.degrees_of_freedom):
        log_density -= (effects.degrees_of_freedom + dimension) / 2 * np.log(squares)
    else:
        log_density -= squares / (2 * effects.noise**2)
    log_density += stats.logistic.logpdf(_LOGITS)  # dB over the grid's equal steps
    mass = np.exp(log_density - log_density.max()).cumsum()
    return np.asarray(stats.logistic.cdf(np.interp(uniform, mass / mass[-1], _LOGITS)))


def _prior_precision(
    effects: SeedEffects, shrinkage: Float[np.ndarray, " draws"]
) -> Float[np.ndarray, " draws"]:
    """Returns g = sigma^2 / tau^2 of each shrinkage factor."""
    return np.asarray(effects.weights.mean() * shrinkage / np.maximum(1 - shrinkage, 1e-15))


def _certain(effects: SeedEffects) -> Float[np.ndarray, " configurations"]:
    """Without any noise the highest mean is the best; equals share."""
    best = np.isclose(effects.means, effects.means.max(), rtol=1e-9, atol=1e-300)
    return np.asarray(best / best.sum())


# The same for all calls, and slow to make.
@functools.lru_cache(maxsize=8)
def _uniform(configurations: int) -> Float[np.ndarray, "draws coordinates"]:
    return np.asarray(qmc.Sobol(configurations + 1, rng=0).random(_DRAWS))


@functools.lru_cache(maxsize=8)
def _chi_squared(configurations: int, freedom: float) -> Float[np.ndarray, " draws"]:
    return np.asarray(stats.chi2.ppf(_uniform(configurations)[:, 1], freedom))


@functools.lru_cache(maxsize=8)
def _normals(configurations: int) -> Float[np.ndarray, "draws axes"]:
    return np.asarray(stats.norm.ppf(_uniform(configurations)[:, 2:]))
