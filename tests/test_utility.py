"""Utility: scores against scikit-learn's, fair treatment of lost classes, honest intervals."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import r2_score, roc_auc_score

from synthmed_nb.columns import Column, InputError
from synthmed_nb.evaluation import evaluate
from synthmed_nb.learners import Features, fit_features
from synthmed_nb.schema import Schema
from synthmed_nb.scores import (
    draws,
    macro_auc,
    metrics_of,
    replicate,
    weighted_auc,
    weighted_r2,
)
from synthmed_nb.utility import scored, utility


def schema(target, patient=False):
    kinds = {"age": "numeric", "bmi": "numeric", "ward": "categorical", "ill": "categorical"}
    dtypes = {"numeric": "float64", "categorical": "str"}
    columns = [
        Column(
            name=name,
            kind=kind,
            role="target" if name == target else "feature",
            dtype=dtypes[kind],
            reason="made",
            missing=True,
        )
        for name, kind in kinds.items()
    ]
    if patient:
        key = {"kind": "identifier", "role": "patient", "dtype": "str", "reason": "key"}
        columns.insert(0, Column(name="mrn", missing=False, **key))
    return Schema(columns=tuple(columns))


def patients(n, seed, stages=("no", "yes")):
    rng = np.random.default_rng(seed)
    age = rng.integers(20, 90, n).astype(float)
    table = pd.DataFrame({"age": age, "bmi": 20 + age / 10 + rng.normal(0, 2, n)})
    table["ward"] = np.where(age > 60, rng.choice(["A", "B"], n), rng.choice(["B", "C"], n))
    cut = np.linspace(20, 90, len(stages) + 1)[1:-1]
    table["ill"] = np.array(stages)[np.searchsorted(cut, age + rng.normal(0, 8, n))]
    table.loc[rng.random(n) < 0.2, ["bmi", "ward"]] = None
    return table.astype({"ward": "str", "ill": "str"})


@pytest.fixture(scope="module")
def real():
    return patients(500, 0), patients(300, 1)


@pytest.fixture(scope="module")
def staged():
    stages = ("none", "mild", "severe")
    return patients(500, 0, stages), patients(300, 1, stages)


def numbers_of(result):
    for model in result.models:
        yield from (model.trtr, model.tstr, model.gap, model.gap_low, model.gap_high)


@pytest.mark.parametrize("target", ["ill", "age"])
def test_a_copy_of_train_is_worth_as_much(real, target):
    train, holdout = real
    result = utility(train, holdout, train.copy(), schema(target))
    assert all(m.trtr == m.tstr and m.gap == m.gap_low == m.gap_high == 0 for m in result.models)
    assert result.gap == 0 and result.trtr > 0.5
    assert (result.metric, result.task) == {
        "ill": ("AUC", "binary"),
        "age": ("R2", "regression"),
    }[target]


def test_a_second_real_sample_is_worth_as_much(real):
    train, holdout = real
    result = utility(train, holdout, patients(500, 2), schema("ill"))
    assert abs(result.gap) < 0.03
    assert all(m.gap_low <= m.gap <= m.gap_high for m in result.models)


def test_shuffled_columns_are_worth_nothing(real):
    train, holdout = real
    rng = np.random.default_rng(0)
    noise = pd.DataFrame({name: rng.permutation(train[name].array) for name in train})
    result = utility(train, holdout, noise, schema("ill"))
    assert result.trtr > 0.85 and result.tstr < 0.7
    assert all(m.gap_low > 0.1 for m in result.models)


def test_three_classes_and_one_lost(staged):
    train, holdout = staged
    full = utility(train, holdout, patients(500, 2, ("none", "mild", "severe")), schema("ill"))
    assert full.task == "multiclass" and abs(full.gap) < 0.05
    lost = utility(train, holdout, train[train["ill"] != "mild"], schema("ill"))
    assert np.isfinite(list(numbers_of(lost))).all()
    assert 0.5 < lost.tstr < full.tstr - 0.03


@pytest.mark.parametrize("answer", ["yes", None, "invented"])
def test_a_synthetic_target_of_one_value_scores_chance(real, answer):
    train, holdout = real
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        result = utility(train, holdout, train.assign(ill=answer), schema("ill"))
    assert all(m.tstr == 0.5 for m in result.models) and result.gap > 0.3


def test_a_numeric_target_that_is_lost(real):
    train, holdout = real
    assert utility(train, holdout, train.assign(age=np.nan), schema("age")).tstr <= 0
    assert utility(train, holdout, train.assign(age=50.0), schema("age")).tstr <= 0


def test_a_holdout_of_one_class_and_none_at_all(real):
    train, holdout = real
    result = utility(train, holdout[holdout["ill"] == "no"], train, schema("ill"))
    assert result.trtr == result.tstr == 0.5
    assert utility(train, holdout[:0], train, schema("ill")) is None
    assert utility(train, holdout.assign(ill=None), train, schema("ill")) is None


def test_levels_and_gaps_that_training_never_saw(real):
    train, holdout = real
    full = train.assign(ward="C", bmi=train["bmi"].fillna(25))
    result = utility(train, holdout.assign(ward="Z"), full, schema("ill"))
    assert np.isfinite(list(numbers_of(result))).all()


def test_no_target_no_utility(real):
    train, holdout = real
    free = schema(None)
    assert utility(train, holdout, train, free) is None
    assert evaluate(train, holdout, train, free).utility is None


def test_the_same_seed_gives_the_same_bytes(real):
    train, holdout = real
    first, again = (utility(train, holdout, patients(400, 2), schema("ill"), seed=3) for _ in "ab")
    assert first.model_dump_json() == again.model_dump_json()


def test_bad_tables_are_refused(real):
    train, holdout = real
    with pytest.raises(InputError, match="'ill'"):
        utility(train, holdout, train.drop(columns="ill"), schema("ill"))


# statistics

cases = st.integers(0, 10_000)


@given(cases)
def test_auc_is_sklearns(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 60))
    positive, scores = rng.random(n) < 0.5, rng.integers(0, 6, n) / 7
    positive[:2] = [True, False]
    weights = rng.integers(0, 4, (3, n)).astype(float)
    weights[:, :2] += 1
    found = weighted_auc(positive, scores, weights)
    expected = [roc_auc_score(positive, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@given(cases)
def test_macro_auc_is_sklearns(seed):
    rng = np.random.default_rng(seed)
    y = np.r_[0, 1, 2, rng.integers(0, 3, 40)]
    chances = rng.dirichlet(np.ones(3), len(y))
    expected = roc_auc_score(y, chances, multi_class="ovr", average="macro")
    assert macro_auc(y, chances, np.ones((1, len(y))), range(3))[0] == pytest.approx(expected)


@given(cases)
def test_r2_is_sklearns(seed):
    rng = np.random.default_rng(seed)
    y, guess, weight = rng.normal(size=20), rng.normal(size=20), rng.random(20) + 0.1
    expected = r2_score(y, guess, sample_weight=weight)
    assert weighted_r2(y, guess, weight[None])[0] == pytest.approx(expected)


def test_the_bootstrap_draws_patients():
    units = np.repeat(np.arange(30), 3)
    weights = draws(units, 200, np.random.default_rng(0))
    assert (weights[:, 0::3] == weights[:, 1::3]).all() and (weights.sum(1) == 90).all()
    assert 0.9 < weights.var() < 1.1


def test_rows_of_one_patient_widen_the_interval():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 100)
    better, worse = (np.c_[-s, s] for s in (y + rng.normal(0, 1, 100), y + rng.normal(0, 2, 100)))
    y, better, worse = (np.repeat(x, 5, axis=0) for x in (y, better, worse))

    def judged(units):
        metrics = metrics_of(y, units, 2)
        found = replicate(metrics, y, [better, worse, worse], units, 0)
        return scored("AUC", metrics["AUC"], found["AUC"])

    rows, people = judged(np.arange(500)), judged(np.repeat(np.arange(100), 5))
    assert rows.gap == people.gap
    assert people.gap_high - people.gap_low > 1.7 * (rows.gap_high - rows.gap_low)


def test_patients_are_found_by_the_schema():
    train, holdout = patients(300, 0), patients(60, 1)
    train["mrn"] = [f"t{i}" for i in range(300)]
    holdout = pd.concat([holdout.assign(mrn=[f"h{i}" for i in range(60)])] * 5, ignore_index=True)
    synthetic = patients(300, 2)
    by_patient = utility(train, holdout, synthetic, schema("ill", patient=True)).models[0]
    by_row = utility(train, holdout, synthetic, schema("ill")).models[0]
    assert by_patient.gap == by_row.gap
    assert by_patient.gap_high - by_patient.gap_low > 1.5 * (by_row.gap_high - by_row.gap_low)


# features


def test_features_know_their_own_table_only(real):
    train, _ = real
    features = fit_features(train, schema("ill"))
    assert isinstance(features, Features) and set(features.levels["ward"]) == {"A", "B", "C"}
    other = train.assign(ward="Z", age=np.nan)
    assert np.isnan(features.trees(other)[:, [0, 2]]).all()
    rows = features.linear(other).toarray()
    assert rows[:, 1].all()  # every age is a gap
    assert rows.shape[1] == features.linear(train).shape[1]


def test_integer_levels_match_across_dtypes():
    levels = Schema(
        columns=tuple(
            Column(name=n, kind="categorical", role=r, dtype="float64", reason="made", missing=True)
            for n, r in (("code", "feature"), ("ill", "target"))
        )
    )
    whole = pd.DataFrame({"code": [1, 2] * 20, "ill": [0, 1] * 20})
    with_gaps = whole.astype(float)
    with_gaps.loc[0, "code"] = np.nan
    result = utility(whole, whole, with_gaps, levels)
    assert result.trtr == 1 and result.tstr > 0.95
