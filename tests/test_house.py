"""The rules of the house: layers, budgets of notebooks, what a module may hold."""

import ast
import importlib
import json
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

import synthmed_nb

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
CHAPTERS = [path for path in NOTEBOOKS if re.match(r"[0-8]\d[a-z]?_", path.name)]  # 9x are tours
TOURS = [path for path in NOTEBOOKS if path not in CHAPTERS]
TEMPLATES = sorted((ROOT / "synthmed_nb" / "templates").glob("*.ipynb"))
LAYER = {name: number for number, name in (path.stem.split("_", 1) for path in CHAPTERS)}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS + TEMPLATES, ids=lambda p: p.stem)
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
each_template = pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
each_module = pytest.mark.parametrize("module", LAYER)


def settings():
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def optional():
    """What the extras require, all but those of a developer."""
    keys = [key for key in settings() if key.endswith("_requirements")]
    return " ".join(settings()[key] for key in keys if key != "dev_requirements")


def cells(path, kind=None):
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if kind in (None, cell["cell_type"])]


def source(cell):
    return "".join(cell["source"])


def tree(module):
    path = ROOT / "synthmed_nb" / f"{module}.py"
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(parsed):
    """Every imported module; one of ours starts with a dot, also where it is written in full."""
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        else:
            continue
        yield from (re.sub(r"^synthmed_nb\b\.?", ".", name) for name in names)


# layers and modules


def test_there_is_something_to_check():
    assert len(CHAPTERS) >= 10 and len(TEMPLATES) >= 2
    assert set(LAYER.values()) and len(LAYER) == len(set(LAYER.values()))


@each_module
def test_a_module_imports_lower_numbers_only(module):
    parsed = tree(module)
    for node in ast.walk(parsed):  # public names of the package could lead anywhere
        if isinstance(node, ast.ImportFrom) and (node.level, node.module) in (
            (1, None),
            (0, "synthmed_nb"),
        ):
            assert [alias.name for alias in node.names] == ["__version__"]
    for name in imports(parsed):
        if name.startswith(".") and name != ".":
            assert name[1:] in LAYER, f"{module} imports from {name}, which is no chapter"
            assert LAYER[name[1:]] < LAYER[module], f"{module} imports {name}, a higher layer"


def test_every_generated_module_has_its_notebook():
    modules = {path.stem for path in (ROOT / "synthmed_nb").glob("*.py")}
    assert modules - {"__init__", "_modidx"} == set(LAYER)


@each_module
def test_no_star_imports(module):
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom):
            assert "*" not in [alias.name for alias in node.names]


@each_module
def test_loading_runs_no_code(module):
    """Nothing here can load a pickle, whoever made it."""
    parsed = tree(module)
    forbidden = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not forbidden & {name.split(".")[0] for name in imports(parsed)}
    for node in ast.walk(parsed):
        if isinstance(node, ast.Attribute):
            assert "pickle" not in node.attr
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            assert (owner, node.attr) not in {("torch", "load"), ("torch", "save")}
        if isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}


@each_module
def test_no_network(module):
    forbidden = {"socket", "ssl", "urllib", "http", "requests", "ftplib", "smtplib", "asyncio"}
    assert not forbidden & {name.split(".")[0] for name in imports(tree(module))}


@each_module
def test_every_public_name_has_a_docstring(module):
    parsed = tree(module)
    assert ast.get_docstring(parsed), f"{module} has no docstring"
    for node in parsed.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}.{node.name} has no docstring"


@each_module
def test_no_module_holds_traces_of_its_notebook(module):
    """No directive, no magic, no test left over in the exported text."""
    text = (ROOT / "synthmed_nb" / f"{module}.py").read_text(encoding="utf-8")
    assert not re.search(r"^#\|", text, re.MULTILINE)
    assert "import pytest" not in text and "get_ipython" not in text


def test_every_import_is_declared():
    """What a module, template or tour imports is in settings.ini, not in another's requirements."""
    names = {
        "faiss": "faiss-cpu", "sklearn": "scikit-learn", "IPython": "ipython",
        "icdmappings": "icd-mappings", "simple_icd_10_cm": "simple-icd-10-cm",
        "faker": "Faker", "sqlalchemy": "SQLAlchemy",
    }  # fmt: skip
    declared = {re.split(r"[^\w.-]", word)[0] for word in settings()["requirements"].split()}
    extras = {re.split(r"[^\w.-]", word)[0] for word in optional().split()}
    parsed = [tree(module) for module in LAYER]
    for path in TEMPLATES + TOURS:
        parsed.extend(ast.parse(source(cell)) for cell in cells(path, "code"))

    def used(statements):
        tops = {name.split(".")[0] for part in statements for name in imports(part)} - {""}
        return {names.get(top, top) for top in tops - sys.stdlib_module_names}

    assert used(parsed) - declared - extras == set()
    inside = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    first = [node for module in parsed for node in module.body if not isinstance(node, inside)]
    assert used(first) - declared == set()  # an extra may not be there: imported where it is used


