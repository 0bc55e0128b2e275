"""The commands, as a person types them: what they write, what they say, how they end."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from synthmed_nb import cli, controls, datasets, pipeline
from synthmed_nb.arguments import OPTIONS
from synthmed_nb.controls import Control
from synthmed_nb.schedules import SCHEDULES
from synthmed_nb.schema import Schema
from synthmed_nb.tables import read_table, write_table

SECRET = "Zx17-secret"  # a cell value; it must not turn up in anything that is said
COLUMNS = ["age_years", "sex", "sbp_mmhg", "bmi", "diabetes"]


def synthmed(capsys, *words):
    """Exit code, standard output and standard error (without notes) of a command."""
    capsys.readouterr()
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    lines = said.err.splitlines()
    return code, said.out, [line for line in lines if not line.startswith("note: ")]


def patients(rows=400):
    """A made-up table whose cells can be recognised."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 90, rows),
            "ward": rng.choice([SECRET, "other", "third"], rows),
            "weight": rng.normal(70, 9, rows).round(1),
            "sick": rng.choice(["no", "yes"], rows),
        }
    )


@pytest.fixture(scope="module")
def nhanes():
    table = datasets.load_nhanes()
    return table[[name for name in table if name in COLUMNS]].head(700)


@pytest.fixture(scope="module")
def steps(nhanes, tmp_path_factory):
    """A folder with the result of every single step."""
    folder = tmp_path_factory.mktemp("steps")
    nhanes.to_csv(folder / "table.csv", index=False)
    for words in (
        "detect {0}/table.csv --target diabetes --out {0}/schema.json",
        "split {0}/table.csv --schema {0}/schema.json --out {0}",
        "fit {0}/train.parquet --schema {0}/schema.json --out {0}/model --steps 20 --minutes 1",
        "sample {0}/model --rows 400 --out {0}/synthetic.csv --seed 1",
        "evaluate --train {0}/train.parquet --holdout {0}/holdout.parquet"
        " --synthetic {0}/synthetic.csv --schema {0}/schema.json --out {0}/fidelity.json",
        "audit --train {0}/train.parquet --holdout {0}/holdout.parquet --model {0}/model"
        " --reference {0}/reference.parquet --synthetic {0}/synthetic.csv"
        " --schema {0}/schema.json --out {0}/audit.json",
        "report fidelity --out {0}/fidelity.html -p evaluation {0}/fidelity.json -p panels 2",
        "report utility --out {0}/utility.html -p evaluation {0}/fidelity.json",
        "report privacy --out {0}/privacy.html -p audit {0}/audit.json",
        "report release --out {0}/release.html -p evaluation {0}/fidelity.json"
        " -p audit {0}/audit.json -p pages True",
    ):
        assert cli.main(words.format(folder).split()) == 0, words
    return folder


# the steps


def test_detect_writes_the_schema_and_says_why(steps, capsys):
    code, out, _ = synthmed(
        capsys, "detect", steps / "table.csv", "--target", "diabetes", "--out", steps / "again.json"
    )
    schema = Schema.load(steps / "again.json")
    assert code == 0 and schema == Schema.load(steps / "schema.json")
    assert schema.target == "diabetes"
    assert len(out.splitlines()) == len(schema.columns)
    assert all(column.reason in out for column in schema.columns)


def test_split_leaves_three_disjoint_parts(steps, nhanes):
    parts = [read_table(steps / f"{name}.parquet") for name in ("train", "holdout", "reference")]
    assert [len(part) for part in parts] == [420, 140, 140]
    together = pd.concat(parts).sort_values(list(nhanes)).reset_index(drop=True)
    original = nhanes.sort_values(list(nhanes)).reset_index(drop=True)
    pd.testing.assert_frame_equal(together, original, check_dtype=False)


def test_sample_keeps_columns_and_count(steps, nhanes):
    synthetic = read_table(steps / "synthetic.csv")
    assert list(synthetic) == list(nhanes) and len(synthetic) == 400


