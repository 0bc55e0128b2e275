"""Measures generation: `python benchmarks/generation.py WHAT [TABLE ...] [--minutes M]`.

WHAT is the name of a function below: `tables`, `schedules`, `steps`, `networks`, `knob`, `parents`,
`speed`, `gaps`, `balance`, `embeddings`, `small`, `rows` or `columns`. A TABLE is `nhanes`, the
embedded one, or a name in `synthmed_nb.datasets.PUBLIC`; those lie in the folder that
SYNTHMED_DATA names.
`--minutes` caps each training.
"""

import argparse
import resource
import time
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from measure import line, paper
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import KNNImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import synthmed_nb.unet as unet_room
from synthmed_nb import Schema, Synthesizer, audit, datasets, evaluate
from synthmed_nb.auditing import Audit
from synthmed_nb.encoder import encode, fit_encoder
from synthmed_nb.model import RecordModel, token_task
from synthmed_nb.neighbors import RecordSpace
from synthmed_nb.schedules import SCHEDULES, CosineSchedule, Plan, colour_columns, dependence
from synthmed_nb.schema import DataNote
from synthmed_nb.synthesizer import vocabulary
from synthmed_nb.training import Run, TrainConfig
from synthmed_nb.unet import Block

warnings.simplefilter("ignore", DataNote)
PAPER = ("adult", "default_credit", "shoppers", "magic", "beijing_pm25", "diabetes130")


