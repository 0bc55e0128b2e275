"""Columns and schema: every rule for bad input, what holds for any table, real tables."""

import pickle
import warnings
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from synthmed_nb import datasets
from synthmed_nb.schema import DataNote, InputError, Schema

SECRET = "Zebra"  # each made-up cell of text holds it, so that a leak is seen
ROWS = 300


def patients(rows=ROWS, **more):
    """A made-up table with a column of each ordinary kind, and more columns as asked."""
    i = np.arange(rows)
    return pd.DataFrame(
        {
            "age_years": i % 71 + 20,
            "hba1c_pct": (i * 7 % 90) / 10 + 4,
            "sex": np.where(i % 2, f"{SECRET} f", f"{SECRET} m"),
            "diabetes": np.where(i % 5, f"{SECRET} no", f"{SECRET} yes"),
            **more,
        }
    )


def detect(frame, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        schema = Schema.detect(frame, **options)
    assert all(issubclass(w.category, DataNote) for w in caught)
    return schema, [str(w.message) for w in caught]


# bad input: one line that names column, rule and way out, and shows no cell

NUMBERED = [f"{SECRET} {i}" for i in range(10_000)]
DECLARED = pd.Categorical(NUMBERED[:2] * 150, NUMBERED)
REPEATED = patients(ROWS, sex2="a").set_axis(["age", "x", "sex", "diabetes", "age"], axis=1)
BAD = {
    "no table": (["a"], {}, "got list", None),
    "empty table": (patients(0), {}, "no row", None),
    "no columns": (pd.DataFrame(index=range(300)), {"target": "y"}, "not in the table", "y"),
    "nothing to learn": (pd.DataFrame(index=range(300)), {}, "no column to learn", None),
    "keys only": (patients()[[]].assign(id=range(ROWS)), {}, "no column to learn", None),
    "one row": (patients(1), {}, "one row", None),
    "one row, small": (patients(1), {"small": True}, "one row", None),
    "few rows": (patients(5), {}, "fewer than 11 rows", None),
    "199 rows": (patients(199), {}, "199 rows", None),
    "few patients": (patients(who=np.arange(ROWS) % 50), {"patient": "who"}, "50 patients", None),
    "name twice": (REPEATED, {}, "more than once", "age"),
    "empty name": (patients().rename(columns={"sex": ""}), {}, "number 3 is empty", None),
    "blank name": (patients().rename(columns={"sex": " "}), {}, "number 3 is empty", None),
    "no name": (patients().rename(columns={"sex": None}), {}, "number 3 is empty", None),
    "no such target": (patients(), {"target": "outcome"}, "not in the table", "outcome"),
    "no such patient": (patients(), {"patient": "mrn"}, "not in the table", "mrn"),
    "no such column to keep": (patients(), {"keep": ("notes",)}, "not in the table", "notes"),
    "constant target": (patients(y=SECRET), {"target": "y"}, "one value only", "y"),
    "empty target": (patients(y=np.nan), {"target": "y"}, "no value", "y"),
    "patient with gaps": (patients(who=np.nan), {"patient": "who"}, "gaps", "who"),
    "patient is target": (patients(), {"target": "sex", "patient": "sex"}, "target too", "sex"),
    "lists": (patients(codes=[[[SECRET]]] * ROWS), {}, "something else than codes", "codes"),
    "dicts": (patients(codes=[{"a": SECRET}] * ROWS), {}, "lists or other", "codes"),
    "arrays": (patients(codes=[np.ones(2) / 3] * ROWS), {}, "read as numbers", "codes"),
    "tuples": (patients(codes=[(SECRET, True)] * ROWS), {}, "something else", "codes"),
    "sets of codes as target": (
        patients(codes=[[SECRET], []] * (ROWS // 2)), {"target": "codes"}, "cannot be the", "codes"
    ),
    "complex": (patients(z=1j), {}, "complex128", "z"),
    "10,000 categories": (patients(20_000, ward=NUMBERED * 2), {}, "10,000 different", "ward"),
    "10,000 kept": (patients(10_000, x=NUMBERED), {"keep": ("x",)}, "10,000 different", "x"),
    "10,000 target": (patients(10_000, x=NUMBERED), {"target": "x"}, "10,000 different", "x"),
    "10,000 levels": (patients(x=DECLARED), {}, "10,000 different", "x"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_line(case):
    frame, options, found, column = BAD[case]
    with warnings.catch_warnings(), pytest.raises(InputError) as caught:
        warnings.simplefilter("ignore", DataNote)
        Schema.detect(frame, **options)
    error = caught.value
    assert found in str(error) and error.column == column
    assert column is None or f"column {column!r}" in str(error)
    assert "; rule: " in str(error) and "; to mend: " in str(error)
    assert "\n" not in str(error) and SECRET not in str(error)
    assert error.__cause__ is None


def test_an_error_survives_the_way_back_from_a_worker():
    error = InputError("gaps in", column="who", rule="r", fix="f")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.column == "who"


def test_a_small_table_is_allowed_when_asked():
    schema, _ = detect(patients(60), target="diabetes", small=True)
    assert schema.small and Schema.from_json(schema.to_json()).small


# good input that needs a word


def test_infinities_become_missing_and_are_counted():
    x = np.linspace(0.01, 1, ROWS)
    schema, notes = detect(patients(x=np.where(np.arange(ROWS) < 12, np.inf, x), y=x[::-1] / x[0]))
    assert notes == ["column 'x': 12 infinite values became missing"]
    assert schema.column("x").missing and not schema.column("y").missing
    frame = patients(x=np.where(np.arange(ROWS) < 3, -np.inf, x))
    schema, notes = detect(frame)
    assert notes == ["column 'x': fewer than 11 infinite values became missing"]
    with pytest.warns(DataNote, match="fewer than 11 infinite"):
        assert schema.check(frame)["x"].isna().sum() == 3
    assert np.isinf(frame["x"]).sum() == 3, "the table handed in must not change"


def test_text_and_identifiers_are_dropped_unless_kept():
    frame = patients(
        mrn=[f"{SECRET}{i}" for i in range(ROWS)],
        letter=[f"dear {SECRET} {i} it is late" for i in range(ROWS)],
    )
    schema, notes = detect(frame)
    assert schema.names("drop") == ["mrn", "letter"] and "--keep" in notes[0] + notes[1]
    assert not any(SECRET in text for text in notes)
    assert set(schema.split(frame)[0].columns) == set(schema.released)
    kept, notes = detect(frame, keep=["mrn", "letter"])
    assert {"mrn", "letter"} <= set(kept.categorical) and not notes


def test_names_stored_as_categories_are_still_names():
    frame = patients(last_name=pd.Categorical([f"{SECRET} {i % 9}" for i in range(ROWS)]))
    schema, notes = detect(frame)
    assert schema.names("drop") == ["last_name"] and SECRET not in notes[0]


def test_constant_and_empty_columns_are_kept_out_of_the_model():
    schema, notes = detect(patients(site=SECRET, tbg=np.nan, n=3))
    assert schema.released[-3:] == ["site", "tbg", "n"] and schema.modelled[-1] == "diabetes"
    assert schema.column("site").constant == SECRET and schema.column("n").constant == 3
    assert len(notes) == 3 and not any(SECRET in text for text in notes)


def test_a_constant_of_few_patients_is_not_kept():
    frame = patients(10, site=SECRET)
    schema, _ = detect(frame, small=True)
    assert schema.column("site").constant is None and SECRET not in schema.to_json()


def test_names_that_are_whole_numbers_become_text():
    frame = patients().set_axis(range(4), axis=1)
    schema, _ = detect(frame, target="3")
    assert schema.modelled == ["0", "1", "2", "3"]
    assert list(schema.split(frame)[1].columns) == ["0", "1", "2", "3"]


def test_dates_are_found_in_text_and_read_alike_from_any_file():
    days = pd.Series(pd.date_range("1990-01-01", periods=ROWS)).sample(frac=1, random_state=0)
    text = days.dt.strftime("%Y-%m-%d").tolist()
    for values, form in ((text, "%Y-%m-%d"), (days.tolist(), None)):
        schema, _ = detect(patients(day=values))
        assert (schema.column("day").kind, schema.column("day").date_format) == ("datetime", form)
        assert "day" in schema.numeric
        checked = [schema.check(patients(day=v))["day"] for v in (text, days.tolist())]
        assert (checked[0] == checked[1]).all()


def test_check_refuses_values_of_another_kind_without_showing_them():
    frame = patients(day=pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(ROWS), "D"))
    schema, _ = detect(frame)
    for column, values in (("age_years", SECRET), ("day", SECRET), ("day", 7)):
        with pytest.raises(InputError, match=f"column '{column}'") as caught:
            schema.check(frame.assign(**{column: values}))
        assert SECRET not in str(caught.value)


def test_check_brings_dtypes_of_another_file_in_line():
    frame = patients(flag=np.arange(ROWS) % 2, ward=pd.Categorical(["b", "a"] * 150, ["b", "a"]))
    schema, _ = detect(frame)
    other = frame.assign(flag=frame["flag"].astype(float), ward=frame["ward"].astype(str))
    pd.testing.assert_frame_equal(schema.check(other), schema.check(frame))
    gaps = schema.check(frame.assign(flag=frame["flag"].where(frame.index > 0)))
    assert str(gaps["flag"].dtype) == "Int64" and gaps["flag"].isna().sum() == 1


# what holds for any table

CELLS = {
    "whole": st.integers(-5, 5),
    "number": st.floats(-1e6, 1e6) | st.just(np.inf) | st.just(np.nan),
    "flag": st.booleans() | st.none(),
    "text": st.sampled_from([f"{SECRET} {i}" for i in range(5)]) | st.none(),
    "mixed": st.sampled_from([SECRET, 1, 2.5, None]),
    "day": st.dates(date(1900, 1, 1), date(2100, 1, 1)) | st.none(),
    "nothing": st.none(),
}


@st.composite
def tables(draw):
    """Made-up tables of 12 to 40 records of up to 12 patients, each column of one sort of cell."""
    rows = draw(st.integers(12, 40))
    kinds = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=5))
    data = {
        f"{kind} {i}": draw(st.lists(CELLS[kind], min_size=rows, max_size=rows))
        for i, kind in enumerate(kinds)
    }
    data["n"] = [i % 3 for i in range(rows)]
    data["who"] = draw(st.lists(st.integers(1, 12), min_size=rows, max_size=rows))
    return pd.DataFrame(data)


@given(tables())
def test_any_schema_is_the_same_after_json_and_tells_no_cell(frame):
    assume(frame["who"].nunique() > 1)
    schema, notes = detect(frame, patient="who", small=True)
    assert Schema.from_json(schema.to_json()) == schema
    assert not any(SECRET in text for text in notes)
    assert not any(SECRET in column.reason for column in schema.columns)
    assert set(schema.released) | {"who"} | set(schema.names("drop")) == set(frame.columns)
    assert sorted(schema.numeric + schema.categorical) == sorted(schema.modelled)


@given(tables())
def test_a_checked_table_is_checked(frame):
    assume(frame["who"].nunique() > 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataNote)
        schema = Schema.detect(frame, patient="who", small=True)
        checked = schema.check(frame)
    assert list(checked.columns) == [n for n in frame.columns if n not in schema.names("drop")]
    pd.testing.assert_frame_equal(schema.check(checked), checked)
    assert not np.isinf(checked.select_dtypes("float")).any().any()


@given(tables(), st.integers(0, 5))
def test_each_patient_is_in_one_part(frame, seed):
    assume(frame["who"].nunique() >= 5)
    frame["row"] = np.arange(len(frame)) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataNote)
        schema = Schema.detect(frame, patient="who", small=True)
        parts = schema.split(frame, seed=seed)
        halves = schema.split_holdout(frame, seed=seed)
    for pieces in (parts, halves):
        rows = pd.concat(pieces)["row"]
        assert sorted(rows) == frame["row"].tolist()
        owners = [set(piece["who"]) for piece in pieces]
        assert sum(map(len, owners)) == len(set.union(*owners)) and all(owners)
        assert all(piece["row"].is_monotonic_increasing for piece in pieces)


def test_shares_are_kept_and_the_seed_decides():
    schema, _ = detect(patients(1000), target="diabetes")
    parts = schema.split(patients(1000), seed=3)
    assert [len(part) for part in parts] == [600, 200, 200]
    again, other = schema.split(patients(1000), seed=3), schema.split(patients(1000), seed=4)
    assert parts[0].equals(again[0]) and not parts[0].equals(other[0])
    halves = schema.split(patients(1000), shares=(0.5, 0.25, 0.25))
    assert [len(part) for part in halves] == [500, 250, 250]


# real tables

FOUND = {  # dropped, constant, empty
    "diabetes130": (["encounter_id"], ["examide", "citoglipton"], []),
    "nhanes_2017_2018": (["SEQN"], [], []),
    "brfss2015_diabetes": ([], [], []),
    "covid_testing": (["fake_first_name", "fake_last_name"], [], []),
    "heart_disease_uci": ([], [], []),
    "thyroid": ([], ["TBG measured"], ["TBG"]),
    "default_credit": ([], [], []),
    "shoppers": ([], [], []),
    "magic": ([], [], []),
    "beijing_pm25": (["No"], [], []),
    "adult": ([], [], []),
}
CODES = ["admission_type_id", "discharge_disposition_id", "admission_source_id"]
CATEGORICAL = {  # columns that are easily taken for numbers or keys
    "diabetes130": [*CODES, "diag_1", "diag_2", "diag_3", "A1Cresult", "readmitted"],
    "covid_testing": ["test_id", "clinic_name", "drive_thru_ind", "result"],
    "brfss2015_diabetes": ["Sex", "Diabetes_binary"],
    "heart_disease_uci": ["site", "sex", "num"],
    "thyroid": ["TSH measured", "referral source", "hypothyroid_class"],
    "adult": ["native-country", "income"],
}
NUMERIC = {
    "diabetes130": ["time_in_hospital", "num_medications", "number_inpatient"],
    "covid_testing": ["age", "pan_day", "ct_result"],
    "brfss2015_diabetes": ["BMI", "MentHlth"],
    "adult": ["age", "fnlwgt", "capital-gain"],
    "beijing_pm25": ["pm2.5", "hour", "Iws"],
    "default_credit": ["LIMIT_BAL", "BILL_AMT1"],
    "thyroid": ["TSH", "FTI"],
}


@pytest.mark.parametrize("name", FOUND)
def test_detection_is_right_on_a_public_table(name):
    try:
        frame = datasets.load(name)
    except InputError as error:
        pytest.skip(str(error))
    public = datasets.PUBLIC[name]
    schema, _ = detect(frame, target=public.target, patient=public.patient)
    assert tuple(schema.names(role) for role in ("drop", "constant", "empty")) == FOUND[name]
    assert set(CATEGORICAL.get(name, [])) <= set(schema.categorical)
    assert set(NUMERIC.get(name, [])) <= set(schema.numeric)
    train, holdout, reference = schema.split(frame, seed=0)
    assert len(train) + len(holdout) + len(reference) == len(frame)
    if public.patient:
        assert not set(train[public.patient]) & set(holdout[public.patient])
