"""Canaries: the bounds against simulated mechanisms, the coins, and what an audit may say."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from synthmed_nb import canaries as room
from synthmed_nb.canaries import (
    Canaries,
    audit_canaries,
    canary_scores,
    isolation,
)
from synthmed_nb.datasets import load_nhanes
from synthmed_nb.intervals import epsilon_from_rates, epsilon_lower_bound, one_run_p_value
from synthmed_nb.membership import patients_of
from synthmed_nb.neighbors import RecordSpace, levels_of
from synthmed_nb.schema import InputError, Schema
from synthmed_nb.synthesizer import Synthesizer


def fresh(rows, seed):
    """Independent patients of a process with dependent numbers, gaps, dates and categories."""
    rng = np.random.default_rng(seed)
    age = (rng.gamma(9, 6, rows) + 18).round()
    return pd.DataFrame(
        {
            "age_years": age,
            "sbp_mmhg": (100 + 0.5 * age + rng.normal(0, 14, rows)).round(1),
            "crp": np.where(rng.random(rows) < 0.1, np.nan, rng.lognormal(0, 1, rows).round(2)),
            "seen_on": pd.Timestamp("2020-01-01")
            + pd.to_timedelta(rng.integers(900, size=rows), "D"),
            "visits": rng.poisson(2, rows),
            "pregnant": rng.random(rows) < 0.1,
            "grade": pd.Categorical(rng.choice(list("abc"), rows), list("abc"), ordered=True),
            "smoker": rng.choice(["no", "yes", None], rows, p=[0.6, 0.2, 0.2]),
        }
    )


TRAIN, REFERENCE = fresh(800, 1), fresh(400, 2)
SCHEMA = Schema.detect(TRAIN)


def visits(patients, seed):
    """Patients with one to five records each, named by text."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(patients), rng.integers(1, 6, patients))
    frame = fresh(patients, seed).loc[owners].reset_index(drop=True)
    frame["crp"] += rng.normal(0, 0.01, len(frame)).round(3)
    frame.insert(0, "patient_id", [f"P{owner:05d}" for owner in owners])
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True)


def copying(canaries, planted, times, rows, seed):
    """A generator that copies: a jittered bootstrap of the planted table.

    Canaries that are in stand in that table `times` times.
    """
    inside = canaries.records[canaries.inside[canaries.owners]]
    table = pd.concat([planted, *[inside] * (times - 1)], ignore_index=True)
    rng = np.random.default_rng(seed)
    table = table.iloc[rng.integers(len(table), size=rows)].reset_index(drop=True)
    for name in ("age_years", "sbp_mmhg", "crp"):
        reach = 0.1 * (table[name].quantile(0.75) - table[name].quantile(0.25))
        table[name] += rng.normal(0, reach, rows)
    return table


# ---- the bound of one run

ONE_RUN = {
    50: (2.78, 1.99, 1.39, 0.77, 0.31, 0.00),
    100: (3.49, 2.17, 1.63, 0.96, 0.47, 0.05),
    200: (4.19, 2.40, 1.80, 1.09, 0.58, 0.16),
    500: (5.11, 2.60, 1.95, 1.20, 0.68, 0.25),
    1000: (5.81, 2.70, 2.02, 1.25, 0.73, 0.30),
}


@pytest.mark.parametrize("guesses", ONE_RUN)
def test_the_bound_of_one_run_is_that_of_the_table(guesses):
    right = [round(guesses * accuracy) for accuracy in (1, 0.95, 0.9, 0.8, 0.7, 0.6)]
    found = [epsilon_lower_bound(correct, guesses, guesses) for correct in right]
    assert found == pytest.approx(ONE_RUN[guesses], abs=0.00501)


TWO_RATES = {
    500: (0.00, 0.34, 1.18, 0.49, 1.16, 2.32),
    1000: (0.00, 0.71, 1.50, 0.62, 1.27, 3.10),
    2000: (0.00, 0.98, 1.73, 0.71, 1.35, 3.86),
    5000: (0.21, 1.21, 1.94, 0.78, 1.41, 4.82),
    10000: (0.36, 1.33, 2.05, 0.82, 1.45, 5.54),
}