def test_sample_gives_what_is_asked_for(steps, tmp_path, capsys):
    out = tmp_path / "given.parquet"
    words = ["sample", steps / "model", "--rows", 40, "--out", out, "--seed", 3]
    code, _, _ = synthmed(capsys, *words, "--given", "diabetes=yes", "--given", "age_years=60")
    given = read_table(out)
    assert code == 0 and set(given["diabetes"]) == {"yes"} and set(given["age_years"]) == {60}
    assert synthmed(capsys, *words, "--balance", "diabetes")[0] == 0
    counts = read_table(out)["diabetes"].value_counts()
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("given", ["no_such=1", "age_years=old"])
def test_sample_refuses_what_it_cannot_give(steps, tmp_path, capsys, given):
    words = ["sample", steps / "model", "--rows", 5, "--out", tmp_path / "x.csv", "--given", given]
    code, _, lines = synthmed(capsys, *words)
    assert code == 2 and len(lines) == 1 and given.split("=")[0] in lines[0]


def test_same_seed_same_rows(steps, tmp_path, capsys):
    words = ["sample", steps / "model", "--rows", 50]
    for name, seed in (("a.csv", 1), ("b.csv", 1), ("c.csv", 2)):
        assert synthmed(capsys, *words, "--seed", seed, "--out", tmp_path / name)[0] == 0
    a, b, c = ((tmp_path / f"{name}.csv").read_bytes() for name in "abc")
    assert a == b != c


def test_fit_takes_a_schedule_and_goes_on_from_a_checkpoint(steps, tmp_path, capsys):
    words = ["fit", steps / "train.parquet", "--schema", steps / "schema.json", "--steps", 20]
    words += ["--schedule", "linear", "--checkpoint", tmp_path / "state"]
    for name in "ab":
        assert synthmed(capsys, *words, "--out", tmp_path / name)[0] == 0
    one, other = ((tmp_path / name / "weights.safetensors").read_bytes() for name in "ab")
    assert one == other and any((tmp_path / "state").iterdir())
    assert json.loads((tmp_path / "a" / "model.json").read_text())["schedule"]["name"] == "linear"
    assert set(OPTIONS["--schedule"]["choices"]) == set(SCHEDULES)


def test_evaluate_and_audit_write_json(steps):
    fidelity = json.loads((steps / "fidelity.json").read_text())
    assert 0 < fidelity["fidelity"]["score"]["value"] <= 100
    found = json.loads((steps / "audit.json").read_text())
    assert found["verdict"] in {"PASS", "FLAG", "INCONCLUSIVE", "INVALID"} and found["reasons"]
    assert found["model"]["verdict"] and found["white_box"]


def test_audit_without_reference_and_model(steps, tmp_path, capsys):
    words = ["audit", "--train", steps / "train.parquet", "--holdout", steps / "holdout.parquet"]
    words += ["--synthetic", steps / "train.parquet", "--schema", steps / "schema.json"]
    code, out, _ = synthmed(capsys, *words, "--out", tmp_path / "audit.json")
    found = json.loads((tmp_path / "audit.json").read_text())
    assert code == 0 and found["model"] is None and not found["white_box"]
    assert found["verdict"] == "FLAG" and "verdict: FLAG" in out  # the train rows themselves


def test_calibrate_tells_what_each_setting_costs(steps, tmp_path, capsys):
    words = ["calibrate", steps / "model", "--schema", steps / "schema.json", "--rows", "300"]
    for part in ("train", "holdout", "reference"):
        words += [f"--{part}", steps / f"{part}.parquet"]
    code, out, _ = synthmed(capsys, *words, "--out", tmp_path / "calibration.json")
    found = json.loads((tmp_path / "calibration.json").read_text())
    assert code == 0 and out.count("privacy") >= len(found["settings"]) >= 1
    assert found["privacy"] is None and "none passed" in out  # too few patients to pass


def test_the_auditor_is_audited(nhanes, tmp_path, capsys, monkeypatch):
    """The command; the controls themselves are run where audits are tested."""
    told = dict(flagged=1.0, invalid=0.0, smallest_p=0.001)
    found = [
        Control(name="copies shuffled", expected="FLAG", passed=True, **told),
        Control(name="other patients", expected="no FLAG", passed=False, **told),
    ]
    asked = {}

    def suite(table, schema, **options):
        asked.update(options, rows=len(table))
        return found

    monkeypatch.setattr(controls, "audit_the_auditor", suite)
    nhanes.to_csv(tmp_path / "t.csv", index=False)
    words = ["audit-the-auditor", tmp_path / "t.csv", "--out", tmp_path / "controls.json"]
    code, out, _ = synthmed(capsys, *words, "--repeats", 3, "--seed", 5)
    assert code == 0 and (asked["rows"], asked["repeats"], asked["seed"]) == (700, 3, 5)
    assert out.splitlines()[-2].split() == "ok copies shuffled FLAG flagged 100%".split()
    assert out.splitlines()[-1].split() == "FAIL other patients no FLAG flagged 100%".split()
    kept = json.loads((tmp_path / "controls.json").read_text())["controls"]
    assert [Control(**control) for control in kept] == found


