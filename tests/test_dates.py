"""Dates come back as they were, their order holds, and what cannot be known is said."""

import os
import warnings
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from synthmed_nb.cells import numbers
from synthmed_nb.columns import DataNote
from synthmed_nb.encoder import decode, encode, fit_encoder
from synthmed_nb.neighbors import numbers_of
from synthmed_nb.schema import InputError, Schema
from synthmed_nb.shifts import shift_dates
from synthmed_nb.synthesizer import Synthesizer

DATA = Path(os.environ.get("SYNTHMED_DATA", Path(__file__).parents[2] / "shared" / "data"))
ROWS = 240


def quietly(call, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataNote)
        return call(*args, **kwargs)


def notes_of(call, *args, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*args, **kwargs)
    return [str(w.message) for w in caught if issubclass(w.category, DataNote)]


def detect(frame, **kwargs):
    return quietly(Schema.detect, frame, small=True, **kwargs)


# what is read comes back

FORMS = {
    "%Y-%m-%d": "D",
    "%d/%m/%Y": "D",
    "%m/%d/%Y": "D",
    "%d.%m.%Y": "D",
    "%Y%m%d": "D",
    "%d-%b-%Y": "D",
    "%B %d, %Y": "D",
    "%Y/%m/%d %H:%M": "min",
    "%d/%m/%Y %H:%M:%S": "s",
    "%Y-%m-%dT%H:%M:%SZ": "s",
    "%Y-%m-%d %H:%M:%S.%f": "us",
}
KINDS = {
    "ns": lambda s: s.astype("datetime64[ns]"),
    "s": lambda s: s.dt.floor("s").astype("datetime64[s]"),
    "utc": lambda s: s.dt.tz_localize("UTC"),
    "berlin": lambda s: s.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"),
    "dates": lambda s: s.dt.date.astype(object),
    "datetimes": lambda s: s.dt.floor("s").astype(object),
    "date32": lambda s: s.astype(pd.ArrowDtype(pa.date32())),
    "arrow": lambda s: s.astype("timestamp[us][pyarrow]"),
    "arrow zone": lambda s: s.dt.tz_localize("UTC").astype(
        pd.ArrowDtype(pa.timestamp("us", tz="UTC"))
    ),
    "whole": lambda s: s.dt.strftime("%Y%m%d").astype("int64"),
    "floats": lambda s: s.dt.strftime("%Y%m%d").astype("float64").where(s.dt.day > 3),
}
TWO = datetime(1999, 12, 31, 10, 20, 30), datetime(2001, 2, 3, 4, 5, 6)  # so it varies
moments = st.lists(
    st.datetimes(datetime(1700, 1, 1), datetime(2240, 1, 1)), min_size=30, max_size=60
).map(lambda times: pd.Series(np.array([*TWO, *times], dtype="datetime64[us]")))


def round_trip(column):
    frame = pd.DataFrame({"visit_date": column})
    schema = detect(frame)
    assert schema.column("visit_date").kind == "datetime"
    checked = quietly(schema.check, frame)
    encoder = fit_encoder(checked, schema)
    from synthmed_nb.encoder import from_numbers, to_numbers

    told = schema.column("visit_date")
    back = from_numbers(to_numbers(checked["visit_date"], told), told)
    again = quietly(schema.check, pd.DataFrame({"visit_date": back}))
    assert (again["visit_date"].isna() == checked["visit_date"].isna()).all()
    drawn = decode(encoder, *encode(encoder, checked))["visit_date"]
    assert drawn.dtype == back.dtype == frame["visit_date"].dtype
    return back


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=5, deadline=None, phases=[Phase.generate])
@given(moments)
def test_texts_come_back_letter_by_letter(form, times):
    times = pd.Series(times.to_numpy().astype(f"datetime64[{FORMS[form].replace('min', 'm')}]"))
    times.iloc[0] = pd.Timestamp("1999-12-31 23:59:59.123456").floor(FORMS[form])
    text = times.astype("datetime64[us]").dt.strftime(form)
    if form == "%Y%m%d":
        times = times.where(times.dt.year.between(1801, 2199))
        text = text.where(times.notna())
    pd.testing.assert_series_equal(round_trip(text), text, check_names=False)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5, deadline=None, phases=[Phase.generate])
