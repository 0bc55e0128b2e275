"""Sources: real folders of OMOP and Synthea, MEDS there and back, databases that stay locked."""

import json
import os
import shutil
import sqlite3
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthmed_nb import cli
from synthmed_nb.cdm import CDM, check_omop, write_omop
from synthmed_nb.columns import DataNote, InputError
from synthmed_nb.databases import locked_duckdb, read_database
from synthmed_nb.meds import read_meds, write_meds
from synthmed_nb.omop import EVENTS, read_omop
from synthmed_nb.sources import read_source, source_sha256
from synthmed_nb.synthea import read_synthea
from synthmed_nb.tables import fingerprint, read_table, write_table
from synthmed_nb.visits import MOST_VISITS, UNRECORDED, days, visit_table

PUBLIC = Path(os.environ.get("SYNTHMED_DATA", "no data"))
GIBLEED, SYNTHEA = PUBLIC / "gibleed_omop", PUBLIC / "synthea_csv_27"
SECRET = "Zx17-secret"  # a password or a cell; it must not turn up in anything that is said

with_gibleed = pytest.mark.skipif(not GIBLEED.is_dir(), reason="no gibleed_omop")
with_synthea = pytest.mark.skipif(not SYNTHEA.is_dir(), reason="no synthea_csv_27")


