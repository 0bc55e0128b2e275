"""No planted value, no hash of one and no small count in anything that is written or said."""

import base64
import gzip
import hashlib
import importlib
import inspect
import io
import json
import logging
import re
import struct
import traceback
import warnings
import zlib
from contextlib import redirect_stderr, redirect_stdout
from html import unescape

import numpy as np
import pandas as pd
import pyarrow
import pytest
from leaks import BEARER, PLANTED, RARE, Search, planted_table, recoverable, small_counts

from synthmed_nb import Schema, Synthesizer, audit, cli, evaluate, fidelity, pipeline, reports
from synthmed_nb.bars import in_steps, nice
from synthmed_nb.cells import Cells
from synthmed_nb.columns import Column, InputError
from synthmed_nb.conditions import Request
from synthmed_nb.detection import Told
from synthmed_nb.learners import fit_features
from synthmed_nb.tables import read_table, write_table

SEARCH = Search(PLANTED)
RATES = [f"tpr_at_{rate}{end}" for rate in (1, 10) for end in ("", "_low", "_high")]
# What holds real rows because it is asked for them. It stays with the hospital's own data.
PARTS = {f"{part}.parquet" for part in ("train", "holdout", "reference")}
REAL_ROWS = {f"run/private/{part}" for part in PARTS} | {f"parts/{part}" for part in PARTS}
# A schema lists the declared levels of a category, to put other tables in its dtype.
SCHEMAS = {"run/private/schema.json", "schema.json"}

COMMANDS = (
    "run {0}/t.parquet --target outcome --patient patient_key --out {1}/run --steps 6 --minutes 1",
    "detect {0}/t.parquet --target outcome --patient patient_key --out {1}/schema.json",
    "split {0}/t.parquet --schema {1}/schema.json --out {1}/parts",
    "fit {1}/parts/train.parquet --schema {1}/schema.json --steps 4 --out {1}/model"
    " --checkpoint {1}/state",
    "sample {1}/model --rows 300 --out {1}/synthetic.parquet",
    "sample {1}/model --rows 90 --out {1}/given.csv.gz --given age=60..80 --balance code",
    "evaluate --train {1}/parts/train.parquet --holdout {1}/parts/holdout.parquet"
    " --synthetic {1}/synthetic.parquet --schema {1}/schema.json --out {1}/fidelity.json",
    "audit --train {1}/parts/train.parquet --holdout {1}/parts/holdout.parquet --model {1}/model"
    " --synthetic {1}/synthetic.parquet --schema {1}/schema.json --out {1}/audit.json",
    "report privacy --out {1}/privacy.html -p audit {1}/audit.json",
)
REFUSED = (  # bad input that holds what is planted
    "run {0}/ragged.csv --target outcome --out {1}/no",
    "run {0}/latin.csv --target outcome --out {1}/no",
    "run {0}/cut.parquet --target outcome --out {1}/no",
    "detect {0}/t.parquet --target age --patient lab --out {1}/no.json",
    "split {0}/mixed.csv --schema {1}/schema.json --out {1}/no",
    "split {0}/t.parquet --schema {0}/ragged.csv --out {1}/no",
    "sample {0} --rows 9 --out {1}/no.csv",
    "sample {1}/model --rows 9 --out {1}/no.csv --given ward=elsewhere",
    "audit --train {0}/t.parquet --holdout {0}/t.parquet --synthetic {1}/synthetic.parquet"
    " --schema {1}/schema.json --out {1}/no.json",
    "report fidelity --out {1}/failed.html -p evaluation {0}/rows.json",
)


def write_inputs(folder, table):
    """The planted table, and files that cannot be used and hold parts of it."""
    table.to_parquet(folder / "t.parquet")
    text = table.to_csv(index=False)
    (folder / "cut.parquet").write_bytes((folder / "t.parquet").read_bytes()[:-300])
    (folder / "latin.csv").write_bytes(text.replace("north", "nördlich").encode("latin-1"))
    lines = text.splitlines(keepends=True)
    lines[BEARER + 1] = lines[BEARER + 1].replace("\n", ",more\n")
    (folder / "ragged.csv").write_text("".join(lines))
    moved = table.assign(age=table["code"], lab=table["record_id"], seen=table["patient_key"])
    moved.to_csv(folder / "mixed.csv", index=False)
    rows = table.iloc[BEARER : BEARER + 2].astype(str).to_dict("records")
    (folder / "rows.json").write_text(json.dumps({"rows": rows, "fidelity": rows[0]}))