@given(moments)
def test_dtypes_zones_and_objects_come_back(kind, times):
    column = KINDS[kind](
        times.where(times.dt.year.between(1801, 2199), pd.Timestamp("1999-12-31 10:20:30"))
    )
    back = round_trip(column)
    pd.testing.assert_series_equal(back, column, check_names=False)


@pytest.mark.parametrize("zone", ["+01:00", "-0330"])
def test_an_offset_in_the_text_is_kept(zone):
    days = pd.date_range("2019-01-01 10:20:30", periods=ROWS, freq="3h")
    text = pd.Series(days.strftime("%Y-%m-%dT%H:%M:%S") + zone)
    pd.testing.assert_series_equal(round_trip(text), text, check_names=False)


def test_the_years_outside_nanoseconds():
    days = ["1500-01-31", "1677-01-01", "2262-12-31", "9999-12-31"] * 60
    for column in (pd.Series(days), pd.Series([date.fromisoformat(d) for d in days])):
        pd.testing.assert_series_equal(round_trip(column), column, check_names=False)
    frame = pd.DataFrame({"seen": days})
    schema = detect(frame)
    checked = schema.check(frame)
    assert checked["seen"].dt.year.tolist()[:4] == [1500, 1677, 2262, 9999]
    far = np.datetime64("9999-12-31").astype(int)
    assert numbers(checked["seen"], "datetime").max() == far
    assert numbers_of(checked, schema, "seen").max() == far


# what cannot be known is said


