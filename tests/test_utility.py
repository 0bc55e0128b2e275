"""Utility: scores against scikit-learn's, fair treatment of lost classes, honest intervals."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from statsmodels.api import Logit

from synthmed_nb.bars import nice
from synthmed_nb.coefficients import choose_terms, coefficients, design, two_digits
from synthmed_nb.columns import Column, InputError
from synthmed_nb.companions import draws
from synthmed_nb.evaluation import evaluate
from synthmed_nb.learners import Features, fit_features, learn
from synthmed_nb.schema import Schema
from synthmed_nb.scores import (
    event_class,
    macro_auc,
    macro_f1,
    macro_precision,
    metrics_of,
    recalibration,
    reliability,
    replicate,
    weighted_accuracy,
    weighted_auc,
    weighted_brier,
    weighted_precision,
    weighted_r2,
    weighted_rmse,
    with_training,
)
from synthmed_nb.survival import concordance, followed, kaplan_meier, survival_of, weighted_rmst
from synthmed_nb.utility import block_scores, scored, utility


@pytest.fixture(scope="module", autouse=True)
def small_forests():
    """A hundred trees tell no more of these tables than twenty, and take half of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synthmed_nb.learners.TREES", 20)
        yield


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
    assert all(x.gap == x.gap_low == x.gap_high == 0 for m in result.models for x in m.scores)
    assert result.claim.holds is True and result.claim.high == 0
    assert all(a.tau == 1 and a.top == a.top_synthetic for a in result.agreements[1:])
    found = result.coefficients
    assert found.terms and (found.same_sign, found.covered, found.overlap) == (1, 1, 1)
    assert (result.metric, result.task) == {
        "ill": ("AUC", "binary"),
        "age": ("R2", "regression"),
    }[target]


def test_a_second_real_sample_is_worth_as_much(real):
    train, holdout = real
    result = utility(train, holdout, patients(500, 2), schema("ill"))
    assert abs(result.gap) < 0.03 and result.claim.holds is not False
    assert {a.top[0] for a in result.agreements[1:]} == {"age"}
    assert all(m.gap_low <= m.gap <= m.gap_high for m in result.models)


def test_shuffled_columns_are_worth_nothing(real):
    train, holdout = real
    rng = np.random.default_rng(0)
    noise = pd.DataFrame({name: rng.permutation(train[name].array) for name in train})
    result = utility(train, holdout, noise, schema("ill"))
    assert result.trtr > 0.85 and result.tstr < 0.7
    assert all(m.gap_low > 0.1 for m in result.models)


def test_labels_of_chance_are_worth_nothing_and_not_believed():
    train, holdout = patients(2000, 0), patients(1000, 1)
    order = np.random.default_rng(0).permutation(2000)
    order = order[np.argsort(train["age"].to_numpy()[order], kind="stable")]
    labels = np.empty(2000, object)
    labels[order] = np.tile(["no", "yes"], 1000)  # half and half at each age, else by chance
    result = utility(train, holdout, train.assign(ill=labels), schema("ill"))
    assert result.claim.holds is False and result.claim.low > 0.2
    assert "No, not within 3 % of real" in result.claim.sentence
    for model in result.models[1:]:  # a linear model of noise predicts the same risk for all
        real, synthetic, _ = model.calibration
        assert abs(synthetic.slope) < 0.2 < 0.4 < real.slope and synthetic.brier > real.brier
    assert result.coefficients.covered < 0.7 and result.coefficients.overlap <= 0.5  # rounded
    assert result.models[0].scores[0].both_gap < result.models[0].gap


