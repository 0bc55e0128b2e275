"""The audit is audited: what it must flag, what it must not, and that these controls can fail.

All tables are made up or the embedded one. A rate of false alarms is compared with the
binomial band of its level, so that a control is neither lucky nor blind.
"""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from synthmed_nb.auditing import audit
from synthmed_nb.controls import audit_the_auditor, most_isolated
from synthmed_nb.datasets import load_nhanes
from synthmed_nb.disclosure import find_copies
from synthmed_nb.membership import attack_scores
from synthmed_nb.neighbors import RecordSpace
from synthmed_nb.schema import InputError, Schema
from synthmed_nb.sides import Sides
from synthmed_nb.verdict import FLAG_LEVEL, blind_test


def fresh(rows, seed, shift=0.0):
    """Independent patients of a process with dependent numbers, gaps and categories."""
    rng = np.random.default_rng(seed)
    age = (rng.gamma(9, 6, rows) + 18 + shift).round()
    sbp = (100 + 0.5 * age + rng.normal(0, 14, rows)).round()
    hba1c = (4.5 + rng.gamma(2, 0.5, rows) + age / 100).round(1)
    hba1c[rng.random(rows) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "age_years": age,
            "sbp_mmhg": sbp,
            "hba1c_pct": hba1c,
            "crp": np.exp(rng.normal(0, 1, rows)).round(2),
            "sex": rng.choice(["F", "M"], rows),
            "ward": rng.choice(list("abcdef"), rows, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.05]),
            "smoker": np.where(rng.random(rows) < 0.2, None, rng.choice(["no", "yes"], rows)),
        }
    )


