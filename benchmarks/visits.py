"""Patients with their visits: numbers and gaps, what stays, who comes back, what comes next.

    python benchmarks/visits.py diabetes130 --minutes 10          # reads SYNTHMED_DATA
    python benchmarks/visits.py covid_testing
    python benchmarks/visits.py gibleed_omop

Prints one line of JSON: of the synthetic patients against those that were learned, and beside it
("floor") of unseen real patients against them. AUCs are those of a model that learned from
synthetic patients, and of one that learned from real ones, both on the unseen patients.
"""

import argparse
import json
import os
import resource
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import ks_2samp
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from synthmed_nb import Schema, Synthesizer
from synthmed_nb.omop import read_omop
from synthmed_nb.persons import person_columns, times_of, visit_order


def folder(name: str) -> Path:
    """The folder of a public table; see tests."""
    return Path(os.environ.get("SYNTHMED_DATA", "../shared/data")) / name


def diabetes130() -> tuple[pd.DataFrame, pd.DataFrame, dict, str]:
    """Encounters; their key is their order. Next: is the insulin dose left as it is?"""
    path = folder("diabetes130")
    codes = ["diag_1", "diag_2", "diag_3"]
    options = dict(na_values="?", keep_default_na=False, dtype=dict.fromkeys(codes, str))
    table = pd.read_csv(path / "diabetic_data.csv.gz", **options)
    sets = [
        list(dict.fromkeys(c for c in r if isinstance(c, str))) for r in table[codes].to_numpy()
    ]
    table = table.drop(columns=codes).assign(dx=sets)
    test = pd.read_csv(path / "test_rows.csv.gz", header=None)[0]
    roles = {"patient": "patient_nbr", "visit": "encounter_id"}
    return table.drop(index=test), table.loc[test], roles, "insulin = Steady"


def covid_testing() -> tuple[pd.DataFrame, pd.DataFrame, dict, str]:
    """Tests, by day. Next: is the test positive?"""
    path = folder("covid_testing")
    table = pd.read_csv(path / "covid_testing.csv.gz")
    test = pd.read_csv(path / "test_rows.csv.gz", header=None)[0]
    roles = {"patient": "subject_id", "time": "pan_day"}
    return table.drop(index=test), table.loc[test], roles, "result = positive"


def gibleed_omop() -> tuple[pd.DataFrame, pd.DataFrame, dict, str]:
    """Visits of persons with dates. Next: does the visit have a drug?"""
    path = folder("gibleed_omop")
    table = read_omop(path, level="visit")
    test = pd.read_csv(path / "test_persons.csv.gz", header=None)[0]
    unseen = table["person_id"].isin(pd.to_numeric(test, errors="coerce"))
    return table[~unseen], table[unseen], table.attrs["roles"], "drug"


def facts(table: pd.DataFrame, schema: Schema) -> dict[str, np.ndarray]:
    """Visits of each patient, gaps between visits, and whether a patient comes back."""
    order, who = visit_order(schema.check(table), schema)
    found = {"visits": np.bincount(who)}
    if schema.time:
        times = times_of(schema.check(table), schema.column(schema.time))[order]
        found["gaps"] = np.diff(times)[np.diff(who) == 0]
    return found


def next_visits(
    table: pd.DataFrame, schema: Schema, outcome: str, codes: dict[str, list[str]]
) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """What a visit held, whether there is a next one, and what the next one held (or NaN)."""
    order, who = visit_order(schema.check(table), schema)
    visits = schema.check(table).iloc[order].reset_index(drop=True)
    same = pd.Series(np.r_[who[1:] == who[:-1], False])
    parts = {}
    for name in schema.modelled:
        column = schema.column(name)
        if name in schema.coded:
            for code in codes[name]:
                parts[f"{name} {code}"] = [code in (cell or ()) for cell in visits[name]]
            parts[f"{name} count"] = [len(cell or ()) for cell in visits[name]]
        elif column.kind == "datetime":
            continue
        elif name in schema.numeric:
            parts[name] = visits[name].astype(float)
        else:
            for level in codes[name]:
                parts[f"{name} {level}"] = (visits[name].astype(str) == level).to_numpy()
    parts["number"] = pd.Series(who).groupby(who).cumcount()
    if schema.time:
        times = pd.Series(times_of(visits, schema.column(schema.time)))
        parts["since"] = times.diff().mask(parts["number"] == 0)
    held = visits[outcome]
    said = held.map(lambda cell: len(cell or ()) > 0) if outcome in schema.coded else held
    return pd.DataFrame(parts).astype(float), same, said.shift(-1).where(same)


