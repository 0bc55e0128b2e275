"""Datasets: the embedded table is what it says, and public tables are what their checksums say."""

import gzip
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from synthmed_nb import datasets
from synthmed_nb.schema import InputError

ROOT = Path(__file__).parents[1]
SHAPES = {
    "diabetes130": (101_766, 50),
    "nhanes_2017_2018": (8_366, 198),
    "brfss2015_diabetes": (253_680, 22),
    "covid_testing": (15_524, 17),
    "heart_disease_uci": (920, 15),
    "thyroid": (3_772, 30),
    "default_credit": (30_000, 24),
    "shoppers": (12_330, 18),
    "magic": (19_020, 11),
    "beijing_pm25": (43_824, 13),
    "adult": (48_842, 15),
}


def load(name):
    try:
        return datasets.load(name)
    except InputError as error:
        pytest.skip(str(error))


# the embedded table


def test_the_embedded_table():
    frame = datasets.load_nhanes()
    assert frame.shape == (5_265, 46)
    counts = frame["diabetes"].value_counts()
    assert counts.to_dict() == {"no": 4_262, "yes": 836, "borderline": 163}
    assert 0.06 < frame.isna().mean().mean() < 0.07
    assert frame["age_years"].between(20, 80).all()
    assert frame["dbp_mmhg"].min() > 0
    assert frame["sedentary_minutes"].max() <= 24 * 60


def test_embedded_numbers_have_the_decimals_of_their_instruments():
    frame = datasets.load_nhanes()
    for name in ("weight_kg", "hba1c_pct", "lead_ug_dl", "sugars_g"):
        assert (frame[name].dropna().round(2) == frame[name].dropna()).all()
    for name in ("sbp_mmhg", "pulse_bpm", "feeling_down", "age_years"):
        assert pd.api.types.is_integer_dtype(frame[name].dtype)


def test_the_dictionary_describes_each_column_and_counts_no_few():
    dictionary = datasets.nhanes_dictionary()
    assert list(dictionary["name"]) == list(datasets.load_nhanes().columns)
    assert dictionary["nhanes_variable"].is_unique and not (dictionary["label"] == "").any()
    for count in dictionary["new_gaps"]:
        assert count in ("", "fewer than 11") or int(count) >= 11


def test_the_embedded_files_are_small_and_say_where_they_come_from():
    folder = files("synthmed_nb.data")
    assert len((folder / "nhanes.csv.gz").read_bytes()) < 300_000
    text = (folder / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "public domain" in text and "National Center for Health Statistics" in text


def test_the_embedded_table_is_what_the_script_makes(tmp_path):
    load("nhanes_2017_2018")
    code = (
        "import pathlib, runpy, sys; "
        "module = runpy.run_path('benchmarks/make_nhanes.py'); "
        "main = module['main']; main.__globals__['OUT'] = pathlib.Path(sys.argv[1]); main()"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True, timeout=120)
    made, kept = ((f / "nhanes.csv.gz").read_bytes() for f in (tmp_path, files("synthmed_nb.data")))
    assert gzip.decompress(made) == gzip.decompress(kept)  # builds of zlib pack differently
    for name in ("nhanes_dictionary.csv", "ATTRIBUTION.md"):
        assert (tmp_path / name).read_bytes() == (files("synthmed_nb.data") / name).read_bytes()


# public tables


def test_each_public_table_is_known():
    assert set(datasets.PUBLIC) == set(datasets.SHA256) == set(SHAPES)
    digests = [digest for pair in datasets.SHA256.values() for digest in pair]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
    assert len(set(digests)) == 2 * len(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_a_public_table_is_read_as_published(name):
    frame, table = load(name), datasets.PUBLIC[name]
    assert frame.shape == SHAPES[name]
    assert table.target in frame.columns
    rows = datasets.test_rows(name)
    assert rows.dtype == np.int64 and (np.diff(rows) > 0).all() and rows[-1] < len(frame)
    assert abs(len(rows) / len(frame) - 0.2) < 0.01 or name == "adult"
    if table.patient:
        inside = np.isin(np.arange(len(frame)), rows)
        owners = frame[table.patient]
        assert not set(owners[inside]) & set(owners[~inside])


def test_quirks_are_read_as_their_pages_say():
    frame = load("diabetes130")
    assert {"None", "Norm", ">200", ">300"} == set(frame["max_glu_serum"])
    assert {"V57", "250.01"} < set(frame["diag_1"]) and not frame.isin(["?"]).any().any()
    assert frame["patient_nbr"].nunique() == 71_518 and frame["weight"].isna().mean() > 0.96
    assert datasets.load_diabetes130().equals(frame)
    adult = load("adult")
    assert set(adult["income"]) == {"<=50K", ">50K"} and adult["workclass"].isna().any()
    assert datasets.test_rows("adult")[0] == 32_561
    assert load("beijing_pm25")["pm2.5"].isna().sum() == 2_067
    assert load("thyroid")["TBG"].isna().all()
    assert pd.api.types.is_numeric_dtype(load("heart_disease_uci")["ca"].dtype)


@pytest.mark.parametrize("folder", [None, "", "/nowhere"])
def test_an_absent_folder_is_said_in_one_line(folder, monkeypatch):
    monkeypatch.delenv("SYNTHMED_DATA", raising=False)
    if folder is not None:
        monkeypatch.setenv("SYNTHMED_DATA", folder)
    for call in (datasets.load_diabetes130, lambda: datasets.test_rows("magic")):
        with pytest.raises(InputError, match="set the environment variable SYNTHMED_DATA"):
            call()


@pytest.mark.parametrize("call", [datasets.load, datasets.test_rows])
def test_an_unknown_table_is_refused(call):
    with pytest.raises(InputError, match="one of diabetes130"):
        call("mimic9")


@pytest.mark.parametrize("file", ["magic04.csv.gz", "test_rows.csv.gz"])
def test_a_table_with_other_bytes_is_refused(file, tmp_path, monkeypatch):
    load("magic")
    real = Path(os.environ["SYNTHMED_DATA"]) / "magic"
    (tmp_path / "magic").mkdir()
    for name in ("magic04.csv.gz", "test_rows.csv.gz"):
        data = bytearray((real / name).read_bytes())
        if name == file:
            data[-1] ^= 1
        (tmp_path / "magic" / name).write_bytes(data)
    monkeypatch.setenv("SYNTHMED_DATA", str(tmp_path))
    calls = [datasets.load, datasets.test_rows]
    bad, good = calls if file == "magic04.csv.gz" else calls[::-1]
    assert len(good("magic"))
    with pytest.raises(InputError, match=f"{file} is not the published file"):
        bad("magic")
