"""Sets of codes: judged, attacked, and from a file to the pages of a run."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from synthmed_nb import Canaries, Schema, Synthesizer, audit, cli, evaluate
from synthmed_nb.canaries import canary_scores
from synthmed_nb.code_fidelity import code_errors, code_fidelities
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
    assert "code overlap gain" in alone.skipped and "code overlap gain" in told
    assert "code overlap gain" not in found.skipped


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
    (codes,) = found.fidelity.codes
    assert codes.name == "dx" and codes.codes > 20 and codes.bound == 2
    measures = [m for m in found.fidelity.measures if m.family == "codes"]
    assert len(measures) == len(codes.marks) == 4 and all(m.floor is not None for m in measures)
    gaps = found.fidelity.missingness
    assert [name for name in gaps.names if name.startswith("dx")] == ["dx: codes"]
    assert not any(g.column.startswith("dx") and g.given.startswith("dx") for g in gaps.dependent)
    told = audit(train, holdout, reference, drawn, schema, model=model, progress=False)
    assert {"token loss", "code loss"} <= {attack.name for attack in told.white_box}
    assert "dx" not in told.copies.rare_columns  # no code of 1 to 10 patients


# fidelity


def pieces(seeds, rows=1500):
    """Flat tables of independent patients of the same kind, and their schema."""
    tables = {f"part {seed}": made_up(rows, seed) for seed in seeds}
    schema = Schema.detect(tables[f"part {seeds[0]}"], target="died")
    wide, plain = flat(tables, schema, by=list(tables)[:1], drawn=())
    return list(wide.values()), plain


def marks_of(tables, plain):
    columns, measures = code_fidelities(tables, tables[:2], plain)
    return {m.measure.split(",")[0]: m.state for m in columns[0].marks}, columns[0], measures


def test_other_real_patients_miss_no_mark_and_keep_their_ratio():
    missed = seen = 0
    for seed in range(4):
        tables, plain = pieces(range(10 * seed, 10 * seed + 3))
        states, column, measures = marks_of([tables[0], tables[1], tables[1], tables[2]], plain)
        assert "no" not in states.values() and states["wrong group"] == "yes"
        assert column.codes > 40 and column.pairs > 100
        told = [m for m in measures if m.ratio_low is not None]
        missed += sum(not m.ratio_low <= 1 <= m.ratio_high for m in told)
        seen += len(told)
    assert seen >= 8 and missed <= 1


def test_what_is_wrong_with_sets_is_seen():
    tables, plain = pieces(range(3))
    real, other, held = tables
    rng = np.random.default_rng(0)

    def judged(synthetic):
        return marks_of([real, synthetic, synthetic, held], plain)[0]

    sexes = other.assign(sex=rng.permutation(other["sex"]))
    assert judged(sexes)["wrong group"] == "no"
    held_codes = sorted({code for cell in other["dx"].dropna() for code in cell})
    names = dict(zip(held_codes, rng.permutation(held_codes), strict=True))
    moved = [c and tuple(names[code] for code in c) for c in other["dx"]]
    states = judged(other.assign(dx=pd.Series(moved, other.index, dtype=object)))
    assert states["code prevalence"] == states["code pairs"] == "no"
    counted = other.assign(**{"dx: codes": other["dx: codes"] + 2})
    assert judged(counted)["set sizes"] == "no"


def test_errors_are_those_of_plain_counting():
    real, other = made_up(400), made_up(300, seed=1)
    schema = Schema.detect(real, target="died")
    found = code_errors(real, other, schema, "dx")
    shares = []
    for table in (real, other):
        codes = table["dx"].explode().value_counts() / len(table)
        pairs = table[["dx"]].reset_index().explode("dx").dropna()
        pairs = pairs.merge(pairs, on="index")
        pairs = pairs[pairs["dx_x"] < pairs["dx_y"]]
        pairs = pairs.groupby(["dx_x", "dx_y"]).size() / len(table)
        shares.append((codes, pairs, table["dx"].dropna().map(len)))
    kept = [part[part >= 11 / 400] for part in shares[0][:2]]
    same = [shares[1][i].reindex(part.index, fill_value=0) for i, part in enumerate(kept)]
    assert (found["codes"], found["code_pairs"]) == (len(kept[0]), len(kept[1]))
    assert found["prevalence"] == pytest.approx(kept[0].corr(same[0], method="spearman"))
    off = ((kept[1] - same[1]) ** 2).sum() / ((kept[1] - kept[1].mean()) ** 2).sum()
    assert found["pairs"] == pytest.approx(1 - off)
    steps = np.arange(20)
    apart = [(s[2].to_numpy()[:, None] <= steps).mean(0) for s in shares]
    assert found["sizes"] == pytest.approx(np.abs(apart[0] - apart[1]).max())


# a run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a table with codes in one text: the table and the folder of results."""
    folder = tmp_path_factory.mktemp("codes")
    table = made_up(700)
    text = table.assign(dx=["|".join(c) if c is not None else None for c in table["dx"]])
    text.to_csv(folder / "t.csv", index=False)
    words = [
        "run", folder / "t.csv", "--target", "died", "--steps", 20, "--minutes", 1, "--seed", 0,
        "--out", folder / "out",
    ]  # fmt: skip
    assert cli.main([str(word) for word in words]) == 1  # too few patients to pass
    return table, folder / "out"


