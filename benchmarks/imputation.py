"""Measures imputation: `python benchmarks/imputation.py [TABLE ...] [--seeds 3] [--minutes 2]`.

A TABLE is `nhanes`, the embedded one, or a public one as in generation.py; default: nhanes thyroid.
Every imputer learns from the training rows only and fills the very same cells of unseen rows, a
fifth of those that are there, hidden at random over all modelled columns; cells that are empty in
the source are open too, but nobody knows what they hold, so they are not scored. `--rows reference`
takes the other half of the unseen rows: things are tried out there, and reported on the holdout.

All learn once; printed, a line for each table and imputer, are means over seeds of mask and draw:
  RMSE, MAE     of hidden numbers / standard deviation in the training rows, mean over columns
  accuracy      share of hidden categories that are right, mean over columns
  W1            1-Wasserstein distance of imputed and true numbers / standard deviation, ditto
  TV            total variation of imputed and true categories, ditto
  correlation   mean error of a correlation over the rows in which one of the two cells is hidden
  fit s, fill s seconds to learn (forests: once for both of their lines), and to fill one mask
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
Imputer = Callable[[pd.DataFrame, int], pd.DataFrame]  # rows with gaps, and a seed
FEWEST = 11  # hidden cells of a column that is scored
DRAWS = 10


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


def common(train: pd.DataFrame) -> dict[str, float | str]:
    """Mean or most frequent level of each column."""
    return {c: x.mean() if x.dtype == float else x.mode()[0] for c, x in train.items()}


def mean_or_mode(train: pd.DataFrame) -> Imputer:
    fill = common(train)
    return lambda blurred, seed: blurred.fillna(fill)


def a_random_value(train: pd.DataFrame) -> Imputer:
    """Each cell the value of a training row drawn at random, cell by cell."""

    def filled(blurred: pd.DataFrame, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        drawn = {c: rng.choice(train[c].dropna().to_numpy(), len(blurred)) for c in train}
        return blurred.where(blurred.notna(), pd.DataFrame(drawn, index=blurred.index))

    return filled


def neighbours(train: pd.DataFrame) -> Imputer:
    """Mean, or most frequent level, of the 5 nearest training rows that have the cell."""
    design = Design(train)
    knn = KNNImputer(n_neighbors=5, keep_empty_features=True).fit(design.encode(train))
    return lambda blurred, seed: design.decode(knn.transform(design.encode(blurred)), blurred)


class Chain:
    """Random forests in a chain, as in MissForest, for columns of both kinds.

    Gaps start at mean and mode; then each column is learned from all others, where it is known,
    and its gaps are predicted, a few times over. Unseen rows pass the forests of the last round.
    """

    rounds, passes = 2, 5

    def __init__(self, train: pd.DataFrame) -> None:
        self.design, self.fill, self.forests = Design(train), common(train), {}
        self.order = train.isna().sum().sort_values(kind="stable").index
        filled = train.fillna(self.fill)
        for turn in range(self.rounds):
            for c in self.order:
                known = train[c].notna().to_numpy()
                x = self._others(filled, c)
                options = dict(n_estimators=50, max_features="sqrt", random_state=turn)
                if c in self.design.wide:
                    forest = RandomForestRegressor(min_samples_leaf=5, **options)
                else:
                    forest = RandomForestClassifier(**options)
                forest.fit(x[known], train[c][known])
                told = forest.predict(x[known])
                self.forests[c] = forest, told, train[c][known].to_numpy()
                if not known.all():
                    filled.loc[~known, c] = forest.predict(x[~known])

    def _others(self, table: pd.DataFrame, column: str) -> np.ndarray:
        return self.design.encode(table)[:, self.design.owners != column]

    def _draw(self, column: str, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A level by its chance; the number of one of the five nearest predictions, as in MICE."""
        forest, told, values = self.forests[column]
        if column not in self.design.wide:
            chances = forest.predict_proba(x).cumsum(1)
            luck = rng.random((len(x), 1)) * chances[:, -1:]
            return forest.classes_[(chances < luck).sum(1)]
        order = np.argsort(told, kind="stable")
        place = np.searchsorted(told[order], forest.predict(x)) + rng.integers(-3, 2, len(x))
        return values[order[place.clip(0, len(order) - 1)]]

    def filled(self, blurred: pd.DataFrame, seed: int, drawn: bool = False) -> pd.DataFrame:
        """Predictions, or draws, in the gaps."""
        rng, gaps, found = np.random.default_rng(seed), blurred.isna(), blurred.fillna(self.fill)
        for _ in range(self.passes):
            for c in self.order:
                empty = gaps[c].to_numpy()
                if empty.any():
                    x = self._others(found[empty], c)
                    told = self._draw(c, x, rng) if drawn else self.forests[c][0].predict(x)
                    found.loc[empty, c] = told
        return found


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


def measure(
    name: str, seeds: int, minutes: float, share: float, side: str
) -> dict[str, list[float]]:
    """By imputer, the mean of what was found on a few masks of one table."""
    schema, train, *unseen = split(name)
    real, learned = unseen[side == "reference"], {}
    rows, truth = plain(train, schema), plain(real, schema)

    def learn(name: str, what: Callable) -> object:
        reset_peak()
        began = time.monotonic()
        result = what()
        learned[name] = time.monotonic() - began, peak_memory() or 0.0
        return result

    makers = {"mean or mode": mean_or_mode, "5 nearest neighbours": neighbours,
              "a random patient's value": a_random_value}  # fmt: skip
    fills = {k: learn(k, lambda make=make: make(rows)) for k, make in makers.items()}
    forests, drawn = "random forests in a chain (MissForest)", "the same, drawn (MICE)"
    chain = learn(forests, lambda: Chain(rows))
    fills |= {forests: chain.filled, drawn: lambda x, seed: chain.filled(x, seed, drawn=True)}
    model = Synthesizer(schema, seed=0)
    one, several = "`impute`, one draw", f"`impute`, draws={DRAWS}"
    learn(one, lambda: model.fit(train, minutes=minutes, progress=False))
    learned |= {drawn: learned[forests], several: learned[one]}
    told: dict[str, list[list[float]]] = {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        hidden = {c: (rng.random(len(real)) < share) & real[c].notna() for c in schema.modelled}
        blurred = real.assign(**{c: real[c].mask(cells) for c, cells in hidden.items()})
        holes = plain(blurred, schema)
        fills[one] = lambda _, seed, x=blurred: plain(model.impute(x, seed=seed), schema)
        fills[several] = lambda _, seed, x=blurred: plain(model.impute(x, DRAWS, seed), schema)
        for method, fill in fills.items():
            reset_peak()
            began = time.monotonic()
            found = fill(holes, seed)
            spent, peak = time.monotonic() - began, max(peak_memory() or 0.0, learned[method][1])
            errors = scores(rows, truth, found, pd.DataFrame(hidden))
            told.setdefault(method, []).append([*errors, learned[method][0], spent, peak])
    return {method: np.mean(found, axis=0).tolist() for method, found in told.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", default=["nhanes", "thyroid"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--rows", choices=("holdout", "reference"), default="holdout")
    args = parser.parse_args()
    torch.set_num_threads(1)
    heads = "table; imputer; RMSE; MAE; accuracy; W1; TV; correlation; fit s; fill s; peak MiB"
    line(*heads.split("; "))
    line(*["---"] * len(heads.split("; ")))
    for name in args.tables:
        told = measure(name, args.seeds, args.minutes, args.share, args.rows)
        for method, found in told.items():
            line(name, method, *found[:6], round(found[6]), round(found[7], 1), round(found[8]))


if __name__ == "__main__":
    main()