@pytest.mark.parametrize("n", TWO_RATES)
def test_the_bound_of_two_rates_is_that_of_the_table(n):
    rates = ((0.02, 0.01), (0.05, 0.01), (0.10, 0.01), (0.25, 0.10), (0.46, 0.10), (0.10, 0.0))
    found = [epsilon_from_rates(round(n * t), n, round(n * f), n) for t, f in rates]
    assert found == pytest.approx(TWO_RATES[n], abs=0.00501)


def test_the_p_value_is_that_of_the_theorem_written_out():
    rng = np.random.default_rng(0)
    for _ in range(50):
        guesses = int(rng.integers(1, 60))
        correct, epsilon = int(rng.integers(0, guesses + 1)), rng.exponential()
        count, delta = guesses + int(rng.integers(0, 50)), 10 ** rng.uniform(-6, -1)
        chance = np.exp(epsilon) / (1 + np.exp(epsilon))
        mass = [stats.binom.pmf(j, guesses, chance) for j in range(guesses + 1)]
        steepest = max([sum(mass[correct - i : correct]) / i for i in range(1, correct + 1)] + [0])
        expected = min(1, sum(mass[correct:]) + 2 * count * delta * steepest)
        assert one_run_p_value(epsilon, correct, guesses, count, delta) == pytest.approx(expected)


def test_the_p_value_crosses_the_level_once():
    """Else bisection could land on a bound that is too high."""
    grid = np.linspace(0, 6, 61)
    for guesses, correct in ((10, 9), (50, 40), (50, 50), (200, 130)):
        for delta in (0.0, 1e-4, 1e-2, 0.2):
            p = [one_run_p_value(e, correct, guesses, 2 * guesses, delta) for e in grid]
            assert (np.diff(np.array(p) > 0.05) >= 0).all()


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 3.0])
def test_randomized_response_exceeds_the_bound_as_rarely_as_said(epsilon):
    """It meets the theorem exactly: each coin is told rightly with the highest chance allowed."""
    rng, replicates, coins = np.random.default_rng(1), 2000, 80
    told = rng.random((replicates, coins)) < 1 / (1 + np.exp(-epsilon))
    bounds = np.array([epsilon_lower_bound(right, coins, coins) for right in told.sum(axis=1)])
    assert (bounds > epsilon).sum() <= stats.binom.ppf(0.999, replicates, 0.05)
    assert (bounds > epsilon).mean() > 0.015  # nor is it idle
    assert epsilon == 0 or bounds.mean() > epsilon / 4


def test_delta_pays_for_a_mechanism_that_tells_some_coins_outright():
    """Each coin is published with chance delta: (0, delta)-private, and no bound may be above 0."""
    rng, replicates, coins, delta = np.random.default_rng(2), 500, 200, 0.02
    wrong = {0.0: 0, delta: 0}
    for _ in range(replicates):
        known = min(rng.binomial(coins, delta), 10)
        correct = known + rng.binomial(10 - known, 0.5)  # the published ones are guessed first
        for paid in wrong:
            wrong[paid] += epsilon_lower_bound(correct, 10, coins, delta=paid) > 0
    assert wrong[delta] <= stats.binom.ppf(0.999, replicates, 0.05)
    assert wrong[0.0] > 0.15 * replicates


def test_two_rates_of_independent_trials_exceed_the_truth_as_rarely_as_said():
    rng, replicates, epsilon = np.random.default_rng(3), 1000, 1.0
    right, n = 1 / (1 + np.exp(-epsilon)), 300
    hits, alarms = rng.binomial(n, right, replicates), rng.binomial(n, 1 - right, replicates)
    found = [epsilon_from_rates(t, n, f, n) for t, f in zip(hits, alarms, strict=True)]
    assert np.mean(np.array(found) > epsilon) <= 0.05
    assert np.mean(found) > 0.5


# ---- coins and planting