@pytest.fixture(scope="module")
def table():
    return planted_table()


@pytest.fixture(scope="module")
def commands(table, tmp_path_factory):
    """The folder that all commands wrote to, all that they said, and the notebooks they ran."""
    given, out = tmp_path_factory.mktemp("given"), tmp_path_factory.mktemp("out")
    write_inputs(given, table)
    said, log, notebooks = io.StringIO(), io.StringIO(), []
    run_notebook, handler = reports._executed, logging.StreamHandler(log)

    def executed(*args):
        notebooks.append(json.dumps(done := run_notebook(*args)))
        return done

    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.setattr(reports, "_executed", executed)
        root.setLevel(logging.DEBUG)
        for lines, codes in ((COMMANDS, {0, 1}), (REFUSED, {2, 3})):
            for line in lines:
                assert cli.main(line.format(given, out).split()) in codes, line
    root.setLevel(level)
    root.removeHandler(handler)
    return out, said.getvalue(), log.getvalue(), notebooks


@pytest.fixture(scope="module")
def api(table):
    """What the functions return, by name, and the warnings on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        schema = Schema.detect(table, target="outcome", patient="patient_key")
        train, holdout, reference = schema.split(table, seed=0)
        model = Synthesizer(schema, steps=4, seed=0).fit(train)
        synthetic = model.sample(300, seed=1)
        found = {
            "schema": schema, "model": model, "encoder": model._encoder, "trained": model._model,
            "evaluation": evaluate(train, holdout, synthetic, schema),
            "audit": audit(train, holdout, reference, synthetic, schema, model=model),
            "cells": Cells.of([train, synthetic], schema),
            "features": fit_features(train, schema),
            "request": Request.blank(3, model._encoder),
        }  # fmt: skip
    parts = {"train": train, "holdout": holdout, "reference": reference, "synthetic": synthetic}
    return found, parts, "\n".join(str(warning.message) for warning in caught)


# what the commands leave


def test_no_file_gives_a_value_away(commands):
    out, *_ = commands
    assert len(list(out.rglob("*"))) > 25
    assert SEARCH.in_folder(out, but=REAL_ROWS | SCHEMAS) == {}
    for name in SCHEMAS:
        assert SEARCH.in_file(out / name) <= {"ward", "bytes of ward"}
    for name in REAL_ROWS:  # the search would have seen it
        assert "train" not in name or {"number", "code", "patient"} <= SEARCH.in_file(out / name)


def test_nothing_said_gives_a_value_away(commands):
    _, said, log, notebooks = commands
    assert "verdict" in said and "rule: " in said and len(log.splitlines()) > 10
    assert len(notebooks) == 5
    for text in (said, log, *notebooks):
        assert SEARCH.in_text(text) == set()


def test_no_small_count_is_said_or_on_a_page(commands):
    out, said, _, _ = commands
    assert small_counts(said) == []
    pages = list(out.rglob("*.html"))
    assert len(pages) == 5
    for page in pages:
        shown = unescape(re.sub(r"<style.*?</style>|<[^>]+>", " ", page.read_text(), flags=re.S))
        assert small_counts(shown) == [], page.name


def test_a_rare_level_is_not_even_declared_in_synthetic_rows(commands, api):
    out, *_ = commands
    for path in (out / "run/private/synthetic.parquet", out / "synthetic.parquet"):
        levels = list(read_table(path)["ward"].cat.categories)
        assert levels == ["closed", "north", "south", "west"]
    _, parts, _ = api
    text = "\n".join(f"{dtype!r}" for dtype in parts["synthetic"].dtypes)
    assert SEARCH.in_text(text + parts["synthetic"].to_csv()) == set()


# what the functions return


def test_no_repr_gives_a_value_away(api):
    found, _, warned = api
    for name, result in found.items():
        shown = [repr(result), str(result), getattr(result, "_repr_html_", str)()]
        for text in shown:
            assert SEARCH.in_text(text) == set() and small_counts(text) == [], name
    assert "left out of the synthetic table" in warned and SEARCH.in_text(warned) == set()


def test_public_classes_that_hold_rows_were_looked_at():
    """A dataclass that holds arrays, frames or dictionaries of them shows none of them."""
    shown = set()
    for module in (
        "cells",
        "learners",
        "scores",
        "coefficients",
        "survival",
        "utility",
        "conditions",
        "membership",
        "neighbors",
        "disclosure",
        "sides",
        "controls",
    ):
        home = importlib.import_module(f"synthmed_nb.{module}")
        for name, kind in inspect.getmembers(home, inspect.isclass):
            fields = getattr(kind, "__dataclass_fields__", {})
            if kind.__module__ == home.__name__ and not name.startswith("_"):
                shown |= {name for field in fields.values() if field.repr and _rows(field.type)}
    assert shown <= {"Wish"}  # a wish is the user's own words


def _rows(annotation):
    return any(word in str(annotation) for word in ("ndarray", "DataFrame", "list[str]"))


def test_no_share_in_a_result_stands_for_few(commands):
    out, *_ = commands
    for path in (out / "fidelity.json", out / "run/private/evaluation.json"):
        found = json.loads(path.read_text())
        rows = found["rows"]
        for column in found["fidelity"]["columns"]:
            for share in (*column["real"], column["missing_real"]):
                assert not recoverable(share, rows["train"]), column["name"]
            assert [*column["real"], column["missing_real"]].count(None) != 1
    assert any(c["missing_real"] is None for c in found["fidelity"]["columns"])


def leaves(result, path=""):
    """Every value of nested dictionaries and lists, by its path."""
    if isinstance(result, dict | list):
        pairs = result.items() if isinstance(result, dict) else enumerate(result)
        return {k: v for key, part in pairs for k, v in leaves(part, f"{path}/{key}").items()}
    return {path: result}


@pytest.mark.parametrize(
    ("name", "value"), [("ward", "x"), ("ward", None), ("age", 99.0), ("age", None)]
)
def test_no_error_can_be_solved_for_a_small_count(name, value, monkeypatch):
    """S is known. From 1 to 10 patients of a kind a number takes at most one step, an end two."""
    facts = {"auc": 0.5, "auc_low": 0.5, "auc_high": 0.5, "score": 1, "clues": []}
    same = fidelity.Detection(detector="none", **facts, scores_real=[], scores_synthetic=[])
    told = Told(0.5, 0.0, (), [])
    monkeypatch.setattr(fidelity, "detection", lambda *_: (same, [told] * 3))
    facts = {"role": "feature", "reason": "made", "missing": True}
    columns = (
        Column(name="ward", kind="categorical", dtype="str", **facts),
        Column(name="age", kind="numeric", dtype="float64", **facts),
    )
    plain = pd.DataFrame(
        {"ward": np.repeat(["a", "b"], [700, 400]), "age": np.r_[np.arange(880) % 60, [70] * 220]}
    ).astype({"age": float})
    synthetic = plain.sample(900, random_state=0, ignore_index=True)
    found = []
    for count in (*range(1, 11), 60):
        real = plain.copy()
        real.loc[1_100 - count :, name] = value
        result = fidelity.fidelity(real, plain[::4], synthetic, Schema(columns=columns))
        found.append(leaves(result.model_dump()))
    *found, many = found
    for path in found[0]:
        if path == "/score/value":  # says nothing that its parts do not say
            for result in (*found, many):
                parts = [told for key, told in result.items() if key.startswith("/score/parts/")]
                assert len(parts) == 3 and abs(result[path] - np.mean(parts)) < 0.01
        elif "/real/" not in path:  # cells are hidden, not rounded: see shown_cells
            seen = {str(result[path]) for result in found}
            end = path.endswith(("low", "high"))  # moves with its value and with its spread
            assert len(seen) <= 2 + end, (path, seen)
    shape = next(path for path, told in many.items() if told == "Shape").replace("name", "value")
    assert found[0][shape] < many[shape]  # sixty are seen


def test_a_class_of_few_patients_has_no_auc():
    """An AUC is a fraction with the number of cases below the line."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.integers(20, 90, 600).astype(float)})
    table["ill"] = np.where(np.arange(600) % 40, "no", "yes")
    schema = Schema.detect(table, target="ill")
    train, holdout, _ = schema.split(table)
    cases = (holdout["ill"] == "yes").sum()
    assert 0 < cases < 11 and evaluate(train, holdout, train, schema).utility is None


