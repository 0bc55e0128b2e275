"""Whole runs: what a folder holds, the gate, the same bytes twice, and failures on the way."""

import json
import re
import shutil
from html import unescape

import pandas as pd
import pytest

from synthmed_nb import datasets, pipeline
from synthmed_nb.cards import CARDS
from synthmed_nb.pipeline import Options, run
from synthmed_nb.reports import PAGES, ReportError
from synthmed_nb.schema import InputError, Schema
from synthmed_nb.tables import file_sha256, read_table

COLUMNS = ["age_years", "sex", "sbp_mmhg", "bmi", "diabetes"]
OPTIONS = Options(steps=15, minutes=None, seed=3)
PRIVATE = {
    "schema.json", "train.parquet", "holdout.parquet", "reference.parquet", "model",
    "synthetic.parquet", "synthetic.csv", "evaluation.json", "audit.json", "provenance.json",
}  # fmt: skip
TOP = {
    "manifest.json", "private",
    *(f"{page}.{ending}" for page in PAGES for ending in ("html", "provenance.json")),
}  # fmt: skip


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def table():
    patients = datasets.load_nhanes()
    return patients[[name for name in patients if name in COLUMNS]].head(700)


@pytest.fixture(scope="module")
def schema(table):
    return Schema.detect(table, target="diabetes")


@pytest.fixture(scope="module")
def base(table, schema, tmp_path_factory):
    """One real run from end to end: its folder and its manifest."""
    out = tmp_path_factory.mktemp("runs") / "base"
    return out, run(table, schema, out, OPTIONS, inputs={"table": "0" * 64})


def plain_page(name, path, **parameters):
    """In place of a page, where the page is not what is asked about."""
    path.write_text(json.dumps(sorted(parameters)))


@pytest.fixture
def judged(base, monkeypatch):
    """Runs that take results from the real one, with a verdict of choice and plain pages."""
    out, _ = base
    evaluation = pipeline.Evaluation.model_validate_json(
        (out / "private" / "evaluation.json").read_text()
    )
    audit = pipeline.Audit.model_validate_json((out / "private" / "audit.json").read_text())

    def choose(verdict, of=None):
        def judge(train, holdout, reference, synthetic, schema, **_):
            seen = of or pipeline.fingerprint(schema.check(synthetic))
            return audit.model_copy(update={"verdict": verdict, "fingerprint": seen})

        monkeypatch.setattr(pipeline, "evaluate", lambda *_, **__: evaluation)
        monkeypatch.setattr(pipeline, "audit", judge)
        monkeypatch.setattr(pipeline, "report", plain_page)

    return choose


def test_what_a_run_leaves(base):
    out, manifest = base
    assert names(out) == TOP | ({"release"} if manifest.release else set())
    assert names(out / "private") == PRIVATE
    assert (out / "private").stat().st_mode & 0o077 == 0
    assert json.loads((out / "manifest.json").read_text()) == manifest.model_dump(mode="json")


def test_what_the_manifest_says(base):
    out, manifest = base
    assert manifest.parameters["target"] == "diabetes" and manifest.parameters["steps"] == 15
    assert manifest.seeds == {"split": 3, "fit": 3, "sample": 4, "evaluate": 3, "audit": 3}
    assert manifest.inputs == {"table": "0" * 64}
    assert [stage.name for stage in manifest.stages] == list(pipeline.STAGES[:-1])
    assert all(stage.seconds >= 0 and stage.peak_memory_mib > 50 for stage in manifest.stages)
    assert {"python", "torch", "synthmed_nb"} <= set(manifest.versions)
    for name, digest in manifest.outputs.items():
        assert file_sha256(out / name) == digest