def test_a_claim_about_nothing_is_not_made():
    rng = np.random.default_rng(0)
    tables = [patients(400, seed) for seed in range(3)]
    train, holdout, synthetic = (t.assign(ill=rng.choice(["no", "yes"], len(t))) for t in tables)
    result = utility(train, holdout, synthetic, schema("ill"))
    assert result.claim.holds is None and "no better than a guess" in result.claim.sentence
    noise = [t.assign(age=rng.normal(size=len(t))) for t in tables]
    result = utility(*noise, schema("age"))
    assert result.claim.holds is None and result.claim.relative_loss is None


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
    assert utility(train, holdout[holdout["ill"] == "no"], train, schema("ill")) is None
    assert utility(train, holdout[:0], train, schema("ill")) is None
    assert utility(train, holdout[:10], train, schema("age")) is None  # ten patients
    assert utility(train, holdout.assign(ill=None), train, schema("ill")) is None


@pytest.mark.parametrize("few", [0, 1, 10, 11])
def test_no_class_of_few_patients_is_named_or_calibrated(few):
    """Neither a class that H has few of, nor one that T has few of."""
    stages = ("none", "mild", "severe")
    train, holdout, rest = (patients(n, seed, stages) for n, seed in ((400, 0), (300, 1), (400, 2)))

    def with_few(table):
        mild = table["ill"] == "mild"
        return table[~mild | (mild.cumsum() <= few)].reset_index(drop=True)

    common = train["ill"].value_counts().index[1]
    assert utility(train, holdout, rest, schema("ill")).event == common
    only = train.assign(ill=train["ill"].replace("severe", "mild"))  # mild is the only case
    short = with_few(holdout.assign(ill=holdout["ill"].replace("severe", "mild")))
    result = utility(only, short, only, schema("ill"))
    assert (result is None) == (few < 11)
    result = utility(train, with_few(holdout), rest, schema("ill"))
    other = utility(with_few(train), holdout, rest, schema("ill"))
    for found in (result, other):
        assert few == 11 or found.event != "mild"
        assert all(len(m.calibration) == 3 * (found.event is not None) for m in found.models)
    two = [t.assign(ill=t["ill"].replace("severe", "none")) for t in (train, holdout, rest)]
    found = utility(with_few(two[0]), *two[1:], schema("ill"))
    if few == 0:
        assert found is None  # T has one class
    else:
        named = few == 11  # the second in order is "none", its rest "mild"
        assert (found.event == "none") == named == (found.coefficients is not None)
        assert bool(found.models[0].calibration) == named


def test_an_empty_class_is_not_enough():
    y, who = np.repeat([0, 1, 2], [60, 30, 8]), np.arange(98)
    assert event_class([(y, who), (y[:60], who[:60])], 3) is None
    assert event_class([(y, who), (y, np.zeros(98, int))], 3) is None  # all of one patient


@pytest.mark.parametrize("target", ["ill", "age"])
def test_an_absurd_number_ends_nothing(real, target):
    train, holdout = real
    for name in {"age", "bmi"} - ({"age"} if target == "ill" else set()):
        spoiled = [t.copy() for t in (train, holdout, train)]
        for at in ((2,), (0, 1)):
            for table in at:
                spoiled[table].loc[[5, 6], name] = [-1e300, 3.5e38]  # float32 ends at 3.4e38
            result = utility(*spoiled, schema(target))
            assert np.isfinite(list(numbers_of(result))).all()


def test_an_extreme_of_the_holdout_does_not_show(real):
    train, holdout = real
    old = holdout.assign(age=holdout["age"].where(np.arange(300) != 7, train["age"].max() + 1))
    oldest = old.assign(age=old["age"].where(np.arange(300) != 7, 5_000.0))
    first, second = (utility(train, h, train, schema("age")) for h in (old, oldest))
    assert first == second and first.models[0].scores[1].metric == "RMSE"


