"""The embedded table at its defaults: what the package claims of itself, on real patients."""

import pytest

from synthmed_nb import Schema, Synthesizer, datasets, evaluate
from synthmed_nb.disclosure import find_copies


@pytest.fixture(scope="module")
def whole():
    patients = datasets.load_nhanes()
    with pytest.warns(UserWarning, match="respondent_id"):
        schema = Schema.detect(patients, target="diabetes")
    train, holdout, reference = schema.split(patients, seed=0)
    synthetic = Synthesizer(schema, seed=0).fit(train).sample(len(train), seed=1)
    real = {"train": train, "holdout": holdout, "reference": reference}
    copies = find_copies(real, synthetic, schema)
    return evaluate(train, holdout, synthetic, schema, seed=0), copies, holdout, reference


def test_the_split_leaves_the_audit_about_a_thousand_patients_a_side(whole):
    _, _, holdout, reference = whole
    assert len(holdout) > 1000 and len(reference) > 1000


def test_columns_and_pairs_are_close(whole):
    fidelity = whole[0].fidelity
    assert fidelity.measure("Shape", "paper").value <= 2.5
    assert fidelity.measure("Trend", "paper").value <= 4.0
    assert fidelity.missingness.worst <= 2.0


def test_models_learn_nearly_as_much_from_it(whole):
    assert abs(whole[0].utility.gap) <= 0.03


def test_it_holds_no_more_copies_than_the_holdout(whole):
    copies = whole[1]
    assert copies.synthetic_share <= copies.holdout_share
