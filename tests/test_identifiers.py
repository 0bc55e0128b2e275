"""The Safe Harbor scan: each class is found where it was planted, and nowhere else."""

import os
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthmed_nb import Schema, datasets
from synthmed_nb.forms import VIN_VALUES, VIN_WEIGHTS
from synthmed_nb.identifiers import RULE, scan_identifiers
from synthmed_nb.schema import InputError

ROWS = 400


def quiet_schema(frame, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Schema.detect(frame, **options)


def laboratory(rows=ROWS, seed=0):
    """A table of a laboratory that holds no identifier."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "sex": rng.choice(["F", "M"], rows),
            "age_years": rng.integers(0, 90, rows),
            "year": rng.integers(2009, 2024, rows),
            "sodium": rng.normal(140, 3, rows).round(1),
            "creatinine": rng.lognormal(0, 0.4, rows),
            "platelets": rng.integers(150, 400, rows) * 1000,
            "viral_load": (10 ** rng.uniform(1, 9.9, 50)).astype(int)[rng.integers(0, 50, rows)],
            "icd": rng.choice(["E11.9", "I10", "J45.901", "C50.911", "Z79.4"], rows),
            "loinc": rng.choice(["2345-7", "718-7", "8302-2", "72514-3"], rows),
            "ndc": rng.choice(["0002-8215-01", "50090-0456-0", "0093-1048-01"], rows),
            "snomed": rng.choice([111088007, 84489001, 195662009, 232353008], rows),
            "concept_id": rng.choice([4093991, 40481087, 257012], rows),
            "cpt": rng.choice(["00100", "99213", "81002"], rows),
            "diagnosis": rng.choice(["Heart Failure", "Head Injury", "Type 2 Diabetes"], rows),
            "blood_pressure": [f"{a}/{b}" for a, b in rng.integers(6, 18, (rows, 2)) * 10],
            "range": rng.choice(["10-20", "20-30", "[70-80)"], rows),
            "time": [f"{h:02}:{m:02}" for h, m in rng.integers(0, 24, (rows, 2))],
            "region": rng.choice(["Northeast", "South", "West"], rows),
            "phone_interview": rng.choice(["yes", "no"], rows),
            "plan": rng.choice(["Dual Eligible", "Medicare", "none"], rows),
            "lat_view": rng.choice(["left", "right"], rows),
        }
    )


def with_check(payload, check, signs="0123456789"):
    """The payload with the one of the signs for "#" that passes the check."""
    return next(t for t in (payload.replace("#", sign) for sign in signs) if check(t))


def slow_luhn(text):
    odd = [int(c) for c in text[-1::-2]]
    even = [int(c) * 2 for c in text[-2::-2]]
    return (sum(odd) + sum(d - 9 if d > 9 else d for d in even)) % 10 == 0


def slow_npi(text):
    return slow_luhn("80840" + text)


def slow_iban(text):
    letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return int("".join(str(letters.index(c)) for c in text[4:] + text[:4])) % 97 == 1


def slow_vin(text):
    total = sum(w * int(VIN_VALUES.get(c, c)) for w, c in zip(VIN_WEIGHTS, text, strict=True))
    return text[8] == ("X" if total % 11 == 10 else str(total % 11))


TWO_DIGITS = [f"{i:02}" for i in range(98)]
FIRST = ["Ann", "Bela", "Chloé", "Dmitri", "Eve", "Farid", "Grace", "Hugo", "Ines", "Jo"]
LAST = ["Ito", "Kim", "Lee", "Martínez", "Novak", "O'Neil", "McCoy", "Park", "Quinn", "Roth"]


def planted():
    """Per class columns that hold it: name, values, whether it is sure; "x" says nothing."""
    rng = np.random.default_rng(1)
    n = rng.permutation(100_000)[:ROWS] + 100_000
    digits = [f"{v:06}" for v in n]
    first, last = rng.choice(FIRST, ROWS), rng.choice(LAST, ROWS)
    days = pd.Timestamp("2019-03-04") + pd.to_timedelta(rng.integers(0, 900, ROWS), "D")
    yield "A", "x", [f"{f}{i} {s}" for i, (f, s) in enumerate(zip(first, last, strict=True))], False
    yield "A", "surname", last, True
    yield "A", "FIRST", first, True
    yield "B", "ZIP", [f"{v % 90_000 + 10_000}" for v in n], True
    yield "B", "zip_code", n % 90_000 + 1_000, True
    yield "B", "zip3", rng.choice(["036", "021"], ROWS), True
    yield "B", "x", [f"{d[:5]}-{d[:4]}" for d in digits], True
    yield "B", "x", [f"{d} Long {s} Avenue" for d, s in zip(digits, last, strict=True)], False
    yield "B", "county", rng.choice(["Essex", "Suffolk"], ROWS), True
    yield "B", "latitude", rng.uniform(41, 43, ROWS), True
    yield "C", "x", days, True
    yield "C", "x", days.tz_localize("UTC"), True
    for form in (
        *("%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%m/%d/%Y %H:%M", "%d-%b-%Y", "%d.%m.%Y"),
        *("%B %d, %Y", "%b %Y", "%Y%m%d", "%Y/%m", "%m/%d/%y", "%d-%b-%y"),
    ):
        yield "C", "x", days.strftime(form).tolist(), True
    yield "C", "x", days.strftime("%Y%m%d").astype(int), True
    yield "C", "age", rng.integers(50, 99, ROWS), True
    yield "C", "age_group", rng.choice(["80-84", "85-89", "90-94", "95+"], ROWS), True
    yield "C", "year_of_birth", rng.integers(1905, 2015, ROWS), True
    yield "C", "discharge_month", rng.integers(1, 13, ROWS), False
    yield "D", "x", [f"(212) 5{d[:2]}-{d[2:]}" for d in digits], True
    yield "D", "x", [f"+44 20 7{d[:3]} {d[2:]}" for d in digits], True
    yield "D", "x", [int(f"2125{d}") for d in digits], False
    yield "D", "home_phone", [float(f"2125{d}") for d in digits], True
    yield "E", "fax", [f"212-555-{d[2:]}" for d in digits], True
    yield "F", "x", [f"p{d}@example.org" for d in digits], True
    yield "G", "x", [f"1{d[-2:]}-4{d[-3]}-{d[2:5]}1" for d in digits], True
    yield "G", "x", [f"9{d[1:3]}-45-{d[2:]}" for d in digits], False
    yield "G", "x", [int(f"223{d}") for d in digits], False
    yield "G", "ssn", [int(f"223{d}") for d in digits], True
    yield "H", "mrn", n, True
    yield "H", "PatientID", [f"P{d}" for d in digits], True
    yield "I", "member_id", digits, True
    yield "I", "x", [f"1EG4-TE5-MK{d[4:]}" for d in digits], True
    yield "J", "account_no", digits, True
    yield "J", "x", [with_check(f"411111{d}111#", slow_luhn) for d in digits], True
    bank = [f"370400440532{d}00" for d in digits]
    yield "J", "x", [with_check(f"DE#{b}", slow_iban, TWO_DIGITS) for b in bank], True
    yield "K", "drivers_license", [f"S{d}" for d in digits], True
    yield "K", "x", [int(with_check(f"12{d}0#", slow_npi)) for d in digits], True
    yield "L", "license_plate", [f"ABC {d[2:]}" for d in digits], True
    cars = [f"1M8GDM9A#KP{d}" for d in digits]
    yield "L", "x", [with_check(car, slow_vin, "0123456789X") for car in cars], True
    yield "M", "device_serial_number", [f"SN{d}" for d in digits], True
    yield "M", "x", [f"00:1A:{d[:2]}:{d[2:4]}:{d[4:]}:FF" for d in digits], True
    yield "M", "x", [f"(01)00614141999996(21){d}" for d in digits], True
    yield "M", "x", [with_check(f"35209900{d}#", slow_luhn) for d in digits], True
    yield "N", "x", [f"https://example.org/{d}" for d in digits], True
    yield "O", "x", [f"10.{int(d[:2])}.{int(d[2:4])}.{int(d[4:])}" for d in digits], True
    yield "O", "x", [f"2001:db8::{d[2:]}" for d in digits], True
    yield "P", "finger_print", [f"print{d}" for d in digits], True
    yield "P", "x", [f"voice{d}.wav" for d in digits], False
    yield "Q", "photo", [f"{d}.raw" for d in digits], True
    yield "Q", "x", [f"face{d}.jpg" for d in digits], False
    yield "R", "visit_id", n, True
    yield "R", "x", [f"3edac2e3-d223-6fae-d515-daf96e{d}" for d in digits], True
    yield "R", "x", [f"{v:064x}" for v in n], True
    yield "R", "x", n, False
    yield "R", "x", [f"q{d}w" for d in digits], False


UNAWARE = quiet_schema(laboratory())  # a column that it does not know counts as released
PLANTED = [(c, name, pd.Series(values, name=name), sure) for c, name, values, sure in planted()]


def result_of(frame, schema):
    return {found.letter: found for found in scan_identifiers(frame, schema)}


def test_every_class_is_planted_below():
    assert {letter for letter, *_ in PLANTED} == set(RULE)


@pytest.mark.parametrize(
    "letter, name, column, sure", PLANTED, ids=[f"{p[0]}-{p[1]}-{i}" for i, p in enumerate(PLANTED)]
)
def test_a_planted_class_is_found_and_no_other(letter, name, column, sure):
    """Also with gaps, also where the file stored it as categories; nothing of a cell is told."""
    forms = [column, column.mask(np.arange(ROWS) % 3 == 0)]
    if not str(column.dtype).startswith("datetime"):
        forms.append(column.astype("category"))
    for cells in forms:
        found = result_of(laboratory()[["sex", "sodium"]].assign(**{name: cells}), UNAWARE)
        got = {c: f for c, f in found.items() if f.columns}
        assert set(got) == {letter}
        assert got[letter].state == ("found" if sure else "suspected")
        assert [column.column for column in got[letter].columns] == [name]
        assert name != "x" or got[letter].columns[0].how == "by its values"
        text = got[letter].model_dump_json()
        long = {str(value) for value in column if len(str(value)) > 4}
        assert not any(value in text for value in long)


def test_a_laboratory_holds_none():
    for seed in range(5):
        frame = laboratory(seed=seed)
        for found in scan_identifiers(frame, quiet_schema(frame)):
            assert not found.columns, found
            unseen = found.letter in "PQ"
            assert found.state == ("not visible in a table" if unseen else "clear")


def test_the_embedded_table_holds_none_but_the_key_that_is_not_released():
    patients = datasets.load_nhanes()
    schema = quiet_schema(patients, target="diabetes")
    found = result_of(patients, schema)
    columns = [column.column for f in found.values() for column in f.columns]
    assert columns == ["respondent_id"] and found["H"].state == "not released"
    released = result_of(patients[schema.released], schema)
    assert not any(f.columns for f in released.values())


def test_what_the_schema_drops_is_not_released():
    frame = laboratory().assign(
        patient_id=np.arange(ROWS) // 2,
        email=[f"p{i}@example.org" for i in range(ROWS)],
        surname=["Ito", "Kim", "Lee", "Park"] * (ROWS // 4),
    )
    found = result_of(frame, quiet_schema(frame, patient="patient_id"))
    for letter in "AFH":
        assert found[letter].state == "not released"
        assert not any(column.released for column in found[letter].columns)
    kept = quiet_schema(frame, patient="patient_id", keep=["surname"])
    assert result_of(frame, kept)["A"].state == "found"
    assert result_of(frame[kept.released], kept)["F"].state == "clear"


def test_one_note_with_a_number_in_it_is_suspected():
    notes = [f"seen for the {i}th time, doing well" for i in range(ROWS)]
    assert result_of(laboratory().assign(note=notes), UNAWARE)["R"].state == "suspected"
    for letter, text in {
        "C": "back on May 3, 2021",
        "D": "call her at 212-555-0100",
        "F": "write to ann@example.org",
        "G": "number 123-45-6789 given",
        "H": "see MRN: 0012345",
        "N": "look at https://example.org/ann",
    }.items():
        found = result_of(laboratory().assign(note=[*notes[:-1], text]), UNAWARE)
        assert {c for c, f in found.items() if f.columns} == {letter}
        assert found[letter].state == "suspected"


def test_order_of_rows_and_columns_does_not_matter():
    frame = laboratory().assign(**{f"x{i}": p[2].to_numpy() for i, p in enumerate(PLANTED)})
    first = scan_identifiers(frame, UNAWARE)
    again = scan_identifiers(frame.sample(frac=1, random_state=0), UNAWARE)
    assert first == again
    turned = scan_identifiers(frame[frame.columns[::-1]], UNAWARE)
    assert [f.state for f in first] == [f.state for f in turned]
    assert [set(f.columns) for f in first] == [set(f.columns) for f in turned]


cells = st.one_of(
    st.none(), st.text(max_size=30), st.integers(), st.floats(), st.booleans(), st.datetimes()
)
names = st.one_of(
    st.text(min_size=1, max_size=20).filter(str.strip),
    st.sampled_from(["age", "zip", "ssn", "lat", "visit_date", "birth_year", "phone", "mrn"]),
)


@settings(max_examples=200)
@given(names, st.lists(cells, min_size=1, max_size=30), st.integers(1, 5))
def test_any_table_can_be_scanned(name, values, times):
    frame = pd.DataFrame({name: pd.Series(values * times, dtype=object)})
    try:
        found = scan_identifiers(frame, UNAWARE)
    except InputError as error:
        assert error.column == name  # too large to compute with
        return
    assert [f.letter for f in found] == list(RULE)


secrets = st.lists(
    st.from_regex(r"[0-9]{3}-[0-9]{4}[q-z]{4}", fullmatch=True), min_size=60, max_size=60
)


@settings(max_examples=50)
@given(secrets, st.sampled_from([p for p in PLANTED if p[1] != "x"]))
def test_no_value_of_a_column_is_told(secret, plant):
    frame = pd.DataFrame({plant[1]: secret, "note": [f"this is what {s} said" for s in secret]})
    text = "".join(f.model_dump_json() for f in scan_identifiers(frame, UNAWARE))
    assert not any(s in text or s[:8] in text or s[4:] in text for s in secret)
    assert not any(f"{share:.3f}" in text for share in (1 / 60, 1 / 30))


def test_bad_tables_are_refused():
    with pytest.raises(InputError, match="no rows"):
        scan_identifiers(laboratory().head(0), UNAWARE)
    with pytest.raises(InputError, match="'c'"):
        scan_identifiers(pd.DataFrame({"c": [[1], [2]]}), UNAWARE)


def test_a_large_table_takes_seconds():
    rng = np.random.default_rng(0)
    rows = 100_000
    number = rng.permutation(rows)
    texts = [f"stay number {v} was short and quiet" for v in number]
    frame = pd.DataFrame({f"f{i}": rng.normal(size=rows) for i in range(6)})
    frame["key"] = number
    frame["note"] = texts
    frame["phone"] = [f"212-555-{v % 10_000:04}" for v in number]
    frame["code"] = [f"c{v}" for v in number]
    start = time.perf_counter()
    found = result_of(frame, UNAWARE)
    assert time.perf_counter() - start < 30
    assert found["D"].state == "found" and found["R"].state == "found"


DATA = Path(os.environ.get("SYNTHMED_DATA", "/nowhere"))


@pytest.mark.skipif(not DATA.is_dir(), reason="the benchmark tables are not here")
def test_made_up_people_are_found_in_shared_tables():
    people = pd.read_csv(DATA / "synthea_csv_27" / "patients.csv.gz")
    found = result_of(people, UNAWARE)
    named = {c: {column.column for column in f.columns} for c, f in found.items()}
    assert {"FIRST", "LAST", "MAIDEN"} <= named["A"]
    assert {"ADDRESS", "CITY", "COUNTY", "ZIP", "LAT", "LON", "BIRTHPLACE"} <= named["B"]
    assert {"BIRTHDATE", "DEATHDATE"} <= named["C"] and "SSN" in named["G"]
    harmless = {"RACE", "ETHNICITY", "GENDER", "MARITAL", "STATE", "HEALTHCARE_EXPENSES"}
    assert not harmless & set().union(*named.values())
    tests = pd.read_csv(DATA / "covid_testing" / "covid_testing.csv.gz")
    found = result_of(tests, quiet_schema(tests, patient="subject_id"))
    assert [column.column for column in found["A"].columns] == [
        "fake_first_name", "fake_last_name"
    ]  # fmt: skip
    assert found["A"].state == found["H"].state == "not released"