def test_reports_are_pages(steps):
    for name in ("release", "fidelity", "utility", "privacy"):
        page = (steps / f"{name}.html").read_text(encoding="utf-8")
        assert page.startswith("<!DOCTYPE html>") and "This is an example" not in page


def test_a_wrong_parameter_is_refused(tmp_path, capsys):
    for words in (["fidelity", "-p", "no_such", "1"], ["no_such"]):
        code, _, lines = synthmed(capsys, "report", *words, "--out", tmp_path / "page.html")
        assert code == 2 and len(lines) == 1 and not list(tmp_path.iterdir())


# the whole path


def test_run_with_a_holdout_of_its_own(steps, tmp_path, capsys, monkeypatch):
    """All of TABLE is train; without a PASS there is no release and the exit code is 1."""
    judge = pipeline.audit
    too_few = {"verdict": "INCONCLUSIVE"}
    monkeypatch.setattr(pipeline, "report", lambda name, path, **_: path.write_text(name))
    monkeypatch.setattr(
        pipeline, "audit", lambda *a, **k: judge(*a, **k).model_copy(update=too_few)
    )
    write_table(pd.concat([read_table(steps / f"{p}.parquet") for p in ("holdout", "reference")]),
                tmp_path / "kept.csv")  # fmt: skip
    words = ["run", steps / "train.parquet", "--holdout", tmp_path / "kept.csv", "--steps", 5]
    words += ["--target", "diabetes", "--out", tmp_path / "run", "--rows", 60, "--keep", "sex"]
    words += ["--privacy", 0.5]
    code, out, lines = synthmed(capsys, *words)
    assert code == 1 and "no release" in lines[-1]
    assert "verdict     INCONCLUSIVE" in out and "Traceback" not in "".join(lines)
    assert "What helps: more privacy" in out
    assert not (tmp_path / "run" / "release").exists()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["inputs"].keys() == {"table", "holdout"}
    assert manifest["parameters"]["keep"] == ["sex"] and manifest["parameters"]["rows"] == 60
    assert manifest["parameters"]["privacy"] == 0.5
    private = tmp_path / "run" / "private"
    words = ["sample", private / "model", "--rows", 60, "--seed", 1, "--out", tmp_path / "more.csv"]
    assert synthmed(capsys, *words, "--privacy", 0.5)[0] == 0
    same = read_table(tmp_path / "more.csv").equals(read_table(private / "synthetic.csv"))
    assert same  # the run drew with the privacy that was asked for
    assert len(read_table(private / "train.parquet")) == 420
    assert len(read_table(private / "reference.parquet")) == 140
    assert len(read_table(private / "synthetic.csv")) == 60


def test_patients_in_both_files_are_refused(tmp_path, capsys):
    table = patients().assign(patient_id=range(400))
    table.to_csv(tmp_path / "t.csv", index=False)
    table.tail(210).to_csv(tmp_path / "h.csv", index=False)
    words = ["run", tmp_path / "t.csv", "--holdout", tmp_path / "h.csv", "--target", "sick"]
    code, _, lines = synthmed(capsys, *words, "--patient", "patient_id", "--out", tmp_path / "run")
    assert code == 2 and "'patient_id'" in lines[-1] and not (tmp_path / "run").exists()


# help


