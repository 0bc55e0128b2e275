"""The search returns what a slow search over all pairs returns."""

import numpy as np
import pandas as pd
import pytest

from synthmed_nb import neighbors
from synthmed_nb.neighbors import RecordSpace, levels_of, nearest
from synthmed_nb.schema import Schema


def mixed(rows, seed, gaps=0.15, codes=200):
    """Numbers, dates and categories with gaps, and one column of many levels if `codes` > 64."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=rows),
            "b": rng.integers(0, 5, rows) / 2,
            "day": pd.Timestamp("2020-01-01")
            + pd.to_timedelta(rng.integers(0, 900, rows), unit="D"),
            "group": rng.choice(list("pqrs"), rows),
            "flag": rng.random(rows) < 0.3,
            "code": np.char.add("x", (codes * rng.random(rows) ** 3).astype(int).astype(str)),
        }
    )
    frame["flag"] = frame["flag"].astype("boolean")
    return frame.mask(rng.random(frame.shape) < gaps)


def slow(space, queries, base, k):
    """All distances, straight from the definition, cell by cell."""
    total = np.zeros((len(queries), len(base)))
    for name in space.schema.numeric:
        u, v = space.rank(queries, name)[:, None], space.rank(base, name)[None]
        total += np.where(
            np.isnan(u) & np.isnan(v), 0, np.where(np.isnan(u) | np.isnan(v), 1, np.abs(u - v))
        )
    for name in space.schema.categorical:
        u, v = (levels_of(frame, space.schema, name) for frame in (queries, base))
        total += np.array([[a != b for b in v] for a in u])
    order = np.argsort(total, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(total, order, axis=1), order


@pytest.mark.parametrize("gaps", [0.0, 0.15, 0.5])
@pytest.mark.parametrize("codes", [40, 600])
def test_the_search_is_exact(gaps, codes):
    sizes = enumerate((600, 900, 60))
    background, base, queries = (mixed(n, s, gaps, codes) for s, n in sizes)
    schema = Schema.detect(pd.concat([background, base]))
    space = RecordSpace.fit(background, schema)
    assert space.shared["code"] == (64 if codes == 600 else 1)
    distances, found, recall = nearest(space, queries, base, 5)
    right, at = slow(space, queries, base, 5)
    assert recall == 1
    np.testing.assert_allclose(distances, right, atol=1e-12)
    same = np.diff(right, axis=1).min(axis=1) > 1e-9  # where no two are equally far
    assert same.any() and (found[same] == at[same]).all()


def test_a_vector_is_never_further_than_its_record():
    base = mixed(200, 1, codes=600)
    space = RecordSpace.fit(mixed(500, 2, codes=600), Schema.detect(base))
    code = space.encode(base)
    apart = np.abs(code[:, None] - code[None]).sum(axis=2)
    right, at = slow(space, base, base, len(base))
    true = np.empty_like(right)
    np.put_along_axis(true, at, right, axis=1)
    assert (apart <= true + 1e-5).all() and (apart > true - 1e-5).mean() > 0.9


def test_a_large_search_is_approximate_and_says_how_often_it_is_right(monkeypatch):
    background, base, queries = (mixed(n, s, 0.05) for s, n in enumerate((300, 4000, 1500)))
    space = RecordSpace.fit(background, Schema.detect(base))
    right = nearest(space, queries, base, 3)
    monkeypatch.setattr(neighbors, "MOST_WORK", 0)
    alone = nearest(space, queries, base, 1, seed=1)
    hit = alone.distances[:, 0] <= right.distances[:, 0] + 1e-9
    assert hit.mean() == pytest.approx(alone.recall) and alone.recall >= 0.999  # all are checked
    found = nearest(space, queries, base, 3, seed=1)
    assert (found.distances >= right.distances - 1e-9).all()
    again = nearest(space, queries, base, 3, seed=1)
    np.testing.assert_array_equal(found.rows, again.rows)
    copies = nearest(space, base, base, 1, seed=1)
    assert (copies.distances == 0).mean() > 0.999


def test_copies_are_at_zero_and_first():
    base = mixed(1500, 1)
    schema = Schema.detect(base)
    space = RecordSpace.fit(mixed(300, 0), schema)
    distances, found, _ = nearest(space, base, base, 2)
    alone = distances[:, 1] > 0
    assert (distances[:, 0] == 0).all() and alone.sum() > 1000
    assert (found[alone, 0] == np.arange(1500)[alone]).all()


def test_thousands_of_equal_records_do_not_hide_a_nearer_one():
    base = pd.DataFrame({"a": ["x"] * 3000 + ["y"], "b": np.r_[np.zeros(3000), 1.0] + 0.5})
    base = pd.concat([base, pd.DataFrame({"a": ["y"] * 300, "b": np.arange(300) / 3})])
    schema = Schema.detect(base)
    space = RecordSpace.fit(base, schema)
    distances, found, _ = nearest(space, base.iloc[[3000]], base, 1)
    assert found[0, 0] == 3000 and distances[0, 0] == 0
    distances, found, _ = nearest(space, base.iloc[[0]], base, 3)
    assert (distances == 0).all()


def test_the_answer_does_not_depend_on_the_other_queries():
    background, base, queries = (mixed(n, s) for s, n in enumerate((300, 900, 50)))
    space = RecordSpace.fit(background, Schema.detect(base))
    together = nearest(space, queries, base, 3)[0]
    alone = np.vstack([nearest(space, queries.iloc[[i]], base, 3)[0] for i in range(50)])
    np.testing.assert_array_equal(together, alone)
