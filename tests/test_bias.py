"""Bias: planted faults are found, an independent real sample is not blamed, nobody is counted."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from synthmed_nb.bars import nice
from synthmed_nb.bias import Bias, bias, flagged, said_by_blocks
from synthmed_nb.columns import Column, InputError
from synthmed_nb.diversity import collapse_test, diversity
from synthmed_nb.neighbors import RecordSpace
from synthmed_nb.schema import Schema
from synthmed_nb.subgroups import (
    GROUP_PATIENTS,
    SCORED_SIDE,
    group_metrics,
    protected_columns,
    subgroups,
)

KINDS = {"sex": "categorical", "age": "numeric", "race": "categorical", "lab": "numeric"}
KINDS |= {"ward": "categorical", "ill": "categorical"}
RARE = "Smallpox-ward"


def column(name, kind, role="feature"):
    dtype = "float64" if kind == "numeric" else "str"
    return Column(name=name, kind=kind, role=role, dtype=dtype, reason="made", missing=True)


SCHEMA = Schema(
    columns=tuple(column(n, k, "target" if n == "ill" else "feature") for n, k in KINDS.items())
)
KEY = Column(name="mrn", kind="identifier", role="patient", dtype="str", reason="", missing=False)
WITH_KEY = Schema(columns=(KEY, *SCHEMA.columns))


def patients(n, seed):
    """Made-up patients whose columns depend on each other."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"sex": rng.choice(["F", "M"], n), "age": rng.integers(20, 90, n) + 0.0})
    table["race"] = rng.choice(["A", "B", "C"], n, p=[0.6, 0.3, 0.1])
    table["lab"] = np.round(rng.gamma(3, 2, n) + table["age"] / 10, 1)
    old = table["age"] > 55
    table["ward"] = np.where(old, rng.choice(["N", "S"], n), rng.choice(["S", "W"], n))
    risk = (table["age"] - 55) / 15 + (table["lab"] - 11) / 5
    table["ill"] = np.where(risk + rng.normal(0, 1, n) > 0, "yes", "no")
    table.loc[rng.random(n) < 0.1, "lab"] = np.nan
    return table


def flip(table, where):
    """The table with the labels of some records turned round."""
    turned = table["ill"].map({"yes": "no", "no": "yes"})
    return table.assign(ill=table["ill"].mask(where, turned))


@pytest.fixture(scope="module")
def real():
    return patients(1600, 0), patients(800, 1)


@pytest.fixture(scope="module")
def second(real):
    """The result for an independent real sample in the place of S."""
    return bias(*real, patients(800, 2), SCHEMA)


def left_zero(rows):
    return np.mean([row.low > 0 or row.high < 0 for row in rows])


# an independent real sample


def test_an_independent_real_sample_is_not_blamed(real, second):
    results = [second, bias(*real, patients(1600, 3), SCHEMA, seed=1)]
    rows = [row for result in results for row in result.fairness]
    assert len(rows) >= 32 and left_zero(rows) <= 0.1
    ratios = [group for result in results for group in result.groups]
    holds = [group.ratio_low <= 1 <= group.ratio_high for group in ratios]
    assert len(holds) >= 14 and np.mean(holds) >= 0.9
    for result in results:
        assert not result.diversity.collapsed and result.worst.startswith("No gap")
        assert result.diversity.levels == result.diversity.levels_floor == 1
        assert result.diversity.pairs == pytest.approx(result.diversity.pairs_floor, abs=0.02)
        assert result.diversity.entropy == pytest.approx(1, abs=0.03)


def test_the_interval_of_the_ratio_covers_as_often_as_it_says():
    inside = []
    for seed in range(12):
        train, holdout, synthetic = (
            patients(n, 50 + 3 * seed + i) for i, n in enumerate((900, 400, 400))
        )
        found = subgroups(train, holdout, synthetic, SCHEMA, seed=seed)
        inside += [group.ratio_low <= 1 <= group.ratio_high for group in found if group.ratio]
    assert len(inside) > 80 and np.mean(inside) >= 0.88  # 0.958 of 359 in a larger run


