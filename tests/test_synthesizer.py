"""The synthesizer as its user meets it: seeds, files, conditions, gaps."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from synthmed_nb.model import draw
from synthmed_nb.schema import InputError, Schema
from synthmed_nb.synthesizer import Synthesizer
from synthmed_nb.tables import read_table, write_parts


def clinic(rows: int = 500, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.integers(20, 90, rows)
    insulin = rng.choice(["no", "yes"], rows, p=[0.7, 0.3])
    return pd.DataFrame(
        {
            "age_years": age,
            "sbp_mmhg": (100 + 0.5 * age + rng.normal(0, 8, rows)).round(1),
            "insulin": insulin,
            "dose": np.where(insulin == "yes", rng.integers(1, 60, rows), np.nan),
            "ward": rng.choice(["A", "B", "C"], rows),
        }
    )


@pytest.fixture(scope="module")
def fitted() -> tuple[pd.DataFrame, Synthesizer]:
    frame = clinic()
    return frame, Synthesizer(Schema.detect(frame, target="insulin"), steps=600, seed=0).fit(frame)


def test_one_seed_gives_the_same_bytes_and_two_do_not(fitted, tmp_path):
    frame, model = fitted
    schema = model.schema
    twin = Synthesizer(schema, steps=600, seed=0).fit(frame)
    other = Synthesizer(schema, steps=600, seed=1).fit(frame)
    for name, one in (("model", model), ("twin", twin), ("other", other)):
        one.save(tmp_path / name)
        one.sample(100, seed=3).to_csv(tmp_path / f"{name}.csv")
    read = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in tmp_path.rglob("*.*")}
    for file in ("weights.safetensors", "model.json"):
        assert read[f"model/{file}"] == read[f"twin/{file}"]
        assert read[f"model/{file}"] != read[f"other/{file}"]
    assert read["model.csv"] == read["twin.csv"] != read["other.csv"]


def test_another_process_samples_the_same_rows(fitted, tmp_path):
    _, model = fitted
    model.save(tmp_path / "m")
    model.sample(30, seed=9).to_csv(tmp_path / "here.csv", index=False)
    code = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[3]));"
        "from synthmed_nb import Synthesizer;"
        "Synthesizer.load(sys.argv[1]).sample(30, seed=9).to_csv(sys.argv[2], index=False)"
    )
    there = tmp_path / "there.csv"
    threads = str(torch.get_num_threads())
    subprocess.run([sys.executable, "-c", code, tmp_path / "m", there, threads], check=True)
    assert there.read_bytes() == (tmp_path / "here.csv").read_bytes()


def test_dependent_gaps_are_kept_in_every_row(fitted):
    """The dose is missing exactly when there is no insulin, whatever the noise floors."""
    _, model = fitted
    for privacy in (0.0, 1.0):
        synthetic = model.sample(1000, seed=1, privacy=privacy)
        assert (synthetic["dose"].isna() == (synthetic["insulin"] == "no")).all()


def test_what_is_asked_for_keeps_the_rules_too(fitted):
    """A dose means insulin, and a dose without insulin cannot be asked for."""
    _, model = fitted
    assert (model.sample(500, seed=1, given={"dose": (5, 30)})["insulin"] == "yes").all()
    assert model.sample(500, seed=1, given={"insulin": ["yes"]})["dose"].notna().all()
    for wrong in (
        {"given": {"dose": 20, "insulin": "no"}},
        {"given": {"dose": 20}, "balance": "insulin"},
    ):
        with pytest.raises(InputError, match="goes together"):
            model.stream(10, **wrong)


def test_what_follows_from_other_columns_follows_exactly(tmp_path):
    frame = clinic()
    frame["risk"] = frame["sbp_mmhg"] + frame["age_years"]
    model = Synthesizer(Schema.detect(frame), steps=30).fit(frame)
    model.save(tmp_path)
    drawn = Synthesizer.load(tmp_path).sample(500, seed=1, given={"age_years": (40, 60)})
    assert np.allclose(drawn["risk"], drawn["sbp_mmhg"] + drawn["age_years"])
    gaps = frame.assign(risk=np.nan)
    pd.testing.assert_series_equal(model.impute(gaps)["risk"], frame["risk"])
    asked = model.sample(50, seed=1, given={"risk": 180.0})
    assert (asked["risk"] == 180.0).all()


def test_given_holds_in_every_row(fitted):
    _, model = fitted
    rows = model.sample(200, given={"ward": "B", "sbp_mmhg": 131.5, "insulin": "yes"}, seed=1)
    assert (rows["ward"] == "B").all() and (rows["sbp_mmhg"] == 131.5).all()
    assert rows["dose"].notna().mean() > 0.9


def test_the_file_holds_no_planted_row(tmp_path):
    frame = clinic()
    frame.loc[3, ["sbp_mmhg", "ward"]] = [271.828, "Ward of Mr Lonely"]
    schema = Schema.detect(frame)
    model = Synthesizer(schema, steps=20).fit(frame)
    model.save(tmp_path)
    content = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert b"Lonely" not in content and b"271.8" not in content
    for number in (np.float32(271.828), np.float64(271.828)):
        assert number.tobytes() not in content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]
    assert "Ward of Mr Lonely" not in set(model.sample(2000, seed=0)["ward"])


def test_repr_and_json_show_no_values(fitted, tmp_path):
    frame, model = fitted
    assert repr(model).startswith("Synthesizer(5 columns")
    json.dumps(model.training_)
    text = repr(model)
    assert not any(str(v) in text for v in frame["sbp_mmhg"].head(50))


def test_a_minute_cap_ends_training_and_says_so():
    frame = clinic()
    model = Synthesizer(Schema.detect(frame), seed=0).fit(frame, minutes=0.01)
    assert model.training_["tokens"]["stopped_by"] == "minutes"
    assert len(model.sample(10)) == 10


def test_progress_runs_from_start_to_end():
    frame, seen = clinic(), []
    model = Synthesizer(Schema.detect(frame), steps=100)
    model.fit(frame, progress=lambda done, note: seen.append(done))
    assert seen == sorted(seen) and 0 < seen[0] < seen[-1] <= 1


def test_a_table_of_categories_only_and_of_numbers_only():
    frame = clinic()
    for columns in (["insulin", "ward"], ["age_years", "sbp_mmhg"]):
        part = frame[columns]
        drawn = Synthesizer(Schema.detect(part), steps=60).fit(part).sample(50, seed=0)
        assert (drawn.dtypes == part.dtypes).all() and drawn.notna().all().all()


def test_visits_of_one_patient_share_a_side():
    frame = clinic().assign(patient_id=np.repeat(np.arange(250), 2))
    schema = Schema.detect(frame, patient="patient_id")
    drawn = Synthesizer(schema, steps=30).fit(frame).sample(20, seed=0)
    assert "patient_id" not in drawn


def test_bad_calls_are_refused(fitted, tmp_path):
    frame, model = fitted
    with pytest.raises(InputError, match="at least 1"):
        model.sample(0)
    with pytest.raises(InputError, match="'age_years'"):
        Synthesizer(model.schema).fit(frame.drop(columns="age_years"))
    with pytest.raises(ValueError, match="device"):
        Synthesizer(model.schema, device="abacus")
    model.save(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"\x80\x04 not weights")
    with pytest.raises(InputError, match="no readable model"):
        Synthesizer.load(tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_and_the_cpu_samples(tmp_path):
    frame = clinic()
    model = Synthesizer(Schema.detect(frame), steps=50, device="cuda").fit(frame)
    model.save(tmp_path)
    assert len(Synthesizer.load(tmp_path, device="cpu").sample(10)) == 10


def test_no_pickle_in_the_model_folder(fitted, tmp_path):
    fitted[1].save(tmp_path)
    for path in Path(tmp_path).iterdir():
        assert path.read_bytes()[:2] not in (b"\x80\x04", b"\x80\x05", b"PK")


def test_sets_and_ranges_hold_in_every_row(fitted):
    _, model = fitted
    wishes = {"ward": ["A", "C"], "age_years": (40, 59), "sbp_mmhg": (None, 130)}
    rows = model.sample(3000, given=wishes, seed=1)
    assert set(rows["ward"]) == {"A", "C"} and rows["age_years"].between(40, 59).all()
    assert (rows["sbp_mmhg"] <= 130).all()
    assert rows["age_years"].value_counts().max() < 300  # not heaped at the ends
    doses = model.sample(500, given={"dose": {5, 10, 20}}, seed=1)["dose"]
    assert set(doses) == {5, 10, 20}


def test_wishes_and_gaps_take_a_bounded_number_of_passes(fitted, monkeypatch):
    """No row is drawn to be thrown away: one pass a block, also for what nobody in training has."""
    frame, model = fitted
    alone = frame[(frame["age_years"] == 21) & (frame["sbp_mmhg"] >= 150)]
    assert not len(alone)  # never seen together
    passes = []

    def counted(*args, **options):
        passes.append(options["block"])
        return draw(*args, **options)

    monkeypatch.setattr("synthmed_nb.sampler.draw", counted)
    for wishes in (
        {"age_years": 21, "sbp_mmhg": (150, None)},
        {"insulin": "yes", "dose": [1, 59], "ward": "C", "age_years": (88, None)},
    ):
        passes.clear()
        rows = model.sample(5000, given=wishes, seed=1)
        assert len(rows) == 5000 and len(passes) == 3
        if "dose" in wishes:
            assert set(rows["dose"]) == {1, 59} and (rows["insulin"] == "yes").all()
            assert (rows["ward"] == "C").all() and (rows["age_years"] >= 88).all()
        else:
            assert (rows["age_years"] == 21).all() and (rows["sbp_mmhg"] >= 150).all()
    passes.clear()
    model.impute(frame.head(50), draws=3)
    assert len(passes) == 6  # what is empty, and then what it would hold


def test_filling_gaps_that_mean_something_does_not_spoil_the_rest(fitted):
    """Who has a dose has insulin; that empty doses are filled is no reason for more of it."""
    frame, model = fitted
    hidden = np.random.default_rng(0).random(len(frame)) < 0.5
    blurred = frame.assign(insulin=frame["insulin"].mask(hidden))
    filled = model.impute(blurred, seed=1)
    assert filled.notna().all().all()
    found = (filled["insulin"] == "yes")[hidden & frame["dose"].isna()].mean()
    assert found < 0.45  # as many as in training have it; all, were doses filled first
    assert (filled["insulin"] == "yes")[hidden & frame["dose"].notna()].all()


def test_the_first_rows_do_not_depend_on_how_many_are_asked_for(fitted, tmp_path):
    _, model = fitted
    many = model.sample(5000, seed=4, balance="ward")
    few = model.sample(37, seed=4, balance="ward")
    pd.testing.assert_frame_equal(many.head(37), few)
    assert many["ward"].value_counts().max() - many["ward"].value_counts().min() <= 1
    write_parts(model.stream(5000, seed=4, balance="ward"), tmp_path / "many.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "many.parquet"), many)


def test_more_privacy_is_more_noise(fitted):
    frame, model = fitted
    ties = [
        model.sample(2000, seed=1, privacy=privacy)[["age_years", "sbp_mmhg"]].corr().iloc[0, 1]
        for privacy in (0.0, 0.5, 1.0)
    ]
    assert ties[0] > ties[1] > ties[2]
    assert model.sample(2000, seed=1, privacy=1.0)["ward"].nunique() == 3  # all are common


def test_a_condition_is_refused_before_any_work(fitted):
    _, model = fitted
    for wrong in ({"given": {"ward": "Z"}}, {"balance": "age_years"}, {"privacy": 2.0}):
        with pytest.raises(InputError):
            model.stream(10, **wrong)


def test_training_cut_off_and_taken_up_again_ends_in_the_same_bytes(tmp_path):
    frame = clinic()
    schema = Schema.detect(frame, target="insulin")

    def pull(done: float, note: str) -> None:
        if done > 0.1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Synthesizer(schema, steps=200).fit(frame, progress=pull, checkpoint=tmp_path / "state")
    resumed = Synthesizer(schema, steps=200).fit(frame, checkpoint=tmp_path / "state")
    resumed.save(tmp_path / "resumed")
    Synthesizer(schema, steps=200).fit(frame).save(tmp_path / "whole")
    for file in ("weights.safetensors", "model.json"):
        assert (tmp_path / "resumed" / file).read_bytes() == (
            tmp_path / "whole" / file
        ).read_bytes()
    with pytest.raises(InputError, match="cannot be taken up"):
        Synthesizer(schema, steps=200).fit(frame.head(400), checkpoint=tmp_path / "state")
