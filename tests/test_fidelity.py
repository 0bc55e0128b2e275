"""Fidelity: definitions against independent code, floors, and what a result may not show."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from synthmed_nb import datasets
from synthmed_nb.associations import Grams, fixed_codes, of_pairs, trend_errors
from synthmed_nb.bars import grid, nice, pool_levels, shown_cells
from synthmed_nb.cells import Cells, numbers
from synthmed_nb.columns import Column, InputError
from synthmed_nb.companions import companions
from synthmed_nb.detection import auc_variance
from synthmed_nb.distances import (
    correlations,
    ks_distance,
    pair_distances,
    ten_bins,
    total_variation,
)
from synthmed_nb.evaluation import Evaluation, evaluate
from synthmed_nb.fidelity import fidelity, table_measures
from synthmed_nb.headline import abouts
from synthmed_nb.manifold import paper_measures, paper_space, paper_support
from synthmed_nb.marginals import shape_errors
from synthmed_nb.missingness import missing_errors
from synthmed_nb.schema import Schema

EXAMPLES = Path(__file__).parent / "examples"
KINDS = {"age": "numeric", "bmi": "numeric", "seen": "datetime", "sex": "categorical"}
KINDS |= {"ward": "categorical", "ill": "categorical"}


def column(name, kind, role="feature", **more):
    dtype = {"numeric": "float64", "datetime": "datetime64[ns]"}.get(kind, "str")
    return Column(name=name, kind=kind, role=role, dtype=dtype, reason="made", missing=True, **more)


SCHEMA = Schema(
    columns=tuple(column(n, k, "target" if n == "ill" else "feature") for n, k in KINDS.items())
)
NAMES = SCHEMA.modelled


def patients(n, seed):
    rng = np.random.default_rng(seed)
    age = rng.integers(20, 90, n).astype(float)
    table = pd.DataFrame({"age": age, "bmi": np.round(20 + age / 10 + rng.normal(0, 2, n), 1)})
    table["seen"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 700, n), unit="D")
    table["sex"] = rng.choice(["F", "M"], n)
    table["ward"] = np.where(age > 60, rng.choice(["A", "B"], n), rng.choice(["B", "C", "D"], n))
    table["ill"] = np.where(age + rng.normal(0, 12, n) > 60, "yes", "no")
    table.loc[rng.random(n) < 0.2, ["bmi", "ward"]] = None
    return table.astype({"ward": "str", "sex": "str", "ill": "str"})


@pytest.fixture(scope="module")
def real():
    return patients(600, 0), patients(300, 1)


@pytest.fixture(scope="module")
def second(real):
    """The evaluation of an independent real sample."""
    return evaluate(*real, patients(600, 2), SCHEMA)


@pytest.fixture(scope="module")
def large():
    """The fidelity of an independent real sample, where the steps of rounding are small."""
    return fidelity(patients(3_000, 0), patients(1_500, 1), patients(3_000, 2), SCHEMA)


def test_identical_tables_have_no_error(real):
    train, holdout = real
    result = fidelity(train, holdout, train.copy(), SCHEMA)
    errors = [m for m in result.measures if m.best == "low" and m.family != "detection"]
    assert len(errors) >= 10
    for measure in errors:
        assert measure.value == 0
        coarse = ("rule violations", "missing patterns", "Wasserstein")
        assert measure.floor > 0 or measure.name in coarse
    assert result.score.parts["columns"] == result.score.parts["pairs"] == 100
    assert np.array(result.pairs.error).max() == 0
    both = result.pairs.association_real, result.pairs.association_synthetic
    np.testing.assert_allclose(*both, atol=0.1)  # those of T come from coarse shares
    assert all(c.real == c.synthetic and c.shape_error == 0 for c in result.columns)
    assert all(not c.wasserstein for c in result.columns)
    new = result.measure("authenticity")  # half of the copies have lost their original to the cut
    assert new.value < 0.3 and new.ratio_high < 0.8


# controls


def test_a_second_real_sample_sits_at_its_floor(large):
    """Every ratio holds 1 in its interval; one of these 95 % intervals may miss by chance."""
    assert large.score.low < large.score.value <= large.score.high
    assert large.score.value > 98
    told = [m for m in large.measures if m.ratio_low is not None]
    assert len(told) >= 18
    missed = [m for m in told if not m.ratio_low <= 1 <= m.ratio_high]
    assert len(missed) <= 1, missed
    for seen in large.detections:
        assert seen.auc_low < 0.55 and abs(seen.floor_auc - 0.5) < 0.08


def test_intervals_of_ratios_hold_their_promise():
    """Over many independent real samples at least nine in ten intervals hold 1."""
    held, about = [], dict.fromkeys(("paper shape", "fixed", "rates", "dependent", "threes"))
    for seed in range(12):
        four = [patients(n, 10 * seed + i) for i, n in enumerate((500, 500, 250, 250))]
        cells, units = Cells.of(four, SCHEMA), [np.arange(len(t)) for t in four]
        found, _, _ = table_measures(cells, units, SCHEMA, seed)
        named = {k: v for k, v in abouts(len(NAMES), 2, 0).items() if k in about}
        told = companions(found, named, (500, 250))
        held += [m.ratio_low <= 1 <= m.ratio_high for m in told if m.ratio_low is not None]
    assert len(held) >= 50 and np.mean(held) >= 0.9


def test_pairs_of_a_wide_table_are_capped_and_the_cap_is_told(real, monkeypatch):
    train, holdout = real
    monkeypatch.setattr("synthmed_nb.fidelity.MOST_PAIRED", 3)
    result = fidelity(train, holdout, train.copy(), SCHEMA)
    assert len(result.pairs.names) == 3 == len(result.pairs.error)
    assert {c.name for c in result.columns} == set(SCHEMA.modelled)
    assert SCHEMA.target in result.pairs.names
    assert any(f"3 of {len(SCHEMA.modelled)} columns" in cap for cap in result.caps)
    for form in ("paper", "fixed"):
        assert result.measure("Trend", form).value == result.measure("Shape", form).value == 0


def test_shuffled_columns_keep_shape_and_lose_the_rest(real):
    train, holdout = real
    rng = np.random.default_rng(0)
    shuffled = pd.DataFrame({name: rng.permutation(train[name].array) for name in train})
    result = fidelity(train, holdout, shuffled, SCHEMA)
    for form in ("paper", "fixed"):
        assert result.measure("Shape", form).value == 0
        assert result.measure("Trend", form).ratio_low > 1.1
    assert result.measure("missing rates").value == 0
    for name in ("rank association", "mutual information", "three-way marginals"):
        assert result.measure(name).ratio_low > 1.1, name
    seen = result.detection()
    assert seen.auc_low > 0.7 and seen.score < 0.6 and result.score.parts["detection"] < 60
    assert len(seen.clues[0].columns) == 2  # a pair gives it away, no column does
    assert {"age", "bmi", "ill", "ward"} >= set(seen.clues[0].columns)


def test_only_the_fixed_trend_sees_numbers_that_all_grew():
    train, holdout = patients(600, 0), patients(300, 1)
    grown = train.assign(age=100 * train["age"] + 5000, bmi=100 * train["bmi"] + 5000)
    result = fidelity(train, holdout, grown, SCHEMA)
    paper, fixed = (result.measure("Trend", form) for form in ("paper", "fixed"))
    assert paper.value == 0 and fixed.ratio_low > 3
    assert result.measure("rank association").value == 0
    assert result.measure("Wasserstein").value > 100
    assert result.measure("alpha-precision").value < 0.5


def test_gaps_made_independent_keep_their_rates_and_lose_what_they_depend_on():
    def gappy(n, seed):
        made = patients(n, seed).assign(bmi=lambda t: t["age"] / 4, ward="A")
        return made.assign(bmi=made["bmi"].where(made["sex"] == "F"))  # null if and only if male

    train, holdout = gappy(600, 0), gappy(300, 1)
    rng = np.random.default_rng(0)
    loose = train.assign(
        bmi=(train["age"] / 4).where(rng.random(600) < train["bmi"].notna().mean())
    )
    right, wrong = (fidelity(train, holdout, s, SCHEMA) for s in (gappy(600, 2), loose))
    assert right.measure("dependent missingness").ratio_high > 0.9
    assert right.measure("dependent missingness").ratio_low < 1.1
    assert wrong.measure("dependent missingness").ratio_low > 1.5
    assert wrong.measure("missing rates").value <= 4  # points; a step is 2
    (told,) = [d for d in wrong.missingness.dependent if d.given == "sex"]
    assert {told.real, told.real_else} == {0, 1} and 0.3 < told.synthetic < 0.7
    assert wrong.measure("rule violations").value > 20 > right.measure("rule violations").value == 0


def test_order_names_and_units_change_nothing(real, second):
    train, holdout = real
    synthetic = patients(600, 2)
    before = {(m.name, m.form): m for m in second.fidelity.measures}
    exact = [key for key in before if before[key].family in ("columns", "missing", "rare", "rules")]

    def values(schema, *tables):
        found = fidelity(*tables, schema)
        return {(m.name, m.form): m.value for m in found.measures}

    turned = [t.sample(frac=1, random_state=1) for t in (train, holdout, synthetic)]
    after = values(SCHEMA, *turned)
    for key in [*exact, ("Trend", "paper"), ("Trend", "fixed")]:  # the others cut by chance
        assert after[key] == pytest.approx(before[key].value, abs=1e-3), key
    backwards = Schema(columns=SCHEMA.columns[::-1])
    after = values(backwards, *(t[NAMES[::-1]] for t in (train, holdout, synthetic)))
    for key in [*exact, ("Trend", "paper"), ("Trend", "fixed"), ("beta-recall", "paper")]:
        assert after[key] == pytest.approx(before[key].value, abs=1e-3), key
    names = {name: f"{name} (new)" for name in NAMES}
    schema = Schema(
        columns=tuple(c.model_copy(update={"name": names[c.name]}) for c in SCHEMA.columns)
    )
    after = values(schema, *(t.rename(columns=names) for t in (train, holdout, synthetic)))
    assert after == {key: m.value for key, m in before.items()}
    scaled = [t.assign(age=100 * t["age"] + 5000) for t in (train, holdout, synthetic)]
    after = values(SCHEMA, *scaled)
    for key in before:
        slack = 0.03 if before[key].family == "detection" else 1e-3
        assert after[key] == pytest.approx(before[key].value, abs=slack), key


def test_rows_that_are_there_twice_are_no_more_evidence(real):
    """Each patient's record doubled, with the patient named: the same intervals."""
    key = Column(
        name="mrn", kind="identifier", role="patient", dtype="int64", reason="key", missing=False
    )
    schema = Schema(columns=(key, *SCHEMA.columns))
    once = [
        t.assign(mrn=np.arange(len(t)) + 10_000 * i)
        for i, t in enumerate((*real, patients(600, 2)))
    ]
    twice = [pd.concat([t, t], ignore_index=True) for t in once]
    found = [
        table_measures(
            Cells.of(t, schema),
            [np.tile(np.arange(len(o)), len(t[0]) // len(once[0])) for o in once[::2]],
            schema,
            0,
        )[0]
        for t in (once[::2], twice[::2])
    ]
    for name, value in found[0].values.items():
        np.testing.assert_allclose(found[1].values[name], value, atol=1e-4)
        ratio = found[1].draws[name].std() / max(found[0].draws[name].std(), 1e-9)
        assert 0.7 < ratio < 1.4 or found[0].draws[name].std() < 1e-6, name


# the papers' definitions


def wards(n, seed, tilt):
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 95, n).astype(float)
    made = pd.DataFrame({"age": age, "crp": np.round(np.exp(rng.normal(1 + tilt, 1, n)), 2)})
    made["stay"] = np.round(2 + age / 20 + rng.exponential(3, n))
    made["sex"] = rng.choice(["F", "M"], n, p=[0.5 + tilt, 0.5 - tilt])
    made["ward"] = np.where(age > 60, rng.choice(["A", "B"], n), rng.choice(["B", "C", "D"], n))
    made.loc[rng.random(n) < 0.2 + tilt, "crp"] = None
    made.loc[rng.random(n) < 0.1, "ward"] = None
    return made


def trial(n, seed, tilt):
    rng = np.random.default_rng(seed)
    dose = rng.choice([0.0, 5, 10, 20], n)
    made = pd.DataFrame({"dose": dose, "weight": np.round(rng.normal(75, 12, n), 1)})
    made["response"] = np.round(dose * (0.1 + tilt) + rng.normal(0, 1, n), 3)
    made["site"] = rng.choice([f"S{i}" for i in range(12)], n)
    made["done"] = np.where(rng.random(n) < 0.8 + tilt, "yes", "no")
    return made


def halves():
    table = datasets.load_nhanes()
    return table.iloc[:2500], table.iloc[2500:]


@pytest.mark.parametrize(
    ("name", "target", "make"),
    [
        ("wards", "sex", lambda: (wards(1500, 1, 0.0), wards(1200, 2, 0.06))),
        ("trial", "done", lambda: (trial(900, 3, 0.0), trial(900, 4, 0.05))),
        ("nhanes", "diabetes", halves),
    ],
)
def test_paper_form_is_that_of_sdmetrics(name, target, make):
    """Against values that sdmetrics 0.32.0 gave for the same tables (thresholds of pairs off)."""
    told = json.loads((EXAMPLES / "sdmetrics.json").read_text(encoding="utf-8"))[name]
    tables = make()
    schema = Schema.detect(tables[0], target=target)
    cells, names = Cells.of([schema.check(t) for t in tables], schema), schema.modelled
    shapes, trends = shape_errors(cells, names), trend_errors(cells, names)
    assert 1 - shapes.mean() / 100 == pytest.approx(told["shape"], abs=1e-6)
    assert 1 - of_pairs(trends).mean() / 100 == pytest.approx(told["trend"], abs=1e-6)
    assert dict(zip(names, 1 - shapes / 100, strict=True)) == pytest.approx(
        told["columns"], abs=1e-6
    )
    for one, other, score in told.get("pairs", []):
        assert 1 - trends[names.index(one), names.index(other)] / 100 == pytest.approx(
            score, abs=1e-6
        )


def alaa(real, other):
    """alpha-precision, beta-recall and authenticity in plain loops, as the papers have them."""
    apart = np.sqrt(((real[:, None] - real[None]) ** 2).sum(-1))
    np.fill_diagonal(apart, np.inf)
    across = np.sqrt(((real[:, None] - other[None]) ** 2).sum(-1))
    own, nearest, closest = apart.min(1), across.min(1), across.argmin(1)
    radius = np.sqrt(((real - real.mean(0)) ** 2).sum(1))
    from_real = np.sqrt(((other - real.mean(0)) ** 2).sum(1))
    from_own = np.sqrt(((other[closest] - other.mean(0)) ** 2).sum(1))
    alphas, precision, recall = np.linspace(0, 1, 30), [], []
    for alpha in alphas:
        precision.append((from_real <= np.quantile(radius, alpha)).mean())
        inside = from_own <= np.quantile(from_own, alpha)
        recall.append(((nearest <= own) & inside).mean())
    areas = [1 - np.abs(alphas - x).sum() / alphas.sum() for x in (precision, recall)]
    return *areas, (own[closest] < nearest).mean()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_alpha_precision_and_beta_recall_are_those_of_the_papers(seed):
    tables = [patients(200, seed).dropna(), patients(260, seed + 9).dropna()]
    n = min(map(len, tables))
    cells = Cells.of(
        [t[:n].assign(age=t["age"][:n] + 15 * i) for i, t in enumerate(tables)], SCHEMA
    )
    spaces = [paper_space(cells, t) for t in (0, 1)]
    found = paper_measures(paper_support(*spaces), np.ones(n), np.ones(n))
    assert list(found.values()) == pytest.approx(alaa(*spaces), abs=1e-6)
    assert 0 < found["recall"] < found["precision"] < 1


@pytest.mark.parametrize(
    ("real", "synthetic", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 0),
        ([1, 2, 3, 4], [5, 6, 7, 8], 1),
        ([1, 2, 3, 4], [1, 1, 3, 4], 0.25),
        ([0, 0, 0, 1], [0, 1, 1, 1], 0.5),
        ([1, 2, None, None], [1, 2], 0),
        ([1, 2], [None, None], 1),
    ],
)
def test_ks_by_hand(real, synthetic, expected):
    assert ks_distance(np.array(real, float), np.array(synthetic, float)) == expected