def test_the_collapse_test_keeps_its_level():
    space = RecordSpace.fit(patients(400, 0), SCHEMA)
    p = [
        collapse_test(space, patients(60, 2 * i), patients(60, 2 * i + 1), i)[0] for i in range(50)
    ]
    assert np.mean(np.array(p) <= 0.1) <= 0.22 and 0.3 < np.mean(p) < 0.7


def visits(n, seed, times=5):
    """As `patients`, each with several equal records."""
    table = patients(n, seed).assign(mrn=[f"P{seed}-{i}" for i in range(n)])
    return table.loc[table.index.repeat(times)].reset_index(drop=True)


def test_floors_are_of_patients_not_of_records():
    found = []
    for seed in range(4):
        real, synthetic = (visits(400, 3 * seed), visits(200, 3 * seed + 1)), patients(1000, 90)
        found += [g for g in subgroups(*real, synthetic, WITH_KEY, seed=seed) if g.ratio]
        told = diversity(*real, synthetic, WITH_KEY, seed=seed)
        assert told.distinct_floor > 0.9 and not told.collapsed
    assert len(found) > 20 and 0.85 < np.median([g.ratio for g in found]) < 1.15
    assert np.mean([g.ratio_low <= 1 <= g.ratio_high for g in found]) >= 0.85


def test_patients_that_the_synthetic_table_names_are_no_collapse():
    found = diversity(visits(400, 0), visits(200, 1), visits(200, 2), WITH_KEY)
    assert not found.collapsed and found.collapse_p > 0.01 and found.distinct > 0.9


# planted faults


def test_labels_flipped_in_one_group_are_found(real):
    synthetic = patients(1600, 2)
    result = bias(*real, flip(synthetic, synthetic["sex"] == "F"), SCHEMA)
    worst = result.fairness[0]
    assert worst.column == "sex" and worst.low > 0.2
    assert {row.column for row in result.fairness if row.low > 0.2} == {"sex"}
    assert "by sex" in result.worst and "interval" in result.worst
    by_sex = [row for row in result.fairness if (row.model, row.column) == ("XGBoost", "sex")]
    trees = {row.metric: row for row in by_sex}
    women = trees["AUC"].groups.index("F")
    assert trees["AUC"].synthetic[women] < 0.3 < 0.8 < trees["AUC"].real[women]
    order = [(row.low <= 0, -row.difference) for row in result.fairness]
    assert order == sorted(order)
    sexes = {group.group: group for group in result.groups if group.column == "sex"}
    assert sexes["F"].ratio_low > 1 > sexes["M"].ratio_low


def test_a_group_whose_columns_are_shuffled_is_the_worst(real):
    synthetic, rng = patients(800, 2), np.random.default_rng(0)
    inside = synthetic["race"] == "B"
    for name in ("age", "lab", "ward", "ill"):
        synthetic.loc[inside, name] = rng.permutation(synthetic.loc[inside, name].to_numpy())
    worst, *others = subgroups(*real, synthetic, SCHEMA, groups=["sex", "race"])  # ages mix races
    assert (worst.column, worst.group) == ("race", "B") and worst.ratio_low > 1
    assert worst.shape == pytest.approx(worst.shape_floor, rel=0.6)  # its columns are right
    assert all(group.ratio < worst.ratio for group in others)


def test_few_records_over_and_over_are_a_collapse(real):
    modes = pd.concat([patients(50, 2)] * 16, ignore_index=True)
    found = diversity(*real, modes, SCHEMA)
    assert found.collapsed and found.collapse_p <= 0.01
    assert found.distinct == 0 and found.distinct_floor > 0.9
    assert found.pairs < found.pairs_floor


def test_scattered_records_are_no_collapse(real):
    rng = np.random.default_rng(0)
    synthetic = patients(800, 2)
    scattered = pd.DataFrame({name: rng.permutation(synthetic[name].array) for name in synthetic})
    assert not diversity(*real, scattered, SCHEMA).collapsed


