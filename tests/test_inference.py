"""Disclosure beyond membership: what the attacks must find, must not find, and must survive.

All tables are made up. Rates of false alarms are compared with the binomial band of their level.
"""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from synthmed_nb import inference, quasi_identifiers
from synthmed_nb.differences import coarse, permutation_test
from synthmed_nb.disclosure import find_copies
from synthmed_nb.inference import attribute_inference, infer, singling_out_scores
from synthmed_nb.quasi_identifiers import disclosive, identity_disclosure
from synthmed_nb.schema import InputError, Schema


def fresh(rows, seed):
    """Independent patients: dependent numbers, gaps, categories, and a secret nobody can guess."""
    rng = np.random.default_rng(seed)
    age = (rng.gamma(9, 6, rows) + 18).round(1)
    hba1c = (4.5 + rng.gamma(2, 0.5, rows) + age / 100).round(2)
    hba1c[rng.random(rows) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "age_years": age,
            "sbp_mmhg": (100 + 0.5 * age + rng.normal(0, 14, rows)).round(1),
            "hba1c_pct": hba1c,
            "crp": np.exp(rng.normal(0, 1, rows)).round(3),
            "ward": rng.choice(list("abcdef"), rows, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.05]),
            "smoker": np.where(rng.random(rows) < 0.2, None, rng.choice(["no", "yes"], rows)),
            "genotype": rng.choice(["aa", "ab", "bb"], rows),
        }
    )