@pytest.mark.parametrize(
    ("real", "synthetic", "expected"),
    [
        ([["a", "x"]] * 4, [["a", "x"]] * 4, 0),
        ([["a", "x"], ["b", "y"]], [["a", "y"], ["b", "x"]], 100),  # margins agree, pairs do not
        ([["a", "x"], ["b", "y"]], [["a", "x"], ["a", "x"]], 50),
        ([["a", "x"], ["b", None]], [["a", "x"], ["b", "y"]], 50),  # a gap is a level
    ],
)
def test_contingency_by_hand(real, synthetic, expected):
    schema = Schema(columns=(column("l", "categorical"), column("r", "categorical")))
    tables = [pd.DataFrame(rows, columns=["l", "r"]) for rows in (real, synthetic)]
    cells = Cells.of(tables, schema)
    assert trend_errors(cells, ["l", "r"])[0, 1] == expected
    grams = Grams([fixed_codes(cells, name) for name in ("l", "r")])
    assert fixed_trend(grams)[0, 1] == pytest.approx(expected, abs=1e-4)


floats = st.lists(st.floats(-1e6, 1e6) | st.integers(-3, 3), min_size=1, max_size=40)


@given(floats, floats)
def test_ks_is_the_largest_distance_of_the_distribution_functions(a, b):
    a, b = np.array(a, float), np.array(b, float)
    expected = max(abs((a <= x).mean() - (b <= x).mean()) for x in [*a, *b])
    assert ks_distance(a, b) == pytest.approx(expected, abs=1e-12)


