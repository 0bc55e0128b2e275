"""Tables with columns of codes: drawn, asked for, filled, saved; and no rare code anywhere."""

import json

import numpy as np
import pandas as pd
import pytest

from synthmed_nb import Schema, Synthesizer
from synthmed_nb.schema import InputError
from synthmed_nb.tables import read_table, write_table

RARE = "A07.3"  # held by five patients


def clinic(rows: int = 900, seed: int = 0) -> pd.DataFrame:
    """Women with codes of pregnancy, men with codes of the prostate, both with some others."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["F", "M"], rows)
    own = {"F": ["O80", "O82", "O99.0"], "M": ["N40.0", "N40.1", "C61"]}
    common = ["I10", "E11.9", "E11.2", "J45.0", "J45.9", "K21.9"]
    sets = []
    for i, s in enumerate(sex):
        codes = list(rng.choice(common, rng.integers(0, 3), replace=False))
        codes += list(rng.choice(own[s], rng.integers(0, 2), replace=False))
        if "E11.9" in codes:
            codes.append("H36.0")
        sets.append([*codes, RARE] if i < 5 else codes)
    table = pd.DataFrame({"sex": sex, "dx": sets, "age": rng.integers(18, 90, rows)})
    table["first"] = [row[0] if row else None for row in sets]
    table.loc[5:40, "dx"] = None
    return table


@pytest.fixture(scope="module")
def schema():
    found = Schema.detect(clinic())
    found = found.edit("dx", system="ICD-10-CM")
    return found.edit("first", kind="code", system="icd10")


@pytest.fixture(scope="module")
def model(schema):
    return Synthesizer(schema, steps=300).fit(clinic(), progress=False)


@pytest.fixture(scope="module")
def drawn(model):
    return model.sample(900, seed=1, progress=False)


def test_sets_come_back_as_they_were(drawn, schema):
    real = clinic()
    assert list(drawn) == list(real)
    assert all(isinstance(cell, list) for cell in drawn["dx"].dropna())
    assert all(len(set(cell)) == len(cell) for cell in drawn["dx"].dropna())
    assert abs(drawn["dx"].isna().mean() - real["dx"].isna().mean()) < 0.03
    sizes = [t["dx"].dropna().map(len).value_counts(normalize=True) for t in (real, drawn)]
    assert sizes[0].sub(sizes[1], fill_value=0).abs().max() < 0.06
    assert schema.check(drawn)["dx"].map(type).isin([tuple, type(None)]).all()


def test_codes_of_one_sex_stay_there(drawn):
    lines = drawn[["sex", "dx"]].explode("dx").dropna()
    women = lines["dx"].str.startswith("O")
    men = lines["dx"].isin(["N40.0", "N40.1", "C61"])
    assert women.sum() > 50 and men.sum() > 50
    assert (lines["sex"][women] == "F").all() and (lines["sex"][men] == "M").all()


def test_codes_that_go_together_do(drawn):
    held = drawn["dx"].dropna()
    sick = held.map(lambda codes: "E11.9" in codes)
    eyes = held.map(lambda codes: "H36.0" in codes)
    assert eyes[sick].mean() > 0.6 > 0.1 > eyes[~sick].mean()


def test_a_rare_code_is_nowhere(model, drawn, tmp_path):
    model.save(tmp_path / "model")
    for file in (tmp_path / "model").iterdir():
        assert RARE.encode() not in file.read_bytes()
    assert RARE not in json.dumps([*drawn["dx"].dropna(), *drawn["first"].dropna()])


def test_a_saved_model_draws_the_same(model, drawn, tmp_path):
    model.save(tmp_path / "model")
    again = Synthesizer.load(tmp_path / "model").sample(900, seed=1, progress=False)
    pd.testing.assert_frame_equal(again, drawn)
    pd.testing.assert_frame_equal(model.sample(50, seed=1, progress=False), drawn[:50])


@pytest.mark.parametrize("given", [{"dx": "O80"}, {"dx": ["I10", "C61"]}, {"first": "N40.0"}])
def test_codes_that_are_asked_for_are_there(model, given):
    asked = model.sample(60, given=given, seed=2, progress=False)
    if "dx" in given:
        wanted = {given["dx"]} if isinstance(given["dx"], str) else set(given["dx"])
        assert all(wanted <= set(cell) for cell in asked["dx"])
    else:
        assert (asked["first"] == given["first"]).all()
    woman = given == {"dx": "O80"}
    assert (asked["sex"] == ("F" if woman else "M")).all()


def test_an_unknown_code_names_its_neighbours(model):
    with pytest.raises(InputError, match="the nearest that it knows: E11") as error:
        model.sample(5, given={"dx": "E11.65"})
    assert RARE not in str(error.value)
    with pytest.raises(InputError):
        model.sample(5, given={"dx": RARE})


def test_gaps_are_filled_and_nothing_else(model):
    table = clinic()
    filled = model.impute(table, seed=1)
    assert filled["dx"].notna().all()
    known = table["dx"].notna()
    assert [sorted(x) for x in filled["dx"][known]] == [sorted(x) for x in table["dx"][known]]


def test_files_hold_sets_as_lists_or_texts(model, drawn, tmp_path, schema):
    write_table(drawn, tmp_path / "t.parquet")
    back = schema.check(read_table(tmp_path / "t.parquet"))
    assert back["dx"].tolist() == schema.check(drawn)["dx"].tolist()
    text = clinic().assign(dx=["" if x is None else "|".join(x) for x in clinic()["dx"]])
    told = Schema.detect(text.assign(dx=text["dx"].where(text["dx"] != ""))).edit(
        "dx", kind="codes", system="ICD-10-CM"
    )
    some = Synthesizer(told, steps=20).fit(text, progress=False).sample(40, progress=False)
    assert some["dx"].dropna().map(type).eq(str).all() and some["dx"].str.contains("|").any()


def test_a_set_is_one_of_the_things_that_surprise(model):
    table = clinic()
    odd = table.assign(dx=table["dx"].sample(frac=1, random_state=1).tolist())
    losses = model.record_losses(table)
    assert losses.shape[1] == 24 + 8 or losses.shape[1] == 8 + 8
    assert losses[:, -8:].mean() < model.record_losses(odd)[:, -8:].mean()
    assert len(model.embed(table)) == len(table)


def test_patients_with_many_rows_count_once():
    table = clinic(400).drop(columns="first")
    table["who"] = np.arange(400) // 4
    table.loc[:39, "dx"] = pd.Series([["Z99.8"]] * 40)  # forty rows of ten patients
    schema = Schema.detect(table, patient="who", small=True)
    schema = schema.edit("dx", system="ICD-10-CM")
    drawn = Synthesizer(schema, steps=20).fit(table, progress=False).sample(300, progress=False)
    assert "Z99.8" not in set(drawn["dx"].explode().dropna())