def test_results_are_those_of_the_stages(base):
    out, manifest = base
    evaluation = json.loads((out / "private" / "evaluation.json").read_text())
    audit = json.loads((out / "private" / "audit.json").read_text())
    found = manifest.results
    told = {(m["name"], m["form"]): m["value"] for m in evaluation["fidelity"]["measures"]}
    assert found["shape_error"] == told["Shape", "paper"]
    assert found["trend_error"] == told["Trend", "paper"]
    assert found["fidelity_score"] == evaluation["fidelity"]["score"]["value"]
    assert found["utility_gap"] == evaluation["utility"]["gap"]
    assert found["verdict"] == audit["verdict"]
    assert {a["name"]: a["auc"] for a in audit["attacks"]} == {
        name: attack["auc"] for name, attack in found["attacks"].items()
    }


def test_pages_show_the_numbers_of_the_manifest(base):
    out, manifest = base
    found = manifest.results
    words = {
        page: " ".join(
            unescape(re.sub(r"<[^>]+>", " ", (out / f"{page}.html").read_text())).split()
        )
        for page in PAGES
    }
    for page, shown in (
        ("release", f"{found['fidelity_score']:.1f} %"),
        ("fidelity", f"{found['fidelity_score']:.1f} %"),
        ("fidelity", f" {found['shape_error']:.2f} % "),
        ("fidelity", f" {found['trend_error']:.2f} % "),
        ("fidelity", f" {found['detection_auc']:.3f} "),
        ("utility", f" {found['tstr']:.3f} "),
        ("utility", f" {found['trtr']:.3f} "),
        ("fidelity", "table sha256 " + "0" * 64),
    ):
        assert shown in words[page], (page, shown)
    assert found["verdict"] in words["privacy"]
    for name, attack in found["attacks"].items():
        row = f"{name} {attack['auc']:.3f} {attack['auc_low']:.3f} to {attack['auc_high']:.3f}"
        assert row in words["privacy"], row


def test_no_path_and_no_time_on_the_pages(base):
    out, _ = base
    for page in PAGES:
        text = (out / f"{page}.html").read_text()
        assert str(out) not in text and "/private" not in text
        assert not re.search(r"\b\d\d:\d\d\b", text)


def test_a_second_run_gives_the_same_bytes(base, table, schema, tmp_path, monkeypatch):
    """Also into a used folder, where nothing of the run before may be left.

    That the same results give the same pages is asked of the pages alone.
    """
    first, out = base[1], tmp_path / "used"
    shutil.copytree(base[0], out)
    (out / "release").mkdir(exist_ok=True)
    (out / "release" / "old.csv").write_text("old")
    (out / "mine.txt").write_text("mine")
    monkeypatch.setattr(pipeline, "report", plain_page)
    second = run(table, schema, out, OPTIONS, inputs={"table": "0" * 64})
    for name in ("synthetic.csv", "synthetic.parquet", "evaluation.json", "audit.json"):
        assert file_sha256(out / "private" / name) == file_sha256(base[0] / "private" / name)
    assert second.results == first.results and second.outputs.keys() == first.outputs.keys()
    assert not (out / "release" / "old.csv").exists()
    assert (out / "mine.txt").read_text() == "mine"


def test_another_seed_gives_other_rows(base, table, schema, tmp_path, judged):
    judged("FLAG")
    run(table, schema, tmp_path / "run", Options(steps=15, minutes=None, seed=4))
    one, other = (folder / "private" / "synthetic.csv" for folder in (base[0], tmp_path / "run"))
    assert one.read_bytes() != other.read_bytes()


def test_the_gate_is_open_on_pass(table, schema, tmp_path, judged):
    judged("PASS")
    manifest = run(table, schema, tmp_path, Options(steps=2, rows=50, override="just in case"))
    released = {"synthetic.parquet", "synthetic.csv", *CARDS, *(f"{page}.html" for page in PAGES)}
    assert manifest.release and manifest.override is None
    assert names(tmp_path / "release") == released
    assert {name for name in manifest.outputs if "/" in name} == {f"release/{r}" for r in released}
    handed_out = read_table(tmp_path / "release" / "synthetic.parquet")
    assert len(handed_out) == 50 and list(handed_out) == schema.released
    private = (tmp_path / "private" / "synthetic.csv").read_bytes()
    assert (tmp_path / "release" / "synthetic.csv").read_bytes() == private


