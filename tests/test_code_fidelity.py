"""Sets of codes: judged, attacked, and from a file to the pages of a run."""

import numpy as np
import pandas as pd
import pytest

from synthmed_nb import Canaries, Schema, Synthesizer, audit, evaluate
from synthmed_nb.canaries import canary_scores
from synthmed_nb.disclosure import find_copies
from synthmed_nb.flat_codes import flat, set_columns

COMMON = [f"{number}.{place}" for number in range(401, 431) for place in (0, 1)]
RARE = [f"V{number}.{place}" for number in range(10, 80) for place in range(10)]


def made_up(rows, seed=0, rare=True):
    """Patients with age, sex and codes: five of old age, two of women, and rare ones."""
    rng = np.random.default_rng(seed)
    age, sex = rng.integers(18, 95, rows), rng.choice(["F", "M"], rows)
    shares = 1 / np.arange(2, len(COMMON) + 2)
    sets = []
    for years, which in zip(age, sex, strict=True):
        size = rng.poisson(1 + years / 20)
        held = set(rng.choice(COMMON, min(size, 12), replace=False, p=shares / shares.sum()))
        held |= {"630.1"} if which == "F" and rng.random() < 0.15 else set()
        held |= {"600.0"} if which == "M" and rng.random() < 0.15 else set()
        held |= {rng.choice(RARE)} if rare and rng.random() < 0.3 else set()
        sets.append(sorted(held) if rng.random() < 0.97 else None)
    died = np.where(rng.random(rows) < 1 / (1 + np.exp(4 - age / 25)), "yes", "no")
    dx = pd.Series(sets, dtype=object)
    return pd.DataFrame({"age": age, "sex": sex, "dx": dx, "died": died})


@pytest.fixture(scope="module")
def parts():
    table = made_up(1500)
    schema = Schema.detect(table, target="died")
    assert schema.column("dx").kind == "codes"
    return schema, *schema.split(table)


def test_an_audit_sees_copied_sets(parts):
    schema, train, holdout, reference = parts
    blurred = train.assign(age=np.random.default_rng(1).permutation(train["age"]), sex="F")
    found = audit(train, holdout, reference, blurred, schema, progress=False)
    told = {attack.name: attack for attack in found.attacks}
    assert told["code overlap gain"].auc > 0.8  # all but the sets is gone
    assert found.copies.exact.p_value > 0.01 > found.copies.sets.p_value
    assert "dx" in found.copies.rare_columns and found.verdict == "FLAG"


def test_an_audit_of_independent_patients_finds_no_set(parts):
    schema, train, holdout, reference = parts
    other = made_up(900, seed=7, rare=False)
    found = audit(train, holdout, reference, other, schema, progress=False)
    told = {attack.name: attack for attack in found.attacks}
    assert told["code overlap"].auc_low < 0.5 and found.verdict != "FLAG"
    assert found.copies.sets.p_value > 0.01 and "dx" not in found.copies.rare_columns
    alone = audit(train, holdout, None, other, schema, progress=False)
    assert {"distance", "code overlap"} <= {attack.name for attack in alone.attacks}


def test_copies_look_at_the_whole_set(parts):
    schema, train, holdout, _ = parts
    lone = train[train["dx"].map(lambda cell: cell is not None and any(c in RARE for c in cell))]
    first = [cell[:1] for cell in lone["dx"]]
    for cells, expected in ((lone["dx"].tolist(), True), (first, False)):
        drawn = lone.assign(dx=pd.Series(cells, lone.index, dtype=object))
        tables = {"train": train, "holdout": holdout, "synthetic": drawn}
        tables, plain = flat(tables, schema)
        found = find_copies(
            {k: tables[k] for k in ("train", "holdout")}, tables["synthetic"], plain
        )
        assert (found.exact.members is not None and found.exact.members > 0.2) is expected


def test_canaries_hold_codes_of_eleven(parts):
    schema, train, _, reference = parts
    canaries = Canaries.draw(train, schema, 60, seed=0)
    held = train["dx"].explode().value_counts()
    assert held[canaries.outliers["dx"].explode().dropna().unique()].min() >= 11
    scores = canary_scores(canaries, reference, canaries.plant(train))
    assert scores["code overlap"].shape == (60,)


def test_a_model_with_codes_is_judged(parts):
    schema, train, holdout, reference = parts
    model = Synthesizer(schema, steps=20, seed=0).fit(train)
    drawn = model.sample(500, seed=1)
    found = evaluate(train, holdout, drawn, schema, progress=False)
    names = [column.name for column in found.fidelity.columns]
    assert "dx: codes" in names and "dx: 401.0" in names and "dx" not in names
    told = audit(train, holdout, reference, drawn, schema, model=model, progress=False)
    assert {"token loss", "code loss"} <= {attack.name for attack in told.white_box}
    assert "dx" not in told.copies.rare_columns  # no code of 1 to 10 patients


def test_plain_tables_are_left_alone():
    table = made_up(300).drop(columns="dx")
    schema = Schema.detect(table)
    same, plain = flat({"train": table}, schema, by=("train",))
    assert plain is schema and same["train"] is table and set_columns(table, schema) == []