def test_a_level_that_is_forgotten_lowers_coverage_and_entropy(real):
    synthetic = patients(800, 2).assign(race=lambda t: t["race"].replace("C", "A"))
    found = diversity(*real, synthetic, SCHEMA)
    states = 2 + 10 + 3 + 11 + 3 + 2  # levels, tenths and one gap
    assert found.levels == round((states - 1) / states, 4) and found.levels_floor == 1
    assert found.pairs < found.pairs_floor and found.entropy < found.entropy_floor
    lost = subgroups(*real, synthetic, SCHEMA)[0]
    assert (lost.group, lost.pairs, lost.share_synthetic, lost.ratio) == ("C", 100, 0, None)


def test_a_group_that_is_missing_is_the_worst(real):
    synthetic = patients(1600, 2)
    women = synthetic["sex"] == "F"
    lost = bias(*real, synthetic[women], SCHEMA, groups=["sex", "race"])
    assert lost.worst.startswith("The synthetic table has no records of sex M, ")
    men = next(group for group in lost.groups if group.group == "M")
    assert (men.pairs, men.share_synthetic, men.ratio) == (100, 0, None)
    some = synthetic[women | (np.arange(1600) % 20 == 0)]  # a twentieth of the men
    said = bias(*real, some, SCHEMA, groups=["sex"]).worst
    assert said.startswith("The synthetic table has almost no records of sex M, ")
    tiny = bias(*real, patients(12, 2), SCHEMA, groups=["race"])  # too few to miss anybody
    assert "records of" not in tiny.worst


def test_what_balance_did_is_shown(real):
    synthetic = patients(1600, 2)
    women = synthetic["sex"] == "F"
    skewed = synthetic[~women | (np.arange(1600) % 10 == 0)]
    result = bias(*real, skewed, SCHEMA, groups=["sex"], balanced=synthetic, balance="sex")
    assert result.balance == "sex" and result.balanced.balance is result.balanced.balanced is None
    shares = [
        {group.group: group.share_synthetic for group in part.groups}
        for part in (result, result.balanced)
    ]
    assert shares[0]["F"] < 0.2 and shares[1]["F"] == pytest.approx(0.5, abs=0.05)
    assert result.balanced == bias(*real, synthetic, SCHEMA, groups=["sex"])


# definitions


def test_metrics_by_hand_and_by_scikit_learn():
    rng = np.random.default_rng(0)
    y, chances = rng.integers(0, 2, 300), np.round(rng.random(300), 2)
    counts = rng.integers(0, 3, (2, 300)).astype(float)
    flags, rows = flagged(chances, 0.3), np.arange(40, 220)
    found = group_metrics(y, chances, flags, [rows], counts)[:, 0]
    for k, weights in enumerate(counts):
        many = np.repeat(rows, weights[rows].astype(int))
        truth, said = y[many] == 1, flags[many]
        expected = [said[truth].mean(), said[~truth].mean(), (chances - y)[many].mean()]
        assert np.allclose(found[:3, k], expected)
        assert found[3, k] == pytest.approx(roc_auc_score(truth, chances[many]))


def test_the_same_rule_flags_for_each_training_table(real):
    train, holdout = real
    many = train[(train["ill"] == "yes") | (np.arange(1600) % 3 == 0)]  # as balance= would
    for table in (train, many):
        cases = (table["ill"] == "yes").to_numpy(int)
        for told in said_by_blocks(table, cases, holdout, SCHEMA, 0).values():
            assert told.flags[0].mean() == pytest.approx(cases.mean(), abs=0.02)


@pytest.mark.parametrize("target", ["lab", None])
def test_no_fairness_without_a_target_with_classes(real, target):
    roles = {"target": "feature"}
    columns = [c.model_copy(update={"role": roles.get(c.role, c.role)}) for c in SCHEMA.columns]
    columns = [c.model_copy(update={"role": "target"}) if c.name == target else c for c in columns]
    result = bias(*real, patients(800, 2), Schema(columns=tuple(columns)))
    assert result.fairness == [] and result.worst.startswith("Fairness is not measured: the")
    assert result.groups and "95 % interval" in result.worst