def test_levels_and_gaps_that_training_never_saw(real):
    train, holdout = real
    full = train.assign(ward="C", bmi=train["bmi"].fillna(25))
    result = utility(train, holdout.assign(ward="Z"), full, schema("ill"))
    assert np.isfinite(list(numbers_of(result))).all()
    result = utility(train, holdout, train.assign(bmi=np.nan, ward=None), schema("ill"))
    assert np.isfinite(list(numbers_of(result))).all() and result.coefficients.covered < 1


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
    expected = [sk.roc_auc_score(positive, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@given(cases)
def test_macro_auc_is_sklearns(seed):
    rng = np.random.default_rng(seed)
    y = np.r_[0, 1, 2, rng.integers(0, 3, 40)]
    chances = rng.dirichlet(np.ones(3), len(y))
    expected = sk.roc_auc_score(y, chances, multi_class="ovr", average="macro")
    assert macro_auc(y, chances, np.ones((1, len(y))), range(3))[0] == pytest.approx(expected)


@given(cases)
def test_scores_of_classes_are_sklearns(seed):
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 5))
    y = np.r_[np.arange(classes), rng.integers(0, classes, 40)]
    chances = np.round(rng.dirichlet(np.ones(classes), len(y)), 2)  # with ties
    chances /= chances.sum(1, keepdims=True)
    weights = rng.integers(1, 4, (3, len(y))).astype(float)
    told = [1] if classes == 2 else range(classes)
    said, one_hot = chances.argmax(1), np.eye(classes)[y]
    pairs = [
        (weighted_precision(y == 1, chances[:, 1], weights), sk.average_precision_score, y == 1,
         chances[:, 1], {}),
        (macro_precision(y, chances, weights, range(classes)), sk.average_precision_score,
         one_hot, chances, {"average": "macro"}),
        (weighted_accuracy(y, chances, weights), sk.accuracy_score, y, said, {}),
        (macro_f1(y, chances, weights, told), sk.f1_score, y, said,
         {"average": "macro", "labels": list(told)}),
        (weighted_brier(y, chances, weights), sk.brier_score_loss, y,
         chances if classes > 2 else chances[:, 1], {}),
    ]  # fmt: skip
    for found, score, truth, guess, options in pairs:
        expected = [score(truth, guess, sample_weight=w, **options) for w in weights]
        np.testing.assert_allclose(found, expected, atol=1e-9, err_msg=score.__name__)


@given(cases)
def test_r2_is_sklearns(seed):
    rng = np.random.default_rng(seed)
    y, guess, weight = rng.normal(size=20), rng.normal(size=20), rng.random(20) + 0.1
    expected = sk.r2_score(y, guess, sample_weight=weight)
    assert weighted_r2(y, guess, weight[None])[0] == pytest.approx(expected)
    expected = sk.root_mean_squared_error(y, guess, sample_weight=weight)
    assert weighted_rmse(y, guess, weight[None])[0] == pytest.approx(expected)


@given(cases)
def test_recalibration_is_a_logistic_regression(seed):
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1, 400)
    y = (rng.random(400) < 1 / (1 + np.exp(-logit * rng.random() * 2))).astype(int)
    intercept, slope = Logit(y, np.c_[np.ones(400), logit]).fit(disp=0).params
    found = recalibration(y, 1 / (1 + np.exp(-logit)))
    assert found == pytest.approx((slope, intercept), abs=1e-3)


@given(cases)
def test_a_reliability_curve_counts_nobody(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(30, 400))
    units, risk = rng.integers(0, n, n), np.round(rng.random(n) ** 3, int(rng.integers(1, 4)))
    y = (rng.random(n) < np.clip(risk + 0.1, 0, 1)).astype(int)
    units = np.unique(units, return_inverse=True)[1]
    if min(len(np.unique(units[y == c])) for c in (0, 1)) < 11:
        return
    predicted, observed, share = reliability(y, risk, units)
    assert sum(share) == pytest.approx(1, abs=1e-3) and predicted == sorted(predicted)
    for here, part in zip(observed, share, strict=True):
        for count in (here * part * n, (1 - here) * part * n):
            assert count < 0.5 or count > 10.5


