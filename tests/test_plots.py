"""Figures: what is drawn is what was found, whatever the names, the width and the gaps."""

import math

import numpy as np
import pytest
from report_pages import HOSTILE, example

from synthmed_nb import fidelity_figures, model_figures, privacy_figures, utility_figures
from synthmed_nb.plots import HOLDOUT, LIMIT, REAL, SYNTHETIC, WIDTH, image

SIZES = {"one": 1, "hostile": len(HOSTILE), "wide": 60}


def names_of(kind):
    names = {"one": ["age"], "hostile": HOSTILE}
    return names.get(kind) or [f"laboratory_value_number_{i:02}" for i in range(60)]


def fidelity_of(kind):
    """A made-up `Fidelity` as a dictionary, with gaps where a count is hidden."""
    rng, names = np.random.default_rng(0), names_of(kind)
    size = len(names)
    square = rng.uniform(-1, 1, (size, size)).round(2)
    square = ((square + square.T) / 2).tolist()
    hidden = [[None if (i + j) % 3 == 1 else 0.1 for i in range(size)] for j in range(size)]
    columns = [
        dict(name=name, kind="numeric" if i % 2 else "categorical", shape_error=i + 0.5,
             missing_real=0.02 * (i % 3), missing_synthetic=None if i % 5 == 4 else 0.01,
             bins=[*names[:3], "other"], real=[0.5, 0.3, 0.2, None][-len(names[:3]) - 1:],
             synthetic=[0.4, 0.4, 0.2, None][-len(names[:3]) - 1:], wasserstein=None)
        for i, name in enumerate(names)
    ]  # fmt: skip
    measures = [
        dict(name=name, family=("columns", "pairs", "new")[i % 3], form=("paper", "fixed")[i % 2],
             unit="%", best=("low", "high", "floor")[i % 3], value=1.0, low=0.9, high=1.1, note="",
             at_floor_size=1.0, floor=None if i % 4 == 3 else 0.5,
             ratio=None if i % 4 == 3 else 0.01 * 8.0**i,
             ratio_low=None if i % 4 == 3 else 0.005 * 8.0**i,
             ratio_high=None if i % 4 == 3 else 0.02 * 8.0**i)
        for i, name in enumerate(names[:9])
    ]  # fmt: skip
    shares = [None if i % 7 == 3 else 0.05 for i in range(20)]
    clues = [dict(columns=[names[i % size], names[-1]][: 1 + i % 2], share=0.5 / (i + 1))
             for i in range(12)]  # fmt: skip
    detection = dict(detector=names[-1], auc=0.6, auc_low=0.58, auc_high=0.62, clues=clues)
    detection |= dict(scores_real=shares, scores_synthetic=shares[::-1])
    cells = rng.dirichlet(np.ones(25)).reshape(5, 5).round(4).tolist()
    cells[0][0] = None
    return dict(
        columns=columns,
        measures=measures,
        detections=[detection, detection | dict(clues=[])],
        pairs=dict(names=names, error=hidden, association_real=square,
                   association_synthetic=hidden),
        missingness=dict(names=names, together_real=hidden, together_synthetic=hidden),
        density=dict(x=[*range(6)], y=[*range(6)], real=cells, synthetic=cells, explained=0.3),
        rare=[dict(column=name, level=names[-1], real=0.03, synthetic=0.02, low=0.01, high=0.04)
              for name in names],
    )  # fmt: skip


def utility_of(kind):
    """A made-up `Utility` as a dictionary."""
    names = names_of(kind)
    curve = dict(times=[0.0, 6.0, 12.0], survival=[1.0, 0.9, 0.8], low=[1.0, 0.8, 0.7])
    curve["high"] = [1.0, 0.95, 0.9]
    score = dict(real=0.9, synthetic=0.85, gap=0.05, gap_low=0.01, gap_high=0.09)
    score |= dict(both_gap=0.0, both_low=-0.01, both_high=0.01)
    scores = [score | dict(metric=m, best="low" if m == "Brier" else "high")
              for m in ("AUC", "average precision", "accuracy", "F1", "Brier")]  # fmt: skip
    bins = dict(predicted=[0.05, 0.3], observed=[0.04, 0.35], share=[0.7, 0.3])
    calibration = [dict(bins, trained_on=on) for on in ("real", "synthetic", "both")]
    models = [dict(model=name, trtr=0.9, tstr=0.85, gap=0.05, gap_low=0.01, gap_high=0.09,
                   scores=scores, calibration=calibration) for name in names[:4]]  # fmt: skip
    terms = [dict(term=name, real=0.5, real_low=0.2, real_high=0.8, synthetic=-0.1,
                  synthetic_low=-0.5, synthetic_high=0.3, same_sign=False, covered=i % 2 == 0)
             for i, name in enumerate(names)]  # fmt: skip
    lived = dict.fromkeys(("real", "holdout", "synthetic"), curve)
    return dict(
        target=names[0], metric="AUC", trtr=0.9, models=models, claim=dict(limit=0.03),
        coefficients=dict(kind="logistic regression", terms=terms),
        survival=lived | dict(time=names[0], event=names[-1], horizon=10.0),
    )  # fmt: skip


