"""What README and its neighbours say can be done."""

import re
import shlex
from functools import partial
from pathlib import Path

import pytest

from synthmed_nb import Schema, Synthesizer, cli, datasets

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "reports").glob("*.md")])


def block(language, place=0):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)[place]


def test_the_lines_of_python_work(monkeypatch):
    patients = datasets.load_nhanes().iloc[:600, -12:]
    monkeypatch.setattr(datasets, "load_nhanes", lambda: patients)
    code = block("python")
    assert "minutes=3" in code and len(code.strip().splitlines()) <= 8
    names = {}
    exec(code.replace("minutes=3", "minutes=0.05"), names)
    assert len(names["synthetic"]) == len(names["train"])
    assert names["verdict"].verdict in {"PASS", "FLAG", "INCONCLUSIVE", "INVALID"}


def test_what_a_fitted_model_does_works():
    patients = datasets.load_nhanes().head(1500)
    schema = Schema.detect(patients, target="diabetes")
    train, holdout = patients.head(1000), patients.tail(500)
    names = {"Synthesizer": partial(Synthesizer, steps=20), "schema": schema, "train": train}
    lines = block("python", 1).replace("draws=25", "draws=2").splitlines()
    names["holdout"] = holdout
    exec(lines[0], names)
    rows, filled, vectors = (eval(line, names) for line in lines[1:])
    assert (rows["sex"] == "Female").all() and rows["age_years"].between(65, 80).all()
    assert not filled[schema.modelled].isna().any().any() and len(vectors) == len(holdout)


def test_the_commands_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = "patients.csv visits.csv schema.json run/private/model cdm_folder/person.csv"
    for name in files.split():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    words = [shlex.split(line, comments=True) for line in block("sh").splitlines()]
    commands = [line[1:] for line in words if line[0] == "synthmed" and "--help" not in line]
    assert len(commands) >= 3
    for line in commands:
        assert cli.parser().parse_args(line).command == line[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert link.startswith("http") or (page.parent / link).exists(), link