def split(name: str) -> tuple[Schema, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Schema, train rows, and the fixed test rows in two halves."""
    if name == "nhanes":
        table = datasets.load_nhanes()
        schema = Schema.detect(table, target="diabetes")
        return schema, *schema.split(table, seed=0)
    table = datasets.load(name)
    about = datasets.PUBLIC[name]
    test = np.zeros(len(table), dtype=bool)
    test[datasets.test_rows(name)] = True
    schema = Schema.detect(table[~test], target=about.target, patient=about.patient)
    real = schema.check(table[test].reset_index(drop=True))
    owners = np.arange(len(real)) if about.patient is None else pd.factorize(real[about.patient])[0]
    halves = [real[owners % 2 == side].reset_index(drop=True) for side in (0, 1)]
    return schema, schema.check(table[~test].reset_index(drop=True)), *halves


def _found(checked: Audit) -> list[float]:
    """AUC of the plain distance, of the density ratio, and of all attacks together."""
    aucs = {attack.name: attack.auc for attack in checked.attacks}
    return [aucs[name] for name in ("distance", "density ratio", "stacked")]


def measure(name: str, minutes: float | None, seed: int = 0) -> list[object]:
    """One training and what came of it."""
    schema, train, holdout, reference = split(name)
    start = time.monotonic()
    model = Synthesizer(schema, seed=seed).fit(train, minutes=minutes)
    fitted = time.monotonic()
    synthetic = model.sample(len(train), seed=seed + 1)
    sampled = time.monotonic()
    found = evaluate(train, holdout, synthetic, schema, seed=seed)
    checked = audit(train, holdout, reference, synthetic, schema, seed=seed)
    f, u = found.fidelity, found.utility
    return [
        name, f"{len(train):,} x {len(schema.modelled)}", round(fitted - start),
        round(sampled - fitted, 1), paper(f, "Shape"), paper(f, "Trend"),
        f.measure("Trend", "paper").floor, f.detection().auc,
        1 - (2 * max(0.5, f.detection().auc) - 1), f.detection().auc_at_floor_size,
        u.gap if u else "", *_found(checked), checked.verdict,
    ]  # fmt: skip


def tables(names: list[str], minutes: float | None) -> None:
    """Fidelity in the forms of the papers, utility and attacks, one line a table."""
    heads = "table; rows; fit s; sample s; Shape %; Trend %; its floor; C2ST AUC against train; "
    heads += "its score; against holdout; gap; distance AUC; density-ratio AUC; stack AUC; verdict"
    line(*heads.split("; "))
    line(*["---"] * len(heads.split("; ")))
    for name in names or PAPER:
        line(*measure(name, minutes))


def schedules(names: list[str], minutes: float | None) -> None:
    """Each noise schedule of the tokens: fidelity and attacks, two seeds."""
    heads = "table; schedule; seed; steps; C2ST AUC against train; against holdout; Trend %; "
    line(*(heads + "distance AUC; density-ratio AUC; stack AUC").split("; "))
    for name in names or ("nhanes", "shoppers", "magic"):
        schema, train, holdout, reference = split(name)
        for schedule in SCHEDULES:
            for seed in (0, 1):
                model = Synthesizer(schema, schedule=schedule, seed=seed)
                model.fit(train, minutes=minutes)
                synthetic = model.sample(len(train), seed=1)
                f = evaluate(train, holdout, synthetic, schema).fidelity
                checked = audit(train, holdout, reference, synthetic, schema)
                line(name, schedule, seed, model.training_["tokens"]["steps"], f.detection().auc,
                     f.detection().auc_at_floor_size, paper(f, "Trend"),
                     *_found(checked))  # fmt: skip


def steps(names: list[str], minutes: float | None) -> None:
    """Quality against the number of steps in which tokens are written."""
    line("table", "steps", "sample s", "Shape %", "Trend %", "C2ST AUC against train")
    for name in names or ("nhanes",):
        schema, train, holdout, _ = split(name)
        model = Synthesizer(schema, seed=0).fit(train, minutes=minutes)
        shared = dependence(encode(model._encoder, train)[0])
        for count in (8, 12, 16, 24, len(schema.modelled)):
            plan = replace(model._model.plan, groups=colour_columns(shared, count))
            model._model = replace(model._model, plan=plan)
            start = time.monotonic()
            synthetic = model.sample(len(train), seed=1)
            spent = time.monotonic() - start
            f = evaluate(train, holdout, synthetic, schema).fidelity
            errors = (paper(f, name) for name in ("Shape", "Trend"))
            line(name, len(plan.groups), spent, *errors, f.detection().auc)


class WithoutSkips(unet_room.UNet):
    """The same U-Net, but nothing is carried past the waist."""

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        noise, h = self.noise(noise), self.enter(x)
        widths = []
        for block, narrow in zip(self.down, self.narrow, strict=True):
            h = block(h, noise)
            widths.append(h.shape[1])
            h = narrow(h)
        h = self.waist(h, noise)
        for width, widen, block in zip(
            reversed(widths), reversed(self.widen), reversed(self.up), strict=True
        ):
            h = block(widen(torch.cat([h, h.new_zeros(len(h), width)], dim=-1)), noise)
        return self.norm(h)


class Plain(nn.Module):
    """As many blocks as the U-Net has, all of one width: a plain residual MLP."""

    def __init__(self, inputs: int, noises: int, widths: tuple[int, ...], dropout: float = 0.0):
        super().__init__()
        self.noise = nn.Sequential(nn.Linear(noises, 64), nn.SiLU())
        self.enter = nn.Linear(inputs, widths[0])
        self.blocks = nn.ModuleList(
            Block(widths[0], 64, dropout) for _ in range(2 * len(widths) - 1)
        )
        self.norm = nn.LayerNorm(widths[0])

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        noise, h = self.noise(noise), self.enter(x)
        for block in self.blocks:
            h = block(h, noise)
        return self.norm(h)


class WithAttention(unet_room.UNet):
    """The U-Net, with self-attention among eight parts of the waist."""

    def __init__(self, inputs: int, noises: int, widths: tuple[int, ...], dropout: float = 0.0):
        super().__init__(inputs, noises, widths, dropout)
        self.attention = nn.MultiheadAttention(widths[-1] // 8, 1, batch_first=True)
        nn.init.zeros_(self.attention.out_proj.weight)
        self.waist.register_forward_hook(self._attend)

    def _attend(self, block: nn.Module, inputs: tuple, h: torch.Tensor) -> torch.Tensor:
        parts = h.reshape(len(h), 8, -1)
        return h + self.attention(parts, parts, parts, need_weights=False)[0].flatten(1)


def networks(names: list[str], minutes: float | None) -> None:
    """U-Net, no skips, attention at the waist, and plain MLP at equal seconds."""
    line("table", "network", "parameters", "steps", "held-out loss", "Trend %", "C2ST AUC")
    unet = unet_room.UNet
    for name in names or ("nhanes", "shoppers", "thyroid"):
        schema, train, holdout, _ = split(name)
        for kind in (unet, WithoutSkips, WithAttention, Plain):
            unet_room.UNet = kind
            model = Synthesizer(schema, seed=0).fit(train, minutes=minutes or 1.0)
            unet_room.UNet = unet
            f = evaluate(train, holdout, model.sample(len(train), seed=1), schema).fidelity
            told = model.training_["tokens"]
            line(name, kind.__name__, model.training_["parameters"], told["steps"], told["best"],
                 paper(f, "Trend"), f.detection().auc)  # fmt: skip


def knob(names: list[str], minutes: float | None) -> None:
    """The privacy knob: fidelity, utility and attacks at four settings, of two samples each."""
    heads = "table; privacy; C2ST AUC; Trend %; gap; distance AUC; density-ratio AUC; stack AUC"
    line(*heads.split("; "))
    for name in names or ("nhanes",):
        schema, train, holdout, reference = split(name)
        model = Synthesizer(schema, seed=0).fit(train, minutes=minutes)
        for privacy in (0.0, 0.25, 0.5, 1.0):
            for seed in (1, 2):
                synthetic = model.sample(len(train), seed=seed, privacy=privacy)
                found = evaluate(train, holdout, synthetic, schema)
                checked = audit(train, holdout, reference, synthetic, schema)
                f, u = found.fidelity, found.utility
                line(name, privacy, f.detection().auc, paper(f, "Trend"), u.gap if u else "",
                     *_found(checked))  # fmt: skip


def parents(names: list[str], minutes: float | None) -> None:
    """Fidelity against attacks over the number of parents: two splits, means of two samples."""
    heads = "table; split; parents; C2ST AUC against train; against holdout; Trend %; gap; "
    line(*(heads + "distance AUC; density-ratio AUC; stack AUC; p of membership").split("; "))
    for name in names or ("nhanes",):
        schema, *real = split(name)
        for seed in (0, 1):
            table = pd.concat(real, ignore_index=True)
            train, holdout, reference = schema.split(table, seed=seed) if seed else real
            model = Synthesizer(schema, seed=0).fit(train, minutes=minutes)
            for most in (len(schema.modelled), 13, 10, 8, 6, 4):
                plan = replace(model._model.plan, parents=most)
                model._model, found = replace(model._model, plan=plan), []
                for draw in (1, 2):
                    synthetic = model.sample(len(train), seed=draw)
                    told = evaluate(train, holdout, synthetic, schema)
                    checked = audit(train, holdout, reference, synthetic, schema, seed=draw)
                    f, p_value = told.fidelity, checked.questions[0].p_value
                    found.append([
                        f.detection().auc, f.detection().auc_at_floor_size, paper(f, "Trend"),
                        told.utility.gap if told.utility else np.nan, *_found(checked), p_value,
                    ])  # fmt: skip
                line(name, seed, most, *np.mean(found, axis=0))


def speed(names: list[str], minutes: float | None) -> None:
    """Rows drawn per second by networks of full size; their training does not matter here."""
    line("table", "columns", "rows per second", "threads")
    for name in names or ("adult", "diabetes130"):
        schema, train, _, _ = split(name)
        model = Synthesizer(schema, steps=10).fit(train)
        model.sample(10)
        start = time.monotonic()
        for _ in model.stream(16_384):
            pass
        spent = time.monotonic() - start
        line(name, len(schema.modelled), round(16_384 / spent), torch.get_num_threads())


def gaps(names: list[str], minutes: float | None) -> None:
    """Imputation of hidden cells of unseen patients: error against mean or mode, and kNN."""
    line("table", "method", "numbers: RMSE / SD", "categories: accuracy")
    for name in names or ("nhanes",):
        schema, train, holdout, _ = split(name)
        model = Synthesizer(schema, seed=0).fit(train, minutes=minutes)
        rng = np.random.default_rng(0)
        wide = [c for c in schema.modelled if c in schema.numeric]
        narrow = [c for c in schema.modelled if c not in schema.numeric]
        hidden = {c: (rng.random(len(holdout)) < 0.1) & holdout[c].notna() for c in schema.modelled}
        blurred = holdout.copy()
        for c, cells in hidden.items():
            blurred[c] = blurred[c].mask(cells)
        simple = blurred.copy()
        for c in schema.modelled:
            fill = train[c].astype(float).mean() if c in wide else train[c].mode()[0]
            simple[c] = simple[c].astype(float if c in wide else object).fillna(fill)
        filled = {"one draw": model.impute(blurred), "25 draws": model.impute(blurred, draws=25)}
        filled |= {"mean or mode": simple, "kNN": _by_neighbours(train, blurred, wide, narrow)}
        for method, found in filled.items():
            errors, right = [], []
            for c, cells in hidden.items():
                if c in wide:
                    gap = found[c].astype(float)[cells] - holdout[c].astype(float)[cells]
                    errors.append(np.sqrt((gap**2).mean()) / train[c].astype(float).std())
                else:
                    same = found[c].astype(str)[cells] == holdout[c].astype(str)[cells]
                    right.append(same.mean())
            line(name, method, float(np.mean(errors)), float(np.mean(right)))


def balance(names: list[str], minutes: float | None) -> None:
    """Recall of the rarer class on unseen patients: trained on synthetic rows, balanced or not."""
    line("table", "trained on", "share of the rarer class", "its recall", "AUC")
    for name in names or ("shoppers",):
        schema, train, holdout, _ = split(name)
        model = Synthesizer(schema, seed=0).fit(train, minutes=minutes)
        rarer = train[schema.target].value_counts().index[-1]
        tables = {
            "real": train,
            "synthetic": model.sample(len(train), seed=1),
            "synthetic, balanced": model.sample(len(train), balance=schema.target, seed=1),
        }
        for kind, rows in tables.items():
            design = pd.get_dummies(pd.concat([rows, holdout])[schema.modelled], dtype=float)
            design = design.drop(columns=[c for c in design if str(c).startswith(schema.target)])
            labels = (pd.concat([rows, holdout])[schema.target] == rarer).to_numpy()
            forest = HistGradientBoostingClassifier(random_state=0)
            forest.fit(design[: len(rows)], labels[: len(rows)])
            chances = forest.predict_proba(design[len(rows) :])[:, 1]
            real = labels[len(rows) :]
            line(name, kind, float(labels[: len(rows)].mean()), float((chances[real] > 0.5).mean()),
                 float(roc_auc_score(real, chances)))  # fmt: skip


def _by_neighbours(
    train: pd.DataFrame, blurred: pd.DataFrame, wide: list[str], narrow: list[str]
) -> pd.DataFrame:
    """Five nearest training rows; numbers standardised, categories one-hot and the largest wins."""
    both = pd.concat([train, blurred], ignore_index=True)
    numbers = both[wide].astype(float)
    middle, spread = numbers[: len(train)].mean(), numbers[: len(train)].std()
    parts, owners = [(numbers - middle) / spread], list(wide)
    for c in narrow:
        hot = pd.get_dummies(both[c].astype(str)).astype(float).drop(columns="nan", errors="ignore")
        parts.append(hot.mask(both[c].isna()))
        owners += [c] * hot.shape[1]
    wide_table = np.hstack([part.to_numpy() for part in parts])
    knn = KNNImputer(n_neighbors=5, keep_empty_features=True).fit(wide_table[: len(train)])
    done, owners = knn.transform(wide_table[len(train) :]), np.array(owners)
    found = blurred.copy().astype(object)
    for c in wide:
        found[c] = done[:, owners == c][:, 0] * spread[c] + middle[c]
    for c, part in zip(narrow, parts[1:], strict=True):
        levels = part.columns.to_numpy()[done[:, owners == c].argmax(axis=1)]
        found[c] = found[c].astype(str).where(blurred[c].notna().to_numpy(), levels)
    return found


def embeddings(names: list[str], minutes: float | None) -> None:
    """How well records that are near, or a hundred labels, tell a column the model never saw."""
    heads = "table; described by; dimensions; AUC of 50 nearest; of logistic regression, 100 labels"
    line(*heads.split("; "))
    for name in names or ("nhanes", "adult", "shoppers"):
        schema, train, holdout, _ = split(name)
        parts = train, holdout
        labels = [x[schema.target].astype(object).fillna("gap").astype(str) for x in parts]
        train, holdout = (x[schema.modelled].drop(columns=schema.target) for x in parts)
        blind = Schema.detect(train)
        model = Synthesizer(blind, seed=0).fit(train, minutes=minutes)
        mixed = RecordSpace.fit(train, blind)
        spaces = {
            "mixed-type distance": [mixed.encode(table) for table in (train, holdout)],
            "embedding": [model.embed(table) for table in (train, holdout)],
        }
        for kind, (base, queries) in list(spaces.items()):
            middle, spread = base.mean(axis=0), base.std(axis=0) + 1e-6
            spaces[f"{kind}, standardised"] = [(x - middle) / spread for x in (base, queries)]
        for kind, (base, queries) in spaces.items():
            near = KNeighborsClassifier(50, weights="distance").fit(base, labels[0])
            found = [_auc(near, queries, labels[1])]
            for seed in range(10):
                some, _ = train_test_split(
                    np.arange(len(base)), train_size=100, random_state=seed, stratify=labels[0]
                )
                probe = LogisticRegression(C=0.01, max_iter=2000).fit(
                    base[some], labels[0].iloc[some]
                )
                found.append(_auc(probe, queries, labels[1]))
            line(name, kind, base.shape[1], found[0], float(np.mean(found[1:])))


def _auc(model: object, queries: np.ndarray, labels: pd.Series) -> float:
    """Mean one-against-rest AUC over the classes that both know."""
    chances = model.predict_proba(queries)
    known = [(i, c) for i, c in enumerate(model.classes_) if (labels == c).any()]
    return float(np.mean([roc_auc_score(labels == c, chances[:, i]) for i, c in known]))


def small(names: list[str], minutes: float | None) -> None:
    """Five trainings on 300 patients each: fidelity, and attacks with their 95 % intervals."""
    line("table", "patients", "draw", "Shape %", "its floor", "attack", "AUC", "low", "high")
    for name in names or ("nhanes",):
        schema, train, holdout, reference = split(name)
        for seed in range(5):
            few = train.sample(300, random_state=seed).reset_index(drop=True)
            model = Synthesizer(schema, seed=seed).fit(few, minutes=minutes)
            synthetic = model.sample(len(few), seed=1)
            shape = evaluate(few, holdout, synthetic, schema).fidelity.measure("Shape", "paper")
            for attack in audit(few, holdout, reference, synthetic, schema).attacks:
                line(name, len(few), seed, shape.value, shape.floor, attack.name, attack.auc,
                     attack.auc_low, attack.auc_high)  # fmt: skip


def _step_seconds(table: pd.DataFrame, steps: int = 60) -> tuple[float, float]:
    """Milliseconds per training step of the token network, and of encoding, per 1,000 rows."""
    schema = Schema.detect(table)
    start = time.monotonic()
    encoder = fit_encoder(table, schema)
    tokens = torch.from_numpy(encode(encoder, table)[0])
    spent = time.monotonic() - start
    words, plan = vocabulary(encoder, torch.device("cpu")), Plan(((0,),), ((),), 1)
    size = unet_room.UNetSize.for_table(10_000, 22)
    net = RecordModel.untrained(words, CosineSchedule(), plan, size).token_net
    task = token_task(words, CosineSchedule(), tokens, tokens[:10])
    run = Run(net, task, TrainConfig(steps=steps))
    for step in range(steps):
        if step == 10:
            start = time.monotonic()
        run.advance(task, 1e-3)
    return (time.monotonic() - start) / (steps - 10) * 1e3, spent / len(table) * 1e6


def rows(names: list[str], minutes: float | None) -> None:
    """Cost against rows: one network, `brfss2015_diabetes` repeated with jitter."""
    line("rows", "ms a step", "ms to encode 1,000 rows", "peak memory GiB")
    table = datasets.load("brfss2015_diabetes")
    for count in (10_000, 100_000, 1_000_000):
        rng = np.random.default_rng(0)
        many = table.iloc[rng.integers(0, len(table), count)].reset_index(drop=True)
        many["BMI"] = (many["BMI"] + rng.normal(0, 1, count)).round(1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        line(f"{count:,}", *_step_seconds(many), peak)


def columns(names: list[str], minutes: float | None) -> None:
    """Cost against columns: half numbers, half codes, 5,000 rows; and the whole of a short fit."""
    line("columns", "ms a step", "ms to encode 1,000 rows", "fit of 50 steps s", "sample 500 s")
    for count in (10, 30, 100, 300, 1000):
        rng = np.random.default_rng(0)
        causes = rng.normal(size=(5000, 5))
        numbers = causes @ rng.normal(size=(5, count // 2)) + rng.normal(size=(5000, count // 2))
        table = pd.DataFrame(numbers.round(2)).add_prefix("number_")
        for i in range(count - count // 2):
            mixed = causes[:, i % 5] + rng.normal(size=5000)
            table[f"code_{i}"] = pd.cut(mixed, 8, labels=list("abcdefgh")).astype(str)
        told = _step_seconds(table)
        start = time.monotonic()
        model = Synthesizer(Schema.detect(table), steps=50).fit(table)
        fitted = time.monotonic()
        model.sample(500)
        line(len(table.columns), *told, fitted - start, time.monotonic() - fitted)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    what = "tables schedules steps networks knob parents speed gaps balance embeddings small rows"
    parser.add_argument("what", choices=[*what.split(), "columns"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--minutes", type=float)
    args = parser.parse_args()
    globals()[args.what](args.names, args.minutes)
