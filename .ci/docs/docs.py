"""Render tours and rooms into a folder of plain pages: `python .ci/docs/docs.py _docs`.

Tours are run, on the embedded table and one thread; rooms are shown as they stand, because their
cells are tests, and tests print nothing. No network: formulas become MathML here, styles are in
each page, and there is no script.
"""

import html
import os
import re
import shutil
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import latex2mathml.converter
import nbformat
from nbconvert import HTMLExporter, TemplateExporter
from nbconvert.filters import Highlight2HTML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from pygments.formatters import HtmlFormatter

from synthmed_nb.reports import PAGES, _executed

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STYLES = (ROOT / "synthmed_nb" / "templates" / "html" / "page.css", HERE / "docs.css")
WINGS = {  # by the first digits of a room's number
    "0": "Tables",
    "1": "The model",
    "23": "Privacy: neighbours, statistics, attacks",
    "45": "Fidelity, utility, bias",
    "6": "Figures and pages",
    "7": "Runs and commands",
}
HIDDEN = re.compile(r"#\| *(hide|default_exp)\b")
INLINE = "%matplotlib inline\n%config InlineBackend.figure_formats = ['retina']"
NOTE = re.compile(r"^.*?: DataNote: (.*)$", re.MULTILINE)


def notebooks() -> tuple[list[Path], list[Path]]:
    """Tours and rooms, in the order of their numbers."""
    found = sorted((ROOT / "nbs").glob("[0-9][0-9]*_*.ipynb"))
    return [p for p in found if p.name[0] == "9"], [p for p in found if p.name[0] != "9"]


@cache
def head(path: Path) -> tuple[str, str]:
    """Title and sentence of a notebook."""
    source = nbformat.read(path, as_version=4).cells[0].source
    title, sentence = re.match(r"# (.+)\n+> (.+)", source).groups()
    return title, sentence


class Prose(IPythonRenderer):
    """Markdown as HTML, with formulas as MathML and names of rooms as links."""

    pages = {path.stem.split("_", 1)[1]: f"{path.stem}.html" for path in notebooks()[1]}

    def codespan(self, text: str) -> str:
        """Code within a line; a link if it names a room."""
        code = super().codespan(text)
        page = self.pages.get(html.unescape(text))
        return f'<a href="{page}">{code}</a>' if page else code

    def inline_math(self, body: str) -> str:
        """A formula within a line."""
        return latex2mathml.converter.convert(body)

    def block_math(self, body: str) -> str:
        """A formula on a line of its own."""
        return latex2mathml.converter.convert(body, display="block")


def prose(source: str) -> str:
    """Markdown of a cell as HTML."""
    return MarkdownWithMath(Prose(escape=False, exclude_anchor_links=True)).render(source)


def run(path: Path) -> NotebookNode:
    """A tour with its outputs; papermill raises an error if a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, new_code_cell(INLINE))
    with TemporaryDirectory(prefix="docs-") as folder:
        nbformat.write(notebook, Path(folder) / "tour.ipynb")
        notebook = _executed(Path(folder) / "tour.ipynb", {}, Path(folder))
    del notebook.cells[0]
    return notebook


def shown(notebook: NotebookNode, room: bool) -> NotebookNode:
    """The cells that are shown, without directives, warnings cut to what they say."""
    notebook.cells = [cell for cell in notebook.cells if not HIDDEN.match(cell.source)]
    for cell in notebook.cells[1:]:
        if cell.cell_type != "code":
            continue
        lines = cell.source.splitlines()
        told = [line for line in lines if line.startswith("#|")]
        alt = [line.partition("fig-alt:")[2].strip() for line in told if "fig-alt:" in line]
        kind = "module" if any("export" in line for line in told) else "test"
        cell.metadata = {"kind": kind if room else "", "alt": " ".join(alt)}
        cell.source = "\n".join(line for line in lines if line not in told).strip()
        for output in cell.outputs:
            if output.get("name") == "stderr":
                output.text = "\n".join(f"note: {line}" for line in NOTE.findall(output.text))
    return notebook


@cache
def style() -> str:
    """The style sheet of all pages: that of the reports, ours, and colours of code."""
    light, dark = HtmlFormatter(style="xcode"), HtmlFormatter(style="github-dark")
    code = light.get_style_defs(".highlight")
    code += "@media (prefers-color-scheme: dark) {" + dark.get_style_defs(".highlight") + "}"
    return "\n".join([code, *(path.read_text(encoding="utf-8") for path in STYLES)])


@cache
def menu() -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of the navigation: a heading, and name and title of each page."""
    tours, rooms = notebooks()
    groups = [("Tours", tours)]
    groups += [(name, [p for p in rooms if p.name[0] in key]) for key, name in WINGS.items()]
    return [(name, [(p.stem, head(p)[0]) for p in paths]) for name, paths in groups]


