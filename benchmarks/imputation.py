"""Measures imputation: `python benchmarks/imputation.py [TABLE ...] [--seeds 3] [--minutes 2]`.

A TABLE is `nhanes`, the embedded one, or a public one as in generation.py; default: nhanes thyroid.
Every imputer learns from the training rows only and fills the very same cells of unseen rows, a
fifth of those that are there, hidden at random over all modelled columns; cells that are empty in
the source are open too, but nobody knows what they hold, so they are not scored. `--rows reference`
takes the other half of the unseen rows: things are tried out there, and reported on the holdout.

Printed, a line for each table and imputer, means over seeds (of mask, fit and draw):
  RMSE, MAE     of hidden numbers / standard deviation in the training rows, mean over columns
  accuracy      share of hidden categories that are right, mean over columns
  W1            1-Wasserstein distance of imputed and true numbers / standard deviation, ditto
  TV            total variation of imputed and true categories, ditto
  correlation   mean error of a correlation over the rows in which one of the two cells is hidden
"a random patient's value" is a floor of W1 and TV: the right distribution, and nothing else.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from generation import split
from measure import line
from scipy.stats import wasserstein_distance
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import KNNImputer

from synthmed_nb import Schema, Synthesizer
from synthmed_nb.runs import peak_memory, reset_peak
from synthmed_nb.schema import DataNote

warnings.simplefilter("ignore", DataNote)
FEWEST = 11  # hidden cells of a column that is scored
DRAWS = 25


def plain(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Modelled columns, numbers as floats and all else as text, gaps NaN or None."""
    numbers = {c: frame[c].astype("Float64").to_numpy(float, na_value=np.nan)
               for c in schema.modelled if c in schema.numeric}  # fmt: skip
    texts = {c: frame[c].astype(object).map(str, na_action="ignore") for c in schema.modelled
             if c not in numbers}  # fmt: skip
    return pd.DataFrame(numbers | texts, index=frame.index)[schema.modelled]


class Design:
    """A plain table as numbers: standardised numbers, and a column for each known level."""

    def __init__(self, train: pd.DataFrame) -> None:
        self.wide = list(train.select_dtypes("number"))
        self.middle, self.spread = train[self.wide].mean(), train[self.wide].std()
        self.levels = {c: sorted(train[c].dropna().unique()) for c in train if c not in self.wide}
        blocks = [[c] * len(self.levels.get(c, [c])) for c in train]
        self.owners = np.array(sum(blocks, []))

    def encode(self, table: pd.DataFrame) -> np.ndarray:
        """Shape (rows, features), NaN in the gaps and for levels never seen."""
        parts = []
        for c in table:
            if c in self.wide:
                parts.append(((table[c] - self.middle[c]) / self.spread[c]).to_numpy()[:, None])
                continue
            hot = (table[c].to_numpy()[:, None] == np.array(self.levels[c], object)).astype(float)
            hot[hot.sum(1) == 0] = np.nan
            parts.append(hot)
        return np.hstack(parts)

    def decode(self, x: np.ndarray, like: pd.DataFrame) -> pd.DataFrame:
        """The table `like` with its gaps filled; the largest level wins."""
        filled = like.copy()
        for c in like:
            own = x[:, self.owners == c]
            if c in self.wide:
                values = own[:, 0] * self.spread[c] + self.middle[c]
            else:
                values = np.array(self.levels[c], object)[own.argmax(1)]
            filled[c] = like[c].where(like[c].notna(), values)
        return filled


def mean_or_mode(train: pd.DataFrame, blurred: pd.DataFrame, seed: int) -> pd.DataFrame:
    fill = {c: train[c].mean() if x.dtype == float else x.mode()[0] for c, x in train.items()}
    return blurred.fillna(fill)


