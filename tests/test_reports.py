"""Reports end to end: what is on a page, what is not, and what happens when a template fails."""

import json
import os
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_pages import EXAMPLES, HOSTILE, INPUTS, example, pages_of

from synthmed_nb import reports, words
from synthmed_nb.auditing import Audit
from synthmed_nb.columns import InputError
from synthmed_nb.evaluation import Evaluation
from synthmed_nb.reports import ReportError, report, report_parameters


class Page(HTMLParser):
    """Tags with their attributes, and the text, of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data.replace("\xa0", " ")

    def all(self, *names):
        return [attrs for tag, attrs in self.tags if tag in names]


@pytest.fixture(scope="module")
def pages():
    made = pages_of("plain")
    return {name: Page(path) for name, path in made.items()} | {"paths": made}


@pytest.fixture(scope="module")
def hostile_pages():
    return {name: Page(path) for name, path in pages_of("hostile").items()}


COLUMNS = len(example("evaluation")["fidelity"]["columns"])
each_page = pytest.mark.parametrize("name", INPUTS)


@pytest.fixture
def template(tmp_path, monkeypatch):
    """Replace the templates by one, named `small`, with the given code cells."""
    home = tmp_path / "templates"
    shutil.copytree(reports._folder() / "html", home / "html")
    monkeypatch.setattr(reports, "_folder", lambda: home)

    def make(*code):
        notebook = json.loads((EXAMPLES / "template.json").read_text(encoding="utf-8"))
        empty = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
        notebook["cells"] += [empty | {"id": f"c{i}", "source": c} for i, c in enumerate(code)]
        (home / "small.ipynb").write_text(json.dumps(notebook), encoding="utf-8")

    return make


def test_the_examples_are_what_the_package_writes():
    Evaluation.model_validate(example("evaluation"))
    Audit.model_validate(example("audit"))


# what is on a page


def test_pages_show_the_results(pages):
    evaluation, audit = example("evaluation"), example("audit")
    fidelity, utility, bias = (evaluation[key] for key in ("fidelity", "utility", "bias"))
    score, claim = fidelity["score"], utility["claim"]
    for shown in (
        f"{score['value']:.1f} %",
        f"interval {score['low']:.1f} to {score['high']:.1f} %; {score['floor']:.0f} %: as good as",
        *(f"{value:.1f} %" for value in score["parts"].values()),
        *(f"{detection['auc']:.3f}" for detection in fidelity["detections"]),
        *(m["name"] for m in fidelity["measures"]),
        *(f"{m['ratio']:.2f}" for m in fidelity["measures"] if m["ratio"] is not None),
        f"{evaluation['rows']['train']:,} real ones",
        *(column["name"] for column in fidelity["columns"]),
        *fidelity["caps"],
    ):
        assert shown in pages["fidelity"].text, shown
    for shown in (
        claim["sentence"],
        *(f"{model['gap']:.3f}" for model in utility["models"]),
        *(group["group"] for group in bias["groups"]),
        *(f"{gap['difference']:z.3f}" for gap in bias["fairness"]),
        *(term["term"] for term in utility["coefficients"]["terms"]),
        f"{utility['survival']['rmst_real']:.1f}",
    ):
        assert shown in pages["utility"].text, shown
    for shown in (
        audit["verdict"],
        *audit["reasons"],
        *(f"{attack['auc']:.3f}" for attack in [*audit["attacks"], *audit["white_box"]]),
        f"{100 * audit['bounds']['tpr_at_1']['upper']:.1f} %",
        f"{audit['questions'][0]['p_value']:.3f}",
        *audit["model"]["reasons"],
        "engineering policy",
    ):
        assert shown in pages["privacy"].text, shown
    for name in INPUTS:
        for digest in example("manifest")["inputs"].values():
            assert digest in pages[name].text


def test_the_first_page_says_all_that_matters(pages):
    """What was released, the four answers and why, how sure, what next, who decides, which rule."""
    text, manifest = pages["release"].text, example("manifest")
    lights = words.lights(example("evaluation"), example("audit"))
    for light in lights:
        word = words.STATES[light.state][1]
        for shown in (
            light.question,
            f"{light.name.capitalize()}: {word.lower()}.",
            light.reason,
            light.rule,
        ):
            assert shown in text, shown
    steps, gaps = (
        words.next_steps(lights, example("audit")),
        words.not_tested(example("evaluation"), example("audit")),
    )
    for shown in (
        "Nothing was released",
        "3,159 synthetic records",
        *steps,
        *gaps,
        *(cell for row in words.DECIDERS for cell in row),
        "singling out", "linkability", "inference", "164.514(b)(2)", "164.514(b)(1)", "0.09", "CMS",
        "not legal advice",
        str(manifest["parameters"]["target"]),
    ):  # fmt: skip
        assert shown in text, shown


@each_page
def test_a_page_is_self_contained(pages, name):
    page = pages[name]
    others = {f"{other}.html" for other in INPUTS}
    names = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    for tag, attrs in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "form", "base"}
        for key, value in attrs.items():
            assert not key.startswith("on") and key != "style"
            if key in {"src", "href", "srcset"}:
                assert value.startswith("data:") or value in others or value[1:] in names, value[
                    :50
                ]
    policies = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'; img-src data:;")
    assert "url(" not in page.source and "@import" not in page.source
    assert len(page.source) < 3_000_000


@each_page
def test_a_page_can_be_read_by_everyone(pages, hostile_pages, name):
    for page in (pages[name], hostile_pages[name]):
        assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == 1
        for tag in ("title", "main", "header", "footer"):
            assert len(page.all(tag)) == 1
        assert page.all("img") or name == "release"
        assert all(30 < len(attrs["alt"]) <= 1_000 for attrs in page.all("img"))
        assert all(attrs.get("scope") in {"col", "row"} for attrs in page.all("th"))
        assert len(page.all("caption")) == len(page.all("table")) > 2
        levels = [int(tag[1]) for tag, _ in page.tags if tag[0] == "h" and tag[1:].isdigit()]
        assert levels[0] == 1
        steps = zip(levels, levels[1:], strict=False)
        assert all(after <= before + 1 for before, after in steps)
        names = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
        assert len(names) == len(set(names))


@each_page
def test_pages_made_together_link_to_each_other(pages, name):
    links = [attrs for attrs in pages[name].all("a") if attrs["href"].endswith(".html")]
    assert [attrs["href"] for attrs in links] == [f"{other}.html" for other in reports.PAGES]
    current = [attrs["href"] for attrs in links if attrs.get("aria-current") == "page"]
    assert current == [f"{name}.html"]


def test_a_page_made_alone_links_to_no_other(tmp_path):
    files = {"audit": EXAMPLES / "audit.json"}
    page = Page(report("privacy", tmp_path / "privacy.html", **files))
    assert all(attrs["href"].startswith("#") for attrs in page.all("a"))


@each_page
def test_terms_are_explained_at_the_foot(pages, name):
    page = pages[name]
    asked = [attrs["href"][1:] for attrs in page.all("a") if attrs.get("class") == "term"]
    answered = [attrs["id"] for attrs in page.all("dt") if "id" in attrs]
    assert len(asked) == len(set(asked)) > 3 and set(asked) <= set(answered)
    assert "term-auc" in answered and answered == sorted(answered)


@each_page
def test_a_page_names_no_path_and_no_machine(pages, name):
    path = pages["paths"][name]
    for secret in (str(path.parent), path.parent.name, sys.prefix, str(Path.home()) + "/"):
        assert secret not in pages[name].source


def test_a_page_shows_no_rate_that_is_a_small_count(hostile_pages):
    columns = example("evaluation")["fidelity"]["columns"]
    place = [column["kind"] for column in columns].index("numeric")
    row = hostile_pages["fidelity"].text.split(f"{HOSTILE[place]}numeric")[-1]
    wasserstein = columns[place]["wasserstein"]
    assert row.split(" SD")[0].endswith(f"{wasserstein:.3f}")
    assert row.split(" SD")[1].startswith("not shown")
    text = hostile_pages["privacy"].text
    assert "R, referencefewer than 11" in text
    assert "equal a member'sunder 0.35 %" in text
    attacker = "of these, known to the attacker (reference)"
    assert f"{attacker}fewer than 11" in hostile_pages["release"].text
    assert "under 0.3 %" in hostile_pages["utility"].text  # the share of a group


@each_page
def test_hostile_names_stay_letters(hostile_pages, name):
    page = hostile_pages[name]
    assert "<script>alert(1)</script>" in page.text and "{{7*7}}" in page.text
    assert ("$x$" in page.text and "日本語" in page.text) or name == "release"
    assert HOSTILE[-1] not in page.source  # 10,000 characters are cut
    assert "\u202e" not in page.source and "\x00" not in page.source
    assert not page.all("script")
    assert all(attrs["src"].startswith("data:") for attrs in page.all("img"))
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)


def test_verdict_and_override_are_in_words(hostile_pages):
    text = hostile_pages["privacy"].text
    assert f"FLAG{words.VERDICTS['FLAG'][1]}" in text
    assert "released although the verdict is FLAG" in text
    assert "The reason given: agreed by the board <b>" in text
    text = hostile_pages["release"].text
    assert "was put into the release folder" in text
    assert "It was released although the verdict is FLAG. The reason given: agreed" in text


def test_an_audit_without_the_model_has_a_page(tmp_path):
    audit = example("audit") | {"white_box": [], "model": None, "verdict": "PASS"}
    (tmp_path / "a.json").write_text(json.dumps(audit), encoding="utf-8")
    page = Page(report("privacy", tmp_path / "page.html", audit=tmp_path / "a.json"))
    assert "was not given the model" in page.text and "PASSNo attack did better" in page.text
    assert "released although" not in page.text


def poor_evaluation():
    """Nothing to predict, no gaps, no group, no floor, few patients."""
    evaluation = example("evaluation") | {"utility": None}
    fidelity, bias = evaluation["fidelity"], evaluation["bias"]
    for column in fidelity["columns"]:
        column["missing_real"] = column["missing_synthetic"] = 0.0
    empty = dict(names=[], together_real=[], together_synthetic=[], dependent=[])
    fidelity |= {"missingness": empty, "density": None, "rare": [], "caps": []}
    for measure in fidelity["measures"]:
        measure |= dict.fromkeys(
            ["at_floor_size", "floor", "ratio", "ratio_low", "ratio_high", "low", "high"]
        )
    for detection in fidelity["detections"]:
        detection |= {"floor_auc": None, "auc_at_floor_size": None, "clues": []}
    bias |= {"groups": [], "fairness": []}
    bias["diversity"] |= dict.fromkeys(
        ["levels_floor", "pairs_floor", "entropy_floor", "distinct_floor", "collapse_p"]
    )
    return evaluation


@pytest.mark.parametrize("name", ["release", "fidelity", "utility"])
def test_a_table_without_target_gaps_or_groups_has_a_page(tmp_path, name):
    (tmp_path / "e.json").write_text(json.dumps(poor_evaluation()), encoding="utf-8")
    more = {"panels": 2} if name == "fidelity" else {}
    page = Page(report(name, tmp_path / "page.html", evaluation=tmp_path / "e.json", **more))
    for shown in {
        "release": ["Useful: not tested.", "Private: not tested.", "it was not audited"],
        "fidelity": ["No column has gaps", f"The 2 of {COLUMNS} columns", "Nothing: all pairs"],
        "utility": ["No target column was named", "No group has enough patients"],
    }[name]:
        assert shown in page.text, shown


def test_a_regression_and_what_balancing_did_have_a_page(tmp_path):
    evaluation = example("evaluation")
    utility, bias = evaluation["utility"], evaluation["bias"]
    evaluation["rows"].pop("reference", None)  # `evaluate` knows of no reference
    utility |= {"task": "regression", "metric": "R2", "survival": None, "coefficients": None}
    utility["claim"] |= {"holds": None, "low": -0.01, "high": 0.05}
    for model in utility["models"]:
        model["calibration"] = []
    utility["agreements"][0]["tau"] = None
    other = json.loads(json.dumps(bias))
    other["worst"], other["fairness"] = "Less is wrong.", other["fairness"][:2]
    other["fairness"][0]["gap_synthetic"] = 0.123
    bias |= {"balance": "sex", "balanced": other}
    (tmp_path / "e.json").write_text(json.dumps(evaluation), encoding="utf-8")
    page = Page(report("utility", tmp_path / "page.html", evaluation=tmp_path / "e.json"))
    for shown in ("Is it useful?? Cannot tell", "Not asked: the target is not a yes or no",
                  "What balancing did", "equal shares of sex", "Less is wrong.", "0.123",
                  "No regression was fitted"):  # fmt: skip
        assert shown in page.text, shown
    assert "Do patients live as long?" not in page.text
    page = Page(report("release", tmp_path / "page.html", evaluation=tmp_path / "e.json"))
    lost = 100 * utility["claim"]["relative_loss"]
    assert "real recordsnot stated" in page.text and f"{lost:.1f} % of the R2" in page.text


def test_an_audit_alone_has_a_first_page(tmp_path):
    page = Page(report("release", tmp_path / "page.html", audit=EXAMPLES / "audit.json"))
    assert "Faithful: not tested. Useful: not tested. Fair: not tested. Private: no." in page.text


def test_only_what_cells_show_as_html_is_on_the_page(template, tmp_path):
    template(
        "import sys, warnings\nprint('SPOKEN')\nprint('SHOUTED', file=sys.stderr)\n"
        "warnings.warn('WARNED')\n'PLAIN'",
        "from synthmed_nb.plots import Html\nHtml('<p>MEANT</p>')",
    )
    page = report("small", tmp_path / "small.html").read_text(encoding="utf-8")
    assert "<p>MEANT</p>" in page
    for word in ("SPOKEN", "SHOUTED", "WARNED", "PLAIN", "import sys"):
        assert word not in page


# the run


@each_page
def test_same_inputs_same_bytes(pages, tmp_path, name):
    first = pages["paths"][name]
    inputs = {*INPUTS[name], "manifest"}
    files = {key: first.parent / f"{key}.json" for key in inputs}
    second = report(name, tmp_path / "again" / "other.html", pages=True, **files)
    assert first.read_bytes() == second.read_bytes()
    record = first.with_name(f"{name}.provenance.json").read_bytes()
    assert record == second.with_name("other.provenance.json").read_bytes()
    assert set(json.loads(record)["inputs"]) == inputs
    assert str(first.parent) not in record.decode()
    assert sorted(p.name for p in second.parent.iterdir()) == [
        "other.html", "other.provenance.json",
    ]  # fmt: skip


def test_the_kernel_is_this_python_and_the_environment_is_left_alone(template, tmp_path):
    template(
        "import os, sys\nfrom synthmed_nb.plots import Html\n"
        "Html(f\"<p>{sys.executable} {os.environ['PYTHONHASHSEED']} {os.getcwd()}</p>\")"
    )
    before = dict(os.environ)
    page = report("small", tmp_path / "small.html").read_text(encoding="utf-8")
    assert f"<p>{sys.executable} 0 {os.getcwd()}</p>" in page
    assert dict(os.environ) == before


def test_a_failing_cell_leaves_the_notebook_and_no_page(template, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(reports.TemporaryDirectory, "__init__", _in(scratch))
    template("1 + 1", "raise KeyError('lost')", "2 + 2")
    out = tmp_path / "out"
    with pytest.raises(ReportError, match=r"small report failed \(KeyError\).*page.failed.ipynb"):
        report("small", out / "page.html")
    assert [p.name for p in out.iterdir()] == ["page.failed.ipynb"]
    failed = (out / "page.failed.ipynb").read_text(encoding="utf-8")
    assert "lost" in failed and json.loads(failed)["cells"]
    assert not list(scratch.iterdir())

    template("1 + 1")  # mended: the traces of the failure go
    report("small", out / "page.html")
    assert sorted(p.name for p in out.iterdir()) == ["page.html", "page.provenance.json"]


def _in(folder):
    original = reports.TemporaryDirectory.__init__

    def init(self, **how):
        original(self, **how | {"dir": folder})

    return init


def test_a_dead_kernel_is_a_report_error(template, tmp_path):
    template("import os\nos._exit(1)")
    with pytest.raises(ReportError, match="died"):
        report("small", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_broken_results_give_no_page(tmp_path):
    (tmp_path / "audit.json").write_text('{"verdict": "PA', encoding="utf-8")
    with pytest.raises(ReportError, match="JSONDecodeError"):
        report("privacy", tmp_path / "privacy.html", audit=tmp_path / "audit.json")
    assert not (tmp_path / "privacy.html").exists()


@pytest.mark.parametrize(
    "parameters",
    [
        {"x=1; open('owned', 'w'); y": 1},
        {"seed": 1},
        {"panels": "1; import os"},
        {"evaluation": "no-such-file.json"},
        {"manifest": 3},
    ],
)
def test_wrong_parameters_are_refused_before_work(tmp_path, monkeypatch, parameters):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reports, "_executed", lambda *_: pytest.fail("the template was run"))
    with pytest.raises(InputError):
        report("fidelity", "page.html", **parameters)
    assert not list(tmp_path.iterdir())


def test_values_with_quotes_and_braces_are_only_values(tmp_path):
    odd = tmp_path / 'it\'s {odd} "name".json'
    odd.write_text(json.dumps(example("audit")), encoding="utf-8")
    page = report("privacy", tmp_path / "a {b}.html", audit=odd)
    assert page.exists() and "odd" not in page.read_text(encoding="utf-8")


def test_every_template_declares_what_it_takes():
    for name in INPUTS:
        declared = report_parameters(name)
        assert declared and all(p.help and p.name.isidentifier() for p in declared)
        assert {*INPUTS[name], "manifest", "pages"} <= {p.name for p in declared}


def test_templates_show_an_example_of_their_own(tmp_path):
    page = Page(report("privacy", tmp_path / "privacy.html"))
    assert "This is an example" in page.text and "sha256" not in page.text
