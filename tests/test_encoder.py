"""The encoder keeps what a table is, and forgets who is in it."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthmed_nb.codecs import FLOOR, CategoryCodec, decode_number, encode_number, fit_number
from synthmed_nb.encoder import decode, encode, fit_encoder
from synthmed_nb.schema import Schema


def clinic(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """A table with a column of each dtype that users bring, gaps included."""
    rng = np.random.default_rng(seed)
    day = pd.Timestamp("2019-03-01")
    gap = rng.random(rows) < 0.2
    frame = pd.DataFrame(
        {
            "whole": rng.integers(-50, 1000, rows),
            "even": 2 * rng.integers(40, 90, rows),
            "nullable": pd.array(np.where(gap, None, rng.integers(0, 90, rows)), dtype="Int64"),
            "tenths": np.where(gap, np.nan, rng.normal(70, 9, rows).round(1)),
            "single": rng.normal(0, 1, rows).round(2).astype("float32"),
            "free": rng.normal(0, 1, rows),
            "flag": rng.random(rows) < 0.3,
            "maybe": pd.array(np.where(gap, None, rng.random(rows) < 0.3), dtype="boolean"),
            "word": np.where(gap, None, rng.choice(["a", "b", "c"], rows)),
            "grade": pd.Categorical(
                rng.choice(["low", "high"], rows), categories=["low", "mid", "high"], ordered=True
            ),
            "day": day + pd.to_timedelta(rng.integers(0, 900, rows), unit="D"),
            "stamp": (day + pd.to_timedelta(rng.integers(0, 10**7, rows), unit="s")).tz_localize(
                "UTC"
            ),
            "iso": (day + pd.to_timedelta(rng.integers(0, 900, rows), unit="D")).strftime(
                "%Y-%m-%d"
            ),
        }
    )
    frame["arrow"] = pd.Series(rng.choice(["x", "y"], rows), dtype="string")
    frame["empty"] = np.nan
    frame["same"] = 7
    return frame


@pytest.fixture(scope="module")
def round_trip() -> tuple[pd.DataFrame, pd.DataFrame]:
    frame = clinic()
    with pytest.warns(UserWarning):
        schema = Schema.detect(frame)
    encoder = fit_encoder(schema.check(frame), schema)
    return frame, decode(encoder, *encode(encoder, schema.check(frame), seed=0))


def test_dtypes_order_and_gaps_survive(round_trip):
    frame, back = round_trip
    assert list(back) == list(frame)
    assert (back.dtypes == frame.dtypes).all(), (back.dtypes, frame.dtypes)
    assert (back.isna() == frame.isna()).all().all()


def test_categories_flags_and_constants_come_back_exactly(round_trip):
    frame, back = round_trip
    for name in ("flag", "maybe", "word", "grade", "arrow", "same"):
        pd.testing.assert_series_equal(back[name], frame[name])


def test_numbers_and_dates_stay_on_their_lattice(round_trip):
    _, back = round_trip
    assert (back["even"] % 2 == 0).all()
    tenths = back["tenths"].dropna()
    assert (tenths == tenths.round(1)).all()
    assert (back["single"] == back["single"].round(2)).all()
    assert (back["day"] == back["day"].dt.normalize()).all()
    assert pd.to_datetime(back["iso"], format="%Y-%m-%d").notna().all()


def test_numbers_come_back_near_where_they_were(round_trip):
    frame, back = round_trip
    for name in ("whole", "tenths", "free"):
        inner = frame[name].between(frame[name].quantile(0.1), frame[name].quantile(0.9))
        error = (back[name] - frame[name])[inner].abs().max()
        assert error <= 0.02 * (frame[name].max() - frame[name].min()), name


def test_rare_levels_are_learned_but_never_named():
    values = pd.Series(["common"] * 50 + ["rare"] * (FLOOR - 1) + ["enough"] * FLOOR)
    codec = CategoryCodec.fit(values)
    assert codec.levels == ("common", "enough")
    assert not codec.allowed[codec.encode(pd.Series(["rare"]))].any()


def test_the_floor_counts_patients_not_rows():
    visits = pd.Series(["often seen"] * 40 + ["shared"] * 40)
    patients = pd.Series([1] * 40 + list(range(40)))
    assert CategoryCodec.fit(visits, patients).levels == ("shared",)


def test_a_patient_with_many_records_counts_once_in_each_bin():
    rng = np.random.default_rng(0)
    others, own = rng.normal(70, 10, 600), 97 + rng.random(60)
    once = fit_number(np.append(others, own[0]), pd.Series(range(601)))
    often = fit_number(np.append(others, own), pd.Series([*range(600), *[600] * 60]))
    assert once.laws == often.laws and once.cuts == often.cuts and not often.spikes
    assert fit_number(rng.normal(70, 10, 600), pd.Series(range(600)) % 10).laws == ()


def test_nothing_learned_is_one_patients_value():
    """Planted lonely values, far out and in between, are in no knot, cut, spike or level."""
    frame = clinic(400)
    frame.loc[5, "tenths"] = 987.6
    frame.loc[6, "free"] = 0.123456789123
    frame.loc[7, "word"] = "Mr Lonely"
    with pytest.warns(UserWarning):
        schema = Schema.detect(frame)
    encoder = fit_encoder(schema.check(frame), schema)
    learned = json.dumps(encoder.to_dict())
    for lonely in ("987.6", "0.123456789123", "Mr Lonely"):
        assert lonely not in learned
    knots = {k for c in encoder.codecs.values() for law in getattr(c, "laws", ()) for _, k in law}
    assert not knots & set(frame["free"])


numbers = st.lists(
    st.one_of(st.none(), st.integers(-1000, 1000), st.floats(-1e6, 1e6, width=32)),
    min_size=1,
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(numbers, st.integers(2, 20))
def test_any_numbers_make_a_codec_that_keeps_gaps_and_range(values, bins):
    column = np.array([np.nan if v is None else v for v in values], dtype=float)
    codec = fit_number(column, bins=bins)
    tokens, residuals = encode_number(codec, column, np.random.default_rng(0))
    assert tokens.min() >= 0 and tokens.max() < codec.size
    assert np.isfinite(residuals).all() and (residuals[~codec.binned[tokens]] == 0).all()
    back = decode_number(codec, tokens, residuals)
    states = codec.size > 1
    assert np.array_equal(np.isnan(back), np.isnan(column) | (not states))
    if states:
        spread = np.nanmax(column) - np.nanmin(column)
        assert np.nanmin(back) >= np.nanmin(column) - spread - codec.step
        assert np.nanmax(back) <= np.nanmax(column) + spread + codec.step
        assert np.isclose(codec.within.sum(), 1) and (codec.below + codec.within <= 1 + 1e-9).all()


levels = st.lists(st.one_of(st.none(), st.sampled_from("abc"), st.text(max_size=3)), max_size=80)


@settings(max_examples=100, deadline=None)
@given(levels)
def test_any_categories_make_a_codec_that_keeps_levels_and_gaps(values):
    column = pd.Series(values, dtype=object)
    codec = CategoryCodec.fit(column)
    back = pd.Series(codec.decode(codec.encode(column)), dtype=object)
    kept = column.isin(codec.levels)
    assert (back[kept] == column[kept]).all() and back[~kept].isna().all()
    counts = column.value_counts()
    assert set(codec.levels) == set(counts.index[counts >= FLOOR])
