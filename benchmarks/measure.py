"""Measures what RESULTS.md reports: `python benchmarks/measure.py embedded|diabetes130`.

`diabetes130` needs the public table in the folder that SYNTHMED_DATA names.
"""

import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from synthmed_nb import Schema, Synthesizer, audit, cli, datasets, evaluate
from synthmed_nb.schema import DataNote
from synthmed_nb.tables import write_table

warnings.simplefilter("ignore", DataNote)


def line(*cells: object) -> None:
    print(
        "|",
        " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells),
        "|",
        flush=True,
    )


def embedded(seeds: int = 3) -> None:
    """The embedded table at its defaults, one line a seed (of split, fit and sample)."""
    patients = datasets.load_nhanes()
    schema = Schema.detect(patients, target="diabetes")
    names = (
        "seed; fit s; sample s; Shape; Trend; its floor; worst missing; C2ST AUC; at floor size; "
        "its floor; fidelity score; TRTR; TSTR; gap; copies S; copies H; distance AUC; "
        "density ratio AUC; p; verdicts"
    )
    line(*names.split("; "))
    for seed in range(seeds):
        train, holdout, reference = schema.split(patients, seed=seed)
        start = time.monotonic()
        model = Synthesizer(schema, seed=seed).fit(train)
        fitted = time.monotonic()
        synthetic = model.sample(len(train), seed=seed + 1)
        sampled = time.monotonic()
        found = evaluate(train, holdout, synthetic, schema, seed=seed)
        checked = audit(train, holdout, reference, synthetic, schema, model=model, seed=seed)
        f, u = found.fidelity, found.utility
        d = f.detection
        line(seed, fitted - start, sampled - fitted, f.shape.value, f.trend.value, f.trend.floor,
             f.missing_worst, d.auc, d.auc_at_floor_size, d.floor_auc, f.score,
             u.trtr, u.tstr, u.gap, checked.copies.synthetic_share, checked.copies.holdout_share,
             *(a.auc for a in checked.attacks), checked.questions[0].p_value,
             json.dumps(checked.verdicts))  # fmt: skip


def diabetes130(minutes: str = "10") -> None:
    """`synthmed run` on the public train rows, with the public test rows as the holdout."""
    table = datasets.load_diabetes130()
    test = np.zeros(len(table), dtype=bool)
    test[datasets.test_rows("diabetes130")] = True
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("train.parquet", "test.parquet", "run")]
        write_table(table[~test].reset_index(drop=True), paths[0])
        write_table(table[test].reset_index(drop=True), paths[1])
        cli.main(
            ["run", paths[0], "--target", "readmitted", "--patient", "patient_nbr",
             "--holdout", paths[1], "--minutes", minutes, "--out", paths[2]]
        )  # fmt: skip
        manifest = json.loads((Path(paths[2]) / "manifest.json").read_text())
        print(json.dumps({k: manifest[k] for k in ("stages", "results")}, indent=1))


if __name__ == "__main__":
    {"embedded": embedded, "diabetes130": diabetes130}[sys.argv[1]]()
