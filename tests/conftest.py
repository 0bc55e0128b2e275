"""What every test may count on: where the data lie, quiet figures, the same examples each time."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"

if DATA.is_dir():
    os.environ.setdefault("SYNTHMED_DATA", str(DATA))
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tables: threads cost more than they bring

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

TRACED = {"test_notebooks", "test_cli", "test_pipeline", "test_reports", "test_schema"}


def pytest_collection_modifyitems(items):
    """Coverage comes from these files; to trace the others makes statistics a third slower."""
    for item in items:
        if item.path.stem not in TRACED:
            item.add_marker(pytest.mark.no_cover)