def test_the_coins_are_fair_and_independent_of_the_choice():
    frame, replicates = fresh(100, 3), 120
    schema = Schema.detect(frame, small=True)
    drawn = [Canaries.draw(frame, schema, 22, seed=seed) for seed in range(replicates)]
    coins = np.stack([c.inside for c in drawn])
    low, high = stats.binom.ppf([0.0005, 0.9995], coins.size, 0.5)
    assert low <= coins.sum() <= high
    each = stats.binom.ppf([0.0001, 0.9999], replicates, 0.5)
    assert (coins.sum(axis=0) >= each[0]).all() and (coins.sum(axis=0) <= each[1]).all()
    together = np.corrcoef(coins.T)[np.triu_indices(22, 1)]
    assert np.abs(together).max() < 4.5 / np.sqrt(replicates)
    assert len({tuple(c.places) for c in drawn}) == 1  # who is isolated is no matter of chance
    streams = np.stack([np.random.default_rng(seed).random(22) < 0.5 for seed in range(replicates)])
    assert abs(np.mean(streams == coins) - 0.5) < 0.04  # another use of the same seed says nothing


def test_one_seed_gives_the_same_canaries_and_two_do_not():
    one, same, other = (Canaries.draw(TRAIN, SCHEMA, 60, seed=seed) for seed in (5, 5, 6))
    pd.testing.assert_frame_equal(one.records, same.records)
    pd.testing.assert_frame_equal(one.plant(TRAIN), same.plant(TRAIN))
    assert (one.inside == same.inside).all() and (one.inside != other.inside).any()
    assert not one.outliers.equals(other.outliers)


def rows_of(frame):
    """Rows as text, with how often each occurs."""
    return frame.map(str).agg("|".join, axis=1).value_counts()


def test_plant_adds_and_removes_exactly_what_the_coins_say():
    canaries = Canaries.draw(TRAIN, SCHEMA, 60, seed=5)
    before = TRAIN.copy()
    planted = canaries.plant(TRAIN)
    pd.testing.assert_frame_equal(TRAIN, before)
    assert (planted.dtypes == SCHEMA.check(TRAIN).dtypes).all()
    inside, designed = canaries.inside, canaries.designed
    change = rows_of(planted).sub(rows_of(SCHEMA.check(TRAIN)), fill_value=0)
    assert (change > 0).sum() == (inside & designed).sum()
    assert (change < 0).sum() == (~inside & ~designed).sum()
    assert set(change[change > 0].index) == set(rows_of(canaries.outliers[inside[designed]]).index)
    assert set(change[change < 0].index) == set(rows_of(canaries.alone[~inside[~designed]]).index)
    assert designed.sum() == 30 and 0 < inside.sum() < 60


def test_designed_canaries_are_valid_and_use_nothing_that_names_a_patient():
    frame = fresh(800, 4)
    frame.loc[:9, "crp"] = [900.0 + i for i in range(10)]  # ten patients at the very end
    frame.loc[:9, "smoker"] = "pipe"
    frame.loc[10:20, "smoker"] = "cigar"  # eleven patients
    schema = Schema.detect(frame)
    made = Canaries.draw(frame, schema, 200, seed=1).outliers
    checked = schema.check(frame)
    assert (schema.check(made).dtypes == checked.dtypes).all()
    assert made["crp"].max() < 900 and made["crp"].notna().all()
    assert set(made["smoker"]) == {"no", "yes", "cigar"}
    assert (made["smoker"] == "cigar").mean() > 0.5  # rare levels come up more often
    for name in made:
        assert made[name].isin(checked[name]).all()
    inner = frame["sbp_mmhg"].quantile([0.06, 0.94])
    assert not made["sbp_mmhg"].between(*inner).any()


def alone_by_hand(frame, schema):
    """Mean distance of each patient's most isolated record to five records of others."""
    space, owners = RecordSpace.fit(frame, schema), patients_of(frame, schema)
    apart = np.zeros((len(frame), len(frame)))
    for name in schema.numeric:
        ranks = space.rank(frame, name)
        gaps, squares = np.isnan(ranks), np.abs(ranks[:, None] - ranks)
        apart += np.where(np.isnan(squares), gaps[:, None] != gaps, squares)
    for name in schema.categorical:
        levels = levels_of(frame, schema, name)
        apart += levels[:, None] != levels
    apart[owners[:, None] == owners] = np.inf
    means = np.sort(apart, axis=1)[:, :5].mean(axis=1)
    return np.array([means[owners == owner].max() for owner in range(owners.max() + 1)])


