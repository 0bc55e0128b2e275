"""What other tools' privacy metrics say: `python privacy_peers.py PEER FOLDER...`.

Run it inside an environment of the PEER (`sdmetrics`, `syntheval` or `anonymeter`), which the
package itself never needs. Each FOLDER holds train.csv, holdout.csv, reference.csv, synthetic.csv
(same columns, disjoint patients) and kinds.json, `{column: "numeric" | "categorical"}` in the order
of the columns. The last column is the secret that attribute attacks guess from all others.
No peer can use reference.csv. Printed: control | peer | metric | value | reading | seconds.

How a value is read. Only anonymeter gives intervals, and no peer gives a threshold.
A metric with a scale is read at its middle; a metric with a neutral value is read as unsafe when it
lies more than 0.05 (ten points of a ratio: 0.1) on the wrong side, so that chance is forgiven.

sdmetrics (documentation: 1 is best, 0 is worst)
  DCRBaselineProtection      median distance to train over that of uniform random rows; 1 is no
                             closer than random. Unsafe below 0.5, no reading when undefined.
  DCROverfittingProtection   twice the share of synthetic rows not closer to train than to holdout;
                             below 1 is overfitted. Neutral share 0.5: unsafe below 0.9.
  DisclosureProtection       protection of the secret against a guess by correct attribution, over
                             that of random values. Unsafe below 0.5.
SynthEval (its normalised scores: 0 is worst, 1 is best)
  eps_risk                   share of train rows nearer to a synthetic row than to another train
                             row; equal samples give 0.5. Unsafe above 0.55.
  eps_risk, nnaa, nndr loss  the same measured on holdout and subtracted ("privacy loss"); neutral
                             is 0. Unsafe above 0.05.
  nnaa                       adversarial accuracy of nearest neighbours; it files this value under
                             utility and only the loss under privacy. No reading.
  nndr                       nearest over second nearest distance, 1 is best. Unsafe below 0.5.
  dcr                        median distance to train over the median distance within train; 1 is
                             as far apart as real rows. Unsafe below 0.9.
  hit_rate                   share of train rows with a similar synthetic row. Unsafe above 0.5.
  mia                        precision of a classifier of synthetic against holdout rows on unseen
                             train and holdout rows; a guess gives 0.5. Unsafe above 0.55.
  att_discl                  accuracy of guesses of the secret, train and holdout pooled, so that
                             what both suffer counts too. Unsafe above 0.55.
  It refuses gaps by default. Of its two ways out, rows with a gap are dropped here; with `ignore`
  its distances are undefined and eps_risk and both losses are 0 for any table.
anonymeter (documentation: a risk above what holdout rows suffer is a leak)
  each                       unsafe when the 95 % interval of the risk, holdout as control, lies
                             above 0. Numbers of attacks: 500 singling out (default), every row for
                             linkability (odd against even columns) and inference. Singling out
                             stops after 200,000 attempts (default 10,000,000, which is long where
                             no combination is unique).
"""

import contextlib
import io
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

Reading = tuple[str, bool | None]  # the value in words, and whether it is unsafe
Job = tuple[str, Callable[[], list[Reading]]]
Folder = tuple[dict[str, pd.DataFrame], dict[str, str]]


def load(folder: Path) -> Folder:
    """The four tables and the kinds of their columns."""
    kinds = json.loads((folder / "kinds.json").read_text())
    types = {name: str for name, kind in kinds.items() if kind == "categorical"}
    parts = ("train", "holdout", "reference", "synthetic")
    tables = {part: pd.read_csv(folder / f"{part}.csv", dtype=types)[list(kinds)] for part in parts}
    return tables, kinds


def below(value: float, limit: float) -> Reading:
    return f"{value:.3f}", None if np.isnan(value) else bool(value < limit)


def above(value: float, limit: float) -> Reading:
    return f"{value:.3f}", None if np.isnan(value) else bool(value > limit)


def sdmetrics(tables: dict[str, pd.DataFrame], kinds: dict[str, str]) -> Iterator[Job]:
    from sdmetrics import single_table

    train, holdout, synthetic = (tables[part] for part in ("train", "holdout", "synthetic"))
    metadata = {
        "columns": {
            name: {"sdtype": "numerical" if kind == "numeric" else "categorical"}
            for name, kind in kinds.items()
        }
    }
    *known, secret = kinds
    single_table.DCRBaselineProtection._seed = 0

    def baseline() -> list[Reading]:
        found = single_table.DCRBaselineProtection.compute(train, synthetic, metadata, None)
        return [below(found, 0.5)]

    def overfitting() -> list[Reading]:
        metric = single_table.DCROverfittingProtection
        return [below(metric.compute(train, synthetic, holdout, metadata, None), 0.9)]

    def disclosure() -> list[Reading]:
        numeric = [name for name, kind in kinds.items() if kind == "numeric"]
        metric = single_table.DisclosureProtection
        found = metric.compute(
            train, synthetic, known, [secret], continuous_column_names=numeric or None
        )
        return [below(found, 0.5)]

    yield "DCRBaselineProtection", baseline
    yield "DCROverfittingProtection", overfitting
    yield "DisclosureProtection", disclosure


