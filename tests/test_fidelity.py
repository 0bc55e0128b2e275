"""Fidelity: definitions against independent code, floors, and what a result may not show."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from synthmed_nb.bars import grid, nice, pool_levels, shown_cells
from synthmed_nb.cells import Cells, numbers
from synthmed_nb.columns import Column, InputError
from synthmed_nb.distances import correlations, ks_distance, ten_bins, total_variation
from synthmed_nb.evaluation import Evaluation, evaluate
from synthmed_nb.fidelity import (
    auc_variance,
    decile_errors,
    fidelity,
    missing_errors,
    of_pairs,
    shape_errors,
    trend_errors,
)
from synthmed_nb.schema import Schema

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


def test_identical_tables_have_no_error(real):
    train, holdout = real
    result = fidelity(train, holdout, train.copy(), SCHEMA)
    for metric in (result.shape, result.trend, result.trend_shared, result.pairs, result.missing):
        assert metric.value == 0 and metric.floor > 0
    assert result.missing_worst == 0 and result.score == 100
    assert np.array(result.pair_error).max() == 0
    assert all(c.real == c.synthetic and c.shape_error == 0 for c in result.columns)


def test_a_second_real_sample_sits_at_its_floor(second):
    result = second.fidelity
    assert result.score > 98
    for metric in (result.shape, result.trend, result.trend_shared, result.pairs, result.missing):
        assert metric.at_floor_size == pytest.approx(metric.floor, rel=0.6, abs=0.5)
        assert metric.value <= metric.at_floor_size + 0.5  # more rows, less noise; a step is 0.5
    seen = result.detection
    assert seen.auc_low < 0.5 < seen.auc_high and abs(seen.floor_auc - 0.5) < 0.08
    assert second.utility.gap < 0.05


def test_shuffled_columns_keep_shape_and_lose_the_rest(real):
    train, holdout = real
    rng = np.random.default_rng(0)
    shuffled = pd.DataFrame({name: rng.permutation(train[name].array) for name in train})
    result = fidelity(train, holdout, shuffled, SCHEMA)
    assert result.shape.value == 0 and result.missing.value == 0
    assert result.trend.at_floor_size > 1.5 * result.trend.floor
    assert result.pairs.at_floor_size > 1.3 * result.pairs.floor
    assert result.detection.auc_low > 0.7 and result.detection.score < 0.6


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
    assert decile_errors(cells, ["l", "r"])[0, 1] == expected


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


def test_correlation_of_a_constant_counts_as_zero():
    line = np.arange(6.0)
    cells = Cells({"a": [line, line], "b": [line, np.ones(6)]}, {}, {})
    assert trend_errors(cells, ["a", "b"])[0, 1] == pytest.approx(50)


def test_trend_with_own_edges_is_blind_to_shift_and_the_others_are_not():
    table = patients(300, 0)
    moved = table.assign(age=table["age"] + 100)
    cells = Cells.of([table, moved], SCHEMA)
    place = NAMES.index("age"), NAMES.index("ward")
    assert trend_errors(cells, NAMES)[place] == 0
    assert trend_errors(cells, NAMES, shared=True)[place] > 40
    assert decile_errors(cells, NAMES)[place] > 40


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
    assert by_name["age"].missing_synthetic == 1 and result.missing_worst == 100


def test_a_constant_synthetic_table_is_scored(real):
    train, holdout = real
    constant = pd.concat([train[:1]] * 50, ignore_index=True)
    result = fidelity(train, holdout, constant, SCHEMA)
    assert result.detection.auc > 0.9 and result.shape.value > 30 and result.score < 80


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
    assert result.shape.floor is None and result.detection.floor_score is None
    assert result.score == 100


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
    grouped = fidelity(train, holdout, synthetic, schema).detection.floor_auc
    by_row = fidelity(
        train, holdout, synthetic, Schema(columns=schema.columns[1:])
    ).detection.floor_auc
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
    assert page.count("<tr>") == 12 and f"{second.fidelity.shape.value:.2f} %" in page


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