def levels(rows, seed):
    """Five columns of four levels: many patients are alike, and many distances tie."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({f"c{i}": rng.choice(list("wxyz"), rows) for i in range(5)})


def jittered(frame, share, seed):
    """Near copies: numbers moved by a share of their interquartile range."""
    rng, moved = np.random.default_rng(seed), frame.copy()
    for name in ("age_years", "sbp_mmhg", "hba1c_pct", "crp"):
        reach = share * (frame[name].quantile(0.75) - frame[name].quantile(0.25))
        moved[name] = frame[name] + rng.normal(0, reach, len(frame))
    return moved


def shuffled(frame, seed):
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True)


TRAIN, HOLDOUT, REFERENCE = fresh(600, 1), fresh(600, 2), fresh(300, 3)
SCHEMA = Schema.detect(TRAIN)


def verdict(synthetic, train=TRAIN, holdout=HOLDOUT, reference=REFERENCE, schema=SCHEMA):
    return audit(train, holdout, reference, synthetic, schema).verdict


def p_values(train, holdout, reference, synthetic, schema, seed=0):
    """The p-values of membership and of copies, without the rest of the audit."""
    sides = Sides(train, holdout, schema, seed)
    space = RecordSpace.fit(reference, schema)
    scores, _ = attack_scores(space, sides.records, reference, synthetic, seed=seed)
    rates = sides.rates({name: sides.by_patient(score) for name, score in scores.items()})
    real = {"train": train, "holdout": holdout, "reference": reference}
    return sides.test(rates), find_copies(real, synthetic, schema).p_value


def flags(found):
    return [2 * min(p, copies) <= FLAG_LEVEL for p, copies in found]


# ---- what must be flagged


@pytest.mark.parametrize("synthetic", [TRAIN, shuffled(TRAIN, 0)], ids=["same order", "shuffled"])
def test_a_copy_of_train_is_flagged(synthetic):
    assert verdict(synthetic) == "FLAG"


def test_a_copy_of_a_categorical_train_is_flagged_by_each_test():
    train, holdout, reference = levels(600, 1), levels(600, 2), levels(300, 3)
    schema = Schema.detect(train)
    assert verdict(shuffled(train, 0), train, holdout, reference, schema) == "FLAG"
    permutation, copies = p_values(train, holdout, reference, train, schema)
    assert permutation <= 0.005 and copies <= 0.001


@pytest.mark.parametrize("share", [0.01, 0.05, 0.10])
def test_near_copies_are_flagged(share):
    permutation, copies = p_values(TRAIN, HOLDOUT, REFERENCE, jittered(TRAIN, share, 0), SCHEMA)
    assert permutation <= 0.005
    assert (copies <= 0.01) == (share == 0.01)  # so near that rounding makes it exact


def test_one_near_copy_in_fifty_is_flagged():
    copied = jittered(TRAIN.iloc[:12], 0.02, 0)
    synthetic = pd.concat([fresh(588, 9), copied], ignore_index=True)
    assert verdict(synthetic) == "FLAG"


def test_ten_copies_in_two_thousand_are_flagged():
    real = {"train": fresh(2000, 1), "holdout": fresh(2000, 2), "reference": fresh(500, 3)}
    synthetic = pd.concat([fresh(1990, 9), real["train"].iloc[:10]], ignore_index=True)
    assert find_copies(real, synthetic, SCHEMA).p_value <= 0.01
    assert verdict(synthetic, *real.values()) == "FLAG"


def test_a_copied_train_table_of_real_patients_is_flagged():
    patients = load_nhanes()
    schema = Schema.detect(patients, target="diabetes")
    train, holdout, reference = schema.split(patients, seed=0)
    found = audit(train, holdout, reference, shuffled(train, 0), schema)
    assert found.verdict == "FLAG" and found.copies.synthetic_share == 1
    assert found.attacks[0].auc > 0.99


# ---- what must not be flagged


def test_false_alarms_on_independent_tables_stay_in_the_binomial_band():
    replicates = 60
    seeds = np.arange(4 * replicates).reshape(replicates, 4) + 1000
    found = [p_values(*(fresh(120, seed) for seed in row), SCHEMA) for row in seeds]
    assert sum(flags(found)) <= stats.binom.ppf(0.995, replicates, FLAG_LEVEL)
    assert np.mean([p for p, _ in found]) == pytest.approx(0.5, abs=0.12)  # uniform, not just large


def test_false_alarms_with_many_ties_stay_in_the_binomial_band():
    replicates, schema = 40, Schema.detect(levels(300, 0))
    seeds = np.arange(4 * replicates).reshape(replicates, 4) + 5000
    found = [p_values(*(levels(120, seed) for seed in row), schema) for row in seeds]
    assert sum(flags(found)) <= stats.binom.ppf(0.995, replicates, FLAG_LEVEL)


def visits(patients, seed):
    """Patients with four nearly equal records each."""
    frame = fresh(patients, seed).loc[np.repeat(np.arange(patients), 4)].reset_index(drop=True)
    frame["crp"] += np.random.default_rng(seed).normal(0, 0.01, len(frame)).round(3)
    frame.insert(0, "patient_id", np.repeat(np.arange(patients) + 10_000 * seed, 4))
    return frame


def test_the_patient_is_the_unit():
    schema = Schema.detect(visits(200, 1), patient="patient_id")
    parts = [visits(60, seed) for seed in (1, 2, 3)]
    found = audit(*parts, parts[0], schema)
    assert (found.rows["train"], found.rows["members"]) == (240, 60)
    replicates = 30
    seeds = np.arange(4 * replicates).reshape(replicates, 4) + 9000
    found = [p_values(*(visits(60, seed) for seed in row), schema) for row in seeds]
    assert sum(flags(found)) <= stats.binom.ppf(0.995, replicates, FLAG_LEVEL)


def test_a_real_holdout_as_synthetic_against_a_fresh_split_is_not_flagged():
    patients = load_nhanes()
    schema = Schema.detect(patients, target="diabetes")
    train, holdout, reference = schema.split(patients, seed=0)
    rest = pd.concat([train, reference], ignore_index=True)
    found = audit(*schema.split(rest, seed=1), holdout, schema)
    assert found.verdict not in ("FLAG", "INVALID")
    assert found.copies.synthetic_share <= found.copies.holdout_share + 0.001


def test_independent_columns_are_useless_but_not_flagged():
    rng = np.random.default_rng(3)
    noise = TRAIN.apply(lambda column: rng.permutation(column.to_numpy()))
    assert verdict(noise) != "FLAG"


def test_a_large_audit_of_an_independent_table_passes():
    found = audit(fresh(3000, 11), fresh(3000, 12), fresh(1000, 13), fresh(3000, 14), SCHEMA)
    assert found.verdict == "PASS", found.reasons


# ---- what must not be judged


def test_a_holdout_of_other_patients_makes_the_audit_invalid():
    older = fresh(600, 2, shift=8)
    assert verdict(fresh(600, 9), holdout=older) == "INVALID"
    assert verdict(TRAIN, holdout=older) == "INVALID"


def test_alike_tables_are_not_called_invalid():
    blind = [blind_test(fresh(150, s), fresh(150, s + 500), SCHEMA, seed=s) for s in range(40)]
    assert sum(b.auc_low > 0.5 for b in blind) <= stats.binom.ppf(0.995, 40, 0.01)
    assert np.mean([b.auc for b in blind]) == pytest.approx(0.5, abs=0.02)


def test_too_few_patients_are_inconclusive():
    found = audit(fresh(100, 1), fresh(100, 2), fresh(100, 3), fresh(100, 4), SCHEMA)
    assert found.verdict == "INCONCLUSIVE" and "at least 1,000" in " ".join(found.reasons)


def test_a_small_table_never_passes_but_can_be_flagged():
    small = SCHEMA.model_copy(update={"small": True})
    tiny = [fresh(8, seed) for seed in range(4)]
    found = audit(*tiny, small)
    assert found.verdict == "INCONCLUSIVE" and " 8 " not in " ".join(found.reasons)
    assert verdict(TRAIN, schema=small) == "FLAG"


# ---- the suite that users run, and that it can fail


def test_the_suite_passes_on_a_made_up_hospital():
    table = pd.concat([fresh(800, 21), levels(800, 22)[["c0", "c1"]]], axis=1)
    schema = Schema.detect(table, target="smoker")
    found = {control.name: control for control in audit_the_auditor(table, schema)}
    assert [name for name, control in found.items() if not control.passed] == []
    assert {n: c.expected for n, c in found.items() if "mutation" in n} == {
        f"mutation: {name}": "noticed" for name in ("sign", "swapped", "no match", "ties")
    }
    assert found["other patients"].invalid == 1 and found["jitter 10 %"].flagged == 1


NEAR = jittered(TRAIN, 0.10, 0)


def test_swapped_train_and_holdout_would_be_noticed():
    found = audit(HOLDOUT, TRAIN, REFERENCE, NEAR, SCHEMA)
    assert found.attacks[0].auc < 0.1  # although the stack learns that members are far
    real = {"train": HOLDOUT, "holdout": TRAIN, "reference": REFERENCE}
    assert find_copies(real, TRAIN, SCHEMA).p_value > 0.99


# ---- what is looked for beside membership


def test_only_the_isolated_are_told():
    train, holdout, reference = fresh(2000, 1), fresh(2000, 2), fresh(1000, 3)
    moved = jittered(most_isolated(train, reference, SCHEMA, 0.01), 0.02, 0)
    synthetic = pd.concat([fresh(1980, 9), moved], ignore_index=True)
    found = audit(train, holdout, reference, synthetic, SCHEMA)
    assert found.verdict == "FLAG"
    assert found.groups[0].name == "most isolated patients"
    assert found.groups[0].p_value == min(group.p_value for group in found.groups) <= 0.01


def test_a_copied_secret_is_flagged_although_no_record_is():
    rng = np.random.default_rng(0)
    parts = [fresh(1000, seed) for seed in (1, 2, 3, 4)]
    for part in parts:  # a secret that nothing tells
        part["secret"] = rng.choice(list("uvwxyz"), len(part))
    train, holdout, reference, other = parts
    told = jittered(train, 0.3, 0)
    told["smoker"], told["ward"] = other["smoker"], other["ward"]
    schema = Schema.detect(train, target="secret")
    found = audit(train, holdout, reference, told, schema)
    assert found.copies.exact.members in (0.0, None)
    least = min(attack.p_value for attack in found.inference.attributes)
    assert found.verdict == "FLAG" and least <= 0.01
    told["secret"] = rng.permutation(told["secret"])
    untold = audit(train, holdout, reference, told, schema)
    assert min(attack.p_value for attack in untold.inference.attributes) > 0.01


# ---- bad input


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.head(1),
        lambda t: t.assign(**{name: t[name].dropna().iloc[0] for name in t}),
        lambda t: t.assign(ward="nowhere"),
        lambda t: t.assign(hba1c_pct=np.nan, smoker=None),
    ],
    ids=["one row", "constant", "unseen levels", "all missing"],
)
def test_odd_synthetic_tables_never_pass_nor_crash(spoil):
    odd = spoil(fresh(600, 9))
    assert verdict(odd) in ("INCONCLUSIVE", "FLAG")


def test_without_a_reference_nothing_passes():
    big = [fresh(3000, seed) for seed in (1, 2, 4)]
    found = audit(big[0], big[1], None, big[2], SCHEMA)
    assert found.verdict == "INCONCLUSIVE" and "density ratio" in found.reasons[0]
    assert audit(big[0], big[1], None, big[0], SCHEMA).verdict == "FLAG"


# ---- what the result may hold


def test_the_result_is_plain_json_without_gaps_and_the_same_each_time():
    first, second = (audit(TRAIN, HOLDOUT, REFERENCE, NEAR, SCHEMA) for _ in range(2))
    text = json.dumps(first.model_dump(mode="json"), allow_nan=False)
    assert text == json.dumps(second.model_dump(mode="json"), allow_nan=False)
    assert first == type(first).model_validate_json(text)


def test_a_patient_on_two_sides_is_refused():
    schema = Schema.detect(visits(200, 1), patient="patient_id")
    train, holdout, reference = (visits(60, seed) for seed in (1, 2, 3))
    mixed = pd.concat([holdout, train[:4]], ignore_index=True)
    with pytest.raises(InputError, match="train and holdout share patients"):
        audit(train, mixed, reference, train, schema)


def test_a_synthetic_table_without_a_column_is_refused():
    with pytest.raises(InputError, match="column 'ward'"):
        audit(TRAIN, HOLDOUT, REFERENCE, TRAIN.drop(columns="ward"), SCHEMA)
