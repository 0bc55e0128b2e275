"""Measures what RESULTS.md reports: `python benchmarks/measure.py` and one of `COMMANDS`.

`diabetes130` needs the public table in the folder that SYNTHMED_DATA names.
"""

import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from synthmed_nb import Schema, Synthesizer, audit, cli, datasets, evaluate
from synthmed_nb.fidelity import fidelity
from synthmed_nb.runs import peak_memory, reset_peak
from synthmed_nb.schema import DataNote
from synthmed_nb.tables import write_table

warnings.simplefilter("ignore", DataNote)


def paper(fidelity: object, name: str) -> float:
    """Shape or Trend error as the papers have it, percent."""
    return fidelity.measure(name, "paper").value


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
        d = f.detection()
        floor = f.measure("Trend", "paper").floor
        line(seed, fitted - start, sampled - fitted, paper(f, "Shape"), paper(f, "Trend"), floor,
             f.missingness.worst, d.auc, d.auc_at_floor_size, d.floor_auc, f.score.value,
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


def made(rows: int, columns: int, seed: int) -> pd.DataFrame:
    """A table of related numbers and categories with gaps, and a target of two classes."""
    rng = np.random.default_rng(seed)
    health = rng.normal(size=rows)
    table = {"sex": rng.choice(["F", "M"], rows), "age": np.clip(50 + 15 * health, 18, 95).round()}
    for i in range(columns - 3):
        noise = rng.normal(size=rows)
        if i % 2:
            cuts = np.quantile(health + noise, np.linspace(0, 1, 3 + i % 9)[1:-1])
            table[f"category_{i}"] = [f"L{k}" for k in np.searchsorted(cuts, health + noise)]
        else:
            value = (health * rng.normal() + noise).round(2)
            table[f"number_{i}"] = np.where(rng.random(rows) < 0.1, np.nan, value)
    table["ill"] = np.where(health + rng.normal(size=rows) > 1, "yes", "no")
    return pd.DataFrame(table)


def evaluation(rows: str = "20000", columns: str = "20") -> None:
    """Seconds and memory of `evaluate`: 60 % of the records train, as many synthetic, 20 % held."""
    table = made(2 * int(rows), int(columns), 0)
    schema = Schema.detect(table, target="ill")
    cuts = [round(share * int(rows)) for share in (0.6, 1.2, 1.4)]
    train, synthetic, holdout = (
        table.iloc[a:b].reset_index(drop=True) for a, b in zip([0, *cuts], cuts, strict=False)
    )
    reset_peak()
    parts, start = [], time.monotonic()

    def told(done: float, note: str) -> None:
        parts.append((round(time.monotonic() - start, 1), note))

    found = evaluate(train, holdout, synthetic, schema, progress=told)
    line(
        "rows", rows, "columns", columns, "seconds", time.monotonic() - start, "MiB", peak_memory()
    )
    for second, note in parts:
        line(second, note)
    print("\n".join([*found.fidelity.caps, found.utility.claim.sentence, found.bias.worst]))


def intervals(splits: str = "40") -> None:
    """How often the interval of a ratio holds 1 when an independent real sample is S."""
    patients = datasets.load_nhanes()
    schema = Schema.detect(patients, target="diabetes")
    held, scores = {}, []
    for seed in range(int(splits)):
        order = np.random.default_rng(seed).permutation(len(patients))[:5_000]
        train, holdout, other = (
            patients.iloc[rows].reset_index(drop=True) for rows in np.split(order, [2_000, 3_500])
        )
        found = fidelity(train, holdout, other, schema, seed=seed)
        scores.append(found.score)
        for m in found.measures:
            inside = None if m.ratio_low is None else m.ratio_low <= 1 <= m.ratio_high
            held.setdefault((m.name, m.form), []).append((m.ratio, inside))
    line("measure", "form", "median ratio", "intervals", "share that hold 1")
    for (name, form), told in held.items():
        ratios = [ratio for ratio, _ in told if ratio is not None]
        inside = [yes for _, yes in told if yes is not None]
        share = float(np.mean(inside)) if inside else "-"
        line(name, form, float(np.median(ratios)) if ratios else "-", len(inside), share)
    values = [score.value for score in scores]
    line("score", "fixed", float(np.median(values)), len(values),
         float(np.mean([score.high == 100 for score in scores])))  # fmt: skip
    line("lowest score", min(values))


COMMANDS = {
    "embedded": embedded,
    "diabetes130": diabetes130,
    "evaluation": evaluation,
    "intervals": intervals,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