codes = st.lists(st.integers(0, 6), min_size=1, max_size=40).map(lambda x: np.array(x))


@given(codes, codes)
def test_total_variation_dense_and_sparse(a, b):
    p, q = (pd.Series(x).value_counts(normalize=True) for x in (a, b))
    expected = p.sub(q, fill_value=0).abs().sum() / 2
    assert total_variation(a, b) == pytest.approx(expected)
    assert total_variation(a * 10**6, b * 10**6) == pytest.approx(expected)


@given(st.integers(0, 10_000))
def test_correlations_are_pandas(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, 4)) * 10.0 ** rng.integers(-3, 6, 4) + 10.0 ** rng.integers(-3, 5, 4)
    x[rng.random(x.shape) < 0.2] = np.nan
    np.testing.assert_allclose(correlations(list(x.T)), pd.DataFrame(x).corr(), atol=1e-6)


def fixed_trend(grams):
    return grams.distances(*(grams.shares(t, np.ones(len(grams.places[t]))) for t in (0, 1)))


@given(st.integers(0, 10_000))
def test_all_contingency_tables_at_once_are_those_of_one_by_one(seed):
    rng = np.random.default_rng(seed)
    coded = [[rng.integers(0, k, n) for n in (60, 40)] for k in rng.integers(1, 9, 5)]
    expected = pair_distances(*([c[t] for c in coded] for t in (0, 1)))
    found = fixed_trend(Grams(coded))
    np.testing.assert_allclose(
        found[np.triu_indices(5, 1)], expected[np.triu_indices(5, 1)], atol=1e-4
    )