def numbers_in(found):
    """All numbers of a result, through lists and dictionaries."""
    if isinstance(found, dict | list):
        for part in found.values() if isinstance(found, dict) else found:
            yield from numbers_in(part)
    elif isinstance(found, int | float) and not isinstance(found, bool):
        yield found


def test_a_run_shows_codes_on_its_pages(run):
    _, out = run
    page = (out / "fidelity.html").read_text(encoding="utf-8")
    assert "Are sets of codes right?" in page and "Three panels for each of 1 columns" in page
    for name in ("code prevalence, dx", "code pairs, dx", "set sizes, dx", "wrong group, dx"):
        assert page.count(name) >= 2  # its answer, and the table of all
    privacy = (out / "privacy.html").read_text(encoding="utf-8")
    assert "code overlap gain" in privacy
    assert "members with a set of codes of theirs alone" in privacy


def test_a_run_tells_no_small_count_of_codes(run):
    table, out = run
    result = json.loads((out / "private" / "evaluation.json").read_text())
    (codes,), rows = result["fidelity"]["codes"], result["rows"]
    for side, of in (("real", rows["train"]), ("synthetic", rows["synthetic"])):
        shares = list(numbers_in([codes[key] for key in (side, f"pair_{side}", f"size_{side}")]))
        assert len(shares) > 20
        for share in shares:  # in steps that may be rounded, none stands for 1 to 10
            assert share == 0 or share * of > 10.4 or side == "real" and share * of > 5
    held = table["dx"].explode().value_counts()
    rare = set(held.index[held <= 10])
    sets = {"|".join(cell) for cell in table["dx"].dropna() if len(cell) > 2}
    assert len(rare) > 100 and len(sets) > 200
    pages = [path for path in out.glob("*") if path.suffix in (".html", ".json")]
    assert len(pages) >= 6
    for path in pages:
        text = re.sub(r'src="data:[^"]*"', "", path.read_text(encoding="utf-8"))
        found = set(re.findall(r"(?<![\w.])V\d\d\.\d(?![\w.])", text))
        assert not found & rare
        spelled = re.sub(r"[\"'\s\[\]()]", "", text).replace(",", "|")
        assert not any(cell in spelled for cell in sets)


def test_plain_tables_are_left_alone():
    table = made_up(300).drop(columns="dx")
    schema = Schema.detect(table)
    same, plain = flat({"train": table}, schema, by=("train",))
    assert plain is schema and same["train"] is table and set_columns(table, schema) == []