def levels(rows, seed):
    """Eight columns of four levels: many ties."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({f"c{i}": rng.choice(list("wxyz"), rows) for i in range(8)})


def visits(patients, seed):
    """Patients with four nearly equal records each."""
    frame = fresh(patients, seed).loc[np.repeat(np.arange(patients), 4)].reset_index(drop=True)
    frame["crp"] += np.random.default_rng(seed).normal(0, 0.01, len(frame)).round(3)
    frame.insert(0, "patient_id", np.repeat(np.arange(patients) + 10_000 * seed, 4))
    return frame


def blurred(frame, seed):
    """Known columns as an acquaintance tells them: coarse numbers; the genotype is exact."""
    rng, told = np.random.default_rng(seed), frame.copy()
    for name, reach in (("age_years", 0.8), ("sbp_mmhg", 1.5), ("hba1c_pct", 0.06), ("crp", 0.05)):
        told[name] = frame[name] + rng.normal(0, reach, len(frame)) + 0.0001
    return told


TRAIN, HOLDOUT, REFERENCE = fresh(500, 1), fresh(500, 2), fresh(500, 3)
SCHEMA = Schema.detect(TRAIN, target="genotype")
INDEPENDENT = fresh(1000, 4)


# ---- what must be found


def attacks(found):
    return [found.singling_out, found.linkability, *found.attributes]


def test_a_copy_of_train_is_caught_by_all_attacks():
    found = infer(TRAIN, HOLDOUT, REFERENCE, TRAIN.sample(frac=1, random_state=0), SCHEMA)
    assert found.p_value == 0.001 and len(found.attributes) == 2
    assert found.singling_out.p_value == found.linkability.p_value == 0.001
    assert min(a.p_value for a in found.attributes) == 0.001
    assert all(a.low > 0 for a in (found.singling_out, found.linkability, found.attributes[1]))
    assert found.singling_out_control.p_value > 0.01  # R knows nothing of who was in


def test_a_copied_secret_is_caught_where_there_is_no_copy():
    synthetic = pd.concat([INDEPENDENT[:500], blurred(TRAIN, 0)], ignore_index=True)
    real = {"train": TRAIN, "holdout": HOLDOUT, "reference": REFERENCE}
    copies = find_copies(real, synthetic, SCHEMA)
    assert copies.synthetic_share == copies.exact.members == 0
    found = infer(TRAIN, HOLDOUT, REFERENCE, synthetic, SCHEMA)
    by_record = found.attributes[1]
    assert by_record.name == "genotype by nearest record"
    assert by_record.p_value == 0.001 and by_record.low > 0.1
    shuffled = synthetic.assign(genotype=INDEPENDENT["genotype"])  # the same without the secret
    quiet = infer(TRAIN, HOLDOUT, REFERENCE, shuffled, SCHEMA)
    assert min(a.p_value for a in quiet.attributes) > 0.05


def test_a_copied_number_is_caught_too():
    synthetic = blurred(TRAIN, 0).assign(crp=TRAIN["crp"])
    scores = attribute_inference(
        pd.concat([TRAIN, HOLDOUT], ignore_index=True), REFERENCE, synthetic, SCHEMA, "crp"
    )
    p_values, _ = permutation_test(np.array(list(scores.values())), np.arange(1000) < 500)
    assert p_values[1] == 0.001


def test_twenty_copies_among_two_thousand_rows_are_caught():
    synthetic = pd.concat([fresh(1980, 9), TRAIN[:20]], ignore_index=True)
    assert infer(TRAIN, HOLDOUT, REFERENCE, synthetic, SCHEMA).p_value <= 0.01


def test_a_copy_of_categories_only_is_caught():
    train, holdout, reference = levels(300, 1), levels(300, 2), levels(300, 3)
    schema = Schema.detect(train)
    found = infer(train, holdout, reference, train, schema)
    assert found.p_value == 0.001 and len(found.attributes) == 2 * inference.SECRETS
    assert found.singling_out.p_value == 0.001
    assert min(a.p_value for a in found.attributes) == 0.001


def test_the_patient_is_the_unit():
    train, holdout, reference = (visits(120, seed) for seed in (1, 2, 3))
    schema = Schema.detect(visits(300, 1), patient="patient_id", target="genotype")
    records = pd.concat([train, holdout], ignore_index=True)
    scores = singling_out_scores(records, reference, train, schema)["singling out"]
    assert scores[: len(train)].mean() > 0.5  # four alike visits are one patient, so not a crowd
    found = infer(train, holdout, reference, train, schema)
    assert found.p_value == 0.001 and found.linkability.p_value == 0.001
    quiet = infer(train, holdout, reference, visits(120, 4).drop(columns="patient_id"), schema)
    assert quiet.p_value > 0.05


# ---- what must not be found


def false_alarms(make, schema, replicates, first, **options):
    seeds = np.arange(4 * replicates).reshape(replicates, 4) + first
    tables = [
        [make(rows, seed) for rows, seed in zip((60, 60, 60, 150), s, strict=True)] for s in seeds
    ]
    found = [infer(*four, schema, seed=i, **options) for i, four in enumerate(tables)]
    return np.array([[f.p_value, *(a.p_value for a in attacks(f))] for f in found])


@pytest.mark.parametrize("make", [fresh, levels])
def test_p_values_of_independent_tables_are_uniform_or_careful(make):
    replicates, secret = 45, {fresh: "genotype", levels: "c3"}[make]
    schema = Schema.detect(make(300, 0), target=secret)
    found = false_alarms(make, schema, replicates, 1000)
    for level in (0.05, 0.2, 0.5):
        most = stats.binom.ppf(0.999, replicates, level)  # of ten columns
        assert ((found <= level).sum(axis=0) <= most).all()
    least = stats.binom.ppf(0.001, replicates, 0.4)  # ties make p-values a little large, no more
    assert ((found[:, [0, 3, 4]] <= 0.5).sum(axis=0) >= least).all()


def test_visits_do_not_raise_false_alarms():
    replicates = 30
    schema = Schema.detect(visits(300, 0), patient="patient_id", target="genotype")
    found = false_alarms(lambda n, seed: visits(n // 3, seed), schema, replicates, 5000)
    assert (found[:, 0] <= 0.05).sum() <= stats.binom.ppf(0.995, replicates, 0.05)


def test_what_the_population_allows_is_no_leak():
    """A secret that follows from age is guessed well, from S as from R, of both sides."""
    tables = [fresh(400, seed) for seed in range(4)]
    tables = [t.assign(genotype=np.where(t["age_years"] > 70, "aa", "bb")) for t in tables]
    found = infer(*tables, SCHEMA)
    assert found.p_value > 0.05 and all(abs(a.difference) < 0.1 for a in found.attributes)


def test_swapped_sides_are_noticed():
    assert infer(HOLDOUT, TRAIN, REFERENCE, TRAIN, SCHEMA).p_value > 0.5


# ---- what must be survived


STRANGE = {
    "one row": INDEPENDENT[:1],
    "constant": INDEPENDENT.loc[np.zeros(300, dtype=int)].reset_index(drop=True),
    "unseen levels": INDEPENDENT.assign(ward="zz", genotype="cc", smoker="never told"),
    "a gap everywhere": INDEPENDENT.assign(hba1c_pct=np.nan, ward=None),
    "no secret at all": INDEPENDENT.assign(genotype=None),
    "nothing at all": INDEPENDENT.assign(**dict.fromkeys(INDEPENDENT, None)),
    "numbers out of range": INDEPENDENT.assign(age_years=1e12, crp=-1e12),
}


@pytest.mark.parametrize("synthetic", STRANGE.values(), ids=STRANGE)
def test_strange_synthetic_tables_are_survived(synthetic):
    options = {"secrets": ("genotype", "crp"), "keys": ("age_years", "ward"), "population": 9999}
    found = infer(TRAIN[:100], HOLDOUT[:100], REFERENCE[:100], synthetic, SCHEMA, **options)
    assert found.p_value > 0.01 and found.disclosive.rep_u == 0
    json.dumps(found.model_dump(mode="json"), allow_nan=False)


def test_gaps_in_every_real_table_are_survived():
    real = [t[:100].assign(hba1c_pct=np.nan, genotype=None) for t in (TRAIN, HOLDOUT, REFERENCE)]
    options = {"secrets": ("genotype", "hba1c_pct"), "keys": ("hba1c_pct",), "population": 9999}
    found = infer(*real, INDEPENDENT, SCHEMA, **options)
    assert found.p_value > 0.01 and all(a.members == 0 for a in found.attributes)
    assert found.identity.below  # a gap among gaps is one class of all patients


@pytest.mark.parametrize("count", [1, 2])
def test_few_columns_are_survived(count):
    names = ["crp", "ward"][:count]
    schema = Schema.detect(TRAIN[names])
    tables = (TRAIN[:200], HOLDOUT[:200], REFERENCE[:200], INDEPENDENT)
    found = infer(*(table[names] for table in tables), schema)
    assert len(found.attributes) == (0, 0, 4)[count] and found.linkability.members == 0


def test_one_patient_a_side_is_survived():
    found = infer(TRAIN[:1], HOLDOUT[:1], REFERENCE[:1], INDEPENDENT[:1], SCHEMA)
    assert found.p_value > 0.1
    json.dumps(found.model_dump(mode="json"), allow_nan=False)


def test_dates_and_booleans_are_columns_like_others():
    def dated(seed):
        frame, rng = fresh(200, seed), np.random.default_rng(seed)
        frame["admitted"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(
            rng.integers(0, 900, 200), unit="D"
        )
        return frame.assign(alive=rng.random(200) < 0.5)

    schema = Schema.detect(dated(0), target="alive")
    train, holdout, reference = dated(1), dated(2), dated(3)
    options = {"secrets": ("alive", "admitted"), "keys": ("admitted", "alive"), "population": 5000}
    assert infer(train, holdout, reference, train, schema, **options).p_value == 0.001
    assert infer(train, holdout, reference, dated(4), schema, **options).p_value > 0.01


# ---- quasi-identifiers


def test_repu_and_disco_agree_with_a_plain_count():
    train, holdout, synthetic = (fresh(300, seed) for seed in (1, 2, 3))
    keys, target = ("ward", "smoker"), "genotype"
    found = disclosive(train, holdout, synthetic, SCHEMA, keys, target)

    def key(row):
        return tuple("gap" if pd.isna(row[name]) else row[name] for name in keys)

    told, hits = {}, [0, 0]
    for _, row in synthetic.iterrows():
        told.setdefault(key(row), []).append(row[target])
    for side, frame in enumerate((train, holdout)):
        hits[side] = sum(set(told.get(key(r), [])) == {r[target]} for _, r in frame.iterrows())
    assert found.disco.members == coarse(hits[0] / 300, 300)
    assert found.disco.non_members == coarse(hits[1] / 300, 300)


def test_repu_and_disco_tell_a_copy_from_the_population():
    keys = ("age_years", "sbp_mmhg", "ward")
    found = disclosive(TRAIN, HOLDOUT, TRAIN, SCHEMA, keys, "genotype")
    assert found.rep_u > 0.5 > 0.3 > found.rep_u_control
    assert found.disco.low > 0.2 and found.disco.p_value == 0.001
    quiet = disclosive(TRAIN, HOLDOUT, INDEPENDENT, SCHEMA, keys, "genotype")
    assert quiet.disco.p_value > 0.05 and abs(quiet.rep_u - quiet.rep_u_control) < 0.1


def test_expected_share_of_a_class_is_the_integral_it_stands_for():
    for p in (1e-5, 0.02, 0.5, 0.999):
        for f in (1, 2, 30):
            under = integrate.quad(  # p u^(f-1) / (p + (1-p) u) over [0, 1], with u = exp(-x)
                lambda x, p=p, f=f: p / (p * np.exp(f * x) + (1 - p) * np.exp((f - 1) * x)),
                *(0, 20 + 20 / f),
                limit=500,
            )[0]
            assert quasi_identifiers._one_in(np.array([f]), p)[0] == pytest.approx(under, rel=1e-5)
    large = quasi_identifiers._one_in(np.array([51, 5000]), 0.02)
    assert (large > 0.02 / np.array([51, 5000])).all() and large[1] < 0.020005 / 5000 * 1.001


def test_identity_disclosure_falls_with_the_population_and_with_untrue_secrets():
    keys = ("age_years", "ward")
    risks = [
        identity_disclosure(TRAIN, TRAIN, SCHEMA, keys, n).risk for n in (500, 5000, 5_000_000)
    ]
    assert risks[0] > risks[1] > risks[2] and risks[0] > 0.09
    assert identity_disclosure(TRAIN, TRAIN, SCHEMA, keys, 5_000_000).below
    other = pd.DataFrame({"ward": TRAIN["ward"], "age_years": TRAIN["age_years"]})
    untrue = TRAIN.assign(sbp_mmhg=1e6, hba1c_pct=1e6, crp=1e6, genotype="cc", smoker="other")
    untrue[other.columns] = other
    assert identity_disclosure(TRAIN, untrue, SCHEMA, keys, 5000).risk == 0


# ---- what the result may hold


def test_counts_of_few_patients_do_not_show():
    for patients in (200, 2000):
        shown = {coarse(k / patients, patients) for k in range(6)}
        assert shown == {0.0}
        assert len({coarse(1 - k / patients, patients) for k in range(4)}) == 1


def test_the_same_seed_gives_the_same_result_and_no_order_matters():
    synthetic = pd.concat([INDEPENDENT, TRAIN[:30]], ignore_index=True)
    options = {"keys": ("ward",), "population": 10_000, "seed": 3}
    first, second = (infer(TRAIN, HOLDOUT, REFERENCE, synthetic, SCHEMA, **options),) * 2
    again = infer(TRAIN, HOLDOUT, REFERENCE, synthetic, SCHEMA, **options)
    assert first == second == again
    turned = infer(TRAIN[::-1], HOLDOUT[::-1], REFERENCE, synthetic, SCHEMA, **options)
    for one, other in zip(attacks(first), attacks(turned), strict=True):
        assert (one.members, one.non_members) == (other.members, other.non_members)


def test_bad_options_are_refused_before_work_starts():
    tables = (TRAIN, HOLDOUT, REFERENCE, INDEPENDENT)
    for options, text in (
        ({"secrets": ("income",)}, "'income'.*secrets"),
        ({"keys": ("region",)}, "'region'.*keys"),
        ({"keys": ("ward",), "population": 10}, "population of 10"),
    ):
        with pytest.raises(InputError, match=text):
            infer(*tables, SCHEMA, **options)
    with pytest.raises(InputError, match="reference has no rows"):
        infer(TRAIN, HOLDOUT, REFERENCE[:0], INDEPENDENT, SCHEMA)
    with pytest.raises(InputError, match="'ward'"):
        infer(TRAIN, HOLDOUT, REFERENCE, INDEPENDENT.drop(columns="ward"), SCHEMA)
