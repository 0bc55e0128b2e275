"""Sets of codes: how faithful they are drawn, on a made-up table and on three public ones.

    python benchmarks/codes.py made-up --rows 50000 --codes 5000 --minutes 10
    python benchmarks/codes.py diabetes130 --minutes 10          # reads SYNTHMED_DATA
    python benchmarks/codes.py mimic3_demo
    python benchmarks/codes.py gibleed_omop

Prints one line of JSON: what was measured of the synthetic table, and beside it ("floor") of an
independent real one of the same size: another draw of the made-up table, or unseen patients.
"""

import argparse
import json
import os
import resource
import sys
import time
import warnings
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from synthmed_nb import Schema, Synthesizer
from synthmed_nb.code_fidelity import code_errors
from synthmed_nb.omop import read_omop


def made_up(rows: int, codes: int, seed: int) -> pd.DataFrame:
    """Patients with diseases: each has codes of its own, some imply others, some are of one sex.

    The law is the same for every `seed`; 5 % of codes are of one sex, a quarter brings a partner
    along in 60 % of cases, and a quarter of the occurrences are independent of everything.
    """
    law, luck = np.random.default_rng(12345), np.random.default_rng(seed)
    base = law.permutation(1 / np.arange(1, codes + 1) ** 0.9)
    base /= base.sum()
    diseases = 120
    held = [law.choice(codes, 40, replace=False, p=base) for _ in range(diseases)]
    weights = [law.dirichlet(np.full(40, 0.3)).cumsum() for _ in range(diseases)]
    centre = law.uniform(0, 90, diseases)
    of_sex = law.choice([-1, 0, 1], diseases, p=[0.7, 0.15, 0.15])
    common = law.dirichlet(np.full(diseases, 0.7))
    partner, bound = np.full(codes, -1), np.full(codes, -1)
    leading = law.choice(codes, codes // 4, replace=False)
    partner[leading] = law.integers(0, codes, len(leading))
    some = law.choice(codes, codes // 20, replace=False)
    bound[some] = law.integers(0, 2, len(some))
    age, sex = luck.integers(0, 90, rows), luck.integers(0, 2, rows)
    size = np.minimum(luck.negative_binomial(2, 2 / (6 + age / 15)), 100)
    chance = common * np.exp(-(((age[:, None] - centre) / 25) ** 2))
    chance *= (of_sex == -1) | (of_sex == sex[:, None])
    ladder = (chance / chance.sum(1, keepdims=True)).cumsum(1)
    anything = base.cumsum()

    def one(row: int) -> list[str]:
        own = [min(np.searchsorted(ladder[row], luck.random()), diseases - 1) for _ in range(2)]
        found: set[int] = set()
        for _ in range(400):
            if len(found) >= size[row]:
                break
            if luck.random() < 0.75:
                disease = own[luck.integers(2)]
                place = min(np.searchsorted(weights[disease], luck.random()), 39)
                code = int(held[disease][place])
            else:
                code = int(min(np.searchsorted(anything, luck.random()), codes - 1))
            for new in (code, int(partner[code]) if luck.random() < 0.6 else -1):
                fits = new >= 0 and len(found) < size[row] and bound[new] in (-1, sex[row])
                if not fits:
                    break
                found.add(new)
        return [f"c{code}" for code in sorted(found)]

    names = np.array(["F", "M"])[sex]
    return pd.DataFrame({"age": age, "sex": names, "dx": [one(row) for row in range(rows)]})


def folder(name: str) -> Path:
    """The folder of a public table; see tests."""
    return Path(os.environ.get("SYNTHMED_DATA", "../shared/data")) / name


def diabetes130() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Encounters with diag_1 to diag_3 as one set; train and test rows."""
    path = folder("diabetes130")
    codes = ["diag_1", "diag_2", "diag_3"]
    options = dict(na_values="?", keep_default_na=False, dtype=dict.fromkeys(codes, str))
    table = pd.read_csv(path / "diabetic_data.csv.gz", **options)
    table["dx"] = [
        list(dict.fromkeys(c for c in row if isinstance(c, str))) for row in table[codes].to_numpy()
    ]
    test = pd.read_csv(path / "test_rows.csv.gz", header=None)[0]
    table = table.drop(columns=["encounter_id", *codes])
    return table.drop(index=test), table.loc[test]


def mimic3_demo() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Admissions with all ICD-9 diagnoses; 80 patients and 20."""
    path = folder("mimic3_demo")
    visits = pd.read_csv(path / "ADMISSIONS.csv.gz")
    lines = pd.read_csv(path / "DIAGNOSES_ICD.csv.gz", dtype={"icd9_code": str})
    people = pd.read_csv(path / "PATIENTS.csv.gz")[["subject_id", "gender"]]
    held = (
        lines.dropna(subset="icd9_code")
        .groupby("hadm_id")["icd9_code"]
        .agg(lambda x: sorted(set(x)))
    )
    visits["dx"] = visits["hadm_id"].map(held)
    visits = visits.merge(people, on="subject_id")
    kept = ["subject_id", "gender", "admission_type", "insurance", "hospital_expire_flag", "dx"]
    test = pd.read_csv(path / "test_subjects.csv.gz", header=None)[0]
    unseen = visits["subject_id"].isin(pd.to_numeric(test, errors="coerce"))
    return visits.loc[~unseen, kept], visits.loc[unseen, kept]


def gibleed_omop() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Persons with all conditions they ever had, from OMOP; train and test persons."""
    path = folder("gibleed_omop")
    table = read_omop(path, level="person").rename(columns={"conditions": "dx", "gender": "sex"})
    table = table.drop(columns=["drugs", "procedures", "measurements"])
    test = pd.read_csv(path / "test_persons.csv.gz", header=None)[0]
    unseen = table["person_id"].isin(pd.to_numeric(test, errors="coerce"))
    return table[~unseen], table[unseen]


def measured(found: dict[str, float]) -> dict[str, float]:
    """Numbers of `code_errors` as they are printed: percent of the wrong group, else of 1."""
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = ["made-up", "diabetes130", "mimic3_demo", "gibleed_omop"]
    parser.add_argument("table", choices=tables)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--codes", type=int, default=5_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    patient = None
    if args.table == "made-up":
        train, holdout = (made_up(args.rows, args.codes, seed) for seed in (0, 1))
    elif args.table == "diabetes130":
        (train, holdout), patient = diabetes130(), "patient_nbr"
    elif args.table == "gibleed_omop":
        (train, holdout), patient = gibleed_omop(), "person_id"
    else:
        (train, holdout), patient = mimic3_demo(), "subject_id"
    train, holdout = (t.reset_index(drop=True) for t in (train, holdout))
    schema = Schema.detect(train, patient=patient, small=True)
    if args.table in ("diabetes130", "mimic3_demo"):
        schema = schema.edit("dx", system="ICD-9-CM")
    began = time.monotonic()
    model = Synthesizer(schema, seed=args.seed).fit(train, minutes=args.minutes, progress=False)
    fitted = time.monotonic()
    synthetic = model.sample(len(train), seed=1, progress=False)
    drawn = time.monotonic()
    told = model.training_["codes"]
    record = {"table": args.table, "rows": len(train)}
    record["vocabulary"] = len(set(chain.from_iterable(c or () for c in train["dx"])))
    record |= {"labels": told["labels"], "threads": torch.get_num_threads()}
    record |= {"fit_s": round(fitted - began), "sample_s": round(drawn - fitted)}
    for net in ("tokens", "codes"):
        record[net] = [model.training_[net][key] for key in ("steps", "stopped_by")]
    record["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    record["synthetic"] = measured(code_errors(train, synthetic, schema, "dx"))
    record["floor"] = measured(code_errors(train, holdout, schema, "dx"))
    print(json.dumps(record))


if __name__ == "__main__":
    sys.exit(main())
