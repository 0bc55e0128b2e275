"""Patients with several visits: learned, drawn and audited whole."""

import json

import numpy as np
import pandas as pd
import pytest

from synthmed_nb import Schema, Synthesizer, audit, evaluate, report
from synthmed_nb.cli import main
from synthmed_nb.schema import DataNote, InputError
from synthmed_nb.visit_fidelity import visit_fidelity
from synthmed_nb.visits import MOST_VISITS

PATIENTS = 400


def clinic(seed: int = 0) -> pd.DataFrame:
    """Stays of patients: a chain of states, codes that come back, and ages that grow."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(PATIENTS), rng.integers(1, 6, PATIENTS))
    new = np.r_[True, who[1:] != who[:-1]]
    gaps = np.where(new, 0, rng.integers(30, 400, len(who)))
    days = pd.Series(gaps).groupby(who).cumsum() + rng.integers(0, 2_000, PATIENTS)[who]
    table = pd.DataFrame({"pid": [f"p{i}" for i in who], "stay": rng.permutation(len(who))})
    table["admitted"] = pd.Timestamp("2005-01-01") + pd.to_timedelta(days.to_numpy(), "D")
    left = table["admitted"] + pd.to_timedelta(rng.integers(0, 9, len(who)), "D")
    table["discharged"] = left.dt.strftime("%d/%m/%Y")
    table["age"] = table["admitted"].dt.year - rng.integers(1930, 1990, PATIENTS)[who]
    table["sex"] = np.where(who % 2, "F", "M")
    table["ward"] = np.where(rng.random(len(who)) < 0.5, table["sex"], "A")
    chronic = rng.random(PATIENTS) < 0.4
    table["dx"] = [
        ["E11", f"I2{rng.integers(0, 6)}"] if chronic[i] else [f"J0{rng.integers(0, 6)}"]
        for i in who
    ]
    return table.sample(frac=1, random_state=seed, ignore_index=True)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Stays in any order."""
    return clinic()


@pytest.fixture(scope="module")
def schema(table: pd.DataFrame) -> Schema:
    """Its schema, with one rule."""
    schema = Schema.detect(table, patient="pid", time="admitted", visit="stay")
    return schema.require("sex = M -> ward != F")


@pytest.fixture(scope="module")
def model(table: pd.DataFrame, schema: Schema) -> Synthesizer:
    """Fitted for a short while."""
    return Synthesizer(schema, steps=250).fit(table, progress=False)


@pytest.fixture(scope="module")
def drawn(model: Synthesizer) -> pd.DataFrame:
    """Synthetic patients."""
    return model.sample(PATIENTS, seed=1, progress=False)


def test_a_patient_is_one_person_in_order(table, drawn):
    assert list(drawn) == list(table) and drawn.dtypes.equals(table.dtypes)
    assert drawn["pid"].nunique() == PATIENTS and drawn["stay"].is_unique
    assert not set(drawn["pid"]) & set(table["pid"])
    grouped = drawn.groupby("pid")
    assert (grouped["sex"].nunique() == 1).all()
    assert (drawn["admitted"].dt.year - drawn["age"]).groupby(drawn["pid"]).nunique().max() == 1
    assert (grouped["admitted"].diff().dropna() >= pd.Timedelta(0)).all()
    left = pd.to_datetime(drawn["discharged"], format="%d/%m/%Y")
    assert (left >= drawn["admitted"]).all() and (left - drawn["admitted"]).max().days <= 9
    assert grouped["pid"].size().max() <= 5
    assert ((drawn["sex"] == "F") | (drawn["ward"] != "F")).all()


