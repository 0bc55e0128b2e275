"""Personal columns are found and nothing else is; what is made up in their place is not real."""

import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthmed_nb import Schema, Synthesizer, cli, evaluate, pipeline
from synthmed_nb.croissant import handed_out
from synthmed_nb.fakes import Fakes, add_fakes
from synthmed_nb.identifiers import scan_identifiers
from synthmed_nb.pipeline import Options, run
from synthmed_nb.schema import InputError
from synthmed_nb.tables import fingerprint, read_table

DATA = Path(os.environ.get("SYNTHMED_DATA", "no such folder"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="SYNTHMED_DATA is not set")


def detect(frame, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Schema.detect(frame, **options)


def hospital(rows=400, seed=0, visits=2):
    """Real patients with several rows each and every kind of identifier."""
    rng = np.random.default_rng(seed)
    who = np.arange(rows) // visits
    first = rng.choice(["Ann", "Bela", "Mary", "James", "Chloé"], rows)[who]
    last = rng.choice(["Smith", "Jones", "O'Neil", "Garcia-Lopez"], rows)[who]
    n = rng.permutation(90_000)[:rows][who] + 10_000
    return pd.DataFrame(
        {
            "patient_id": who + 1,
            "visit_id": np.arange(rows) + 5_000,
            "first_name": first,
            "last_name": last,
            "patient_name": [f"{b}, {a}" for a, b in zip(first, last, strict=True)],
            "sex": rng.choice(["F", "M"], rows)[who],
            "home_address": pd.Categorical([f"{v} Long Street" for v in n]),
            "zip": (n % 400) + 10_000,
            "phone": [f"(212) 5{v:05}"[:9] + f"-{v % 10_000:04}" for v in n],
            "e_mail": [f"{a}{v}@mail.org".lower() for a, v in zip(first, n, strict=True)],
            "ssn": [f"123-45-{v % 10_000:04}" for v in n],
            "mrn": [f"h{v:06}" if v % 3 else None for v in n],
            "letter": [f"dear colleague number {v} hello" for v in n],
            "age_years": rng.integers(18, 90, rows)[who] + 0.5,
            "sick": rng.choice(["no", "yes"], rows),
        }
    )


@pytest.fixture(scope="module")
def real():
    return hospital()


@pytest.fixture(scope="module")
def schema(real):
    return detect(real, target="sick", patient="patient_id")


@pytest.fixture(scope="module")
def synthetic(real, schema):
    return real[schema.released].sample(300, random_state=1, ignore_index=True)


# detection


def test_each_identifier_of_a_hospital_is_seen(schema):
    seen = {column.name: column.personal for column in schema.columns if column.personal}
    assert seen == {
        "patient_id": "record number", "visit_id": "record number", "first_name": "first name",
        "last_name": "last name", "patient_name": "full name", "home_address": "street address",
        "zip": "postal code", "phone": "phone number", "e_mail": "e-mail address",
        "ssn": "social security number", "mrn": "record number", "letter": "free text",
    }  # fmt: skip
    assert schema.released == ["sex", "age_years", "sick"]
    assert Schema.from_json(schema.to_json()) == schema


def test_a_kept_column_says_what_it_holds(real):
    column = detect(real, keep=["zip"]).column("zip")
    assert (column.role, column.personal) == ("feature", "postal code")
    assert column.reason == "postal code, by its name; kept as asked"


DETECTED = {
    "covid_testing/covid_testing.csv.gz": {"subject_id", "fake_first_name", "fake_last_name"},
    "default_credit/default.csv.gz": set(),
    "diabetes130/diabetic_data.csv.gz": {"encounter_id", "patient_nbr"},
    "gibleed_omop/person.parquet": {"person_id", "person_source_value"},
    "gibleed_omop/condition_occurrence.parquet": {
        "condition_occurrence_id", "person_id", "visit_occurrence_id",
    },
    "heart_disease_uci/heart_disease.csv.gz": set(),
    "magic/magic04.csv.gz": set(),
    "mimic3_demo/ADMISSIONS.csv.gz": {"row_id", "subject_id", "hadm_id"},
    "mimic3_demo/DIAGNOSES_ICD.csv.gz": {"row_id", "subject_id"},
    "mimic3_demo/PATIENTS.csv.gz": {"row_id", "subject_id"},
    "nhanes_2017_2018/nhanes_2017_2018.csv.gz": {"SEQN"},
    "shoppers/online_shoppers_intention.csv.gz": set(),
    "synthea_csv_27/patients.csv.gz": {
        "Id", "SSN", "DRIVERS", "PASSPORT", "FIRST", "LAST", "MAIDEN", "ADDRESS", "ZIP",
    },
    "synthea_csv_27/devices.csv.gz": {"PATIENT", "ENCOUNTER", "UDI"},
    "thyroid/hypothyroid.csv.gz": set(),
}  # fmt: skip


@needs_data
@pytest.mark.parametrize("name", DETECTED)
def test_identifiers_of_known_tables_and_nothing_else(name):
    schema = detect(read_table(DATA / name), small=True)
    assert {column.name for column in schema.columns if column.personal} == DETECTED[name]
    assert set(schema.names("drop")) == DETECTED[name]


@given(st.integers(10**8, 9 * 10**8), st.sampled_from([1, 7, 137, 1000]), st.integers(60, 300))
def test_counts_are_no_numbers_with_a_check_digit(start, step, rows):
    """One number in ten passes by chance; a column of them is none."""
    rng = np.random.default_rng(rows)
    count = pd.Series((start + step * rng.integers(0, 50, rows)).astype(str), name="x")
    schema = detect(pd.DataFrame({"x": count, "y": rng.normal(size=rows)}), small=True)
    assert schema.column("x").personal is None


# what is made up


def plain(cell):
    return "".join(sign for sign in str(cell).casefold() if sign.isalnum())


def test_nothing_made_up_is_real(real, synthetic, schema):
    table, proof = add_fakes(synthetic, real, schema, seed=1)
    assert list(table) == [name for name in real if name != "letter"]
    assert proof.left_out == ("letter",) and len(proof.groups) == 6
    for name in ("visit_id", "patient_name", "home_address", "phone", "e_mail", "ssn", "mrn"):
        assert not {plain(c) for c in table[name].dropna()} & {
            plain(c) for c in real[name].dropna()
        }
    numbers = [{plain(c) for n in ("patient_id", "visit_id") for c in t[n]} for t in (table, real)]
    assert not numbers[0] & numbers[1]
    pairs = [
        {tuple(row) for row in t[["first_name", "last_name"]].to_numpy()} for t in (table, real)
    ]
    assert not pairs[0] & pairs[1]
    for group in proof.groups:
        assert group.overlap == 0 and group.made > 100 and group.real >= 20, group.columns


def test_dtypes_looks_and_gaps_are_those_of_the_real_columns(real, synthetic, schema):
    table, _ = add_fakes(synthetic, real, schema, seed=1)
    for name in ("patient_id", "visit_id", "zip", "first_name", "phone", "e_mail", "mrn"):
        assert table[name].dtype == real[name].dtype, name
    assert table["home_address"].dtype == real["home_address"].cat.categories.dtype
    assert table[synthetic.columns].equals(synthetic)
    assert table["mrn"].str.fullmatch(r"h\d{6,}").sum() == table["mrn"].notna().sum()
    assert table["mrn"].isna().mean() == pytest.approx(real["mrn"].isna().mean(), abs=0.1)
    assert table["phone"].str.fullmatch(r"\([2-9]\d\d\) \d{3}-\d{4,}").all()
    assert table["e_mail"].str.fullmatch(r"[a-z]+\.[a-z]+\d*@example\.org").all()
    assert table["patient_name"].str.contains(", ").all()
    assert table[["patient_id", "visit_id", "e_mail", "ssn"]].apply(lambda c: c.is_unique).all()


def test_a_row_is_about_one_person(real, synthetic, schema):
    table, _ = add_fakes(synthetic, real, schema, seed=1)
    for row in table.itertuples():
        assert row.patient_name == f"{row.last_name}, {row.first_name}"
        assert row.e_mail.startswith(f"{plain(row.first_name)}.{plain(row.last_name)}")
    sexes = table.groupby("first_name")["sex"].nunique()
    assert (sexes == 1).mean() > 0.8  # a few given names are of both


def test_rows_of_a_patient_are_about_one_person(real, synthetic, schema):
    several = synthetic.assign(patient_id=np.arange(len(synthetic)) // 3)
    table, proof = add_fakes(several, real, schema, seed=1)
    assert table["patient_id"].equals(several["patient_id"]) and "patient_id" not in proof.columns
    held = table.groupby("patient_id")[["first_name", "last_name", "ssn", "home_address", "zip"]]
    assert (held.nunique() == 1).all().all()
    assert table["visit_id"].is_unique  # as in the real table, it differs between visits


def test_equal_seeds_give_equal_tables(real, synthetic, schema):
    one, other, third = (add_fakes(synthetic, real, schema, seed=s)[0] for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one, other)
    assert not one["ssn"].equals(third["ssn"])


def test_the_proof_and_the_reasons_hold_no_value(real, synthetic, schema):
    table, proof = add_fakes(synthetic, real, schema, seed=1)
    told = proof.to_json() + proof.sentence() + schema.to_json()
    for frame in (real, table):
        for name in ("first_name", "last_name", "phone", "ssn", "home_address", "mrn"):
            assert not [cell for cell in frame[name].dropna().unique() if str(cell) in told]
    assert Fakes.from_json(proof.to_json()) == proof


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(["Mary", "Ann", "Wei"]), min_size=60, max_size=60),
    st.integers(1, 9_940), st.integers(0, 3),
)  # fmt: skip
def test_overlap_is_zero_however_crowded_the_numbers(names, start, seed):
    """Real numbers in a row take most of their length: made-up ones get more digits."""
    real = pd.DataFrame({"id": range(start, start + 60), "first_name": names})
    real["value"] = np.linspace(0.5, 9.5, 60).round(2)
    schema = detect(real, small=True)
    made, proof = add_fakes(real[["value"]], real, schema, seed)
    assert not set(made["id"]) & set(real["id"]) and made["id"].is_unique
    assert not set(made.get("first_name", [])) & set(names)  # alone, no cell may be real
    assert {group.overlap for group in proof.groups} == {0}


def test_all_names_that_faker_has_are_real():
    """Then names are grown together, and there is an end to it."""
    from faker.providers.person.en_US import Provider

    first, last = sorted(Provider.first_names), sorted(Provider.last_names)
    real = pd.DataFrame(
        {"last_name": [*last, *first], "value": np.linspace(0, 9, len(first + last))}
    )
    made, proof = add_fakes(real[["value"]].head(20), real, detect(real), seed=0)
    assert not set(made["last_name"]) & {*first, *last} and proof.groups[0].overlap == 0


def test_the_scan_of_the_audit_takes_made_up_numbers_for_what_they_are(real, synthetic, schema):
    """Columns that the schema withholds are never "found" in what is released."""
    table, _ = add_fakes(synthetic, real, schema, seed=1)
    states = {c.letter: c.state for c in scan_identifiers(table, schema)}
    assert {states[letter] for letter in "ADFG"} == {"not released"}


def test_faker_is_asked_for_before_work_starts(real, schema, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "faker", None)
    with pytest.raises(InputError, match=r"pip install 'synthmed_nb\[fake\]'"):
        run(real, schema, tmp_path / "run", Options(steps=2, fake=True))
    assert not (tmp_path / "run").exists()


# whole runs


@needs_data
def test_covid_testing_from_end_to_end(tmp_path, capsys, monkeypatch):
    def page(name, path, **_):  # the pages are not what is asked about
        path.write_text(name)

    monkeypatch.setattr(pipeline, "report", page)
    source = tmp_path / "tests.csv"
    real = read_table(DATA / "covid_testing" / "covid_testing.csv.gz")
    real = real[real["result"] != "invalid"].head(1_500)
    real.drop(columns=["pan_day"], errors="ignore").to_csv(source, index=False)
    words = f"run {source} --target result --patient subject_id --steps 5 --rows 300 --fake --out"
    assert cli.main([*words.split(), f"{tmp_path}/run", "--override", "a test"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Made up: fake_first_name, fake_last_name, subject_id." in out
    folder = tmp_path / "run" / "release"
    table = read_table(folder / "synthetic.parquet")
    assert list(table)[:3] == ["subject_id", "fake_first_name", "fake_last_name"]
    assert not set(table["subject_id"]) & set(real["subject_id"])
    name = ["fake_first_name", "fake_last_name"]
    pairs = [set(map(tuple, t[name].to_numpy())) for t in (table, real)]
    assert not pairs[0] & pairs[1]
    told = json.loads((tmp_path / "run" / "manifest.json").read_text())["results"]["fakes"]
    assert Fakes.model_validate(told) == Fakes.load(tmp_path / "run" / "private" / "fakes.json")
    private = tmp_path / "run" / "private"
    schema = Schema.load(private / "schema.json")
    audited = json.loads((private / "audit.json").read_text())["fingerprint"]
    assert audited == fingerprint(schema.check(table)[schema.released])
    assert "made-up first name" in (folder / "README.md").read_text()
    fields = json.loads((folder / "croissant.json").read_text())["recordSet"][0]["field"]
    assert [field["name"] for field in fields] == list(table)

    sample = f"sample {tmp_path}/run/private/model --rows 40 --fake --out {tmp_path}/more.csv"
    assert cli.main(sample.split()) == 2
    assert "--fake without --real" in capsys.readouterr().err
    assert cli.main([*sample.split(), "--real", str(source)]) == 0
    more = read_table(tmp_path / "more.csv")
    assert len(more) == 40 and not set(more["subject_id"]) & set(real["subject_id"])


def test_evaluation_and_model_leave_made_up_columns_aside(real, synthetic, schema):
    """They look at the columns that were learned."""
    table, _ = add_fakes(synthetic, real, schema, seed=1)
    assert schema.check(table)[schema.released].equals(schema.check(synthetic))
    train, holdout, _ = schema.split(real, seed=0)
    plain, told = (evaluate(train, holdout, t, schema, seed=0) for t in (synthetic, table))
    assert plain.fidelity.score == told.fidelity.score and plain.utility == told.utility
    model = Synthesizer(schema, steps=2, seed=0).fit(table, minutes=1)
    assert list(model.sample(5, seed=0)) == schema.released


def test_cards_say_which_columns_are_made_up(real, synthetic, schema):
    _, proof = add_fakes(synthetic, real, schema, seed=1)
    manifest = {"results": {"fakes": proof.model_dump(mode="json")}}
    handed = [column.name for column in handed_out(manifest, schema)]
    assert handed == list(real.columns.drop("letter"))
    assert [column.name for column in handed_out({}, schema)] == schema.released