def test_public_names():
    for name in synthmed_nb.__all__:
        assert getattr(synthmed_nb, name) is not None
        assert name in dir(synthmed_nb)
    with pytest.raises(AttributeError, match="no_such_name"):
        synthmed_nb.no_such_name  # noqa: B018
    assert importlib.import_module("synthmed_nb.datasets") is synthmed_nb.datasets


def test_settings_is_the_only_place_of_the_version():
    version = settings()["version"]
    assert synthmed_nb.__version__ == version  # written there by nbdev_export
    for name in ("setup.py", "pyproject.toml", "Makefile", "constraints.txt", *LAYER):
        path = ROOT / name if "." in name or name == "Makefile" else None
        path = path or ROOT / "synthmed_nb" / f"{name}.py"
        assert f'"{version}"' not in path.read_text(encoding="utf-8"), path.name


def test_pins_agree():
    """An exact pin of settings.ini is the pin of constraints.txt, and each requirement has one."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    required = f"{settings()['requirements']} {settings()['dev_requirements']} {optional()}"
    for word in required.split():
        requirement = word.split(";")[0]
        name, _, version = requirement.partition("==")
        name = re.split(r"[<>=!~]", name)[0]
        assert name in pins, f"{name} is not pinned"
        assert version in ("", pins[name])


# notebooks


@each_chapter
def test_a_chapter_keeps_its_budget(path):
    exported = [source(c) for c in cells(path, "code") if source(c).startswith("#| export")]
    assert len(cells(path)) <= 60
    assert sum(len(text.splitlines()) for text in exported) <= 400
    for text in exported:
        parts = ast.parse(text).body
        if len(parts) == 1 and isinstance(parts[0], ast.ClassDef):  # a class: its methods count
            parts = parts[0].body
        else:
            assert len(text.splitlines()) <= 60
        assert max(part.end_lineno - part.lineno + 1 for part in parts) <= 60
    assert path.stat().st_size <= 120 * 1024


@each_chapter
def test_one_default_export_named_like_the_file(path):
    text = "\n".join(source(cell) for cell in cells(path, "code"))
    _, module = path.stem.split("_", 1)
    assert re.findall(r"^#\| *default_exp (\S+)", text, re.MULTILINE) == [module]


@each_chapter
def test_a_chapter_opens_with_title_and_sentence(path):
    first = cells(path)[0]
    assert first["cell_type"] == "markdown"
    assert re.match(r"# .+\n\n> \S.*", source(first))


@each_notebook
def test_no_outputs(path):
    for cell in cells(path, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None, cell["id"]


@each_notebook
def test_cell_ids_are_names(path):
    ids = [cell["id"] for cell in cells(path)]
    assert len(ids) == len(set(ids))
    for name in ids:
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name), name
        assert not re.fullmatch(r"(?=.*\d)[0-9a-f]{8}(-[0-9a-f-]+)?", name), f"{name} is no name"


@each_template
def test_parameters_are_tagged_once(path):
    tags = [tag for cell in cells(path) for tag in cell["metadata"].get("tags", [])]
    assert tags.count("parameters") == 1


@each_template
def test_a_template_defines_no_functions(path):
    for cell in cells(path, "code"):
        kinds = [type(node) for node in ast.walk(ast.parse(source(cell)))]
        assert not {ast.FunctionDef, ast.ClassDef} & set(kinds), cell["id"]


@pytest.mark.parametrize("path", TOURS, ids=lambda p: p.stem)
def test_a_tour_is_read_and_not_exported(path):
    assert re.match(r"# .+\n\n> \S.*", source(cells(path)[0])) and len(cells(path)) <= 60
    assert not any(re.match(r"#\| *(export|default_exp)", source(c)) for c in cells(path, "code"))


def test_the_tags_survive_cleaning():
    assert settings()["allowed_cell_metadata_keys"] == "tags"
    assert settings()["clear_all"] == "False"