def test_scores_of_few_errors_do_not_count_them():
    y = np.arange(2000) % 2
    sure = np.eye(2)[np.where(np.arange(2000) < 7, 1 - y, y)]  # seven are judged wrongly
    units = np.arange(2000)
    metrics = metrics_of(y, units, 2)
    found = replicate(metrics, y, [sure, np.eye(2)[y], sure], units, 0)
    for name in ("accuracy", "F1", "Brier"):
        told = scored(name, metrics[name], found[name])
        values = [told.real, told.gap, told.gap_low, told.gap_high]
        assert np.allclose(np.array(values) / nice(5 / 2000) % 1, 0)


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


# what changes nothing


@pytest.fixture(scope="module")
def unchanged():
    tables = patients(1200, 0), patients(800, 1), patients(1200, 2)
    return tables, utility(*tables, schema("ill"))


@pytest.mark.parametrize("change", ["names", "units", "rows"])
def test_what_must_not_matter_does_not(unchanged, change):
    (tables, first), layout = unchanged, schema("ill")
    if change == "names":
        names = {"age": "zeit", "ward": "abt", "ill": "krank"}
        tables = [t.rename(columns=names) for t in tables]
        columns = (c.model_copy(update={"name": names.get(c.name, c.name)}) for c in layout.columns)
        layout = Schema(columns=tuple(columns))
    elif change == "units":
        tables = [t.assign(bmi=t["bmi"] * 100 + 5000) for t in tables]
    else:
        tables = [t.sample(frac=1, random_state=0) for t in tables]
    second = utility(*tables, layout)
    near = {"names": 0, "units": 0.003, "rows": 0.015}[change]
    np.testing.assert_allclose(list(numbers_of(first)), list(numbers_of(second)), atol=near)
    assert first.claim.holds == second.claim.holds
    pairs = zip(first.coefficients.terms, second.coefficients.terms, strict=True)
    assert all(
        a.real == pytest.approx(b.real, rel=0.1) and a.covered == b.covered for a, b in pairs
    )
    assert [a.same_best for a in first.agreements[1:]] == [
        a.same_best for a in second.agreements[1:]
    ]


# coefficients


def test_coefficients_are_statsmodels():
    train, synthetic = patients(1500, 0), patients(1500, 2)
    y, other = ((t["ill"] == "yes").to_numpy().astype(int) for t in (train, synthetic))
    found = coefficients((train, y), (synthetic, other), schema("ill"), 2)
    assert found.kind == "logistic regression"
    x, mean, spread = [], train[["age", "bmi"]].mean(), train[["age", "bmi"]].std(ddof=0)
    for table in (train, synthetic):
        scaled = ((table[["age", "bmi"]] - mean) / spread).fillna(0)
        one_hot = pd.DataFrame({"bmi missing": table["bmi"].isna()})
        for level in ("A", "B", "C"):
            one_hot[f"ward = {level}"] = table["ward"] == level
        one_hot["ward missing"] = table["ward"].isna()
        x.append(pd.concat([scaled, one_hot.astype(float)], axis=1))
    names = [line.term for line in found.terms]
    assert "age" in names and "bmi missing" in names and len(names) >= 4
    for table, truth, side in ((x[0], y, "real"), (x[1], other, "synthetic")):
        model = Logit(truth, table[names].assign(constant=1.0)).fit(disp=0)
        low, high = model.conf_int()[0], model.conf_int()[1]
        for line in found.terms:
            told = [getattr(line, f"{side}{end}") for end in ("", "_low", "_high")]
            expected = [model.params[line.term], low[line.term], high[line.term]]
            step = 10 ** (np.floor(np.log10(np.abs(expected).max())) - 1)
            off = (np.array(told) - expected) / step
            assert abs(off[0]) <= 0.51 and -1.01 <= off[1] <= 0.01 and -0.01 <= off[2] <= 1.01