def test_a_small_holdout_leaves_numbers_out(real):
    result = bias(real[0], real[1][:15], patients(800, 2), SCHEMA)
    assert result.fairness == [] and "no two groups" in result.worst
    assert all(group.ratio is group.pairs_floor is None for group in result.groups)
    assert result.diversity.levels_floor is result.diversity.collapse_p is None
    empty = bias(real[0], real[1][:0], patients(800, 2), SCHEMA)
    assert empty.diversity.levels == result.diversity.levels and empty.fairness == []


def test_wrong_names_are_refused_before_the_work(real):
    with pytest.raises(InputError, match="no modelled column: column 'colour'"):
        bias(*real, patients(800, 2), SCHEMA, groups=["colour"])
    with pytest.raises(InputError, match="only one of balanced= and balance="):
        bias(*real, patients(800, 2), SCHEMA, balance="sex")
    with pytest.raises(InputError, match="colour"):
        bias(*real, patients(800, 2), SCHEMA, balance="colour", balanced=patients(800, 3))
    assert protected_columns(real[0], SCHEMA) == ["sex", "age", "race"]


# the same table told in another way


def test_names_do_not_matter(real, second):
    names = {name: f"x{i}" for i, name in enumerate(KINDS)}
    other = Schema(
        columns=tuple(c.model_copy(update={"name": names[c.name]}) for c in SCHEMA.columns)
    )
    tables = [table.rename(columns=names) for table in (*real, patients(800, 2))]
    result = bias(*tables, other, groups=[names[n] for n in ("sex", "age", "race")])
    assert result.diversity == second.diversity
    back = {new: old for old, new in names.items()}
    for part in ("groups", "fairness"):
        found = [
            row.model_copy(update={"column": back[row.column]}) for row in getattr(result, part)
        ]
        assert found == getattr(second, part)


def test_units_do_not_matter(real, second):
    tables = [
        table.assign(lab=table["lab"] * 100 + 5000, age=table["age"] * 100 + 5000)
        for table in (*real, patients(800, 2))
    ]
    result = bias(*tables, SCHEMA)
    assert result.diversity == second.diversity
    ages = lambda result: [g for g in result.groups if g.column == "age"]  # noqa: E731
    others = lambda result: [g for g in result.groups if g.column != "age"]  # noqa: E731
    assert others(result) == others(second)
    assert [g.ratio for g in ages(result)] == [g.ratio for g in ages(second)]
    compare_fairness(result, second)


def compare_fairness(one, other):
    """AUC by group of models on S agree, up to what training does with another order of rows."""
    sides = [
        {(r.column, r.model): r.synthetic for r in result.fairness if r.metric == "AUC"}
        for result in (one, other)
    ]
    assert sides[0].keys() == sides[1].keys() and sides[0]
    for key, values in sides[0].items():
        assert values == pytest.approx(sides[1][key], abs=0.03)


def test_the_order_of_rows_does_not_matter(real, second):
    rng = np.random.default_rng(0)
    tables = [t.iloc[rng.permutation(len(t))] for t in (*real, patients(800, 2))]
    result = bias(*tables, SCHEMA)
    same = {"levels", "pairs", "entropy", "distinct"}
    assert result.diversity.model_dump(include=same) == second.diversity.model_dump(include=same)
    before = {(g.column, g.group): g for g in second.groups}
    assert before.keys() == {(g.column, g.group) for g in result.groups}
    for group in result.groups:  # which records are cut off is another choice
        known = before[group.column, group.group]
        assert group.share == known.share and known.ratio_low < group.ratio < known.ratio_high
    compare_fairness(result, second)


def test_rows_told_twice_are_no_more_patients(real):
    tables = [t.assign(mrn=[f"P{i}" for i in range(len(t))]) for t in real]
    twice = [pd.concat([t, t], ignore_index=True) for t in tables]
    synthetic = patients(800, 2)
    one, two = (bias(*pair, synthetic, WITH_KEY) for pair in (tables, twice))
    for name in ("levels", "pairs"):
        assert getattr(one.diversity, name) == getattr(two.diversity, name)
    assert not two.diversity.collapsed and two.diversity.collapse_p > 0.01
    shares = [{(g.column, g.group): g.share for g in result.groups} for result in (one, two)]
    assert shares[0] == shares[1]
    compare_fairness(one, two)
    sides = [{(r.column, r.metric): r.groups for r in result.fairness} for result in (one, two)]
    assert sides[0] == sides[1]  # who has enough patients