def bias_of(kind):
    """A made-up `Bias` as a dictionary, with the balanced table beside it."""
    names = names_of(kind)
    groups = [dict(column=name, group=names[-1], share=0.3, ratio=None if i % 3 == 2 else 1.3,
                   ratio_low=None if i % 3 == 2 else 1.1, ratio_high=None if i % 3 == 2 else 1.6)
              for i, name in enumerate(names)]  # fmt: skip
    gap = dict(model=names[-1], metric="calibration", gap_real=0.1, gap_synthetic=0.2)
    gap |= dict(difference=0.1, low=-0.05, high=0.25, groups=names[:5])
    gap |= dict(real=[0.7, 0.8, 0.6, 0.5, 0.4][: len(names)], synthetic=[0.6] * len(names[:5]))
    fair = [gap | dict(column=name) for name in names[:7]]
    return dict(groups=groups, fairness=fair, balanced=dict(groups=groups[:1]))


def audit_of(kind):
    """The example of an audit, with other names of attacks."""
    audit, names = example("audit"), names_of(kind)
    for i, attack in enumerate(audit["attacks"]):
        attack["name"] = names[i % len(names)]
    return audit | ({"white_box": []} if kind == "one" else {})


FIGURES = {
    fidelity_of: [fidelity_figures.measures_forest, fidelity_figures.marginals,
                  fidelity_figures.shape_errors, fidelity_figures.pair_errors,
                  fidelity_figures.associations, fidelity_figures.missing_rates,
                  fidelity_figures.missingness_map, fidelity_figures.detector_view,
                  fidelity_figures.density_map, fidelity_figures.rare_levels],
    utility_of: [utility_figures.utility_forest, utility_figures.utility_bars,
                 utility_figures.reliability, utility_figures.kaplan_meier,
                 utility_figures.coefficients],
    bias_of: [utility_figures.subgroups, utility_figures.fairness],
    audit_of: [privacy_figures.attacks, privacy_figures.leak_curve, privacy_figures.roc,
               privacy_figures.distances],
}  # fmt: skip
EVERY = [(draw, made) for made, draws in FIGURES.items() for draw in draws]
NONE_OF_ONE = {"pair_errors", "associations"}
each_figure = pytest.mark.parametrize("draw, made", EVERY, ids=[d.__name__ for d, _ in EVERY])


def texts(fig):
    """Every text of a figure that is shown, after it was laid out."""
    fig.draw_without_rendering()
    found = [
        t for t in fig.findobj(lambda x: hasattr(x, "get_fontsize") and hasattr(x, "get_text"))
    ]
    return [t for t in found if t.get_visible() and t.get_text().strip()]


@each_figure
@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.filterwarnings("error:constrained_layout not applied")
@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_figure_holds_whatever_the_table(draw, made, kind):
    fig = draw(made(kind))
    if kind == "one" and draw.__name__ in NONE_OF_ONE:
        assert fig is None
        return
    wide, high = fig.get_size_inches()
    assert wide <= WIDTH + 1e-9 and high <= 12.5
    for text in texts(fig):
        assert text.get_fontsize() >= 6.2, text.get_text()
        assert "\u202e" not in text.get_text() and "\x00" not in text.get_text()
        assert text.get_text().count("$") == text.get_text().count(r"\$"), text.get_text()
    box = fig.get_tightbbox()  # inches: all that is drawn lies inside
    assert min(box.x0, box.y0) > -0.05 and box.x1 < wide + 0.05 and box.y1 < high + 0.05, box
    if kind == "wide":
        assert len(image(fig, "what it shows").html) < 600_000


@pytest.mark.parametrize("draw, made", EVERY[::4], ids=[d.__name__ for d, _ in EVERY[::4]])
def test_the_same_figure_has_the_same_bytes(draw, made):
    first, second = (image(draw(made("hostile")), "what it shows") for _ in range(2))
    assert first == second


def test_made_up_noise_has_the_same_bytes_for_the_same_seed():
    first, second, other = (image(model_figures.noise_schedules(s), "noise") for s in (0, 0, 1))
    assert first == second != other


def bars(ax):
    return [round(bar.get_height(), 6) for bar in ax.patches]


def test_columns_show_their_shares():
    fidelity = fidelity_of("wide")
    fig = fidelity_figures.marginals(fidelity, panels=2)
    assert [ax.get_title("right") for ax in fig.axes[:2]] == ["59.5 %", "58.5 %"]  # worst first
    assert bars(fig.axes[0])[:3] == [50, 30, 20] and math.isnan(bars(fig.axes[0])[3])
    line = next(line for line in fig.axes[0].lines if line.get_marker() == "D")
    assert list(line.get_ydata())[:3] == [40, 40, 20]
    assert fig.axes[0].patches[0].get_facecolor()[:3] == pytest.approx(rgb(REAL), abs=0.01)
    assert line.get_color() == SYNTHETIC


