"""Whole runs from OMOP, MEDS, Synthea and databases, and the tables of that form they make."""

import json
import re
import sqlite3
import warnings

import duckdb
import numpy as np
import pandas as pd
import pytest

from synthmed_nb import cli, pipeline
from synthmed_nb.cdm import check_omop
from synthmed_nb.codes import read_codes
from synthmed_nb.meds import check_meds, write_meds
from synthmed_nb.omop import read_omop
from synthmed_nb.reports import PAGES
from synthmed_nb.source_tables import write_source_tables
from synthmed_nb.sources import read_source
from synthmed_nb.tables import file_sha256

PERSONS = 210
CONCEPTS = [
    (9201, "Inpatient Visit", "Visit"), (9202, "Outpatient Visit", "Visit"),
    (101, "Cough", "Condition"), (102, "Fever", "Condition"), (103, "Pregnancy", "Condition"),
    (201, "Aspirin", "Drug"), (202, "Ibuprofen", "Drug"),
]  # fmt: skip


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """An OMOP folder of made-up persons with one to three visits; keys with gaps."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("source") / "omop"
    folder.mkdir()
    key = 3 * np.arange(PERSONS) + 1
    person = pd.DataFrame(
        {"person_id": key, "gender_concept_id": rng.choice([8507, 8532], PERSONS)}
    )
    person["year_of_birth"] = rng.integers(1930, 2000, PERSONS)
    person["race_concept_id"], person["ethnicity_concept_id"] = 8527, 0
    visit = person.loc[np.repeat(person.index, rng.integers(1, 4, PERSONS))]
    visit = visit[["person_id", "gender_concept_id"]].reset_index(drop=True)
    visit["visit_occurrence_id"] = 7 * visit.index + 2
    start = pd.Timestamp("2015-01-01") + pd.to_timedelta(rng.integers(0, 1500, len(visit)), "D")
    visit["visit_start_date"] = start
    visit["visit_end_date"] = start + pd.to_timedelta(rng.integers(0, 9, len(visit)), "D")
    visit["visit_concept_id"] = rng.choice([9201, 9202], len(visit))
    period = visit.groupby("person_id").agg(
        observation_period_start_date=("visit_start_date", "min"),
        observation_period_end_date=("visit_end_date", "max"),
    )
    period = period.reset_index().assign(period_type_concept_id=0)
    period["observation_period_id"] = period.index + 1
    concept = pd.DataFrame(CONCEPTS, columns=["concept_id", "concept_name", "domain_id"])
    tables = {"person": person, "observation_period": period, "concept": concept}
    tables["visit_occurrence"] = visit.drop(columns="gender_concept_id").assign(
        visit_type_concept_id=0
    )
    for name, stem, codes in (
        ("condition_occurrence", "condition", (101, 102, 103)),
        ("drug_exposure", "drug", (201, 202)),
    ):  # fmt: skip
        parts = [visit[rng.random(len(visit)) < 0.5].assign(code=code) for code in codes]
        events = pd.concat(parts, ignore_index=True)
        events = events[(events["code"] != 103) | (events["gender_concept_id"] == 8532)]
        events = events.reset_index(drop=True)
        made = events[["person_id", "visit_occurrence_id"]].assign(
            **{f"{name}_id": events.index + 1}
        )
        made[f"{stem}_concept_id"], made[f"{stem}_type_concept_id"] = events["code"], 0
        day = f"{name}_start_date" if stem == "drug" else f"{stem}_start_date"
        made[day] = events["visit_start_date"]
        if stem == "drug":
            made["drug_exposure_end_date"] = events["visit_end_date"]
        tables[name] = made
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    assert set(check_omop(folder).values()) == {0}
    return folder


def quietly(function, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args)


def command(*words):
    return cli.main([str(word) for word in words])


SHORT = ("--steps", 10, "--minutes", 1)


@pytest.fixture(scope="module")
def whole(hospital, tmp_path_factory):
    """A run from end to end as a user starts it, released against the audit's word."""
    out = tmp_path_factory.mktemp("run") / "run"
    code = command(
        "run", f"omop:{hospital}", "--target", "conditions:102", *SHORT, "--rows", 150,
        "--override", "made up", "--out", out,
    )  # fmt: skip
    assert code == 0
    return out, json.loads((out / "manifest.json").read_text())


