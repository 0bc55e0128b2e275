"""Properties of the rates, coverage of the intervals, exactness of the permutation test."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from synthmed_nb.intervals import (
    auc,
    auc_interval,
    ladder,
    rate_interval,
    tpr_at_fpr,
    tpr_interval,
)

SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=30)
RATES = st.floats(0.01, 0.5)


@given(SCORES, SCORES)
def test_auc_is_that_of_scikit_learn_and_symmetric(x, y):
    label = [1] * len(x) + [0] * len(y)
    assert auc(x, y) == pytest.approx(roc_auc_score(label, x + y))
    assert auc(x, y) + auc(y, x) == pytest.approx(1)
    assert auc(x, y) == pytest.approx(auc(np.negative(y), np.negative(x)))


@given(SCORES, SCORES, RATES)
def test_only_the_order_of_scores_matters(x, y, fpr):
    stretched_x, stretched_y = np.exp(np.array(x) / 3.0), np.exp(np.array(y) / 3.0)
    assert ladder(stretched_x, stretched_y).tolist() == ladder(x, y).tolist()
    assert tpr_at_fpr(stretched_x, stretched_y, fpr) == tpr_at_fpr(x, y, fpr)
    assert auc_interval(stretched_x, stretched_y) == auc_interval(x, y)
    assert tpr_interval(stretched_x, stretched_y, fpr) == tpr_interval(x, y, fpr)


@given(SCORES, SCORES, RATES)
def test_intervals_hold_their_estimate(x, y, fpr):
    low, high = auc_interval(x, y)
    assert 0 <= low <= auc(x, y) + 1e-12 and auc(x, y) - 1e-12 <= high <= 1
    low, high = tpr_interval(x, y, fpr)
    assert 0 <= low <= tpr_at_fpr(x, y, fpr) <= high <= 1
    wide_low, wide_high = tpr_interval(x, y, fpr, level=0.99)
    assert wide_low <= low + 1e-9 and high <= wide_high + 1e-9


@given(SCORES, SCORES)
def test_the_ladder_is_the_mean_over_random_orders_of_ties(x, y):
    steps = ladder(x, y)
    assert steps[0] == 0 and steps[-1] == 1 and (np.diff(steps) >= -1e-12).all()
    rng = np.random.default_rng(0)
    draws = [
        ladder(np.array(x) + rng.random(len(x)) / 2, np.array(y) + rng.random(len(y)) / 2)
        for _ in range(400)
    ]
    assert np.abs(np.mean(draws, axis=0) - steps).max() < 0.15


@given(st.integers(0, 50), st.integers(1, 50))
def test_rate_interval_is_that_of_scipy(hits, more):
    found = stats.binomtest(hits, hits + more).proportion_ci(0.95, method="exact")
    assert rate_interval(hits, hits + more) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize("shift", [0.0, 1.0], ids=["chance", "leak"])
@pytest.mark.parametrize("fpr", [0.01, 0.1])
def test_the_tpr_interval_covers(shift, fpr):
    rng, replicates = np.random.default_rng(1), 200
    true = stats.norm.sf(stats.norm.isf(fpr) - shift)
    limits = np.array(
        [
            tpr_interval(rng.normal(shift, 1, 400), rng.normal(0, 1, 600), fpr)
            for _ in range(replicates)
        ]
    )
    missed = ((limits[:, 0] > true) | (limits[:, 1] < true)).sum()
    assert missed <= stats.binom.ppf(0.995, replicates, 0.05)
    slope = np.exp(stats.norm.isf(fpr) * shift - shift**2 / 2)  # of the true curve at fpr
    spread = np.sqrt(true * (1 - true) / 400 + slope**2 * fpr * (1 - fpr) / 600)
    assert (limits[:, 1] - limits[:, 0]).mean() < 1.6 * 2 * 1.96 * spread  # not uselessly wide


@pytest.mark.parametrize("shift", [0.0, 1.0], ids=["chance", "leak"])
def test_the_auc_interval_covers(shift):
    rng, replicates = np.random.default_rng(2), 400
    true = stats.norm.cdf(shift / np.sqrt(2))
    limits = np.array(
        [auc_interval(rng.normal(shift, 1, 80), rng.normal(0, 1, 120)) for _ in range(replicates)]
    )
    missed = ((limits[:, 0] > true) | (limits[:, 1] < true)).sum()
    low, high = stats.binom.ppf([0.001, 0.999], replicates, 0.05)
    assert low <= missed <= high