def test_correlation_of_a_constant_counts_as_zero():
    line = np.arange(6.0)
    cells = Cells({"a": [line, line], "b": [line, np.ones(6)]}, {}, {})
    assert trend_errors(cells, ["a", "b"])[0, 1] == pytest.approx(50)


def test_trend_with_own_edges_is_blind_to_shift_and_the_fixed_one_is_not():
    table = patients(300, 0)
    moved = table.assign(age=table["age"] + 100)
    cells = Cells.of([table, moved], SCHEMA)
    place = NAMES.index("age"), NAMES.index("ward")
    assert trend_errors(cells, NAMES)[place] == 0
    assert fixed_trend(Grams([fixed_codes(cells, name) for name in NAMES]))[place] > 40


def test_ten_bins_of_nothing_and_of_a_constant():
    assert ten_bins(np.array([np.nan])).tolist() == [0]
    assert len(set(ten_bins(np.full(3, 7.0)))) == 1


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60))
def test_shape_is_a_percentage_and_ignores_row_order(seed, n, m):
    table, other = patients(n, seed), patients(m, seed + 1)
    errors = shape_errors(Cells.of([table, other], SCHEMA), NAMES)
    assert ((errors >= 0) & (errors <= 100 + 1e-9)).all()
    turned = [table.sample(frac=1, random_state=seed), other.iloc[::-1]]
    np.testing.assert_array_equal(errors, shape_errors(Cells.of(turned, SCHEMA), NAMES))
    back = shape_errors(Cells.of([other, table], SCHEMA), NAMES)
    np.testing.assert_allclose(errors, back, atol=1e-9)