def test_the_tables_load_again_and_are_sound(whole, hospital):
    out, manifest = whole
    real = check_omop(hospital)
    for folder in (out / "private" / "omop", out / "release" / "omop"):
        found = check_omop(folder)
        assert set(real) <= set(found) and set(found.values()) == {0}
    again, synthetic = (
        quietly(read_omop, folder),
        pd.read_parquet(out / "release" / "synthetic.parquet"),
    )
    told = manifest["results"]["source_tables"]
    assert told["visits"] == len(again) == len(synthetic) > told["persons"] == 150
    assert told["checks"] == len(found) and told["broken"] == {} and told["shared_keys"] == 0
    assert told["rows"]["person.parquet"] == told["persons"] == again["person_id"].nunique()


def test_the_tables_say_what_the_synthetic_table_says(whole):
    out, _ = whole
    again = quietly(read_omop, out / "release" / "omop")
    synthetic = pd.read_parquet(out / "release" / "synthetic.parquet")
    conditions = read_codes(synthetic["conditions"], "conditions")
    assert not any("102" in held for held in conditions)  # it is the target
    flags = synthetic["conditions:102"].astype(bool)
    expected = [
        {*held, "102"} if flag else {*held} for held, flag in zip(conditions, flags, strict=True)
    ]
    assert [set(held) for held in again["conditions"]] == expected
    assert flags.any()
    for name in ("gender", "visit_type"):
        assert again[name].value_counts().to_dict() == synthetic[name].value_counts().to_dict()
    assert again["visit_start"].tolist() == synthetic["visit_start"].tolist()


def test_nobody_real_is_in_the_tables(whole, hospital):
    out, _ = whole
    for name, key in (
        ("person", "person_id"), ("visit_occurrence", "visit_occurrence_id"),
        ("observation_period", "observation_period_id"),
        ("condition_occurrence", "condition_occurrence_id"),
    ):  # fmt: skip
        real = pd.read_csv(hospital / f"{name}.csv")[key]
        made = pd.read_parquet(out / "release" / "omop" / f"{name}.parquet")[key]
        assert not set(real) & set(made) and made.is_unique


def test_the_manifest_lists_the_tables(whole):
    out, manifest = whole
    made = {path.name for path in (out / "release" / "omop").iterdir()}
    listed = [name for name in manifest["outputs"] if name.startswith("release/omop/")]
    assert {name.rpartition("/")[2] for name in listed} == made and len(made) >= 6
    for name in listed:
        assert manifest["outputs"][name] == file_sha256(out / name)
    assert str(out) not in json.dumps(manifest["results"])
    for page in PAGES:
        assert (out / f"{page}.html").stat().st_size > 10_000


def test_the_run_says_what_was_checked(whole):
    _, manifest = whole
    lines = pipeline.summary(pipeline.Manifest.model_validate(manifest))
    words = " ".join(lines.split())
    assert re.search(r"OMOP tables in omop/: \d+ files; loaded again as \d+ visits of 150", words)
    assert re.search(r"\d+ rules of keys, dates and concepts checked, no row breaks one", words)
    assert "no key of the source comes again" in words