def a_random_value(train: pd.DataFrame, blurred: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Each cell the value of a training row drawn at random, cell by cell."""
    rng = np.random.default_rng(seed)
    drawn = {c: rng.choice(train[c].dropna().to_numpy(), len(blurred)) for c in train}
    return blurred.where(blurred.notna(), pd.DataFrame(drawn, index=blurred.index))


def neighbours(train: pd.DataFrame, blurred: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Mean, or most frequent level, of the 5 nearest training rows that have the cell."""
    design = Design(train)
    knn = KNNImputer(n_neighbors=5, keep_empty_features=True).fit(design.encode(train))
    return design.decode(knn.transform(design.encode(blurred)), blurred)


class Chain:
    """Random forests in a chain, as in MissForest, for columns of both kinds.

    Gaps start at mean and mode; then each column is learned from all others, where it is known,
    and its gaps are predicted, a few times over. Unseen rows pass the forests of the last round.

    Args:
        train: plain rows.
        drawn: instead of the prediction, a level by its chance, or the number of one of the five
            training rows with the nearest prediction, as in MICE.
        seed: of forests and draws.
    """

    rounds, passes = 2, 5

    def __init__(self, train: pd.DataFrame, drawn: bool, seed: int) -> None:
        self.design, self.drawn, self.seed = Design(train), drawn, seed
        self.rng = np.random.default_rng(seed)
        self.start, self.forests = mean_or_mode(train, train.head(1), 0).iloc[:0], {}
        self.fill = {c: mean_or_mode(train, train[:1].map(lambda _: None), 0)[c][0] for c in train}
        self.order = train.isna().sum().sort_values(kind="stable").index
        filled = train.fillna(self.fill)
        for turn in range(self.rounds):
            for c in self.order:
                known = train[c].notna().to_numpy()
                x = self._others(filled, c)
                options = dict(n_estimators=50, max_features="sqrt", random_state=seed + turn)
                if c in self.design.wide:
                    forest = RandomForestRegressor(min_samples_leaf=5, **options)
                else:
                    forest = RandomForestClassifier(min_samples_leaf=1, **options)
                forest.fit(x[known], train[c][known])
                told = forest.predict(x[known]) if drawn and c in self.design.wide else None
                self.forests[c] = forest, told, train[c][known].to_numpy()
                if not known.all():
                    filled.loc[~known, c] = self._predict(c, x[~known])

    def _others(self, table: pd.DataFrame, column: str) -> np.ndarray:
        return self.design.encode(table)[:, self.design.owners != column]

    def _predict(self, column: str, x: np.ndarray) -> np.ndarray:
        forest, told, values = self.forests[column]
        if not self.drawn:
            return forest.predict(x)
        if told is None:
            chances = forest.predict_proba(x).cumsum(1)
            luck = self.rng.random((len(x), 1)) * chances[:, -1:]
            return forest.classes_[(chances < luck).sum(1)]
        order = np.argsort(told, kind="stable")
        place = np.searchsorted(told[order], forest.predict(x)) + self.rng.integers(-3, 2, len(x))
        return values[order[place.clip(0, len(order) - 1)]]

    def __call__(self, blurred: pd.DataFrame) -> pd.DataFrame:
        gaps = blurred.isna()
        filled = blurred.fillna(self.fill)
        for _ in range(self.passes):
            for c in self.order:
                empty = gaps[c].to_numpy()
                if empty.any():
                    filled.loc[empty, c] = self._predict(c, self._others(filled[empty], c))
        return filled


def forests(train: pd.DataFrame, blurred: pd.DataFrame, seed: int) -> pd.DataFrame:
    return Chain(train, False, seed)(blurred)


def forests_drawn(train: pd.DataFrame, blurred: pd.DataFrame, seed: int) -> pd.DataFrame:
    return Chain(train, True, seed)(blurred)


def scores(
    train: pd.DataFrame, real: pd.DataFrame, found: pd.DataFrame, hidden: pd.DataFrame
) -> list[float]:
    """The columns of the report; all tables plain, `hidden` says which cells count."""
    told: dict[str, list[float]] = {key: [] for key in ("rmse", "mae", "right", "w1", "tv")}
    wide = [c for c in real if real[c].dtype == float]
    for c in real:
        cells = hidden[c].to_numpy()
        if cells.sum() < FEWEST:
            continue
        x, y = real[c][cells], found[c][cells]
        if c in wide:
            sd = train[c].std()
            told["rmse"].append(float(np.sqrt(((x - y) ** 2).mean())) / sd)
            told["mae"].append(float((x - y).abs().mean()) / sd)
            told["w1"].append(wasserstein_distance(x, y) / sd)
        else:
            told["right"].append(float((x == y).mean()))
            shares = [v.value_counts(normalize=True) for v in (x, y)]
            told["tv"].append(float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2))
    off = []
    for i, a in enumerate(wide):
        for b in wide[:i]:
            rows = real[[a, b]].notna().all(axis=1) & (hidden[a] | hidden[b])
            pair = [t.loc[rows, [a, b]].to_numpy() for t in (real, found)]
            if rows.sum() >= FEWEST and all(x.std(0).min() > 0 for x in pair):
                off.append(abs(np.corrcoef(pair[0].T)[0, 1] - np.corrcoef(pair[1].T)[0, 1]))
    return [*(float(np.mean(values)) for values in told.values()), float(np.mean(off))]


