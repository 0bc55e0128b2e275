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

settings.register_profile("house", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("house")

LONG = {  # minutes each
    "test_audit_controls", "test_cli", "test_embedded", "test_tours", "test_utility", "test_wheel",
}  # fmt: skip
TRACED = {"test_cli", "test_pipeline", "test_plots", "test_reports", "test_schema"}
TRACED |= {"test_code_model", "test_codes", "test_dates", "test_fakes", "test_visits"}
TRACED |= {"test_requirements", "test_source_tables", "test_sources"}


def pytest_collection_modifyitems(items):
    """Long files first, so that no worker waits for them at the end.

    Coverage comes from a few files; to trace the others makes statistics a third slower.
    """
    items.sort(key=lambda item: item.path.stem not in LONG)
    for item in items:
        if item.path.stem not in TRACED:
            item.add_marker(pytest.mark.no_cover)