def test_a_column_lost_to_gaps_scores_the_worst(real):
    train, holdout = real
    lost = train.assign(age=np.nan, ward=None)
    result = fidelity(train, holdout, lost, SCHEMA)
    by_name = {c.name: c for c in result.columns}
    assert by_name["age"].shape_error == 100 and by_name["ward"].shape_error > 70
    assert by_name["age"].missing_synthetic == 1 and result.missingness.worst == 100


def test_a_constant_synthetic_table_is_scored(real):
    train, holdout = real
    constant = pd.concat([train[:1]] * 50, ignore_index=True)
    result = fidelity(train, holdout, constant, SCHEMA)
    assert result.detection().auc > 0.9 and result.measure("Shape").value > 30
    assert result.score.value < 80 and result.measure("beta-recall").value < 0.2


def test_few_missing_cells_count_as_none():
    schema = Schema(columns=(column("age", "numeric"),))
    full = pd.DataFrame({"age": np.arange(100.0)})
    for gaps, expected in ((10, 0), (11, 11)):
        holes = full.assign(age=full["age"].where(full.index >= gaps))
        assert missing_errors(Cells.of([holes, full], schema), ["age"])[0] == pytest.approx(
            expected
        )


def test_no_floor_without_a_holdout(real):
    train, holdout = real
    result = fidelity(train, holdout[:0], train, SCHEMA)
    assert result.detection().floor_score is None and result.score.value == 100
    assert {(m.floor, m.ratio) for m in result.measures} == {(None, None)}