def test_visits_gaps_and_codes_are_those_of_real_patients(table, drawn):
    sizes = [t.groupby("pid").size() for t in (table, drawn)]
    assert sizes[1].mean() == pytest.approx(sizes[0].mean(), rel=0.1)
    gaps = [
        t.sort_values("admitted").groupby("pid")["admitted"].diff().dt.days for t in (table, drawn)
    ]
    assert gaps[1].mean() == pytest.approx(gaps[0].mean(), rel=0.1)
    chronic = drawn["dx"].map(lambda codes: "E11" in codes)
    before = chronic.groupby(drawn["pid"]).shift()
    same = (chronic == before)[before.notna()].mean()
    assert same > 0.8  # who has E11 once has it again; by chance 0.52


def test_a_saved_model_draws_the_same(model, drawn, tmp_path):
    model.save(tmp_path / "model")
    again = Synthesizer.load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.sample(PATIENTS, seed=1, progress=False), drawn)
    text = (tmp_path / "model" / "model.json").read_text()
    assert '"p17"' not in text


def test_what_is_asked_of_patients(model):
    women = model.sample(60, given={"sex": "F", "ward": "A"}, progress=False)
    assert set(women["sex"]) == {"F"} and set(women["ward"]) == {"A"}
    three = model.sample(60, given={"visits": 3}, progress=False)
    assert (three.groupby("pid").size() == 3).all()
    even = model.sample(60, balance="sex", progress=False).drop_duplicates("pid")
    assert even["sex"].value_counts().tolist() == [30, 30]
    ill = model.sample(60, given={"dx": "E11"}, progress=False)
    assert all("E11" in codes for codes in ill["dx"])
    with pytest.raises(InputError, match="'ward'.*the same in all visits"):
        model.sample(60, balance="ward", progress=False)


def test_the_command_line_asks_for_numbers_of_visits(model, tmp_path):
    model.save(tmp_path / "model")
    words = ["sample", tmp_path / "model", "--rows", 30, "--out", tmp_path / "out.csv"]
    assert main([str(word) for word in (*words, "--given", "visits=2..3")]) in (0, None)
    assert set(pd.read_csv(tmp_path / "out.csv")["pid"].value_counts()) == {2, 3}


def test_gaps_are_filled_for_the_whole_patient(table, model):
    holes = table.assign(sex=table["sex"].mask(table["pid"] < "p2"))
    filled = model.impute(holes)
    assert filled["sex"].notna().all() and filled["dx"].tolist() == table["dx"].tolist()
    gone = holes["sex"].isna()
    assert (filled[gone].groupby("pid")["sex"].nunique() == 1).all()
    pd.testing.assert_series_equal(filled["admitted"], table["admitted"])


def test_losses_and_embeddings_keep_the_order_of_rows(table, model):
    losses = model.record_losses(table)[:, :8]  # of tokens; residuals have luck of their own
    turned = model.record_losses(table[::-1])[::-1, :8]
    assert np.allclose(losses, turned, atol=1e-4) and len(model.embed(table)) == len(table)
    assert np.isfinite(model.record_losses(table.drop(columns=["pid", "stay"]))).all()


def test_an_audit_takes_patients_whole(table, schema):
    parts = schema.split(table, seed=0)
    model = Synthesizer(schema, steps=40).fit(parts[0], progress=False)
    drawn = model.sample(parts[0]["pid"].nunique(), seed=1, progress=False)
    found = audit(*parts, drawn, schema, model=model, progress=False)
    assert found.verdict == "INCONCLUSIVE"  # 80 patients a side show little


def test_other_patients_keep_the_marks_and_a_page_shows_visits(schema, tmp_path):
    train, holdout, other = clinic(0), clinic(1), clinic(2)
    found = evaluate(train, holdout, other, schema, progress=False)
    visits = found.fidelity.visits
    assert visits.unit == "days" and visits.persons == ["sex"]
    assert "no" not in [mark.state for mark in visits.marks] and len(visits.marks) == 3
    people = train.groupby("pid").size()
    assert visits.back[0] == pytest.approx((people > 1).mean(), abs=0.03)
    whole = found.model_dump(mode="json")
    (tmp_path / "evaluation.json").write_text(json.dumps(whole), encoding="utf-8")
    page = report("fidelity", tmp_path / "page.html", evaluation=tmp_path / "evaluation.json")
    text = page.read_text(encoding="utf-8")
    assert "Do patients come back as they should?" in text
    assert text.count("time between visits") >= 2 and "second visit" in text


