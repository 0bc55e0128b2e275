"""Permutation tests: rates of many labellings, levels kept, power where only the top shows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from synthmed_nb.intervals import auc, tpr_at_fpr
from synthmed_nb.permutations import (
    cross_fitted,
    evened,
    holm,
    joint_level,
    labellings,
    max_t,
    rates_of_labels,
    rates_of_learner,
)

SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=30)


def p_value(scores, is_member, fprs=(0.01, 0.1), count=999, seed=0):
    labels = labellings(is_member, count, seed)
    rates = [rates_of_labels(row, labels, fprs) for row in np.atleast_2d(scores)]
    return max_t(np.hstack([evened(rate, labels, fprs) for rate in rates]))


@given(SCORES, SCORES, st.randoms(use_true_random=False))
def test_many_labellings_give_the_single_numbers(x, y, random):
    scores, label = np.array(x + y, dtype=float), [True] * len(x) + [False] * len(y)
    random.shuffle(label)
    label = np.array(label)
    one = rates_of_labels(scores, label[None], [0.01, 0.1, 0.4])[0]
    a, b = scores[label], scores[~label]
    single = [auc(a, b), *(tpr_at_fpr(a, b, fpr) for fpr in (0.01, 0.1, 0.4))]
    assert one == pytest.approx(single, abs=1e-12)


@pytest.mark.parametrize("distinct", [3, 10_000], ids=["ties", "no ties"])
def test_rates_of_a_score_that_knows_nothing_are_unbiased(distinct):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, distinct, 150).astype(float)
    labels = rng.permuted(np.tile(np.arange(150) < 90, (4000, 1)), axis=1)
    mean = rates_of_labels(scores, labels, [0.01, 0.1]).mean(axis=0)
    assert mean == pytest.approx([0.5, 0.01, 0.1], abs=0.003)


@pytest.mark.parametrize("distinct", [4, 10_000], ids=["ties", "no ties"])
def test_the_permutation_test_keeps_its_level(distinct):
    rng, replicates = np.random.default_rng(3), 300
    is_member = np.arange(75) < 45
    p_values = []
    for seed in range(replicates):
        first = rng.integers(0, distinct, 75).astype(float)
        second = first + rng.integers(0, 2, 75)  # dependent attacks
        p_values.append(p_value(np.stack([first, second]), is_member, count=99, seed=seed))
    hits = (np.array(p_values) <= 0.05).sum()
    assert hits <= stats.binom.ppf(0.999, replicates, 0.05)
    assert hits >= stats.binom.ppf(0.001, replicates, 0.05) or distinct == 4


def test_the_permutation_test_sees_a_few_members_only_low_rates_show():
    rng = np.random.default_rng(4)
    members, others = rng.normal(size=1000), rng.normal(size=1000)
    members[:25] = 9.0  # 2.5 % caught for sure; AUC 0.51
    is_member = np.arange(2000) < 1000
    assert p_value(np.concatenate([members, others]), is_member) == 0.001


def test_a_stack_that_learns_inside_keeps_its_level():
    rng, replicates = np.random.default_rng(5), 200
    is_member, hits = np.arange(100) < 50, 0
    for seed in range(replicates):
        labels = labellings(is_member, 99, seed)
        _, rates = rates_of_learner(rng.normal(size=(100, 6)), labels, (0.1,), seed)
        hits += max_t(rates) <= 0.05
    low, high = stats.binom.ppf([0.001, 0.999], replicates, 0.05)
    assert low <= hits <= high


def test_a_stack_finds_what_no_single_score_shows():
    rng, is_member = np.random.default_rng(6), np.arange(600) < 300
    noise = rng.normal(size=(600, 2))
    features = np.column_stack([noise[:, 0], noise[:, 0] + 0.3 * noise[:, 1] + 0.2 * is_member])
    labels = labellings(is_member, 199)
    single = [max_t(rates_of_labels(x, labels, (0.1,))) for x in features.T]
    _, rates = rates_of_learner(features, labels, (0.1,))
    assert min(single) > 0.01 and max_t(rates) == 1 / 200


@given(st.integers(0, 2**32 - 1))
def test_nobody_is_scored_by_a_rule_that_knew_the_label(seed):
    rng = np.random.default_rng(seed)
    features, member = rng.normal(size=(50, 3)), rng.random(50) < 0.5
    other = member.copy()
    other[7] = not other[7]
    scores = cross_fitted(features, np.stack([member, other]), seed=1)
    assert scores[0, 7] == pytest.approx(scores[1, 7])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_that_of_the_definition(p_values):
    adjusted = holm({str(i): p for i, p in enumerate(p_values)})
    order = np.sort(p_values)
    for i, p in enumerate(p_values):
        steps = [(len(order) - j) * order[j] for j in range(len(order)) if order[j] <= p]
        assert adjusted[str(i)] == pytest.approx(min(1.0, max(steps)))


def test_joint_levels_make_bounds_that_hold_together():
    rng, missed = np.random.default_rng(7), 0
    shared = rng.normal(size=(1000, 1)) + 0.7 * rng.normal(size=(1000, 12))
    tail = joint_level(shared)
    assert 0.05 / 12 < tail < 0.05
    reach = np.array([np.quantile(column, tail) for column in shared.T])
    fresh = rng.normal(size=(2000, 1)) + 0.7 * rng.normal(size=(2000, 12))
    missed = (fresh < reach).any(axis=1).sum()
    assert missed <= stats.binom.ppf(0.9999, 2000, 0.06)