def test_no_term_stands_for_few():
    train = patients(1500, 0)
    y = (train["ill"] == "yes").to_numpy().astype(int)
    train["ward"] = train["ward"].astype(object)
    train.loc[np.flatnonzero(y == 1)[:10], "ward"] = "ten ill"
    train.loc[np.flatnonzero(y == 0)[:50], "ward"] = "ten ill"
    train.loc[np.flatnonzero(y == 0)[50:90], "ward"] = "all well"
    train["age"] = train["age"].where(np.arange(1500) >= 10)
    terms = choose_terms(train, ["age", "bmi", "ward"], schema("ill"), y, np.arange(1500))
    assert {"ten ill", "all well"}.isdisjoint(term.level for term in terms)
    assert "age missing" not in [term.name for term in terms]
    x = design(terms, train)
    for i, term in enumerate(terms):
        if term.kind is None:
            cells = pd.crosstab(x[:, i], y).to_numpy()
            assert cells.shape == (2, 2) and cells.min() >= 11
    assert len(choose_terms(train[:60], ["age", "bmi", "ward"], schema("ill"), y[:60], y[:60])) == 0


def test_a_coefficient_has_several_tables_behind_it():
    """One feature of two levels and one outcome: odds, and their error, of all tables of 60."""
    cells = np.array([12, 18, 19, 11])
    table = pd.DataFrame({"ward": np.repeat(["A", "A", "B", "B"], cells)})
    table["ill"] = np.repeat(["no", "yes", "no", "yes"], cells)
    y = (table["ill"] == "yes").to_numpy().astype(int)
    layout = Schema(columns=tuple(c for c in schema("ill").columns if c.name in ("ward", "ill")))
    (line,) = coefficients((table, y), (table, y), layout, True).terms
    told, fits = [line.real, line.real_low, line.real_high], 0
    a, b, c = (x.ravel() for x in np.mgrid[11:28, 11:28, 11:28])
    d = 60 - a - b - c
    a, b, c, d = (x[d >= 11] for x in (a, b, c, d))
    odds, error = np.log(a * d / (b * c)), np.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
    odds = -odds if line.term == "ward = A" else odds
    for each in zip(odds, odds - 1.96 * error, odds + 1.96 * error, strict=True):
        fits += two_digits(*each) == told
    assert fits >= 3


@pytest.mark.parametrize("few", [1, 5, 10])
def test_no_term_leaves_few_to_be_found(few):
    """Levels of a column, told with its total, would give away the one too small to be a term."""
    rng, n = np.random.default_rng(0), 900
    y = rng.integers(0, 2, n)
    table = pd.DataFrame({"ward": rng.choice(["A", "B", "C"], n), "bmi": 1.0, "age": 1.0})
    table["ward"] = table["ward"].astype(object)
    table.loc[np.flatnonzero(y == 1)[:few], "ward"] = None
    table.loc[np.flatnonzero(y == 0)[:50], "ward"] = None
    (term, *more) = choose_terms(table, ["ward"], schema("ill"), y, np.arange(n))
    told = {t.level for t in (term, *more)}
    assert None not in told and len(told) == 1  # one of three, since the reference is known too
    two = table.assign(ward=table["ward"].replace("C", "B"))
    assert [t.level for t in choose_terms(two, ["ward"], schema("ill"), y, np.arange(n))] == ["B"]


def test_a_separated_outcome_has_no_coefficients(real):
    train, holdout = real
    clear = train.assign(ill=np.where(train["age"] > 55, "yes", "no"))
    assert utility(clear, holdout, clear, schema("ill")).coefficients is None


# survival


def follow_up(n, seed, slower=1.0):
    rng = np.random.default_rng(seed)
    table = patients(n, seed)
    life = slower * rng.exponential(50 * np.exp((55 - table["age"]) / 15))
    end = slower * rng.uniform(10, 100, n)
    table["bmi"], table["ill"] = np.ceil(np.minimum(life, end)), np.where(life <= end, "yes", "no")
    return table


NAMES = ("bmi", "ill")


@pytest.fixture(scope="module")
def lives():
    return [follow_up(n, seed) for n, seed in ((600, 0), (400, 1), (600, 2))]