def test_what_is_wrong_with_visits_is_seen(schema):
    train, holdout, other = (schema.check(clinic(seed)) for seed in range(3))

    def states(synthetic):
        found, _ = visit_fidelity(train, holdout, synthetic, schema)
        return [mark.state for mark in found.marks]

    rng = np.random.default_rng(0)
    assert "no" not in states(other)
    assert states(other.assign(sex=rng.permutation(other["sex"])))[2] == "no"
    assert states(other.assign(pid=rng.permutation(other["pid"])))[1:] == ["no", "no"]
    alone = other.groupby("pid").head(2)
    assert states(alone)[0] == "no"


def test_visits_without_times_follow_their_keys():
    table = (
        clinic().drop(columns=["admitted", "discharged", "age"]).rename(columns={"stay": "case"})
    )
    schema = Schema.detect(table, patient="pid", visit="case")
    drawn = Synthesizer(schema, steps=20).fit(table, progress=False).sample(50, progress=False)
    assert drawn["pid"].nunique() == 50 and drawn["case"].is_monotonic_increasing
    assert len(drawn) > 60


def test_equal_times_and_too_many_visits_are_said():
    long = pd.DataFrame({"pid": np.r_[np.zeros(MOST_VISITS + 30), np.repeat(np.arange(1, 250), 2)]})
    long["day"] = np.random.default_rng(0).integers(0, 3, len(long))  # many at the same time
    long["x"] = np.random.default_rng(1).choice(["a", "b"], len(long))
    schema = Schema.detect(long, patient="pid", time="day")
    with pytest.warns(DataNote, match="30 visits beyond the first 1,000 of fewer than 11 patients"):
        model = Synthesizer(schema, steps=5).fit(long, progress=False)
    drawn = model.sample(20, given={"visits": 2}, progress=False)
    assert drawn.groupby("pid")["day"].diff().dropna().min() >= 0


def scattered(means: np.ndarray, start: int, seed: int) -> pd.DataFrame:
    """Twelve visits each of patients with means of their own, which no single visit tells."""
    visits = 12
    noise = np.random.default_rng(seed).normal(0, 2.5, (visits * len(means), means.shape[1]))
    labs = np.repeat(means, visits, axis=0) + noise
    table = pd.DataFrame(labs.round(3), columns=[f"lab {i}" for i in range(means.shape[1])])
    days = pd.to_timedelta(np.tile(np.arange(visits), len(means)), unit="D")
    who = [f"P{i:05d}" for i in np.repeat(np.arange(len(means)), visits) + start]
    return table.assign(who=who, day=pd.Timestamp("2020-01-01") + days)


def test_an_audit_sees_copied_habits():
    train, holdout, reference, other = np.random.default_rng(2).normal(0, 3, (4, 120, 6))
    tables = [scattered(m, 1000 * i, i) for i, m in enumerate((train, holdout, reference))]
    schema = Schema.detect(pd.concat(tables, ignore_index=True), patient="who", time="day")
    copied = audit(*tables, scattered(train, 5000, 9), schema, progress=False)
    told = {attack.name: attack for attack in copied.attacks}
    assert told["history distance ratio"].auc > 0.7 > 0.6 > told["distance ratio"].auc
    assert copied.verdict == "FLAG" and copied.copies.p_value > 0.01
    fresh = audit(*tables, scattered(other, 5000, 9), schema, progress=False)
    assert fresh.verdict != "FLAG"
    once = [table.drop_duplicates("who") for table in tables]
    found = audit(*once, scattered(other, 5000, 9), schema, progress=False)
    assert not [attack for attack in found.attacks if attack.name.startswith("history")]