def test_the_most_isolated_patients_are_found():
    frame = fresh(300, 4)
    schema = Schema.detect(frame)
    expected = alone_by_hand(frame, schema)
    found = isolation(schema.check(frame), schema, np.random.default_rng(0))
    assert found == pytest.approx(expected)
    places = Canaries.draw(frame, schema, 22, seed=1).places
    assert set(places) == set(np.argsort(-expected)[:11])


def test_records_of_the_same_patient_are_no_company():
    frame = visits(200, 5)
    schema = Schema.detect(frame, patient="patient_id")
    checked = schema.check(frame)
    found = isolation(checked, schema, np.random.default_rng(0))
    assert found == pytest.approx(alone_by_hand(checked, schema))


def test_the_patient_is_the_unit():
    frame = visits(200, 5)
    schema = Schema.detect(frame, patient="patient_id")
    canaries = Canaries.draw(frame, schema, 40, seed=2)
    chosen = canaries.alone["patient_id"].unique()
    assert len(chosen) == 20 and len(canaries.alone) == frame["patient_id"].isin(chosen).sum()
    planted = canaries.plant(frame)
    fate = pd.Series(canaries.inside[canaries.owners], index=canaries.records["patient_id"])
    assert (fate.groupby(level=0).nunique() == 1).all()  # whole patients, in or out
    in_, out = fate.index[fate], fate.index[~fate]
    assert (
        planted["patient_id"].isin(in_).sum() == len(in_)
        and not planted["patient_id"].isin(out).any()
    )
    untouched = frame[~frame["patient_id"].isin(chosen)]
    assert set(untouched["patient_id"]) <= set(planted["patient_id"])
    scores = canary_scores(canaries, visits(100, 6), planted)
    assert all(score.shape == (40,) for score in scores.values())
    assert (scores["distance"][canaries.inside] == 0).all()


def test_in_a_table_of_very_many_a_part_is_searched(monkeypatch):
    monkeypatch.setattr(room, "MOST_SEARCHED", 50)
    found = isolation(SCHEMA.check(TRAIN), SCHEMA, np.random.default_rng(0))
    assert len(found) == 800 and np.isfinite(found).sum() == 50


# ---- the audit


@pytest.mark.parametrize("shares", [(0.2, 0.1), (0.3, 0.3)])
def test_a_generator_that_does_not_look_gives_no_bound(shares):
    """For some canaries the coins are tossed again and again: neither S nor a score moves."""
    frame, background, synthetic = fresh(150, 1), fresh(100, 2), fresh(150, 3)
    schema, rng, above = Schema.detect(frame, small=True), np.random.default_rng(0), []
    for seed in range(20):
        canaries = Canaries.draw(frame, schema, 36, seed=seed)
        scores = canary_scores(canaries, background, synthetic)
        above.append(audit_canaries(canaries, scores, shares=shares).epsilon_lower > 0)
        for _ in range(49):
            tossed = dataclasses.replace(canaries, inside=rng.random(36) < 0.5)
            above.append(audit_canaries(tossed, scores, shares=shares).epsilon_lower > 0)
    assert len(above) == 1000 and np.mean(above) <= 0.05
    assert shares == (0.2, 0.1) or np.mean(above) > 0.01  # the level is used, not wasted


def test_a_searched_attack_is_paid_for():
    """The best of twenty useless scores is above 0 no more often than one alone."""
    canaries = Canaries.draw(TRAIN, SCHEMA, 100, seed=0)
    rng, replicates, above = np.random.default_rng(4), 200, 0
    for _ in range(replicates):
        scores = {str(i): rng.random(100) for i in range(20)}
        above += audit_canaries(canaries, scores).epsilon_lower > 0
    assert above <= stats.binom.ppf(0.999, replicates, 0.05)
    alone = audit_canaries(canaries, {"a": canaries.inside * 1.0})
    among = audit_canaries(canaries, {"a": canaries.inside * 1.0, "b": np.zeros(100)})
    assert 0 < among.epsilon_lower < alone.epsilon_lower