def quietly(read, *args, **kwargs):
    """What a reader gives, and the notes that it says on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read(*args, **kwargs)
    assert all(note.category is DataNote for note in caught), [str(n.message) for n in caught]
    return found, [str(note.message) for note in caught]


def numbered(table, first=1):
    """The table with persons 1, 2 ... in their order."""
    return table.assign(person_id=pd.factorize(table["person_id"])[0] + first)


# databases


@pytest.fixture
def hospital(tmp_path):
    """A DuckDB and a SQLite file with the same table."""
    folder = tmp_path / "my files"  # with a blank
    folder.mkdir()
    rows = "select range as id, case range % 4 when 0 then 'ward' when 1 then 'home' end as w"
    rows += ", range / 4 as x"
    with duckdb.connect(str(folder / "h.duckdb")) as connection:
        connection.execute(f"create table visits as {rows} from range(300)")
        connection.execute(f"create view seen as select '{SECRET}' as w from visits")
        connection.execute("create view outside as select * from read_csv('/etc/passwd')")
        table = connection.execute("select * from visits").df()
    with sqlite3.connect(folder / "h.db") as connection:
        table.to_sql("visits", connection, index=False)
    return folder


def test_both_kinds_of_database_give_the_same_table(hospital):
    first = read_table(f"duckdb:///{hospital}/h.duckdb?table=visits")
    second = read_table(f"sqlite:///{hospital}/h.db?table=visits")
    pd.testing.assert_frame_equal(first, second)
    assert first["id"].dtype == "int64" and first["w"].isna().sum() == 150
    assert fingerprint(first) == fingerprint(second)
    assert read_table(f"sqlite:///{hospital}/h.db?table=visits", ["ward"])["w"].isna().sum() == 225


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('/etc/passwd')",
        "select * from glob('/etc/*')",
        "select * from '/etc/passwd'",
        "select * from outside",
        "select * from read_parquet('https://example.org/x.parquet')",
        "select * from 's3://bucket/x.parquet'",
        "select * from sniff_csv('/etc/passwd')",
        "copy visits to 'out.csv'",
        "copy (select 1) to '/tmp/out.csv'",
        "install httpfs",
        "load httpfs",
        "attach 'other.duckdb'",
        "export database 'out'",
        "insert into visits values (1, 'a', 1)",
        "drop table visits",
        "create table t as select 1",
        "set enable_external_access = true",
        "pragma enable_external_access",
        "select 1; select 2",
        "select 1; copy visits to 'out.csv'",
        "",
    ],
)
def test_a_query_reaches_nothing_but_the_database(hospital, query, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        read_database(f"duckdb:///{hospital}/h.duckdb?query={query}")
    assert "root:" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_lock_cannot_be_opened(hospital):
    with locked_duckdb(hospital / "h.duckdb") as connection:
        for name, value in (
            ("enable_external_access", "true"), ("lock_configuration", "false"),
            ("autoload_known_extensions", "true"), ("temp_directory", "'/tmp/x'"),
        ):  # fmt: skip
            with pytest.raises(duckdb.Error):
                connection.execute(f"set {name} = {value}")
        shown = dict(connection.execute("select name, value from duckdb_settings()").fetchall())
    assert shown["enable_external_access"] == shown["autoinstall_known_extensions"] == "false"
    assert shown["lock_configuration"] == "true"


def test_sqlite_is_opened_to_be_read(hospital):
    before = (hospital / "h.db").read_bytes()
    for query in ("delete from visits", "with a as (select 1) insert into visits select 1, 'a', 1",
                  "attach 'x.db' as x", "pragma journal_mode = wal"):  # fmt: skip
        with pytest.raises(InputError):
            read_database(f"sqlite:///{hospital}/h.db?query={query}")
    with pytest.raises(InputError):
        read_database(f"sqlite:///{hospital}/none.db?table=visits")
    assert (hospital / "h.db").read_bytes() == before
    assert sorted(p.name for p in hospital.iterdir()) == ["h.db", "h.duckdb"]


@pytest.mark.parametrize(
    "where",
    [
        "postgresql://user:{0}@127.0.0.1:1/db?table=t",
        "postgresql://user:a@{0}@127.0.0.1:1/db?table=t",
        "mysql+pymysql://user:a/{0}@127.0.0.1:1/db?table=t",
        "nosuch://user:{0}@host/db?table=t",
        "postgresql://user:{0}@host:port/db?table=t",
        "postgresql://user:{0}@127.0.0.1:1/db?table=t&password={0}",
        "my sql://user:{0}@host/db",
        "omop:postgresql://user:{0}@127.0.0.1:1/db",
    ],
)
def test_a_password_is_never_said(where, capsys, tmp_path):
    where = where.format(SECRET)
    with pytest.raises(InputError) as caught:
        read_source(where)
    assert SECRET not in str(caught.value) and SECRET not in repr(caught.value)
    for words in (
        ["detect", where, "--out", tmp_path / "s.json"], ["report", "a", where, "--out", "x"],
        ["fit", where, "--schema", where, "--out", "x"],
    ):  # fmt: skip
        with suppress(SystemExit):
            assert cli.main([str(word) for word in words]) == 2
        said = capsys.readouterr()
        assert SECRET not in said.out + said.err


@pytest.mark.parametrize("package", ["duckdb", "sqlalchemy"])
def test_an_extra_that_is_not_there_is_named(hospital, package, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == package] + [package]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"not installed.*synthmed_nb\[sql\]"):
        read_database(f"duckdb:///{hospital}/h.duckdb?table=visits")


def test_types_of_duckdb(tmp_path):
    with duckdb.connect(str(tmp_path / "t.duckdb")) as connection:
        connection.execute(
            "create table t as select * from (values "
            "(date '1650-01-01', 1.25::decimal(9, 2), true, 2::utinyint, 5::hugeint),"
            "(null, null, null, null, null)) v(day, d, b, u, h)"
        )
    table = read_database(f"duckdb:///{tmp_path}/t.duckdb?table=t")
    assert [str(dtype) for dtype in table.dtypes][1:4] == ["float64", "boolean", "UInt64"]
    assert table["day"].dt.year.tolist()[0] == 1650 and table["h"].tolist()[0] == 5


# OMOP


@pytest.fixture(scope="module")
def gibleed():
    return quietly(read_omop, GIBLEED)


@with_gibleed
def test_gibleed_as_visits(gibleed):
    table, notes = gibleed
    assert len(table) == 116_370 and table["person_id"].nunique() == 2_694
    assert list(table) == [
        "person_id", "gender", "race", "ethnicity", "year_of_birth", "visit_start", "visit_end",
        "visit_type", "age_years", *EVENTS,
    ]  # fmt: skip
    assert table["visit_type"].value_counts().to_dict() == {
        UNRECORDED: 115_333, "Inpatient Visit": 1_037,
    }  # fmt: skip
    order = table.sort_values(["person_id", "visit_start"], kind="stable")
    assert order.index.equals(table.index) and table.attrs["codes"] == list(EVENTS)
    held = {name: set().union(*table[name]) for name in EVENTS}
    counts = dict(conditions=80, drugs=113, procedures=51, measurements=55)
    assert {name: len(codes) for name, codes in held.items()} == counts
    bleeding = table[table["conditions"].map(lambda held: "192671" in held)]
    assert bleeding["person_id"].nunique() == 479
    person = table.groupby("person_id")[["gender", "race", "year_of_birth"]].nunique(dropna=False)
    assert (person == 1).all().all()
    told = " ".join(notes)
    assert "2,649 observation periods are of unknown persons" in told
    assert "451 persons have race 0" in told and "lie outside the observation periods" in told


@with_gibleed
def test_gibleed_by_person(gibleed):
    table, _ = quietly(read_omop, GIBLEED, level="person")
    visits, _ = gibleed
    assert len(table) == 2_694 and table["visits"].sum() == len(visits)
    union = visits.groupby("person_id")["drugs"].agg(lambda sets: set().union(*sets))
    assert [set(held) for held in table["drugs"]] == union.tolist()


@with_gibleed
def test_omop_there_and_back(gibleed, tmp_path):
    visits, _ = gibleed
    quietly(write_omop, visits, tmp_path / "out", like=GIBLEED)
    again, _ = quietly(read_omop, tmp_path / "out")
    expected = numbered(visits, 10_000)  # the keys of the source are below
    first = expected.groupby("person_id")["visit_start"].transform("min").dt.year
    expected["year_of_birth"] = np.minimum(expected["year_of_birth"], first)  # few are born later
    expected["age_years"] = expected["visit_start"].dt.year - expected["year_of_birth"]
    pd.testing.assert_frame_equal(again, expected, check_dtype=False)
    real, written = check_omop(GIBLEED), check_omop(tmp_path / "out")
    assert set(real) <= set(written) and set(written.values()) == {0}
    assert {what for what, count in real.items() if count} == {
        "observation_period: person unknown",
        "drug_exposure: before the birth",
        "drug_exposure: key missing or repeated",
        "measurement: key missing or repeated",
        *(f"{table}: visit unknown" for table, *_ in EVENTS.values()),
        *(f"{table}: outside the observation period" for table, *_ in EVENTS.values()),
    }


@with_gibleed
def test_a_model_that_mixes_everything_up_still_gives_sound_tables(gibleed, tmp_path):
    """Synthetic visits: columns drawn apart, so that nothing fits, and no persons."""
    visits, _ = gibleed
    rng = np.random.default_rng(0)
    drawn = {n: visits[n].to_numpy()[rng.integers(0, len(visits), 3_000)] for n in visits}
    mixed = pd.DataFrame(drawn).assign(visit_type="Inpatient Visit")
    mixed["person_id"] = rng.integers(0, 400, 3_000)
    quietly(write_omop, mixed, tmp_path / "a", like=GIBLEED)
    quietly(write_omop, mixed.drop(columns="person_id"), tmp_path / "b", like=GIBLEED)
    for name, persons in (("a", mixed["person_id"].nunique()), ("b", 3_000)):
        found = check_omop(tmp_path / name)
        assert set(found.values()) == {0} and len(found) == 58
        table, _ = quietly(read_omop, tmp_path / name)
        assert table["person_id"].nunique() == persons and len(table) == 3_000
    person = pd.read_parquet(tmp_path / "a" / "person.parquet")
    assert list(person) == [word.rstrip("!") for word in CDM["person"].split()]
    assert not set(person["person_id"]) & set(
        pd.read_parquet(GIBLEED / "person.parquet")["person_id"]
    )


@with_gibleed
@pytest.mark.parametrize("form", ["csv", "duckdb", "sqlite"])
def test_gibleed_in_other_clothes(gibleed, form, tmp_path):
    """Capitals, CSV and databases give the same table."""
    tables = "person visit_occurrence observation_period concept".split()
    tables += [table for table, *_ in EVENTS.values()]
    frames = {name: pd.read_parquet(GIBLEED / f"{name}.parquet") for name in tables}
    where = str(tmp_path)
    for name, frame in frames.items():
        if "person_id" in frame:  # enough to see it
            frame = frame[frame["person_id"] <= 300]
        frame = frame.rename(columns=str.upper)
        if form == "csv":
            write_table(frame, tmp_path / f"{name.upper()}.csv.gz")
        elif form == "duckdb":
            where = f"duckdb:///{tmp_path}/cdm.duckdb?schema=cdm"
            with duckdb.connect(str(tmp_path / "cdm.duckdb")) as connection:
                make = f"create table cdm.cdm.{name} as select * from frame"
                connection.execute(f"create schema if not exists cdm.cdm; {make}")
        else:
            where = f"sqlite:///{tmp_path}/cdm.db"
            with sqlite3.connect(tmp_path / "cdm.db") as connection:
                frame.to_sql(name.upper(), connection, index=False)
    table, _ = quietly(read_omop, where)
    expected = gibleed[0][gibleed[0]["person_id"] <= 300]
    pd.testing.assert_frame_equal(table, expected)


def cdm_folder(folder, **changes):
    """A small OMOP folder of CSV files; a change replaces the text of a table."""
    folder.mkdir()
    texts = {
        "person": "person_id,gender_concept_id,year_of_birth,race_concept_id,ethnicity_concept_id\n"
        "1,8507,1950,0,0\n2,8532,1960,8527,0\n",
        "visit_occurrence": "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,"
        "visit_end_date\n1,1,9201,2020-01-01,2020-01-03\n",
        "condition_occurrence": "condition_occurrence_id,person_id,condition_concept_id,"
        "condition_start_date,visit_occurrence_id\n1,1,5,2020-01-01,1\n",
    }
    for name, text in (texts | changes).items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_keys_that_point_nowhere(tmp_path):
    """Events of nobody are left out; events of an unknown visit go to the one of their day."""
    head = "person_id,condition_concept_id,condition_start_date,visit_occurrence_id\n"
    rows = (
        "1,5,2020-01-02,99\n1,6,2020-05-05,99\n9,7,2020-01-01,1\n2,8,2020-01-01,1\n,9,2020-01-01,\n"
    )
    visits = "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date\n"
    visits += "1,1,9201,2020-01-01,2020-01-03\n4,77,9201,2020-01-01,2020-01-03\n"
    folder = cdm_folder(
        tmp_path / "omop", condition_occurrence=head + rows, visit_occurrence=visits
    )
    table, notes = quietly(read_omop, folder)
    assert table["person_id"].tolist() == [1, 1, 2]
    assert table["conditions"].tolist() == [("5",), ("6",), ("8",)]
    told = " ".join(notes)
    assert "fewer than 11 visits of persons who are not in the person table were left out" in told
    assert "fewer than 11 events of persons who are not" in told
    assert "fewer than 11 events name no known visit" in told
    assert not [n for n in notes if any(digit in n.replace("11", "") for digit in "123456789")]


def test_ten_thousand_visits_of_one_patient(tmp_path):
    starts = pd.date_range("1990-01-01", periods=10_000).strftime("%Y-%m-%d")
    order = np.random.default_rng(0).permutation(10_000)  # out of order in the file
    visits = "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date\n"
    visits += "".join(f"{i},1,9201,{starts[i]},{starts[i]}\n" for i in order)
    head = "person_id,condition_concept_id,condition_start_date,visit_occurrence_id\n"
    rows = f"1,5,{starts[0]},0\n1,6,{starts[9_999]},9999\n2,7,{starts[0]},\n"
    folder = cdm_folder(
        tmp_path / "omop", visit_occurrence=visits, condition_occurrence=head + rows
    )
    table, notes = quietly(read_omop, folder)
    assert table["person_id"].value_counts().to_dict() == {1: MOST_VISITS, 2: 1}
    assert table["visit_start"].dt.strftime("%Y-%m-%d").tolist()[:-1] == starts[:1000].tolist()
    assert set().union(*table["conditions"]) == {"5", "7"}
    assert any("9,000 visits beyond the first 1,000 of fewer than 11" in n for n in notes)


def test_equal_timestamps_keep_their_order(tmp_path):
    visits = "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date\n"
    visits += "".join(f"{i},1,{9000 + i},2020-01-01,2020-01-01\n" for i in (7, 3, 5, 1))
    folder = cdm_folder(tmp_path / "omop", visit_occurrence=visits)
    table, _ = quietly(read_omop, folder)
    assert table["visit_type"].tolist() == ["9007", "9003", "9005", "9001"]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"person": "a,b\n1,2\n"}, "lacks column 'person_id'"),
        ({"visit_occurrence": "visit_occurrence_id\n1\n"}, "visit_occurrence lacks"),
        ({"person": ""}, "lacks column 'person_id'"),
        ({"condition_occurrence": "person_id,condition_concept_id,condition_start_date\n1,2\n"},
         "damaged"),
    ],
)  # fmt: skip
def test_broken_omop_folders(changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        quietly(read_omop, cdm_folder(tmp_path / "omop", **changes))


def test_omop_goes_to_a_new_folder(tmp_path):
    folder = cdm_folder(tmp_path / "omop")
    table, _ = quietly(read_omop, folder)
    with pytest.raises(InputError, match="in use"):
        write_omop(table, folder, like=folder)


# visits, however they come


DAYS = pd.Series(pd.date_range("2020-01-01", periods=6))
EVENT = st.tuples(
    st.sampled_from(["conditions", "drugs"]), st.integers(1, 4),
    st.one_of(st.none(), st.integers(1, 6)), st.one_of(st.none(), st.integers(0, 5)),
    st.one_of(st.none(), st.sampled_from("abc")),
)  # fmt: skip
VISIT = st.tuples(
    st.integers(1, 6), st.integers(1, 4), st.one_of(st.none(), st.integers(0, 5)),
    st.one_of(st.none(), st.integers(0, 5)),
)  # fmt: skip


@given(st.lists(VISIT, min_size=1, max_size=8), st.lists(EVENT, max_size=15))
def test_no_code_of_a_known_person_and_day_is_lost(visits, events):
    people = pd.DataFrame({"person_id": [3, 1, 2], "year_of_birth": [1950, 1960, 1970]})
    stays = pd.DataFrame(visits, columns=["visit", "person_id", "visit_start", "visit_end"])
    for name in ("visit_start", "visit_end"):
        stays[name] = days(stays[name].map(DAYS))
    stays["visit_type"] = "ward"
    held = pd.DataFrame(events, columns=["set", "person_id", "visit", "date", "code"])
    held = held.assign(set=pd.Categorical(held["set"], ["conditions", "drugs"]))
    held = held.assign(date=days(held["date"].map(DAYS)), visit=held["visit"].astype("Int64"))
    known = held["person_id"].isin([1, 2, 3]) & held["code"].notna()
    try:
        table, _ = quietly(visit_table, people, stays, held)
    except InputError:
        assert not (known & held["date"].notna()).any()
        return
    assert table["person_id"].is_monotonic_increasing
    assert (table.groupby("person_id")["visit_start"].diff().dropna() >= pd.Timedelta(0)).all()
    assert table["visit_start"].notna().all() and table["visit_end"].notna().all()
    for name in ("conditions", "drugs"):
        pairs = zip(table["person_id"], table[name], strict=True)
        found = {(person, code) for person, codes in pairs for code in codes}
        sure = held[known & held["date"].notna() & (held["set"] == name)]
        may = held[known & (held["set"] == name)]
        assert set(zip(sure["person_id"], sure["code"], strict=True)) <= found
        assert found <= set(zip(may["person_id"], may["code"], strict=True))
        assert all(list(codes) == sorted(set(codes)) for codes in table[name])


# MEDS and Synthea


@with_gibleed
def test_gibleed_to_meds_and_back(gibleed, tmp_path):
    visits, _ = gibleed
    quietly(write_meds, visits, tmp_path / "meds", split="held_out")
    again, _ = quietly(read_meds, tmp_path / "meds")
    pd.testing.assert_frame_equal(again, visits)
    events = pd.read_parquet(tmp_path / "meds" / "data")
    assert (events.groupby("subject_id")["time"].diff().dropna() >= pd.Timedelta(0)).all()
    known = pd.read_parquet(tmp_path / "meds" / "metadata" / "codes.parquet")["code"]
    assert set(events["code"]) == set(known) and known.is_unique
    splits = pd.read_parquet(tmp_path / "meds" / "metadata" / "subject_splits.parquet")
    assert set(splits["split"]) == {"held_out"} and len(splits) == 2_694
    about = json.loads((tmp_path / "meds" / "metadata" / "dataset.json").read_text())
    assert about["meds_version"].startswith("0.4")


@with_synthea
def test_synthea_never_reads_names(tmp_path):
    table, notes = quietly(read_synthea, SYNTHEA)
    assert table["person_id"].nunique() == 27 and len(table) >= 604
    assert (table["visit_type"] != UNRECORDED).sum() == 604
    personal = pd.read_csv(SYNTHEA / "patients.csv.gz")
    texts = set(table.drop(columns="person_id").astype(str).to_numpy().ravel())
    for name in ("SSN", "FIRST", "LAST", "ADDRESS", "PASSPORT"):
        assert not texts & set(personal[name].dropna().astype(str))
    assert any("990 values of observations" in n for n in notes)
    quietly(write_meds, table, tmp_path / "meds")
    again, _ = quietly(read_meds, tmp_path / "meds")
    pd.testing.assert_frame_equal(again, numbered(table))


def test_meds_in_shards(tmp_path):
    folder = tmp_path / "meds"
    table = pd.DataFrame({"person_id": range(1, 5), "gender": ["F", "M"] * 2})
    table["visit_start"] = days(pd.Series(["2020-01-01"] * 4))
    quietly(write_meds, table, folder)
    events = pd.read_parquet(folder / "data" / "train" / "0.parquet")
    shutil.rmtree(folder / "data")
    for i, (_, part) in enumerate(events.groupby("subject_id")):
        path = folder / "data" / f"part {i % 2}" / f"{i}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        part.drop(columns="visit_id").to_parquet(path)
    again, _ = quietly(read_meds, folder)
    assert again["person_id"].tolist() == [1, 2, 3, 4]
    assert again["gender"].tolist() == ["F", "M", "F", "M"]


# the command line


def test_commands_read_databases(hospital, tmp_path, capsys):
    where = f"duckdb:///{hospital}/h.duckdb?query=select w, x, id % 7 as day from visits"
    schema = tmp_path / "schema.json"
    assert cli.main(["detect", where, "--target", "w", "--out", str(schema)]) == 0
    words = ["split", where, "--schema", str(schema), "--out", str(tmp_path)]
    assert cli.main(words) == 0
    assert len(read_table(tmp_path / "train.parquet")) == 180
    capsys.readouterr()
    assert cli.main(["detect", f"duckdb:///{hospital}/h.duckdb", "--out", str(schema)]) == 2
    assert "names a table or a query" in capsys.readouterr().err


def test_a_run_records_the_table_of_a_database(hospital, tmp_path, monkeypatch):
    where = f"sqlite:///{hospital}/h.db?table=visits"
    table = read_source(where)
    assert source_sha256(where, table) == fingerprint(table)
    found = {}

    def run(*args, **kwargs):
        found.update(kwargs)
        return SimpleNamespace(release=False)

    monkeypatch.setattr("synthmed_nb.pipeline.run", run)
    monkeypatch.setattr("synthmed_nb.pipeline.summary", lambda manifest: "")
    assert cli.main(["run", where, "--target", "w", "--out", str(tmp_path / "run")]) == 1
    assert found["inputs"] == {"table": fingerprint(table)}
    assert "sqlite" not in repr(found["parameters"])
