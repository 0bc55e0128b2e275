"""Cards of a release: heads that parse, names that stay names, metadata that others can load."""

import json
import re
import socket
import warnings

import mistune
import mlcroissant
import numpy as np
import pandas as pd
import pytest
import yaml
from leaks import PLANTED, Search, planted_table, small_counts
from report_pages import HOSTILE, example

from synthmed_nb.cards import CARDS, data_card, model_card, write_cards
from synthmed_nb.croissant import File, croissant
from synthmed_nb.schema import Schema
from synthmed_nb.tables import file_sha256, write_table

EVALUATION = {
    "rows": {"train": 3159, "holdout": 1053, "reference": 1053, "synthetic": 3159},
    "fidelity": {
        "score": {
            "value": 95.8,
            "low": 94.1,
            "high": 97.2,
            "floor": 100.0,
            "parts": {"columns": 99.2, "pairs": 98.6, "detection": 89.9},
            "sentence": "Of what an independent real sample reaches, the table reaches this share.",
        }
    },
    "utility": {"claim": {"sentence": "Models lose 1.6 % of the AUC: within 3 %."}},
    "bias": {"worst": "Pairs are furthest off for sex Female: 1.31 times the floor."},
}
MANIFEST = example("manifest") | {
    "parameters": {"privacy": 0.25},
    "override": "agreed with the board",
}
AUDIT = example("audit")
TRAINING = {
    "parameters": 41_234,
    "tokens": {"steps": 2_175, "stopped_by": "early stop"},
    "residuals": {"steps": 800, "stopped_by": "minutes"},
}
FILES = [File("synthetic.csv", "a" * 64, 1234), File("synthetic.parquet", "b" * 64, 567)]
HUB_KEYS = {
    "license", "license_name", "pretty_name", "language", "tags", "size_categories", "configs",
    "task_categories", "library_name",
}  # fmt: skip


def patients(rows=300):
    """Made-up records with a column of each type, with gaps, under plain names."""
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 999, rows), unit="D")
    table = pd.DataFrame(
        {
            "age_years": rng.integers(18, 90, rows),
            "lab": np.round(rng.normal(5, 1, rows), 2),
            "visits": pd.array(rng.integers(0, 30, rows), dtype="Int64"),
            "seen": days,
            "born": days.strftime("%Y-%m-%d"),
            "smokes": rng.random(rows) < 0.3,
            "told": pd.array(rng.random(rows) < 0.5, dtype="boolean"),
            "grade": pd.Categorical(rng.integers(1, 4, rows)),
            "ward": rng.choice(["north", "south"], rows),
            "site": "one",
            "empty": np.nan,
        }
    )
    for name in ("lab", "visits", "seen", "told", "ward"):
        table.loc[rng.random(rows) < 0.1, name] = pd.NA if name != "seen" else pd.NaT
    return table


def detected(table, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Schema.detect(table, **options)


def hostile(target):
    """A schema in which names, units and descriptions are hostile."""
    table = patients().iloc[:, : len(HOSTILE)].set_axis(HOSTILE, axis=1)
    schema = detected(table, target=target)
    return schema.edit(HOSTILE[0], unit=HOSTILE[1], description=HOSTILE[3])


def both_cards(schema, evaluation=EVALUATION):
    return (
        data_card(MANIFEST, evaluation, AUDIT, schema, FILES),
        model_card(MANIFEST, evaluation, AUDIT, schema, TRAINING),
    )


def head(card):
    opening, front, body = re.split(r"^---\n", card, maxsplit=2, flags=re.MULTILINE)
    assert opening == ""
    return yaml.safe_load(front), body


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a test asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def release(tmp_path):
    """The cards and tables of a release side by side, its schema and its table."""
    table = patients()
    schema = detected(table, target="smokes")
    tables = [tmp_path / name for name in ("synthetic.parquet", "synthetic.csv")]
    for path in tables:
        write_table(schema.check(table), path)
    write_cards(tmp_path, MANIFEST, EVALUATION, AUDIT, schema, TRAINING, tables)
    return tmp_path, schema, table


# heads and Markdown


@pytest.mark.parametrize("target", HOSTILE, ids=range(len(HOSTILE)))
def test_heads_are_yaml_that_hubs_know(target):
    data, model = (head(card)[0] for card in both_cards(hostile(target)))
    for keys in (data, model):
        assert keys.keys() <= HUB_KEYS
        assert keys["license"] == "other" and keys["license_name"]
        assert all(isinstance(tag, str) for tag in keys["tags"])
    assert data["size_categories"] == ["1K<n<10K"]
    assert data["task_categories"][0] in ("tabular-classification", "tabular-regression")
    assert data["configs"][0]["data_files"] == FILES[1].name
    visible = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(target.split()))
    assert data["pretty_name"].partition("target: ")[2][:59] == visible[:59]