def test_a_table_of_few_records_is_not_counted():
    table = planted_table()[["age", "lab", "outcome"]]
    schema = Schema.detect(table, target="outcome")
    found = evaluate(table[:400], table[400:409], table[409:], schema)
    assert found.rows["holdout"] is None and "fewer than 11" in found._repr_html_()


def test_no_number_of_an_audit_stands_for_few(api):
    found, parts, _ = api
    train, others = parts["train"], (parts["holdout"], parts["reference"])
    copied = pd.concat([parts["synthetic"], train.iloc[:3][list(parts["synthetic"])]])
    result = audit(train, *others, copied, found["schema"])
    members = result.rows["members"]
    copies = result.copies
    for searched in (copies.exact, copies.near, copies.rare):
        assert searched.members is None or not recoverable(searched.members, members)
        assert searched.non_members is None or not recoverable(searched.non_members, members)
        assert searched.p_value == min(1.0, nice(searched.p_value))  # 1, 2 or 5 times ten to n
    assert copies.exact.members is None  # three were planted
    assert not recoverable(copies.synthetic_share, result.rows["synthetic"])
    assert not recoverable(copies.holdout_share, result.rows["holdout"])
    rates = [getattr(attack, key) for attack in result.attacks for key in RATES]
    for rate in [*rates, *(result.bounds[k].upper for k in ("tpr_at_1", "tpr_at_10"))]:
        assert rate == in_steps(rate, members, np.round)  # known to five patients at best


