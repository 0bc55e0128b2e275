"""The docs: tours run as a reader would run them, pages ask for nothing, links lead somewhere."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from papermill import PapermillExecutionError

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / ".ci" / "docs"))
import docs  # noqa: E402

TOURS, ROOMS = docs.notebooks()


class Page(HTMLParser):
    """What a page links to, loads, and says about its pictures."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.ids, self.alts, self.tags = [], [], set(), [], set()
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.add(tag)
        self.ids.add(found.get("id"))
        if tag == "a":
            self.links.append(found["href"])
        elif tag == "img":
            self.alts.append(found.get("alt"))
        self.loads += [found[key] for key in ("src", "srcset", "poster", "data") if key in found]
        self.loads += [found["href"]] if tag == "link" else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "_docs"
    docs.build(folder, execute=False)
    return folder


def test_every_notebook_has_its_page_and_is_listed(folder):
    index = Page(folder / "index.html")
    for path in (*TOURS, *ROOMS):
        assert (folder / f"{path.stem}.html").is_file() and f"{path.stem}.html" in index.links
    assert len(TOURS) >= 4 and any(link.startswith("examples/") for link in index.links)


def test_links_lead_somewhere(folder):
    pages = {path.name: Page(path) for path in folder.glob("*.html")}
    for name, page in pages.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            assert not re.match(r"\w+:|/", link), f"{name} leads outside: {link}"
            assert (folder / target).exists(), f"{name}: {link}"
            if anchor:
                assert anchor in pages[target or name].ids, f"{name}: {link}"


def test_pages_load_nothing_and_run_nothing(folder):
    for path in folder.glob("*.html"):
        page = Page(path)
        assert all(source.startswith("data:") for source in page.loads), path.name
        assert not page.tags & {"script", "iframe", "object"}, path.name
        assert not re.search(r"url\((?!data:)|@import", page.text.partition("</style>")[0])


def test_a_page_shows_prose_code_and_formulas_but_no_directive(folder):
    page = Page(folder / "12_schedules.html")
    assert {"math", "mover", "h2", "blockquote"} <= page.tags and "class CosineSchedule" not in (
        page.text.partition("<main")[0]
    )
    assert "CosineSchedule" in page.text and "default_exp" not in page.text
    for path in folder.glob("*.html"):
        assert not re.search(r"#\| ?(export|hide)", Page(path).text), path.name


@pytest.mark.parametrize("path", TOURS, ids=lambda path: path.stem)
def test_a_tour_runs(path, tmp_path):
    """No error, no warning but our own notes, no path of this machine, a text for each picture."""
    done = docs.run(path)
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert outputs and not [o for o in outputs if o.output_type == "error"]
    for output in outputs:
        if output.get("name") == "stderr":
            warned = re.findall(r"\w+Warning|DataNote", output.text)
            assert set(warned) == {"DataNote"}, output.text
    (tmp_path / "page.html").write_text(
        docs.page(docs.shown(done, room=False), path.stem), encoding="utf-8"
    )
    page = Page(tmp_path / "page.html")
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert all(page.alts) and len(page.alts) == pictures
    assert str(ROOT) not in page.text and "/tmp/" not in page.text


def test_a_bar_is_drawn_in_a_notebook_but_not_in_a_reproducible_build(tmp_path):
    call = "from synthmed_nb.faces import telling\nwith telling(None, 'fit') as say:\n    say(0.5)"
    sources = [call, f"import os\ndel os.environ['SOURCE_DATE_EPOCH']\n{call}"]
    cells = [docs.new_code_cell(source) for source in sources]
    docs.nbformat.write(docs.nbformat.v4.new_notebook(cells=cells), tmp_path / "bar.ipynb")
    silent, drawn = docs.run(tmp_path / "bar.ipynb").cells
    assert silent.outputs == []
    text = "".join(output.text for output in drawn.outputs)
    assert "fit:  50% |" in text and "fit: 100% |" in text


def test_a_tour_that_fails_stops_the_docs(tmp_path):
    notebook = docs.nbformat.v4.new_notebook(cells=[docs.new_code_cell("1 / 0")])
    docs.nbformat.write(notebook, tmp_path / "bad.ipynb")
    with pytest.raises(PapermillExecutionError, match="ZeroDivisionError"):
        docs.run(tmp_path / "bad.ipynb")