@given(cases)
def test_concordance_is_counted_by_hand(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 12))
    time, event = rng.integers(0, 5, n).astype(float), rng.random(n) < 0.6
    risk, weight = rng.integers(0, 4, n).astype(float), rng.integers(0, 3, n).astype(float)
    known = right = 0.0
    for i in range(n):
        for j in range(n):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                known += weight[i] * weight[j]
                share = 1 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0
                right += weight[i] * weight[j] * share
    expected = right / known if known else 0.5
    assert concordance(time, event, [risk], weight[None])[0, 0] == pytest.approx(expected)


@given(cases)
def test_curves_and_means_are_counted_by_hand(seed):
    rng = np.random.default_rng(seed)
    time, event = rng.integers(0, 30, 200) / 2 + 0.5, rng.random(200) < 0.5
    weights = rng.integers(0, 3, (2, 200)).astype(float)
    weights[0] = 1
    horizon, fine = 12.3, np.linspace(0, 12.3, 12301)
    expected = []
    for weight in weights:
        share, left = np.ones(len(fine)), 1.0
        for t in np.unique(time):
            at_risk, died = weight[time >= t].sum(), weight[(time == t) & event].sum()
            left *= 1 - died / at_risk if at_risk else 1
            share[fine >= t] = left
        expected.append(share[:-1].sum() * 0.001)
    np.testing.assert_allclose(weighted_rmst(time, event, weights, horizon), expected, atol=0.01)
    table = pd.DataFrame(
        {"bmi": time, "ill": np.where(event, "yes", "no"), "age": 1.0, "ward": "A"}
    )
    one = followed([table] * 3, schema("ill"), NAMES)[2]
    curve = kaplan_meier(one, np.array([0.0, 3, 6, 9, 12]), real=False)
    by_hand = [np.prod([1 - ((time == t) & event).sum() / (time >= t).sum()
                        for t in np.unique(time[time <= at])]) for at in curve.times]  # fmt: skip
    np.testing.assert_allclose(curve.survival, by_hand, atol=1e-4)
    assert all(a <= b <= c for a, b, c in zip(curve.low, curve.survival, curve.high, strict=True))


def test_survival_of_another_sample_and_of_doubled_times(lives):
    layout = schema("ill")
    same = survival_of(followed(lives, layout, NAMES), layout, NAMES)
    assert same.difference_low < 0 < same.difference_high and same.c_low < 0.02
    assert same.c_real > 0.65 and abs(same.c_gap) < 0.03
    for factor in (2, 0.5):
        doubled = [*lives[:2], lives[2].assign(bmi=lives[2]["bmi"] * factor)]
        found = survival_of(followed(doubled, layout, NAMES), layout, NAMES)
        assert found.horizon == same.horizon * min(factor, 1) and abs(found.c_gap) < 0.03
        low, high = found.difference_low, found.difference_high
        assert low > 0 if factor == 2 else high < 0
    turned = [*lives[:2], lives[2].assign(age=110 - lives[2]["age"])]
    assert survival_of(followed(turned, layout, NAMES), layout, NAMES).c_low > 0.3


def test_survival_stands_in_the_result(lives):
    train, holdout, _ = lives
    result = utility(train, holdout, train, schema("ill"), survival=NAMES)
    assert result.survival.difference == result.survival.c_gap == result.survival.c_high == 0
    assert (
        result.model_dump_json()
        == utility(train, holdout, train, schema("ill"), survival=NAMES).model_dump_json()
    )


def test_a_real_curve_counts_nobody(lives):
    """In steps of 11 patients at least, over at least 11 followed, on round times."""
    layout = schema("ill")
    found = survival_of(followed(lives, layout, NAMES), layout, NAMES)
    for curve, table in ((found.real, lives[0]), (found.holdout, lives[1])):
        assert len(curve.times) <= 60 and (table["bmi"] >= curve.times[-1]).sum() >= 11
        step = nice(11 / len(table))
        for line in (curve.survival, curve.low, curve.high):
            assert np.allclose(np.array(line) / step, np.round(np.array(line) / step))
    one_less = [lives[0].assign(ill=lives[0]["ill"].where(np.arange(600) != 5, "no")), *lives[1:]]
    other = survival_of(followed(one_less, layout, NAMES), layout, NAMES).real
    moved = np.abs(np.array(other.survival) - found.real.survival)
    assert np.isin(np.round(moved, 6), [0, nice(11 / 600)]).all()