def test_day_or_month_first():
    some = pd.Series(["01/02/2020", "03/04/2021"] * (ROWS // 2))
    for proof, month in (("31/12/2019", 2), ("12/31/2019", 1)):
        proven = some.where(some.index > 0, proof)
        assert detect(pd.DataFrame({"a": proven})).check(pd.DataFrame({"a": proven}))["a"].dt.month[
            2
        ] == (month)
        frame = pd.DataFrame({"a": some, "b": proven})
        assert any("taken from another column" in n for n in notes_of(detect_loud, frame))
        assert quietly(detect(frame).check, frame)["a"].dt.month[0] == month
    assert any(
        "day first is assumed" in n for n in notes_of(detect_loud, pd.DataFrame({"a": some}))
    )


def detect_loud(frame):
    return Schema.detect(frame, small=True)


def test_two_layouts_mixed_zones_and_texts_that_are_no_date():
    days = pd.Series(pd.date_range("2019-01-01", periods=ROWS)).dt.strftime("%Y-%m-%d")
    two = days.where(days.index >= 20, "25/12/2019")
    told = notes_of(detect_loud, pd.DataFrame({"a": two}))
    assert ["20 dates in another layout" in n for n in told] == [True]
    frame = pd.DataFrame({"a": two})
    assert detect(frame).check(frame)["a"].notna().all()
    zones = [f"2019-01-01T10:00:{i % 60:02}{'+01:00' if i % 2 else 'Z'}" for i in range(ROWS)]
    assert any("2 zones" in n for n in notes_of(detect_loud, pd.DataFrame({"a": zones})))
    objects = pd.Series(
        [pd.Timestamp("2019-01-01", tz=z) + pd.Timedelta(days=i) for i in range(ROWS // 2)
         for z in ("UTC", "Europe/Berlin")], dtype=object)  # fmt: skip
    assert any("2 zones" in n for n in notes_of(detect_loud, pd.DataFrame({"a": objects})))
    junk = pd.DataFrame({"death_date": days.where(days.index >= 15, "not yet")})
    told = notes_of(detect_loud, junk)
    assert any("15 cells that are no date" in n and "not yet" not in n for n in told)


def test_what_is_no_date_stays_what_it_is():
    frame = pd.DataFrame({
        "year": [str(1990 + i % 30) for i in range(ROWS)],
        "ratio": [f"{i % 28 + 1}/{i % 12 + 1}" for i in range(ROWS)],
        "weight": [20_191_200 + i % 31 for i in range(ROWS)],
        "phone": [f"555-{i:04}" for i in range(ROWS)],
    })  # fmt: skip
    assert not [c.name for c in detect(frame).columns if c.kind == "datetime"]


# anchors


def stays(rows=400, seed=0):
    rng = np.random.default_rng(seed)
    born = pd.Timestamp("1940-01-01") + pd.to_timedelta(rng.integers(0, 20000, rows), "D")
    come = pd.Timestamp("2015-01-01") + pd.to_timedelta(rng.integers(0, 2 * 10**6, rows), "min")
    sick = rng.random(rows) < 0.4
    left = come + pd.to_timedelta(rng.gamma(1.2, np.where(sick, 9000, 3000)).astype(int), "min")
    triage = come - pd.to_timedelta(rng.integers(5, 600, rows), "min")
    return pd.DataFrame({
        "born": pd.Series(born).dt.strftime("%d.%m.%Y"),
        "left": left,
        "come": come.strftime("%Y-%m-%d %H:%M"),
        "died_on": pd.Series(left.normalize()).where(rng.random(rows) < 0.3),
        "triage": pd.Series(triage).where(rng.random(rows) < 0.7),
        "sick": np.where(sick, "yes", "no"),
    })  # fmt: skip


@pytest.fixture(scope="module")
def model():
    frame = stays()
    schema = detect(frame)
    anchors = {c.name: c.anchor for c in schema.columns if c.anchor}
    assert anchors == {"come": "born", "left": "come", "died_on": "left", "triage": "come"}
    return Synthesizer(schema, steps=40, seed=0).fit(frame, progress=False)


def in_order(model, table):
    dates = model.schema.check(table)
    assert (dates["left"] >= dates["come"]).all() and (dates["come"] >= dates["born"]).all()
    assert (dates["died_on"] >= dates["left"].dt.normalize())[dates["died_on"].notna()].all()
    assert (dates["triage"] <= dates["come"])[dates["triage"].notna()].all()
    return dates


def test_order_and_layouts_hold_in_all_drawn_rows(model):
    drawn = model.sample(3000, seed=1, progress=False)
    dates = in_order(model, drawn)
    assert drawn["born"].str.fullmatch(r"\d\d\.\d\d\.\d{4}").all()
    assert drawn["come"].str.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d").all()
    assert (dates["died_on"].dropna().dt.normalize() == dates["died_on"].dropna()).all()
    assert (dates["left"].dt.second == 0).all()


@pytest.mark.parametrize(
    "asked",
    [
        {"come": "2018-05-06 07:08"},
        {"left": "2018-05-06 07:08"},
        {"come": "2018-05-06 07:08", "left": "2018-05-09 10:00"},
        {"born": "01.02.1950", "left": "2018-05-06 07:08"},
        {"born": "01.02.1950", "come": "2018-05-06 07:08", "died_on": "2018-05-06"},
        {"triage": "2018-05-06 07:08", "left": "2018-05-06 09:00"},
        {"left": ["2018-05-06 07:08", "2019-05-06 07:08"], "sick": "yes"},
    ],
)
def test_given_dates_are_exact_and_in_order(model, asked):
    dates = in_order(model, model.sample(300, given=asked, seed=2, progress=False))
    for name, value in asked.items():
        if name != "sick":
            wanted = value if isinstance(value, list) else [value]
            wanted = [pd.to_datetime(w, dayfirst=name == "born") for w in wanted]
            assert dates[name].isin(wanted).all()


@pytest.mark.parametrize(
    "asked",
    [
        {"left": ("2018-01-01", "2018-12-31")},
        {"come": ("2018-01-01", "2018-12-31"), "left": "2018-06-01 12:00"},
        {"come": ("2018-01-01", "2018-12-31"), "left": ("2018-06-01", "2018-07-01")},
        {"come": "2018-06-01 00:00", "left": (None, "2018-06-08")},
        {"left": (None, "2016-01-01")},
    ],
)
def test_ranges_of_dates_hold(model, asked):
    dates = in_order(model, model.sample(300, given=asked, seed=3, progress=False))
    for name, value in asked.items():
        low, high = value if isinstance(value, tuple) else (value, value)
        assert low is None or (dates[name] >= low).all()
        assert (dates[name] <= high).all()


def test_dates_against_the_order_are_refused(model):
    for asked in (
        {"come": "2018-05-06 07:08", "left": "2018-05-06 07:07"},
        {"born": "01.02.1990", "left": "1989-05-06 07:08"},
        {"come": ("2018-05-06", None), "left": "2018-05-05"},
    ):
        with pytest.raises(InputError):
            model.sample(10, given=asked, progress=False)


def test_filled_dates_are_in_order(model):
    frame = stays(60, seed=5)
    holes = frame.copy()
    for i, name in enumerate(("come", "left", "born")):
        holes.loc[holes.index % 3 == i, name] = None
    filled = model.impute(holes)
    kept = model.schema.check(frame)
    for i, name in enumerate(("come", "left", "born")):
        assert (filled[name] == kept[name])[holes.index % 3 != i].all()
    assert (filled["left"] >= filled["come"]).all() and (filled["come"] >= filled["born"]).all()


def test_a_model_of_dates_survives_the_disk(model, tmp_path):
    model.save(tmp_path)
    again = Synthesizer.load(tmp_path).sample(50, seed=4, progress=False)
    pd.testing.assert_frame_equal(again, model.sample(50, seed=4, progress=False))


def test_dates_without_their_anchor():
    frame = stays()
    frame.loc[::4, "come"] = None
    schema = detect(stays()).edit("triage", anchor="come")
    checked = schema.check(frame)
    encoder = fit_encoder(checked, schema)
    back = schema.check(decode(encoder, *encode(encoder, checked)))
    alone = checked["come"].isna()
    assert (back["left"] - checked["left"])[alone].abs().median() < pd.Timedelta(days=1)
    drawn = Synthesizer(schema, steps=30, seed=0).fit(frame, progress=False).sample(500, seed=1)
    dates = schema.check(drawn)
    assert (dates["left"] >= dates["come"])[dates["come"].notna()].all()


def test_anchors_are_changed_and_refused():
    schema = detect(stays())
    assert schema.edit("left", anchor=None).column("left").anchor is None
    for name, anchor, match in (
        ("left", "nowhere", "date column"),
        ("left", "sick", "date column"),
        ("sick", "come", "date column"),
        ("born", "left", "circle"),
    ):
        with pytest.raises(InputError, match=match):
            schema.edit(name, anchor=anchor)
    dropped = schema.edit("come", role="drop")
    assert dropped.column("left").anchor is dropped.column("come").anchor is None
    assert Schema.from_json(schema.to_json()) == schema


# years only, and shifted dates


def test_years_only():
    frame = stays()
    schema = detect(frame)
    for name in ("born", "come", "left", "died_on", "triage"):
        schema = schema.edit(name, precision="year")
    drawn = Synthesizer(schema, steps=30, seed=0).fit(frame, progress=False).sample(400, seed=1)
    assert drawn["born"].str.fullmatch(r"\d{4}").all() and drawn["left"].dtype == "int64"
    assert drawn["died_on"].dropna().between(1900, 2100).all()
    dates = schema.check(drawn)
    assert (dates["left"] >= dates["come"]).all() and (dates["come"] >= dates["born"]).all()
    assert dates["left"].dt.dayofyear.eq(1).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4000))
def test_shifted_dates_keep_intervals_and_layouts(seed, days):
    frame = stays(90).assign(person=np.arange(90) // 3)
    schema = detect(frame, patient="person")
    moved = shift_dates(frame, schema, days=days, seed=seed)
    before, after = schema.check(frame), schema.check(moved)
    names = ["born", "come", "left", "died_on", "triage"]
    gone = pd.DataFrame({name: after[name] - before[name] for name in names})
    assert (gone.nunique(axis=1) == 1).all()
    assert (gone["come"].groupby(frame["person"]).nunique() == 1).all()
    assert gone["come"].abs().between(pd.Timedelta(days=1), pd.Timedelta(days=days)).all()
    assert (moved.dtypes == frame.dtypes).all() and (moved.isna() == frame.isna()).all().all()


# real tables


def read(*parts, **kwargs):
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {parts[0]} here")
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, **kwargs)


def test_admissions_of_mimic():
    frame = read("mimic3_demo", "ADMISSIONS.csv.gz").drop(columns=["diagnosis"])
    schema = detect(frame, patient="subject_id")
    assert {c.name: c.anchor for c in schema.columns if c.anchor} == {
        "dischtime": "admittime",
        "deathtime": "dischtime",
        "edregtime": "admittime",
        "edouttime": "edregtime",
    }
    drawn = Synthesizer(schema, steps=30, seed=0).fit(frame, progress=False).sample(500, seed=1)
    dates = schema.check(drawn)
    assert (dates["dischtime"] >= dates["admittime"]).all()
    assert (dates["edouttime"] >= dates["edregtime"])[dates["edouttime"].notna()].mean() > 0.99
