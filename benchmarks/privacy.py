"""Measures the audit: `python benchmarks/privacy.py WHAT [NAME ...]`.

WHAT is the name of a function below: `power`, `false_alarms`, `overfit`, `shadows`, `canaries`,
`own`, `suite`, `speed`, `sweep` or `calibration`. NAME is `nhanes`, the embedded table, or a name
in `synthmed_nb.datasets.PUBLIC`; those lie in the folder that SYNTHMED_DATA names.
"""

import argparse
import time
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from generation import split
from measure import line
from scipy import stats
from sklearn.neighbors import NearestNeighbors

from synthmed_nb import Schema, Synthesizer, audit, audit_the_auditor, calibrate
from synthmed_nb.canaries import Canaries, audit_canaries, canary_scores
from synthmed_nb.controls import jittered, most_isolated, planted, secret_told
from synthmed_nb.neighbors import RecordSpace, nearest
from synthmed_nb.schema import DataNote

warnings.simplefilter("ignore", DataNote)


def made_up(rows: int, seed: int, numbers: int = 12, codes: int = 8) -> pd.DataFrame:
    """Independent patients of a process with dependent numbers and categories."""
    rng, law = np.random.default_rng(seed), np.random.default_rng(0)
    weights = law.normal(size=(4, numbers + codes))
    x = rng.normal(size=(rows, 4)) @ weights + rng.normal(size=(rows, numbers + codes))
    frame = pd.DataFrame(x[:, :numbers].round(2)).add_prefix("n")
    cuts = [-np.inf, -2, -0.5, 0.5, 1, 2, np.inf]
    for i in range(codes):
        frame[f"c{i}"] = pd.cut(x[:, numbers + i], cuts, labels=list("abcdef")).astype(str)
    return frame


def power(names: list[str], repeats: int) -> None:
    """How often planted leaks are flagged, in `repeats` fresh tables of 2,000 + 2,000 patients.

    The leaks that are found anyway are made in the first ten tables only.
    """
    counts: dict[str, list[bool]] = {}
    schema = Schema.detect(made_up(2000, 1, 6, 4))
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        parts = [made_up(2000, 4 * seed + i, 6, 4) for i in range(1, 5)]
        train, _, reference, other = parts
        lonely = most_isolated(train, reference, schema, 0.01)
        tables = {
            "0.5 % copies": planted(other, train, 0.005, rng),
            "1 % most isolated": planted(other, lonely, 0.01, rng),
        }
        if seed < 10:
            shuffled = train.iloc[rng.permutation(2000)].reset_index(drop=True)
            tables |= {"copies in order": train, "copies shuffled": shuffled}
            for percent in (1, 5, 10, 25, 50):
                tables[f"jitter {percent} %"] = jittered(train, schema, percent / 100, rng)
            near = jittered(lonely, schema, 0.05, rng)
            tables |= {
                "0.25 % copies": planted(other, train, 0.0025, rng),
                "1 % most isolated, jitter 5 %": planted(other, near, 0.01, rng),
                "2 % of train, jitter 5 %": planted(
                    other, jittered(train, schema, 0.05, rng), 0.02, rng
                ),
                "secret told": secret_told(other, train, schema, "c0", rng),
            }
        for name, table in tables.items():
            found = audit(*parts[:3], table, schema, seed=seed)
            counts.setdefault(name, []).append(found.verdict == "FLAG")
    line("control", "repeats", "flagged")
    for name, hits in counts.items():
        line(name, len(hits), f"{np.mean(hits):.1%}")


def false_alarms(names: list[str], repeats: int) -> None:
    """Small tables that know nobody: how often they are flagged at a level of 5 %."""
    counts: dict[str, list[float]] = {}
    for seed in range(repeats):
        parts = [made_up(200, 5 * seed + i, 4, 3) for i in range(10**6, 10**6 + 5)]
        schema = Schema.detect(parts[0])
        rng = np.random.default_rng(seed)
        noise = parts[3].apply(lambda c, rng=rng: rng.permutation(c.to_numpy()))
        tables = {"independent": parts[3]} | ({"noise": noise} if seed % 5 == 0 else {})
        for name, table in tables.items():
            found = audit(*parts[:3], table, schema, seed=seed)
            least = min(q.adjusted for q in found.questions)
            counts.setdefault(name, []).append(least)
    line("control", "repeats", "flagged", "largest share that 5 % allow (99.5 %)")
    for name, p in counts.items():
        allowed = stats.binom.ppf(0.995, len(p), 0.05) / len(p)
        line(name, len(p), f"{np.mean(np.array(p) <= 0.05):.2%}", f"{allowed:.2%}")


def _remembering(names: list[str], *steps: int) -> Iterator[tuple]:
    """Models of 500 patients that train for so many steps each, and what an audit needs."""
    for name in names or ("nhanes",):
        schema, train, holdout, reference = split(name)
        few = train.sample(500, random_state=0).reset_index(drop=True)
        for count in steps:
            model = Synthesizer(schema, steps=count, early_stop=False, seed=0).fit(few)
            yield name, count, model, (few, holdout, reference, model.sample(500, seed=1), schema)


def overfit(names: list[str], repeats: int) -> None:
    """A model of 500 patients trained for many epochs: the white-box attack by checkpoint."""
    line("table", "steps", "white-box attack", "AUC", "low", "high", "verdict on the model")
    for name, steps, model, tables in _remembering(names, 100, 300, 1_000, 3_000):
        found = audit(*tables, model=model)
        best = max(found.white_box, key=lambda attack: attack.auc)
        line(name, steps, best.name, best.auc, best.auc_low, best.auc_high, found.model.verdict)