def auc(learned: tuple, tested: tuple, positive: object, coming: bool) -> float:
    """AUC on `tested` of a model that learned from `learned`; see `next_visits`."""
    parts = []
    for x, same, said in (learned, tested):
        keep = slice(None) if coming else same.to_numpy()
        y = same if coming else said == positive
        parts.append((x[keep], y[keep].to_numpy(dtype=int)))
    (x, y), (unseen, truth) = parts
    model = HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(x, y)
    return float(roc_auc_score(truth, model.predict_proba(unseen)[:, 1]))


def compare(train: dict, other: dict) -> dict:
    """Kolmogorov-Smirnov distances, and the share of patients who come back."""
    found = {f"{name}_ks": ks_2samp(train[name], other[name]).statistic for name in train}
    found["come_back"] = float((other["visits"] > 1).mean())
    if "gaps" in other and len(other["gaps"]):
        found["within_30"] = float((other["gaps"] <= 30).sum() / other["visits"].sum())
    return {name: round(float(value), 4) for name, value in found.items()}


def main() -> None:
    """Fit, draw as many patients, compare."""
    tables = {
        "diabetes130": diabetes130,
        "covid_testing": covid_testing,
        "gibleed_omop": gibleed_omop,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=tables)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--patients", type=int, help="learn from so many only")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    train, holdout, roles, outcome = tables[args.table]()
    if args.patients:
        some = train[roles["patient"]].drop_duplicates().sample(args.patients, random_state=0)
        train = train[train[roles["patient"]].isin(some)]
    train, holdout = (t.reset_index(drop=True) for t in (train, holdout))
    schema = Schema.detect(train, **roles)
    outcome, _, positive = outcome.partition(" = ")
    outcome = next(name for name in schema.modelled if outcome in name)
    began = time.monotonic()
    model = Synthesizer(schema, seed=args.seed).fit(train, minutes=args.minutes, progress=False)
    fitted = time.monotonic()
    patients = train[schema.patient].nunique()
    synthetic = model.sample(patients, seed=1, progress=False)
    record = {"table": args.table, "patients": patients, "visits": len(train)}
    record |= {"drawn": len(synthetic), "threads": torch.get_num_threads()}
    record |= {"fit_s": round(fitted - began), "sample_s": round(time.monotonic() - fitted)}
    for net in ("tokens", "residuals", "codes"):
        if net in model.training_:
            record[net] = [model.training_[net][key] for key in ("steps", "stopped_by")]
    record["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    told = {"real": train, "synthetic": synthetic, "floor": holdout}
    known = {name: facts(table, schema) for name, table in told.items()}
    record |= {name: compare(known["real"], found) for name, found in known.items()}
    persons = person_columns(schema.check(train), schema)
    groups = (
        table.groupby(schema.patient)[list(persons)].nunique(dropna=False)
        for table in told.values()
    )
    record["persons"] = list(persons)
    record["change"] = {
        n: int((g > 1).any(axis=1).sum()) for n, g in zip(told, groups, strict=True)
    }
    codes = {}
    for name in schema.categorical:
        cells = schema.check(train)[name]
        counts = Counter(
            c for cell in cells.dropna() for c in ((cell,) if not isinstance(cell, tuple) else cell)
        )
        codes[name] = [str(code) for code, _ in counts.most_common(30)]
    laid = {n: next_visits(table, schema, outcome, codes) for n, table in told.items()}
    positive = positive or True
    record["next"] = f"{outcome} = {positive}"
    for name, coming in (("comes_back_auc", True), ("next_auc", False)):
        record[name] = {
            n: round(auc(laid[n], laid["floor"], positive, coming), 4)
            for n in ("real", "synthetic")
        }
    print(json.dumps(record))


if __name__ == "__main__":
    sys.exit(main())
