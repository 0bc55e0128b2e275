"""The tests written in the notebooks, run against the exported modules that users import.

`nbdev_test` runs a notebook as it stands: there, a test sees the function of the cell above it.
Here the same test cells run in the namespace of the module, so an exported function that leans on
something only the notebook has fails, and coverage counts.
"""

import importlib
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "nbs").glob("[0-8][0-9]_*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_module_passes_the_tests_of_its_notebook(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    module = importlib.import_module(f"synthmed_nb.{path.stem[3:]}")
    names = dict(vars(module))
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code" and not text.startswith(("#| export", "#| default_exp")):
            exec(compile(text, f"{path.name}:{cell['id']}", "exec"), names)
