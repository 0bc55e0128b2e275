"""Rules between columns: what is called impossible was never seen; luck makes no rules."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from synthmed_nb.rules import find_formulas, never_together


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.integers(0, 400))
def test_what_never_meets_was_never_seen_from_either_side(seed, a, b, shift):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, a, 400)
    y = np.where(np.arange(400) < shift, x % b, rng.integers(0, b, 400))
    never = never_together(x, y, (a, b))
    assert never.shape == (a, b) and not never[x, y].any()
    assert (never == never_together(y, x, (b, a)).T).all()


cells = st.one_of(st.just(np.nan), st.floats(-1e300, 1e300), st.integers(-9, 9).map(float))


@given(st.lists(st.lists(cells, min_size=5, max_size=5), max_size=12), st.booleans())
def test_any_numbers_can_be_searched(rows, step):
    table = np.array(rows * 20, dtype=float).reshape(-1, 5)
    numbers = {f"n{i}": column for i, column in enumerate(table.T)}
    for formula in find_formulas(numbers, dict.fromkeys(numbers, float(step))):
        due, now = formula.of(numbers), numbers[formula.name]
        both = ~np.isnan(due) & ~np.isnan(now)
        assert both.sum() >= 100 and np.median(np.abs(due - now)[both]) <= np.std(now[both]) / 8


def test_luck_makes_no_rules():
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 12, (40, 2000))
    for x, y in zip(columns[:-1], columns[1:], strict=True):
        assert not never_together(x, y, (12, 12)).any()
    numbers = {f"n{i}": rng.normal(size=300) for i in range(12)}
    numbers["nearly"] = numbers["n1"] + 0.2 * rng.normal(size=300)
    assert find_formulas(numbers, dict.fromkeys(numbers, 0.0)) == ()


def test_a_total_of_many_items_and_a_date_are_found():
    rng = np.random.default_rng(1)
    items = {f"item{i}": rng.integers(0, 4, 1000).astype(float) for i in range(9)}
    total = sum(items.values())
    day = rng.integers(17_000, 18_000, 1000) * 86_400.0
    stay = rng.integers(1, 40, 1000).astype(float)
    table = {**items, "admitted": day, "stay": stay, "left": day + stay * 86_400, "total": total}
    steps = {**dict.fromkeys(table, 1.0), "admitted": 86_400.0, "left": 86_400.0}
    found = {f.name: f for f in find_formulas(table, steps)}
    assert set(found) == {"total", "left"}
    assert set(found["total"].weights) == {1.0} and len(found["total"].inputs) == 9
    assert np.allclose(found["left"].of(table), table["left"])
    assert sorted(found["left"].weights) == [1.0, 86_400.0]