def test_auc_is_sklearns_and_patients_widen_the_interval():
    rng = np.random.default_rng(0)
    label, score = rng.random(400) < 0.4, rng.integers(0, 9, 400).astype(float)
    value, variance = auc_variance(label, score + label, np.arange(400))
    assert value == pytest.approx(roc_auc_score(label, score + label))
    twice = (np.r_[label, label], np.r_[score, score], np.r_[np.arange(400), np.arange(400)])
    once = auc_variance(label, score, np.arange(400))[1]
    assert auc_variance(*twice)[1] == pytest.approx(once)  # a copy of each row is no evidence
    assert auc_variance(*twice[:2], np.arange(800))[1] < 0.6 * once


def test_detection_does_not_recognise_patients():
    """Ten equal rows a patient: told apart by row, not by patient."""
    rng = np.random.default_rng(0)
    schema = Schema(
        columns=(
            column("mrn", "identifier", "patient"),
            column("a", "numeric"),
            column("b", "numeric"),
        )
    )

    def visits(first):
        rows = pd.DataFrame(rng.normal(size=(80, 2)), columns=["a", "b"]).assign(
            mrn=range(first, first + 80)
        )
        return pd.concat([rows] * 10, ignore_index=True).astype({"mrn": "str"})

    train, holdout = visits(0), visits(1000)
    synthetic = pd.DataFrame(rng.normal(size=(800, 2)), columns=["a", "b"])
    grouped = fidelity(train, holdout, synthetic, schema).detection().floor_auc
    by_row = (
        fidelity(train, holdout, synthetic, Schema(columns=schema.columns[1:]))
        .detection()
        .floor_auc
    )
    assert by_row > 0.9 and 0.35 < grouped < 0.65


