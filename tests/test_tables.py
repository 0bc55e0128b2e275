"""Tables: what is read is what was written, and a broken file shows none of its cells."""

import gzip
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthmed_nb.schema import InputError, Schema
from synthmed_nb.tables import GAPS, file_sha256, fingerprint, read_table, write_table, write_text

FORMATS = ("csv", "csv.gz", "parquet")
SECRET = "Zebra"

# a text that no reader could take for something else: not a number, not True, not a gap
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(lambda t: f"{t}ß")
NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=64)
COLUMNS = {
    "whole": st.integers(-(10**17), 10**17),
    "number": NUMBER.map(lambda x: x + 0.5 if x == int(x) and abs(x) < 1e9 else x),
    "flag": st.booleans(),
    "text": TEXT,
}


@st.composite
def frames(draw):
    """Made-up tables of 1 to 20 rows in the dtypes that reading gives."""
    rows = draw(st.integers(1, 20))
    data = {}
    for i, kind in enumerate(draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1))):
        gaps = draw(st.booleans())
        cell = COLUMNS[kind] | st.none() if gaps else COLUMNS[kind]
        cells = draw(st.lists(cell, min_size=rows, max_size=rows))
        if all(c is None for c in cells):
            data[f"{kind} {i}"] = pd.Series(np.nan, range(rows))
            continue
        has = any(c is None for c in cells)
        whole, flag = ("Int64", "boolean") if has else ("int64", "bool")
        dtype = {"whole": whole, "number": "float64", "flag": flag, "text": None}[kind]
        data[f"{kind} {i}"] = pd.Series(cells, dtype=dtype)
    return pd.DataFrame(data)


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_written_is_read(ending, tmp_path):
    @given(frames())
    def check(frame):
        path = tmp_path / f"table.{ending}"
        write_table(frame, path)
        again = read_table(path)
        pd.testing.assert_frame_equal(again, frame, check_exact=True)
        assert fingerprint(again) == fingerprint(frame)
        data = path.read_bytes()
        write_table(frame, path)
        assert path.read_bytes() == data

    check()


@given(frames(), st.data())
def test_a_fingerprint_sees_one_changed_cell(frame, data):
    row = data.draw(st.integers(0, len(frame) - 1))
    name = data.draw(st.sampled_from(list(frame.columns)))
    other = frame.astype({name: object})
    other.loc[row, name] = f"{frame.loc[row, name]} changed"
    assert fingerprint(other) != fingerprint(frame)
    assert fingerprint(frame.set_index(np.arange(len(frame)) + 5)) == fingerprint(frame)


@pytest.mark.parametrize("text", ["007", "1.", "-0.50", "1e3", "+5", " 1", "0x1F", "1_000", "1,5"])
def test_only_numbers_are_read_as_numbers(text, tmp_path):
    write_text(tmp_path / "t.csv", f'a,b\n"{text}",1\n')
    column = read_table(tmp_path / "t.csv")["a"]
    if text in ("1.", "-0.50", "1e3"):
        assert column.dtype == "float64" and column[0] == float(text)
    else:
        assert column[0] == text


def test_codes_gaps_and_words_stay_what_they_are(tmp_path):
    cells = ["250.01", "V57", "None", "none", "?", "N/A", "-", *GAPS]
    write_text(tmp_path / "t.csv", "code,n\n" + "".join(f"{cell},1\n" for cell in cells))
    column = read_table(tmp_path / "t.csv")["code"]
    assert column.dropna().tolist() == cells[: -len(GAPS)]
    column = read_table(tmp_path / "t.csv", missing=["?", "-"])["code"]
    assert column.dropna().tolist() == ["250.01", "V57", "None", "none", "N/A"]


