"""Rules that are stated: they hold in every row, however poor the network, and in files, too."""

import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from synthmed_nb.conditions import Conditions
from synthmed_nb.datasets import load_nhanes
from synthmed_nb.encoder import fit_encoder
from synthmed_nb.obeying import hold_rules
from synthmed_nb.proposals import propose
from synthmed_nb.requirements import Combinations, Linear, broken_rows
from synthmed_nb.rule_text import parse_rule
from synthmed_nb.schema import DataNote, InputError, Schema
from synthmed_nb.synthesizer import Synthesizer
from synthmed_nb.tables import read_table, write_table

pytestmark = pytest.mark.filterwarnings("ignore::synthmed_nb.schema.DataNote")


def hospital(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    came = pd.Timestamp("2015-01-01") + pd.to_timedelta(rng.integers(0, 700, rows), "D")
    left = came + pd.to_timedelta(rng.geometric(0.2, rows), "D")
    sex, code = rng.choice(["F", "M"], rows), rng.integers(0, 6, rows)
    pregnant = np.where(sex == "F", rng.choice(["no", "yes"], rows), "no")
    a, mg = rng.normal(50, 10, rows).round(1), rng.normal(100, 20, rows).round()
    b, sbp = rng.gamma(3, 6, rows).round(1), rng.normal(125, 15, rows).round()
    table = pd.DataFrame(
        {
            "came": came,
            "left day": left.strftime("%Y-%m-%d"),
            "sex": sex,
            "pregnant": pregnant,
            "weeks": np.where(pregnant == "yes", rng.integers(1, 41, rows), np.nan),
            "a": a,
            "b": b,
            "total": (a + b).round(1),
            "mg": mg.astype(int),
            "mmol": (mg / 18.016).round(1),
            "code": np.char.add("C", code.astype(str)),
            "ward": np.char.add("ward ", (code // 2).astype(str)),
            "sbp": sbp,
            "dbp": (sbp - rng.gamma(4, 9, rows) - 1).round(),
        }
    )
    table.loc[rng.random(rows) < 0.1, ["sbp", "dbp"]] = np.nan
    table.loc[rng.random(rows) < 0.1, "mg"] = 101
    table["mmol"] = (table["mg"] / 18.016).round(1)
    return table


RULES = [
    "came <= `left day`",
    "`left day` > came",
    "came >= 2015-01-01 and `left day` <= 2018-12-31",
    "sex = M -> pregnant = no",
    "sex = M and a > 40 -> weeks is missing and pregnant = no",
    "weeks missing only if pregnant = no",
    "pregnant = no -> weeks is missing",
    "total = a + b",
    "b >= 0",
    "total >= a",
    "mmol = mg / 18.016",
    "code, ward only as seen",
    "sbp > dbp",
    "sbp, dbp missing together",
    "sex, total never missing",
    "if sex = F and a < 45 then sex != M",
]
TABLE = hospital()
PLAIN = Schema.detect(TABLE)
ENCODER = fit_encoder(TABLE, PLAIN)


def ruled(rules) -> Schema:
    """The schema with rules, and with the combinations of the table looked up."""
    return PLAIN.require(*rules, broken="keep").obeying(PLAIN.check(TABLE))[1]


def broken(schema: Schema, table: pd.DataFrame) -> dict[str, int]:
    counts = broken_rows(schema.rules, schema.check(table), schema.columns).sum(axis=1)
    return {str(rule): int(n) for rule, n in zip(schema.rules, counts, strict=True) if n}


some_rules = st.lists(st.sampled_from(RULES), min_size=1, max_size=7, unique=True)
ends = st.tuples(st.sampled_from(["a", "b", "mg", "mmol"]), st.floats(0, 0.6), st.floats(0.3, 0.4))


def with_range(rules: list[str], end: tuple[str, float, float]) -> list[str]:
    name, low, width = end
    first, last = TABLE[name].quantile([low, low + width]).round(1)
    return [*rules, f"{first} <= {name} <= {last}"] if last - first >= 2 else rules


@given(some_rules, ends, st.integers(0, 99))
@example(RULES, ("mg", 0.2, 0.4), 0)
def test_rules_hold_in_rows_of_a_model_that_has_learned_nothing(rules, end, seed):
    """Columns drawn apart from each other: as bad as a network can be without masks."""
    rng = np.random.default_rng(seed)
    schema = ruled(with_range(rules, end))
    encoder = replace(ENCODER, schema=schema)
    noise = TABLE.apply(lambda x: x.to_numpy()[rng.permutation(len(x))])
    noise = noise.astype(TABLE.dtypes)
    held = hold_rules(Conditions.read(encoder, None, None), encoder, noise, 0, seed)
    assert broken(schema, held) == {} and len(held) == len(noise)
    assert held.dtypes.astype(str).tolist() == TABLE.dtypes.astype(str).tolist()


@pytest.fixture(scope="module")
def poor() -> Synthesizer:
    """Trained for so few steps that it knows next to nothing."""
    return Synthesizer(PLAIN, steps=20, seed=0).fit(TABLE)


def having(model: Synthesizer, schema: Schema) -> Synthesizer:
    """The model with rules that it was not fitted with: they need no training."""
    other = Synthesizer(schema, steps=20)
    other.training_, other._model = model.training_, model._model
    other._encoder = replace(model._encoder, schema=schema)
    return other


@settings(max_examples=12)
@given(
    some_rules, st.integers(0, 599), st.sets(st.sampled_from(list(TABLE.columns)), max_size=2),
    st.sampled_from([None, "sex", "pregnant", "ward"]), st.booleans(),
)  # fmt: skip
@example(RULES, 5, set(), None, False)
@example(RULES, 3, {"total", "mmol"}, None, False)
@example(RULES, 4, {"left day"}, "ward", True)
def test_rules_hold_also_for_what_is_asked(poor, rules, row, names, balance, span):
    """Asked for is what some real patient has, so all of it can be met."""
    schema = ruled(rules)
    assert broken(schema, TABLE) == {}
    model, patient = having(poor, schema), TABLE.iloc[row]
    wishes = {n: patient[n] for n in names if pd.notna(patient[n]) and n != balance}
    if span:
        wishes = {n: (v, None) if n in PLAIN.numeric else v for n, v in wishes.items()}
    try:
        drawn = model.sample(300, given=wishes, balance=balance, seed=row)
    except InputError:  # all levels of a column, but with a value that only one has
        assume(balance is None or not wishes)
        raise
    assert broken(schema, drawn) == {}
    for name, value in wishes.items():
        if isinstance(value, tuple):
            assert (pd.Series(drawn[name]) >= value[0]).all()
        else:
            assert (drawn[name] == value).all()
    if balance:
        assert drawn[balance].value_counts().std() <= 1


def test_rules_hold_after_writing_and_reading_and_loading(poor, tmp_path):
    schema = ruled(RULES)
    model = having(poor, schema)
    model.save(tmp_path / "model")
    drawn = Synthesizer.load(tmp_path / "model").sample(3000, seed=3)
    pd.testing.assert_frame_equal(drawn, model.sample(3000, seed=3))
    write_table(drawn, tmp_path / "drawn.csv")
    read = read_table(tmp_path / "drawn.csv")
    assert broken(schema, read) == {} and broken(schema, drawn) == {}
    left = pd.to_datetime(read["left day"])
    assert (left > pd.to_datetime(read["came"])).all() and read["left day"].str.len().eq(10).all()
    assert (read["mmol"] - read["mg"] / 18.016).abs().max() <= 0.05 + 1e-9
    assert (read["total"] - read["a"] - read["b"]).abs().max() < 1e-6


def test_gaps_are_filled_by_the_rules_and_known_cells_stay(poor):
    schema = ruled(RULES)
    rng = np.random.default_rng(1)
    holes = TABLE.head(250).mask(rng.random((250, TABLE.shape[1])) < 0.3)
    holes.loc[TABLE["weeks"].isna(), "weeks"] = np.nan
    checked = schema.check(holes)
    for draws in (1, 3):
        filled = having(poor, schema).impute(holes, draws=draws, seed=2)
        known = checked.notna()
        assert filled.where(known).equals(checked.where(known))
        assert broken(schema, filled) == {}
        assert filled["weeks"].isna().sum() >= (filled["pregnant"] == "no").sum() > 0


def test_nothing_is_heaped_up_at_a_border(poor):
    """Of rows that had to be moved, few lie on the border, and all of the range is used."""
    free = having(poor, PLAIN).sample(4000, seed=0)
    drawn = having(poor, ruled(["sbp > dbp", "a >= 45", "mg <= 110"])).sample(4000, seed=0)
    apart = (drawn["sbp"] - drawn["dbp"]).dropna()
    assert (free["sbp"] <= free["dbp"]).mean() > 0.02 and apart.min() >= 1
    assert (apart == 1).mean() < 2 * (apart == 5).mean() + 0.02
    for name, border, inside in (("a", 45, free["a"] >= 45), ("mg", 110, free["mg"] <= 110)):
        at = (drawn[name] == border).mean()
        assert at < 3 * (free.loc[inside, name] == border).mean() + 0.02, name
        assert abs(drawn[name].mean() - free.loc[inside, name].mean()) < 0.2 * free[name].std()


def test_a_key_is_numbered_afresh(poor):
    keyed = TABLE[["sex", "a"]].assign(record=np.random.default_rng(0).permutation(600) + 900_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataNote)
        schema = Schema.detect(keyed, keep=["record"]).require("record unique")
        model = Synthesizer(schema, steps=20, seed=0).fit(keyed)
    drawn = model.sample(5000, seed=0)
    assert drawn["record"].tolist() == list(range(1, 5001))
    with pytest.raises(InputError, match="record unique"):
        model.sample(10, given={"record": 900_001})
    some = keyed.head(50).astype({"record": "Int64"})
    some.loc[::5, "record"] = pd.NA
    filled = model.impute(some)
    assert filled["record"].is_unique and (filled["record"] == some["record"]).sum() == 40


def test_what_cannot_be_met_is_refused_before_any_work(poor):
    model = having(poor, ruled(RULES))
    for wishes in (
        {"came": "2016-06-01", "left day": "2016-05-01"},
        {"sex": "M", "pregnant": "yes"},
        {"sex": ["M"], "pregnant": ["yes"]},
        {"total": 40, "a": (60, None)},
        {"mg": 101, "mmol": 7.0},
        {"code": "C0", "ward": "ward 2"},
        {"sbp": (None, 100), "dbp": (120, None)},
    ):
        with pytest.raises(InputError):
            model.stream(10, given=wishes)


@pytest.mark.parametrize(
    ("wishes", "rule"),
    [
        ({"sex": "M", "pregnant": "yes"}, 'sex = "M" -> pregnant = "no"'),
        ({"sbp": (None, 100), "dbp": (120, None)}, "sbp > dbp"),
        ({"code": "C0", "ward": "ward 2"}, "code, ward only as listed"),
        ({"weeks": (1, 9), "pregnant": "no"}, "weeks is missing"),
    ],
)
def test_an_error_names_the_rule_that_what_is_asked_breaks(poor, wishes, rule):
    with pytest.raises(InputError) as told:
        having(poor, ruled(RULES)).stream(10, given=wishes)
    assert rule in told.value.rule


@pytest.mark.parametrize(
    "wishes",
    [
        {"total": (60, 80)}, {"sex": ["F", "M"], "total": (None, 90)},  # both never missing
        {"sbp": 120, "dbp": (None, 90)}, {"sbp": (100, 140), "dbp": (60, 139)},  # never apart
        {"weeks": (38, 40), "code": ["C0", "C5"], "mmol": (4, 6)},
        {"a": 50.0, "total": (51, 70)},
    ],
)  # fmt: skip
def test_rare_wishes_are_met_in_every_row_under_rules(poor, wishes):
    """Four thousand rows each, none a copy, and no more passes than blocks."""
    schema = ruled(RULES)
    drawn = having(poor, schema).sample(4000, given=wishes, seed=1)
    assert len(drawn) == 4000 == len(drawn.drop_duplicates()) and broken(schema, drawn) == {}
    for name, value in wishes.items():
        if isinstance(value, tuple):
            low, high = value
            assert low is None or (drawn[name] >= low).all()
            assert high is None or (drawn[name] <= high).all()
        else:
            assert drawn[name].isin(value if isinstance(value, list) else [value]).all()


def test_what_only_some_rows_can_meet_is_said(poor):
    """Of two values that may be drawn, the other breaks a rule with what else is fixed."""
    schema = PLAIN.require("sbp > dbp")
    near = {"sbp": [120, 122], "dbp": 121}
    with pytest.warns(DataNote, match="of 2,048 rows drawn break a rule.*copies"):
        drawn = having(poor, schema).sample(3000, given=near, seed=1)
    assert len(drawn) == 3000 and (drawn["sbp"] == 122).all() and (drawn["dbp"] == 121).all()


def test_rare_combinations_do_not_get_into_a_model(poor, tmp_path):
    """What fewer than 11 patients hold is not looked up, saved or drawn."""
    odd = TABLE[["code", "ward", "a"]].copy()
    odd.loc[:5, ["code", "ward"]] = ["C0", "ward 2"]
    schema = Schema.detect(odd).require("code, ward only as seen")
    model = Synthesizer(schema, steps=20, seed=0).fit(odd)
    (rule,) = model._fitted.schema.rules
    assert ("C0", "ward 0") in rule.rows and ("C0", "ward 2") not in rule.rows
    model.save(tmp_path)
    (loaded,) = Synthesizer.load(tmp_path)._fitted.schema.rules
    assert loaded == rule
    drawn = model.sample(2000, seed=0)
    assert set(zip(drawn["code"], drawn["ward"], strict=True)) <= set(rule.rows)


def test_rows_that_break_a_rule_are_said_and_dropped_or_refused():
    slips = TABLE[["sbp", "dbp", "sex"]].copy()
    slips.loc[:19, "dbp"] = 250.0
    slips.loc[:19, "sbp"] = 100.0
    plain = Schema.detect(slips)
    model = Synthesizer(plain.require("sbp > dbp", broken="drop"), steps=20)
    with pytest.warns(DataNote, match="20 rows break the rule 'sbp > dbp'; they are left out"):
        model.fit(slips)
    assert model.sample(500)["dbp"].max() < 250
    slips.loc[:59, "dbp"] = 250.0
    with pytest.raises(InputError, match="rows break the rule"):
        Synthesizer(plain.require("sbp > dbp"), steps=20).fit(slips)


def test_rules_as_objects_and_in_a_file(tmp_path):
    pairs = Combinations(columns=("sex", "pregnant"), rows=(("F", "yes"), ("M", "no")))
    schema = PLAIN.require(pairs, Linear(name="total", terms=(("a", 1.0), ("b", 1.0))), *RULES[:7])
    schema.save(tmp_path / "schema.json")
    assert Schema.load(tmp_path / "schema.json") == schema
    assert schema.edit("a", unit="kg").rules == schema.rules
    with pytest.raises(InputError, match="rules"):
        Schema.from_json(schema.to_json().replace('"low": "came"', '"lo": "came"'))


def test_real_patients_with_several_rules():
    names = [
        "sex", "age_years", "sbp_mmhg", "dbp_mmhg", "total_cholesterol_mg_dl", "hdl_mg_dl",
        "smoked_100_cigarettes", "smokes_now", "weight_kg", "diabetes", "insulin",
    ]  # fmt: skip
    table = load_nhanes()[names]
    plain = Schema.detect(table, target="diabetes")
    found = propose(table, plain)
    texts = {str(proposal.rule) for proposal in found}
    assert 'smoked_100_cigarettes = "no" -> smokes_now is missing' in texts
    schema = plain.require(*found, broken="keep").require(
        "sbp_mmhg > dbp_mmhg", "total_cholesterol_mg_dl >= hdl_mg_dl + 20", "weight_kg <= 150",
        "diabetes = no and age_years < 40 -> insulin = no", broken="keep",
    )  # fmt: skip
    model = Synthesizer(schema, steps=40, seed=0).fit(table)
    for wishes in (None, {"sbp_mmhg": (90, 100)}, {"weight_kg": (140, None), "diabetes": "yes"}):
        assert broken(schema, model.sample(2500, seed=1, given=wishes)) == {}
    assert broken(schema, model.sample(2500, balance="diabetes")) == {}


DATA = os.environ.get("SYNTHMED_DATA")


@pytest.mark.skipif(not DATA, reason="SYNTHMED_DATA is not set")
def test_real_encounters_with_several_rules():
    table = read_table(Path(DATA) / "diabetes130" / "diabetic_data.csv.gz", missing=["?"])
    names = ["gender", "age", "time_in_hospital", "num_lab_procedures", "num_procedures"]
    names += ["num_medications", "insulin", "change", "diabetesMed", "A1Cresult", "readmitted"]
    table = table.head(8000)[names]
    schema = Schema.detect(table, target="readmitted").require(
        "diabetesMed = No -> insulin = No and change = No", "insulin in (Up, Down) -> change = Ch",
        "num_medications >= num_procedures", "1 <= time_in_hospital <= 14",
        "change, diabetesMed, insulin only as seen", broken="keep",
    )  # fmt: skip
    model = Synthesizer(schema, steps=40, seed=0).fit(table)
    held = model._fitted.schema
    for wishes in (None, {"insulin": "Up", "num_procedures": (4, None)}):
        assert broken(held, model.sample(2500, seed=1, given=wishes)) == {}


WORDS = "came `left_day` sex a b total no_such M 'F' \"no\" 5 - + * / 0 1e300 2015-01-31".split()
WORDS += '0001-01-01 2015-99-99 < <= >= > = != -> ( ) , ; é `` " and `left day`'.split(" ")
WORDS += "if then in not is missing never only unique together as seen".split()


@settings(max_examples=400)
@given(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join))
def test_any_text_is_a_rule_or_an_input_error(text):
    """What is read is printed as text that is read as the same."""
    try:
        rules = parse_rule(text, PLAIN.columns)
    except InputError:
        return
    for rule in rules:
        assert parse_rule(str(rule), PLAIN.columns) == [rule]