def test_help_and_version_need_no_heavy_package():
    script = """
import sys
from synthmed_nb.cli import COMMANDS, main
for words in (["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)):
    try:
        main(words)
    except SystemExit as end:
        assert end.code == 0, words
assert not {"torch", "pandas", "numpy"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Exit codes" in done.stdout and "--override" in done.stdout


def test_the_command_is_installed():
    done = subprocess.run(
        [sys.executable, "-c", "from importlib.metadata import entry_points as e; "
         "(s,) = e(group='console_scripts', name='synthmed'); print(s.load())"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "function main" in done.stdout, done.stderr


# bad input: exit code 2, one line, nothing written


def refuse(capsys, tmp_path, path, *words, target="sick"):
    """Run on a bad table; returns the one line that is said."""
    before = sorted(tmp_path.iterdir())
    command = ["run", path, "--target", target, "--out", tmp_path / "run", *words]
    code, out, lines = synthmed(capsys, *command)
    assert code == 2 and out == "" and len(lines) == 1, (code, out, lines)
    assert "rule: " in lines[0] and "to mend: " in lines[0]
    assert SECRET not in lines[0] and "Traceback" not in lines[0]
    assert sorted(tmp_path.iterdir()) == before
    return lines[0]


def csv(tmp_path, table):
    table.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


@pytest.mark.parametrize("rows", [0, 1, 199])
def test_too_few_rows(rows, tmp_path, capsys):
    assert "row" in refuse(capsys, tmp_path, csv(tmp_path, patients().head(rows)))


@pytest.mark.parametrize("rows", [0, 1])
def test_small_does_not_mean_none(rows, tmp_path, capsys):
    refuse(capsys, tmp_path, csv(tmp_path, patients().head(rows)), "--small")


def test_small_allows_fewer_rows(tmp_path, capsys):
    path = csv(tmp_path, patients(199))
    words = ["detect", path, "--target", "sick", "--out", tmp_path / "schema.json"]
    assert synthmed(capsys, *words)[0] == 2
    assert synthmed(capsys, *words, "--small")[0] == 0
    assert Schema.load(tmp_path / "schema.json").small


def test_a_file_without_a_byte(tmp_path, capsys):
    path = tmp_path / "table.csv"
    path.write_bytes(b"")
    refuse(capsys, tmp_path, path)


def test_repeated_column_names(tmp_path, capsys):
    path = tmp_path / "table.csv"
    path.write_text("age,sick,age\n" + "50,yes,51\n" * 300)
    assert "'age'" in refuse(capsys, tmp_path, path)


def test_an_empty_column_name(tmp_path, capsys):
    path = tmp_path / "table.csv"
    path.write_text("age,,sick\n" + "50,1,yes\n" * 300)
    assert "number 2" in refuse(capsys, tmp_path, path)


def test_the_target_is_not_there(tmp_path, capsys):
    assert "'sic'" in refuse(capsys, tmp_path, csv(tmp_path, patients()), target="sic")


@pytest.mark.parametrize("value", [SECRET, None])
def test_the_target_says_nothing(value, tmp_path, capsys):
    path = csv(tmp_path, patients().assign(sick=value))
    assert "'sick'" in refuse(capsys, tmp_path, path)


@pytest.mark.parametrize("ending", ["csv.gz", "parquet"])
def test_a_truncated_file(ending, tmp_path, capsys):
    path = tmp_path / f"table.{ending}"
    write_table(patients(2_000), path)
    path.write_bytes(path.read_bytes()[:-400])
    refuse(capsys, tmp_path, path)


def test_a_file_that_is_no_table(tmp_path, capsys):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20)
    refuse(capsys, tmp_path, path)


def test_an_unknown_kind_of_file(tmp_path, capsys):
    path = tmp_path / "table.docx"
    path.write_text(SECRET)
    refuse(capsys, tmp_path, path)


def test_a_column_of_lists_of_lists(tmp_path, capsys):
    path = tmp_path / "table.parquet"
    patients().assign(codes=[[[SECRET], ["b"]]] * 400).to_parquet(path)
    assert "'codes'" in refuse(capsys, tmp_path, path)


def test_ten_thousand_categories(tmp_path, capsys):
    codes = [f"{SECRET}-{number % 10_000}" for number in range(25_000)]
    path = csv(tmp_path, patients(25_000).assign(ward=codes))
    assert "'ward'" in refuse(capsys, tmp_path, path)


def test_a_folder_with_other_files(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.docx").write_text("mine")
    assert "thesis" not in refuse(capsys, tmp_path, csv(tmp_path, patients()))
    assert (tmp_path / "run" / "thesis.docx").read_text() == "mine"


def test_a_file_that_is_not_there(tmp_path, capsys):
    code, _, lines = synthmed(
        capsys, "run", tmp_path / "no.csv", "--target", "y", "--out", tmp_path / "run"
    )
    assert code == 2 and len(lines) == 1 and "no.csv" in lines[0]


def test_a_schema_that_is_none(tmp_path, capsys):
    path, schema = csv(tmp_path, patients()), tmp_path / "schema.json"
    schema.write_text('{"columns": "' + SECRET)
    words = ["split", path, "--schema", schema, "--out", tmp_path / "parts"]
    code, _, lines = synthmed(capsys, *words)
    assert code == 2 and len(lines) == 1 and SECRET not in lines[0]


# input that is mended, and said


def detect(capsys, tmp_path, table, *words):
    """The schema of a table and the notes on it."""
    capsys.readouterr()
    out = tmp_path / "schema.json"
    write_table(table, tmp_path / "table.parquet")
    command = ["detect", tmp_path / "table.parquet", "--target", "sick", "--out", out, *words]
    assert cli.main([str(word) for word in command]) == 0
    said = capsys.readouterr()
    assert SECRET not in said.err + said.out
    notes = [line for line in said.err.splitlines() if line.startswith("note: ")]
    return Schema.load(out), notes


def test_infinite_values_become_missing_and_are_counted(tmp_path, capsys):
    table = patients().astype({"age": float})
    table.loc[:14, "weight"] = np.inf
    table.loc[15:17, "age"] = -np.inf
    schema, notes = detect(capsys, tmp_path, table)
    assert schema.column("weight").missing and schema.column("age").missing
    assert any("'weight'" in note and "15" in note for note in notes)
    assert any("'age'" in note and "fewer than 11" in note for note in notes)


def test_constant_and_empty_columns_are_kept_out_of_the_model(tmp_path, capsys):
    table = patients().assign(site="one", later=None)
    schema, _ = detect(capsys, tmp_path, table)
    assert schema.column("site").role == "constant" and schema.column("later").role == "empty"
    assert {"site", "later"} <= set(schema.released) - set(schema.modelled)


def test_identifiers_and_free_text_are_dropped_unless_kept(tmp_path, capsys):
    texts = [
        f"Seen on day {n}; {SECRET} was told to come back in {n * 7} weeks" for n in range(400)
    ]
    table = patients().assign(record_id=[f"{SECRET}{n}" for n in range(400)], notes=texts)
    schema, notes = detect(capsys, tmp_path, table)
    for name in ("record_id", "notes"):
        assert schema.column(name).role == "drop" and name not in schema.released
        assert any(f"'{name}'" in note for note in notes)
    schema, _ = detect(capsys, tmp_path, table, "--keep", "record_id")
    assert "record_id" in schema.released and "notes" not in schema.released


def test_markers_of_gaps(tmp_path, capsys):
    table = patients().astype({"age": str})
    table.loc[:49, "age"] = "?"
    path = csv(tmp_path, table)
    words = ["detect", path, "--target", "sick", "--out", tmp_path / "schema.json"]
    assert synthmed(capsys, *words, "--missing", "?")[0] == 0
    column = Schema.load(tmp_path / "schema.json").column("age")
    assert column.kind == "numeric" and column.missing


# our fault


def test_a_fault_of_ours_is_one_line_without_values(monkeypatch, tmp_path, capsys):
    def fail(*_, **__):
        raise KeyError(SECRET)

    path = csv(tmp_path, patients())
    words = ["detect", path, "--target", "sick", "--out", tmp_path / "schema.json"]
    monkeypatch.setattr(Schema, "detect", fail)
    code, _, lines = synthmed(capsys, *words)
    assert code == 3 and len(lines) == 1 and "KeyError" in lines[0] and SECRET not in lines[0]
    code, _, lines = synthmed(capsys, *words, "--debug")
    assert code == 3 and "Traceback (most recent call last):" in lines


def test_stopped_by_hand(monkeypatch, tmp_path, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Schema, "detect", stop)
    words = ["detect", csv(tmp_path, patients()), "--out", tmp_path / "schema.json"]
    code, _, lines = synthmed(capsys, *words)
    assert code == 130 and lines == ["synthmed detect: stopped"]