PEERS: dict[str, Callable] = {
    "mean or mode": mean_or_mode,
    "5 nearest neighbours": neighbours,
    "random forests in a chain (MissForest)": forests,
    "the same, drawn (MICE)": forests_drawn,
    "a random patient's value": a_random_value,
}


def measure(name: str, seed: int, minutes: float, share: float, rows: str) -> pd.DataFrame:
    """All imputers on one mask of one table, a row each."""
    schema, train, *unseen = split(name)
    real = unseen[rows == "reference"]
    rng = np.random.default_rng(seed)
    hidden = pd.DataFrame({c: (rng.random(len(real)) < share) & real[c].notna()
                           for c in schema.modelled})  # fmt: skip
    blurred = real.copy()
    for c in schema.modelled:
        blurred[c] = blurred[c].mask(hidden[c])
    tables = [plain(table, schema) for table in (train, real, blurred)]
    told = {}

    def note(method: str, run: Callable[[], pd.DataFrame]) -> None:
        reset_peak()
        began = time.monotonic()
        found = run()
        spent = time.monotonic() - began
        told[method] = [*scores(*tables[:2], found, hidden), spent, peak_memory() or 0.0]

    for method, imputer in PEERS.items():
        note(method, lambda imputer=imputer: imputer(tables[0], tables[2], seed))
    began = time.monotonic()
    model = Synthesizer(schema, seed=seed).fit(train, minutes=minutes, progress=False)
    fitted = time.monotonic() - began
    note("`impute`, one draw", lambda: plain(model.impute(blurred, seed=seed), schema))
    several = f"`impute`, draws={DRAWS}"
    note(several, lambda: plain(model.impute(blurred, draws=DRAWS, seed=seed), schema))
    for method in ("`impute`, one draw", several):
        told[method][-2] += fitted
    return pd.DataFrame.from_dict(told, orient="index")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", default=["nhanes", "thyroid"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--rows", choices=("holdout", "reference"), default="holdout")
    args = parser.parse_args()
    torch.set_num_threads(1)
    heads = "table; imputer; RMSE; MAE; accuracy; W1; TV; correlation; fit and fill s; peak MiB"
    line(*heads.split("; "))
    line(*["---"] * len(heads.split("; ")))
    for name in args.tables:
        runs = [
            measure(name, seed, args.minutes, args.share, args.rows) for seed in range(args.seeds)
        ]
        for method, found in (sum(runs) / len(runs)).iterrows():
            line(name, method, *map(float, found[:6]), round(found[6], 1), round(found[7]))


if __name__ == "__main__":
    main()