# what may be shown

counts = st.lists(st.integers(0, 40), min_size=2, max_size=30)


@given(counts)
def test_no_cell_can_be_worked_out(counts):
    counts = np.array(counts)
    shown = shown_cells(counts)
    assert not ((counts > 0) & (counts < 11) & shown).any()
    hidden = counts[~shown]
    if len(hidden) in (0, len(counts)):
        return
    # The reader knows the hidden total, and that no hidden cell is empty unless all are hidden.
    if (hidden > 0).all():
        largest = hidden.sum() - (len(hidden) - 1)
        assert len(hidden) >= 2 and largest >= 11  # each may be 1, and each may be more than 10


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40))
def test_only_levels_of_eleven_patients_keep_their_name(sizes):
    patients = np.array([0, *sizes])
    bars, names = pool_levels(patients, [f"level {i}" for i in range(len(sizes))], most=20)
    named = [name for name in names if name != "other"]
    assert len(named) == min(20, sum(size >= 11 for size in sizes))
    assert all(sizes[int(name[6:])] >= 11 for name in named)
    assert bars[0] == len(names)


@given(st.lists(st.floats(-1e5, 1e5).map(lambda x: round(x, 3)), min_size=1, max_size=50))
def test_edges_are_round_numbers(values):
    edges = grid(np.array(values))
    assert (np.diff(edges) > 0).all() and len(edges) <= 40
    if len(edges) > 1:
        step = nice(np.diff(edges).min() * 0.999)
        np.testing.assert_allclose(edges / step, np.round(edges / step), atol=1e-3)


def test_a_result_shows_no_rare_level_and_no_small_count(real):
    train, holdout = real
    rare = train.copy()
    rare.loc[:3, "ward"] = "Smallpox isolation"
    rare.loc[4:8, "age"] = 108.25
    rare.loc[9:11, "sex"] = None
    result = fidelity(rare, holdout, rare, SCHEMA)
    text = result.model_dump_json()
    assert "Smallpox" not in text and "108.25" not in text
    for shown in result.columns:
        cells = [*shown.real, shown.missing_real]
        seen = [round(share * len(rare)) for share in cells if share is not None]
        assert all(count == 0 or count >= 11 for count in seen)
        assert cells.count(None) != 1
    assert {c.name: c for c in result.columns}["sex"].missing_real is None


# the whole


def test_the_same_seed_gives_the_same_bytes(real, second):
    again = evaluate(*real, patients(600, 2), SCHEMA)
    assert again.model_dump_json() == second.model_dump_json()
    other = evaluate(*real, patients(600, 2), SCHEMA, seed=1)
    assert other.model_dump_json() != second.model_dump_json()


def test_a_result_is_json_and_comes_back(second):
    text = json.dumps(second.model_dump(mode="json"), allow_nan=False)
    assert Evaluation.model_validate_json(text) == second
    page = second._repr_html_()
    assert page.count("<table>") == 1 and f"{second.fidelity.score.value:.1f} %" in page


def test_inputs_are_left_alone(real):
    train, holdout = real
    before = train.copy()
    fidelity(train, holdout, train[:100], SCHEMA)
    pd.testing.assert_frame_equal(train, before)


def test_bad_tables_are_refused(real):
    train, holdout = real
    with pytest.raises(InputError, match="'ward'"):
        evaluate(train, holdout, train.drop(columns="ward"), SCHEMA)
    with pytest.raises(InputError, match="synthetic"):
        evaluate(train, holdout, train[:5], SCHEMA)


def test_dates_and_infinities_are_numbers():
    assert numbers(pd.Series([np.inf, 2.5])).tolist()[1] == 2.5
    dates = pd.Series(pd.to_datetime(["1970-01-02 12:00", None]))
    assert numbers(dates, "datetime")[0] == 1.5 and np.isnan(numbers(dates, "datetime")[1])


def test_one_column_makes_no_pair_and_no_error():
    assert of_pairs(np.ones((1, 1))).tolist() == [0]