def test_missing_marks_work_in_parquet_too(tmp_path):
    write_table(pd.DataFrame({"a": ["x", "?", "NA"], "n": [1, 2, 3]}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet")["a"].tolist() == ["x", "?", "NA"]
    frame = read_table(tmp_path / "t.parquet", missing=["?"])
    assert frame["a"].isna().tolist() == [False, True, False] and frame["n"].dtype == "int64"


def test_parquet_that_pandas_did_not_write(tmp_path):
    table = pa.table({"n": pa.array([1, None], pa.int32()), "s": ["a", None], "b": [True, None]})
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    frame = read_table(tmp_path / "t.parquet")
    assert str(frame["n"].dtype) == "Int64" and frame.isna().sum().tolist() == [1, 1, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = pd.concat([frame] * 150, ignore_index=True)
        schema = Schema.detect(frame)
    assert schema.categorical == ["n", "s", "b"]


def test_an_index_is_not_a_column(tmp_path):
    frame = pd.DataFrame({"a": [1, 2]}, index=["x", "y"])
    frame.to_parquet(tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet").columns) == ["a"]


GOOD = f"name,n\n{SECRET},1\n{SECRET} b,2\n"
BROKEN = {
    "not there": ("t.csv", None, "it is not there"),
    "format": ("t.xlsx", b"", "no format known"),
    "no ending": ("table", b"", "no format known"),
    "empty": ("t.csv", b"", "it is empty"),
    "blank": ("t.csv", b"\n\n", "it is empty"),
    "empty gz": ("t.csv.gz", b"", "it is empty"),
    "empty parquet": ("t.parquet", b"", "damaged or cut off"),
    "no gz": ("t.csv.gz", GOOD.encode(), "damaged or cut off"),
    "cut gz": ("t.csv.gz", gzip.compress(GOOD.encode() * 999)[:-9], "damaged or cut off"),
    "cut gz header": ("t.csv.gz", gzip.compress(GOOD.encode())[:6], "damaged or cut off"),
    "no parquet": ("t.parquet", GOOD.encode(), "damaged or cut off"),
    "latin-1": ("t.csv", f"name,n\n{SECRET} é,1\n".encode("latin-1"), "not written in UTF-8"),
    "latin-1 header": ("t.csv", f"é,n\n{SECRET},1\n".encode("latin-1"), "not written in UTF-8"),
    "utf-16": ("t.csv", GOOD.encode("utf-16"), "not written in UTF-8"),
    "cut row": ("t.csv", GOOD.encode()[:-3], "row 3 has 1 cells, the header 2"),
    "long row": ("t.csv", f"name,n\n{SECRET},1,2\n".encode(), "row 2 has 3 cells, the header 2"),
    "open quote": ("t.csv", f'name,n\n"{SECRET},1\n{SECRET},2\n'.encode(), "cannot be read"),
    "semicolons": ("t.csv", f"name;n\n{SECRET};1\n".encode(), "separated by commas"),
    "name twice": ("t.csv", f"name,name\n{SECRET},1\n".encode(), "more than once"),
    "name twice in gz": ("t.csv.gz", gzip.compress(b"n,n\n1,2\n"), "more than once"),
    "index without name": ("t.csv", f",name\n0,{SECRET}\n".encode(), "column number 1 is empty"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_ends_in_one_line(case, tmp_path):
    name, data, found = BROKEN[case]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / name)
    assert found in str(caught.value) and "; to mend: " in str(caught.value)
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("ending", FORMATS)
def test_no_cut_goes_unnoticed(ending, tmp_path):
    """Wherever a file ends too early, it is refused, unless whole rows of a plain CSV are gone."""
    frame = pd.DataFrame({"a": np.arange(40) + 100, "b": [f"{SECRET} {i}" for i in range(40)]})
    write_table(frame, tmp_path / f"whole.{ending}")
    data = (tmp_path / f"whole.{ending}").read_bytes()
    for size in range(0, len(data) - 1, 7):
        path = tmp_path / f"cut.{ending}"
        path.write_bytes(data[:size])
        try:
            rows = len(read_table(path))
        except InputError as error:
            assert SECRET not in str(error)
        else:
            assert ending == "csv" and rows == data[:size].rstrip(b"\n").count(b"\n")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    write_text(path, "old")

    def fails(_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_names_are_checked_before_writing(tmp_path):
    with pytest.raises(InputError, match="column 'a'"):
        write_table(pd.DataFrame([[1, 2]], columns=["a", "a"]), tmp_path / "t.csv")
    assert not list(tmp_path.iterdir())


def test_sha256_of_a_file(tmp_path):
    write_text(tmp_path / "t", "abc")
    assert file_sha256(tmp_path / "t").startswith("ba7816bf8f01cfea414140de5dae2223")