def shadows(names: list[str], repeats: int) -> None:
    """What models of the synthetic table add to the other attacks, which never see the model."""
    line("table", "steps", "attack", "AUC", "low", "high", "s")
    for name, steps, _, tables in _remembering(names, 300, 3_000):
        start = time.monotonic()
        found = audit(*tables, shadows=2)
        spent = time.monotonic() - start
        for attack in found.attacks:
            line(name, steps, attack.name, attack.auc, attack.auc_low, attack.auc_high, spent)


def canaries(names: list[str], repeats: int) -> None:
    """A training with 100 canaries: what one run bounds epsilon by."""
    line("table", "attack", "accuracy", "AUC", "epsilon at least")
    for name in names or ("nhanes",):
        schema, train, _, reference = split(name)
        drawn = Canaries.draw(train, schema, 100, seed=0)
        model = Synthesizer(schema, seed=0).fit(train, canaries=drawn)
        scores = canary_scores(drawn, reference, model.sample(len(train), seed=1), model)
        for attack in audit_canaries(drawn, scores).attacks:
            line(name, attack.name, attack.accuracy, attack.auc, attack.epsilon_lower)


def own(names: list[str], repeats: int) -> None:
    """Our own generator at its defaults: verdicts on table and model, and all attacks."""
    for name in names or ("nhanes", "heart_disease_uci", "brfss2015_diabetes", "diabetes130"):
        schema, train, holdout, reference = split(name)
        model = Synthesizer(schema, seed=0).fit(train, minutes=10)
        synthetic = model.sample(len(train), seed=1)
        start = time.monotonic()
        found = audit(train, holdout, reference, synthetic, schema, model=model)
        spent = time.monotonic() - start
        line(name, f"table {found.verdict}", f"model {found.model.verdict}", f"{spent:.0f} s")
        for question in found.model.questions:
            line(
                name,
                question.name,
                f"p {question.p_value:.3f}",
                f"adjusted {question.adjusted:.3f}",
            )
        for attack in (*found.attacks, *found.white_box):
            interval = f"{attack.auc_low:.3f} to {attack.auc_high:.3f}"
            line(name, attack.name, attack.auc, interval, attack.tpr_at_1, attack.tpr_at_10)


def suite(names: list[str], repeats: int) -> None:
    """The controls of `audit-the-auditor` on real tables."""
    line("table", "control", "expected", "flagged", "invalid", "passed")
    for name in names or ("nhanes",):
        schema, *parts = split(name)
        table = pd.concat(parts, ignore_index=True)
        for control in audit_the_auditor(table, schema, repeats=repeats):
            told = control.expected, control.flagged, control.invalid, control.passed
            line(name, control.name, *told)


def speed(names: list[str], repeats: int) -> None:
    """Seconds of a whole audit, of searches, and of scikit-learn's."""
    line("what", "seconds")
    tables = [made_up(rows, i) for i, rows in enumerate((10_000, 5_000, 5_000, 10_000))]
    schema = Schema.detect(tables[0])
    start = time.monotonic()
    audit(*tables, schema)
    line("audit of 10,000 x 20", time.monotonic() - start)
    wide = [made_up(rows, i, 36, 24) for i, rows in enumerate((2_000, 4_000, 100_000))]
    schema = Schema.detect(wide[0])
    space = RecordSpace.fit(wide[0], schema)
    line("dimensions of 60 columns", space.encode(wide[0][:2]).shape[1])
    start = time.monotonic()
    nearest(space, wide[1], wide[2], 1)
    line("4,000 against 100,000 x 60, exact", time.monotonic() - start)
    queries, base = space.encode(wide[1]), space.encode(wide[2])
    start = time.monotonic()
    NearestNeighbors(n_neighbors=1, metric="manhattan", algorithm="brute").fit(base).kneighbors(
        queries
    )
    line("the same by scikit-learn's brute force", time.monotonic() - start)
    many = made_up(1_000_000, 9, 36, 24)
    start = time.monotonic()
    found = nearest(space, wide[1], many, 1)
    line(f"4,000 against 1,000,000 x 60, recall {found.recall}", time.monotonic() - start)


def sweep(names: list[str], repeats: int) -> None:
    """Near copies: all of a million records against a million, 20 columns."""
    line("what", "seconds", "recall")
    tables = [made_up(rows, i) for i, rows in enumerate((2_000, 1_000_000, 1_000_000))]
    schema = Schema.detect(tables[0])
    space = RecordSpace.fit(tables[0], schema)
    start = time.monotonic()
    found = nearest(space, tables[1], tables[2], 1)
    line("1,000,000 against 1,000,000 x 20", time.monotonic() - start, found.recall)


def calibration(names: list[str], repeats: int) -> None:
    """Fidelity against attack over the privacy knob, from one training."""
    line("table", "privacy", "verdict", "AUC", "low", "high", "C2ST AUC", "Trend %", "gap")
    for name in names or ("adult",):
        schema, train, holdout, reference = split(name)
        model = Synthesizer(schema, seed=0).fit(train)
        found = calibrate(model, train, holdout, reference, schema)
        for s in found.settings:
            line(name, s.privacy, s.verdict, s.auc, s.auc_low, s.auc_high, s.detection_auc,
                 s.trend_error, "" if s.gap is None else s.gap)  # fmt: skip
        line(name, f"chosen {found.privacy}", f"confirmed {found.confirmed}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", metavar="WHAT")
    parser.add_argument("names", metavar="NAME", nargs="*")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    globals()[args.what](args.names, args.repeats)
