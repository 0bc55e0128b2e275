"""Reports end to end: what is on a page, what is not, and what happens when a template fails."""

import json
import os
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_pages import EXAMPLES, example, pages_of

from synthmed_nb import reports
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
        self.text += data

    def all(self, *names):
        return [attrs for tag, attrs in self.tags if tag in names]


@pytest.fixture(scope="module")
def pages():
    made = pages_of("plain")
    return {name: Page(path) for name, path in made.items()} | {"paths": made}


@pytest.fixture(scope="module")
def hostile_pages():
    return {name: Page(path) for name, path in pages_of("hostile").items()}


each_page = pytest.mark.parametrize("name", ["fidelity", "privacy"])


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
    fidelity, utility = evaluation["fidelity"], evaluation["utility"]
    for shown in (
        f"{fidelity['score']:.1f} %",
        f"{fidelity['detection']['auc']:.3f}",
        f"{fidelity['shape']['value']:.2f} %",
        f"{fidelity['missing_worst']:.1f} points",
        f"{utility['gap']:.3f}",
        f"{evaluation['rows']['train']:,} real ones",
        *(column["name"] for column in fidelity["columns"]),
    ):
        assert shown in pages["fidelity"].text, shown
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
    for name in ("fidelity", "privacy"):
        for digest in example("manifest")["inputs"].values():
            assert digest in pages[name].text


@each_page
def test_a_page_is_self_contained(pages, name):
    page = pages[name]
    for tag, attrs in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "form", "base"}
        for key, value in attrs.items():
            assert not key.startswith("on") and key != "style"
            if key in {"src", "href", "srcset"}:
                assert value.startswith(("data:", "#")), value[:50]
    policies = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'; img-src data:;")
    assert "url(" not in page.source and "@import" not in page.source


@each_page
def test_a_page_can_be_read_by_everyone(pages, name):
    page = pages[name]
    assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == 1
    assert len(page.all("title")) == 1 and len(page.all("main")) == 1
    assert page.all("img") and all(len(attrs["alt"]) > 30 for attrs in page.all("img"))
    assert all(attrs.get("scope") in {"col", "row"} for attrs in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) > 3


@each_page
def test_a_page_names_no_path_and_no_machine(pages, name):
    path = pages["paths"][name]
    for secret in (str(path.parent), path.parent.name, sys.prefix, str(Path.home()) + "/"):
        assert secret not in pages[name].source


def test_a_page_shows_no_rate_that_is_a_small_count(hostile_pages):
    row = hostile_pages["fidelity"].text.split("日本語 μnumeric")[-1]
    assert row.startswith("2.1 %not shown12.2 %")
    text = hostile_pages["privacy"].text
    assert "R, referencefewer than 11" in text
    assert "equal a member'sunder 0.35 %" in text


@each_page
def test_hostile_names_stay_letters(hostile_pages, name):
    page = hostile_pages[name]
    assert "<script>alert(1)</script>" in page.text and "{{7*7}}" in page.text
    assert "$x$" in page.text and "日本語" in page.text
    assert "\u202e" not in page.source and "\x00" not in page.source
    assert not page.all("script")
    assert all(attrs["src"].startswith("data:") for attrs in page.all("img"))
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)


def test_verdict_and_override_are_in_words(hostile_pages):
    text = hostile_pages["privacy"].text
    assert f"FLAG{reports.VERDICTS['FLAG'][1]}" in text
    assert "released although the verdict is FLAG" in text
    assert "The reason given: agreed by the board <b>" in text


def test_an_audit_without_the_model_has_a_page(tmp_path):
    audit = example("audit") | {"white_box": [], "model": None, "verdict": "PASS"}
    (tmp_path / "a.json").write_text(json.dumps(audit), encoding="utf-8")
    page = Page(report("privacy", tmp_path / "page.html", audit=tmp_path / "a.json"))
    assert "was not given the model" in page.text and "PASSNo attack did better" in page.text
    assert "released although" not in page.text


def test_a_table_without_target_or_gaps_has_a_page(tmp_path):
    evaluation = example("evaluation") | {"utility": None}
    for column in evaluation["fidelity"]["columns"]:
        column["missing_real"] = column["missing_synthetic"] = 0.0
    (tmp_path / "e.json").write_text(json.dumps(evaluation), encoding="utf-8")
    page = Page(
        report("fidelity", tmp_path / "page.html", evaluation=tmp_path / "e.json", panels=2)
    )
    assert "No target column was named" in page.text and "No column has gaps" in page.text
    assert "The 2 of 8 columns" in page.text


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
    key = {"fidelity": "evaluation", "privacy": "audit"}[name]
    files = {k: first.parent / f"{k}.json" for k in (key, "manifest")}
    second = report(name, tmp_path / "again" / "other.html", **files)
    assert first.read_bytes() == second.read_bytes()
    record = first.with_name(f"{name}.provenance.json").read_bytes()
    assert record == second.with_name("other.provenance.json").read_bytes()
    assert set(json.loads(record)["inputs"]) == {key, "manifest"}
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
    with pytest.raises(ReportError):
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
    for name in ("fidelity", "privacy"):
        declared = report_parameters(name)
        assert declared and all(p.help and p.name.isidentifier() for p in declared)
        assert "manifest" in [p.name for p in declared]


def test_templates_show_an_example_of_their_own(tmp_path):
    page = Page(report("privacy", tmp_path / "privacy.html"))
    assert "This is an example" in page.text and "sha256" not in page.text