def test_names_are_no_markup():
    render = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "url"])
    evaluation = EVALUATION | {"bias": {"worst": " ".join(HOSTILE)}}
    for card in both_cards(hostile(HOSTILE[2]), evaluation):
        page = render(head(card)[1])
        ours = "h1|h2|p|ul|li|strong|table|thead|tbody|tr|th|td|pre|code"
        assert re.findall(rf"<(?!/?(?:{ours})\b)[^>]*>", page) == []
        rows = [line for line in card.splitlines() if line.startswith("| ")]
        assert {line.count("|") for line in rows} <= {4, 6}
        assert "\u202e" not in card and "\x00" not in card and "{{" not in card
        assert page.count("<h1>") == 1 and max(map(len, card.splitlines())) < 3_000
    data = both_cards(hostile(HOSTILE[2]))[0]
    assert len([line for line in data.splitlines() if line.startswith("| ")]) == 4 + 2 + len(
        HOSTILE
    )


def test_all_that_was_measured_is_told():
    for card in both_cards(detected(patients())):
        assert "95.8 % (95 % interval 94.1 to 97.2 %" in card and "detection 89.9 %" in card
        for said in (
            EVALUATION["fidelity"]["score"]["sentence"],
            EVALUATION["utility"]["claim"]["sentence"],
            EVALUATION["bias"]["worst"],
            "FLAG under the policy controlled-access",
            *AUDIT["reasons"],
            "Released without a PASS, because:** agreed with the board",
            AUDIT["fingerprint"],
        ):
            assert said in card, said
    assert "model file is not part of this release" in card and AUDIT["model"]["reasons"][1] in card


# privacy


def test_no_level_no_small_count_and_no_path(tmp_path):
    schema = detected(planted_table(), target="outcome", patient="patient_key")
    assert Search(PLANTED).in_text(schema.to_json()) == {"ward"}  # it would be seen
    few_rows = EVALUATION | {"rows": {"train": 7, "holdout": None, "synthetic": 3}}
    tables = [tmp_path / name for name in ("synthetic.csv", "synthetic.parquet")]
    for path in tables:
        path.write_bytes(b"x")
    paths = write_cards(tmp_path, MANIFEST, few_rows, AUDIT, schema, TRAINING, tables)
    assert [path.name for path in paths] == list(CARDS)
    for path in paths:
        said = path.read_text()
        assert Search(PLANTED).in_text(said) == set() and small_counts(said) == []
        assert str(tmp_path) not in said and "north" not in said and "patient_key" not in said
    assert "fewer than 11 records" in paths[0].read_text()
    assert "fewer than 11 records of other patients" in paths[1].read_text()


# Croissant


def test_metadata_is_valid_under_any_name(no_network):
    for target in HOSTILE:
        schema = hostile(target)
        found = json.loads(json.dumps(croissant(MANIFEST, AUDIT, schema, FILES)))
        checked = mlcroissant.Dataset(jsonld=found).metadata
        assert not checked.ctx.issues.errors
        fields = checked.record_sets[0].fields
        assert {field.source.extract.column for field in fields} == set(schema.released)
        assert {file.name: file.sha256 for file in checked.file_objects} == {
            file.name: file.sha256 for file in FILES
        }
    warned = checked.ctx.issues.warnings
    left_open = {re.search(r"https\S+/(\w+)", warning)[1] for warning in warned}
    assert left_open == {"datePublished"}


def test_metadata_loads_the_records(release, no_network):
    folder, schema, table = release
    dataset = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    records = list(dataset.records("records"))
    table = table.assign(born=pd.to_datetime(table["born"]))
    assert len(records) == len(table)
    fields = dataset.metadata.record_sets[0].fields
    kinds = {field.id: field.data_types[0].rpartition("/")[2] for field in fields}
    assert kinds == {
        "records/age_years": "Integer", "records/lab": "Float", "records/visits": "Integer",
        "records/seen": "DateTime", "records/born": "Date", "records/smokes": "Boolean",
        "records/told": "Boolean", "records/grade": "Integer", "records/ward": "Text",
        "records/site": "Text", "records/empty": "Integer",
    }  # fmt: skip
    for name in schema.released:
        for record, cell in zip(records, table[name], strict=True):
            value = record[f"records/{name}"]
            if pd.isna(cell):
                assert value is None, name
            else:
                assert (value.decode() if isinstance(value, bytes) else value) == cell, name


def test_a_changed_table_is_noticed(release, no_network):
    folder, *_ = release
    listed = json.loads((folder / "croissant.json").read_text())["distribution"]
    assert {file["name"]: file["sha256"] for file in listed} == {
        name: file_sha256(folder / name) for name in ("synthetic.csv", "synthetic.parquet")
    }
    with (folder / "synthetic.csv").open("a") as file:
        file.write("1\n")
    dataset = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    with pytest.raises(Exception, match="Download.synthetic.csv") as refused:
        next(iter(dataset.records("records")))
    assert "Hash of downloaded file" in str(refused.value.__cause__)


def test_same_release_same_cards(release, tmp_path):
    folder, schema, _ = release
    tables = [folder / name for name in ("synthetic.csv", "synthetic.parquet")]
    before = [(folder / name).read_bytes() for name in CARDS]
    again = write_cards(tmp_path / "b", MANIFEST, EVALUATION, AUDIT, schema, TRAINING, tables)
    assert [path.read_bytes() for path in again] == before