def test_follow_up_with_gaps_and_without_events(lives):
    layout, rng = schema("ill"), np.random.default_rng(0)
    gaps = [t.assign(bmi=t["bmi"].where(rng.random(len(t)) < 0.8)) for t in lives]
    gaps[2].loc[:20, "bmi"] = -5.0
    found = survival_of(followed(gaps, layout, NAMES), layout, NAMES)
    assert np.isfinite([found.rmst_real, found.c_gap, found.difference_high]).all()
    never = [*lives[:2], lives[2].assign(ill="no")]
    found = survival_of(followed(never, layout, NAMES), layout, NAMES)
    assert found.c_synthetic == 0.5 and found.rmst_synthetic == found.horizon
    all_dead = [*lives[:2], lives[2].assign(ill="yes")]
    curve = survival_of(followed(all_dead, layout, NAMES), layout, NAMES).synthetic
    assert np.isfinite([curve.survival, curve.low, curve.high]).all()
    with pytest.raises(InputError, match="train table"):
        few = lives[0].assign(ill=np.where(np.arange(600) < 10, "yes", "no"))
        followed([few, *lives[1:]], layout, NAMES)
    with pytest.raises(InputError, match="synthetic table"):
        followed([*lives[:2], lives[2].assign(bmi=np.nan)], layout, NAMES)
    for names in (("ward", "ill"), ("bmi", "age"), ("bmi", "none"), ("ill", "bmi")):
        with pytest.raises(InputError, match="survival|event"):
            utility(*lives, layout, survival=names)


# the chance of training


def eight(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8))
    table = pd.DataFrame(np.round(x, 2), columns=list("abcdefgh"))
    table["y"] = (x[:, 0] + 0.5 * x[:, 1] + rng.logistic(size=n) > 0).astype(int)
    return table


def test_intervals_of_independent_samples_hold_no_gap(monkeypatch):
    """With the models held as they are, more than a quarter of such intervals exclude 0."""
    names = ("logistic regression", "XGBoost")
    monkeypatch.setattr("synthmed_nb.utility.learn", lambda *args: learn(*args, names))
    layout, outside, even = (
        Schema.detect(eight(500, 0), target="y", small=True),
        0,
        np.ones((1, 800)),
    )
    for i in range(20):
        train, synthetic, holdout = (eight(n, 3 * i + k) for k, n in enumerate((400, 400, 800)))
        parts = [(t, t["y"].to_numpy()) for t in (train, synthetic)]
        y, who = holdout["y"].to_numpy(), np.arange(800)
        metrics = {"AUC": metrics_of(y, who, 2)["AUC"]}

        def test(some, y=y, holdout=holdout, metrics=metrics):
            said = [one.predict(one.rows(holdout)) for one in some]
            return {"AUC": np.array([metrics["AUC"].score(y, s, even)[0] for s in said])}

        learned = [learn(*part, layout, 2, 0, names) for part in parts]
        trios = zip(*learned, learned[0], strict=True)
        guesses = [one.predict(one.rows(holdout)) for trio in trios for one in trio]
        found = replicate(metrics, y, guesses, who, 0)
        found = {"AUC": found["AUC"].reshape(-1, 2, 3)}
        found = with_training(found, *block_scores(parts, test, layout, 2, 0), 0)
        for model in (0, 1):
            told = scored("AUC", metrics["AUC"], found["AUC"][:, model])
            outside += not told.gap_low <= 0 <= told.gap_high
    assert outside <= 8  # of 40