# errors


def errors(table, api, folder):
    """Calls that cannot be met, by what is wrong; all of them hold planted values."""
    found, parts, _ = api
    schema, model = found["schema"], found["model"]
    train, holdout, _, synthetic = parts.values()
    bearer = table.iloc[[BEARER] * 300].reset_index(drop=True)
    garbage = folder / "garbage"
    garbage.mkdir()
    for name in ("model.json", "weights.safetensors"):
        (garbage / name).write_text(json.dumps(PLANTED))
    (garbage / "t.csv").write_text("a,b\n" + f"{RARE},{PLANTED['number']},\n" * 20)
    twice = pd.concat([table, table[["code"]]], axis=1)
    many = [f"{PLANTED['code']}{n % 11_000}" for n in range(22_000)]
    wide = pd.DataFrame({"code": many, "age": range(22_000)})
    text = schema.to_json().replace('"numeric"', f'"{PLANTED["code"]}"')
    return {
        "words for numbers": lambda: schema.check(table.assign(lab=PLANTED["words"])),
        "words for dates": lambda: schema.check(table.assign(seen=PLANTED["patient"])),
        "too large": lambda: Schema.detect(table.assign(steps=[10**400 + 918273] * len(table))),
        "lists": lambda: schema.check(table.assign(code=[[PLANTED["number"]]] * len(table))),
        "names twice": lambda: schema.check(twice),
        "one value": lambda: Schema.detect(bearer, target="outcome"),
        "one patient": lambda: Schema.detect(bearer, patient="patient_key"),
        "many levels": lambda: Schema.detect(wide, target="code"),
        "no such column": lambda: evaluate(train, holdout, synthetic.drop(columns="lab"), schema),
        "other kind": lambda: evaluate(train, holdout, synthetic.assign(lab="x"), schema),
        "same patients": lambda: audit(train, train, None, synthetic, schema),
        "both files": lambda: pipeline.split(table, schema, table[100:], 0),
        "gaps in the key": lambda: audit(
            train.assign(patient_key=None), holdout, None, synthetic, schema
        ),
        "rare wish": lambda: model.sample(9, given={"ward": RARE}),
        "no number": lambda: model.sample(9, given={"lab": PLANTED["code"]}),
        "no date": lambda: model.sample(9, given={"seen": PLANTED["count"]}),
        "empty range": lambda: model.sample(9, given={"steps": (PLANTED["count"], None)}),
        "impute": lambda: model.impute(train.assign(age=PLANTED["words"])),
        "hide": lambda: model.embed(train, hide=("record_id",)),
        "no schema": lambda: Schema.from_json(text),
        "no json": lambda: Schema.from_json(json.dumps(PLANTED)),
        "no model": lambda: Synthesizer.load(garbage),
        "ragged": lambda: read_table(garbage / "t.csv"),
        "mixed cells": lambda: write_table(
            pd.DataFrame({"a": [PLANTED["number"], RARE]}), garbage / "t.parquet"
        ),
    }