@pytest.mark.parametrize("verdict", ["FLAG", "INCONCLUSIVE", "INVALID"])
def test_the_gate_is_shut_otherwise(verdict, table, schema, tmp_path, judged):
    judged("PASS")
    run(table, schema, tmp_path, Options(steps=2, rows=50))
    judged(verdict)
    manifest = run(table, schema, tmp_path, Options(steps=2, rows=50))
    assert not manifest.release and not (tmp_path / "release").exists()
    assert not (tmp_path / "private" / "cards").exists()
    assert set(manifest.outputs) == {f"{page}.html" for page in PAGES}


def test_a_reason_opens_the_gate_and_is_written_down(table, schema, tmp_path, judged, monkeypatch):
    shown = pipeline.report
    judged("FLAG")

    def page(name, path, **parameters):
        made = shown if name in ("release", "privacy") else plain_page
        return made(name, path, **parameters)

    monkeypatch.setattr(pipeline, "report", page)
    options = Options(steps=2, rows=50, override="agreed with the officer & board")
    manifest = run(table, schema, tmp_path, options)
    assert manifest.release and manifest.override == "agreed with the officer & board"
    assert json.loads((tmp_path / "manifest.json").read_text())["override"] == manifest.override
    for folder in (tmp_path, tmp_path / "release"):
        for page in ("release", "privacy"):
            assert "agreed with the officer &amp; board" in (folder / f"{page}.html").read_text()
    data, model, croissant = (tmp_path / "release" / name for name in CARDS)
    assert "because:** agreed with the officer &#38; board" in data.read_text()
    assert "model file is not part of this release" in model.read_text()
    for file in json.loads(croissant.read_text())["distribution"]:
        assert file["sha256"] == manifest.outputs[f"release/{file['name']}"]
        assert file["sha256"] == file_sha256(tmp_path / "release" / file["contentUrl"])


def test_an_audit_of_another_table_opens_nothing(table, schema, tmp_path, judged):
    judged("PASS", of="the fingerprint of a table with more rows")
    run(table, schema, tmp_path, Options(steps=2, rows=50))
    assert not (tmp_path / "release").exists()


@pytest.mark.parametrize("stage", ["Synthesizer", "evaluate", "audit", "report", "finish"])
def test_a_failure_leaves_nothing_that_looks_finished(
    stage, table, schema, tmp_path, judged, monkeypatch
):
    judged("PASS")
    run(table, schema, tmp_path, Options(steps=2, rows=50))
    assert (tmp_path / "release").is_dir()

    def fail(*_, **__):
        raise ReportError("made to fail")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, stage, fail)
        with pytest.raises(ReportError, match="made to fail"):
            run(table, schema, tmp_path, Options(steps=2, rows=50))
    assert names(tmp_path) == {"private", "unfinished.json"}
    run(table, schema, tmp_path, Options(steps=2, rows=50))  # and the folder is of use again
    assert (tmp_path / "release").is_dir() and not (tmp_path / "unfinished.json").exists()


def test_bad_input_leaves_an_older_run_as_it_was(base, table, schema):
    out, _ = base
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="diabetes"):
        run(table.drop(columns="diabetes"), schema, out, OPTIONS)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_patient_is_in_one_part_only(table):
    """With several rows per patient, and with a holdout of one's own."""
    table = table.assign(patient_id=[row // 3 for row in range(len(table))])
    schema = Schema.detect(table, target="diabetes", patient="patient_id")
    for cut in (None, 450):
        parts = pipeline.split(table.iloc[:cut], schema, cut and table.iloc[cut:], seed=0)
        patients = [set(part["patient_id"]) for part in parts]
        assert sum(map(len, patients)) == len(set.union(*patients))
        assert len(pd.concat(parts)) == len(table)
    with pytest.raises(InputError, match="patient_id"):
        pipeline.split(table.iloc[:451], schema, table.iloc[451:], seed=0)