@cache
def exporter() -> HTMLExporter:
    """What turns a notebook into a page."""
    filters = {"prose": prose, "highlight_code": Highlight2HTML(pygments_lexer="python3")}
    how = {"template_name": "page", "filters": filters}
    return HTMLExporter(extra_template_basedirs=[str(HERE)], **how)


def page(notebook: NotebookNode, name: str) -> str:
    """A notebook as one page; `name` is its file name without the ending."""
    groups = menu()
    order = [("index", "Contents")] + [entry for _, entries in groups for entry in entries]
    place = [stem for stem, _ in order].index(name)
    title = re.match(r"# (.+)", notebook.cells[0].source)[1]
    ours = {
        "title": title,
        "name": name,
        "style": style(),
        "menu": groups,
        "before": order[place - 1] if place else None,
        "after": (order[1:] + [None])[place],
    }
    # Not HTMLExporter's own: it parses each page once more, which takes most of the time.
    return TemplateExporter.from_notebook_node(exporter(), notebook, resources={"docs": ours})[0]


def index(examples: list[Path]) -> NotebookNode:
    """The first page: what it is, the tours, the example pages, the rooms."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = [readme.partition("\n## ")[0]]
    titles = {
        p: re.search("<title>(.*)</title>", p.read_text(encoding="utf-8"))[1] for p in examples
    }
    groups = {name: [stem for stem, _ in entries] for name, entries in menu()}
    for name, stems in groups.items():
        lines = [(stem, *head(ROOT / "nbs" / f"{stem}.ipynb")) for stem in stems]
        told = [f"* [{title}]({stem}.html): {sentence}" for stem, title, sentence in lines]
        parts.append("\n".join([f"## {name}", "", *told]))
        if name == "Tours" and examples:
            told = [f"* [{title}](examples/{path.name})" for path, title in titles.items()]
            said = "Made from the embedded table by `make examples`, as a run leaves them."
            parts.append("\n".join(["## Example pages", "", said, "", *told]))
    cells = [nbformat.v4.new_markdown_cell(part) for part in parts]
    return nbformat.v4.new_notebook(cells=cells)


def build(folder: Path, only: set[str] | None = None, execute: bool = True) -> list[Path]:
    """Write the pages into a folder.

    Args:
        folder: older pages in it are removed.
        only: stems of the notebooks to render; None: all.
        execute: False shows the tours without outputs.

    Returns:
        The paths of the pages.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "examples").mkdir(parents=True)
    examples = [ROOT / "reports" / "examples" / f"{name}.html" for name in PAGES]
    examples = [path for path in examples if path.is_file()]
    for path in examples:
        shutil.copyfile(path, folder / "examples" / path.name)
    pages = {"index": page(index(examples), "index")}
    tours, rooms = notebooks()
    for path in (*tours, *rooms):
        if only is None or path.stem in only:
            tour = path in tours
            done = run(path) if tour and execute else nbformat.read(path, as_version=4)
            pages[path.stem] = page(shown(done, room=not tour), path.stem)
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return [folder / f"{name}.html" for name in pages]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(build(Path(sys.argv[1]))[0])