# nobody can be counted


def test_small_groups_are_never_shown(real):
    def planted(table, rows):
        table = table.copy()
        table.loc[table.index[:rows], "race"] = RARE
        table.loc[table.index[rows : rows + GROUP_PATIENTS - 1], "race"] = "Forty-nine"
        return table

    result = bias(planted(real[0], 9), planted(real[1], 9), planted(patients(800, 2), 300), SCHEMA)
    text = result.model_dump_json()
    assert RARE not in text and "Forty-nine" not in text
    shown = {row.group for row in result.groups} | {g for r in result.fairness for g in r.groups}
    assert {"A", "B", "F", "M"} <= shown


def test_records_are_no_patients():
    train, synthetic = visits(900, 0), patients(800, 2)
    few = {g.group: g for g in subgroups(train, visits(50, 1, 20), synthetic, WITH_KEY)}
    assert few["C"].pairs_floor is few["C"].ratio is None  # 100 records of 5 patients
    assert few["A"].ratio > 0
    bare = diversity(train, visits(49, 1, 20), synthetic, WITH_KEY)
    assert bare.levels_floor is bare.collapse_p is None


def test_a_patient_of_several_groups_is_divided_among_them():
    train = visits(600, 0, 2).assign(race=["A", "B"] * 600)
    found = subgroups(train, visits(200, 1), patients(800, 2), WITH_KEY, groups=["race"])
    assert {g.group: g.share for g in found} == {"A": 0.5, "B": 0.5}


def test_rates_and_shares_come_in_steps_that_count_nobody(real, second):
    train, holdout = real
    for group in second.groups:
        steps = group.share / (nice(100 * 11 / len(train)) / 100)
        assert steps == pytest.approx(round(steps), abs=1e-6)
        if group.ratio is not None:
            assert group.ratio == round(group.pairs / group.pairs_floor, 2)
        for error, table in ((group.pairs, train), (group.pairs_floor, holdout)):
            people = (table[group.column] == group.group).sum()
            if group.column in ("sex", "race"):
                steps = error / nice(1100 / (people * 15))  # 15 pairs of columns
                assert steps == pytest.approx(round(steps), abs=1e-6)
    cases = holdout["ill"] == "yes"
    for row in [r for r in second.fairness if r.column == "sex" and r.metric in ("TPR", "FPR")]:
        asked = cases if row.metric == "TPR" else ~cases
        sizes = [(asked & (holdout["sex"] == group)).sum() for group in row.groups]
        for rate, size in zip(row.real + row.synthetic, sizes * 2, strict=True):
            steps = rate / nice(5 / size)
            assert steps == pytest.approx(round(steps), abs=1e-6)
        coarse = nice(5 / min(sizes))
        for number in (row.gap_real, row.gap_synthetic, row.difference, row.low, row.high):
            assert number / coarse == pytest.approx(round(number / coarse), abs=1e-6)
    assert SCORED_SIDE >= 11


def test_a_group_with_few_cases_is_not_scored(real):
    train, holdout = real
    rare = holdout["race"].eq("C") & holdout["ill"].eq("yes")
    kept = holdout[~rare | (rare.cumsum() <= 10)]
    result = bias(train, kept, patients(800, 2), SCHEMA, groups=["race"])
    assert result.fairness and all("C" not in row.groups for row in result.fairness)


# the result as a file


def test_json_and_bytes(real, second):
    text = second.model_dump_json()
    assert Bias.model_validate_json(text) == second and "NaN" not in text
    json.loads(text, parse_constant=pytest.fail)
    assert bias(*real, patients(800, 2), SCHEMA).model_dump_json() == text


def test_progress_rises_from_0(real):
    said = []
    bias(
        *(*real, patients(300, 2), SCHEMA),
        groups=["sex"],
        balanced=patients(300, 3),
        balance="sex",
        progress=lambda done, note: said.append((done, note)),
    )
    shares = [done for done, _ in said]
    assert shares[0] == 0 and shares == sorted(shares) and shares[-1] < 1 and len(said) == 6