def test_a_copying_generator_is_bounded_and_the_more_the_oftener_it_saw_them():
    found = []
    for times in (1, 5, 20):
        bounds = []
        for seed in range(4):
            canaries = Canaries.draw(TRAIN, SCHEMA, 160, seed=seed)
            planted = canaries.plant(TRAIN)
            synthetic = copying(canaries, planted, times, len(TRAIN), seed)
            audit = audit_canaries(canaries, canary_scores(canaries, REFERENCE, synthetic))
            bounds.append(audit.epsilon_lower)
        assert min(bounds) > 0
        found.append(np.mean(bounds))
    assert found[0] < found[1] < found[2]


def test_the_halves_are_ranked_apart():
    """Made-up records lie further out, in or out; that must not cost guesses."""
    canaries = Canaries.draw(TRAIN, SCHEMA, 200, seed=3)
    apart = np.where(canaries.designed, -100.0, 0.0) + canaries.inside
    found = audit_canaries(canaries, {"apart": apart}).attacks[0]
    assert found.accuracy == 1 and found.auc == 1


def test_a_promise_with_delta_gives_a_lower_bound():
    canaries = Canaries.draw(TRAIN, SCHEMA, 100, seed=3)
    scores = {"all": canaries.inside * 1.0}
    found = [audit_canaries(canaries, scores, delta=d).epsilon_lower for d in (0.0, 1e-4, 1e-2)]
    assert found[0] > found[1] > found[2]


def test_nothing_of_a_canary_is_told():
    canaries = Canaries.draw(TRAIN, SCHEMA, 60, seed=5)
    assert repr(canaries) == str(canaries) == "Canaries(60)"
    planted = canaries.plant(TRAIN)
    found = audit_canaries(canaries, canary_scores(canaries, REFERENCE, planted))
    told = json.loads(found.model_dump_json())
    assert set(told) == {"epsilon_lower", "attacks", "canaries", "level", "delta", "shares"}
    assert set(told["attacks"][0]) == {"name", "epsilon_lower", "accuracy", "auc"}
    assert found == type(found).model_validate_json(found.model_dump_json())
    texts = []
    for wrong in (
        lambda: canaries.plant(planted),
        lambda: canaries.plant(TRAIN.assign(crp=TRAIN["crp"] + 1)),
        lambda: Canaries.draw(TRAIN, SCHEMA, 500, seed=1),
        lambda: audit_canaries(canaries, {"short": np.zeros(3)}),
    ):
        with pytest.raises(InputError) as caught:
            wrong()
        texts.append(str(caught.value))
    said = " ".join([repr(canaries), found.model_dump_json(), *texts])
    values = {str(v) for name in ("sbp_mmhg", "crp") for v in canaries.records[name].dropna()}
    assert not [v for v in values if len(v) > 4 and v in said]


# ---- with the synthesizer


def test_fit_learns_what_is_planted_and_keeps_no_coin(tmp_path):
    canaries = Canaries.draw(TRAIN, SCHEMA, 60, seed=5)
    planted = Synthesizer(SCHEMA, steps=30, seed=0).fit(TRAIN, canaries=canaries)
    by_hand = Synthesizer(SCHEMA, steps=30, seed=0).fit(canaries.plant(TRAIN))
    planted.save(tmp_path / "planted")
    by_hand.save(tmp_path / "by_hand")
    for file in ("model.json", "weights.safetensors"):
        read = [(tmp_path / name / file).read_bytes() for name in ("planted", "by_hand")]
        assert read[0] == read[1] and b"canar" not in read[0]
    scores = canary_scores(canaries, REFERENCE, planted.sample(800, seed=1), planted)
    assert list(scores)[-1] == "token loss"
    assert len(audit_canaries(canaries, scores).attacks) == 3
    with pytest.raises(InputError, match="another table"):
        Synthesizer(SCHEMA, steps=30).fit(fresh(800, 9), canaries=canaries)


def test_canaries_fit_a_table_of_real_patients():
    patients = load_nhanes()
    schema = Schema.detect(patients, target="diabetes")
    train = schema.split(patients, seed=0)[0]
    canaries = Canaries.draw(train, schema, 100, seed=0)
    planted = canaries.plant(train)
    assert (planted.dtypes == train.dtypes).all()
    assert (
        len(planted)
        == len(train)
        + (canaries.inside & canaries.designed).sum()
        - (~canaries.inside & ~canaries.designed).sum()
    )