def test_no_error_gives_a_value_away(table, api, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for what, call in errors(table, api, tmp_path).items():
            with pytest.raises(InputError) as refused:
                call()
            told = "".join(traceback.format_exception(refused.value))
            assert "rule: " in told, what
            said = f"{refused.value}\n{refused.value!r}\n{told.splitlines()[-1]}"
            assert SEARCH.in_text(said) == set() and small_counts(said) == [], what
            shown = [line for line in told.splitlines() if "Error" in line]  # not our source code
            assert SEARCH.in_text("\n".join(shown)) == set(), what
    assert SEARCH.in_text("\n".join(str(w.message) for w in caught)) == set()


# the search itself

NUMBER = PLANTED["number"]
SVG = base64.b64encode(b"<svg><!-- Smallpox-isolation --></svg>").decode()
SPOKEN = {
    "as it is": f"<td>{NUMBER}</td>",
    "with a comma": f"{NUMBER:,}",
    "scientific": f"{NUMBER:e}",
    "in a picture": f'<img src="data:image/svg+xml;base64,{SVG}">',
    "in capitals": PLANTED["code"].lower(),
    "another date": "born 17.02.1931",
    "days": "[-1226707200.0]",
    "sha256": hashlib.sha256(RARE.encode()).hexdigest(),
    "md5": json.dumps({"key": hashlib.md5(str(NUMBER).encode()).hexdigest()}),
    "sha1 of bytes": hashlib.sha1(struct.pack("<d", NUMBER)).hexdigest().upper(),
    "crc32": f"{zlib.crc32(PLANTED['patient'].encode()):08x}",
    "pandas hash": str(pd.util.hash_array(np.array([RARE], dtype=object))[0]),
}
PACKED = {
    "float32": b"weights" + struct.pack("<f", NUMBER),
    "float64": struct.pack(">d", PLANTED["tiny"]),
    "int64": np.array([3, PLANTED["count"]]).tobytes(),
    "utf-16": PLANTED["words"].encode("utf-16-le"),
    "gzip": gzip.compress(PLANTED["record"].encode()),
}


@pytest.mark.parametrize("how", SPOKEN)
def test_the_search_finds_what_is_said(how):
    assert SEARCH.in_text(f"some page {SPOKEN[how]} and more") != set()


@pytest.mark.parametrize("how", PACKED)
def test_the_search_finds_what_is_packed(how, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "model.bin").write_bytes(PACKED[how])
    assert list(SEARCH.in_folder(tmp_path)) == ["deep/model.bin"]
    assert SEARCH.in_folder(tmp_path, but={"deep/model.bin"}) == {}


def test_the_search_finds_levels_without_rows(tmp_path):
    levels = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, 0]), ["north", RARE])
    pyarrow.parquet.write_table(pyarrow.table({"ward": levels}), tmp_path / "t.parquet")
    assert "ward" in SEARCH.in_file(tmp_path / "t.parquet")


def test_the_search_is_quiet_on_other_values():
    harmless = "lab 7319.5 of 2019-02-17, ward north, code Q99, 918274 steps, sha " + "0f" * 32
    assert SEARCH.in_text(harmless) == set() and SEARCH.in_bytes(struct.pack("<d", 7319.4)) == set()


def test_small_counts_are_found_in_words():
    for text in ("3 patients", "made from 7 real records", "1 of 420", "has 10 members."):
        assert small_counts(text), text
    for text in ("fewer than 11 patients", "no group of 1 to 10 patients", "11 patients", "0.9 %"):
        assert not small_counts(text), text
    assert [recoverable(n / 50, 50) for n in (0, 1, 10, 11, 40, 50)] == [
        False, True, True, False, True, False
    ]  # fmt: skip
    assert not recoverable(None, 50)
