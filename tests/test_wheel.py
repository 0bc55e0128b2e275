"""What a user installs: a wheel, in an empty environment, in an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"


def done(*words, codes=(0,), **options):
    """Run a command; returns what it said on standard output."""
    result = subprocess.run([*map(str, words)], capture_output=True, text=True, **options)
    assert result.returncode in codes, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the source distribution, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    left_out = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(ROOT / "synthmed_nb", source / "synthmed_nb", ignore=left_out)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, source)
    sdist = source / "dist" / done(sys.executable, "-c", BUILD, cwd=source).splitlines()[-1]
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done(*pip, "-w", folder, sdist)
    return next(folder.glob("*.whl"))


def test_what_is_in_the_wheel(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    templates = [
        f"templates/{page}.ipynb" for page in ("release", "fidelity", "utility", "privacy")
    ]
    for name in (*templates, "data/nhanes.csv.gz"):
        assert f"synthmed_nb/{name}" in names
    assert any(name.startswith("synthmed_nb/templates/html/") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    strays = [n for n in names if not n.startswith(("synthmed_nb/", f"synthmed_nb-{version()}"))]
    assert not strays and wheel.stat().st_size < 1_500_000


def version():
    import synthmed_nb

    return synthmed_nb.__version__


def needed(distribution, extras=(), found=None):
    """All that a distribution requires, as it is installed here, by name."""
    found = {} if found is None else found
    for asked in map(Requirement, distribution.requires or ()):
        name = canonicalize_name(asked.name)
        wanted = not asked.marker or any(
            asked.marker.evaluate({"extra": extra}) for extra in ("", *extras)
        )
        if wanted and name not in found:
            found[name] = metadata.distribution(name)
            needed(found[name], asked.extras, found)
    return found


TABLE = """
from synthmed_nb.datasets import load_nhanes
columns = ["age_years", "sex", "sbp_mmhg", "diabetes"]
load_nhanes()[columns].head(500).to_csv("table.csv", index=False)
"""


def test_a_run_needs_no_sources(wheel, tmp_path):
    """In an environment that holds the wheel and what it asks for, linked from this one."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    done(*pip, "install", "-q", "--no-deps", wheel)
    there = Path(done(python, "-c", "import sysconfig as s; print(s.get_path('purelib'))").strip())
    known = metadata.Distribution.at(next(there.glob("synthmed_nb-*.dist-info")))
    for distribution in needed(known).values():
        for path in distribution.files:
            if path.locate().is_file():
                (there / path).parent.mkdir(parents=True, exist_ok=True)
                (there / path).unlink(missing_ok=True)
                (there / path).symlink_to(path.locate())
    assert "No broken requirements" in done(*pip, "check")
    installed = {p["name"].lower() for p in json.loads(done(*pip, "list", "--format=json"))}
    assert "synthmed-nb" in {name.replace("_", "-") for name in installed}
    assert not {"nbdev", "fastcore", "execnb", "pytest"} & installed

    empty = tmp_path / "empty"
    empty.mkdir()
    hidden = ("PYTHONPATH", "SYNTHMED_DATA", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done(python, "-c", TABLE, cwd=empty, env=environment)
    command = [python.with_name("synthmed"), "run", "table.csv", "--target", "diabetes"]
    options = ["--steps", 5, "--rows", 100, "--out", "reports/run"]
    said = done(*command, *options, cwd=empty, env=environment, codes=(0, 1))
    out = empty / "reports" / "run"
    manifest = json.loads((out / "manifest.json").read_text())
    assert f"verdict     {manifest['results']['verdict']}" in said
    for name in ("release.html", "fidelity.html", "utility.html", "privacy.html"):
        assert (out / name).stat().st_size > 10_000
    assert (out / "private" / "synthetic.parquet").exists()
    assert {path.name for path in empty.iterdir()} == {"reports", "table.csv"}