@pytest.mark.parametrize(
    "target, words",
    [
        ("nosuch", "to mend: .*: person_id, gender, race, .*visit_type, age_years, conditions"),
        ("condition:102", "'condition:102'; rule: what target names is a column"),
        ("conditions:999", "at least 11 patients have the code"),
        ("conditions", "sets of codes cannot be the target.*conditions:CODE"),
        ("person_id", "has the role (target|patient) too"),
        ("race", "one value only"),
    ],
)
def test_a_target_that_cannot_be(hospital, target, words, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("run", f"omop:{hospital}", "--target", target, "--out", out) == 2
    said = capsys.readouterr().err.splitlines()
    assert re.search(words, said[-1]) and not out.exists()


# several visits of a patient, and none that is known


@pytest.mark.parametrize("form", ["omop", "meds"])
@pytest.mark.parametrize("persons", [True, False])
def test_tables_of_visits_with_and_without_persons(hospital, form, persons, tmp_path):
    table = quietly(read_omop, hospital)
    where = f"omop:{hospital}"
    if form == "meds":
        quietly(write_meds, table, tmp_path / "source")
        where = f"meds:{tmp_path / 'source'}"
    synthetic = table.sample(frac=1, random_state=0)  # visits out of order, persons scattered
    if not persons:
        synthetic = synthetic.drop(columns="person_id")
    found = quietly(write_source_tables, synthetic, where, tmp_path / "out")
    assert (found.broken, found.shared_keys, found.visits) == ({}, 0, len(table))
    assert found.persons == (PERSONS if persons else len(table))
    again = quietly(read_source, f"{form}:{tmp_path / 'out'}")
    assert not set(again["person_id"]) & set(table["person_id"])
    check = check_omop if form == "omop" else check_meds
    assert set(check(tmp_path / "out").values()) == {0}

    def held(visits):
        """Who was when where with what, without keys."""
        return sorted(
            zip(visits["gender"], visits["year_of_birth"], visits["visit_start"],
                visits["visit_end"], visits["visit_type"], visits["drugs"], strict=True)
        )  # fmt: skip

    assert held(again) == held(table)
    if persons:

        def counts(visits):
            return sorted(visits["person_id"].value_counts())

        assert counts(again) == counts(table)
        assert again.groupby("person_id")["visit_start"].is_monotonic_increasing.all()


# other sources, as far as the tables that they hand over


@pytest.fixture
def steps(monkeypatch):
    """Runs that stop after the sample stage: what comes after is the same for all sources."""
    seen = {}

    def stop(train, holdout, synthetic, *args, **kwargs):
        seen["synthetic"] = synthetic
        raise pipeline.InputError("stopped here", rule="a test", fix="none")

    monkeypatch.setattr(pipeline, "evaluate", stop)
    return seen


def synthea(hospital, folder):
    """The same visits as a folder of Synthea."""
    table = quietly(read_omop, hospital)
    folder.mkdir()
    table["visit"] = [f"v{i}" for i in range(len(table))]
    people = table.drop_duplicates("person_id")
    born = people["year_of_birth"].astype(str) + "-01-01"
    people = people[["person_id", "gender", "race"]].set_axis(["Id", "GENDER", "RACE"], axis=1)
    people.assign(BIRTHDATE=born, SSN="999-12-3456").to_csv(folder / "patients.csv", index=False)
    names = ["visit", "visit_start", "visit_end", "person_id", "visit_type"]
    stays = table[names].set_axis(["Id", "START", "STOP", "PATIENT", "ENCOUNTERCLASS"], axis=1)
    stays.to_csv(folder / "encounters.csv", index=False)
    events = table[["visit_start", "person_id", "visit", "conditions"]].explode("conditions")
    events = events.set_axis(["START", "PATIENT", "ENCOUNTER", "CODE"], axis=1).dropna()
    events.to_csv(folder / "conditions.csv", index=False)


@pytest.mark.parametrize("kind", ["meds", "synthea", "duckdb", "sqlite", "omop-sqlite"])
def test_other_sources_get_as_far(kind, hospital, steps, tmp_path, capsys):
    flat = quietly(read_omop, hospital)[["person_id", "gender", "age_years", "visit_type"]]
    where, target, form = f"{kind}:{tmp_path / kind}", "gender", None
    if kind == "meds":
        quietly(write_meds, quietly(read_omop, hospital), tmp_path / kind)
        form = "meds"
    elif kind == "synthea":
        synthea(hospital, tmp_path / kind)
        target = "conditions:101"
    elif kind == "duckdb":
        with duckdb.connect(str(tmp_path / "h.duckdb")) as connection:
            connection.execute("create table visits as select * from flat")
        where = f"duckdb:///{tmp_path}/h.duckdb?table=visits"
    else:
        with sqlite3.connect(tmp_path / "h.db") as connection:
            flat.to_sql("visits", connection, index=False)
            for path in hospital.glob("*.csv"):
                pd.read_csv(path).to_sql(path.stem, connection, index=False)
        where = f"sqlite:///{tmp_path}/h.db?table=visits"
        if kind == "omop-sqlite":
            where, form = f"omop:sqlite:///{tmp_path}/h.db", "omop"
    words = ["run", where, "--target", target, *SHORT, "--rows", 60, "--out", tmp_path / "run"]
    words += ["--patient", "person_id"] if kind in ("duckdb", "sqlite") else []
    assert command(*words) == 2
    assert "stopped here" in capsys.readouterr().err.splitlines()[-1]
    drawn = steps["synthetic"]
    whole = "person_id" in drawn  # the source says when visits were
    assert (drawn["person_id"].nunique() if whole else len(drawn)) == 60 and target in drawn
    made = {path.name for path in (tmp_path / "run" / "private").iterdir() if path.is_dir()}
    assert made - {"model"} == ({form} if form else set())
    if form:
        again = quietly(read_source, f"{form}:{tmp_path / 'run' / 'private' / form}")
        assert len(again) == len(drawn)


# codes that look like numbers


@pytest.fixture(scope="module")
def diagnoses(tmp_path_factory):
    """A CSV file: `dx` looks like ICD-9-CM, `ward` and `proc` like whole numbers."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("csv") / "t.csv"
    table = pd.DataFrame({"sex": rng.choice(["F", "M"], 300), "age": rng.integers(20, 90, 300)})
    table["dx"] = rng.choice(["250.00", "250.0", "401.9", "428", "414.01"], 300)
    table["ward"], table["proc"] = rng.integers(1, 40, 300), rng.choice([38, 45, 9955], 300)
    table.to_csv(path, index=False)
    return path, table


def test_codes_stay_text_in_all_commands(diagnoses, tmp_path, capsys):
    path, table = diagnoses
    schema = tmp_path / "schema.json"
    words = ["detect", path, "--target", "sex", "--code", "dx", "--code", "proc", "--out", schema]
    assert command(*words) == 0
    said = capsys.readouterr()
    assert re.search(r"^dx +code +feature +said to hold codes", said.out, re.MULTILINE)
    assert re.search(r"^ward +numeric ", said.out, re.MULTILINE) and "kept as text" not in said.err
    assert command("split", path, "--schema", schema, "--out", tmp_path) == 0
    parts = [pd.read_parquet(tmp_path / f"{n}.parquet") for n in ("train", "holdout", "reference")]
    for name in ("dx", "proc"):
        held = sorted(pd.concat(parts)[name])
        assert held == sorted(table[name].astype(str))


def test_codes_by_their_form_are_noted(diagnoses, tmp_path, capsys):
    path, _ = diagnoses
    assert command("detect", path, "--target", "sex", "--out", tmp_path / "s.json") == 0
    said = capsys.readouterr()
    assert "'dx': looks like codes of three digits and up to two decimals; kept as text" in said.err
    assert re.search(r"^dx +categorical +feature", said.out, re.MULTILINE)
    assert re.search(r"^proc +(numeric|categorical) ", said.out, re.MULTILINE)


def test_codes_go_through_a_model(diagnoses, tmp_path):
    path, table = diagnoses
    schema, model, drawn = tmp_path / "s.json", tmp_path / "model", tmp_path / "drawn.csv"
    assert command("detect", path, "--code", "dx", "--out", schema) == 0
    assert command("fit", path, "--schema", schema, "--steps", 10, "--out", model) == 0
    assert command("sample", model, "--rows", 200, "--out", drawn) == 0
    found = read_source(drawn, codes=["dx"])["dx"]
    assert set(found) <= set(table["dx"]) and found.nunique() > 2