def syntheval(tables: dict[str, pd.DataFrame], kinds: dict[str, str]) -> Iterator[Job]:
    from syntheval import AnalysisConfig, SynthEval

    secret = list(kinds)[-1]
    categorical = [name for name, kind in kinds.items() if kind == "categorical"]

    def measured(metric: str) -> dict[str, float]:
        tool = SynthEval(
            tables["train"].copy(),
            holdout_dataframe=tables["holdout"].copy(),
            cat_cols=categorical,
            missing_directive="drop",
            verbose=False,
            enable_plots=False,
            console="off",
        )
        target = AnalysisConfig(tables["train"], target_vars=secret, sensitive_vars=[secret])
        tool.evaluate(tables["synthetic"].copy(), analysis_target=target, **{metric: {}})
        return tool._raw_results[metric]  # its own errors are printed, not raised: no key then

    def eps_risk() -> list[Reading]:
        found = measured("eps_risk")
        return [above(found["eps_risk"], 0.55), above(found["priv_loss"], 0.05)]

    def nnaa() -> list[Reading]:
        found = measured("nnaa")
        return [(f"{found['avg']:.3f}", None), above(found["priv_loss"], 0.05)]

    def nndr() -> list[Reading]:
        found = measured("nndr")
        return [below(found["avg"], 0.5), above(found["priv_loss"], 0.05)]

    yield "eps_risk; its privacy loss", eps_risk
    yield "nnaa; its privacy loss", nnaa
    yield "nndr; its privacy loss", nndr
    yield "dcr", lambda: [below(measured("dcr")["mDCR"], 0.9)]
    yield "hit_rate", lambda: [above(measured("hit_rate")["hit rate"], 0.5)]
    yield "mia", lambda: [above(measured("mia")["MIA precision"], 0.55)]
    yield "att_discl", lambda: [above(measured("att_discl")["Attr Dis accuracy"], 0.55)]


def anonymeter(tables: dict[str, pd.DataFrame], kinds: dict[str, str]) -> Iterator[Job]:
    from anonymeter import evaluators

    train, holdout, synthetic = (tables[part] for part in ("train", "holdout", "synthetic"))
    *known, secret = kinds
    rows = min(len(train), len(holdout))

    def risk(tool: object) -> list[Reading]:
        value, (low, high) = tool.risk()
        return [(f"{value:.3f} ({low:.3f} to {high:.3f})", bool(low > 0))]

    def singling_out(mode: str) -> list[Reading]:
        tool = evaluators.SinglingOutEvaluator(
            train, synthetic, control=holdout, max_attempts=200_000, seed=0
        )
        return risk(tool.evaluate(mode=mode))

    def linkability() -> list[Reading]:
        sides = (list(kinds)[0::2], list(kinds)[1::2])
        tool = evaluators.LinkabilityEvaluator(
            train, synthetic, aux_cols=sides, n_attacks=rows, control=holdout
        )
        return risk(tool.evaluate(n_jobs=1))

    def inference() -> list[Reading]:
        tool = evaluators.InferenceEvaluator(
            train,
            synthetic,
            aux_cols=known,
            secret=secret,
            regression=kinds[secret] == "numeric",
            n_attacks=rows,
            control=holdout,
        )
        return risk(tool.evaluate(n_jobs=1))

    yield "singling out, univariate", lambda: singling_out("univariate")
    yield "singling out, multivariate", lambda: singling_out("multivariate")
    yield "linkability", linkability
    yield "inference", inference


PEERS = {"sdmetrics": sdmetrics, "syntheval": syntheval, "anonymeter": anonymeter}


def line(*cells: object) -> None:
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def measure(peer: str, folder: Path) -> None:
    """Prints one line a metric; a crash is a line too, without the text of its error."""
    for names, job in PEERS[peer](*load(folder)):
        np.random.seed(0)  # noqa: NPY002  the peers draw from the global generator
        start = time.monotonic()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                found = job()
        except Exception as error:
            found = [(f"crashed ({type(error).__name__})", None)]
        seconds = f"{time.monotonic() - start:.1f}"
        first, _, second = names.partition("; its ")
        named = [first, f"{first} {second}"] if second else [first]
        for name, (value, unsafe) in zip(named, found, strict=len(found) == len(named)):
            reading = "none" if unsafe is None else "unsafe" if unsafe else "safe"
            line(folder.name, f"{peer} {version(peer)}", name, value, reading, seconds)


def main(peer: str, folders: list[str]) -> None:
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    line("control", "peer", "metric", "value", "reading", "seconds")
    line(*["---"] * 6)
    for folder in folders:
        measure(peer, Path(folder))


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in PEERS:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