def rgb(colour):
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def test_a_ratio_beyond_the_axis_is_an_arrow_and_none_is_said():
    fidelity = fidelity_of("hostile")
    (ax,) = fidelity_figures.measures_forest(fidelity).axes
    low, high = ax.get_xlim()
    arrows = [line for line in ax.lines if line.get_marker() in "<>" and line.get_color() == LIMIT]
    ratios = [(m["ratio_low"], m["ratio_high"]) for m in fidelity["measures"] if m["ratio"]]
    beyond = sum((a < low) + (b > high) for a, b in ratios)
    assert beyond > 0 and len(arrows) == beyond
    assert [t.get_text() for t in ax.texts].count("no ratio") == 2
    drawn = {round(float(line.get_xdata()[0]), 9) for line in ax.lines if line.get_marker() == "D"}
    assert {round(m["ratio"], 9) for m in fidelity["measures"] if m["ratio"]} <= drawn


def test_heat_maps_show_their_tables():
    fidelity = fidelity_of("hostile")
    real, synthetic, change = fidelity_figures.associations(fidelity).axes[:3]
    table = np.array(fidelity["pairs"]["association_real"], dtype=float)
    assert np.allclose(real.collections[0].get_array(), table)
    other = np.array(fidelity["pairs"]["association_synthetic"], dtype=float)
    drawn = change.collections[0].get_array()
    assert np.allclose(drawn.filled(np.nan), other - table, equal_nan=True)
    assert synthetic.collections[0].get_clim() == (-1, 1)
    low, high = change.collections[0].get_clim()
    assert -low == high == np.nanmax(np.abs(other - table))
    ticks = [list(ax.get_xticks()) for ax in synthetic.figure.axes[3:]]
    assert ticks == [[-1, -0.5, 0, 0.5, 1], [-high, -high / 2, 0, high / 2, high]]


def test_wide_tables_keep_their_worst_columns():
    fidelity = fidelity_of("wide")
    fig = fidelity_figures.pair_errors(fidelity, limit=10)
    assert len(fig.axes[0].get_yticklabels()) == 9
    names = [
        t.get_text() for t in fidelity_figures.shape_errors(fidelity, 3).axes[0].get_yticklabels()
    ]
    assert names == [f"laboratory_value_number_{i}" for i in (59, 58, 57)]


def test_sides_of_an_audit_have_their_colours():
    ax = privacy_figures.distances(example("audit")).axes[0]
    found, (members, others) = example("audit")["distances"], ax.patches
    assert members.get_data().values == pytest.approx([100 * s for s in found["members"]])
    assert others.get_data().values == pytest.approx([100 * s for s in found["non_members"]])
    assert others.get_edgecolor()[:3] == pytest.approx(rgb(HOLDOUT), abs=0.01)


def test_a_curve_of_an_attack_is_its_roc():
    audit = example("audit")
    table, model = privacy_figures.roc(audit).axes
    best = max(audit["attacks"], key=lambda attack: attack["auc"])
    thick = next(line for line in table.lines if line.get_lw() == 1.8)
    low = best["roc"]["fpr"][0] / 2
    assert list(thick.get_xdata()) == best["roc"]["fpr"]
    assert list(thick.get_ydata()) == [max(rate, low) for rate in best["roc"]["tpr"]]
    bounds = [line.get_ydata()[0] for line in model.lines if line.get_color() == LIMIT]
    assert bounds == [audit["policy"]["tpr_at_1"], audit["policy"]["tpr_at_10"]]
    assert len(table.lines) == 1 + len(audit["attacks"]) + 2


def test_the_line_of_the_claim_stands_in_the_panel_of_the_main_metric():
    fig = utility_figures.utility_forest(utility_of("hostile"))
    limits = [
        [line.get_xdata()[0] for line in ax.lines if line.get_color() == LIMIT] for ax in fig.axes
    ]
    assert limits == [[0.03 * 0.9], [], [], [], []]


def test_nothing_to_draw_gives_no_figure():
    empty = dict(measures=[], detections=[], columns=[], density=None, rare=[])
    empty |= dict(pairs=dict(names=[], error=[], association_real=[], association_synthetic=[]))
    empty |= dict(missingness=dict(names=[], together_real=[], together_synthetic=[]))
    for draw in FIGURES[fidelity_of]:
        assert draw(empty) is None, draw.__name__
    empty = dict(models=[], metric="AUC", claim=dict(limit=0.03), trtr=0.0)
    empty |= dict(coefficients=None, survival=None)
    for draw in FIGURES[utility_of]:
        assert draw(empty) is None, draw.__name__
    for draw in FIGURES[bias_of]:
        assert draw(dict(groups=[], fairness=[], balanced=None)) is None, draw.__name__
    empty = dict(attacks=[], white_box=[], leak_curve=[], distances=None, policy={})
    for draw in FIGURES[audit_of]:
        assert draw(empty) is None, draw.__name__
